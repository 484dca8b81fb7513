//! Claims: a probe against several references of one subject, as verification compares them. Which rule joins the scores, and does
//! it keep the rate that was measured for one comparison? Pure.
//!
//! Thresholds are tuned on single comparisons of one half of the people, and claims of the other half are judged by them. Of few people
//! there are few ways to halve them, and all are taken, as one alone is luck; of many the first half by the files' order, and the second.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use super::statistics::{Trial, interval, threshold_at};
use crate::{
    domain::{Calibration, Fmr, ModelMismatch, Tail, Template, compare, compare_claim},
    model::contract::Metric,
};

/// An image with a template.
#[derive(Debug, Clone)]
pub struct Sample {
    pub template: Template,
    /// The least of its quality measures, 0 to 100; all 0 where none was taken.
    pub quality: u8,
}

/// How the scores of a claim become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// As the service does.
    Served,
    Best,
    /// The best score, at a threshold for the rate that each of so many comparisons may have.
    BestCorrected,
    MeanScore,
    MeanTemplate,
    /// Mean score over the better half of the references, by quality.
    BetterHalf,
    /// The one reference of the best quality.
    BestQuality,
}

impl Rule {
    pub const ALL: [Self; 7] = [
        Self::Served,
        Self::Best,
        Self::BestCorrected,
        Self::MeanScore,
        Self::MeanTemplate,
        Self::BetterHalf,
        Self::BestQuality,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Served => "as served",
            Self::Best => "best score",
            Self::BestCorrected => "best, corrected",
            Self::MeanScore => "mean score",
            Self::MeanTemplate => "mean template",
            Self::BetterHalf => "better half",
            Self::BestQuality => "best quality",
        }
    }
}

/// What claims of so many references come to, at the threshold that keeps `promised` on single comparisons of other people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// Where the threshold comes from: `other_people`, or the model's `card`.
    pub tuned_on: &'static str,
    pub promised: f64,
    pub references: usize,
    pub rule: Rule,
    /// Claims in one way to halve the people, in the mean.
    pub non_mated: usize,
    /// Mean over the ways to halve them.
    pub fmr: f64,
    /// Of the ways to halve them the least and the greatest.
    pub fmr_range: (f64, f64),
    pub mated: usize,
    pub fnmr: f64,
    /// Ways to halve them.
    pub splits: usize,
    /// Between which shares a promise that is kept shows in 95 % of such counts, if claims were independent, which they are not.
    pub kept_within: (f64, f64),
}

/// Why claims are not measured.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum ClaimsError {
    /// Numbers of two images that mated pairs join, and that are a pair of strangers.
    #[error("images {a} and {b} are non-mated, and one person by other pairs")]
    Contradiction { a: usize, b: usize },
    #[error(transparent)]
    Model(#[from] ModelMismatch),
}

/// Rates that are promised, as far as the pairs of one half can show them.
const RATES: [f64; 4] = [0.1, 0.05, 0.02, 0.01];
/// Sets of references that are drawn for a probe, a subject and a number.
const MOST_SETS: usize = 20;
/// People of whom every way to halve them is taken.
const MOST_PEOPLE: usize = 10;
/// References of a claim at most.
const MOST_REFERENCES: usize = 16;

/// Every line, by rate, number of references and rule; none with fewer than four people of two images or more. Those of other people first,
/// then everybody's at the thresholds of the `card` that were measured.
pub fn measure(
    samples: &[Option<Sample>],
    trials: &[Trial],
    card: &Calibration,
    metric: Metric,
) -> Result<Vec<Line>, ClaimsError> {
    let people = people(samples.len(), trials);
    let person = |image: usize| people.iter().position(|of| of.contains(&image));
    if let Some(t) = trials.iter().find(|t| !t.mated && person(t.a) == person(t.b)) {
        return Err(ClaimsError::Contradiction { a: t.a, b: t.b });
    }
    let several = people.iter().filter(|person| person.len() > 1).count();
    if several < 4 {
        return Ok(Vec::new());
    }
    let mut lines: BTreeMap<(usize, usize, Rule), Vec<Counts>> = BTreeMap::new();
    for half in halves(people.len()) {
        let part = |inside: bool| -> Vec<&[usize]> {
            people.iter().enumerate().filter(|(at, _)| half.contains(at) == inside).map(|(_, p)| p.as_slice()).collect()
        };
        let within: HashSet<usize> = part(true).concat().into_iter().collect();
        let inside = |t: &&Trial| within.contains(&t.a) && within.contains(&t.b);
        let own: Vec<Trial> = trials.iter().filter(inside).copied().collect();
        let thresholds: Vec<_> = RATES.iter().map(|rate| by_number(*rate, |rate| threshold_at(&own, rate))).collect();
        let counts = judge(samples, trials, &thresholds, &part(false), metric)?;
        counts.into_iter().for_each(|(line, counts)| lines.entry(line).or_default().push(counts));
    }
    let points: Vec<_> = card.points().iter().filter(|point| point.trials > 0).collect();
    let at = |rate: f64| Some(card.at_fmr(Fmr::new(rate).ok()?, Tail::Measured).ok()?.threshold.value());
    let thresholds: Vec<_> = points.iter().map(|point| by_number(point.fmr.value(), at)).collect();
    let everybody: Vec<&[usize]> = people.iter().map(Vec::as_slice).collect();
    let by_card = judge(samples, trials, &thresholds, &everybody, metric)?;

    let of_others = lines.into_iter().filter_map(|((rate, references, rule), splits)| {
        Some(line("other_people", *RATES.get(rate)?, references, rule, &splits))
    });
    let of_card = by_card.into_iter().filter_map(|((rate, references, rule), counts)| {
        Some(line("card", points.get(rate)?.fmr.value(), references, rule, &[counts]))
    });
    Ok(of_others.chain(of_card).collect())
}

