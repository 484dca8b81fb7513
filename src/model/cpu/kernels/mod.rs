//! The inner loops, for every instruction set: products of a few pixels with a panel of weights, summed over lines.
//!
//! A panel is one or two lines of channels out. For every step (one channel in, or one group of them that a dot product
//! takes at once) it holds its lines, one step after the other. A chunk is one line of channels in at one place of the
//! kernel: pixel p of a tile is line `at + p` of its source. How a pixel is summed does not depend on the others.

#![allow(unsafe_code)]

mod avx2;
mod avx512;
mod portable;

use super::layout::Line;

/// Pixels of a tile, at most: with two lines out, 28 sums stay in registers.
pub const TILE: usize = 14;
/// Lines out of a panel, at most.
pub const PANEL: usize = 2;

/// An instruction set that this machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level(Set);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    Portable,
    Avx2,
    Avx512,
}

impl Level {
    /// Those of this machine, the best first.
    pub fn available() -> Vec<Self> {
        let mut levels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let wide = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq");
            if wide && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") {
                levels.push(Self(Set::Avx512));
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                levels.push(Self(Set::Avx2));
            }
        }
        levels.push(Self(Set::Portable));
        levels
    }

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self.0 {
            Set::Portable => "portable",
            Set::Avx2 => "avx2",
            Set::Avx512 => "avx512",
        }
    }

    pub fn best() -> Self {
        Self::available()[0]
    }
}

/// Where the pixels of a tile lie for one line of channels in.
#[derive(Debug, Clone, Copy)]
pub struct Chunk {
    /// Which of the sources.
    pub source: u8,
    /// Channels in that are there.
    pub steps: u8,
    /// The first pixel's line.
    pub at: u32,
}

/// One call of a kernel: `pixels` of a tile with a panel of `width` lines.
#[derive(Debug, Clone, Copy)]
pub struct Tile<'a> {
    pub chunks: &'a [Chunk],
    pub sources: [&'a [Line]; 2],
    pub weights: &'a [Line],
    pub pixels: usize,
    pub width: usize,
    /// Starts from zero, not from what `sums` holds.
    pub first: bool,
}

impl Tile<'_> {
    /// Adds to `sums` (pixel, line out).
    ///
    /// # Panics
    /// When a chunk leaves its source or a length is wrong: a mistake of the program, never of its input.
    pub fn accumulate(&self, level: Level, sums: &mut [Line]) {
        let Self { chunks, sources, weights, pixels, width, .. } = *self;
        assert!((1..=TILE).contains(&pixels) && (1..=PANEL).contains(&width) && sums.len() == pixels * width);
        let mut steps = 0;
        for chunk in chunks {
            assert!(chunk.at as usize + pixels <= sources[usize::from(chunk.source)].len() && chunk.steps <= 16);
            steps += usize::from(chunk.steps);
        }
        assert!(weights.len() == steps * width);
        match level.0 {
            // SAFETY: a `Level` names what the machine has. The assertions say that every chunk's pixels lie inside of its
            // source, that there are weights for every step and sums for every pixel and line.
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => unsafe { avx512::accumulate(self, sums) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => unsafe { avx2::accumulate(self, sums) },
            _ => portable::accumulate(self, sums),
        }
    }
}

/// Runs plain loops compiled for the instruction set: `f` and what it calls must be inlined.
#[inline]
pub fn vectorised<R>(level: Level, f: impl FnOnce() -> R) -> R {
    match level.0 {
        // SAFETY: a `Level` names what the machine has.
        #[cfg(target_arch = "x86_64")]
        Set::Avx512 => unsafe { avx512::call(f) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Set::Avx2 => unsafe { avx2::call(f) },
        _ => f(),
    }
}

/// Plain loops too large to be inlined without being told: `run` is marked `#[inline(always)]`, and so is what it calls.
pub trait Loops {
    fn run(self);
}

/// Runs them compiled for the instruction set.
#[inline]
pub fn vectorised_loops(level: Level, loops: impl Loops) {
    match level.0 {
        // SAFETY: a `Level` names what the machine has.
        #[cfg(target_arch = "x86_64")]
        Set::Avx512 => unsafe { avx512::run(loops) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Set::Avx2 => unsafe { avx2::run(loops) },
        _ => loops.run(),
    }
}
