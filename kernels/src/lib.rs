//! The CUDA kernels as binaries. Their sources lie beside this crate: `net/`, and in `device.cuh` the instructions that they use; `emulate/` runs the same
//! sources on a CPU.

/// Binaries with all kernels of networks, for cards of one kind each: machine code first, then PTX. None where the build was told to leave CUDA out.
pub static NET: &[&[u8]] = &include!(concat!(env!("OUT_DIR"), "/net.rs"));

/// How long nvcc took for all of them.
pub const BUILD_SECONDS: &str = include_str!(concat!(env!("OUT_DIR"), "/seconds"));
