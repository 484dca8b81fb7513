//! From an image to a template: decode, locate, judge, align, embed.

use std::{
    ops::Add,
    sync::Arc,
    time::{Duration, Instant},
};

use prost::bytes::Bytes;

use super::{
    Lane, Pipeline,
    align::{self, ImplausibleLandmarks},
    batch::DeviceError,
    decode::{self, DecodeError},
};
use crate::{
    domain::{Assessment, FiveLandmarks, Pixels, Template},
    model::Role,
    telemetry::Metrics,
};

/// One face, as it came.
#[derive(Debug)]
pub struct FaceInput {
    pub image: ImageInput,
    /// Where the caller says the face is, pixels of the upright image.
    pub landmarks: Option<FiveLandmarks>,
}

/// An image, as it came. `Debug` shows lengths alone.
pub enum ImageInput {
    /// A JPEG, PNG or WebP file.
    Encoded(Bytes),
    /// Rows of R G B from the top.
    Rgb8 { rgb8: Bytes, width: u32, height: u32 },
}

impl ImageInput {
    fn source(&self) -> decode::Source<'_> {
        match self {
            Self::Encoded(file) => decode::Source::Encoded(file),
            Self::Rgb8 { rgb8, width, height } => decode::Source::Rgb8 { rgb8, width: *width, height: *height },
        }
    }
}

impl std::fmt::Debug for ImageInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.source().fmt(f)
    }
}

/// How long the stages took, wall time. A stage that did not run is zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    pub decode: Duration,
    /// Locating, quality and alignment, the networks' part included.
    pub align: Duration,
    /// Waiting for the device to embed.
    pub queue: Duration,
    pub extract: Duration,
    /// Comparison, search or commit.
    pub compare: Duration,
}

impl Add for Timings {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            decode: self.decode + other.decode,
            align: self.align + other.align,
            queue: self.queue + other.queue,
            extract: self.extract + other.extract,
            compare: self.compare + other.compare,
        }
    }
}

/// What became of an image.
#[derive(Debug)]
pub struct Extraction {
    /// The template; or why there is none, in terms of quality.
    pub outcome: Result<Template, Assessment>,
    pub timings: Timings,
}

/// Why an image could not be judged at all.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Landmarks(#[from] ImplausibleLandmarks),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("the deadline passed before the image was decoded")]
    Late,
    #[error("{0}")]
    Internal(&'static str),
}

