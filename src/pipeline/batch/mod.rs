//! The queue of a device: what waits, and what the next batch is.
//!
//! [`State`] is the brain, without threads or clocks of its own. [`Device`] is the shell: submitters push into the state under a
//! lock, and each thread that owns an executor takes a batch whenever it is free. No timer adds latency at low load.
//!
//! The next batch is formed when an executor is free and not before: that takes microseconds, and who comes while a batch runs is
//! in the next one. What is done ahead is the work on pixels: a view of an image queues ready to run, where the executor does not make
//! it itself.

mod again;
mod loss;
mod state;

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{oneshot, watch};
use vultus_engine::{
    executor::{Batching, Executor, Sight},
    input::InputSize,
    view::{Image, View},
};

use crate::{
    domain::{Lane, Turn, Waits},
    model::Role,
    telemetry::Metrics,
};
use again::Again;
pub use loss::{Condition, Replacement};
use state::{Entry, State};

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
    #[error("the device is lost: {0}")]
    Lost(String),
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
    sight: Arc<Sight>,
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
    condition: watch::Sender<Condition>,
    replacement: Option<Replacement>,
    /// Threads that own an executor.
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

struct Queue {
    /// `None` once the device has stopped.
    state: Option<State<Job>>,
    /// Executors that wait for a batch.
    idle: usize,
    /// How often others took the place of the executors: who was there before takes no batch any more.
    generation: u32,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // The state stays whole under a panic: no code of ours panics while it holds the lock half-way through a change.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<thread::JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No more jobs; those that wait learn that the device has stopped.
    fn close(&self) {
        self.condition.send_if_modified(|condition| {
            let ran = !matches!(condition, Condition::Lost(_) | Condition::Stopped);
            if ran {
                *condition = Condition::Stopped;
            }
            ran
        });
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
    sizes: [InputSize; Role::ALL.len()],
    makes_views: bool,
    limits: BatchLimits,
}

impl Device {
    /// Moves each executor into its own OS thread. They are alike: any of them may run any batch. `replacement` are others, for when their
    /// device is lost; without one it stops then.
    ///
    /// # Errors
    /// When there is no executor, or the system gives no thread.
    pub fn start(
        executors: Vec<Box<dyn Executor>>,
        limits: BatchLimits,
        replacement: Option<Replacement>,
    ) -> io::Result<Self> {
        let first = executors.first().ok_or_else(|| io::Error::other("expected an executor, got none"))?;
        let sizes = Role::ALL.map(|role| first.input_size(role.network()));
        let makes_views = first.makes_views();
        let queue = Mutex::new(Queue { state: Some(State::new(limits, executors.len())), idle: 0, generation: 0 });
        let (condition, threads) = (watch::Sender::new(Condition::Running), Mutex::default());
        let shared = Arc::new(Shared { queue, changed: Condvar::new(), condition, replacement, threads });
        let device = Self { shared, sizes, makes_views, limits };
        // Where this fails, dropping the device ends those that run.
        spawn(&device.shared, executors, 0)?;
        Ok(device)
    }

    /// The size that `role`'s network takes.
    pub fn input_size(&self, role: Role) -> InputSize {
        self.sizes[role as usize]
    }

    /// What is to be seen of an image. Work for a core, where the executors do not make views themselves.
    pub fn see(&self, image: &Arc<Image>, view: View) -> Sight {
        if self.makes_views { Sight::Of(Arc::clone(image), view) } else { Sight::made(image, &view) }
    }

    /// One at least.
    pub fn executors(&self) -> usize {
        self.shared.lock().state.as_ref().map_or(1, State::executors)
    }

    /// What it is fit for, and every change of it.
    pub fn condition(&self) -> watch::Receiver<Condition> {
        self.shared.condition.subscribe()
    }

    /// True until the device has failed or was stopped.
    pub fn is_running(&self) -> bool {
        self.shared.lock().state.is_some()
    }

