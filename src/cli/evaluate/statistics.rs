//! From scored pairs to error rates (ISO/IEC 19795-1). Pure.
//!
//! A threshold admits the scores that are not below it, here as in the service.

use std::collections::BTreeMap;

use serde::Serialize;

/// A comparison whose truth is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    /// Numbers of the two images.
    pub a: usize,
    pub b: usize,
    pub mated: bool,
    /// Finite.
    pub score: f32,
}

/// The threshold at which most trials are judged rightly.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Best {
    /// Share of the trials, 0 to 1.
    pub accuracy: f64,
    pub threshold: f32,
}

/// A false non-match rate, at the laxest threshold that keeps a false match rate on these trials.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// The greatest share of non-mated trials that may match.
    pub fmr: f64,
    pub threshold: f32,
    /// Share of the mated trials below the threshold.
    pub fnmr: f64,
    /// Non-mated trials, which the threshold rests on.
    pub trials: usize,
}

/// For how many of the images that have a mate the best-scored partner is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RankOne {
    pub correct: usize,
    pub total: usize,
}

/// Of several equally good thresholds the highest; halfway between the scores that it parts. `None` without trials.
pub fn best_threshold(trials: &[Trial]) -> Option<Best> {
    let mut falling: Vec<&Trial> = trials.iter().collect();
    falling.sort_by(|a, b| b.score.total_cmp(&a.score));
    let highest = falling.first()?.score;
    // Nothing is admitted: every non-mated trial is judged rightly.
    let mut right = falling.iter().filter(|t| !t.mated).count();
    let (mut most, mut threshold) = (right, highest.next_up());
    let mut rest = falling.as_slice();
    while let Some(first) = rest.first() {
        let tied = rest.iter().take_while(|t| t.score == first.score).count();
        let (admitted, others) = rest.split_at(tied);
        let mated = admitted.iter().filter(|t| t.mated).count();
        right = right + mated - (tied - mated);
        if right > most {
            most = right;
            threshold = others.first().map_or(first.score, |next| between(next.score, first.score));
        }
        rest = others;
    }
    Some(Best { accuracy: most as f64 / trials.len() as f64, threshold })
}

/// Halfway up from `low` to `high`, and above `low` in any case.
fn between(low: f32, high: f32) -> f32 {
    let middle = low + (high - low) / 2.0;
    if middle > low { middle } else { high }
}

/// Over the images with at least one mate among their partners. A stranger who ties with the best mate counts as the better one.
pub fn rank_one(trials: &[Trial]) -> RankOne {
    /// The best mated and the best non-mated score of an image.
    type BestScores = (Option<f32>, Option<f32>);
    let mut images: BTreeMap<usize, BestScores> = BTreeMap::new();
    for trial in trials {
        for image in [trial.a, trial.b] {
            let (mate, stranger) = images.entry(image).or_default();
            let best = if trial.mated { mate } else { stranger };
            *best = Some(best.map_or(trial.score, |b| b.max(trial.score)));
        }
    }
    let with_mates = images.values().filter_map(|(mate, stranger)| Some(((*mate)?, *stranger)));
    let (mut correct, mut total) = (0, 0);
    for (mate, stranger) in with_mates {
        total += 1;
        correct += usize::from(stranger.is_none_or(|stranger| mate > stranger));
    }
    RankOne { correct, total }
}

/// At each of `rates` that the non-mated trials can show (at least one of them may match), and at the least such rate.
pub fn fnmr_at_fmr(trials: &[Trial], rates: &[f64]) -> Vec<Point> {
    let scores = |mated| {
        let mut scores: Vec<f32> = trials.iter().filter(|t| t.mated == mated).map(|t| t.score).collect();
        scores.sort_by(|a, b| b.total_cmp(a));
        scores
    };
    let (mated, non_mated) = (scores(true), scores(false));
    if mated.is_empty() || non_mated.is_empty() {
        return vec![];
    }
    let trials = non_mated.len();
    let least = 1.0 / trials as f64;
    let allowed = |rate: f64| allowed(rate, trials);
    let mut points: Vec<Point> = Vec::new();
    for rate in rates.iter().copied().chain([least]) {
        let may_match = allowed(rate);
        if may_match == 0 || points.iter().any(|p| (p.fmr - rate).abs() < 1e-12) {
            continue;
        }
        // Above the best score that must not match; when all may match, at the lowest of all.
        let lowest = || mated.iter().chain(&non_mated).copied().fold(f32::INFINITY, f32::min);
        let threshold = non_mated.get(may_match).map_or_else(lowest, |score| score.next_up());
        let missed = mated.iter().filter(|score| **score < threshold).count();
        points.push(Point { fmr: rate, threshold, fnmr: missed as f64 / mated.len() as f64, trials });
    }
    points
}