/// The threshold at a rate; then those at which so many comparisons, 2 and more, have it together.
fn by_number(rate: f64, at: impl Fn(f64) -> Option<f32>) -> Vec<Option<f32>> {
    let each = |number: usize| -((-rate).ln_1p() / number as f64).exp_m1();
    std::iter::once(at(rate)).chain((2..=MOST_REFERENCES).map(|number| at(each(number)))).collect()
}

fn line(tuned_on: &'static str, promised: f64, references: usize, rule: Rule, splits: &[Counts]) -> Line {
    let share = |part: usize, of: usize| if of == 0 { f64::NAN } else { part as f64 / of as f64 };
    let sum = |of: fn(&Counts) -> usize| splits.iter().map(of).sum::<usize>();
    let (non_mated, number) = (sum(|c| c.non_mated), splits.len().max(1));
    let fmrs = || splits.iter().map(|c| share(c.matched, c.non_mated));
    Line {
        tuned_on,
        promised,
        references,
        rule,
        non_mated: non_mated / number,
        fmr: share(sum(|c| c.matched), non_mated),
        fmr_range: (fmrs().fold(f64::INFINITY, f64::min), fmrs().fold(0.0, f64::max)),
        mated: sum(|c| c.mated) / number,
        fnmr: share(sum(|c| c.missed), sum(|c| c.mated)),
        splits: splits.len(),
        kept_within: interval(promised, non_mated / number),
    }
}

/// Ways to halve so many people: who tunes.
fn halves(people: usize) -> Vec<Vec<usize>> {
    let all: Vec<usize> = (0..people).collect();
    if people <= MOST_PEOPLE {
        return combinations(&all, people / 2, usize::MAX);
    }
    let (first, second) = all.split_at(people / 2);
    vec![first.to_vec(), second.to_vec()]
}

#[derive(Debug, Default)]
struct Counts {
    non_mated: usize,
    matched: usize,
    mated: usize,
    missed: usize,
}

/// Claims of `judged` at each of `thresholds` (as [`by_number`] gives them), by its number, the number of references, and the rule.
fn judge(
    samples: &[Option<Sample>],
    trials: &[Trial],
    thresholds: &[Vec<Option<f32>>],
    judged: &[&[usize]],
    metric: Metric,
) -> Result<BTreeMap<(usize, usize, Rule), Counts>, ModelMismatch> {
    let mut counts: BTreeMap<(usize, usize, Rule), Counts> = BTreeMap::new();
    let strangers: HashSet<(usize, usize)> =
        trials.iter().filter(|t| !t.mated).map(|t| (t.a.min(t.b), t.a.max(t.b))).collect();
    for (claimed, person) in judged.iter().enumerate() {
        for (owner, probe) in judged.iter().enumerate().flat_map(|(owner, of)| of.iter().map(move |p| (owner, *p))) {
            let mated = owner == claimed;
            let references: Vec<usize> = person
                .iter()
                .copied()
                .filter(|r| if mated { *r != probe } else { strangers.contains(&(probe.min(*r), probe.max(*r))) })
                .collect();
            for number in 1..=references.len().min(MOST_REFERENCES) {
                for set in sets(&references, number) {
                    for rule in Rule::ALL {
                        let Some(score) = score(rule, samples, probe, &set, metric)? else { continue };
                        let corrected = if rule == Rule::BestCorrected { number - 1 } else { 0 };
                        for (rate, thresholds) in thresholds.iter().enumerate() {
                            let Some(Some(threshold)) = thresholds.get(corrected) else { continue };
                            let line = counts.entry((rate, number, rule)).or_default();
                            let admitted = score >= *threshold;
                            if mated {
                                line.mated += 1;
                                line.missed += usize::from(!admitted);
                            } else {
                                line.non_mated += 1;
                                line.matched += usize::from(admitted);
                            }
                        }
                    }
                }
            }
        }
    }
    Ok(counts)
}

