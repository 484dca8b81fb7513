//! Service time: the one durable time source for all that expires.
//!
//! The wall clock jumps, both ways: a machine without a clock chip, NTP, a virtual machine that was paused. What expires by it is lost
//! when it jumps ahead, and comes back when it jumps behind. So receipts, cases and whatever else expires go by *service time*: the
//! time that a process has served this store, added up over its processes and kept in the store. It runs with the machine's uptime,
//! which is looked at with every commit and every [`LONGEST_LOOK`] at least; never stands behind what it has shown, nor behind what
//! the store has seen; and no clock moves it by more than [`LONGEST_STEP`] between two looks. It does not count the time between two
//! processes, nor that of a machine that sleeps, so what expires lives longer by that, never shorter.
//!
//! Wall time is for people to read. Jumps of either clock are logged and counted, and nothing else follows from them.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use rustix::time::{ClockId, clock_gettime};

use crate::telemetry::Metrics;

/// The machine's clocks. A seam: a test turns the hands.
pub trait Clocks: fmt::Debug + Send + Sync {
    /// What people call the time; may jump.
    fn wall(&self) -> SystemTime;

    /// Time since some moment before the process began; counts the machine's sleep.
    fn uptime(&self) -> Duration;
}

/// `CLOCK_REALTIME` and `CLOCK_BOOTTIME`.
#[derive(Debug, Clone, Copy, Default)]
pub struct MachineClocks;

impl Clocks for MachineClocks {
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn uptime(&self) -> Duration {
        let now = clock_gettime(ClockId::Boottime);
        // Neither is ever negative.
        Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
    }
}

/// Microseconds that the store has been served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceTime(i64);

impl ServiceTime {
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    pub const fn micros(self) -> i64 {
        self.0
    }

    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Before the beginning of all time, if need be.
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }
}

/// What the store keeps of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    pub service: ServiceTime,
    /// Wall time of then, microseconds since 1970; `None` before the first process.
    pub wall: Option<i64>,
}

/// The wall clock may be corrected by so much without a word, microseconds: NTP does it all the time.
const JUMP_US: i64 = 2_000_000;

/// Whoever keeps the store looks at the clocks, and keeps the time, so often at least.
pub(super) const LONGEST_LOOK: Duration = Duration::from_secs(60);

/// What service time runs on by between two looks at most: more is a jump, of a clock or of the machine.
const LONGEST_STEP: Duration = Duration::from_secs(300);

/// Service time, running.
#[derive(Debug)]
pub struct Clock {
    clocks: Arc<dyn Clocks>,
    /// The last look: service time and uptime.
    looked: ArcSwap<(ServiceTime, Duration)>,
    /// The latest that was shown, microseconds.
    shown: AtomicI64,
    /// Wall time less uptime at the last look, microseconds.
    offset: AtomicI64,
}

impl Clock {
    /// Goes on from where the store stands.
    pub(super) fn resume(clocks: Arc<dyn Clocks>, kept: Kept) -> Self {
        let (wall, uptime) = (micros(clocks.wall()), clocks.uptime());
        // How long the store stood still nobody knows; that the wall clock went back is sure.
        if let Some(back) = kept.wall.map(|before| before.saturating_sub(wall)).filter(|back| *back > JUMP_US) {
            jumped("wall", -back);
        }
        Self {
            offset: AtomicI64::new(wall.saturating_sub(signed(uptime))),
            clocks,
            looked: ArcSwap::from_pointee((kept.service, uptime)),
            shown: AtomicI64::new(kept.service.micros()),
        }
    }

    /// Never falls, and never leaps, whatever the clocks do.
    pub fn now(&self) -> ServiceTime {
        self.at(self.clocks.uptime())
    }

    fn at(&self, uptime: Duration) -> ServiceTime {
        let looked = self.looked.load();
        let now = looked.0.after(uptime.saturating_sub(looked.1).min(LONGEST_STEP)).micros();
        ServiceTime(self.shown.fetch_max(now, Relaxed).max(now))
    }

    /// For people.
    pub fn wall(&self) -> SystemTime {
        self.clocks.wall()
    }

    /// A look at the clocks, of whoever keeps the store alone: notes jumps; what the store should keep.
    pub(super) fn look(&self) -> Kept {
        let (wall, uptime) = (micros(self.clocks.wall()), self.clocks.uptime());
        let (service, before) = (self.at(uptime), self.looked.load().1);
        self.looked.store(Arc::new((service, uptime)));
        let offset = wall.saturating_sub(signed(uptime));
        let jump = offset.saturating_sub(self.offset.swap(offset, Relaxed));
        match signed(uptime).saturating_sub(signed(before)) {
            step if step < 0 || step > signed(LONGEST_STEP) => jumped("uptime", step),
            _ if jump.abs() > JUMP_US => jumped("wall", jump),
            _ => {}
        }
        Kept { service, wall: Some(wall) }
    }
}

