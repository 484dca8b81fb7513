//! A claim: one comparison of a probe with all references of a subject.

use super::{ModelMismatch, Score, Template, compare};

/// The mean of the scores of all references; `None` without one.
///
/// # Errors
/// [`ModelMismatch`] when a reference is of another model than the probe.
pub fn compare_claim(probe: &Template, references: &[&Template]) -> Result<Option<Score>, ModelMismatch> {
    let scores = references.iter().map(|reference| compare(probe, reference).map(|score| f64::from(score.value())));
    let sum = scores.sum::<Result<f64, _>>()?;
    // The mean of finite numbers is finite.
    Ok(if references.is_empty() { None } else { Score::new((sum / references.len() as f64) as f32) })
}
