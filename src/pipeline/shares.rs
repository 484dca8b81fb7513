//! What requests share, handed on in turn: threads for work on pixels, and room for pixels.
//!
//! Tokio's semaphore hands its permits on in the order of asking: one client's burst would keep everyone behind it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::oneshot;

use crate::{
    domain::{InTurn, Turn, Waits},
    telemetry::Metrics,
};

/// So much at a time; clients take turns, and of one client's the oldest request goes first.
#[derive(Debug, Clone)]
pub struct Shares(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The word for it in metrics.
    what: &'static str,
    all: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug)]
struct Queue {
    free: usize,
    /// Whoever is first wants more than is free.
    waiting: InTurn<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    turn: Turn,
    wanted: usize,
    go: oneshot::Sender<Share>,
}

impl Waits for Waiter {
    fn turn(&self) -> &Turn {
        &self.turn
    }
    fn gone(&self) -> bool {
        // One that left after its deadline counts as late, not as gone.
        self.go.is_closed() && Instant::now() < self.turn.deadline
    }
}

/// Goes to the next in turn when it is dropped.
#[derive(Debug)]
pub struct Share {
    /// `None` where it was handed on.
    of: Option<Shares>,
    size: usize,
}

/// The deadline passed while others had it.
#[derive(Debug)]
pub struct Late;

impl Shares {
    /// `what` it is, for metrics, and how much.
    pub fn new(what: &'static str, all: usize) -> Self {
        let queue = Mutex::new(Queue { free: all, waiting: InTurn::default() });
        Self(Arc::new(Inner { what, all, queue }))
    }

    /// Waits for so much; for all, where that is less. Dropping the future leaves the queue.
    pub async fn acquire(&self, wanted: usize, turn: &Turn) -> Result<Share, Late> {
        let asked_at = Instant::now();
        let share = self.in_turn(wanted.min(self.0.all), turn).await?;
        Metrics::get().queued(self.0.what, turn.lane.as_str(), asked_at.elapsed());
        Ok(share)
    }

    async fn in_turn(&self, wanted: usize, turn: &Turn) -> Result<Share, Late> {
        let asked = {
            let mut queue = self.lock();
            // Who leaves is forgotten here at the latest: those who wait are never more than the requests that are let in.
            self.sweep(&mut queue);
            if queue.waiting.is_empty() && queue.free >= wanted {
                queue.free -= wanted;
                return Ok(Share { of: Some(self.clone()), size: wanted });
            }
            let (go, asked) = oneshot::channel();
            queue.waiting.push(Waiter { turn: turn.clone(), wanted, go });
            asked
        };
        // Who was first, and left, may have been all that kept others.
        self.hand_on(0);
        match tokio::time::timeout_at(turn.deadline.into(), asked).await {
            Ok(Ok(share)) => Ok(share),
            Ok(Err(_)) | Err(_) => Err(Late), // a sweep dropped it, or the clock was first
        }
    }

    /// Gives back `size`; then gives who is first in turn what it waits for, as long as there is enough.
    fn hand_on(&self, size: usize) {
        let mut back = size;
        loop {
            let next = {
                let mut queue = self.lock();
                queue.free += std::mem::take(&mut back);
                self.sweep(&mut queue);
                let enough = queue.waiting.first().is_some_and(|first| first.wanted <= queue.free);
                let Some(next) = enough.then(|| queue.waiting.take(1, |_| true).pop()).flatten() else { return };
                queue.free -= next.wanted;
                next
            };
            if let Err(mut share) = next.go.send(Share { of: Some(self.clone()), size: next.wanted }) {
                share.of = None; // it left just now
                back = share.size;
            }
        }
    }

