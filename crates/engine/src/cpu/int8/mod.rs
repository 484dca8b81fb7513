//! Integer networks on CPUs: every instruction set gives the same bits.

#[cfg(test)]
mod bench_tests;
mod dense;
mod depthwise;
mod emit;
mod epilogue;
mod kernels;
#[cfg(test)]
mod layers_tests;
mod layout;
mod network;
mod plain;
#[cfg(test)]
mod programs_tests;
#[cfg(test)]
mod tests;
mod winograd;
#[cfg(test)]
mod winograd_tests;

pub use self::network::{Network, Workspace};
