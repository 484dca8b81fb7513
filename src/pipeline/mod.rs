//! From bytes to decisions: straight lines over stages. Stages are pure where they can be and never import each other.

mod batch;
mod decide;
pub mod decode;
mod receipt;

pub use batch::{BatchLimits, Device, DeviceError, Lane, Output};
pub use decide::{RatePolicy, ThresholdError};
pub use decode::{DecodeError, DecodeLimits};
pub use receipt::{Bearer, MAX_RECEIPT_BYTES, RECEIPT_LIFETIME, Receipt, ReceiptError, Receipts};
