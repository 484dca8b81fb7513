//! From bytes to decisions: straight lines over stages. Stages are pure where they can be and never import each other.

mod batch;

pub use batch::{BatchLimits, Device, DeviceError, Lane, Output};
