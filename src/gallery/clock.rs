//! Service time: the one durable time source for all that expires.
//!
//! The wall clock jumps, both ways: a machine without a clock chip, NTP, a virtual machine that was paused. What expires by it is lost
//! when it jumps ahead, and comes back when it jumps behind. So receipts, cases and whatever else expires go by *service time*: the
//! time that a process has served this store, added up over its processes and kept in the store. It runs with the machine's
//! monotonic clock (the one that counts sleep), never stands behind what the store has seen, and no setting of the wall clock moves
//! it. It does not count the time between two processes, so what expires lives longer by that, never shorter.
//!
//! Wall time is for people to read. Jumps of it are logged and counted, and nothing else follows from them.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
        mpsc::RecvTimeoutError,
    },
    thread,
    time::{Duration, SystemTime},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;

use super::{store::micros, writer::Op};
use crate::telemetry::Metrics;

/// The machine's clocks. A seam: a test turns the hands.
pub trait Clocks: fmt::Debug + Send + Sync {
    /// What people call the time; may jump.
    fn wall(&self) -> SystemTime;

    /// Time since some moment before the process began. Never falls, and counts the machine's sleep.
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

/// Service time, running.
#[derive(Debug)]
pub struct Clock {
    clocks: Arc<dyn Clocks>,
    /// Service time when this process began, and the uptime of then.
    began: (ServiceTime, Duration),
    /// Wall time less uptime, microseconds, as last seen.
    offset: AtomicI64,
}

impl Clock {
    /// Goes on from where the store stands.
    pub(super) fn resume(clocks: Arc<dyn Clocks>, kept: Kept) -> Self {
        let (wall, uptime) = (micros(clocks.wall()), clocks.uptime());
        // How long the store stood still nobody knows; that the wall clock went back is sure.
        if let Some(back) = kept.wall.map(|before| before - wall).filter(|back| *back > JUMP_US) {
            jumped(-back);
        }
        Self { offset: AtomicI64::new(wall - signed(uptime)), clocks, began: (kept.service, uptime) }
    }

    /// Never falls, whatever the wall clock does.
    pub fn now(&self) -> ServiceTime {
        let (service, uptime) = self.began;
        service.after(self.clocks.uptime().saturating_sub(uptime))
    }

    /// For people.
    pub fn wall(&self) -> SystemTime {
        self.clocks.wall()
    }

    /// Notes a jump of the wall clock; what the store should keep.
    pub(super) fn watch(&self) -> Kept {
        let wall = micros(self.clocks.wall());
        let offset = wall - signed(self.clocks.uptime());
        let jump = offset - self.offset.swap(offset, Relaxed);
        if jump.abs() > JUMP_US {
            jumped(jump);
        }
        Kept { service: self.now(), wall: Some(wall) }
    }
}

/// Tells the writer to keep the time, every `interval`, until the sender that it returns is dropped or the writer ends.
pub(super) fn keep_time(
    queue: mpsc::WeakSender<Op>,
    interval: Duration,
) -> io::Result<std::sync::mpsc::SyncSender<()>> {
    let (ends, end) = std::sync::mpsc::sync_channel::<()>(0);
    thread::Builder::new().name("gallery-clock".into()).spawn(move || {
        while end.recv_timeout(interval.max(Duration::from_millis(10))) == Err(RecvTimeoutError::Timeout) {
            match queue.upgrade() {
                // A full queue keeps the time with its next commit.
                Some(queue) => drop(queue.try_send(Op::Tick)),
                None => return,
            }
        }
    })?;
    Ok(ends)
}

fn jumped(by: i64) {
    let direction = if by < 0 { "back" } else { "ahead" };
    Metrics::get().clock_jumps_total.with_label_values(&[direction]).inc();
    tracing::warn!(
        direction,
        seconds = by.unsigned_abs() / 1_000_000,
        "the wall clock jumped; nothing expires or comes back for it"
    );
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

    #[test]
    fn service_time_runs_with_uptime_alone() {
        let hands = Arc::new(Hands(Mutex::new((SystemTime::UNIX_EPOCH + 56 * YEAR, Duration::from_secs(1000)))));
        let kept = Kept { service: ServiceTime(5_000_000), wall: None };
        let clock = Clock::resume(Arc::clone(&hands) as Arc<dyn Clocks>, kept);
        let set = |wall: SystemTime, uptime| *hands.0.lock().unwrap() = (wall, Duration::from_secs(uptime));
        assert_eq!(clock.now().micros(), 5_000_000);
        let jumps = |direction| Metrics::get().clock_jumps_total.with_label_values(&[direction]).get();
        let before = (jumps("ahead"), jumps("back"));
        set(SystemTime::UNIX_EPOCH + 57 * YEAR, 1001);
        assert_eq!((clock.now().micros(), clock.watch().service.micros()), (6_000_000, 6_000_000));
        set(SystemTime::UNIX_EPOCH, 1002);
        assert_eq!(clock.watch(), Kept { service: ServiceTime(7_000_000), wall: Some(0) });
        assert_eq!((jumps("ahead") - before.0, jumps("back") - before.1), (1, 1));
        set(SystemTime::UNIX_EPOCH + Duration::from_secs(1), 1003);
        clock.watch();
        // The next process finds the wall clock behind what the last one saw.
        let kept = Kept { service: ServiceTime(8_000_000), wall: Some(3_600_000_000) };
        set(SystemTime::UNIX_EPOCH, 3);
        let next = Clock::resume(hands, kept);
        assert_eq!((next.now().micros(), jumps("back") - before.1), (8_000_000, 2));
        assert_eq!(jumps("ahead") - before.0, 1, "a clock that runs is no jump");
    }
}
