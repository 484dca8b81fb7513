//! Plain Rust for machines without the others: one pixel times one line at a time.

use super::{Factors, Line, Tile};
use crate::cpu::layout::floats;

pub fn accumulate(tile: &Tile<'_>, sums: &mut [Line]) {
    for (place, sum) in sums.iter_mut().enumerate() {
        let (pixel, line) = (place / tile.width, place % tile.width);
        let mut acc = if tile.first { Line::ZERO } else { *sum };
        let mut weights = tile.weights.iter().skip(line).step_by(tile.width);
        for chunk in tile.chunks {
            let x = &floats(tile.sources[usize::from(chunk.source)])[chunk.at as usize + pixel * tile.stride..];
            for (value, weights) in x[..usize::from(chunk.steps)].iter().zip(&mut weights) {
                let sums = acc.0.iter_mut().zip(&weights.0);
                match tile.factors {
                    Factors::F32 => sums.for_each(|(acc, w)| *acc += value * w),
                    Factors::Bf16 => sums.for_each(|(acc, w)| *acc += odd(*value) * odd(*w) + even(*value) * even(*w)),
                }
            }
        }
        *sum = acc;
    }
}

/// Of two bf16 in the place of a float, the one in its upper half.
fn odd(pair: f32) -> f32 {
    f32::from_bits(pair.to_bits() & !0xffff)
}

/// The one in its lower half.
fn even(pair: f32) -> f32 {
    f32::from_bits(pair.to_bits() << 16)
}
