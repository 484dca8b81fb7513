//! What this machine can do at most: products on registers alone or, where there is no instruction for them, tiles
//! whose factors never leave the first cache.

use std::{
    num::NonZeroUsize,
    thread,
    time::{Duration, Instant},
};

use super::{
    kernels::{Chunk, Factors, Level, PANEL, TILE, Tile},
    layout::{LANES, Line},
};
use crate::precision::Precision;

/// Each thread computes so long.
const DURATION: Duration = Duration::from_millis(200);
/// Chunks of a tile: long sums, as those of large layers are.
const CHUNKS: usize = 16;

/// Multiplications and additions a second of `threads` at once, each counted; of the best instruction set.
pub fn ceiling(precision: Precision, threads: NonZeroUsize) -> f64 {
    let level = Level::best();
    let work = move || match precision {
        Precision::Int8 => level.multiply_codes_on_registers().unwrap_or_else(|| multiply_tiles(level, Factors::F32)),
        Precision::Bf16 if level.has_bf16() => multiply(level, Factors::Bf16),
        _ => multiply(level, Factors::F32),
    };
    let threads: Vec<_> = (0..threads.get()).map(|_| thread::spawn(move || of_one(work))).collect();
    threads.into_iter().filter_map(|thread| thread.join().ok()).sum()
}

fn of_one(work: impl Fn() -> u64) -> f64 {
    let (start, mut done) = (Instant::now(), 0u64);
    while start.elapsed() < DURATION {
        done += work();
    }
    done as f64 / start.elapsed().as_secs_f64()
}

fn multiply(level: Level, factors: Factors) -> u64 {
    level.multiply_on_registers(factors).unwrap_or_else(|| multiply_tiles(level, factors))
}

/// Multiplications and additions that were done.
fn multiply_tiles(level: Level, factors: Factors) -> u64 {
    let (x, weights) = (vec![Line::ZERO; TILE], vec![Line::ZERO; CHUNKS * LANES * PANEL]);
    let mut sums = vec![Line::ZERO; TILE * PANEL];
    let chunks = [Chunk { source: 0, steps: LANES as u16, at: 0 }; CHUNKS];
    let tile = Tile {
        chunks: &chunks,
        sources: [&x, &[]],
        weights: &weights,
        pixels: TILE,
        stride: LANES,
        width: PANEL,
        first: false,
        factors,
    };
    for _ in 0..100 {
        tile.accumulate(level, &mut sums);
    }
    (100 * 2 * TILE * PANEL * LANES * CHUNKS * LANES * factors.each()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ceiling_is_of_instructions_that_the_level_has() {
        for level in Level::available() {
            let [f32, bf16] = [Factors::F32, Factors::Bf16];
            let done = |factors| level.multiply_on_registers(factors);
            assert_eq!(done(f32).is_some(), level.name() != "portable", "{level:?}");
            assert_eq!(done(bf16), done(f32).filter(|_| level.has_bf16()).map(|ops| 2 * ops), "{level:?}");
            // Without products of bytes, those of words.
            let each = if matches!(level.name(), "avx2" | "avx512") { 2 } else { 4 };
            assert_eq!(level.multiply_codes_on_registers(), done(f32).map(|ops| each * ops), "{level:?}");
        }
    }

    #[test]
    #[ignore = "a measurement"]
    fn no_kernel_does_more_than_registers_alone() {
        for level in Level::available() {
            for factors in [Factors::F32, Factors::Bf16] {
                let time = |work: &dyn Fn() -> u64| {
                    // The best of a few: others may have taken the core meanwhile.
                    let once = || {
                        let (start, mut done) = (Instant::now(), 0);
                        while start.elapsed() < Duration::from_millis(5) {
                            done += work();
                        }
                        done as f64 / start.elapsed().as_secs_f64()
                    };
                    (0..5).map(|_| once()).fold(0.0, f64::max)
                };
                if level.multiply_on_registers(factors).is_none() {
                    continue;
                }
                let registers = time(&|| level.multiply_on_registers(factors).unwrap_or(0));
                let tiles = time(&|| multiply_tiles(level, factors));
                println!("{level:?}, {factors:?}: {:.1} and {:.1} GFLOP/s", registers / 1e9, tiles / 1e9);
                assert!(tiles <= 1.2 * registers, "{level:?}, {factors:?}: {tiles} and {registers}");
            }
        }
    }
}
