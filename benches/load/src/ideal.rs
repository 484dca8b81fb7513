//! The ceiling of latencies: what a perfect server would have made of the same arrivals. Requests that come by chance queue for
//! each other even there, and the fewer cores, the longer.

use std::{num::NonZeroUsize, time::Duration};

use crate::arrivals::MOST_ARRIVALS;

/// First come, first served, each request on one of `cores` for the same time, `peak_per_s` of them a second in all.
#[derive(Debug, Clone, Copy)]
pub struct Ideal {
    pub cores: NonZeroUsize,
    pub peak_per_s: f64,
}

impl Ideal {
    /// Its 99.9th percentile over its median, for these arrivals, which are in order. `None` for those that are more than it can do.
    pub fn p99_9_over_p50(&self, arrivals: &[Duration], per_s: f64) -> Option<f64> {
        if arrivals.is_empty() || per_s >= self.peak_per_s || arrivals.len() as f64 > MOST_ARRIVALS {
            return None;
        }
        let each = self.cores.get() as f64 / self.peak_per_s;
        // When each core is free again: with equal times, they are so in turn.
        let mut free = vec![0.0f64; self.cores.get()];
        let mut latencies: Vec<f64> = Vec::with_capacity(arrivals.len());
        for (arrived, core) in arrivals.iter().map(Duration::as_secs_f64).zip((0..self.cores.get()).cycle()) {
            free[core] = free[core].max(arrived) + each;
            latencies.push(free[core] - arrived);
        }
        latencies.sort_by(f64::total_cmp);
        let quantile = |q: f64| latencies.get(((latencies.len() as f64 * q).ceil() as usize).saturating_sub(1));
        Some(quantile(0.999)? / quantile(0.5)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrivals::poisson;

    fn ideal(cores: usize) -> Ideal {
        Ideal { cores: NonZeroUsize::new(cores).unwrap(), peak_per_s: 100.0 }
    }

    #[test]
    fn requests_that_never_meet_all_take_the_same() {
        let arrivals: Vec<Duration> = (0..1000).map(|i| Duration::from_millis(20 * i)).collect();
        let ratio = ideal(2).p99_9_over_p50(&arrivals, 50.0).unwrap();
        assert!((ratio - 1.0).abs() < 1e-9, "{ratio}");
    }

    /// Worked out by hand: 10 ms each, all at once.
    #[test]
    fn a_burst_waits_for_itself() {
        let ratio = ideal(1).p99_9_over_p50(&[Duration::ZERO; 4], 50.0).unwrap();
        assert!((ratio - 2.0).abs() < 1e-9, "{ratio}");
        let ratio = ideal(2).p99_9_over_p50(&[Duration::ZERO; 4], 50.0).unwrap();
        assert!((ratio - 2.0).abs() < 1e-9, "20, 20, 40 and 40 ms: {ratio}");
    }

    #[test]
    fn chance_alone_makes_more_than_two_of_it() {
        let ratio = ideal(2).p99_9_over_p50(&poisson(80.0, 100.0, 3), 80.0).unwrap();
        assert!((3.0..7.0).contains(&ratio), "{ratio}");
        assert_eq!(ideal(2).p99_9_over_p50(&poisson(100.0, 1.0, 3), 100.0), None, "more than it can do");
    }
}
