//! Two runtimes: threads of the usual priority for verifications, and threads that run when a core is idle for all else. A flood of
//! searches or enrolments gets the cores when no customer waits for a decision. The system's scheduler does what a queue of ours
//! could not: it takes a core back in the middle of the work.

use std::{future::Future, io, pin::Pin, sync::Arc};

use tokio::{
    runtime::{self, Handle},
    task::JoinHandle,
};

use crate::{domain::Lane, priority::run_when_idle};

/// Of the threads that work is done on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    Usual,
    /// On cores that nobody else wants.
    WhenIdle,
}

impl Priority {
    pub const ALL: [Self; 2] = [Self::Usual, Self::WhenIdle];

    pub const fn of(lane: Lane) -> Self {
        match lane {
            Lane::Verification => Self::Usual,
            Lane::Identification | Lane::Enrolment => Self::WhenIdle,
        }
    }
}

/// The runtime of the caller, and one of its own with threads of a lower priority.
#[derive(Debug, Clone)]
pub struct Runtimes {
    usual: Handle,
    background: Arc<Background>,
}

#[derive(Debug)]
struct Background {
    /// `None` while it is dropped.
    runtime: Option<runtime::Runtime>,
    handle: Handle,
}

impl Drop for Background {
    /// Without waiting for what still runs: the drain has waited for what is owed.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Runtimes {
    /// To be called on the runtime of the usual priority.
    ///
    /// # Errors
    /// Where there is none, or when the system gives no threads.
    pub fn start() -> io::Result<Self> {
        let usual = Handle::try_current().map_err(io::Error::other)?;
        let lower = || {
            // The work is then done at the usual priority.
            if let Err(error) = run_when_idle() {
                tracing::warn!(%error, "a thread keeps the usual priority");
            }
        };
        let runtime = runtime::Builder::new_multi_thread()
            .thread_name("background")
            .on_thread_start(lower)
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        Ok(Self { usual, background: Arc::new(Background { runtime: Some(runtime), handle }) })
    }

    pub fn of(&self, priority: Priority) -> &Handle {
        match priority {
            Priority::Usual => &self.usual,
            Priority::WhenIdle => &self.background.handle,
        }
    }

    /// Does the work at the priority; dropping the future ends it.
    ///
    /// # Panics
    /// Where the work does: its caller's connection is then no better off than if it had been done there.
    pub fn run<T: Send + 'static>(
        &self,
        priority: Priority,
        work: impl Future<Output = T> + Send + 'static,
    ) -> BoxFuture<T> {
        let there = self.of(priority);
        if Handle::try_current().is_ok_and(|here| here.id() == there.id()) {
            return Box::pin(work);
        }
        let mut task = AbortOnDrop(there.spawn(work));
        Box::pin(async move {
            match (&mut task.0).await {
                Ok(answer) => answer,
                Err(broken) if broken.is_panic() => std::panic::resume_unwind(broken.into_panic()),
                // The runtime has been shut down, and with it the server: nobody is left to be answered.
                Err(_) => std::future::pending().await,
            }
        })
    }
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;

    /// The calling thread's policy, from the system's own books.
    fn policy() -> i32 {
        let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
        let after_name = stat.rsplit_once(')').unwrap().1;
        after_name.split_whitespace().nth(38).unwrap().parse().unwrap()
    }

    /// Of the work and of what it hands to a thread that may block.
    async fn policies() -> (i32, i32) {
        (policy(), tokio::task::spawn_blocking(policy).await.unwrap())
    }

    #[tokio::test]
    async fn what_is_not_urgent_runs_at_a_lower_priority_also_where_it_blocks() {
        let runtimes = Runtimes::start().unwrap();
        let (usual, idle) = ((libc::SCHED_OTHER, libc::SCHED_OTHER), (libc::SCHED_IDLE, libc::SCHED_IDLE));
        for lane in Lane::ALL {
            let expected = if lane == Lane::Verification { usual } else { idle };
            assert_eq!(runtimes.run(Priority::of(lane), policies()).await, expected, "{lane:?}");
            // And so it is for what comes over a connection that is served there.
            let there = runtimes.clone();
            let back = runtimes.run(Priority::WhenIdle, async move { there.run(Priority::of(lane), policies()).await });
            assert_eq!(back.await, expected, "{lane:?}");
        }
        assert_eq!(policies().await, usual);
    }

    #[tokio::test]
    async fn work_ends_with_its_caller() {
        let runtimes = Runtimes::start().unwrap();
        let (alive, mut gone) = tokio::sync::oneshot::channel::<()>();
        let work = runtimes.run(Priority::WhenIdle, async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        assert!(tokio::time::timeout(Duration::from_millis(20), work).await.is_err());
        let told = tokio::time::timeout(Duration::from_secs(10), &mut gone).await;
        assert!(told.is_ok_and(|told| told.is_err()), "the work goes on for nobody");
    }
}
