//! How far executors agree with the reference, on one network.

use std::num::NonZeroUsize;

use serde::Serialize;

use crate::{
    candle,
    cpu::{CpuNetwork, calibrate},
    executor::{ExecuteError, LoadError},
    graph::Graph,
    image::Pixels,
    input::{Input, InputSize},
    plan::{ActivationRange, Plan},
    precision::Precision,
    weights::Weights,
};

/// The least cosine to the reference that f32 may have, and what a reduced precision may lose on pixels that are no face.
const LEAST_F32: f64 = 1.0 - 1e-4;
const LEAST_REDUCED: f64 = 1.0 - 5e-3;

/// One executor in one precision against the reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    /// With its instruction set.
    pub executor: String,
    pub precision: Precision,
    /// What was compared; several images at a time, in batches.
    pub images: usize,
    pub shown: Shown,
    /// 1 minus the least cosine of an image's outputs to the reference's.
    pub one_minus_cosine: f64,
    /// The most that it may be.
    pub allowed: f64,
    /// Of golden faces: the greatest difference, in what the card's agreement explains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerances: Option<f32>,
    /// Whether it is within both.
    pub good: bool,
}

/// What images show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shown {
    Noise,
    GoldenFaces,
}

/// Why nothing was compared.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    #[error("the network {0}")]
    Load(#[from] LoadError),
    #[error(transparent)]
    Execute(#[from] ExecuteError),
}

/// Runs `images` pseudo-random images through the reference and through the CPU executor on every instruction set that this
/// machine has, one batch for all.
pub fn parity(
    graph: &Graph,
    weights: &Weights,
    input: &Input,
    precision: Precision,
    images: NonZeroUsize,
    threads: NonZeroUsize,
) -> Result<Vec<Agreement>, ParityError> {
    let size = InputSize { width: input.width, height: input.height };
    let images: Vec<Pixels> = (0..images.get()).filter_map(|seed| noise(size, seed as u32)).collect();
    let images: Vec<&Pixels> = images.iter().collect();
    let expected = candle::reference(graph, weights, input, &images)?;
    let least = if precision == Precision::F32 { LEAST_F32 } else { LEAST_REDUCED };
    let ranges = match precision {
        Precision::Int8 => {
            calibrate::ranges(Plan::new(graph, weights).map_err(LoadError::from)?, input, &images, threads)?
        }
        _ => vec![],
    };
    let opened = Opened { graph, weights, input, precision, ranges: &ranges, threads };
    opened.on_every_level(|executor, network| {
        let got = network.run(&images)?;
        let cosine = got.iter().zip(&expected).map(|(got, expected)| cosine(got, expected)).fold(1.0, f64::min);
        Ok(Agreement {
            executor,
            precision,
            images: images.len(),
            shown: Shown::Noise,
            one_minus_cosine: 1.0 - cosine,
            allowed: 1.0 - least,
            tolerances: None,
            good: got.len() == expected.len() && cosine >= least,
        })
    })
}

/// A network and how it is to be run.
#[derive(Debug)]
pub struct Opened<'a> {
    pub graph: &'a Graph,
    pub weights: &'a Weights,
    pub input: &'a Input,
    pub precision: Precision,
    /// For int8.
    pub ranges: &'a [ActivationRange],
    pub threads: NonZeroUsize,
}

impl Opened<'_> {
    /// What `compare` says of the CPU executor, with its name, on every instruction set of this machine that computes in the precision.
    ///
    /// # Errors
    /// [`LoadError::Unsupported`] where there is none.
    pub fn on_every_level(
        &self,
        compare: impl Fn(String, &mut CpuNetwork) -> Result<Agreement, ExecuteError>,
    ) -> Result<Vec<Agreement>, ParityError> {
        let mut agreements = Vec::new();
        let mut unsupported = None;
        for level in CpuNetwork::levels() {
            let mut plan = Plan::new(self.graph, self.weights).map_err(LoadError::from)?;
            if self.precision == Precision::Int8 {
                plan = plan.with_ranges(self.ranges).map_err(LoadError::from)?;
            }
            match CpuNetwork::at(level, plan, self.input, self.precision, self.threads) {
                Ok(mut network) => agreements.push(compare(format!("cpu, {}", level.name()), &mut network)?),
                // Not every instruction set computes in every precision.
                Err(e @ LoadError::Unsupported(_)) => unsupported = Some(e),
                Err(e) => return Err(e.into()),
            }
        }
        match unsupported {
            Some(e) if agreements.is_empty() => Err(e.into()),
            _ => Ok(agreements),
        }
    }
}

/// Of two outputs; 1 for two that are all zeros, -1 for outputs of different lengths.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    match (a.len() == b.len(), lengths > 0.0) {
        (false, _) => -1.0,
        (true, true) => dot(a, b) / lengths,
        (true, false) => f64::from(u8::from(a == b)),
    }
}

/// Pseudo-random pixels.
pub fn noise(InputSize { width, height }: InputSize, seed: u32) -> Option<Pixels> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 24) as u8
    };
    Pixels::new(width, height, (0..width as usize * height as usize * 3).map(|_| next()).collect()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_are_of_whole_outputs() {
        assert_eq!(cosine(&[3.0, 4.0], &[6.0, 8.0]), 1.0);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), 0.0);
        assert_eq!(cosine(&[0.0], &[0.0]), 1.0);
        assert_eq!(cosine(&[0.0], &[1.0]), 0.0);
        assert_eq!(cosine(&[1.0], &[1.0, 2.0]), -1.0);
    }
}
