//! The queue of a device: what waits, and what the next batch is.
//!
//! [`State`] is the brain, without threads or clocks of its own. [`Device`] is the shell: submitters push into the state under a
//! lock, and each thread that owns an executor takes a batch whenever it is free. No timer adds latency at low load.
//!
//! The next batch is formed when an executor is free and not before: that takes microseconds, and who comes while a batch runs is
//! in the next one. What is done ahead is the work on pixels: an image queues at its network's size, ready to run.

mod state;

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use state::{Entry, State, Taken};

use crate::{
    domain::{Lane, Pixels, Turn, Waits},
    model::{Executor, InputSize, Role},
    telemetry::Metrics,
};

/// How much may wait, and how much runs at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Jobs that may wait for the device, all lanes together. More are refused at once.
    pub queue_depth: usize,
    /// Images in a batch at most. It is smaller where the executor gains nothing by more, as a core does by few: a GPU wants many.
    pub batch_images: usize,
    /// Every so many batches a lane after verification goes first, so that none is starved for ever.
    pub yield_every: u32,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { queue_depth: 1024, batch_images: 32, yield_every: 8 }
    }
}

/// Why a job has no outputs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    #[error("the queue is full: {limit} jobs wait already")]
    Full { limit: usize },
    #[error("the deadline passed before the device was free")]
    Late,
    #[error("the device failed: {0}")]
    Failed(String),
    #[error("the device has stopped")]
    Stopped,
}

/// Outputs of one image, and how long it waited and ran.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    pub values: Vec<f32>,
    pub queued: Duration,
    /// The batch that it was in.
    pub ran: Duration,
}

struct Job {
    role: Role,
    turn: Turn,
    image: Pixels,
    queued_at: Instant,
    answer: oneshot::Sender<Result<Output, DeviceError>>,
}

impl Entry for Job {
    fn role(&self) -> Role {
        self.role
    }
}

impl Waits for Job {
    fn turn(&self) -> &Turn {
        &self.turn
    }
    fn gone(&self) -> bool {
        self.answer.is_closed()
    }
}