/// Trials that may match at a rate. One such as 7 in 700 is not exactly 7 / 700 in binary.
fn allowed(rate: f64, trials: usize) -> usize {
    (rate * trials as f64 + 1e-6).floor() as usize
}

/// The laxest threshold that keeps a false match rate on these trials; `None` where they are too few to show it.
pub fn threshold_at(trials: &[Trial], rate: f64) -> Option<f32> {
    let mut non_mated: Vec<f32> = trials.iter().filter(|t| !t.mated).map(|t| t.score).collect();
    non_mated.sort_by(|a, b| b.total_cmp(a));
    let may_match = allowed(rate, non_mated.len());
    non_mated.get(may_match).filter(|_| may_match > 0).map(|score| score.next_up())
}

/// Wilson's 95 % interval around a share of `trials` independent ones.
pub fn interval(share: f64, trials: usize) -> (f64, f64) {
    const Z: f64 = 1.96;
    let n = trials.max(1) as f64;
    let middle = (share + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

/// Mean and sample standard deviation of the non-mated scores; `None` with fewer than two.
pub fn non_mated_spread(trials: &[Trial]) -> Option<(f64, f64)> {
    let scores: Vec<f64> = trials.iter().filter(|t| !t.mated).map(|t| f64::from(t.score)).collect();
    if scores.len() < 2 {
        return None;
    }
    let mean = scores.iter().sum::<f64>() / scores.len() as f64;
    let squares: f64 = scores.iter().map(|score| (score - mean).powi(2)).sum();
    Some((mean, (squares / (scores.len() - 1) as f64).sqrt()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_spread_is_of_non_mated_scores_alone() {
        assert_eq!(non_mated_spread(&of_scores(&[0.9], &[0.5])), None);
        let (mean, deviation) = non_mated_spread(&of_scores(&[0.9], &[0.25, 0.75])).unwrap();
        assert!((mean - 0.5).abs() < 1e-12 && (deviation - 0.125_f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn an_interval_is_wilsons() {
        let (low, high) = interval(0.1, 100);
        assert!((low - 0.0552).abs() < 1e-3 && (high - 0.1744).abs() < 1e-3, "{low} {high}");
        assert_eq!(threshold_at(&of_scores(&[0.9], &[0.5; 9]), 0.1), None);
        assert_eq!(threshold_at(&of_scores(&[0.9], &[0.1, 0.2, 0.3, 0.4]), 0.5), Some(0.2_f32.next_up()));
    }

    fn trial(a: usize, b: usize, mated: bool, score: f32) -> Trial {
        Trial { a, b, mated, score }
    }

    fn of_scores(mated: &[f32], non_mated: &[f32]) -> Vec<Trial> {
        let of = |scores: &[f32], mated| scores.iter().map(|s| trial(0, 1, mated, *s)).collect::<Vec<_>>();
        [of(mated, true), of(non_mated, false)].concat()
    }

    /// From the definitions, threshold by threshold.
    fn right_at(trials: &[Trial], threshold: f32) -> usize {
        trials.iter().filter(|t| (t.score >= threshold) == t.mated).count()
    }

    #[test]
    fn separable_scores_are_parted_in_the_middle() {
        let best = best_threshold(&of_scores(&[0.9, 0.8], &[0.5, 0.1])).unwrap();
        assert_eq!(best, Best { accuracy: 1.0, threshold: 0.65 });
        assert_eq!(best_threshold(&[]), None);
    }

    #[test]
    fn the_best_threshold_of_overlapping_scores() {
        // At 0.55 or so: 0.6 is falsely admitted or 0.7 lost.
        let best = best_threshold(&of_scores(&[0.9, 0.7, 0.6], &[0.65, 0.5, 0.4])).unwrap();
        assert_eq!(best.accuracy, 5.0 / 6.0);
        assert!(best.threshold > 0.65 && best.threshold < 0.7, "the highest of the best: {best:?}");
    }

    #[test]
    fn only_strangers_means_nobody_is_admitted() {
        let best = best_threshold(&of_scores(&[], &[0.5, 0.4])).unwrap();
        assert!(best.accuracy == 1.0 && best.threshold > 0.5);
        let best = best_threshold(&of_scores(&[0.5, 0.4], &[])).unwrap();
        assert!(best.accuracy == 1.0 && best.threshold <= 0.4);
    }

    #[test]
    fn rank_one_needs_a_mate_and_no_tie() {
        // 0 and 1 are mates, 2 is a stranger; 3 has no mate.
        let trials =
            [trial(0, 1, true, 0.9), trial(0, 2, false, 0.9), trial(1, 2, false, 0.8), trial(2, 3, false, 0.1)];
        assert_eq!(rank_one(&trials), RankOne { correct: 1, total: 2 });
        assert_eq!(rank_one(&trials[1..]), RankOne { correct: 0, total: 0 });
    }

    #[test]
    fn fnmr_is_counted_above_the_allowed_false_matches() {
        let non_mated: Vec<f32> = (0..100).map(|i| i as f32 / 100.0).collect(); // 0.00 to 0.99
        let trials = of_scores(&[0.95, 0.985, 0.999, 1.0], &non_mated);
        let points = fnmr_at_fmr(&trials, &[0.1, 0.01, 0.001]);
        assert_eq!(points.iter().map(|p| p.fmr).collect::<Vec<_>>(), [0.1, 0.01], "0.001 of 100 trials is nothing");
        // Ten may match: 0.90 to 0.99.
        assert!(points[0].threshold > 0.89 && points[0].threshold <= 0.90 && points[0].fnmr == 0.0);
        // One may match: 0.99.
        assert!(points[1].threshold > 0.98 && points[1].threshold <= 0.99);
        assert_eq!((points[1].fnmr, points[1].trials), (0.25, 100));
        assert_eq!(fnmr_at_fmr(&of_scores(&[0.5], &[]), &[0.1]), []);
    }

    #[test]
    fn the_least_rate_is_added() {
        let points = fnmr_at_fmr(&of_scores(&[0.5], &[0.1; 40]), &[0.1, 0.01]);
        assert_eq!(points.iter().map(|p| p.fmr).collect::<Vec<_>>(), [0.1, 0.025]);
        // Ties: none of the forty may match, for all would.
        assert!(points.iter().all(|p| p.threshold > 0.1 && p.fnmr == 0.0));
    }

    proptest! {
        #[test]
        fn no_threshold_is_better_than_the_best(
            trials in prop::collection::vec((any::<bool>(), 0u8..20), 1..60)
        ) {
            let trials: Vec<_> = trials.iter().map(|(mated, s)| trial(0, 1, *mated, f32::from(*s))).collect();
            let best = best_threshold(&trials).unwrap();
            prop_assert_eq!(right_at(&trials, best.threshold) as f64 / trials.len() as f64, best.accuracy);
            for threshold in -1..=21 {
                prop_assert!(right_at(&trials, threshold as f32) <= right_at(&trials, best.threshold));
            }
        }

        #[test]
        fn the_promised_rate_is_kept_and_no_laxer_threshold_keeps_it(
            mated in prop::collection::vec(0u8..40, 1..20), non_mated in prop::collection::vec(0u8..40, 1..60)
        ) {
            let float = |scores: &[u8]| scores.iter().map(|s| f32::from(*s)).collect::<Vec<_>>();
            let trials = of_scores(&float(&mated), &float(&non_mated));
            let fmr = |threshold: f32| {
                trials.iter().filter(|t| !t.mated && t.score >= threshold).count() as f64 / non_mated.len() as f64
            };
            for point in fnmr_at_fmr(&trials, &[0.5, 0.1, 0.01]) {
                prop_assert!(fmr(point.threshold) <= point.fmr + 1e-6);
                prop_assert!(fmr(point.threshold.next_down()) > point.fmr - 1e-6 || fmr(f32::MIN) <= point.fmr + 1e-6);
            }
        }
    }
}
