//! A claim: one comparison of a probe with all references of a subject.

use super::{ModelMismatch, Score, Template, compare};

/// The mean of the scores of all references; `None` without one.
///
/// A threshold belongs to single comparisons, and a claim must keep its rate whatever number of references stands behind it. The best
/// of many scores passes it more often, the more there are. So does a mean template: it is nearer to everyone than its parts are, by half
/// of their variance. The mean score of a stranger has the mean of single scores and less spread, so what it has beyond a threshold is
/// never more in the mean. That its rate is not more either holds where strangers' scores have no heavy tail, and was measured:
/// docs/accuracy.md; `vultus evaluate --claims` does so for other networks.
///
/// # Errors
/// [`ModelMismatch`] when a reference is of another model than the probe.
pub fn compare_claim(probe: &Template, references: &[&Template]) -> Result<Option<Score>, ModelMismatch> {
    let scores = references.iter().map(|reference| compare(probe, reference).map(|score| f64::from(score.value())));
    let sum = scores.sum::<Result<f64, _>>()?;
    // The mean of finite numbers is finite.
    Ok(if references.is_empty() { None } else { Score::new((sum / references.len() as f64) as f32) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::ModelDigest;

    fn template(model: u8, values: &[f32]) -> Template {
        Template::new(ModelDigest::new([model; 32]), values.to_vec()).unwrap()
    }

    #[test]
    fn a_claim_has_one_model_and_a_reference() {
        let (probe, other) = (template(1, &[0.0]), template(2, &[0.0]));
        assert_eq!(compare_claim(&probe, &[]), Ok(None));
        assert!(compare_claim(&probe, &[&probe, &other]).is_err());
    }

    proptest! {
        #[test]
        fn a_claim_lies_among_its_scores(values in prop::collection::vec(-2.0_f32..2.0, 1..17), probe in -2.0_f32..2.0) {
            let probe = template(1, &[probe]);
            let references: Vec<_> = values.iter().map(|v| template(1, &[*v])).collect();
            let scores: Vec<_> = references.iter().map(|r| compare(&probe, r).unwrap().value()).collect();
            let claim = compare_claim(&probe, &references.iter().collect::<Vec<_>>()).unwrap().unwrap().value();
            let (least, best) = (scores.iter().copied().fold(f32::MAX, f32::min), scores.iter().copied().fold(f32::MIN, f32::max));
            prop_assert!(least - 1e-6 <= claim && claim <= best + 1e-6);
            if let [single] = scores[..] {
                prop_assert_eq!(claim, single);
            }
        }
    }
}
