//! The CUDA kernels on a CPU, for tests: see `emulate.h` for what is true to a device and what is not.

#![allow(unsafe_code, clippy::expect_used)] // for tests alone

use std::ffi::{CStr, c_char, c_void};

unsafe extern "C" {
    fn emulated_kernels() -> usize;
    fn emulated_kernel(at: usize, arguments: *mut usize, threads: *mut u32) -> *const c_char;
    fn run_emulated(at: usize, arguments: *const c_void, x: u32, y: u32, shared: u32, seed: u32);
}

/// A kernel that is compiled for the CPU.
#[derive(Debug, Clone)]
pub struct Emulated {
    at: usize,
    pub name: String,
    /// Bytes of its one argument.
    pub arguments: usize,
    /// Of a block.
    pub threads: u32,
}

/// All kernels.
pub fn kernels() -> Vec<Emulated> {
    // SAFETY: it counts.
    let count = unsafe { emulated_kernels() };
    let kernel = |at| {
        let (mut arguments, mut threads) = (0, 0);
        // SAFETY: there are so many; names are static.
        let name = unsafe { CStr::from_ptr(emulated_kernel(at, &raw mut arguments, &raw mut threads)) };
        Emulated { at, name: name.to_str().expect("a name in ASCII").to_owned(), arguments, threads }
    };
    (0..count).map(kernel).collect()
}

/// As arguments are aligned.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code)] [u8; 64]);

impl Emulated {
    /// Runs blocks of `shared` bytes of shared memory on a grid. Another seed is another order.
    ///
    /// # Safety
    /// The argument is what the kernel means by it; memory that it names lives, and nobody else uses it meanwhile.
    ///
    /// # Panics
    /// Where the argument is of another size.
    pub unsafe fn run(&self, argument: &[u8], grid: [u32; 2], shared: u32, seed: u32) {
        assert_eq!(argument.len(), self.arguments, "the argument of {}", self.name);
        let mut aligned = vec![Line([0; 64]); argument.len().div_ceil(64)];
        // SAFETY: so many bytes are there.
        unsafe {
            std::ptr::copy_nonoverlapping(argument.as_ptr(), aligned.as_mut_ptr().cast(), argument.len());
            run_emulated(self.at, aligned.as_ptr().cast(), grid[0], grid[1], shared, seed);
        }
    }
}
