//! How far a reduced precision of a face network agrees with the reference, measured on faces; and, for int8, between which
//! values activations lie on them.

use std::num::NonZeroUsize;

use super::{
    bundle::Bundle,
    candle,
    contract::PrecisionClass,
    cpu::{CpuNetwork, calibrate},
    executor::{ExecuteError, Role},
    parity::cosine,
    plan::Plan,
    precision::Precision,
    set::OpenError,
};
use crate::domain::Pixels;

/// The floor of a class whose card names none: a cosine that moves the default model's descriptors by a tenth of their length.
pub const FLOOR: f32 = 0.995;
/// Fewer faces say next to nothing: the photos of the default model's package show 21.
const LEAST_FACES: usize = 20;
/// Faces that run together.
const BATCH: usize = 8;

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    #[error("expected {LEAST_FACES} faces or more to measure on, found {0}")]
    Faces(usize),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Execute(#[from] ExecuteError),
}

/// Faces, and what the reference gives for them.
#[derive(Debug)]
pub struct Faces<'a> {
    images: Vec<&'a Pixels>,
    expected: Vec<Vec<f32>>,
    /// What they are, in words.
    source: String,
}

impl<'a> Faces<'a> {
    /// `images` are aligned, of the network's size. Runs the reference over them, which takes a while.
    pub fn new(bundle: &Bundle, images: Vec<&'a Pixels>, source: String) -> Result<Self, CalibrateError> {
        if images.len() < LEAST_FACES {
            return Err(CalibrateError::Faces(images.len()));
        }
        let expected = candle::reference(bundle.graph(), bundle.weights(), &bundle.contract().input, &images)?;
        Ok(Self { images, expected, source })
    }

    pub fn count(&self) -> usize {
        self.images.len()
    }
}

/// The class of `precision` with what was measured: the least cosine to the reference, and for int8 the ranges. It serves
/// where the cosine reaches `floor`.
pub fn measure(
    bundle: &Bundle,
    precision: Precision,
    floor: f32,
    faces: &Faces<'_>,
    threads: NonZeroUsize,
) -> Result<PrecisionClass, CalibrateError> {
    let planned = || {
        let role = Role::Embed;
        Plan::new(bundle.graph(), bundle.weights()).map_err(|source| OpenError::Graph { role, source })
    };
    let input = &bundle.contract().input;
    let (mut plan, mut ranges) = (planned()?, vec![]);
    if precision == Precision::Int8 {
        ranges = calibrate::ranges(planned()?, input, &faces.images, threads)?;
        plan = plan.with_ranges(&ranges).map_err(OpenError::from)?;
    }
    let mut network = CpuNetwork::new(plan, input, precision, threads)?;
    let mut least = 1.0_f64;
    for (images, expected) in faces.images.chunks(BATCH).zip(faces.expected.chunks(BATCH)) {
        let got = network.run(images)?;
        least = got.iter().zip(expected).map(|(got, expected)| cosine(got, expected)).fold(least, f64::min);
    }
    // Not rounded up to a floor that it misses; five digits say enough.
    let agreement = (least * 1e5).floor() as f32 / 1e5;
    let (images, source) = (faces.images.len() as u64, faces.source.clone());
    Ok(PrecisionClass { precision, floor, agreement: Some(agreement), images, source, ranges })
}
