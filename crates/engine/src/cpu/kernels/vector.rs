//! Arithmetic on lines in registers, for passes that are written once for every instruction set.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::{
    arch::x86_64::{
        __m256, __m256bh, __m512, _CMP_GT_OQ, _mm256_store_ps, _mm512_add_ps, _mm512_cmp_ps_mask, _mm512_cvtneps_pbh,
        _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_load_ps, _mm512_mask_fmadd_ps, _mm512_max_ps, _mm512_mul_ps,
        _mm512_set1_ps, _mm512_setzero_ps, _mm512_store_ps, _mm512_sub_ps,
    },
    mem::transmute,
};

use super::{Level, LevelSet, Line};
use crate::cpu::layout::{LANES, pair_of_bf16};

/// A line's 16 values. Only [`Level::run`] chooses a type, one that the machine has the instructions for.
pub trait Vector: Copy {
    fn load(line: &Line) -> Self;
    fn store(self, line: &mut Line);
    /// Rounded to bf16, into the low or the high half of a line.
    fn store_half(self, line: &mut Line, high: bool);
    fn splat(value: f32) -> Self;
    fn add(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// The larger of each two, the other where this one is no number.
    fn max(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn times(self, factor: f32) -> Self;
    /// `self + factor * other`.
    fn plus(self, factor: f32, other: Self) -> Self;
    /// `self - factor * other`.
    fn minus(self, factor: f32, other: Self) -> Self;
    /// What is not positive is multiplied by the slope, and a zero that comes out of it is +0, as ReLU's is: `1 / x` tells them
    /// apart.
    fn activate(self, slope: Self) -> Self;
}

/// A pass over lines; [`Level::run`] compiles it for each instruction set. `run` and all it calls must be inlined.
pub trait Pass {
    fn run<V: Vector>(self);
}

impl Level {
    #[inline]
    pub fn run(self, pass: impl Pass) {
        match self.0 {
            // SAFETY: a `Level` names what the machine has.
            #[cfg(target_arch = "x86_64")]
            LevelSet::Avx512 | LevelSet::Avx512Vnni => unsafe { run_avx512(pass) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            LevelSet::Avx512Bf16 | LevelSet::Amx => unsafe { run_avx512_bf16(pass) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            LevelSet::Avx2 | LevelSet::AvxVnni => unsafe { run_avx2(pass) },
            _ => pass.run::<Line>(),
        }
    }
}

// Closures would not be inlined, and without that not be compiled for the instruction set.

/// # Safety
/// The machine has AVX-512 F, BW, VL and DQ.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn run_avx512(pass: impl Pass) {
    pass.run::<Wide<false>>();
}

/// # Safety
/// As [`run_avx512`], and bf16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
unsafe fn run_avx512_bf16(pass: impl Pass) {
    pass.run::<Wide<true>>();
}

/// # Safety
/// The machine has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2(pass: impl Pass) {
    pass.run::<Line>();
}

impl Line {
    #[inline(always)]
    fn with(mut self, other: &Self, f: impl Fn(f32, f32) -> f32) -> Self {
        for lane in 0..LANES {
            self.0[lane] = f(self.0[lane], other.0[lane]);
        }
        self
    }
}

impl Vector for Line {
    #[inline(always)]
    fn load(line: &Line) -> Self {
        *line
    }

    #[inline(always)]
    fn store(self, line: &mut Line) {
        *line = self;
    }

    #[inline(always)]
    fn store_half(self, line: &mut Line, high: bool) {
        for (pair, to) in self.0.chunks_exact(2).zip(&mut line.0[if high { 8 } else { 0 }..]) {
            *to = pair_of_bf16(pair[0], pair[1]);
        }
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; 16])
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.with(&other, |a, b| a + b)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.with(&other, |a, b| a * b)
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.with(&other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.with(&other, |a, b| a - b)
    }

    #[inline(always)]
    fn times(self, factor: f32) -> Self {
        self.with(&self, |a, _| factor * a)
    }

    #[inline(always)]
    fn plus(self, factor: f32, other: Self) -> Self {
        self.with(&other, |a, b| a + factor * b)
    }

    #[inline(always)]
    fn minus(self, factor: f32, other: Self) -> Self {
        self.with(&other, |a, b| a - factor * b)
    }

    #[inline(always)]
    fn activate(self, slope: Self) -> Self {
        self.with(&slope, |a, slope| if a > 0.0 { a } else { slope * a + 0.0 })
    }
}

/// A line in one register of AVX-512; BF16: the machine rounds to bf16 as well. Nothing outside of this file can name
/// it, and [`Level::run`] alone chooses it, for machines that have both: that is what makes the methods' instructions
/// safe.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Wide<const BF16: bool>(__m512);

// SAFETY, for every method: the machine has the instructions, as said above; lines are aligned.
#[cfg(target_arch = "x86_64")]
impl<const BF16: bool> Vector for Wide<BF16> {
    #[inline(always)]
    fn load(line: &Line) -> Self {
        Self(unsafe { _mm512_load_ps(line.0.as_ptr()) })
    }

