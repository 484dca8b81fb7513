//! What becomes of the queue when a device is lost.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use vultus_engine::executor::Executor;

use super::{Shared, spawn};
use crate::telemetry::Metrics;

/// What a device is fit for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// It takes batches. Whoever hears so again after a loss has others before it, which are to be tested.
    Running,
    /// It is lost; others are made in its place, and what queues waits for them.
    Replacing,
    /// It is lost, and how; nothing takes its place.
    Lost(String),
    /// It was told to stop, or has failed.
    Stopped,
}

/// Executors, or a sentence.
pub type Made = Result<Vec<Box<dyn Executor>>, String>;

/// Makes executors in place of lost ones, for the same networks.
#[derive(Clone)]
pub struct Replacement(Arc<dyn Fn() -> Made + Send + Sync>);

impl fmt::Debug for Replacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Replacement")
    }
}

impl Replacement {
    pub fn new(make: impl Fn() -> Made + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }
}

/// The first of the executors that tells of the loss replaces them all, or closes the queue; its thread ends.
pub(super) fn lose(shared: &Arc<Shared>, generation: u32, executor: Box<dyn Executor>, reason: &str) {
    let next = generation + 1;
    {
        let mut queue = shared.lock();
        if queue.generation != generation {
            return;
        }
        // The others of the device take no batch any more.
        queue.generation = next;
    }
    shared.changed.notify_all();
    let lost = || Condition::Lost(reason.to_owned());
    become_unless_stopped(shared, if shared.replacement.is_some() { Condition::Replacing } else { lost() });
    Metrics::get().devices_lost_total.inc();
    tracing::error!(reason, "the device is lost");
    let Some(Replacement(make)) = &shared.replacement else { return shared.close() };
    // What the old one holds goes before others take as much. Whoever waits is told whatever happens here.
    let made = catch_unwind(AssertUnwindSafe(|| {
        drop(executor);
        make()
    }));
    let replaced = made.unwrap_or_else(|_| Err("making them panicked".to_owned())).and_then(|executors| {
        let count = executors.len();
        if let Some(state) = shared.lock().state.as_mut() {
            state.set_executors(count.max(1));
        }
        spawn(shared, executors, next).map_err(|e| e.to_string()).map(|()| count)
    });
    match replaced {
        Ok(executors) if executors > 0 => {
            tracing::warn!(executors, "others take the place of the lost device");
            become_unless_stopped(shared, Condition::Running);
        }
        other => {
            let error = other.err().unwrap_or_else(|| "there are none".to_owned());
            tracing::error!(%error, "nothing takes the place of the lost device");
            become_unless_stopped(shared, lost());
            shared.close();
        }
    }
}

fn become_unless_stopped(shared: &Shared, next: Condition) {
    shared.condition.send_if_modified(|condition| {
        let changes = *condition != Condition::Stopped;
        if changes {
            *condition = next;
        }
        changes
    });
}
