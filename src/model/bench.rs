//! How fast a network runs.

use std::{
    fs,
    num::NonZeroUsize,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;
use vultus_engine::{
    cpu::{ceiling, instructions},
    device::DeviceChoice,
    executor::{Batching, ExecuteError, Executor, NetworkId, Sight},
    image::Pixels,
    input::InputSize,
    parity::noise,
    plan::Plan,
    precision::Precision,
};

use super::{
    bare::{Bare, BareError},
    role::Role,
    set::{ModelSet, OpenError},
};

/// Images of the kind that is measured with, from which int8 takes the activation ranges of a file alone.
const CALIBRATION_IMAGES: u32 = 4;

/// How often a batch follows the one before it, where an executor has several under way.
const ROUNDS: usize = 8;
/// Batches alone that are measured, at most, and within which time.
const ALONE: usize = 31;
const ALONE_WITHIN: Duration = Duration::from_secs(1);

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Bare(#[from] BareError),
    #[error(transparent)]
    Execute(#[from] ExecuteError),
}

/// Faces that went through the network each second, as many batches under way as the executor takes; decoding and alignment not counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchEmbed {
    pub faces_per_s: f64,
    /// From begin to end of a batch with nothing else under way, the median.
    pub batch_ms: f64,
    pub batch: usize,
    pub precision: &'static str,
    /// The instruction set that was taken.
    pub isa: &'static str,
    pub threads: usize,
    pub model: String,
    pub device: String,
    /// Multiplications and additions of the network as it is written, 10⁹ a second.
    pub gflop_per_s: f64,
    /// What the threads can do in this precision at most (its instructions on registers alone, measured right after),
    /// and the share of it. Winograd's algorithm needs fewer products than are written, so that the share can be above
    /// 1.
    pub ceiling_gflop_per_s: f64,
    pub share_of_ceiling: f64,
    /// Of a file alone.
    #[serde(flatten)]
    pub file: Option<BenchFile>,
}

/// What is known of a network in a file besides.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchFile {
    /// Reading, checking, planning, packing.
    pub open_s: f64,
    pub gflop_per_face: f64,
    /// Of its weights as f32.
    pub weight_bytes: usize,
    /// The most that the process ever held in memory; `None` where the system does not say.
    pub peak_bytes: Option<u64>,
}

/// Runs batches of pseudo-random pixels through the face network for at least `duration`, after one that warms up. The
/// precision is the card's where none is given.
pub fn bench_embed(
    set: &ModelSet,
    precision: Option<Precision>,
    device: DeviceChoice,
    batch: NonZeroUsize,
    threads: NonZeroUsize,
    duration: Duration,
) -> Result<BenchEmbed, BenchError> {
    let precision = precision.unwrap_or(set.card().precision);
    let mut bare = BareLoop::of(set.executor_in(precision, device, threads)?, batch);
    let faces_per_s = bare.faces_per_s(&[Role::Embed], duration)?;
    let bundle = set.bundle(Role::Embed);
    let plan = Plan::new(bundle.graph(), bundle.weights())
        .map_err(|e| OpenError::Network { role: Role::Embed, source: e.into() })?;
    let gflop_per_face = plan.flops() as f64 / 1e9;
    let model = set.card().name.clone();
    let batch_ms = bare.batch_ms(Role::Embed)?;
    Ok(BenchEmbed::new(model, device, precision, batch, threads, [faces_per_s, batch_ms], gflop_per_face))
}

/// The same for the network in an ONNX file, to its `output`. A device is named, or it is the CPU.
pub fn bench_file(
    path: &Path,
    output: Option<&str>,
    precision: Precision,
    device: DeviceChoice,
    batch: NonZeroUsize,
    threads: NonZeroUsize,
    duration: Duration,
) -> Result<BenchEmbed, BenchError> {
    let start = Instant::now();
    let bare = Bare::open(path, output).map_err(BareError::from)?;
    let size = InputSize { width: bare.input.width, height: bare.input.height };
    let device = if device == DeviceChoice::Auto { DeviceChoice::Cpu } else { device };
    let weight_bytes = 4 * bare.weights.iter().map(|(_, w)| w.values().len()).sum::<usize>();
    let seen: Vec<Pixels> = (0..CALIBRATION_IMAGES).filter_map(|seed| noise(size, seed)).collect();
    let seen: Vec<&Pixels> = seen.iter().collect();
    let (mut executor, flops) = bare.into_executor(precision, device, threads, &seen).map_err(BareError::from)?;
    let open_s = start.elapsed().as_secs_f64();
    let images: Vec<_> =
        (0..batch.get()).filter_map(|seed| noise(size, seed as u32)).map(Sight::Made).map(Arc::new).collect();
    executor.settle();
    let faces_per_s = per_s(duration, || batches(executor.as_mut(), NetworkId(0), &images))?;
    let batch_ms = alone_ms(executor.as_mut(), NetworkId(0), &images)?;
    let gflop_per_face = flops as f64 / 1e9;
    let file = BenchFile { open_s, gflop_per_face, weight_bytes, peak_bytes: peak_bytes() };
    let model = path.display().to_string();
    let bench = BenchEmbed::new(model, device, precision, batch, threads, [faces_per_s, batch_ms], gflop_per_face);
    Ok(BenchEmbed { file: Some(file), ..bench })
}