    fn sweep(&self, queue: &mut Queue) {
        let (mut late, mut gone) = (Vec::new(), Vec::new());
        queue.waiting.sweep(Instant::now(), &mut late, &mut gone);
        for (reason, left) in [("gone", gone), ("late", late)] {
            left.iter().for_each(|waiter| Metrics::get().dropped(reason, self.0.what, waiter.turn.lane.as_str()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(shares) = self.of.take() {
            shares.hand_on(self.size);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::{ClientId, Lane};

    fn turn(client: &str, patience: Duration) -> Turn {
        Turn::of(&ClientId::new(client).unwrap(), Lane::Verification, Instant::now() + patience)
    }

    const PATIENT: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn cores_go_from_client_to_client() {
        let cores = Shares::new("core", 1);
        let held = cores.acquire(1, &turn("flood", PATIENT)).await.unwrap();
        let (told, mut order) = tokio::sync::mpsc::channel(8);
        for (client, id) in [("flood", 1), ("flood", 2), ("flood", 3), ("shop", 4)] {
            let (cores, told, turn) = (cores.clone(), told.clone(), turn(client, PATIENT));
            tokio::spawn(async move {
                let _core = cores.acquire(1, &turn).await.unwrap();
                told.send(id).await.unwrap();
            });
            tokio::task::yield_now().await;
        }
        drop(held);
        let mut got = Vec::new();
        for _ in 0..4 {
            got.push(order.recv().await.unwrap());
        }
        assert_eq!(got, [1, 4, 2, 3]);
    }

    #[tokio::test]
    async fn who_is_late_or_leaves_gets_none_and_keeps_none() {
        let cores = Shares::new("core", 1);
        let held = cores.acquire(1, &turn("a", PATIENT)).await.unwrap();
        assert!(cores.acquire(1, &turn("b", Duration::from_millis(20))).await.is_err());
        let (cancelled, at) = (cores.clone(), turn("c", PATIENT));
        let leaves = tokio::spawn(async move { cancelled.acquire(1, &at).await.map(drop).map_err(drop) });
        tokio::task::yield_now().await;
        leaves.abort();
        assert!(leaves.await.unwrap_err().is_cancelled());
        drop(held);
        assert_eq!(cores.lock().free, 1);
        drop(cores.acquire(1, &turn("d", PATIENT)).await.unwrap());
        assert!(cores.lock().waiting.is_empty());
    }

    #[tokio::test]
    async fn who_wants_much_is_not_passed_by_for_ever() {
        let room = Shares::new("pixels", 10);
        let held = room.acquire(8, &turn("a", PATIENT)).await.unwrap();
        let (told, mut order) = tokio::sync::mpsc::channel(8);
        for (client, wanted) in [("large", 100), ("small", 1), ("small", 2)] {
            let (room, told, turn) = (room.clone(), told.clone(), turn(client, PATIENT));
            tokio::spawn(async move {
                let share = room.acquire(wanted, &turn).await.unwrap();
                told.send(share.size).await.unwrap();
            });
            tokio::task::yield_now().await;
        }
        assert!(order.try_recv().is_err(), "2 are free, and the first wants all");
        drop(held);
        let mut got = Vec::new();
        for _ in 0..3 {
            got.push(order.recv().await.unwrap());
        }
        assert_eq!(got, [10, 1, 2], "no more than there is, and then the others");
        assert_eq!(room.lock().free, 10);
    }

    #[tokio::test]
    async fn who_is_first_and_leaves_keeps_nobody() {
        let room = Shares::new("pixels", 10);
        let _held = room.acquire(8, &turn("a", PATIENT)).await.unwrap();
        let large = tokio::time::timeout(Duration::from_millis(20), room.acquire(5, &turn("b", PATIENT))).await;
        assert!(large.is_err());
        assert!(tokio::time::timeout(Duration::from_secs(5), room.acquire(2, &turn("c", PATIENT))).await.is_ok());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_core_is_lost_or_doubled_when_callers_come_and_go() {
        let (cores, working) = (Shares::new("core", 2), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..64u64 {
            let (cores, working) = (cores.clone(), Arc::clone(&working));
            callers.spawn(async move {
                for i in 0..50u64 {
                    let turn = turn(&format!("c{}", caller % 5), PATIENT);
                    let work = async {
                        let _core = cores.acquire(1, &turn).await.unwrap();
                        let now = working.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        assert!(now < 2, "{now} others at work");
                        std::thread::sleep(Duration::from_micros(20));
                        working.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    };
                    // Some leave before it is their turn.
                    let patience = Duration::from_micros((caller * 37 + i * 101) % 3000);
                    let _ = tokio::time::timeout(patience, work).await; // either way
                }
            });
        }
        while let Some(ended) = callers.join_next().await {
            ended.unwrap();
        }
        let queue = cores.lock();
        assert_eq!((queue.free, queue.waiting.len()), (2, 0));
    }
}
