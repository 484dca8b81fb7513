//! AVX-512: 14 pixels times 32 channels, 28 sums in registers, two lines of weights, one broadcast value.

#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_load_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_store_ps};

use super::{Line, Tile};

/// # Safety
/// The machine has AVX-512F, and the tile passed the checks of [`Tile::accumulate`].
pub unsafe fn accumulate(tile: &Tile<'_>, sums: &mut [Line]) {
    macro_rules! pixels {
        ($($p:literal)*) => {
            match (tile.pixels, tile.width) {
                // SAFETY: the caller's promise; the pixels and lines out are the tile's own.
                $(($p, 1) => unsafe { sum::<$p, 1>(tile, sums.as_mut_ptr().cast()) },
                ($p, _) => unsafe { sum::<$p, 2>(tile, sums.as_mut_ptr().cast()) },)*
                _ => {}
            }
        };
    }
    pixels!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
}

/// # Safety
/// As [`accumulate`], for a tile of P pixels and N lines out; `sums` has P x N lines.
#[target_feature(enable = "avx512f")]
unsafe fn sum<const P: usize, const N: usize>(tile: &Tile<'_>, sums: *mut f32) {
    let mut acc = [[_mm512_setzero_ps(); N]; P];
    // SAFETY: lines are aligned to 64 bytes. Chunks lie inside of their sources for P pixels, there are N lines of weights
    // for each step, and P x N sums: the caller checked all of it.
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
            let mut x: *const f32 = source.as_ptr().add(chunk.at as usize).cast();
            for _ in 0..chunk.steps {
                let mut w = [_mm512_setzero_ps(); N];
                for (n, w) in w.iter_mut().enumerate() {
                    *w = _mm512_load_ps(weights.add(n * 16));
                }
                for (p, acc) in acc.iter_mut().enumerate() {
                    let value = _mm512_set1_ps(*x.add(p * 16));
                    for (acc, w) in acc.iter_mut().zip(w) {
                        *acc = _mm512_fmadd_ps(value, w, *acc);
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

/// # Safety
/// The machine has AVX-512 F, BW, VL and DQ.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub unsafe fn call<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// # Safety
/// The machine has AVX-512 F, BW, VL and DQ.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub unsafe fn run(loops: impl super::Loops) {
    loops.run();
}
