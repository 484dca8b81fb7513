//! What a bundle promises: `model.toml`, the same format as the model cards in `models/`.

mod face;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use vultus_engine::{
    graph::MAX_NODES,
    input::{Input, MAX_INPUT_SIDE},
    int8,
    plan::ActivationRange,
    precision::Precision,
};

use super::role::Role;
use crate::domain::CalibrationError;

pub use self::face::{CalibrationTable, FaceContract, Metric, Published, TablePoint};

/// The version of the format that this code reads and writes.
pub const FORMAT: u32 = 1;
/// A floor below which no card may go: a descriptor that moves by a seventh of its length is another's.
pub const LEAST_FLOOR: f32 = 0.99;
/// Bytes of a `model.toml`, at most.
pub const MAX_CARD: u64 = 256 << 10;

/// Why a card is no contract.
#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    #[error("model.toml: {0}")]
    Toml(#[from] toml::de::Error),
    #[error("model.toml cannot be written: {0}")]
    Write(#[from] toml::ser::Error),
    #[error("model.toml has format {format}, this program reads format {FORMAT}: {advice}", format = .0, advice = advice(*.0))]
    Format(i64),
    /// A word that this program does not know, where every word counts.
    #[error("model.toml: {0}the file may come from a newer version of this program, or the word is misspelt")]
    Unknown(toml::de::Error),
    #[error("model.toml: {0}")]
    Value(&'static str),
    #[error("model.toml, input: expected a square, in which arcface_112 places landmarks, got {width}x{height}")]
    NotSquare { width: u32, height: u32 },
    #[error("model.toml, calibration: {0}")]
    Calibration(#[from] CalibrationError),
    #[error(
        "model.toml: the calibration was measured for other weights, whose digest is {of:?} (face.calibration.of); expected {digest}: \
         remove [face.calibration], then `vultus evaluate` measures one for these"
    )]
    CalibrationOf { of: String, digest: String },
    #[error(
        "model.toml: the calibration does not say which weights it was measured for, and in which precision: expected \
         face.calibration.of = \"{digest}\" if it was these, and face.calibration.precision = \"f32\" or another; else no \
         [face.calibration]; for the default model `vultus model fetch` writes it"
    )]
    CalibrationOfUnknown { digest: String },
    #[error("model.toml, quality: unknown measure {0:?}")]
    Measure(String),
}

/// All that is promised about one network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    pub format: u32,
    /// Folder of the bundle: 1 to 64 characters of a-z 0-9 - _.
    pub name: String,
    pub version: String,
    pub role: Role,
    pub summary: String,
    /// What it serves in at first: f32. The others are held against it.
    pub precision: Precision,
    /// Others that it may serve in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub precisions: Vec<PrecisionClass>,
    /// SHA-256, hexadecimal, of weights, graph and what of this contract changes outputs. In a card: what importing
    /// must give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    pub source: Source,
    pub licence: Licence,
    pub input: Input,
    pub output: Output,
    /// Of face networks alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub face: Option<FaceContract>,
}

/// Where the weights come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The package with its version, or what else people find the file by: nothing looks it up.
    pub package: String,
    /// The weights' file in it.
    pub file: String,
    /// Of an ONNX file with several outputs: the name of the one that is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// SHA-256 of the package, hexadecimal.
    pub sha256: String,
    /// Where the network was published and trained.
    pub origin: String,
}

/// Under which terms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Licence {
    /// SPDX expression.
    pub spdx: String,
    /// What the weights may be used for. Importing asks for it; bundles of before have none, and serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<Terms>,
    pub notes: String,
}

/// What weights may be used for, as far as this program heeds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Terms {
    /// Whatever the licence says; nothing is held back.
    Any,
    /// Research alone: they do not serve unless the operator's configuration says so.
    ResearchOnly,
}

/// What the network gives for one image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Values in all.
    pub dimension: usize,
}

/// A reduced precision that the network may serve in, and how far it was measured to agree with f32.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrecisionClass {
    pub precision: Precision,
    /// The least cosine to the f32 output that is accepted.
    pub floor: f32,
    /// The least cosine over `images`, where it was measured; of int8 on faces that were held out of the ranges, in
    /// turn. A class below its floor, or not measured, does not serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f32>,
    /// Images behind it.
    #[serde(default)]
    pub images: u64,
    /// What they were.
    #[serde(default)]
    pub source: String,
    /// Of int8: between which values the inputs of convolutions lie, `[value, low, high]` each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<ActivationRange>,
    /// The first digits of a digest over all that was measured and the bundle that it was measured on. Elsewhere it
    /// does not serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<String>,
}

impl PrecisionClass {
    /// The same, as it was measured on the bundle of this digest (hexadecimal).
    pub fn measured_on(mut self, digest: &str) -> Self {
        self.measured = Some(self.digest_with(digest));
        self
    }

