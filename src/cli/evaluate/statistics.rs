//! Error rates from scores whose truth is known (ISO/IEC 19795-1). Pure.

use serde::Serialize;

use crate::domain::{Score, Threshold};

/// One comparison of two images whose truth is known.
#[derive(Debug, Clone, Copy)]
pub struct Compared {
    pub a: usize,
    pub b: usize,
    pub mated: bool,
    pub score: Score,
}

/// The threshold that gets the most pairs right, and which share that is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Best {
    pub accuracy: f64,
    pub threshold: f32,
}

/// What one threshold does, with the comparisons behind it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Fnmr {
    /// False match rate that was allowed.
    pub fmr: f64,
    /// The laxest that keeps it, in units of score.
    pub threshold: f32,
    /// Share of mated comparisons that do not match; absent without any.
    pub fnmr: Option<f64>,
    /// Non-mated comparisons.
    pub trials: u64,
    pub mated_trials: u64,
}

/// Of equally good thresholds the strictest, half way to the next score. `None` without comparisons.
pub fn best_accuracy(compared: &[Compared]) -> Option<Best> {
    let mut order: Vec<&Compared> = compared.iter().collect();
    order.sort_by(|x, y| y.score.total_cmp(x.score));
    let mut right = order.iter().filter(|c| !c.mated).count();
    let mut best = (right, order.first()?.score.value().next_up());
    for group in order.chunk_by(|x, y| x.score.value() == y.score.value()) {
        // Everything down to this group's score matches now.
        let mated = group.iter().filter(|c| c.mated).count();
        right = right + mated - (group.len() - mated);
        if right > best.0 {
            best = (right, group.first()?.score.value());
        }
    }
    let (right, admitted) = best;
    let below = order.iter().map(|c| c.score.value()).find(|score| *score < admitted);
    let half_way = below.map_or(admitted, |below| below + (admitted - below) / 2.0);
    // Between neighbouring numbers there is no half way.
    let threshold = if below.is_some_and(|below| half_way <= below) { admitted } else { half_way };
    Some(Best { accuracy: right as f64 / order.len() as f64, threshold })
}

/// For every image with a mate: is its best-scored partner a mate? How many are, of how many. A non-mate that scores the
/// same counts against.
pub fn rank1(compared: &[Compared], images: usize) -> (u64, u64) {
    #[derive(Clone, Copy, Default)]
    struct BestOf {
        mate: Option<f32>,
        other: Option<f32>,
    }
    let mut best = vec![BestOf::default(); images];
    for c in compared {
        for image in [c.a, c.b] {
            let Some(of) = best.get_mut(image) else { continue };
            let place = if c.mated { &mut of.mate } else { &mut of.other };
            *place = Some(place.map_or(c.score.value(), |before| before.max(c.score.value())));
        }
    }
    let with_mate = best.iter().filter_map(|of| Some((of.mate?, of.other)));
    let right = with_mate.clone().filter(|(mate, other)| other.is_none_or(|other| *mate > other)).count();
    (right as u64, with_mate.count() as u64)
}

