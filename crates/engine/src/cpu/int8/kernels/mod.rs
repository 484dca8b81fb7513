//! The inner loops of integer networks, for every instruction set. Unsafe code lies here alone.
//!
//! A panel is 16 or 32 channels out. A step is four bytes that lie side by side in the input: four codes, or two that
//! are words where the machine multiplies no bytes. For every step, a panel holds as many weights of each of its
//! channels. Sums are exact and of 32 bits, so every instruction set gives the same.
//!
//! Without an instruction for bytes that adds in 32 bits, words cost less: products of bytes that are added in 16 bits
//! do not fit where two weights are large, and in real networks a third of all steps would have to be taken twice.

#![allow(unsafe_code)]

mod buffer;
mod columns;
mod half;
mod lanes;
mod lanes_avx2;
mod lanes_avx512;
mod run;
mod sum_avx2;
mod sum_avx512;
mod sum_portable;

#[cfg(test)]
pub use self::half::{from_half, to_half};
pub use self::{
    buffer::Buffer,
    columns::Columns,
    lanes::{Lanes, Pass},
};

use self::buffer::Block;
use crate::cpu::kernels::{Level, LevelSet};

/// Channels of a line: what passes over values take at once.
pub const LINE: usize = 16;
/// Bytes of a step.
pub const STEP: usize = 4;
/// Pixels of a tile, at most.
pub const TILE: usize = 12;
/// Channels out of a panel, at most.
pub const PANEL: usize = 2 * LINE;

impl Level {
    /// Channels out of a panel: as many as fill the registers together with a tile's pixels.
    pub fn panel(self) -> usize {
        if self.is_wide() { PANEL } else { LINE }
    }

    /// Pixels of a tile.
    pub fn tile(self) -> usize {
        if self.is_wide() { TILE } else { TILE / 2 }
    }

    /// Whether codes are bytes, not words: bytes have no sign where they are multiplied, and signed ones are stored
    /// plus 128. Plain Rust takes them too, so that tests see both on every machine.
    pub fn takes_bytes(self) -> bool {
        matches!(self.0, LevelSet::Avx512Vnni | LevelSet::Avx512Bf16 | LevelSet::Portable)
    }

    /// Codes of a step.
    pub fn each(self) -> usize {
        if self.takes_bytes() { 4 } else { 2 }
    }

    fn is_wide(self) -> bool {
        matches!(self.0, LevelSet::Avx512 | LevelSet::Avx512Vnni | LevelSet::Avx512Bf16)
    }
}

/// Where the bytes of a pixel out lie: runs of steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint {
    /// The first byte of each run.
    pub runs: Vec<usize>,
    /// Steps of a run.
    pub steps: usize,
}

impl Footprint {
    /// Bytes from the first to the last.
    fn reach(&self) -> usize {
        self.runs.iter().max().map_or(0, |run| run + self.steps * STEP)
    }
}

/// Weights of a panel.
#[derive(Debug)]
pub struct Panel {
    footprint: Footprint,
    reach: usize,
    lanes: usize,
    /// Run, step, channel, code.
    weights: Vec<Block>,
}

impl Panel {
    /// `weights`: run, step, channel, code; of as many channels as `level` has in a panel, or of a line.
    ///
    /// # Panics
    /// When there are too few or too many.
    pub fn new(level: Level, footprint: Footprint, lanes: usize, weights: &[i16]) -> Self {
        assert!(lanes == LINE || lanes == level.panel());
        assert!(weights.len() == footprint.runs.len() * footprint.steps * lanes * level.each());
        let bytes: Vec<u8> = match level.takes_bytes() {
            true => weights.iter().map(|&w| (w as i8).cast_unsigned()).collect(),
            false => weights.iter().flat_map(|w| w.to_le_bytes()).collect(),
        };
        Self { reach: footprint.reach(), footprint, lanes, weights: Block::of(&bytes) }
    }

    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// Bytes of weights.
    pub fn bytes(&self) -> usize {
        self.weights.len() * size_of::<Block>()
    }

    /// The sums of a tile: pixel, channel. `places` are the pixels' first bytes in `x`.
    ///
    /// # Panics
    /// When a pixel leaves `x` or there are other than `places` x lanes sums: a mistake of the program.
    pub fn sum(&self, level: Level, x: &[u8], places: &[usize], sums: &mut [i32]) {
        assert!((1..=level.tile()).contains(&places.len()) && sums.len() == places.len() * self.lanes);
        assert!(self.lanes == LINE || level.is_wide());
        let last = places.iter().copied().max().unwrap_or(0);
        assert!(last < x.len() && self.reach <= x.len() - last);
        match level.0 {
            // SAFETY: a `Level` names what the machine has. The assertions say that every pixel's steps lie in `x` and
            // that there is a sum for every pixel and channel; `new` says that there are weights for every step and
            // channel, four bytes each.
            #[cfg(target_arch = "x86_64")]
            LevelSet::Avx512 | LevelSet::Avx512Vnni | LevelSet::Avx512Bf16 => unsafe {
                sum_avx512::sum(self, level.takes_bytes(), x, places, sums);
            },
            // SAFETY: as above; a panel has 16 channels.
            #[cfg(target_arch = "x86_64")]
            LevelSet::Avx2 => unsafe { sum_avx2::sum(self, x, places, sums) },
            _ => sum_portable::sum(self, x, places, sums),
        }
    }
}
