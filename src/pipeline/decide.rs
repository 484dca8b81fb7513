//! From error rates to thresholds, from scores to decisions.

use crate::domain::{Calibration, CalibrationError, Fmr, Fpir, Reason, Score, Tail, Threshold};

/// The operator's rates: what a caller that names none gets, and the laxest that one may name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RatePolicy {
    pub max_fmr: Fmr,
    pub max_fpir: Fpir,
    /// Whether thresholds that nothing was counted for may be used.
    pub tail: Tail,
}

/// Why no threshold applies.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ThresholdError {
    #[error("the policy allows at most {allowed}, the request names {asked}")]
    LaxerThanPolicy { asked: f64, allowed: f64 },
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
}

/// The threshold of a 1:1 comparison.
pub fn threshold_1_to_1(
    calibration: &Calibration,
    policy: &RatePolicy,
    asked: Option<Fmr>,
) -> Result<Threshold, ThresholdError> {
    let rate = asked.unwrap_or(policy.max_fmr);
    if rate > policy.max_fmr {
        return Err(ThresholdError::LaxerThanPolicy { asked: rate.value(), allowed: policy.max_fmr.value() });
    }
    Ok(calibration.threshold_for_fmr(rate, policy.tail)?)
}

/// The threshold of a 1:N search over `size` references.
pub fn threshold_1_to_n(
    calibration: &Calibration,
    policy: &RatePolicy,
    asked: Option<Fpir>,
    size: u64,
) -> Result<Threshold, ThresholdError> {
    let rate = asked.unwrap_or(policy.max_fpir);
    if rate > policy.max_fpir {
        return Err(ThresholdError::LaxerThanPolicy { asked: rate.value(), allowed: policy.max_fpir.value() });
    }
    Ok(calibration.threshold_for_fpir(rate, size, policy.tail)?)
}

/// The reason that belongs to a score; its decision follows from it.
pub fn decide(score: Score, threshold: Threshold) -> Reason {
    if threshold.admits(score) { Reason::ScoreReachesThreshold } else { Reason::ScoreBelowThreshold }
}

/// A score such as a stranger's, for a claimed subject without references: what the caller sees must not tell the two apart.
/// `chance` is 16 pseudo-random bytes that depend on subject and probe, so that the same request gets the same score. Never
/// admitted by `threshold`.
pub fn score_of_a_stranger(calibration: &Calibration, threshold: Threshold, chance: [u8; 16]) -> Score {
    let uniform = |bytes: &[u8]| {
        let bits = bytes.iter().fold(0_u64, |bits, b| bits << 8 | u64::from(*b));
        (bits >> 11) as f64 / (1_u64 << 53) as f64 // in [0, 1)
    };
    let (first, second) = chance.split_at(8);
    // Box and Muller's transform of two uniform numbers to a normal one.
    let radius = (-2.0 * (1.0 - uniform(first)).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * uniform(second)).cos();
    let (mean, deviation) = calibration.non_mated();
    let drawn = f64::from(mean) + f64::from(deviation) * normal;
    Score::new(drawn as f32).filter(|score| !threshold.admits(*score)).unwrap_or_else(|| threshold.just_below())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::CalibrationPoint;

    fn calibration() -> Calibration {
        let point = |fmr, threshold| CalibrationPoint {
            fmr: Fmr::new(fmr).unwrap(),
            threshold: Threshold::new(Score::new(threshold).unwrap()),
            trials: 1000,
        };
        Calibration::new(vec![point(0.1, 0.75), point(0.01, 0.82)], (0.65, 0.06)).unwrap()
    }

    fn policy() -> RatePolicy {
        RatePolicy { max_fmr: Fmr::new(0.05).unwrap(), max_fpir: Fpir::new(0.5).unwrap(), tail: Tail::Measured }
    }

    #[test]
    fn a_caller_may_be_stricter_than_the_policy_never_laxer() {
        let at = |asked| threshold_1_to_1(&calibration(), &policy(), asked).map(Threshold::value);
        assert_eq!(at(None), Ok(0.82));
        assert_eq!(at(Some(Fmr::new(0.01).unwrap())), Ok(0.82));
        assert!(matches!(at(Some(Fmr::new(0.1).unwrap())), Err(ThresholdError::LaxerThanPolicy { .. })));
        assert!(matches!(at(Some(Fmr::new(1e-9).unwrap())), Err(ThresholdError::Calibration(_))));
    }

    #[test]
    fn the_threshold_of_a_search_follows_the_gallery() {
        let at = |size| threshold_1_to_n(&calibration(), &policy(), None, size).map(Threshold::value);
        assert_eq!(at(1), Ok(0.75));
        assert_eq!(at(40), Ok(0.82));
        assert!(at(1000).is_err());
    }

    #[test]
    fn strangers_scores_look_like_strangers_scores() {
        let threshold = Threshold::new(Score::new(0.82).unwrap());
        let scores: Vec<f64> = (0..4000_u64)
            .map(|i| {
                let half = |salt: u64| (i ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let chance = [half(1).to_be_bytes(), half(1 << 40).to_be_bytes()].concat();
                f64::from(score_of_a_stranger(&calibration(), threshold, chance.try_into().unwrap()).value())
            })
            .collect();
        let mean = scores.iter().sum::<f64>() / 4000.0;
        let deviation = (scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / 4000.0).sqrt();
        assert!((mean - 0.65).abs() < 0.01 && (deviation - 0.06).abs() < 0.01, "{mean} {deviation}");
    }

    proptest! {
        #[test]
        fn no_stranger_is_ever_admitted(chance: [u8; 16], least in -1e6_f32..1e6) {
            let threshold = Threshold::new(Score::new(least).unwrap());
            let score = score_of_a_stranger(&calibration(), threshold, chance);
            prop_assert_eq!(decide(score, threshold), Reason::ScoreBelowThreshold);
        }
    }
}
