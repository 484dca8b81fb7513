//! The most that a server answers: callers in a closed loop, as many as bring more than fewer do.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::time::sleep;

use crate::{
    drive::{Closed, Sender},
    target::Target,
    usage::Used,
};
use vultus::cli::Failure;

/// Callers at a time. The last is half of what a server lets in by default.
const CALLERS: [usize; 5] = [8, 16, 32, 64, 128];
/// Until a level is at its pace, and how long it is tried then.
const RAMP: Duration = Duration::from_secs(1);
const TRY: Duration = Duration::from_secs(2);
/// Times that all levels are tried, one after the other: a machine's slow second is not to choose among them.
const PASSES: usize = 2;
/// Windows at the level that is found, whose median counts.
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
    #[serde(flatten)]
    pub used: Used,
    /// Answers for each second of a core's time that the server used.
    pub answers_per_core_s: Option<f64>,
    pub failed: u64,
    pub changed: u64,
}

/// With `callers`, or as many as bring more than fewer do.
///
/// # Errors
/// When nothing is answered.
pub async fn find<S: Sender>(sender: &Arc<S>, target: &Target, callers: Option<NonZeroUsize>) -> Result<Peak, Failure> {
    if let Some(callers) = callers {
        return at(sender, target, callers.get(), WINDOWS, TRY).await;
    }
    let mut answered = CALLERS.map(|level| (level, 0));
    for _ in 0..PASSES {
        for (level, best) in &mut answered {
            let (tally, answers) = Closed { callers: *level, ramp: RAMP, windows: 1, window: TRY }.run(sender).await?;
            let answers: u64 = answers.into_iter().sum();
            *best = answers.max(*best);
            if tally.refused.count() > answers {
                break; // a client may send no more: the rest would be refused as well
            }
        }
    }
    at(sender, target, fewest(&answered), WINDOWS, TRY).await
}

/// The fewest callers than whom no more are worth their number.
fn fewest(answered: &[(usize, u64)]) -> usize {
    let most = answered.iter().map(|(_, answers)| *answers).max().unwrap_or_default() as f64;
    answered.iter().find(|(_, answers)| *answers as f64 * WORTH >= most).map_or(1, |(level, _)| *level)
}

/// Windows at a known level.
///
/// # Errors
/// When nothing is answered.
pub async fn at<S: Sender>(
    sender: &Arc<S>,
    target: &Target,
    callers: usize,
    windows: usize,
    window: Duration,
) -> Result<Peak, Failure> {
    let closed = Closed { callers, ramp: RAMP, windows, window };
    let within = async {
        sleep(RAMP).await;
        let before = target.snapshot();
        sleep(window * u32::try_from(windows)?).await;
        Ok::<_, Failure>(before.until(&target.snapshot()))
    };
    let (ran, used) = tokio::join!(closed.run(sender), within);
    let ((tally, answers), used) = (ran?, used?);
    let answered: u64 = answers.iter().sum();
    if answered == 0 {
        return Err(format!("nothing was answered: {}", tally.failure.unwrap_or_default()).into());
    }
    let rates: Vec<f64> = answers.iter().map(|count| *count as f64 / window.as_secs_f64()).collect();
    Ok(Peak {
        answers_per_s: median(&rates),
        windows_per_s: rates,
        callers,
        used,
        answers_per_core_s: used.server_cpu_s.map(|cpu_s| answered as f64 / cpu_s.max(0.01)),
        failed: tally.failed.count() + tally.late.count() + tally.refused.count(),
        changed: tally.changed,
    })
}

/// The mean of the two in the middle where they are even in number; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
    f64::midpoint(at(sorted.len().saturating_sub(1) / 2), at(sorted.len() / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_callers_as_are_worth_it() {
        assert_eq!(fewest(&[(8, 100), (16, 101), (32, 140), (64, 142), (128, 130)]), 32);
        assert_eq!(fewest(&[(8, 0), (16, 0)]), 8, "a server that answers nobody");
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[]), median(&[5.0, 4.0])), (2.0, 0.0, 4.5));
    }
}
