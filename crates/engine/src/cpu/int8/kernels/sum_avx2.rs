//! AVX2: 6 pixels times 16 channels, 12 sums in registers, two registers of weights, one broadcast step: four bytes with AVX-VNNI, else a pair of
//! words.

#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_dpbusd_avx_epi32, _mm256_load_si256, _mm256_madd_epi16, _mm256_set1_epi32,
    _mm256_setzero_si256, _mm256_storeu_si256,
};
#[cfg(test)]
use std::arch::x86_64::{_mm256_and_si256, _mm256_slli_epi16, _mm256_srai_epi16, _mm256_srli_epi16};

use super::{Panel, STEP};

/// What a step multiplies.
#[derive(Debug, Clone, Copy)]
pub enum Factors {
    Words,
    /// With AVX-VNNI.
    Bytes,
    /// The same by what AVX2 has, so that tests hold all but the instruction.
    #[cfg(test)]
    EmulatedBytes,
}

/// # Safety
/// The machine has AVX2, and AVX-VNNI for bytes; the arguments passed the checks of [`Panel::sum`].
pub unsafe fn sum(panel: &Panel, factors: Factors, x: &[u8], places: &[usize], sums: &mut [i32]) {
    macro_rules! pixels {
        ($sum:ident, $($p:literal)*) => {
            match places.len() {
                // SAFETY: the caller's promise; there are so many places, and 16 sums for each.
                $($p => unsafe { $sum::<$p>(panel, x.as_ptr(), places, sums.as_mut_ptr()) },)*
                _ => {}
            }
        };
    }
    match factors {
        Factors::Words => pixels!(sum_words, 1 2 3 4 5 6),
        Factors::Bytes => pixels!(sum_bytes, 1 2 3 4 5 6),
        #[cfg(test)]
        Factors::EmulatedBytes => pixels!(sum_emulated_bytes, 1 2 3 4 5 6),
    }
}

/// A kernel: what it needs, and `acc + value * weights` for a step.
macro_rules! kernel {
    ($name:ident, $features:literal, $product:expr) => {
        /// # Safety
        /// As [`sum`], for P pixels.
        #[target_feature(enable = $features)]
        unsafe fn $name<const P: usize>(panel: &Panel, x: *const u8, places: &[usize], sums: *mut i32) {
            let mut acc = [[_mm256_setzero_si256(); 2]; P];
            // SAFETY: all pixels' steps lie in `x`; there are two aligned registers of weights for each step, and 16 sums for
            // each pixel: the caller checked all of it.
            unsafe {
                let mut weights: *const __m256i = panel.weights.as_ptr().cast();
                let pixels: [*const u8; P] = std::array::from_fn(|p| x.add(places[p]));
                for &run in &panel.footprint.runs {
                    let pixels = pixels.map(|pixel| pixel.add(run));
                    for at in 0..panel.footprint.steps {
                        let w = [_mm256_load_si256(weights), _mm256_load_si256(weights.add(1))];
                        for (acc, pixel) in acc.iter_mut().zip(pixels) {
                            let value = _mm256_set1_epi32(pixel.add(at * STEP).cast::<i32>().read_unaligned());
                            acc[0] = $product(acc[0], value, w[0]);
                            acc[1] = $product(acc[1], value, w[1]);
                        }
                        weights = weights.add(2);
                    }
                }
                for (p, acc) in acc.iter().enumerate() {
                    _mm256_storeu_si256(sums.add(p * 16).cast(), acc[0]);
                    _mm256_storeu_si256(sums.add(p * 16 + 8).cast(), acc[1]);
                }
            }
        }
    };
}

kernel!(sum_words, "avx2", |acc, value, weights| _mm256_add_epi32(acc, _mm256_madd_epi16(value, weights)));
kernel!(sum_bytes, "avx2,avxvnni", |acc, value, weights| _mm256_dpbusd_avx_epi32(acc, value, weights));
#[cfg(test)]
kernel!(sum_emulated_bytes, "avx2", |acc, value: __m256i, weights: __m256i| {
    let even = _mm256_and_si256(value, _mm256_set1_epi32(0x00ff_00ff));
    let even_weights = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(weights));
    let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(value), _mm256_srai_epi16::<8>(weights));
    _mm256_add_epi32(acc, _mm256_add_epi32(odd, _mm256_madd_epi16(even, even_weights)))
});
