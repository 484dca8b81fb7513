//! From error rates to thresholds, from scores to decisions.

use std::sync::Arc;

use crate::domain::{Calibration, CalibrationError, Fmr, Fnir, Fpir, Reason, Score, SearchRates, Tail, Threshold};

/// The operator's rates: what a caller that names none gets, and the laxest that one may name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RatePolicy {
    pub max_fmr: Fmr,
    pub max_fpir: Fpir,
    /// A search that would miss a greater share of duplicates is refused.
    pub max_fnir: Fnir,
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
    Ok(calibration.at_fmr(rate, policy.tail)?.threshold)
}

/// What a 1:N search must keep, whatever size it finds.
pub fn rates_1_to_n(
    calibration: &Arc<Calibration>,
    policy: &RatePolicy,
    asked: Option<Fpir>,
) -> Result<SearchRates, ThresholdError> {
    let max_fpir = asked.unwrap_or(policy.max_fpir);
    if max_fpir > policy.max_fpir {
        let (asked, allowed) = (max_fpir.value(), policy.max_fpir.value());
        return Err(ThresholdError::LaxerThanPolicy { asked, allowed });
    }
    let (max_fnir, tail) = (policy.max_fnir, policy.tail);
    Ok(SearchRates { calibration: Arc::clone(calibration), max_fpir, max_fnir, tail })
}

/// The reason that belongs to a score; its decision follows from it.
pub fn decide(score: Score, threshold: Threshold) -> Reason {
    if threshold.admits(score) { Reason::ScoreReachesThreshold } else { Reason::ScoreBelowThreshold }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CalibrationPoint;

    fn calibration() -> Calibration {
        let point = |fmr, threshold| CalibrationPoint {
            fmr: Fmr::new(fmr).unwrap(),
            threshold: Threshold::new(Score::new(threshold).unwrap()),
            trials: 1000,
            fnmr: Some(0.1),
        };
        Calibration::new(vec![point(0.1, 0.75), point(0.01, 0.82)]).unwrap()
    }

    fn policy() -> RatePolicy {
        let (max_fmr, max_fpir, max_fnir) = (Fmr::new(0.05), Fpir::new(0.5), Fnir::new(0.2));
        let (max_fmr, max_fpir, max_fnir) = (max_fmr.unwrap(), max_fpir.unwrap(), max_fnir.unwrap());
        RatePolicy { max_fmr, max_fpir, max_fnir, tail: Tail::Measured }
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
        let table = Arc::new(calibration());
        let at = |size| rates_1_to_n(&table, &policy(), None).unwrap().at(size).map(|point| point.threshold.value());
        assert_eq!(at(1), Ok(0.75));
        assert_eq!(at(40), Ok(0.82));
        let laxer = rates_1_to_n(&table, &policy(), Some(Fpir::ONE));
        assert!(matches!(laxer, Err(ThresholdError::LaxerThanPolicy { .. })));
        assert!(at(1000).is_err());
    }
}