    /// Runs one view, of exactly `role`'s size, in some batch. Dropping the future takes the job out of the queue.
    ///
    /// # Errors
    /// [`DeviceError::Full`] at once; the others when they happen.
    pub async fn run(&self, role: Role, sight: impl Into<Arc<Sight>>, turn: &Turn) -> Result<Output, DeviceError> {
        let (answer, outputs) = oneshot::channel();
        let job = Job { role, turn: turn.clone(), sight: sight.into(), queued_at: Instant::now(), answer };
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
        // A thread that replaces executors may add others, which end at once.
        while let Some(thread) = self.shared.threads().pop() {
            let _ = thread.join(); // its panic, if any, was logged when it happened
        }
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// A batch that is under way.
struct Begun {
    role: Role,
    jobs: Vec<Job>,
    at: Instant,
}

/// Moves each executor into a thread of its own.
fn spawn(shared: &Arc<Shared>, executors: Vec<Box<dyn Executor>>, generation: u32) -> io::Result<()> {
    for (index, executor) in executors.into_iter().enumerate() {
        let owner = Arc::clone(shared);
        let named = thread::Builder::new().name(format!("device-{index}"));
        let thread = named.spawn(move || own(executor, &owner, generation))?;
        shared.threads().push(thread);
    }
    Ok(())
}

/// The life of an executor's thread: as many batches under way as the executor can have.
fn own(mut executor: Box<dyn Executor>, shared: &Arc<Shared>, generation: u32) {
    executor.settle();
    let wants = Role::ALL.map(|role| executor.batching(role.network()));
    // Batches under way are of any networks: as many as each of these allows.
    let most = wants.iter().map(|wants| wants.in_flight).min().unwrap_or(1).max(1);
    let mut begun: VecDeque<Begun> = VecDeque::new();
    let mut again = Again::default();
    loop {
        // What a panic leaves of an executor is unknown: the device stops, the process goes on and says so.
        let stepped = catch_unwind(AssertUnwindSafe(|| {
            while begun.len() < most && again.lost.is_none() {
                let next = match again.next() {
                    Some(job) => Some(vec![job]),
                    None => take(shared, generation, &wants, begun.is_empty())?,
                };
                let Some(jobs) = next else { break };
                begun.extend(submit(executor.as_mut(), jobs, &mut again));
            }
            begun.pop_front().into_iter().for_each(|batch| complete(executor.as_mut(), batch, &mut again));
            Some(())
        }));
        if let Some(reason) = again.lost.take() {
            // An executor of a lost device is left alone: what it has under way never ends.
            let jobs = begun.into_iter().flat_map(|begun| begun.jobs).chain(again.jobs);
            jobs.for_each(|job| job.answer(Err(DeviceError::Lost(reason.clone()))));
            return loss::lose(shared, generation, executor, &reason);
        }
        match stepped {
            Ok(Some(())) => {}
            Ok(None) if shared.lock().generation != generation => return,
            Ok(None) => break,
            Err(_) => {
                tracing::error!("the device's executor panicked; the device stops");
                break;
            }
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

/// The next batch; waits for one if `wait`, and is `Some(None)` where there is none. `None` when the device is to stop.
fn take(shared: &Shared, generation: u32, wants: &[Batching; Role::ALL.len()], wait: bool) -> Option<Option<Vec<Job>>> {
    let taken = {
        let mut queue = shared.lock();
        loop {
            let takers = queue.idle + 1;
            let others = queue.generation != generation;
            match queue.state.as_mut().filter(|_| !others) {
                Some(state) if state.len() > 0 => {
                    let taken = state.take(Instant::now(), takers, wants);
                    note_depth(state);
                    break taken;
                }
                // What is under way is completed before the device stops.
                _ if !wait => return Some(None),
                Some(_) => {
                    queue.idle += 1;
                    queue = shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                    queue.idle -= 1;
                }
                None => return None,
            }
        }
    };
    drop_dead(taken.late, &taken.gone);
    Some(Some(taken.batch).filter(|batch| !batch.is_empty()))
}

fn submit(executor: &mut dyn Executor, jobs: Vec<Job>, again: &mut Again) -> Option<Begun> {
    let role = jobs.first()?.role;
    let sights: Vec<Arc<Sight>> = jobs.iter().map(|job| Arc::clone(&job.sight)).collect();
    Metrics::get().batch_images.with_label_values(&[role.as_str()]).observe(sights.len() as f64);
    let at = Instant::now();
    match executor.submit(role.network(), &sights) {
        Ok(()) => Some(Begun { role, jobs, at }),
        Err(error) => {
            again.fail(jobs, &error);
            None
        }
    }
}

fn complete(executor: &mut dyn Executor, Begun { role, jobs, at }: Begun, again: &mut Again) {
    let outputs = executor.complete();
    let ran = at.elapsed();
    Metrics::get().stage(role.as_str(), ran);
    match outputs {
        Ok(outputs) if outputs.iter().len() == jobs.len() => {
            for (job, values) in jobs.into_iter().zip(outputs.iter()) {
                let queued = at - job.queued_at;
                Metrics::get().queued("device", job.turn.lane.as_str(), queued);
                job.answer(Ok(Output { values: values.to_vec(), queued, ran }));
            }
        }
        Ok(outputs) => {
            let message = format!("{} outputs for {} images", outputs.iter().len(), jobs.len());
            jobs.into_iter().for_each(|job| job.answer(Err(DeviceError::Failed(message.clone()))));
        }
        Err(error) => again.fail(jobs, &error),
    }
}

fn note_depth(state: &State<Job>) {
    for (lane, depth) in Lane::ALL.iter().zip(state.depths()) {
        Metrics::get().queue_depth.with_label_values(&[lane.as_str()]).set(depth as i64);
    }
}

#[cfg(test)]
mod tests;