/// One line for each of `rates` that the non-mated comparisons can show: those of at least one in all of them.
pub fn fnmr_at_fmr(compared: &[Compared], rates: &[f64]) -> Vec<Fnmr> {
    let mut non_mated: Vec<Score> = compared.iter().filter(|c| !c.mated).map(|c| c.score).collect();
    non_mated.sort_by(|x, y| y.total_cmp(*x));
    let mated = compared.iter().filter(|c| c.mated);
    let (trials, mated_trials) = (non_mated.len() as u64, mated.clone().count() as u64);
    let line = |&fmr: &f64| {
        // A hair, so that 0.001 of 7000 is 7 and not 6.
        let allowed = (fmr * trials as f64 * (1.0 + 1e-12)).floor() as usize;
        if allowed == 0 {
            return None;
        }
        // Just above the first score that may no longer match; with nothing to keep out, the lowest.
        let least = match non_mated.get(allowed) {
            Some(first_out) => Score::new(first_out.value().next_up())?,
            None => *non_mated.last()?,
        };
        let threshold = Threshold::new(least);
        let missed = mated.clone().filter(|c| !threshold.admits(c.score)).count();
        let fnmr = (mated_trials > 0).then(|| missed as f64 / mated_trials as f64);
        Some(Fnmr { fmr, threshold: threshold.value(), fnmr, trials, mated_trials })
    };
    rates.iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compared(a: usize, b: usize, mated: bool, score: f32) -> Compared {
        Compared { a, b, mated, score: Score::new(score).unwrap() }
    }

    fn list(scores: &[(bool, f32)]) -> Vec<Compared> {
        scores.iter().map(|(mated, score)| compared(0, 1, *mated, *score)).collect()
    }

    fn share_right(list: &[Compared], threshold: f32) -> f64 {
        let threshold = Threshold::new(Score::new(threshold).unwrap());
        list.iter().filter(|c| threshold.admits(c.score) == c.mated).count() as f64 / list.len() as f64
    }

    #[test]
    fn the_best_threshold_lies_between_the_two_kinds() {
        let best = best_accuracy(&list(&[(true, 0.9), (true, 0.8), (false, 0.4), (false, 0.1)])).unwrap();
        assert_eq!(best.accuracy, 1.0);
        assert!((best.threshold - 0.6).abs() < 1e-6);
        assert_eq!(best_accuracy(&[]), None);
    }

    #[test]
    fn one_kind_alone_is_all_right_at_an_end() {
        let scores = [0.2, 0.5];
        for mated in [true, false] {
            let list = list(&scores.map(|s| (mated, s)));
            let best = best_accuracy(&list).unwrap();
            assert_eq!(best.accuracy, 1.0);
            assert_eq!(share_right(&list, best.threshold), 1.0);
        }
    }

    proptest! {
        /// Against trying every threshold; scores of few values, so that there are ties.
        #[test]
        fn no_threshold_does_better(scores in proptest::collection::vec((any::<bool>(), 0u8..12), 1..40)) {
            let list = list(&scores.iter().map(|(m, s)| (*m, f32::from(*s) / 10.0)).collect::<Vec<_>>());
            let best = best_accuracy(&list).unwrap();
            prop_assert!((share_right(&list, best.threshold) - best.accuracy).abs() < 1e-12);
            for tried in -1..26 {
                prop_assert!(share_right(&list, tried as f32 / 20.0) <= best.accuracy + 1e-12);
            }
        }

        /// The definition: never more false matches than allowed, and any laxer threshold has more.
        #[test]
        fn the_threshold_of_a_rate_is_the_laxest_that_keeps_it(
            scores in proptest::collection::vec((any::<bool>(), 0u8..30), 1..80), rate in 0.01f64..1.0,
        ) {
            let list = list(&scores.iter().map(|(m, s)| (*m, f32::from(*s) / 30.0)).collect::<Vec<_>>());
            let n = list.iter().filter(|c| !c.mated).count() as f64;
            let false_matches = |threshold: f32| {
                list.iter().filter(|c| !c.mated && c.score.value() >= threshold).count() as f64
            };
            match fnmr_at_fmr(&list, &[rate]).first() {
                None => prop_assert!(rate * n < 1.0 + 1e-9),
                Some(line) => {
                    prop_assert!(false_matches(line.threshold) <= rate * n + 1e-9);
                    let laxer = line.threshold.next_down();
                    let all = false_matches(f32::MIN);
                    prop_assert!(false_matches(laxer) > rate * n - 1e-9 || false_matches(laxer) == all);
                }
            }
        }
    }

    #[test]
    fn rates_are_shown_only_where_trials_can_show_them() {
        let mut scores: Vec<(bool, f32)> = (0..100).map(|i| (false, i as f32 / 100.0)).collect();
        scores.extend([(true, 0.95), (true, 0.985), (true, 1.5), (true, 0.5)]);
        let lines = fnmr_at_fmr(&list(&scores), &[0.1, 0.01, 0.001]);
        assert_eq!(lines.iter().map(|l| l.fmr).collect::<Vec<_>>(), [0.1, 0.01]);
        assert_eq!((lines[0].fnmr, lines[0].trials, lines[0].mated_trials), (Some(0.25), 100, 4));
        assert_eq!(lines[1].fnmr, Some(0.5), "only 0.99 may match");
        assert!(lines[1].threshold > 0.98 && lines[1].threshold <= 0.985);
        assert_eq!(fnmr_at_fmr(&list(&scores[..100]), &[0.1])[0].fnmr, None);
        assert_eq!(fnmr_at_fmr(&list(&scores[100..]), &[0.1]), []);
    }

    #[test]
    fn rank_1_asks_every_image_that_has_a_mate() {
        // 0 and 1 are one person; 2 is another, alone; 3 and 4 a third.
        let all = [
            compared(0, 1, true, 0.9),
            compared(0, 2, false, 0.5),
            compared(1, 2, false, 0.95),
            compared(3, 4, true, 0.7),
            compared(4, 0, false, 0.7),
        ];
        // 0 is right; 1's best is 2; 2 has no mate; 3 is right; 4's mate ties with 0.
        assert_eq!(rank1(&all, 5), (2, 4));
        assert_eq!(rank1(&[], 5), (0, 0));
    }
}
