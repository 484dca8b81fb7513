//! How fast a lane answers, and so how long a request that comes now would wait. Pure.

use std::time::{Duration, Instant};

/// What is counted together at least: batches answer dozens at once, and nothing in between.
const WINDOW: Duration = Duration::from_millis(250);
const WINDOW_ANSWERS: u32 = 8;

/// Waits vary about their middle: so many fourths of it are reckoned with, or half of those let in at the limit would be late.
const MARGIN_FOURTHS: u32 = 5;

/// Time per answer while the lane has work.
#[derive(Debug, Default)]
pub struct Pace {
    /// Of the windows so far, the latest as much as all before it; `None` before the first.
    per_answer: Option<Duration>,
    /// Of the window that runs; `None` while the lane is empty.
    since: Option<Instant>,
    answers: u32,
}

impl Pace {
    /// The lane is no longer empty.
    pub fn begin(&mut self, now: Instant) {
        (self.since, self.answers) = (Some(now), 0);
    }

    /// The lane is empty.
    pub fn end(&mut self) {
        self.since = None;
    }

    /// One more request was answered. What is refused on the way is no work, and does not count.
    pub fn answered(&mut self, now: Instant) {
        let Some(since) = self.since else { return };
        self.answers += 1;
        let took = now.saturating_duration_since(since);
        if took < WINDOW || self.answers < WINDOW_ANSWERS {
            return;
        }
        let each = took / self.answers;
        self.per_answer = Some(self.per_answer.map_or(each, |before| (before + each) / 2));
        self.begin(now);
    }

    /// Until so many are answered, with a margin; zero as long as nothing is known.
    pub fn time_for(&self, requests: usize) -> Duration {
        let each = self.per_answer.unwrap_or_default() * MARGIN_FOURTHS / 4;
        each.saturating_mul(u32::try_from(requests).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_busy_lane_is_timed_and_an_idle_one_is_not() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        assert_eq!(pace.time_for(100), Duration::ZERO);
        pace.begin(start);
        // Two batches of 32, 160 ms each.
        for batch in 1..=2 {
            (0..32).for_each(|_| pace.answered(start + 160 * batch * MS));
        }
        // 320 ms for the 33 after which the window was long enough.
        assert_eq!(pace.time_for(33).as_millis(), 399, "each is rounded down");
        pace.end();
        let later = start + Duration::from_secs(3600);
        pace.begin(later);
        (0..8).for_each(|i| pace.answered(later + i * MS));
        assert_eq!(pace.time_for(33).as_millis(), 399, "a short window says nothing");
    }

    #[test]
    fn it_follows_a_device_that_slows_down() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        pace.begin(start);
        (1..=100).for_each(|i| pace.answered(start + 10 * i * MS));
        assert_eq!(pace.time_for(4), 50 * MS);
        let slow = start + 1000 * MS;
        (1..=80).for_each(|i| pace.answered(slow + 100 * i * MS));
        assert!(pace.time_for(4) > 475 * MS, "{:?}", pace.time_for(4));
        assert!(pace.time_for(usize::MAX) > Duration::from_secs(1 << 20), "no overflow");
    }
}
