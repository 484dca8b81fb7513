//! Threads for work on pixels: so many at a time, handed on in turn.
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

/// So many pieces of work at a time; clients take turns, and of one client's the oldest request goes first.
#[derive(Debug, Clone)]
pub struct Cores(Arc<Mutex<Queue>>);

#[derive(Debug)]
struct Queue {
    free: usize,
    /// Empty while a core is free.
    waiting: InTurn<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    turn: Turn,
    go: oneshot::Sender<Core>,
}

impl Waits for Waiter {
    fn turn(&self) -> &Turn {
        &self.turn
    }
    fn gone(&self) -> bool {
        // Whose own clock was first has left because it was late.
        self.go.is_closed() && Instant::now() < self.turn.deadline
    }
}

/// One core; goes to the next in turn when it is dropped.
#[derive(Debug)]
pub struct Core {
    /// `None` where it was handed on.
    cores: Option<Cores>,
}

/// The deadline passed while all cores were taken.
#[derive(Debug)]
pub struct Late;

impl Cores {
    pub fn new(number: usize) -> Self {
        Self(Arc::new(Mutex::new(Queue { free: number, waiting: InTurn::default() })))
    }

    /// Waits for a core. Dropping the future leaves the queue.
    pub async fn acquire(&self, turn: &Turn) -> Result<Core, Late> {
        let asked_at = Instant::now();
        let core = self.in_turn(turn).await?;
        Metrics::get().queued("core", turn.lane.as_str(), asked_at.elapsed());
        Ok(core)
    }

    async fn in_turn(&self, turn: &Turn) -> Result<Core, Late> {
        let asked = {
            let mut queue = self.lock();
            if queue.free > 0 {
                queue.free -= 1;
                return Ok(Core { cores: Some(self.clone()) });
            }
            // Who leaves is forgotten here at the latest: those who wait are never more than the requests that are let in.
            queue.sweep();
            let (go, asked) = oneshot::channel();
            queue.waiting.push(Waiter { turn: turn.clone(), go });
            asked
        };
        match tokio::time::timeout_at(turn.deadline.into(), asked).await {
            Ok(Ok(core)) => Ok(core),
            Ok(Err(_)) | Err(_) => Err(Late), // a sweep dropped it, or the clock was first
        }
    }

    /// Gives a core to the next who still waits for one; without any it is free.
    fn hand_on(&self) {
        loop {
            let next = {
                let mut queue = self.lock();
                queue.sweep();
                match queue.waiting.take(1, |_| true).pop() {
                    Some(next) => next,
                    None => {
                        queue.free += 1;
                        return;
                    }
                }
            };
            match next.go.send(Core { cores: Some(self.clone()) }) {
                Ok(()) => return,
                Err(mut core) => core.cores = None, // it left just now; still ours to give
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn sweep(&mut self) {
        let (mut late, mut gone) = (Vec::new(), Vec::new());
        self.waiting.sweep(Instant::now(), &mut late, &mut gone);
        for waiter in gone {
            Metrics::get().dropped("gone", "core", waiter.turn.lane.as_str());
        }
        for waiter in late {
            Metrics::get().dropped("late", "core", waiter.turn.lane.as_str());
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if let Some(cores) = self.cores.take() {
            cores.hand_on();
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
        let cores = Cores::new(1);
        let held = cores.acquire(&turn("flood", PATIENT)).await.unwrap();
        let (told, mut order) = tokio::sync::mpsc::channel(8);
        for (client, id) in [("flood", 1), ("flood", 2), ("flood", 3), ("shop", 4)] {
            let (cores, told, turn) = (cores.clone(), told.clone(), turn(client, PATIENT));
            tokio::spawn(async move {
                let _core = cores.acquire(&turn).await.unwrap();
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
        let cores = Cores::new(1);
        let held = cores.acquire(&turn("a", PATIENT)).await.unwrap();
        assert!(cores.acquire(&turn("b", Duration::from_millis(20))).await.is_err());
        let (cancelled, at) = (cores.clone(), turn("c", PATIENT));
        let leaves = tokio::spawn(async move { cancelled.acquire(&at).await.map(drop).map_err(drop) });
        tokio::task::yield_now().await;
        leaves.abort();
        assert!(leaves.await.unwrap_err().is_cancelled());
        drop(held);
        assert_eq!(cores.lock().free, 1);
        drop(cores.acquire(&turn("d", PATIENT)).await.unwrap());
        assert!(cores.lock().waiting.is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_core_is_lost_or_doubled_when_callers_come_and_go() {
        let (cores, working) = (Cores::new(2), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..64u64 {
            let (cores, working) = (cores.clone(), Arc::clone(&working));
            callers.spawn(async move {
                for i in 0..50u64 {
                    let turn = turn(&format!("c{}", caller % 5), PATIENT);
                    let work = async {
                        let _core = cores.acquire(&turn).await.unwrap();
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