    #[inline(always)]
    fn store(self, line: &mut Line) {
        unsafe { _mm512_store_ps(line.0.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn store_half(self, line: &mut Line, high: bool) {
        if !BF16 {
            let mut plain = Line::ZERO;
            self.store(&mut plain);
            return plain.store_half(line, high);
        }
        let half: &mut [f32; 8] =
            if high { &mut line.0.as_chunks_mut().0[1] } else { &mut line.0.as_chunks_mut().0[0] };
        unsafe { _mm256_store_ps(half.as_mut_ptr(), transmute::<__m256bh, __m256>(_mm512_cvtneps_pbh(self.0))) }
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn times(self, factor: f32) -> Self {
        Self(unsafe { _mm512_mul_ps(self.0, _mm512_set1_ps(factor)) })
    }

    #[inline(always)]
    fn plus(self, factor: f32, other: Self) -> Self {
        Self(unsafe { _mm512_fmadd_ps(_mm512_set1_ps(factor), other.0, self.0) })
    }

    #[inline(always)]
    fn minus(self, factor: f32, other: Self) -> Self {
        Self(unsafe { _mm512_fnmadd_ps(_mm512_set1_ps(factor), other.0, self.0) })
    }

    #[inline(always)]
    fn activate(self, slope: Self) -> Self {
        Self(unsafe {
            let zero = _mm512_setzero_ps();
            let positive = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, zero);
            _mm512_mask_fmadd_ps(self.0, !positive, slope.0, zero)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds to bf16, whatever the level.
    struct Halves<'a>(&'a Line, &'a mut Line);

    impl Pass for Halves<'_> {
        #[inline(always)]
        fn run<V: Vector>(self) {
            V::load(self.0).store_half(self.1, false);
            V::load(self.0).store_half(self.1, true);
        }
    }

    /// `activate` with one slope for all.
    struct Activated<'a>(&'a Line, f32, &'a mut Line);

    impl Pass for Activated<'_> {
        #[inline(always)]
        fn run<V: Vector>(self) {
            V::load(self.0).activate(V::splat(self.1)).store(self.2);
        }
    }

    #[test]
    fn what_relu_cuts_off_is_a_zero_without_a_sign() {
        let line = Line(std::array::from_fn(|at| at as f32 - 7.5));
        for set in Level::available() {
            for (slope, first) in [(0.0, 0.0), (0.25, -1.875), (-0.0, 0.0), (1.0, -7.5)] {
                let mut got = Line::ZERO;
                set.run(Activated(&line, slope, &mut got));
                assert_eq!((got.0[0].to_bits(), got.0[15]), (f32::to_bits(first), 7.5), "{set:?} {slope}");
            }
        }
    }

    #[test]
    fn halves_are_the_same_also_without_an_instruction_for_them() {
        let line = Line(std::array::from_fn(|at| (at as f32 - 7.3) * 1.017));
        let mut expected = Line::ZERO;
        Halves(&line, &mut expected).run::<Line>();
        for set in Level::available() {
            let mut got = Line::ZERO;
            set.run(Halves(&line, &mut got));
            assert_eq!(got.0.map(f32::to_bits), expected.0.map(f32::to_bits), "{set:?}");
        }
    }
}
