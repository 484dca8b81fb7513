//! AMX: registers that are tiles, as volume 2 of Intel's manual describes them.

#![cfg_attr(not(all(target_arch = "x86_64", target_os = "linux")), allow(dead_code))]
#![allow(unsafe_code)]

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use std::arch::{
    asm,
    x86_64::{__cpuid_count, _xgetbv},
};

/// What LDTILECFG reads: the shape of each register.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    pub fn new() -> Self {
        Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] }
    }

    /// Rows, and bytes of a row.
    #[cfg(test)]
    pub fn of(&self, register: u8) -> (usize, usize) {
        (self.rows[usize::from(register)].into(), self.row_bytes[usize::from(register)].into())
    }

    /// # Panics
    /// Where there is no such register.
    pub fn set(&mut self, register: u8, rows: usize, row_bytes: usize) {
        self.rows[usize::from(register)] = rows as u8;
        self.row_bytes[usize::from(register)] = row_bytes as u16;
    }
}

/// The unit.
pub trait Tiles {
    /// LDTILECFG: all registers become zero.
    ///
    /// # Safety
    /// The machine has AMX and the process may use it; so for all of these.
    unsafe fn configure(&mut self, shapes: &Shapes);
    /// TILELOADD: rows `stride` bytes apart.
    ///
    /// # Safety
    /// All rows can be read.
    unsafe fn load<const REGISTER: u8>(&mut self, from: *const u8, stride: isize);
    /// TDPBUSD: adds the products of bytes without a sign and of bytes with one.
    ///
    /// # Safety
    /// The registers' shapes fit.
    unsafe fn multiply<const SUMS: u8, const CODES: u8, const WEIGHTS: u8>(&mut self);
    /// TILESTORED.
    ///
    /// # Safety
    /// All rows can be written.
    unsafe fn store<const REGISTER: u8>(&mut self, to: *mut i32, stride: isize);
    /// TILERELEASE: registers hold nothing more.
    ///
    /// # Safety
    /// As above.
    unsafe fn release(&mut self);
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod machine {
    use super::*;

    /// Linux gives a process the registers' memory on request: arch_prctl(2), `ARCH_REQ_XCOMP_PERM` of tile data.
    const REQUEST: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    /// Of leaf 7, register EDX: AMX-TILE and AMX-INT8.
    const FEATURES: u32 = 1 << 24 | 1 << 25;
    /// Of XCR0: the system saves tiles' shapes and contents.
    const SAVED: u64 = 1 << 17 | 1 << 18;

    /// The machine's own. Tiles keep their values from one instruction to the next though neither the compiler nor the C library promises it: this
    /// rests on nothing in between using them, as no code is compiled for AMX here; between two there is at most a copy of 64 bytes.
    pub struct Machine;

    impl Machine {
        /// `None` where the machine or the system has none, or the process may not use it.
        pub fn new() -> Option<Self> {
            let has = is_x86_feature_detected!("xsave") && __cpuid_count(7, 0).edx & FEATURES == FEATURES;
            // SAFETY: the machine has XGETBV, which comes with XSAVE; the call asks the kernel and changes no memory.
            (has && unsafe { saved() } & SAVED == SAVED
                && unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) } == 0)
                .then_some(Self)
        }
    }

    #[target_feature(enable = "xsave")]
    fn saved() -> u64 {
        // SAFETY: register 0 is there with XSAVE.
        unsafe { _xgetbv(0) }
    }

    impl Tiles for Machine {
        #[inline(always)]
        unsafe fn configure(&mut self, shapes: &Shapes) {
            // SAFETY: 64 bytes of a palette that is there.
            unsafe { asm!("ldtilecfg [{}]", in(reg) shapes, options(nostack, preserves_flags, readonly)) }
        }

        #[inline(always)]
        unsafe fn load<const REGISTER: u8>(&mut self, from: *const u8, stride: isize) {
            // SAFETY: the caller's promise.
            unsafe {
                asm!("tileloadd tmm{register}, [{from} + {stride}*1]", register = const REGISTER, from = in(reg) from,
                     stride = in(reg) stride, options(nostack, preserves_flags, readonly));
            }
        }

        #[inline(always)]
        unsafe fn multiply<const SUMS: u8, const CODES: u8, const WEIGHTS: u8>(&mut self) {
            // SAFETY: the caller's promise.
            unsafe {
                asm!("tdpbusd tmm{sums}, tmm{codes}, tmm{weights}", sums = const SUMS, codes = const CODES,
                     weights = const WEIGHTS, options(nostack, preserves_flags, nomem));
            }
        }

        #[inline(always)]
        unsafe fn store<const REGISTER: u8>(&mut self, to: *mut i32, stride: isize) {
            // SAFETY: the caller's promise.
            unsafe {
                asm!("tilestored [{to} + {stride}*1], tmm{register}", register = const REGISTER, to = in(reg) to,
                     stride = in(reg) stride, options(nostack, preserves_flags));
            }
        }

        #[inline(always)]
        unsafe fn release(&mut self) {
            // SAFETY: the caller's promise.
            unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) }
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub use machine::Machine;
