//! When requests are due: a Poisson process, from a seed that is printed, so that a run can be had again.

use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same on every machine.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Above 0, at most 1.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Exponential, with mean 1.
    fn gap(&mut self) -> f64 {
        -self.unit().ln()
    }
}

/// The moments, counted from the start and in order, of `rate * seconds` arrivals within `seconds`.
///
/// Gaps are exponential, scaled so that exactly as many fall in the time as asked for: the Poisson process, given its count. The
/// rate is then the one that was asked for, and not off by chance.
pub fn poisson(rate: f64, seconds: f64, seed: u64) -> Vec<Duration> {
    let mut random = Random::new(seed);
    let arrivals = (rate * seconds).round().clamp(0.0, MOST_ARRIVALS) as usize;
    let mut at = 0.0;
    let moments: Vec<f64> = std::iter::repeat_with(|| {
        at += random.gap();
        at
    })
    .take(arrivals)
    .collect();
    let scale = seconds / (at + random.gap());
    moments.into_iter().map(|moment| Duration::from_secs_f64(moment * scale)).collect()
}

/// Of one window: they are held, 16 bytes each.
pub const MOST_ARRIVALS: f64 = 1e8;

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(moments: &[Duration]) -> Vec<f64> {
        moments.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
    }

    #[test]
    fn gaps_are_exponential() {
        let (rate, seconds) = (1000.0, 100.0);
        let moments = poisson(rate, seconds, 7);
        assert_eq!(moments.len(), 100_000);
        assert!(moments.is_sorted() && moments[99_999].as_secs_f64() < seconds);
        let gaps = gaps(&moments);
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean * rate - 1.0).abs() < 0.001, "{mean}");
        // Of an exponential the standard deviation is the mean; of 100 000 gaps the variance is known to 1 %.
        assert!((variance * rate * rate - 1.0).abs() < 0.05, "{variance}");
        let longer = gaps.iter().filter(|gap| **gap * rate > 3.0).count() as f64 / gaps.len() as f64;
        assert!((longer - (-3.0f64).exp()).abs() < 0.004, "{longer}");
    }

    #[test]
    fn a_seed_gives_the_same_moments_again() {
        assert_eq!(poisson(50.0, 2.0, 11), poisson(50.0, 2.0, 11));
        assert_ne!(poisson(50.0, 2.0, 11), poisson(50.0, 2.0, 12));
        assert_eq!(poisson(50.0, 2.0, 11).len(), 100);
        assert!(poisson(0.0, 2.0, 1).is_empty());
    }
}
