//! AVX-512: 12 pixels times 32 channels, 24 sums in registers, two registers of weights, one broadcast step: four bytes
//! with VNNI, else a pair of words.

#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_dpbusd_epi32, _mm512_load_si512, _mm512_madd_epi16, _mm512_set1_epi32,
    _mm512_setzero_si512, _mm512_storeu_si512,
};

use super::{LINE, Panel, STEP};

/// # Safety
/// The machine has AVX-512F and BW, and VNNI where it is `bytes`; the arguments passed the checks of [`Panel::sum`].
pub unsafe fn sum(panel: &Panel, bytes: bool, x: &[u8], places: &[usize], sums: &mut [i32]) {
    macro_rules! pixels {
        ($($p:literal)*) => {
            match (places.len(), panel.lanes / LINE, bytes) {
                // SAFETY: the caller's promise; there are so many places, and so many registers of sums for each.
                $(($p, 1, true) => unsafe { sum_bytes::<$p, 1>(panel, x.as_ptr(), places, sums.as_mut_ptr()) },
                ($p, _, true) => unsafe { sum_bytes::<$p, 2>(panel, x.as_ptr(), places, sums.as_mut_ptr()) },
                ($p, 1, false) => unsafe { sum_words::<$p, 1>(panel, x.as_ptr(), places, sums.as_mut_ptr()) },
                ($p, _, false) => unsafe { sum_words::<$p, 2>(panel, x.as_ptr(), places, sums.as_mut_ptr()) },)*
                _ => {}
            }
        };
    }
    pixels!(1 2 3 4 5 6 7 8 9 10 11 12);
}

/// A kernel: what it needs, and `acc + value * weights` for a step.
macro_rules! kernel {
    ($name:ident, $features:literal, $product:expr) => {
        /// # Safety
        /// As [`sum`], for P pixels and a panel of N x 16 channels.
        #[target_feature(enable = $features)]
        unsafe fn $name<const P: usize, const N: usize>(panel: &Panel, x: *const u8, places: &[usize], sums: *mut i32) {
            let mut acc = [[_mm512_setzero_si512(); N]; P];
            // SAFETY: all pixels' steps lie in `x`; there are N aligned registers of weights for each step and of sums
            // for each pixel: the caller checked all of it.
            unsafe {
                let mut weights: *const __m512i = panel.weights.as_ptr().cast();
                let pixels: [*const u8; P] = std::array::from_fn(|p| x.add(places[p]));
                for &run in &panel.footprint.runs {
                    let pixels = pixels.map(|pixel| pixel.add(run));
                    for at in 0..panel.footprint.steps {
                        let mut w = [_mm512_setzero_si512(); N];
                        for (n, w) in w.iter_mut().enumerate() {
                            *w = _mm512_load_si512(weights.add(n));
                        }
                        for (acc, pixel) in acc.iter_mut().zip(pixels) {
                            let value = _mm512_set1_epi32(pixel.add(at * STEP).cast::<i32>().read_unaligned());
                            for (acc, w) in acc.iter_mut().zip(w) {
                                *acc = $product(*acc, value, w);
                            }
                        }
                        weights = weights.add(N);
                    }
                }
                for (p, acc) in acc.iter().enumerate() {
                    for (n, acc) in acc.iter().enumerate() {
                        _mm512_storeu_si512(sums.add((p * N + n) * LINE).cast(), *acc);
                    }
                }
            }
        }
    };
}

kernel!(sum_bytes, "avx512f,avx512vnni", |acc, value, weights| _mm512_dpbusd_epi32(acc, value, weights));
kernel!(sum_words, "avx512f,avx512bw", |acc, value, weights| {
    _mm512_add_epi32(acc, _mm512_madd_epi16(value, weights))
});
