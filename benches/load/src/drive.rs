//! Sends requests: in an open loop at the moments that a schedule names, or in a closed loop of some callers.
//!
//! In the open loop nobody waits for an answer before the next request is sent, and a latency counts from the moment that the
//! request was due: a server (or a generator) that falls behind pays for every request that it made wait.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use prost::bytes::Bytes;
use tokio::{runtime::Handle, sync::Semaphore, task::JoinSet};
use tonic::Status;
use tonic_types::StatusExt;

use crate::tally::{Outcome, Tally};
use vultus::cli::Failure;

/// Where requests go. `turn` counts them, and chooses what is sent and over which connection.
pub trait Sender: Send + Sync + 'static {
    fn send(&self, turn: usize) -> impl Future<Output = Result<Bytes, Status>> + Send;

    /// Whether the answer is the one that this request had before the load.
    fn as_before(&self, turn: usize, answer: &Bytes) -> bool;
}

/// Requests that the generator holds at a time at most; what is due beyond is shed, and counted.
pub const MOST_OUTSTANDING: usize = 16_384;

/// From the decision to begin to the first moment of a schedule.
const RUN_UP: Duration = Duration::from_millis(20);

/// Sends a request at each moment of the schedule, and waits for all answers. Returns the counts and how long it took until the
/// last was sent, at least `window`.
///
/// # Errors
/// When the system gives no thread.
pub async fn open_loop<S: Sender>(
    sender: &Arc<S>,
    schedule: Vec<Duration>,
    window: Duration,
    most_outstanding: usize,
) -> Result<(Tally, Duration), Failure> {
    let tally = Arc::new(Mutex::new(Tally::new()));
    let places = Arc::new(Semaphore::new(most_outstanding));
    let last_sent_us = Arc::new(AtomicU64::new(0));
    let start = Instant::now() + RUN_UP;
    let dispatch = {
        let (sender, tally, places, last_sent_us) =
            (Arc::clone(sender), Arc::clone(&tally), Arc::clone(&places), Arc::clone(&last_sent_us));
        let runtime = Handle::current();
        // A thread of its own: the runtime's timers are a millisecond coarse.
        move || {
            for (turn, moment) in schedule.into_iter().enumerate() {
                let due = start + moment;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    lock(&tally).shed += 1;
                    continue;
                };
                let (sender, tally, last_sent_us) =
                    (Arc::clone(&sender), Arc::clone(&tally), Arc::clone(&last_sent_us));
                runtime.spawn(async move {
                    let sent = Instant::now();
                    let since = u64::try_from((sent - start).as_micros()).unwrap_or(u64::MAX);
                    last_sent_us.fetch_max(since, Ordering::Relaxed);
                    let answer = sender.send(turn).await;
                    let done = Instant::now();
                    let mut tally = lock(&tally);
                    tally.note_lag(sent - due);
                    note(&mut tally, sender.as_ref(), turn, &answer, done - due, done <= start + window);
                    drop(place);
                });
            }
        }
    };
    let (told, dispatched) = tokio::sync::oneshot::channel();
    thread::Builder::new().name("dispatch".into()).spawn(move || {
        dispatch();
        let _ = told.send(()); // nobody waits where the command was interrupted
    })?;
    dispatched.await.map_err(|_| "the dispatcher ended early")?;
    let all = u32::try_from(most_outstanding)?;
    let _all = places.acquire_many(all).await?;
    let took = Duration::from_micros(last_sent_us.load(Ordering::Relaxed)).max(window);
    let tally = lock(&tally).clone();
    Ok((tally, took))
}

/// A closed loop: so many callers, each sends one request after the other.
#[derive(Debug, Clone, Copy)]
pub struct Closed {
    pub callers: usize,
    /// Before the first window: until the first answers are back, nothing is at its pace.
    pub ramp: Duration,
    /// One after the other; the callers do not rest between them.
    pub windows: usize,
    pub window: Duration,
}