/// The claim's score; `None` where a sample has no template.
fn score(
    rule: Rule,
    samples: &[Option<Sample>],
    probe: usize,
    references: &[usize],
    metric: Metric,
) -> Result<Option<f32>, ModelMismatch> {
    let sample = |number: usize| samples.get(number).and_then(Option::as_ref);
    let Some(probe) = sample(probe).map(|s| &s.template) else { return Ok(None) };
    let Some(mut all) = references.iter().map(|r| sample(*r)).collect::<Option<Vec<_>>>() else { return Ok(None) };
    let mean = |of: &[&Sample]| -> Result<Option<f32>, ModelMismatch> {
        let scores = of.iter().map(|s| Ok(f64::from(compare(probe, &s.template)?.value())));
        Ok(Some((scores.sum::<Result<f64, ModelMismatch>>()? / of.len() as f64) as f32))
    };
    match rule {
        Rule::Served => {
            let templates: Vec<_> = all.iter().map(|s| &s.template).collect();
            Ok(compare_claim(probe, &templates)?.map(|score| score.value()))
        }
        Rule::Best | Rule::BestCorrected => {
            let scores = all.iter().map(|s| Ok(compare(probe, &s.template)?.value()));
            Ok(Some(scores.collect::<Result<Vec<_>, ModelMismatch>>()?.into_iter().fold(f32::MIN, f32::max)))
        }
        Rule::MeanScore => mean(&all),
        Rule::MeanTemplate => {
            let mut sum = vec![0.0_f64; probe.dimension()];
            for s in &all {
                sum.iter_mut().zip(s.template.values()).for_each(|(sum, value)| *sum += f64::from(*value));
            }
            let values = sum.iter().map(|v| (v / all.len() as f64) as f32).collect();
            let Ok(fused) = Template::new(probe.model(), metric.features(values)) else { return Ok(None) };
            Ok(Some(compare(probe, &fused)?.value()))
        }
        Rule::BetterHalf | Rule::BestQuality => {
            all.sort_by_key(|s| std::cmp::Reverse(s.quality)); // stable: of equal ones the first
            all.truncate(if rule == Rule::BestQuality { 1 } else { all.len().div_ceil(2) });
            mean(&all)
        }
    }
}

/// Images by person, in the order of their first image: those that mated pairs join.
fn people(images: usize, trials: &[Trial]) -> Vec<Vec<usize>> {
    let mut person: Vec<usize> = (0..images).collect();
    fn root(person: &[usize], mut at: usize) -> usize {
        while let Some(&above) = person.get(at).filter(|above| **above != at) {
            at = above;
        }
        at
    }
    for trial in trials.iter().filter(|t| t.mated) {
        let (a, b) = (root(&person, trial.a), root(&person, trial.b));
        if let Some(place) = person.get_mut(a.max(b)) {
            *place = a.min(b);
        }
    }
    let compared: HashSet<usize> = trials.iter().flat_map(|t| [t.a, t.b]).collect();
    let mut people: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for image in (0..images).filter(|image| compared.contains(image)) {
        people.entry(root(&person, image)).or_default().push(image);
    }
    people.into_values().collect()
}

/// Sets of `number` of `all`, in order; where there are too many, some from all over.
fn sets(all: &[usize], number: usize) -> Vec<Vec<usize>> {
    let most = 100 * MOST_SETS;
    let sets = combinations(all, number, most);
    if sets.len() < most {
        let step = sets.len().div_ceil(MOST_SETS).max(1);
        return sets.into_iter().step_by(step).collect();
    }
    // Too many to list: drawn, the same in every run.
    let mut random = 1_u64;
    let mut draw = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let mut shuffled = all.to_vec();
    (0..MOST_SETS)
        .map(|_| {
            (1..shuffled.len()).rev().for_each(|at| shuffled.swap(at, draw(at + 1)));
            shuffled.iter().take(number).copied().collect()
        })
        .collect()
}

/// The first `most` ways to take `number` of `all`, in order.
fn combinations(all: &[usize], number: usize, most: usize) -> Vec<Vec<usize>> {
    let mut found = Vec::new();
    let mut places: Vec<usize> = (0..number).collect();
    while found.len() < most {
        found.push(places.iter().filter_map(|place| all.get(*place).copied()).collect());
        let can_move = |at: &usize| places.get(*at).is_some_and(|place| *place < all.len() - number + at);
        let Some(moves) = (0..number).rev().find(can_move) else { break };
        let Some(from) = places.get(moves).copied() else { break };
        places.iter_mut().skip(moves).zip(from + 1..).for_each(|(place, next)| *place = next);
    }
    found
}

#[cfg(test)]
mod tests;
