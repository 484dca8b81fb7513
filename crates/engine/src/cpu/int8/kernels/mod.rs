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
#[cfg(test)]
mod emulated_tests;
mod half;
mod lanes;
mod lanes_avx2;
mod lanes_avx512;
mod run;
#[cfg_attr(not(all(target_arch = "x86_64", target_os = "linux")), allow(dead_code))]
mod sum_amx;
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
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use crate::cpu::kernels::tiles;
use crate::cpu::kernels::{Level, LevelSet};

/// Channels of a line: what passes over values take at once.
pub const LINE: usize = 16;
/// Bytes of a step.
pub const STEP: usize = 4;
/// Pixels of a tile, at most.
pub const TILE: usize = sum_amx::TILE;
/// Channels out of a panel, at most.
pub const PANEL: usize = 2 * LINE;

impl Level {
    /// Channels out of a panel: as many as fill the registers together with a tile's pixels.
    pub fn panel(self) -> usize {
        if self.is_wide() { PANEL } else { LINE }
    }

    /// Pixels of a tile.
    pub fn tile(self) -> usize {
        match self.0 {
            set if set.has_tiles() => TILE,
            _ if self.is_wide() => 12,
            _ => 6,
        }
    }

    /// Whether codes are bytes, not words: bytes have no sign where they are multiplied, and signed ones are stored
    /// plus 128. Plain Rust takes them too, so that tests see both on every machine.
    pub fn takes_bytes(self) -> bool {
        self.0.multiplies_bytes() || self.0 == LevelSet::Portable
    }

    /// Whether tiles, where it has them, gave the right sums here.
    pub fn is_exact(self) -> bool {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if self.0 == LevelSet::Amx {
            static HELD: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
            // SAFETY: a `Level` names what the machine has, and the process may use.
            return *HELD.get_or_init(|| unsafe { sum_amx::is_exact(&mut tiles::Machine) });
        }
        true
    }

    /// Codes of a step.
    pub fn each(self) -> usize {
        if self.takes_bytes() { 4 } else { 2 }
    }

    fn is_wide(self) -> bool {
        self.0.has_avx512() || self.0.has_tiles()
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
        if level.takes_bytes() {
            return Self::of_bytes(footprint, lanes, weights);
        }
        let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
        Self { reach: footprint.reach(), footprint, lanes, weights: Block::of(&bytes) }
    }

    fn of_bytes(footprint: Footprint, lanes: usize, weights: &[i16]) -> Self {
        let bytes: Vec<u8> = weights.iter().map(|&w| (w as i8).cast_unsigned()).collect();
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
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            LevelSet::Amx => unsafe { sum_amx::sum(&mut tiles::Machine, self, x, places, sums) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            set if set.has_avx512() => unsafe { sum_avx512::sum(self, level.takes_bytes(), x, places, sums) },
            // SAFETY: as above; a panel has 16 channels.
            #[cfg(target_arch = "x86_64")]
            LevelSet::AvxVnni => unsafe { sum_avx2::sum(self, sum_avx2::Factors::Bytes, x, places, sums) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            LevelSet::Avx2 => unsafe { sum_avx2::sum(self, sum_avx2::Factors::Words, x, places, sums) },
            #[cfg(test)]
            LevelSet::EmulatedAmx => emulated_tests::sum_on_tiles(self, x, places, sums),
            // SAFETY: as above; tests take this one on machines with AVX2.
            #[cfg(all(test, target_arch = "x86_64"))]
            LevelSet::EmulatedAvxVnni => unsafe {
                sum_avx2::sum(self, sum_avx2::Factors::EmulatedBytes, x, places, sums);
            },
            _ => sum_portable::sum(self, x, places, sums),
        }
    }
}
