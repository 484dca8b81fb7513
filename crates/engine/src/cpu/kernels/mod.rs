//! The inner loops, for every instruction set: products of a few pixels with a panel of weights, summed over lines.
//!
//! A panel is one or two lines of channels out. For every step (one channel in, or one group of them that a dot product
//! takes at once) it holds its lines, one step after the other. A chunk is steps that lie side by side: those of pixel
//! p start at float `at + p * stride` of its source. How a pixel is summed does not depend on the others.

#![allow(unsafe_code)]

mod avx2;
mod avx512;
mod portable;
mod registers;
pub(in crate::cpu) mod tiles;
mod vector;

pub use self::vector::{Pass, Vector};

use std::env;

use super::layout::{LANES, Line};
use crate::executor::LoadError;

/// Pixels of a tile, at most: with two lines out, 28 sums stay in registers.
pub const TILE: usize = 14;
/// Lines out of a panel, at most.
pub const PANEL: usize = 2;

/// An instruction set that this machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level(pub(in crate::cpu) LevelSet);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cpu) enum LevelSet {
    Portable,
    Avx2,
    /// With products of bytes.
    AvxVnni,
    Avx512,
    /// With products of bytes.
    Avx512Vnni,
    /// With both, and products of bf16.
    Avx512Bf16,
    /// With all of it, and tiles of bytes. Only where it is asked for.
    Amx,
    /// As the sets of these names sum codes, by other instructions; the rest is plain Rust.
    #[cfg(test)]
    EmulatedAvxVnni,
    #[cfg(test)]
    EmulatedAmx,
}

impl LevelSet {
    pub fn has_avx512(self) -> bool {
        matches!(self, Self::Avx512 | Self::Avx512Vnni | Self::Avx512Bf16 | Self::Amx)
    }

    pub fn has_tiles(self) -> bool {
        match self {
            Self::Amx => true,
            #[cfg(test)]
            Self::EmulatedAmx => true,
            _ => false,
        }
    }

    /// Whether there is a product of bytes that adds in 32 bits.
    pub fn multiplies_bytes(self) -> bool {
        match self {
            Self::AvxVnni | Self::Avx512Vnni | Self::Avx512Bf16 | Self::Amx => true,
            #[cfg(test)]
            Self::EmulatedAvxVnni | Self::EmulatedAmx => true,
            _ => false,
        }
    }
}

/// The best first.
const SETS: [LevelSet; 7] = [
    LevelSet::Amx,
    LevelSet::Avx512Bf16,
    LevelSet::Avx512Vnni,
    LevelSet::Avx512,
    LevelSet::AvxVnni,
    LevelSet::Avx2,
    LevelSet::Portable,
];

/// What a step multiplies, in the place of one float of the input and of each weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Factors {
    /// One f32.
    F32,
    /// Two of bf16.
    Bf16,
}

impl Factors {
    /// Channels that a step takes.
    pub const fn each(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Bf16 => 2,
        }
    }
}

/// Names the best instruction set to take, by its word ([`Level::name`]): the machine's own where it is not set.
const VARIABLE: &str = "VULTUS_ISA";

impl Level {
    /// Those of this machine that may be taken, the best first. A word that names none limits nothing, and is refused by
    /// [`Self::chosen`].
    pub fn available() -> Vec<Self> {
        let most = env::var(VARIABLE).ok().as_deref().and_then(Self::named);
        let mut levels = Self::all_of_machine();
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if most == Some(Self(LevelSet::Amx)) && levels[0].has_bf16() && tiles::Machine::new().is_some() {
            levels.insert(0, Self(LevelSet::Amx));
        }
        Self::at_most(levels, most)
    }

    /// The best of those that may be taken.
    ///
    /// # Errors
    /// Where the environment names none.
    pub fn chosen() -> Result<Self, LoadError> {
        match env::var_os(VARIABLE) {
            Some(word) if word.to_str().and_then(Self::named).is_none() => {
                let words: Vec<&str> = SETS.iter().map(|set| Self(*set).name()).collect();
                let words = words.join(", ");
                Err(LoadError::Device(format!("{VARIABLE} is {}, expected one of {words}", word.display())))
            }
            _ => Ok(Self::best()),
        }
    }

    fn named(word: &str) -> Option<Self> {
        SETS.iter().map(|set| Self(*set)).find(|level| level.name() == word)
    }

    /// Of `levels`, the best first, those that are no better than `most`.
    fn at_most(mut levels: Vec<Self>, most: Option<Self>) -> Vec<Self> {
        let rank = |level: Self| SETS.iter().position(|set| *set == level.0);
        levels.retain(|level| most.is_none_or(|most| rank(*level) >= rank(most)));
        levels
    }

    /// The best of this machine's, whatever may be taken.
    pub fn of_machine() -> Self {
        Self::all_of_machine()[0]
    }

