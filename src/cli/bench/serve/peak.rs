//! The most that a server answers: callers in a closed loop, more and more of them, until more of them bring no more.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use serde::Serialize;

use super::{
    drive::{Sender, closed_loop},
    target::{Target, own_usage},
};
use crate::cli::Failure;

/// Callers at a time. The last is half of what a server lets in by default.
const CALLERS: [usize; 5] = [8, 16, 32, 64, 128];
/// One level is tried for so long; the windows at the best are twice as long.
const TRY: Duration = Duration::from_secs(1);
/// Windows at the best level, whose median counts.
const WINDOWS: usize = 3;
/// More callers have to bring so much more.
const WORTH: f64 = 1.02;

/// What a server answers when callers never let it rest.
#[derive(Debug, Clone, Serialize)]
pub struct Peak {
    /// Answers a second, the median of the windows.
    pub answers_per_s: f64,
    pub windows_per_s: Vec<f64>,
    pub callers: usize,
    /// Cores that the server used, where its process is known.
    pub server_cores: Option<f64>,
    /// And the generator.
    pub generator_cores: Option<f64>,
    /// Answers for each second of a core's time that the server used.
    pub answers_per_core_s: Option<f64>,
    pub failed: u64,
    pub changed: u64,
}

/// # Errors
/// When nothing is answered.
pub async fn find<S: Sender>(sender: &Arc<S>, target: &Target, callers: Option<NonZeroUsize>) -> Result<Peak, Failure> {
    closed_loop(sender, 8, TRY).await?; // warms up
    if let Some(callers) = callers {
        return at(sender, target, callers.get(), WINDOWS, 2 * TRY).await;
    }
    let (mut callers, mut best) = (0, 0.0);
    for level in CALLERS {
        let rate = closed_loop(sender, level, TRY).await?.ok_within as f64 / TRY.as_secs_f64();
        if rate < best * WORTH {
            break;
        }
        (callers, best) = (level, rate);
    }
    at(sender, target, callers.max(1), WINDOWS, 2 * TRY).await
}

/// Windows at a known level.
pub async fn at<S: Sender>(
    sender: &Arc<S>,
    target: &Target,
    callers: usize,
    windows: usize,
    window: Duration,
) -> Result<Peak, Failure> {
    let (mut rates, mut answered, mut failed, mut changed) = (Vec::new(), 0, 0, 0);
    let (before, own_before, started) = (target.usage(), own_usage(), std::time::Instant::now());
    let mut failure = None;
    for _ in 0..windows.max(1) {
        let tally = closed_loop(sender, callers, window).await?;
        rates.push(tally.ok_within as f64 / window.as_secs_f64());
        answered += tally.ok.count();
        failed += tally.failed.count() + tally.late.count() + tally.refused.count();
        changed += tally.changed;
        failure = failure.or(tally.failure);
    }
    if answered == 0 {
        return Err(format!("nothing was answered: {}", failure.unwrap_or_default()).into());
    }
    let took = started.elapsed().as_secs_f64();
    let cpu_s = before.zip(target.usage()).map(|(before, after)| after.cpu_s - before.cpu_s);
    let own_cpu_s = own_before.zip(own_usage()).map(|(before, after)| after.cpu_s - before.cpu_s);
    Ok(Peak {
        answers_per_s: median(&rates),
        windows_per_s: rates,
        callers,
        server_cores: cpu_s.map(|cpu_s| cpu_s / took),
        generator_cores: own_cpu_s.map(|cpu_s| cpu_s / took),
        answers_per_core_s: cpu_s.map(|cpu_s| answered as f64 / cpu_s.max(0.01)),
        failed,
        changed,
    })
}

/// The upper of the two in the middle where they are even in number; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[]), median(&[5.0, 4.0])), (2.0, 0.0, 5.0));
    }
}
