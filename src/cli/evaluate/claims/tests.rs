use super::*;
use crate::domain::ModelDigest;

fn sample(values: [f32; 2], quality: u8) -> Option<Sample> {
    Some(Sample { template: Template::new(ModelDigest::new([1; 32]), values.to_vec()).unwrap(), quality })
}

/// Four people of five images each, in different corners.
fn crowd() -> (Vec<Option<Sample>>, Vec<Trial>) {
    let mut samples = Vec::new();
    for person in 0..4_u8 {
        for image in 0..5_u8 {
            let at = [f32::from(person), f32::from(image) / 100.0];
            samples.push(sample(at, 10 * image));
        }
    }
    let mut trials = Vec::new();
    for a in 0..20 {
        for b in 0..a {
            let template = |n: usize| &samples[n].as_ref().unwrap().template;
            let score = compare(template(a), template(b)).unwrap().value();
            trials.push(Trial { a, b, mated: a / 5 == b / 5, score });
        }
    }
    (samples, trials)
}

#[test]
fn people_are_what_mated_pairs_join() {
    let (_, trials) = crowd();
    assert_eq!(people(20, &trials)[1], [5, 6, 7, 8, 9]);
    assert_eq!(people(21, &trials).len(), 4, "who is compared with nobody is nobody");
}

#[test]
fn a_person_who_is_a_stranger_to_himself_is_a_fault_of_the_file() {
    let (samples, mut trials) = crowd();
    let at = trials.iter().position(|t| (t.a, t.b) == (1, 0)).unwrap();
    trials[at].mated = false;
    let refused = measure(&samples, &trials, &Calibration::unmeasured(), Metric::Euclidean);
    assert_eq!(refused, Err(ClaimsError::Contradiction { a: 1, b: 0 }));
}

#[test]
fn claims_are_counted_by_number_and_rule() {
    let (samples, trials) = crowd();
    let lines = measure(&samples, &trials, &Calibration::unmeasured(), Metric::Euclidean).unwrap();
    let line = |references, rule| {
        lines.iter().find(|l| l.promised == 0.1 && l.references == references && l.rule == rule).unwrap()
    };
    // Of four people six halves tune; then each of 10 probes claims the four other images of its own person, and the five of a stranger.
    assert_eq!((lines[0].splits, halves(11).len()), (6, 2));
    for (references, mated, non_mated) in [(1, 40, 50), (2, 60, 100), (3, 40, 100), (4, 10, 50), (5, 0, 10)] {
        let served = line(references, Rule::Served);
        assert_eq!((served.mated, served.non_mated), (mated, non_mated));
        assert!(served.fnmr == 0.0 || mated == 0);
        assert_eq!(served.fmr, line(references, Rule::MeanScore).fmr);
        assert!(served.fmr <= line(references, Rule::Best).fmr);
        // A stricter threshold matches fewer, where so small a rate can be counted at all.
        let corrected =
            lines.iter().find(|l| l.promised == 0.1 && l.references == references && l.rule == Rule::BestCorrected);
        assert!(corrected.is_none_or(|line_of| line_of.fmr <= line(references, Rule::Best).fmr));
        assert!(corrected.is_some() || references > 1);
    }
    assert!(measure(&samples[..10], &trials[..45], &Calibration::unmeasured(), Metric::Euclidean).unwrap().is_empty());
}

#[test]
fn rules_are_what_they_say() {
    let samples = [sample([0.0, 0.0], 0), sample([1.0, 0.0], 50), sample([0.0, 2.0], 90), sample([3.0, 0.0], 10)];
    let at = |rule| score(rule, &samples, 0, &[1, 2, 3], Metric::Euclidean).unwrap().unwrap();
    let scores = [1.0 - 0.5, 1.0 - 2.0, 1.0 - 4.5];
    let mean = scores.iter().sum::<f32>() / 3.0;
    assert_eq!(at(Rule::Best), 0.5);
    assert!((at(Rule::MeanScore) - mean).abs() < 1e-6 && at(Rule::BestQuality) == -1.0);
    assert_eq!(at(Rule::BetterHalf), (0.5 - 1.0) / 2.0);
    // The mean is at (4/3, 2/3).
    assert!((at(Rule::MeanTemplate) - (1.0 - (16.0 + 4.0) / 9.0 / 2.0)).abs() < 1e-6);
}

#[test]
fn a_corrected_threshold_is_that_of_each_comparisons_rate() {
    // The rate itself, as a threshold.
    let rates = by_number(0.1, |rate| Some(rate as f32));
    assert_eq!((rates.len(), rates[0]), (MOST_REFERENCES, Some(0.1)));
    for (at, rate) in rates.iter().enumerate() {
        let together = 1.0 - (1.0 - f64::from(rate.unwrap())).powi(at as i32 + 1);
        assert!((together - 0.1).abs() < 1e-6, "{at}: {together}");
    }
}

#[test]
fn sets_are_all_or_some_from_all_over() {
    assert_eq!(sets(&[4, 5, 6], 2), [[4, 5], [4, 6], [5, 6]]);
    assert_eq!(sets(&[4, 5, 6], 3), [[4, 5, 6]]);
    let many = sets(&(0..12).collect::<Vec<_>>(), 6);
    assert!(many.len() <= MOST_SETS && many.len() > MOST_SETS / 2 && many.last().unwrap()[0] > 0);
    let drawn = sets(&(0..16).collect::<Vec<_>>(), 8);
    assert!(drawn.len() == MOST_SETS && drawn.iter().all(|set| set.len() == 8));
    let holding = |image: usize| drawn.iter().filter(|set| set.contains(&image)).count();
    assert!((0..16).all(|image| (3..=17).contains(&holding(image))), "each image is in some, none in all");
}
