//! Stage: the score of a claimed subject without references. What a caller sees must not tell it from a stranger's.

use sha2::{Digest, Sha256};

use crate::domain::{Population, Score, Template, Threshold};

/// As a comparison with a stranger's template would give, whose place among all people's follows from `secret`. That belongs to the
/// subject and is known to the service alone. A probe that changes a little changes the score a little. What the threshold would
/// admit is mirrored at it.
pub fn stranger(population: &Population, secret: &[u8; 32], probe: &Template, threshold: Threshold) -> Score {
    let mut normals = normals(secret);
    let distance = normals.next().unwrap_or(0.0);
    let drawn = population.stranger(probe, distance, normals);
    let limit = f64::from(threshold.value());
    let below = if drawn >= limit { 2.0 * limit - drawn } else { drawn };
    Score::new(below as f32).filter(|score| !threshold.admits(*score)).unwrap_or_else(|| threshold.just_below())
}

/// Pseudo-random standard normal numbers without end: SHA-256 in counter mode, Box and Muller's transform.
fn normals(secret: &[u8; 32]) -> impl Iterator<Item = f64> + use<> {
    let secret = *secret;
    (0_u64..).flat_map(move |counter| {
        let block: [u8; 32] = Sha256::new().chain_update(secret).chain_update(counter.to_le_bytes()).finalize().into();
        let (words, _) = block.as_chunks::<8>();
        // In [0, 1).
        let uniform = |word: &[u8; 8]| (u64::from_le_bytes(*word) >> 11) as f64 / (1_u64 << 53) as f64;
        let pair = |words: &[[u8; 8]]| match words {
            [first, second] => {
                let radius = (-2.0 * (1.0 - uniform(first)).ln()).sqrt();
                let (sine, cosine) = (std::f64::consts::TAU * uniform(second)).sin_cos();
                [radius * cosine, radius * sine]
            }
            _ => [0.0; 2],
        };
        words.chunks_exact(2).flat_map(pair).collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{ModelDigest, compare};

    const DIMENSION: usize = 128;
    /// Directions in which made-up people differ.
    const DIRECTIONS: usize = 14;

    fn template(values: Vec<f32>) -> Template {
        Template::new(ModelDigest::new([1; 32]), values).unwrap()
    }

    fn secret(subject: &str) -> [u8; 32] {
        Sha256::digest(subject).into()
    }

    /// Templates that lie as those of face networks do: far from the origin, together, and apart in a few directions, people more than
    /// photos of one person.
    fn face(person: &str, photo: u8) -> Template {
        let basis = |n: usize| normals(&secret(&format!("direction {n}"))).take(DIMENSION);
        let own = normals(&secret(person)).take(DIRECTIONS);
        let moved = normals(&secret(&format!("{person} {photo}"))).take(DIRECTIONS);
        let mut values: Vec<f64> = normals(&secret("mean")).take(DIMENSION).map(|v| v * 0.12).collect();
        for (n, (own, moved)) in own.zip(moved).enumerate() {
            basis(n).zip(&mut values).for_each(|(along, value)| *value += (own + 0.5 * moved) * along * 0.012);
        }
        template(values.into_iter().map(|value| value as f32).collect())
    }

    fn population() -> Population {
        let faces: Vec<Template> = (0..60).map(|n| face(&format!("measured-{n}"), 0)).collect();
        Population::of(&faces.iter().map(Template::values).collect::<Vec<_>>()).unwrap()
    }

    const NEVER: f32 = 10.0;

    fn threshold(value: f32) -> Threshold {
        Threshold::new(Score::new(value).unwrap())
    }

    fn mean_and_deviation(scores: &[f64]) -> (f64, f64) {
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        (mean, (scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / scores.len() as f64).sqrt())
    }

    /// How well a number tells the two apart: 0.5 not at all, 0 or 1 entirely.
    fn area(known: &[f64], unknown: &[f64]) -> f64 {
        let pairs = known.iter().flat_map(|k| unknown.iter().map(move |u| (k, u)));
        pairs.filter(|(k, u)| k > u).count() as f64 / (known.len() * unknown.len()) as f64
    }

    /// How well mean and spread of a subject's scores tell a known subject from an unknown one.
    fn areas(population: &Population, known: &[Template], probes: &[Template]) -> [f64; 2] {
        let scores_of = |score: &dyn Fn(&Template) -> Score| {
            mean_and_deviation(&probes.iter().map(|probe| f64::from(score(probe).value())).collect::<Vec<_>>())
        };
        let known: Vec<_> = known.iter().map(|known| scores_of(&|probe| compare(probe, known).unwrap())).collect();
        let unknown = |n| scores_of(&|probe| stranger(population, &secret(&format!("u-{n}")), probe, threshold(NEVER)));
        let unknown: Vec<_> = (0..200).map(unknown).collect();
        let of = |which: fn(&(f64, f64)) -> f64| {
            area(&known.iter().map(which).collect::<Vec<_>>(), &unknown.iter().map(which).collect::<Vec<_>>())
        };
        [of(|(mean, _)| *mean), of(|(_, spread)| *spread)]
    }

    #[test]
    fn an_unknown_subject_scores_as_a_stranger_does() {
        let population = population();
        let known: Vec<_> = (0..200).map(|n| face(&format!("enrolled-{n}"), 0)).collect();
        // Who asks with one photo each of some people, and with some of one person.
        let people: Vec<_> = (0..4).map(|n| face(&format!("asks-{n}"), 0)).collect();
        let many: Vec<_> = (0..12).map(|n| face(&format!("asks-{n}"), 1)).collect();
        let photos: Vec<_> = (0..5).map(|photo| face("asks-0", photo)).collect();
        for probes in [&people, &many, &photos] {
            let areas = areas(&population, &known, probes);
            assert!(areas.iter().all(|area| (0.3..0.7).contains(area)), "{} probes: {areas:?}", probes.len());
        }
        // One that does not know where the middle of all people is gives itself away.
        let (distance, along) = (population.squared_distance(), population.along());
        let lost = Population::new(vec![0.0; DIMENSION], distance, along / 3.0).unwrap();
        let areas = areas(&lost, &known, &people);
        assert!(areas.iter().any(|area| !(0.1..0.9).contains(area)), "{areas:?}");
    }

    /// On real faces, where they are at hand: the table of docs/accuracy.md.
    #[test]
    fn an_unknown_subject_scores_as_a_real_stranger_does() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/faces/reference.json");
        let Ok(text) = std::fs::read_to_string(&path) else {
            return println!("skipped: no descriptors of real faces at {}", path.display());
        };
        let reference: serde_json::Value = serde_json::from_str(&text).unwrap();
        let values = |v: &serde_json::Value| {
            template(v.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect())
        };
        let crops = reference["crops"].as_object().unwrap();
        let crops: Vec<(&str, Template)> =
            crops.iter().map(|(f, c)| (&f[..f.len() - 5], values(&c["descriptor_aligned"]))).collect();
        let people: Vec<&str> = crops.iter().map(|(person, _)| *person).step_by(5).collect();
        let of = |people: &[&str]| -> Vec<Template> {
            crops.iter().filter(|(person, _)| people.contains(person)).map(|(_, face)| face.clone()).collect()
        };
        let photos =
            reference["photos"].as_object().unwrap().values().flat_map(|photo| photo["faces"].as_array().unwrap());
        let photos: Vec<Template> = photos.map(|face| values(&face["descriptor"])).collect();
        let contract = crate::model::Contract::parse(include_str!("../../models/default.toml")).unwrap();
        let calibration = contract.face.unwrap().calibration(crate::model::Precision::F32).unwrap();
        let population = calibration.population().unwrap();
        let (asking, enrolled) = people.split_at(4);
        let enrolled = [of(enrolled), photos].concat();
        let all = of(asking);
        let probes = [
            ("a photo of each of four people", all.iter().step_by(5).cloned().collect()),
            ("five photos of one person", all[..5].to_vec()),
            ("five photos of each of four people", all.clone()),
        ];
        for (what, probes) in probes {
            let [mean, spread] = areas(population, &enrolled, &probes);
            println!("{what}: area by mean {mean:.2}, by spread {spread:.2}, {} known subjects", enrolled.len());
            assert!((0.25..0.75).contains(&mean) && (0.25..0.75).contains(&spread), "{what}: {mean} {spread}");
        }
    }

    #[test]
    fn a_little_change_of_the_probe_is_a_little_change_of_the_score() {
        let population = population();
        let values = face("asks", 0).values().to_vec();
        // Towards somebody else, in small steps: over a threshold in the middle of the scores, too.
        let other = face("other", 0);
        for limit in [NEVER, 0.7, 0.6, 0.5] {
            for subject in ["a", "b", "c", "d", "e"] {
                let at = |step: f32| {
                    let moved = values.iter().zip(other.values()).map(|(v, o)| v + (o - v) * step / 1000.0).collect();
                    f64::from(stranger(&population, &secret(subject), &template(moved), threshold(limit)).value())
                };
                let leaps = (0..1000_u16).map(|step| (at(f32::from(step) + 1.0) - at(f32::from(step))).abs());
                assert!(leaps.fold(0.0, f64::max) < 2e-3);
                assert_eq!(at(7.0), at(7.0));
            }
        }
    }

    #[test]
    fn subjects_have_scores_of_their_own() {
        let (population, probe) = (population(), face("asks", 0));
        let at = |subject| stranger(&population, &secret(subject), &probe, threshold(NEVER)).value();
        assert!((at("a") - at("b")).abs() > 1e-4);
    }

    proptest! {
        #[test]
        fn no_stranger_is_ever_admitted(seed: [u8; 32], least in -1e6_f32..1e6, scale in 0.0_f32..1e6) {
            let probe = template(vec![scale; DIMENSION]);
            prop_assert!(!threshold(least).admits(stranger(&population(), &seed, &probe, threshold(least))));
        }
    }
}
