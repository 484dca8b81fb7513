//! Stage: how like a subject without references a probe is, as far as anyone can tell.

use sha2::{Digest, Sha256};

use crate::domain::Template;

/// The share of the probe's direction that points the subject's way, in standard deviations: of all probes and subjects it is
/// standard normal. `secret` belongs to the subject and is known to the service alone; a probe that changes a little is
/// a little more or less alike, as it would be with a reference.
pub fn likeness(secret: &[u8; 32], probe: &Template) -> f64 {
    let length = probe.values().iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    if length == 0.0 {
        return 0.0;
    }
    let along: f64 = probe.values().iter().zip(normals(secret)).map(|(value, normal)| f64::from(*value) * normal).sum();
    along / length
}

/// Pseudo-random standard normal numbers without end: SHA-256 in counter mode, Box and Muller's transform.
fn normals(secret: &[u8; 32]) -> impl Iterator<Item = f64> {
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
    use super::*;
    use crate::domain::ModelDigest;

    fn probe(values: Vec<f32>) -> Template {
        Template::new(ModelDigest::new([1; 32]), values).unwrap()
    }

    fn secret(subject: u32) -> [u8; 32] {
        Sha256::digest(subject.to_le_bytes()).into()
    }

    #[test]
    fn likenesses_are_standard_normal() {
        let probe = probe((0..128_u8).map(|i| 0.3 + f32::from(i % 7)).collect());
        let all: Vec<f64> = (0..4000).map(|subject| likeness(&secret(subject), &probe)).collect();
        let mean = all.iter().sum::<f64>() / 4000.0;
        let variance = all.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / 4000.0;
        assert!(mean.abs() < 0.06 && (variance - 1.0).abs() < 0.08, "{mean} {variance}");
    }

    #[test]
    fn a_little_change_of_the_probe_is_a_little_change_of_likeness() {
        let values: Vec<f32> = (0..128_u8).map(|i| f32::from(i) / 100.0 - 0.6).collect();
        let mut changed = values.clone();
        changed[5] += 1e-3;
        let (a, b) = (likeness(&secret(1), &probe(values.clone())), likeness(&secret(1), &probe(changed)));
        assert!(a != b && (a - b).abs() < 2e-3, "{a} {b}");
        assert_eq!(a, likeness(&secret(1), &probe(values.clone())));
        assert!((a - likeness(&secret(2), &probe(values))).abs() > 1e-3);
    }

    #[test]
    fn the_zero_vector_is_like_nobody() {
        assert_eq!(likeness(&secret(1), &probe(vec![0.0; 8])), 0.0);
    }
}
