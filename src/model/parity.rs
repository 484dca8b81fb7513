//! How far executors agree with the reference, on one network.

use std::num::NonZeroUsize;

use serde::Serialize;

use super::{
    bench::noise,
    bundle::Bundle,
    candle,
    contract::PrecisionClass,
    cpu::{CpuNetwork, calibrate},
    executor::{ExecuteError, InputSize, Role},
    golden::{Golden, Held},
    graph::Graph,
    input::Input,
    plan::{ActivationRange, Plan},
    precision::Precision,
    set::OpenError,
    weights::Weights,
};
use crate::domain::Pixels;

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
    let ranges = match precision {
        Precision::Int8 => calibrate::ranges(planned(graph, weights)?, input, &images, threads)?,
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

/// Runs the golden faces of a face network in a reduced precision of its card, on every instruction set of this machine that computes
/// in it: the cosine must reach the card's floor, and no value may differ by more than makes an executor unfit to serve.
///
/// # Errors
/// [`OpenError::Unsupported`] where there is no such instruction set.
pub fn parity_of_class(
    bundle: &Bundle,
    class: &PrecisionClass,
    threads: NonZeroUsize,
) -> Result<Vec<Agreement>, ParityError> {
    let (precision, floor) = (class.precision, f64::from(class.floor));
    let golden = Golden::of_network(bundle, precision)?;
    let (graph, weights, input) = (bundle.graph(), bundle.weights(), &bundle.contract().input);
    let opened = Opened { graph, weights, input, precision, ranges: &class.ranges, threads };
    opened.on_every_level(|executor, network| {
        let held = Held::of(&golden, |image| network.run(&[image]))?;
        Ok(Agreement {
            executor,
            precision,
            images: held.faces,
            shown: Shown::GoldenFaces,
            one_minus_cosine: 1.0 - held.least_cosine,
            allowed: 1.0 - floor,
            tolerances: Some(held.tolerances),
            good: held.least_cosine >= floor && held.tolerances <= 1.0,
        })
    })
}

fn planned(graph: &Graph, weights: &Weights) -> Result<Plan, OpenError> {
    Plan::new(graph, weights).map_err(|source| OpenError::Graph { role: Role::Embed, source })
}

/// A network and how it is to be run.
struct Opened<'a> {
    graph: &'a Graph,
    weights: &'a Weights,
    input: &'a Input,
    precision: Precision,
    /// For int8.
    ranges: &'a [ActivationRange],
    threads: NonZeroUsize,
}

impl Opened<'_> {
    fn on_every_level(
        &self,
        compare: impl Fn(String, &mut CpuNetwork) -> Result<Agreement, ExecuteError>,
    ) -> Result<Vec<Agreement>, ParityError> {
        let mut agreements = Vec::new();
        let mut unsupported = None;
        for level in CpuNetwork::levels() {
            let mut plan = planned(self.graph, self.weights)?;
            if self.precision == Precision::Int8 {
                plan = plan.with_ranges(self.ranges).map_err(OpenError::from)?;
            }
            match CpuNetwork::at(level, plan, self.input, self.precision, self.threads) {
                Ok(mut network) => agreements.push(compare(format!("cpu, {}", level.name()), &mut network)?),
                // Not every instruction set computes in every precision.
                Err(e @ OpenError::Unsupported { .. }) => unsupported = Some(e),
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
