//! Rates at the thresholds of the model's card, over the images that were accepted: of all pairs, and of each group of them. Pure.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{
    pairs::{EVERY_PAIR, Pairs},
    statistics::Trial,
};
use crate::domain::Calibration;

/// What a promised rate comes to in one group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupLine {
    /// As the file of pairs names it; `all` for every pair.
    pub group: String,
    /// Images in its pairs, and those of them that were accepted.
    pub images: usize,
    pub accepted: usize,
    /// The false match rate of the card, and its threshold.
    pub promised: f64,
    pub threshold: f32,
    pub non_mated: usize,
    pub matched: usize,
    pub mated: usize,
    pub missed: usize,
}

impl GroupLine {
    /// `None` without non-mated pairs.
    pub fn fmr(&self) -> Option<f64> {
        (self.non_mated > 0).then(|| self.matched as f64 / self.non_mated as f64)
    }

    /// `None` without mated pairs.
    pub fn fnmr(&self) -> Option<f64> {
        (self.mated > 0).then(|| self.missed as f64 / self.mated as f64)
    }
}

/// A line for each measured point of the card: of all pairs, then of each group in the order of the file. `accepted`: the images with a
/// template.
pub fn measure(pairs: &Pairs, accepted: &[bool], trials: &[Trial], card: &Calibration) -> Vec<GroupLine> {
    let all = std::iter::once((EVERY_PAIR, None));
    let groups = all.chain(pairs.groups.iter().enumerate().map(|(number, name)| (name.as_str(), Some(number))));
    let points: Vec<_> = card.points().iter().filter(|point| point.trials > 0).collect();
    let mut lines = Vec::new();
    for (name, group) in groups {
        let within = |of: Option<usize>| group.is_none() || of == group;
        let of_pairs: BTreeSet<(usize, usize)> =
            pairs.pairs.iter().filter(|pair| within(pair.group)).map(|pair| (pair.a, pair.b)).collect();
        let images: BTreeSet<usize> = of_pairs.iter().flat_map(|(a, b)| [*a, *b]).collect();
        let own: Vec<&Trial> = trials.iter().filter(|t| of_pairs.contains(&(t.a, t.b))).collect();
        for point in &points {
            let threshold = point.threshold.value();
            let count = |mated: bool, admitted: bool| {
                own.iter().filter(|t| t.mated == mated && (t.score >= threshold) == admitted).count()
            };
            let (matched, missed) = (count(false, true), count(true, false));
            lines.push(GroupLine {
                group: name.into(),
                images: images.len(),
                accepted: images.iter().filter(|image| accepted.get(**image).copied().unwrap_or(false)).count(),
                promised: point.fmr.value(),
                threshold,
                non_mated: matched + count(false, false),
                matched,
                mated: missed + count(true, true),
                missed,
            });
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{CalibrationPoint, Fmr, Score, Threshold};

    #[test]
    fn each_group_has_its_own_rates() {
        let text = "a,b,mated,group\n0,1,1,masks\n0,2,0,masks\n0,3,0,hats\n1,2,0,masks\n4,0,0,hats\n";
        let pairs = Pairs::parse(text.as_bytes()).unwrap();
        let trial = |pair: usize, score| {
            let pair = pairs.pairs[pair];
            Trial { a: pair.a, b: pair.b, mated: pair.mated, score }
        };
        // Of image 4 there is no template, so its pair was not compared.
        let trials = [trial(0, 0.6), trial(1, 0.8), trial(2, 0.2), trial(3, 0.3)];
        let point = CalibrationPoint {
            fmr: Fmr::new(0.01).unwrap(),
            threshold: Threshold::new(Score::new(0.7).unwrap()),
            trials: 100,
            fnmr: None,
        };
        let beyond = CalibrationPoint { fmr: Fmr::new(0.001).unwrap(), trials: 0, ..point };
        let card = Calibration::new(vec![point, beyond]).unwrap();
        let lines = measure(&pairs, &[true, true, true, true, false], &trials, &card);
        let seen: Vec<_> = lines
            .iter()
            .map(|l| (l.group.as_str(), l.images, l.accepted, l.non_mated, l.matched, l.mated, l.missed))
            .collect();
        assert_eq!(seen, [("all", 5, 4, 3, 1, 1, 1), ("masks", 3, 3, 2, 1, 1, 1), ("hats", 3, 2, 1, 0, 0, 0)]);
        assert_eq!((lines[1].fmr(), lines[1].fnmr(), lines[2].fnmr()), (Some(0.5), Some(1.0), None));
    }
}