impl Job {
    fn answer(self, result: Result<Output, DeviceError>) {
        // A receiver that has gone meanwhile wants no answer.
        let _ = self.answer.send(result);
    }
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

struct Queue {
    /// `None` once the device has stopped.
    state: Option<State<Job>>,
    /// Executors that wait for a batch.
    idle: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // The state stays whole under a panic: no code of ours panics while it holds the lock half-way through a change.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No more jobs; those that wait learn that the device has stopped.
    fn close(&self) {
        let state = self.lock().state.take();
        self.changed.notify_all();
        for job in state.into_iter().flat_map(State::into_jobs) {
            job.answer(Err(DeviceError::Stopped));
        }
    }
}

/// A device that takes jobs. Dropping it stops the threads after the batches that run.
pub struct Device {
    shared: Arc<Shared>,
    sizes: [InputSize; 3],
    limits: BatchLimits,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Device {
    /// Moves each executor into its own OS thread. They are alike: any of them may run any batch.
    ///
    /// # Errors
    /// When there is no executor, or the system gives no thread.
    pub fn start(executors: Vec<Box<dyn Executor>>, limits: BatchLimits) -> io::Result<Self> {
        let first = executors.first().ok_or_else(|| io::Error::other("expected an executor, got none"))?;
        let sizes = Role::ALL.map(|role| first.input_size(role));
        let queue = Mutex::new(Queue { state: Some(State::new(limits, executors.len())), idle: 0 });
        let shared = Arc::new(Shared { queue, changed: Condvar::new() });
        let mut device = Self { shared, sizes, limits, threads: Vec::new() };
        for (index, executor) in executors.into_iter().enumerate() {
            let shared = Arc::clone(&device.shared);
            let name = format!("device-{index}");
            // Where this fails, dropping the device ends those before it.
            device.threads.push(thread::Builder::new().name(name).spawn(move || own(executor, &shared))?);
        }
        Ok(device)
    }

    /// The size that `role`'s network takes.
    pub fn input_size(&self, role: Role) -> InputSize {
        self.sizes[role as usize]
    }

    /// One at least.
    pub fn executors(&self) -> usize {
        self.threads.len()
    }

    /// True until the device has failed or was stopped.
    pub fn is_running(&self) -> bool {
        self.shared.lock().state.is_some()
    }

    /// Runs one image, of exactly `role`'s size, in some batch. Dropping the future takes the job out of the queue.
    ///
    /// # Errors
    /// [`DeviceError::Full`] at once; the others when they happen.
    pub async fn run(&self, role: Role, image: Pixels, turn: &Turn) -> Result<Output, DeviceError> {
        let (answer, outputs) = oneshot::channel();
        let job = Job { role, turn: turn.clone(), image, queued_at: Instant::now(), answer };
        let mut dead = None;
        let pushed = {
            let mut queue = self.shared.lock();
            let state = queue.state.as_mut().ok_or(DeviceError::Stopped)?;
            let pushed = state.push(job).or_else(|job| {
                dead = Some(state.sweep(Instant::now()));
                state.push(job)
            });
            note_depth(state);
            pushed
        };
        // Images are wiped when they are dropped, which nobody should wait for.
        dead.into_iter().for_each(|dead| drop_dead(dead.late, &dead.gone));
        if pushed.is_err() {
            Metrics::get().dropped("full", "device", turn.lane.as_str());
            return Err(DeviceError::Full { limit: self.limits.queue_depth });
        }
        self.shared.changed.notify_one();
        outputs.await.unwrap_or(Err(DeviceError::Stopped))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.shared.close();
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // its panic, if any, was logged when it happened
        }
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The life of an executor's thread.
fn own(mut executor: Box<dyn Executor>, shared: &Shared) {
    executor.settle();
    while let Some(taken) = wait_for_batch(shared, |role| executor.gains_up_to(role)) {
        drop_dead(taken.late, &taken.gone);
        if taken.batch.is_empty() {
            continue;
        }
        // What a panic leaves of an executor is unknown: the device stops, the process goes on and says so.
        let ran = catch_unwind(AssertUnwindSafe(|| run_batch(executor.as_mut(), taken.batch, taken.resting)));
        if ran.is_err() {
            tracing::error!("the device's executor panicked; the device stops");
            break;
        }
    }
    shared.close();
}

/// Counts who left the queue without work, and tells the late.
fn drop_dead(late: Vec<Job>, gone: &[Job]) {
    gone.iter().for_each(|job| Metrics::get().dropped("gone", "device", job.turn.lane.as_str()));
    late.iter().for_each(|job| Metrics::get().dropped("late", "device", job.turn.lane.as_str()));
    late.into_iter().for_each(|job| job.answer(Err(DeviceError::Late)));
}

/// Sleeps until there is something to take; `None` when the device is to stop.
fn wait_for_batch(shared: &Shared, gains_up_to: impl Fn(Role) -> usize) -> Option<Taken<Job>> {
    let mut queue = shared.lock();
    loop {
        let takers = queue.idle + 1;
        let state = queue.state.as_mut()?;
        if state.len() > 0 {
            let taken = state.take(Instant::now(), takers, gains_up_to);
            note_depth(state);
            return Some(taken);
        }
        queue.idle += 1;
        queue = shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        queue.idle -= 1;
    }
}

/// Runs a batch; if it fails, runs each of its images alone, so that a bad one fails alone.
fn run_batch(executor: &mut dyn Executor, batch: Vec<Job>, resting: usize) {
    let Some(role) = batch.first().map(|job| job.role) else { return };
    let started = Instant::now();
    let images: Vec<&Pixels> = batch.iter().map(|job| &job.image).collect();
    Metrics::get().batch_images.with_label_values(&[role.as_str()]).observe(images.len() as f64);
    let outputs = executor.run_helped(role, &images, resting);
    let ran = started.elapsed();
    Metrics::get().stage(role.as_str(), ran);
    match outputs {
        Ok(outputs) if outputs.len() == batch.len() => {
            for (job, values) in batch.into_iter().zip(outputs) {
                let queued = started - job.queued_at;
                Metrics::get().queued("device", job.turn.lane.as_str(), queued);
                job.answer(Ok(Output { values, queued, ran }));
            }
        }
        Ok(outputs) => {
            let message = format!("{} outputs for {} images", outputs.len(), batch.len());
            batch.into_iter().for_each(|job| job.answer(Err(DeviceError::Failed(message.clone()))));
        }
        Err(error) if batch.len() == 1 => {
            tracing::warn!(role = role.as_str(), %error, "an image failed on the device");
            batch.into_iter().for_each(|job| job.answer(Err(DeviceError::Failed(error.to_string()))));
        }
        Err(_) => batch.into_iter().for_each(|job| run_batch(executor, vec![job], resting)),
    }
}

fn note_depth(state: &State<Job>) {
    for (lane, depth) in Lane::ALL.iter().zip(state.depths()) {
        Metrics::get().queue_depth.with_label_values(&[lane.as_str()]).set(depth as i64);
    }
}

#[cfg(test)]
mod tests;
