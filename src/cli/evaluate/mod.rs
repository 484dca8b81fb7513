//! Error rates on pairs of images whose truth is known. Pure: who extracts templates, and how, is the caller's business.

mod pairs;
mod statistics;

use serde::Serialize;

use crate::domain::{Template, compare};

pub use pairs::{MAX_PAIRS, Pair, Pairs, PairsError};
pub use statistics::{Best, Compared, Fnmr, best_accuracy, fnmr_at_fmr, rank1};

/// False match rates that a report tries to show.
pub const RATES: [f64; 6] = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6];

/// An image without a template, or a pair that does not compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// As the file of pairs names it.
    pub path: String,
    pub reason: String,
}

/// What the pairs say about a model. Small numbers prove little: no failure in n trials bounds a rate at 3/n only.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// That were compared: `mated + non_mated`.
    pub pairs: u64,
    pub mated: u64,
    pub non_mated: u64,
    /// Pairs left out, because an image of theirs failed.
    pub not_compared: u64,
    /// Each image once.
    pub failures: Vec<Failed>,
    /// Share of the compared pairs that the best threshold gets right; absent without any.
    pub best_accuracy: Option<f64>,
    /// In units of score.
    pub best_threshold: Option<f32>,
    /// Images whose best-scored partner is a mate.
    pub rank1_correct: u64,
    /// Images that have a mate.
    pub rank1_total: u64,
    pub fnmr_at_fmr: Vec<Fnmr>,
}

/// `templates` are those of [`Pairs::images`], in that order, or why there is none.
pub fn report(pairs: &Pairs, templates: &[Result<Template, String>]) -> Report {
    let reason = |image: usize| match templates.get(image) {
        Some(Ok(_)) => None,
        Some(Err(reason)) => Some(reason.as_str()),
        None => Some("was not extracted"),
    };
    let mut failures: Vec<Failed> = (pairs.images().iter().enumerate())
        .filter_map(|(i, path)| Some(Failed { path: path.clone(), reason: reason(i)?.to_owned() }))
        .collect();
    let mut compared = Vec::with_capacity(pairs.pairs().len());
    for pair in pairs.pairs() {
        if let (Some(Ok(a)), Some(Ok(b))) = (templates.get(pair.a), templates.get(pair.b)) {
            match compare(a, b) {
                Ok(score) => compared.push(Compared { a: pair.a, b: pair.b, mated: pair.mated, score }),
                Err(mismatch) => {
                    let path = pairs.images().get(pair.b).cloned().unwrap_or_default();
                    if failures.iter().all(|f| f.path != path) {
                        failures.push(Failed { path, reason: mismatch.to_string() });
                    }
                }
            }
        }
    }
    let mated = compared.iter().filter(|c| c.mated).count() as u64;
    let best = best_accuracy(&compared);
    let (rank1_correct, rank1_total) = rank1(&compared, pairs.images().len());
    Report {
        pairs: compared.len() as u64,
        mated,
        non_mated: compared.len() as u64 - mated,
        not_compared: (pairs.pairs().len() - compared.len()) as u64,
        failures,
        best_accuracy: best.map(|b| b.accuracy),
        best_threshold: best.map(|b| b.threshold),
        rank1_correct,
        rank1_total,
        fnmr_at_fmr: fnmr_at_fmr(&compared, &RATES),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::domain::ModelDigest;

    fn template(model: u8, values: [f32; 2]) -> Result<Template, String> {
        Ok(Template::new(ModelDigest::new([model; 32]), values.to_vec()).unwrap())
    }

    fn pairs(text: &str) -> Pairs {
        Pairs::read(text.as_bytes(), Path::new("")).unwrap()
    }

    const FOUR: &str = "a,b,mated\nann1,ann2,1\nann1,bob1,0\nann2,bob1,0\nbob1,bob2,1\nann1,bob2,0\n";

    #[test]
    fn a_good_model_gets_everything_right() {
        let templates =
            [template(1, [1.0, 0.0]), template(1, [0.98, 0.2]), template(1, [0.0, 1.0]), template(1, [0.1, 0.99])];
        let report = report(&pairs(FOUR), &templates);
        assert_eq!((report.pairs, report.mated, report.non_mated, report.not_compared), (5, 2, 3, 0));
        assert_eq!((report.best_accuracy, report.rank1_correct, report.rank1_total), (Some(1.0), 4, 4));
        assert_eq!(report.failures, []);
        assert_eq!(report.fnmr_at_fmr, [], "three non-mated pairs show no rate");
    }

    #[test]
    fn an_image_that_fails_is_listed_once_and_its_pairs_are_left_out() {
        let templates =
            [template(1, [1.0, 0.0]), template(1, [0.9, 0.1]), Err("no such file".into()), template(1, [0.0, 1.0])];
        let report = report(&pairs(FOUR), &templates);
        assert_eq!(report.failures, [Failed { path: "bob1".into(), reason: "no such file".into() }]);
        assert_eq!((report.pairs, report.not_compared, report.mated), (2, 3, 1));
        assert_eq!((report.rank1_correct, report.rank1_total), (2, 2), "bob2's mate is gone");
    }

    #[test]
    fn templates_of_another_model_are_a_failure_and_never_a_score() {
        let templates =
            [template(1, [1.0, 0.0]), template(1, [0.9, 0.1]), template(2, [0.0, 1.0]), template(1, [0.0, 1.0])];
        let report = report(&pairs(FOUR), &templates);
        assert_eq!(report.not_compared, 3);
        assert!(report.failures.iter().any(|f| f.path == "bob1"), "{:?}", report.failures);
    }

    #[test]
    fn a_report_with_nothing_is_still_a_report() {
        let report = report(&pairs(FOUR), &[]);
        assert_eq!((report.pairs, report.not_compared, report.failures.len()), (0, 5, 4));
        let json = serde_json::to_value(&report).unwrap();
        assert!(json["best_accuracy"].is_null() && json["fnmr_at_fmr"].as_array().unwrap().is_empty());
    }
}
