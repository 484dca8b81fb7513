//! What became of the requests of one window: counts and latencies by outcome.

use std::time::Duration;

use hdrhistogram::Histogram;
use tonic::Code;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answered.
    Ok,
    /// Refused for want of room.
    Refused,
    /// Its deadline passed.
    Late,
    /// Anything else, which a healthy run has none of.
    Failed,
}

impl Outcome {
    pub fn of(code: Code) -> Self {
        match code {
            Code::Ok => Self::Ok,
            Code::ResourceExhausted => Self::Refused,
            // The client's own clock may be the first to notice.
            Code::DeadlineExceeded | Code::Cancelled => Self::Late,
            _ => Self::Failed,
        }
    }
}

/// Latencies of one outcome, microseconds from 1 to [`MOST_US`], three digits.
#[derive(Debug, Clone)]
pub struct Latencies(Option<Histogram<u64>>);

/// Longer waits count as so long: ten minutes, as deadlines end sooner.
const MOST_US: u64 = 600_000_000;

impl Latencies {
    fn new() -> Self {
        Self(Histogram::new_with_bounds(1, MOST_US, 3).ok())
    }

    fn note(&mut self, latency: Duration) {
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(MOST_US).max(1));
        }
    }

    pub fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, Histogram::len)
    }

    /// Milliseconds; `None` without any latency.
    pub fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        let histogram = self.0.as_ref().filter(|h| !h.is_empty())?;
        Some(histogram.value_at_quantile(quantile) as f64 / 1000.0)
    }

    pub fn max_ms(&self) -> Option<f64> {
        self.0.as_ref().filter(|h| !h.is_empty()).map(|h| h.max() as f64 / 1000.0)
    }
}

/// Counts of one window.
#[derive(Debug, Clone)]
pub struct Tally {
    pub ok: Latencies,
    pub refused: Latencies,
    pub late: Latencies,
    pub failed: Latencies,
    /// From the moment that a request was due to the moment that it was handed to its connection.
    pub lag: Latencies,
    /// Answered within the window: what is answered later was worked off, not kept up with.
    pub ok_within: u64,
    /// Answered otherwise than the same request was before the load.
    pub changed: u64,
    /// Refused without a word on when to try again.
    pub unhinted: u64,
    /// Not sent: as many were outstanding as the generator holds.
    pub shed: u64,
    /// What one failure was, for a person to start from.
    pub failure: Option<String>,
}

impl Tally {
    pub fn new() -> Self {
        let none = Latencies::new;
        Self {
            ok: none(),
            refused: none(),
            late: none(),
            failed: none(),
            lag: none(),
            ok_within: 0,
            changed: 0,
            unhinted: 0,
            shed: 0,
            failure: None,
        }
    }

    pub fn note(&mut self, outcome: Outcome, latency: Duration, within: bool) {
        let latencies = match outcome {
            Outcome::Ok => &mut self.ok,
            Outcome::Refused => &mut self.refused,
            Outcome::Late => &mut self.late,
            Outcome::Failed => &mut self.failed,
        };
        latencies.note(latency);
        self.ok_within += u64::from(outcome == Outcome::Ok && within);
    }

    pub fn note_lag(&mut self, lag: Duration) {
        self.lag.note(lag);
    }

    /// Requests that were sent.
    pub fn issued(&self) -> u64 {
        self.lag.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_kept_by_outcome() {
        let mut tally = Tally::new();
        for ms in 1..=100 {
            tally.note(Outcome::Ok, Duration::from_millis(ms), ms <= 40);
        }
        tally.note(Outcome::of(Code::ResourceExhausted), Duration::from_micros(300), true);
        tally.note(Outcome::of(Code::Unavailable), Duration::from_secs(7200), true);
        assert_eq!((tally.ok.count(), tally.ok_within, tally.refused.count(), tally.late.count()), (100, 40, 1, 0));
        let near = |got: Option<f64>, wanted: f64| assert!((got.unwrap() / wanted - 1.0).abs() < 0.002, "{got:?}");
        near(tally.ok.quantile_ms(0.5), 50.0);
        near(tally.ok.quantile_ms(0.99), 99.0);
        near(tally.ok.max_ms(), 100.0);
        near(tally.refused.quantile_ms(0.99), 0.3);
        near(tally.failed.max_ms(), 600_000.0);
        assert_eq!(tally.late.quantile_ms(0.5), None);
    }
}
