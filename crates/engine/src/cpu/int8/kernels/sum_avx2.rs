//! AVX2: 6 pixels times 16 channels, 12 sums in registers, two registers of weights, one broadcast step: a pair of
//! words.

#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_load_si256, _mm256_madd_epi16, _mm256_set1_epi32, _mm256_setzero_si256,
    _mm256_storeu_si256,
};

use super::{Panel, STEP};

/// # Safety
/// The machine has AVX2, and the arguments passed the checks of [`Panel::sum`].
pub unsafe fn sum(panel: &Panel, x: &[u8], places: &[usize], sums: &mut [i32]) {
    macro_rules! pixels {
        ($($p:literal)*) => {
            match places.len() {
                // SAFETY: the caller's promise; there are so many places, and 16 sums for each.
                $($p => unsafe { tile::<$p>(panel, x.as_ptr(), places, sums.as_mut_ptr()) },)*
                _ => {}
            }
        };
    }
    pixels!(1 2 3 4 5 6);
}

/// # Safety
/// As [`sum`], for P pixels.
#[target_feature(enable = "avx2")]
unsafe fn tile<const P: usize>(panel: &Panel, x: *const u8, places: &[usize], sums: *mut i32) {
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
                    acc[0] = _mm256_add_epi32(acc[0], _mm256_madd_epi16(value, w[0]));
                    acc[1] = _mm256_add_epi32(acc[1], _mm256_madd_epi16(value, w[1]));
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
