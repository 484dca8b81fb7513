//! How far executors agree with the reference, on one network.

use std::num::NonZeroUsize;

use serde::Serialize;

use super::{
    bench::noise,
    candle,
    cpu::{CpuNetwork, calibrate},
    executor::{ExecuteError, InputSize, Role},
    graph::Graph,
    input::Input,
    plan::Plan,
    precision::Precision,
    set::OpenError,
    weights::Weights,
};
use crate::domain::Pixels;

/// The least cosine to the reference that f32 may have, and what a reduced precision may lose.
const LEAST_F32: f64 = 1.0 - 1e-4;
const LEAST_REDUCED: f64 = 1.0 - 5e-3;

/// One executor in one precision against the reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    /// With its instruction set.
    pub executor: String,
    pub precision: Precision,
    /// 1 minus the least cosine of an image's outputs to the reference's.
    pub one_minus_cosine: f64,
    /// Images compared; several at a time, in batches.
    pub images: usize,
    /// Whether it is within what the precision allows.
    pub good: bool,
}

/// Why nothing was compared.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    #[error(transparent)]
    Open(#[from] OpenError),
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
    let planned = || {
        let role = Role::Embed;
        Plan::new(graph, weights).map_err(|source| OpenError::Graph { role, source })
    };
    let ranges = match precision {
        Precision::Int8 => calibrate::ranges(planned()?, input, &images, threads)?,
        _ => vec![],
    };
    let mut agreements = Vec::new();
    let mut unsupported = None;
    for level in CpuNetwork::levels() {
        let mut plan = planned()?;
        if precision == Precision::Int8 {
            plan = plan.with_ranges(&ranges).map_err(OpenError::from)?;
        }
        let mut network = match CpuNetwork::at(level, plan, input, precision, threads) {
            Ok(network) => network,
            // Not every instruction set computes in every precision.
            Err(e @ OpenError::Unsupported { .. }) => {
                unsupported = Some(e);
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        let got = network.run(&images)?;
        let cosine = got.iter().zip(&expected).map(|(got, expected)| cosine(got, expected)).fold(1.0, f64::min);
        agreements.push(Agreement {
            executor: format!("cpu, {}", level.name()),
            precision,
            one_minus_cosine: 1.0 - cosine,
            images: images.len(),
            good: got.len() == expected.len() && cosine >= least,
        });
    }
    match unsupported {
        Some(e) if agreements.is_empty() => Err(e.into()),
        _ => Ok(agreements),
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
