//! Templates, their comparison, and what a score is compared with.

use std::{fmt, time::SystemTime};

use zeroize::Zeroize;

use super::{ReferenceId, SubjectId};

/// SHA-256 over what makes templates comparable: weights, preprocessing, alignment, precision class.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelDigest([u8; 32]);

impl ModelDigest {
    pub const fn new(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ModelDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 64];
        hex::encode_to_slice(self.0, &mut digits).map_err(|_| fmt::Error)?;
        f.write_str(str::from_utf8(&digits).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for ModelDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelDigest({self})")
    }
}

/// What found the face of a reference and placed its landmarks: it moves the crop a little, and makes no two templates
/// incomparable. 16 hexadecimal digits, the first of a digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ExtractionVersion([u8; 8]);

impl ExtractionVersion {
    /// Of references from before it was recorded.
    pub const UNKNOWN: Self = Self([0; 8]);

    pub const fn new(digits: [u8; 8]) -> Self {
        Self(digits)
    }

    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Display for ExtractionVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::UNKNOWN { f.write_str("unknown") } else { f.write_str(&hex::encode(self.0)) }
    }
}

impl fmt::Debug for ExtractionVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExtractionVersion({self})")
    }
}

/// Why values are not a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("a template has 1 to {max} values, these are {len}", max = Template::MAX_DIMENSION)]
    Dimension { len: usize },
    #[error("a template's values are finite and not absurdly large, value {index} is not")]
    NotFinite { index: usize },
}

/// Features of one face, in either role. Wiped when dropped; `Debug` shows its length and model alone.
#[derive(Clone, PartialEq)]
pub struct Template {
    model: ModelDigest,
    values: Box<[f32]>,
}

impl Template {
    /// Values at most.
    pub const MAX_DIMENSION: usize = 4096;
    /// Keeps squared distances finite in f32 by a wide margin.
    const MAX_ABS: f32 = 1e6;

    pub fn new(model: ModelDigest, values: Vec<f32>) -> Result<Self, TemplateError> {
        if values.is_empty() || values.len() > Self::MAX_DIMENSION {
            return Err(TemplateError::Dimension { len: values.len() });
        }
        // NaN fails the comparison too.
        if let Some(index) = values.iter().position(|v| v.is_nan() || v.abs() > Self::MAX_ABS) {
            return Err(TemplateError::NotFinite { index });
        }
        Ok(Self { model, values: values.into() })
    }

    pub fn model(&self) -> ModelDigest {
        self.model
    }

    pub fn dimension(&self) -> usize {
        self.values.len()
    }

    /// The features; for comparison, the index and sealing. Never for a log.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        self.values.zeroize();
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({} values of {})", self.values.len(), self.model)
    }
}

/// A stored record of the gallery.
#[derive(Debug, Clone)]
pub struct Reference {
    pub id: ReferenceId,
    pub subject: SubjectId,
    pub template: Template,
    pub enrolled_at: SystemTime,
}

/// Templates of two models were to be compared: a fault of the caller, never a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("templates of different models do not compare: {probe} and {reference}")]
pub struct ModelMismatch {
    pub probe: ModelDigest,
    pub reference: ModelDigest,
}

/// How alike two templates are: `1 - d²/2` for Euclidean distance d. 1 is identical; for unit vectors it is the
/// cosine. Finite by construction.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Score(f32);

impl Score {
    /// `None` for a value that is not finite.
    pub fn new(value: f32) -> Option<Self> {
        value.is_finite().then_some(Self(value))
    }

    /// Of a squared Euclidean distance between two templates.
    pub fn from_squared_distance(d2: f32) -> Option<Self> {
        Self::new(1.0 - 0.5 * d2)
    }

    pub fn value(self) -> f32 {
        self.0
    }

    /// The Euclidean distance that this score stands for.
    pub fn distance(self) -> f32 {
        (2.0 * (1.0 - self.0)).max(0.0).sqrt()
    }

    /// Total order: scores are finite.
    pub fn total_cmp(self, other: Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// The least score that is a match.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold(Score);

impl Threshold {
    pub const fn new(least: Score) -> Self {
        Self(least)
    }

    pub fn value(self) -> f32 {
        self.0.value()
    }

    /// The only place where a score meets a threshold.
    pub fn admits(self, score: Score) -> bool {
        score.0 >= self.0.0
    }
}

/// Compares a probe with a reference, in that order. Accumulates in f64, so that the result does not depend on the
/// order of summation a machine prefers.
///
/// # Errors
/// [`ModelMismatch`] when the two were not made by the same model bundle.
pub fn compare(probe: &Template, reference: &Template) -> Result<Score, ModelMismatch> {
    if probe.model != reference.model || probe.values.len() != reference.values.len() {
        return Err(ModelMismatch { probe: probe.model, reference: reference.model });
    }
    let d2: f64 =
        probe.values.iter().zip(&reference.values).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    // Values are bounded by MAX_ABS and MAX_DIMENSION, so the score is finite.
    Ok(Score((1.0 - 0.5 * d2) as f32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(model: u8, values: &[f32]) -> Template {
        Template::new(ModelDigest::new([model; 32]), values.to_vec()).unwrap()
    }

    #[test]
    fn score_is_the_cosine_of_unit_vectors() {
        let (a, b) = (template(1, &[1.0, 0.0]), template(1, &[0.6, 0.8]));
        assert!((compare(&a, &b).unwrap().value() - 0.6).abs() < 1e-6);
        assert_eq!(compare(&a, &a).unwrap().value(), 1.0);
    }

    #[test]
    fn score_keeps_the_customary_distance() {
        let (a, b) = (template(1, &[0.0, 0.0]), template(1, &[0.6, 0.0]));
        let score = compare(&a, &b).unwrap();
        assert!((score.distance() - 0.6).abs() < 1e-6);
        assert!((score.value() - 0.82).abs() < 1e-6);
    }

    #[test]
    fn templates_of_two_models_do_not_compare() {
        assert!(compare(&template(1, &[1.0]), &template(2, &[1.0])).is_err());
        assert!(compare(&template(1, &[1.0]), &template(1, &[1.0, 0.0])).is_err());
    }

    #[test]
    fn nonsense_is_no_template() {
        let digest = ModelDigest::new([0; 32]);
        for bad in [vec![], vec![f32::NAN], vec![1.0, f32::INFINITY], vec![1e30], vec![0.0; 4097]] {
            assert!(Template::new(digest, bad).is_err());
        }
        let worst = vec![1e6; 4096];
        let (a, b) = (template(0, &worst), template(0, &worst.iter().map(|v| -v).collect::<Vec<_>>()));
        assert!(compare(&a, &b).unwrap().value().is_finite());
    }

    #[test]
    fn debug_shows_no_features() {
        let shown = format!("{:?}", template(7, &[0.123456, 0.654321]));
        assert!(shown.starts_with("Template(2 values of 0707"), "{shown}");
        assert!(!shown.contains("0.12"));
    }

    #[test]
    fn a_threshold_admits_its_own_score() {
        let t = Threshold::new(Score::new(0.5).unwrap());
        assert!(t.admits(Score::new(0.5).unwrap()));
        assert!(!t.admits(Score::new(0.499).unwrap()));
    }
}
