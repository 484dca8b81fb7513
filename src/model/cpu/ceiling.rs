//! What this machine can do at most: tiles whose factors never leave the first cache.

use std::{
    num::NonZeroUsize,
    thread,
    time::{Duration, Instant},
};

use super::{
    kernels::{Chunk, Factors, Level, PANEL, TILE, Tile},
    layout::{LANES, Line},
};
use crate::model::precision::Precision;

/// Each thread computes so long.
const DURATION: Duration = Duration::from_millis(200);
/// Chunks of a tile: long sums, as those of large layers are.
const CHUNKS: usize = 16;

/// Multiplications and additions a second of `threads` at once, each counted; of the best instruction set.
pub fn ceiling(precision: Precision, threads: NonZeroUsize) -> f64 {
    let level = Level::best();
    let factors = match precision {
        Precision::Bf16 if level.has_bf16() => Factors::Bf16,
        Precision::Int8 => Factors::Int8,
        _ => Factors::F32,
    };
    let threads: Vec<_> = (0..threads.get()).map(|_| thread::spawn(move || of_one(level, factors))).collect();
    threads.into_iter().filter_map(|thread| thread.join().ok()).sum()
}

fn of_one(level: Level, factors: Factors) -> f64 {
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
    let (start, mut done) = (Instant::now(), 0u64);
    while start.elapsed() < DURATION {
        for _ in 0..100 {
            tile.accumulate(level, &mut sums);
            done += 1;
        }
    }
    let each = 2 * TILE * PANEL * LANES * CHUNKS * LANES * factors.each();
    done as f64 * each as f64 / start.elapsed().as_secs_f64()
}
