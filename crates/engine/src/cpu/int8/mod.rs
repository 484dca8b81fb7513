//! Integer networks on CPUs: every instruction set gives the same bits.

#[cfg(test)]
mod bench_tests;
mod dense;
mod depthwise;
mod emit;
mod epilogue;
mod kernels;
mod layout;
mod network;
mod plain;
#[cfg(test)]
mod programs_tests;
#[cfg(test)]
mod tests;
mod winograd;

pub use self::network::{Network, Workspace};