impl BenchEmbed {
    /// Measures the ceiling beside it.
    fn new(
        model: String,
        device: DeviceChoice,
        precision: Precision,
        batch: NonZeroUsize,
        threads: NonZeroUsize,
        [faces_per_s, batch_ms]: [f64; 2],
        gflop_per_face: f64,
    ) -> Self {
        let gflop_per_s = gflop_per_face * faces_per_s;
        let ceiling_gflop_per_s = ceiling(precision, threads) / 1e9;
        Self {
            faces_per_s,
            batch_ms,
            batch: batch.get(),
            precision: precision.as_str(),
            isa: instructions(),
            threads: threads.get(),
            model,
            device: device.to_string(),
            gflop_per_s,
            ceiling_gflop_per_s,
            share_of_ceiling: gflop_per_s / ceiling_gflop_per_s,
            file: None,
        }
    }
}

/// Networks and nothing else: each executor runs one batch after the other, without queue, decoding or alignment.
pub struct BareLoop {
    executors: Vec<Box<dyn Executor>>,
    /// A batch for each role, in [`Role::ALL`]'s order.
    images: [Vec<Arc<Sight>>; Role::ALL.len()],
}

impl BareLoop {
    /// `images` are a batch for each role, in [`Role::ALL`]'s order, each of its network's size.
    pub fn new(executors: Vec<Box<dyn Executor>>, images: [Vec<Pixels>; Role::ALL.len()]) -> Self {
        let images = images.map(|images| images.into_iter().map(|image| Arc::new(Sight::Made(image))).collect());
        Self { executors, images }
    }

    fn of(executor: Box<dyn Executor>, batch: NonZeroUsize) -> Self {
        let images = Role::ALL.map(|role| {
            let size = executor.input_size(role.network());
            (0..batch.get()).filter_map(|seed| noise(size, seed as u32)).collect()
        });
        Self::new(vec![executor], images)
    }

    /// The median time of a batch of a role's network that has the first executor for itself, ms.
    fn batch_ms(&mut self, role: Role) -> Result<f64, ExecuteError> {
        let none = || ExecuteError::Device("no executor".into());
        let executor = self.executors.first_mut().ok_or_else(none)?;
        alone_ms(executor.as_mut(), role.network(), &self.images[role as usize])
    }

    /// Faces a second of all executors together, each face through the networks of all `roles`, for at least `duration` after a batch
    /// that warms up. An executor has a thread of its own, and waits for no other.
    pub fn faces_per_s(&mut self, roles: &[Role], duration: Duration) -> Result<f64, ExecuteError> {
        let images = &self.images;
        thread::scope(|scope| {
            let measure = |executor: &mut Box<dyn Executor>| {
                executor.settle();
                per_s(duration, || batch(executor.as_mut(), roles, images))
            };
            let threads: Vec<_> =
                self.executors.iter_mut().map(|executor| scope.spawn(move || measure(executor))).collect();
            let panicked = || Err(ExecuteError::Device("a thread of the measurement panicked".into()));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| panicked())).sum()
        })
    }
}

/// The number of faces that went through the networks of all `roles`.
fn batch(
    executor: &mut dyn Executor,
    roles: &[Role],
    images: &[Vec<Arc<Sight>>; Role::ALL.len()],
) -> Result<usize, ExecuteError> {
    let mut faces = 0;
    for role in roles {
        faces = batches(executor, role.network(), &images[*role as usize])?;
    }
    Ok(faces)
}

/// Runs the images through a network, and again, as long as it takes to have as many batches under way as the executor likes: their number.
fn batches(executor: &mut dyn Executor, network: NetworkId, images: &[Arc<Sight>]) -> Result<usize, ExecuteError> {
    let in_flight = executor.batching(network).in_flight;
    let most = most(executor, network);
    let rounds = if in_flight > 1 { ROUNDS } else { 1 };
    let (mut begun, mut done) = (0, 0);
    for images in std::iter::repeat_n(images, rounds).flat_map(|images| images.chunks(most)) {
        if begun == in_flight {
            done += executor.complete()?.iter().len();
            begun -= 1;
        }
        executor.submit(network, images)?;
        begun += 1;
    }
    for _ in 0..begun {
        done += executor.complete()?.iter().len();
    }
    Ok(done)
}

/// Images that an executor takes at once: one that has a single batch under way divides it by itself.
fn most(executor: &dyn Executor, network: NetworkId) -> usize {
    let Batching { sizes, in_flight } = executor.batching(network);
    if in_flight > 1 { sizes.last().copied().unwrap_or(1).max(1) } else { usize::MAX }
}

/// The median time of a batch that has the executor for itself, ms.
fn alone_ms(executor: &mut dyn Executor, network: NetworkId, images: &[Arc<Sight>]) -> Result<f64, ExecuteError> {
    let images = &images[..images.len().min(most(executor, network))];
    let mut times = Vec::new();
    let began = Instant::now();
    while times.is_empty() || times.len() < ALONE && began.elapsed() < ALONE_WITHIN {
        let began = Instant::now();
        executor.submit(network, images)?;
        executor.complete()?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

impl std::fmt::Debug for BareLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BareLoop").field("batch", &self.images[0].len()).finish_non_exhaustive()
    }
}

/// What `batch` does each second, for at least `duration` after one that warms up.
fn per_s(duration: Duration, mut batch: impl FnMut() -> Result<usize, ExecuteError>) -> Result<f64, ExecuteError> {
    batch()?;
    let (start, mut done) = (Instant::now(), 0usize);
    while done == 0 || start.elapsed() < duration {
        done += batch()?;
    }
    Ok(done as f64 / start.elapsed().as_secs_f64())
}

/// The process's high-water mark of resident memory.
fn peak_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
