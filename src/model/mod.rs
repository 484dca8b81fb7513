//! Networks: bundles on disk, and the executors that run them.

mod executor;

pub use executor::{ExecuteError, Executor, InputSize, Role};
