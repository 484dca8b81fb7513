//! AVX2 with FMA: a line is two registers; six pixels times one line at a time, 12 sums in registers. Pairs of bf16 are two products of
//! floats each, in the order of the instruction that other machines have for them.

#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256, _mm256_and_si256, _mm256_broadcast_ss, _mm256_castps_si256, _mm256_castsi256_ps, _mm256_fmadd_ps,
    _mm256_load_ps, _mm256_set1_epi32, _mm256_setzero_ps, _mm256_slli_epi32, _mm256_store_ps,
};

use super::{Factors, Line, Tile};

/// # Safety
/// The machine has AVX2 and FMA, and the tile passed the checks of [`Tile::accumulate`].
pub unsafe fn accumulate(tile: &Tile<'_>, sums: &mut [Line]) {
    for line in 0..tile.width {
        let mut from = 0;
        while from < tile.pixels {
            let count = (tile.pixels - from).min(6);
            macro_rules! pixels {
                ($sum:ident, $($p:literal)*) => {
                    match count {
                        // SAFETY: the caller's promise; from + count is at most the tile's pixels, line less than its width.
                        $($p => unsafe { $sum::<$p>(tile, from, line, sums.as_mut_ptr().cast()) },)*
                        _ => {}
                    }
                };
            }
            match tile.factors {
                Factors::F32 => pixels!(sum, 1 2 3 4 5 6),
                Factors::Bf16 => pixels!(sum_bf16, 1 2 3 4 5 6),
            }
            from += count;
        }
    }
}

/// A kernel: `acc + value * weights` for a step.
macro_rules! kernel {
    ($name:ident, $product:expr) => {
        /// # Safety
        /// As [`accumulate`], for the P pixels from `from` on and one line out; `sums` are the whole tile's.
        #[target_feature(enable = "avx2,fma")]
        unsafe fn $name<const P: usize>(tile: &Tile<'_>, from: usize, line: usize, sums: *mut f32) {
            let mut acc = [[_mm256_setzero_ps(); 2]; P];
            let place = |p: usize, half: usize| ((from + p) * tile.width + line) * 16 + half * 8;
            // SAFETY: lines are aligned to 64 bytes. Chunks lie inside of their sources for all pixels of the tile, there are
            // `width` lines of weights for each step, and pixels x width sums: the caller checked all of it.
            unsafe {
                if !tile.first {
                    for (p, acc) in acc.iter_mut().enumerate() {
                        for (half, acc) in acc.iter_mut().enumerate() {
                            *acc = _mm256_load_ps(sums.add(place(p, half)));
                        }
                    }
                }
                let mut weights: *const f32 = tile.weights.as_ptr().add(line).cast();
                for chunk in tile.chunks {
                    let source = tile.sources.get_unchecked(chunk.source as usize);
                    let mut x = source.as_ptr().cast::<f32>().add(chunk.at as usize + from * tile.stride);
                    for _ in 0..chunk.steps {
                        let (low, high) = (_mm256_load_ps(weights), _mm256_load_ps(weights.add(8)));
                        for (p, acc) in acc.iter_mut().enumerate() {
                            let value = _mm256_broadcast_ss(&*x.add(p * tile.stride));
                            acc[0] = $product(acc[0], value, low);
                            acc[1] = $product(acc[1], value, high);
                        }
                        weights = weights.add(tile.width * 16);
                        x = x.add(1);
                    }
                }
                for (p, acc) in acc.iter().enumerate() {
                    for (half, acc) in acc.iter().enumerate() {
                        _mm256_store_ps(sums.add(place(p, half)), *acc);
                    }
                }
            }
        }
    };
}

kernel!(sum, |acc, value, weights| _mm256_fmadd_ps(value, weights, acc));
kernel!(sum_bf16, |acc, value: __m256, weights: __m256| {
    let odd = |pair| _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(pair), _mm256_set1_epi32(!0xffff)));
    let even = |pair| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(pair)));
    _mm256_fmadd_ps(even(value), even(weights), _mm256_fmadd_ps(odd(value), odd(weights), acc))
});
