//! The kernels' instructions on registers alone, without loads and stores: more than this no kernel can do.

#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

use std::{
    arch::x86_64::{
        __m512, __m512bh, _mm256_add_epi32, _mm256_dpbusd_avx_epi32, _mm256_fmadd_ps, _mm256_madd_epi16,
        _mm256_set1_epi32, _mm256_set1_ps, _mm512_add_epi32, _mm512_dpbf16_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps,
        _mm512_madd_epi16, _mm512_set1_epi32, _mm512_set1_ps,
    },
    hint::black_box,
    mem::transmute,
};

use super::{Factors, Level, LevelSet};

impl Level {
    /// Products of `factors` for a while. Returns how many multiplications and additions that were, each counted;
    /// `None` where the level has no instruction for them.
    pub fn multiply_on_registers(self, factors: Factors) -> Option<u64> {
        // SAFETY: a `Level` names what the machine has.
        unsafe {
            match (self.0, factors) {
                (set, Factors::F32) if set.has_avx512() => multiply_f32(),
                (LevelSet::Avx512Bf16 | LevelSet::Amx, Factors::Bf16) => multiply_bf16(),
                (LevelSet::Avx2 | LevelSet::AvxVnni, Factors::F32) => multiply_avx2(),
                _ => return None,
            }
        }
        let (lanes, sums) = if self.0.has_avx512() { (16, SUMS) } else { (8, SUMS_OF_AVX2) };
        Some((2 * ROUNDS * sums * lanes * factors.each()) as u64)
    }

    /// The same of an integer network's codes: bytes or, where there is no exact sum of their products, words.
    pub fn multiply_codes_on_registers(self) -> Option<u64> {
        // SAFETY: as above.
        let (lanes, sums, each) = unsafe {
            match self.0 {
                LevelSet::Avx512Bf16 | LevelSet::Avx512Vnni => (multiply_int8(), (16, SUMS, 4)).1,
                LevelSet::Avx512 => (multiply_words(), (16, SUMS, 2)).1,
                LevelSet::Avx2 => (multiply_words_avx2(), (8, SUMS_OF_AVX2, 2)).1,
                LevelSet::AvxVnni => (multiply_int8_avx(), (8, SUMS_OF_AVX2, 4)).1,
                // Of tiles nobody has measured what they do.
                _ => return None,
            }
        };
        Some((2 * ROUNDS * sums * lanes * each) as u64)
    }
}

const ROUNDS: usize = 10_000;
/// Sums that do not wait for each other, as many as a kernel has; with the factors they fill the registers.
const SUMS: usize = 28;
const SUMS_OF_AVX2: usize = 12;

macro_rules! multiply {
    ($name:ident, $features:literal, $sums:ident, $zero:expr, $product:expr) => {
        /// # Safety
        /// The machine has the instructions.
        #[target_feature(enable = $features)]
        unsafe fn $name() {
            // What the compiler knew of the values it could leave out.
            let (value, weights) = black_box(($zero, $zero));
            let mut acc = [black_box($zero); $sums];
            for _ in 0..ROUNDS {
                for acc in &mut acc {
                    *acc = $product(*acc, value, weights);
                }
            }
            black_box(acc);
        }
    };
}

multiply!(multiply_f32, "avx512f", SUMS, _mm512_set1_ps(0.0), |acc, value, weights| {
    _mm512_fmadd_ps(value, weights, acc)
});
multiply!(multiply_bf16, "avx512f,avx512bf16", SUMS, _mm512_set1_ps(0.0), |acc, value, weights| {
    // SAFETY: bits of registers of one size.
    let pairs = |value| unsafe { transmute::<__m512, __m512bh>(value) };
    _mm512_dpbf16_ps(acc, pairs(value), pairs(weights))
});
multiply!(multiply_int8, "avx512f,avx512vnni", SUMS, _mm512_set1_epi32(0), |acc, value, weights| {
    _mm512_dpbusd_epi32(acc, value, weights)
});
multiply!(multiply_int8_avx, "avx2,avxvnni", SUMS_OF_AVX2, _mm256_set1_epi32(0), |acc, value, weights| {
    _mm256_dpbusd_avx_epi32(acc, value, weights)
});
multiply!(multiply_avx2, "avx2,fma", SUMS_OF_AVX2, _mm256_set1_ps(0.0), |acc, value, weights| {
    _mm256_fmadd_ps(value, weights, acc)
});
// Of words, two in the place of a float; a product depends on the sum, else it would be computed once for all.
multiply!(multiply_words_avx2, "avx2", SUMS_OF_AVX2, _mm256_set1_epi32(0), |acc, value, _| {
    _mm256_add_epi32(acc, _mm256_madd_epi16(value, acc))
});
multiply!(multiply_words, "avx512f,avx512bw", SUMS, _mm512_set1_epi32(0), |acc, value, _| {
    _mm512_add_epi32(acc, _mm512_madd_epi16(value, acc))
});
