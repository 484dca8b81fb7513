//! AVX-512: 14 pixels times 32 channels, 28 sums in registers, two lines of weights, one broadcast value or pair.

#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

use std::{
    arch::x86_64::{
        __m512, __m512bh, _mm512_castsi512_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_load_ps, _mm512_set1_epi32,
        _mm512_setzero_ps, _mm512_store_ps,
    },
    mem::transmute,
};

use super::{Factors, Line, Tile};

/// # Safety
/// The machine has AVX-512F, and its bf16 for a tile of bf16; the tile passed the checks of
/// [`Tile::accumulate`].
pub unsafe fn accumulate(tile: &Tile<'_>, sums: &mut [Line]) {
    macro_rules! pixels {
        ($sum:ident, $stride:literal, $($p:literal)*) => {
            match (tile.pixels, tile.width) {
                // SAFETY: the caller's promise; the pixels and lines out are the tile's own, and so is the stride.
                $(($p, 1) => unsafe { $sum::<$p, 1, $stride>(tile, sums.as_mut_ptr().cast()) },
                ($p, _) => unsafe { $sum::<$p, 2, $stride>(tile, sums.as_mut_ptr().cast()) },)*
                _ => {}
            }
        };
    }
    // Strides that are known need no registers: lines, and three colours side by side with stride 1 or 2.
    use Factors::{Bf16, F32};
    match (tile.factors, tile.stride) {
        (F32, 16) => pixels!(sum, 16, 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        (F32, 3) => pixels!(sum, 3, 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        (F32, 6) => pixels!(sum, 6, 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        (F32, _) => pixels!(sum, 0, 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        (Bf16, 16) => pixels!(sum_bf16, 16, 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        (Bf16, 3) => pixels!(sum_bf16, 3, 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        (Bf16, _) => pixels!(sum_bf16, 0, 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
    }
}

/// A kernel: what it needs, and `acc + value * weights` for a step.
macro_rules! kernel {
    ($name:ident, $features:literal, $product:expr) => {
        /// # Safety
        /// As [`accumulate`], for a tile of P pixels, S floats apart (0: what the tile says), and N lines out; `sums`
        /// has P x N lines.
        #[target_feature(enable = $features)]
        unsafe fn $name<const P: usize, const N: usize, const S: usize>(tile: &Tile<'_>, sums: *mut f32) {
            let stride = if S == 0 { tile.stride } else { S };
            let mut acc = [[_mm512_setzero_ps(); N]; P];
            // SAFETY: lines are aligned to 64 bytes. Chunks lie inside of their sources for P pixels, there are N lines
            // of weights for each step, and P x N sums: the caller checked all of it.
            unsafe {
                if !tile.first {
                    for (p, acc) in acc.iter_mut().enumerate() {
                        for (n, acc) in acc.iter_mut().enumerate() {
                            *acc = _mm512_load_ps(sums.add((p * N + n) * 16));
                        }
                    }
                }
                let mut weights: *const f32 = tile.weights.as_ptr().cast();
                for chunk in tile.chunks {
                    let source = tile.sources.get_unchecked(chunk.source as usize);
                    let mut x = source.as_ptr().cast::<f32>().add(chunk.at as usize);
                    for _ in 0..chunk.steps {
                        let mut w = [_mm512_setzero_ps(); N];
                        for (n, w) in w.iter_mut().enumerate() {
                            *w = _mm512_load_ps(weights.add(n * 16));
                        }
                        for (p, acc) in acc.iter_mut().enumerate() {
                            // As bits: pairs of bf16 and bytes may be no number.
                            let value = _mm512_castsi512_ps(_mm512_set1_epi32(*x.add(p * stride).cast::<i32>()));
                            for (acc, w) in acc.iter_mut().zip(w) {
                                *acc = $product(*acc, value, w);
                            }
                        }
                        weights = weights.add(N * 16);
                        x = x.add(1);
                    }
                }
                for (p, acc) in acc.iter().enumerate() {
                    for (n, acc) in acc.iter().enumerate() {
                        _mm512_store_ps(sums.add((p * N + n) * 16), *acc);
                    }
                }
            }
        }
    };
}

kernel!(sum, "avx512f", |acc, value, weights| _mm512_fmadd_ps(value, weights, acc));
kernel!(sum_bf16, "avx512f,avx512bf16", |acc, value: __m512, weights: __m512| {
    _mm512_dpbf16_ps(acc, transmute::<__m512, __m512bh>(value), transmute::<__m512, __m512bh>(weights))
});
