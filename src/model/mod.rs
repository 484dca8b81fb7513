//! What the service promises of networks: cards, bundles on disk, their import, and the three that work together.
//!
//! [`fetch`] gets a package and [`import`] a file; a [`Bundle`] keeps a network under a digest, with its [`Contract`]. A [`ModelSet`]
//! opens the three bundles that work together and composes the networks that an executor takes; [`detector`] and [`landmarks`] say what
//! the numbers mean.

pub mod bare;
pub mod bench;
pub mod bundle;
pub mod calibrate;
pub mod contract;
pub mod detector;
pub mod fetch;
mod golden;
pub mod import;
pub mod landmarks;
pub mod list;
pub mod parity;
mod placement;
mod role;
mod set;
mod tunings;

pub use bundle::{Bundle, BundleError};
pub use contract::{Contract, ContractError, Metric};
pub use golden::{Golden, SelfTestError};
pub use role::Role;
pub use set::{Card, ModelSet, OpenError};
