//! How fast a lane answers, and so how long a request that comes now would wait. Pure.

use std::time::{Duration, Instant};

/// What is counted together at least: batches answer dozens at once, and nothing in between.
const WINDOW: Duration = Duration::from_millis(250);
const WINDOW_ANSWERS: u32 = 8;

/// In so long without load a pace is forgotten by half.
const FORGET: Duration = Duration::from_secs(1);

/// Waits vary about their middle: so many fourths of it are reckoned with, or half of those let in at the limit would be late.
const MARGIN_FOURTHS: u32 = 5;

/// Time per answer while the lane is loaded: it has as much work at least as is done at a time. With less, the time between two
/// answers says how few ask, not how fast they are answered.
#[derive(Debug, Default)]
pub struct Pace {
    /// Of the windows so far, the latest as much as all before it; `None` before the first.
    per_answer: Option<Duration>,
    /// Since when the lane is loaded; `None` while it is not.
    since: Option<Instant>,
    /// When it last was, and how long it has not been so far, but for whole seconds that [`Self::per_answer`] has forgotten by.
    until: Option<Instant>,
    rested: Duration,
    /// Of the window that runs: loaded time before `since`, and answers. A window may have gaps.
    loaded: Duration,
    answers: u32,
}

impl Pace {
    /// The lane is loaded from now on.
    pub fn begin(&mut self, now: Instant) {
        let rested = self.rested(now);
        if rested > self.rested + FORGET {
            (self.loaded, self.answers) = (Duration::ZERO, 0); // what is counted together is not that far apart
        }
        self.per_answer = self.per_answer(now);
        self.rested = rested - FORGET * whole(rested);
        self.since = Some(now);
    }

    /// The lane is loaded no longer.
    pub fn end(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.loaded += now.saturating_duration_since(since);
            self.until = Some(now);
        }
    }

    /// One more request was answered. What is refused on the way is no work, and does not count.
    pub fn answered(&mut self, now: Instant) {
        let Some(since) = self.since else { return };
        self.answers += 1;
        let took = self.loaded + now.saturating_duration_since(since);
        if took < WINDOW || self.answers < WINDOW_ANSWERS {
            return;
        }
        let each = took / self.answers;
        self.per_answer = Some(self.per_answer.map_or(each, |before| (before + each) / 2));
        (self.since, self.loaded, self.answers) = (Some(now), Duration::ZERO, 0);
    }

    /// Until so many are answered, with a margin; zero as long as nothing is known.
    pub fn time_for(&self, requests: usize, now: Instant) -> Duration {
        let each = self.per_answer(now).unwrap_or_default() * MARGIN_FOURTHS / 4;
        each.saturating_mul(u32::try_from(requests).unwrap_or(u32::MAX))
    }

    /// Half as much for each second without load: what was slow then may be fast now, and nothing has shown it.
    fn per_answer(&self, now: Instant) -> Option<Duration> {
        self.per_answer.map(|each| each / 2_u32.saturating_pow(whole(self.rested(now))))
    }

    fn rested(&self, now: Instant) -> Duration {
        let until = self.until.filter(|_| self.since.is_none());
        self.rested + until.map_or(Duration::ZERO, |until| now.saturating_duration_since(until))
    }
}

/// So many times it is forgotten by half.
fn whole(rested: Duration) -> u32 {
    u32::try_from(rested.as_nanos() / FORGET.as_nanos()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_loaded_lane_is_timed_and_rest_makes_it_faster() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        assert_eq!(pace.time_for(100, start), Duration::ZERO);
        pace.begin(start);
        // Two batches of 32, 160 ms each.
        for batch in 1..=2 {
            (0..32).for_each(|_| pace.answered(start + 160 * batch * MS));
        }
        // 320 ms for the 33 after which the window was long enough.
        let now = start + 320 * MS;
        assert_eq!(pace.time_for(33, now).as_millis(), 399, "each is rounded down");
        pace.end(now);
        assert_eq!(pace.time_for(33, now + 900 * MS).as_millis(), 399);
        assert_eq!(pace.time_for(33, now + 2900 * MS).as_millis(), 99, "a half, and a half of that");
        assert_eq!(pace.time_for(33, now + 3600 * 1000 * MS), Duration::ZERO);
        pace.begin(now + 2900 * MS);
        (0..8).for_each(|i| pace.answered(now + (2900 + i) * MS));
        assert_eq!(pace.time_for(33, now + 2907 * MS).as_millis(), 99, "a short window says nothing");
    }

    #[test]
    fn short_stretches_of_load_are_a_window_together() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        pace.begin(start);
        (1..=8).for_each(|i| pace.answered(start + 1000 * i * MS));
        pace.end(start + 8000 * MS);
        let slow = pace.time_for(1, start + 8000 * MS);
        // Two at a time, 40 ms for both, and 60 ms of rest.
        for pair in 0..40 {
            let came = start + (8100 + 100 * pair) * MS;
            pace.begin(came);
            (0..2).for_each(|_| pace.answered(came + 40 * MS));
            pace.end(came + 40 * MS);
        }
        let now = start + 12_100 * MS;
        assert!(slow > 1200 * MS && pace.time_for(1, now) < 100 * MS, "{slow:?}, {:?}", pace.time_for(1, now));
    }

    #[test]
    fn it_follows_a_device_that_slows_down() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        pace.begin(start);
        (1..=100).for_each(|i| pace.answered(start + 10 * i * MS));
        assert_eq!(pace.time_for(4, start + 1000 * MS), 50 * MS);
        let slow = start + 1000 * MS;
        (1..=80).for_each(|i| pace.answered(slow + 100 * i * MS));
        let now = slow + 8000 * MS;
        assert!(pace.time_for(4, now) > 475 * MS, "{:?}", pace.time_for(4, now));
        assert!(pace.time_for(usize::MAX, now) > Duration::from_secs(1 << 20), "no overflow");
    }
}