    fn all_of_machine() -> Vec<Self> {
        let mut levels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let fused = is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
            let fused = fused && is_x86_feature_detected!("avx2");
            let wide = fused && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq");
            if wide && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") {
                if is_x86_feature_detected!("avx512vnni") {
                    if is_x86_feature_detected!("avx512bf16") {
                        levels.push(Self(LevelSet::Avx512Bf16));
                    }
                    levels.push(Self(LevelSet::Avx512Vnni));
                }
                levels.push(Self(LevelSet::Avx512));
            }
            if fused {
                if is_x86_feature_detected!("avxvnni") {
                    levels.push(Self(LevelSet::AvxVnni));
                }
                levels.push(Self(LevelSet::Avx2));
            }
        }
        levels.push(Self(LevelSet::Portable));
        levels
    }

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self.0 {
            LevelSet::Portable => "portable",
            LevelSet::Avx2 => "avx2",
            LevelSet::AvxVnni => "avx_vnni",
            LevelSet::Avx512 => "avx512",
            LevelSet::Avx512Vnni => "avx512_vnni",
            LevelSet::Avx512Bf16 => "avx512_bf16",
            LevelSet::Amx => "amx",
            #[cfg(test)]
            LevelSet::EmulatedAvxVnni => "emulated_avx_vnni",
            #[cfg(test)]
            LevelSet::EmulatedAmx => "emulated_amx",
        }
    }

    pub fn best() -> Self {
        Self::available()[0]
    }

    /// Whether the machine multiplies bf16. Others multiply the same values as f32, and gain nothing by them.
    pub fn has_bf16(self) -> bool {
        matches!(self.0, LevelSet::Avx512Bf16 | LevelSet::Amx)
    }

    /// Those of the machine, and those that sum codes as machines do that are not at hand.
    #[cfg(test)]
    pub fn tested() -> Vec<Self> {
        let mut levels = Self::available();
        levels.push(Self(LevelSet::EmulatedAmx));
        if Self::all_of_machine().contains(&Self(LevelSet::Avx2)) {
            levels.push(Self(LevelSet::EmulatedAvxVnni));
        }
        levels
    }
}

/// Where the pixels of a tile lie for a few steps.
#[derive(Debug, Clone, Copy)]
pub struct Chunk {
    /// Which of the sources.
    pub source: u16,
    pub steps: u16,
    /// The first pixel's first float.
    pub at: u32,
}

/// One call of a kernel: `pixels` of a tile with a panel of `width` lines.
#[derive(Debug, Clone, Copy)]
pub struct Tile<'a> {
    pub chunks: &'a [Chunk],
    pub sources: [&'a [Line]; 2],
    pub weights: &'a [Line],
    pub pixels: usize,
    /// Floats from pixel to pixel: [`LANES`] where a pixel is a line.
    pub stride: usize,
    pub width: usize,
    /// Starts from zero, not from what `sums` holds.
    pub first: bool,
    pub factors: Factors,
}

impl Tile<'_> {
    /// Adds to `sums` (pixel, line out).
    ///
    /// # Panics
    /// When a chunk leaves its source or a length is wrong: a mistake of the program, never of its input.
    pub fn accumulate(&self, level: Level, sums: &mut [Line]) {
        let Self { chunks, sources, weights, pixels, stride, width, .. } = *self;
        assert!((1..=TILE).contains(&pixels) && (1..=PANEL).contains(&width) && sums.len() == pixels * width);
        let mut steps = 0;
        for chunk in chunks {
            let floats = sources[usize::from(chunk.source)].len() * LANES;
            assert!(chunk.at as usize + (pixels - 1) * stride + usize::from(chunk.steps) <= floats);
            steps += usize::from(chunk.steps);
        }
        assert!(weights.len() == steps * width);
        match (level.0, self.factors) {
            // SAFETY: a `Level` names what the machine has. The assertions say that every chunk's pixels lie inside of
            // its source, that there are weights for every step and sums for every pixel and line.
            #[cfg(target_arch = "x86_64")]
            (set, factors) if set.has_avx512() && (factors == Factors::F32 || level.has_bf16()) => unsafe {
                avx512::accumulate(self, sums)
            },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            (LevelSet::Avx2 | LevelSet::AvxVnni | LevelSet::Avx512 | LevelSet::Avx512Vnni, _) => unsafe {
                avx2::accumulate(self, sums)
            },
            _ => portable::accumulate(self, sums),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_takes_at_most_what_it_names() {
        let all: Vec<Level> = SETS.iter().map(|set| Level(*set)).collect();
        for (at, level) in all.iter().enumerate() {
            assert_eq!(Level::at_most(all.clone(), Level::named(level.name())), all[at..]);
        }
        // The machine lacks what is named: its best below.
        let [_, _, vnni, _, _, avx2, portable] = SETS.map(Level);
        assert_eq!(Level::at_most(vec![avx2, portable], Some(vnni)), [avx2, portable]);
        assert_eq!(Level::at_most(vec![avx2, portable], None), [avx2, portable]);
        assert_eq!((Level::named("AVX2"), Level::named("sse2"), Level::named("")), (None, None, None));
    }
}
