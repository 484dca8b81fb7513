//! Threads of a lower priority, for all that is no verification: a flood of searches or enrolments gets the cores when no customer
//! waits for a decision. The system's scheduler does what a queue of ours could not: it takes a core back in the middle of the work.

use std::{future::Future, io, pin::Pin, sync::Arc};

use tokio::{runtime, task::JoinHandle};

use super::priority::run_when_idle;
use crate::domain::Lane;

/// A runtime of its own, with threads of a lower priority.
#[derive(Debug, Clone)]
pub struct Background(Arc<Threads>);

#[derive(Debug)]
struct Threads(Option<runtime::Runtime>);

impl Drop for Threads {
    /// Without waiting for what still runs: the drain has waited for what is owed.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Background {
    /// # Errors
    /// When the system gives no threads.
    pub fn start() -> io::Result<Self> {
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
        Ok(Self(Arc::new(Threads(Some(runtime)))))
    }

    /// For the lanes that are not urgent.
    pub fn of(&self, lane: Lane) -> Option<&Self> {
        match lane {
            Lane::Verification => None,
            Lane::Identification | Lane::Enrolment => Some(self),
        }
    }

    /// Runs the work there; dropping the future ends it.
    ///
    /// # Panics
    /// Where the work does: its caller's connection is then no better off than if it had run there.
    pub fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> BoxFuture<T> {
        let task = self.0.0.as_ref().map(|runtime| AbortOnDrop(runtime.spawn(work)));
        Box::pin(async move {
            match task {
                Some(mut task) => match (&mut task.0).await {
                    Ok(answer) => answer,
                    Err(broken) if broken.is_panic() => std::panic::resume_unwind(broken.into_panic()),
                    // The runtime has been shut down, and with it the server: nobody is left to be answered.
                    Err(_) => std::future::pending().await,
                },
                None => std::future::pending().await, // as above
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

    #[tokio::test]
    async fn what_is_not_urgent_runs_at_a_lower_priority_also_where_it_blocks() {
        let usual = policy();
        let background = Background::start().unwrap();
        assert!(background.of(Lane::Verification).is_none());
        for lane in [Lane::Identification, Lane::Enrolment] {
            let on = background.of(lane).unwrap();
            let (own, blocking) =
                on.run(async { (policy(), tokio::task::spawn_blocking(policy).await.unwrap()) }).await;
            assert_eq!((own, blocking), (libc::SCHED_IDLE, libc::SCHED_IDLE), "{lane:?}");
        }
        assert_eq!((policy(), usual), (libc::SCHED_OTHER, libc::SCHED_OTHER));
    }

    #[tokio::test]
    async fn work_ends_with_its_caller() {
        let background = Background::start().unwrap();
        let (alive, mut gone) = tokio::sync::oneshot::channel::<()>();
        let work = background.run(async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        assert!(tokio::time::timeout(Duration::from_millis(20), work).await.is_err());
        let told = tokio::time::timeout(Duration::from_secs(10), &mut gone).await;
        assert!(told.is_ok_and(|told| told.is_err()), "the work goes on for nobody");
    }
}