    /// Whether it was measured on the bundle of this digest, and is as it was then. That is no proof against who would
    /// forge it.
    pub fn is_of(&self, digest: &str) -> bool {
        self.measured.as_ref().is_some_and(|measured| *measured == self.digest_with(digest))
    }

    fn digest_with(&self, digest: &str) -> String {
        // An integer network of another specification was not measured.
        let arithmetic = if self.precision == Precision::Int8 { int8::VERSION } else { "" };
        let all = ("vultus class v1", digest, self.precision, self.agreement, self.images, &self.ranges);
        // Plain data: serialising it cannot fail.
        let all = Sha256::new().chain_update(serde_json::to_vec(&all).unwrap_or_default());
        let hash = all.chain_update(arithmetic).finalize();
        hex::encode(&hash[..8])
    }

    /// Whether it was measured and reaches its floor.
    pub fn serves(&self) -> bool {
        self.images > 0 && self.agreement.is_some_and(|agreement| agreement >= self.floor)
    }
}

/// What every format has.
#[derive(Deserialize)]
struct Versioned {
    format: Option<i64>,
}

fn advice(format: i64) -> &'static str {
    if format > i64::from(FORMAT) { "a newer version of the program is needed" } else { "there is none such" }
}

impl Contract {
    /// Reads and checks a card.
    pub fn parse(text: &str) -> Result<Self, ContractError> {
        // Before the fields, which are another format's own.
        let Versioned { format } = toml::from_str(text)?;
        if let Some(format) = format.filter(|format| *format != i64::from(FORMAT)) {
            return Err(ContractError::Format(format));
        }
        let contract: Self = toml::from_str(text).map_err(|error| match error.message() {
            // serde's own words: it has no other sign for them.
            unknown if unknown.starts_with("unknown ") => ContractError::Unknown(error),
            _ => ContractError::Toml(error),
        })?;
        contract.check()?;
        Ok(contract)
    }

    /// What stands in it of a reduced precision.
    pub fn class(&self, precision: Precision) -> Option<&PrecisionClass> {
        self.precisions.iter().find(|class| class.precision == precision)
    }

    /// Activation ranges for int8, where they were measured.
    pub fn ranges(&self) -> &[ActivationRange] {
        self.class(Precision::Int8).map_or(&[], |class| &class.ranges)
    }

    pub fn to_toml(&self) -> Result<String, ContractError> {
        Ok(toml::to_string(self)?)
    }

    /// Everything that deserialising does not check.
    pub fn check(&self) -> Result<(), ContractError> {
        if self.format != FORMAT {
            return Err(ContractError::Format(self.format.into()));
        }
        let Input { width, height, mean, scale, .. } = &self.input;
        let sides = 1..=MAX_INPUT_SIDE;
        let finite = mean.iter().all(|m| m.is_finite()) && scale.is_finite() && *scale != 0.0;
        let fits = |class: &PrecisionClass| {
            let once = self.precisions.iter().filter(|other| other.precision == class.precision).count() == 1;
            let cosine = |value: f32| (-1.0..=1.0).contains(&value);
            let ranges = class.ranges.len() <= MAX_NODES && class.ranges.iter().all(ActivationRange::is_good);
            ranges
                && once
                && class.precision != self.precision
                && (LEAST_FLOOR..=1.0).contains(&class.floor)
                && class.agreement.is_none_or(cosine)
        };
        let rules = [
            (
                self.precision == Precision::F32,
                "precision: expected f32; a reduced one serves as [[precisions]], which `vultus model calibrate` measures and writes",
            ),
            (is_name(&self.name), "name: expected 1 to 64 characters of a-z 0-9 - _"),
            (self.digest.as_deref().is_none_or(is_sha256), "digest: expected 64 hexadecimal characters"),
            (is_sha256(&self.source.sha256), "source.sha256: expected 64 hexadecimal characters"),
            (sides.contains(width) && sides.contains(height), "input: expected sides of 1 to 2048 pixels"),
            (finite, "input: mean and scale must be finite, scale not 0"),
            (self.output.dimension > 0, "output.dimension: expected at least 1"),
            (
                self.precisions.iter().all(fits),
                "precisions: each but the first once, floors of 0.99 to 1, cosines of -1 to 1, ranges finite around 0",
            ),
            (self.face.is_some() == (self.role == Role::Embed), "face: expected for the role embed, and for no other"),
        ];
        if let Some((_, fault)) = rules.into_iter().find(|(good, _)| !good) {
            return Err(ContractError::Value(fault));
        }
        match &self.face {
            Some(face) => face.check(self.output.dimension, &self.input),
            None => Ok(()),
        }
    }
}

/// Names are folders: nothing that could lead elsewhere.
pub fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
}

#[cfg(test)]
mod tests;
