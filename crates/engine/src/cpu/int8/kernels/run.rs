//! Passes over lines, compiled for each instruction set.

#![allow(unsafe_code)]

use super::{LINE, lanes::Pass};
use crate::cpu::kernels::{Level, LevelSet};

impl Level {
    #[inline]
    pub fn run_lanes(self, pass: impl Pass) {
        match self.0 {
            // SAFETY: a `Level` names what the machine has.
            #[cfg(target_arch = "x86_64")]
            set if set.has_avx512() => unsafe { run_avx512(pass) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            LevelSet::Avx2 | LevelSet::AvxVnni => unsafe { run_avx2(pass) },
            _ => pass.run::<[f32; LINE]>(),
        }
    }
}

/// # Safety
/// The machine has AVX-512 F, BW, VL and DQ.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn run_avx512(pass: impl Pass) {
    pass.run::<super::lanes_avx512::Wide>();
}

/// # Safety
/// The machine has AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn run_avx2(pass: impl Pass) {
    pass.run::<super::lanes_avx2::Pair>();
}