impl Closed {
    /// Returns the counts of all, and the answers that came in each window; latencies count from the sending.
    ///
    /// # Errors
    /// When a caller panicked.
    pub async fn run<S: Sender>(self, sender: &Arc<S>) -> Result<(Tally, Vec<u64>), Failure> {
        let counts = Arc::new(Mutex::new((Tally::new(), vec![0u64; self.windows])));
        let next = Arc::new(AtomicUsize::new(0));
        let start = Instant::now() + self.ramp;
        let windows = u32::try_from(self.windows)?;
        let end = start + self.window * windows;
        let mut tasks = JoinSet::new();
        for _ in 0..self.callers {
            let (sender, counts, next) = (Arc::clone(sender), Arc::clone(&counts), Arc::clone(&next));
            tasks.spawn(async move {
                while Instant::now() < end {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    let sent = Instant::now();
                    let answer = sender.send(turn).await;
                    let done = Instant::now();
                    let window = done.checked_duration_since(start).map(|after| after.div_duration_f64(self.window));
                    let (tally, answers) = &mut *lock(&counts);
                    tally.note_lag(Duration::ZERO);
                    note(tally, sender.as_ref(), turn, &answer, done - sent, window.is_some());
                    if let Some(count) = window.and_then(|at| answers.get_mut(at as usize)) {
                        *count += u64::from(answer.is_ok());
                    }
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended?;
        }
        let counts = lock(&counts).clone();
        Ok(counts)
    }
}

fn note<S: Sender>(
    tally: &mut Tally,
    sender: &S,
    turn: usize,
    answer: &Result<Bytes, Status>,
    took: Duration,
    within: bool,
) {
    match answer {
        Ok(answer) => {
            tally.note(Outcome::Ok, took, within);
            tally.changed += u64::from(!sender.as_before(turn, answer));
        }
        Err(status) => {
            let outcome = Outcome::of(status.code());
            tally.note(outcome, took, within);
            tally.unhinted += u64::from(outcome == Outcome::Refused && status.get_details_retry_info().is_none());
            if outcome == Outcome::Failed && tally.failure.is_none() {
                tally.failure = Some(format!("{:?}: {}", status.code(), status.message()));
            }
        }
    }
}

fn lock<T>(counts: &Mutex<T>) -> MutexGuard<'_, T> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrivals::poisson;

    /// Answers after a while; every tenth is refused.
    struct Slow(Duration);

    impl Sender for Slow {
        async fn send(&self, turn: usize) -> Result<Bytes, Status> {
            tokio::time::sleep(self.0).await;
            if turn % 10 == 9 { Err(Status::resource_exhausted("full")) } else { Ok(Bytes::from_static(b"yes")) }
        }

        fn as_before(&self, turn: usize, _: &Bytes) -> bool {
            turn != 3
        }
    }

    const WINDOW: Duration = Duration::from_millis(500);

    #[tokio::test(flavor = "multi_thread")]
    async fn an_open_loop_sends_what_is_due_and_does_not_wait() {
        let sender = Arc::new(Slow(Duration::from_millis(200)));
        let (tally, took) = open_loop(&sender, poisson(200.0, 0.5, 5), WINDOW, 1000).await.unwrap();
        assert_eq!((tally.issued(), tally.shed, tally.changed), (100, 0, 1));
        assert_eq!((tally.ok.count(), tally.refused.count(), tally.failed.count()), (90, 10, 0));
        assert_eq!(tally.unhinted, 10);
        assert!(tally.ok_within < 90, "the last were answered after the window");
        assert!(tally.ok.quantile_ms(0.5).unwrap() >= 200.0);
        assert!(took >= WINDOW);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_generator_that_is_full_sheds_and_counts() {
        let sender = Arc::new(Slow(Duration::from_secs(1)));
        let (tally, _) = open_loop(&sender, poisson(200.0, 0.5, 5), WINDOW, 7).await.unwrap();
        assert_eq!((tally.issued(), tally.shed), (7, 93));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_closed_loop_has_as_many_outstanding_as_callers() {
        let sender = Arc::new(Slow(Duration::from_millis(100)));
        let closed = Closed { callers: 3, ramp: WINDOW, windows: 2, window: WINDOW };
        let (tally, answers) = closed.run(&sender).await.unwrap();
        assert!((9..=48).contains(&tally.issued()), "{}", tally.issued());
        assert_eq!(answers.len(), 2);
        assert!(answers.iter().all(|count| (1..=18).contains(count)), "{answers:?}");
        assert_eq!(tally.ok.count() + tally.refused.count(), tally.issued());
    }
}
