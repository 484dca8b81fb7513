//! Plain Rust for machines without the others: one pixel times one line at a time.

use super::{Line, Tile};
use crate::cpu::layout::{LANES, floats};

pub fn accumulate(tile: &Tile<'_>, sums: &mut [Line]) {
    for (place, sum) in sums.iter_mut().enumerate() {
        let (pixel, line) = (place / tile.width, place % tile.width);
        let mut acc = if tile.first { Line::ZERO } else { *sum };
        let mut weights = tile.weights.iter().skip(line).step_by(tile.width);
        for chunk in tile.chunks {
            let x = &floats(tile.sources[usize::from(chunk.source)])[chunk.at as usize + pixel * tile.stride..];
            for (value, weights) in x[..usize::from(chunk.steps)].iter().zip(&mut weights) {
                acc.0.iter_mut().zip(&weights.0).for_each(|(acc, w)| *acc += value * w);
            }
        }
        *sum = acc;
    }
}

/// The same for four bytes in a step; sums are whole numbers in the place of floats.
pub fn accumulate_bytes(tile: &Tile<'_>, sums: &mut [Line]) {
    for (place, sum) in sums.iter_mut().enumerate() {
        let (pixel, line) = (place / tile.width, place % tile.width);
        let mut acc = if tile.first { [0; LANES] } else { sum.0.map(|sum| sum.to_bits().cast_signed()) };
        let mut weights = tile.weights.iter().skip(line).step_by(tile.width);
        for chunk in tile.chunks {
            let x = &floats(tile.sources[usize::from(chunk.source)])[chunk.at as usize + pixel * tile.stride..];
            for (value, weights) in x[..usize::from(chunk.steps)].iter().zip(&mut weights) {
                let value = value.to_bits().to_le_bytes().map(i32::from);
                for (acc, w) in acc.iter_mut().zip(&weights.0) {
                    let w = w.to_bits().to_le_bytes().map(|w| i32::from(w.cast_signed()));
                    *acc += value[0] * w[0] + value[1] * w[1] + value[2] * w[2] + value[3] * w[3];
                }
            }
        }
        *sum = Line(acc.map(|acc| f32::from_bits(acc.cast_unsigned())));
    }
}