fn jumped(clock: &str, by: i64) {
    let direction = if by < 0 { "back" } else { "ahead" };
    Metrics::get().clock_jumps_total.with_label_values(&[clock, direction]).inc();
    let seconds = by.unsigned_abs() / 1_000_000;
    tracing::warn!(clock, direction, seconds, "a clock jumped; nothing expires or comes back for it");
}

/// As the store keeps it: microseconds since 1970.
pub(super) fn micros(time: SystemTime) -> i64 {
    let signed = |d: Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX);
    time.duration_since(UNIX_EPOCH).map_or_else(|before| -signed(before.duration()), signed)
}

/// The way back.
pub(super) fn time(micros: i64) -> SystemTime {
    let distance = Duration::from_micros(micros.unsigned_abs());
    let time = if micros < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(UNIX_EPOCH)
}

fn signed(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Wall and uptime, both for the test to set.
    #[derive(Debug)]
    struct Hands(Mutex<(SystemTime, Duration)>);

    impl Clocks for Hands {
        fn wall(&self) -> SystemTime {
            self.0.lock().unwrap().0
        }
        fn uptime(&self) -> Duration {
            self.0.lock().unwrap().1
        }
    }

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    fn clock(hands: &Arc<Hands>, kept: Kept) -> Clock {
        Clock::resume(Arc::clone(hands) as Arc<dyn Clocks>, kept)
    }

    /// Jumps that were counted: of the wall clock ahead and back, of the uptime ahead and back.
    fn jumps() -> [u64; 4] {
        [("wall", "ahead"), ("wall", "back"), ("uptime", "ahead"), ("uptime", "back")]
            .map(|(clock, to)| Metrics::get().clock_jumps_total.with_label_values(&[clock, to]).get())
    }

    #[test]
    fn service_time_runs_with_uptime_and_never_leaps() {
        let start = SystemTime::UNIX_EPOCH + 56 * YEAR;
        let hands = Arc::new(Hands(Mutex::new((start, Duration::from_secs(1000)))));
        let running = clock(&hands, Kept { service: ServiceTime(5_000_000), wall: None });
        let set = |wall: SystemTime, uptime| *hands.0.lock().unwrap() = (wall, Duration::from_secs(uptime));
        let seconds = |clock: &Clock| clock.now().micros() / 1_000_000;
        let mut counted = jumps();
        let mut more = || {
            let before = std::mem::replace(&mut counted, jumps());
            std::array::from_fn::<u64, 4, _>(|i| counted[i] - before[i])
        };
        assert_eq!(seconds(&running), 5);
        // The wall clock jumps ahead, and to the beginning of time.
        set(start + YEAR, 1001);
        assert_eq!((seconds(&running), running.look().service.micros(), more()), (6, 6_000_000, [1, 0, 0, 0]));
        set(SystemTime::UNIX_EPOCH, 1002);
        assert_eq!(running.look(), Kept { service: ServiceTime(7_000_000), wall: Some(0) });
        assert_eq!(more(), [0, 1, 0, 0]);
        // A clock that runs is no jump.
        set(SystemTime::UNIX_EPOCH + Duration::from_secs(200), 1202);
        assert_eq!((running.look().service.micros(), more()), (207_000_000, [0; 4]));
        // The uptime leaps by years, alone: a step, before the writer has looked and after it.
        set(SystemTime::UNIX_EPOCH + Duration::from_secs(200), 1_000_000_000);
        assert_eq!(seconds(&running), 507);
        assert_eq!((running.look().service.micros(), more()), (507_000_000, [0, 0, 1, 0]));
        assert_eq!(seconds(&running), 507);
        // It falls: what was shown stays, and time runs on from there.
        set(SystemTime::UNIX_EPOCH + Duration::from_secs(200), 50);
        assert_eq!(seconds(&running), 507);
        assert_eq!((running.look().service.micros(), more()), (507_000_000, [0, 0, 0, 1]));
        set(SystemTime::UNIX_EPOCH + Duration::from_secs(210), 60);
        assert_eq!((seconds(&running), more()), (517, [0; 4]));
        // The next process finds the wall clock behind what the last one saw.
        set(SystemTime::UNIX_EPOCH, 3);
        let next = clock(&hands, Kept { service: ServiceTime(8_000_000), wall: Some(3_600_000_000) });
        assert_eq!((seconds(&next), more()), (8, [0, 1, 0, 0]));
    }

    #[test]
    fn time_that_was_shown_is_never_taken_back() {
        let hands = Arc::new(Hands(Mutex::new((SystemTime::UNIX_EPOCH, Duration::from_secs(1000)))));
        let running = clock(&hands, Kept { service: ServiceTime(0), wall: None });
        let mut latest = running.now();
        // Uptimes to and fro, with looks in between.
        for step in 0..2000_u64 {
            hands.0.lock().unwrap().1 = Duration::from_secs(step.wrapping_mul(2_654_435_761) % 4000);
            if step % 3 == 0 {
                assert!(running.look().service >= latest);
            }
            let now = running.now();
            assert!(now >= latest);
            latest = now;
        }
    }
}
