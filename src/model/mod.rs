//! Networks: bundles on disk, their import, and the executors that run them.
//!
//! [`fetch`] gets a package, [`tfjs`] reads its tensors, [`architectures`] wires them to a [`graph`]; [`onnx`] reads both from
//! one file. A [`Bundle`] keeps them under a digest. A [`ModelSet`] opens the three bundles that work together; [`plan`] fuses what can be fused, an
//! [`Executor`] runs the plan; [`detector`] and [`landmarks`] say what the numbers mean.

pub mod architectures;
pub mod bare;
pub mod bench;
pub mod bundle;
pub mod calibrate;
pub mod candle;
pub mod contract;
pub mod detector;
mod cpu;
mod device;
mod executor;
pub mod fetch;
mod golden;
pub mod graph;
pub mod import;
mod input;
pub mod landmarks;
pub mod list;
pub mod onnx;
pub mod parity;
pub mod plan;
mod precision;
mod set;
pub mod shapes;
pub mod tfjs;
pub mod weights;

pub use bundle::{Bundle, BundleError};
pub use contract::{Contract, ContractError, Metric};
pub use cpu::{CpuExecutor, CpuNetwork, Held, held, methods};
pub use device::{DeviceChoice, DeviceError};
pub use executor::{ExecuteError, Executor, InputSize, Role};
pub use golden::Golden;
pub use precision::{NotAPrecision, Precision};
pub use set::{Card, ModelSet, OpenError};
