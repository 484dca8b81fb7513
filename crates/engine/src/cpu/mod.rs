//! The executor for CPUs: in f32; in bf16, where factors are rounded, sums are f32 and all else stays f32; or in int8, where the integer
//! network that a plan is lowered to runs ([`crate::int8`], [`int8`]).
//!
//! Activations lie in lines of 16 channels ([`layout`]); convolutions are tiles of pixels times panels of channels
//! ([`convolve`]) on kernels for each instruction set ([`kernels`]). How a pixel is summed does not depend on its tile,
//! so an image alone and among others gives the same bits.

pub mod calibrate;
mod ceiling;
mod convolve;
mod cores;
mod depthwise;
mod epilogue;
mod factors;
mod int8;
mod kernels;
mod layout;
mod memory;
mod method;
mod network;
mod ops;
mod prologue;
#[cfg(test)]
mod tests;
mod threads;
mod winograd;

use std::{
    fmt,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

pub use self::{ceiling::ceiling, memory::Held};
use self::{
    kernels::Level,
    layout::Line,
    network::Network,
    prologue::Watched,
    threads::{Share, Threads},
};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    executor::{Batching, ExecuteError, Executor, LoadError, NetworkId, Outputs, Planned, Sight},
    image::Pixels,
    input::{Input, InputSize},
    int8::Program,
    plan::{Action, Plan, Step},
    precision::Precision,
};

/// Runs networks, one batch after the other.
pub struct CpuExecutor {
    networks: Arc<[Prepared]>,
    threads: Share,
    /// That of the thread which owns it, if it has one.
    core: Option<usize>,
    /// The executors of these networks that have a batch, and how many they are.
    busy: Arc<AtomicUsize>,
    executors: usize,
    begun: Option<(NetworkId, Vec<Arc<Sight>>)>,
    /// Of the last batch; wiped before the next, and in the end.
    outputs: Zeroizing<Vec<f32>>,
}

impl fmt::Debug for CpuExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuExecutor").finish_non_exhaustive()
    }
}

impl CpuExecutor {
    /// One that has all `threads` for itself.
    ///
    /// # Errors
    /// The network's place, and why it is not taken.
    pub fn new(networks: Vec<Planned>, threads: NonZeroUsize) -> Result<Self, (NetworkId, LoadError)> {
        let pool = Threads::of_one(threads).map_err(|e| (NetworkId(0), e))?;
        Ok(Self::with(prepare(networks)?, Share::of_all(pool), None, Arc::default(), 1))
    }

    /// As many as there are `threads`, of one set of weights. Each computes on its caller's thread; while others rest
    /// it has theirs as well.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn for_each_thread(networks: Vec<Planned>, threads: NonZeroUsize) -> Result<Vec<Self>, (NetworkId, LoadError)> {
        let networks = prepare(networks)?;
        let pool = Threads::of_each(threads).map_err(|e| (NetworkId(0), e))?;
        let busy = Arc::<AtomicUsize>::default();
        let shares = Share::of_each(pool).zip(cores::for_each(threads.get()));
        let with = |(share, core)| Self::with(Arc::clone(&networks), share, core, Arc::clone(&busy), threads.get());
        Ok(shares.map(with).collect())
    }

    fn with(
        networks: Arc<[Prepared]>,
        threads: Share,
        core: Option<usize>,
        busy: Arc<AtomicUsize>,
        executors: usize,
    ) -> Self {
        Self { networks, threads, core, busy, executors, begun: None, outputs: Zeroizing::default() }
    }

    fn network(&self, network: NetworkId) -> Result<&Prepared, ExecuteError> {
        self.networks.get(network.0).ok_or_else(|| ExecuteError::Device(format!("there is no network {}", network.0)))
    }
}

fn prepare(networks: Vec<Planned>) -> Result<Arc<[Prepared]>, (NetworkId, LoadError)> {
    let level = Level::chosen().map_err(|e| (NetworkId(0), e))?;
    let prepare = |(place, Planned { plan, input, precision }): (usize, Planned)| {
        Prepared::new(plan, &input, precision, level).map_err(|e| (NetworkId(place), e))
    };
    networks.into_iter().enumerate().map(prepare).collect()
}

impl Executor for CpuExecutor {
    fn input_size(&self, network: NetworkId) -> InputSize {
        self.networks.get(network.0).map_or(InputSize { width: 0, height: 0 }, |network| network.size)
    }

    fn batching(&self, network: NetworkId) -> Batching {
        Batching::up_to(self.networks.get(network.0).map_or(1, Prepared::together))
    }

    fn settle(&mut self) {
        self.core.into_iter().for_each(cores::keep_to);
    }

    /// Remembers the batch. Its values are filled into memory where they are computed with, a part at a time: those of a whole batch
    /// would no longer be in a cache when their turn comes, and with one batch under way nothing is gained by filling ahead.
    fn submit(&mut self, network: NetworkId, sights: &[Arc<Sight>]) -> Result<(), ExecuteError> {
        self.network(network)?;
        if self.begun.is_some() {
            return Err(ExecuteError::Device("a batch is under way: expected one at a time".into()));
        }
        self.begun = Some((network, sights.to_vec()));
        self.busy.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn complete(&mut self) -> Result<Outputs<'_>, ExecuteError> {
        let (network, sights) = self.begun.take().ok_or_else(|| ExecuteError::Device("no batch is begun".into()))?;
        let _busy = Busy(Arc::clone(&self.busy)); // also where the work panics
        self.outputs.zeroize();
        let networks = Arc::clone(&self.networks);
        let Some(prepared) = networks.get(network.0) else { return Outputs::new(&[], 1) };
        let mut images = Vec::with_capacity(sights.len());
        for (index, sight) in sights.iter().enumerate() {
            images.push(sight.pixels(index, prepared.size)?);
        }
        let images: Vec<&Pixels> = images.iter().map(AsRef::as_ref).collect();
        let resting = self.executors.saturating_sub(self.busy.load(Ordering::Relaxed));
        self.threads.run(prepared, &images, resting, &mut self.outputs)?;
        Outputs::new(&self.outputs, prepared.output_values())
    }
}

impl Drop for CpuExecutor {
    fn drop(&mut self) {
        if self.begun.take().is_some() {
            drop(Busy(Arc::clone(&self.busy)));
        }
    }
}

/// One of the busy, until it is dropped.
struct Busy(Arc<AtomicUsize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How each step of a plan is computed on this machine; `None` for what is no dense convolution. In int8 that is every convolution.
pub fn methods(plan: &Plan, precision: Precision) -> Vec<Option<&'static str>> {
    let is_convolution = |step: &Step| matches!(step.action, Action::Convolution(_));
    match precision {
        Precision::Int8 => plan.steps.iter().map(|step| is_convolution(step).then_some("int8")).collect(),
        Precision::F32 | Precision::Bf16 => {
            let methods = method::methods(plan, precision == Precision::Bf16);
            methods.into_iter().map(|method| method.map(method::Method::name)).collect()
        }
    }
}

/// What the plan's network holds in memory on this machine; `input` is what it takes.
///
/// # Errors
/// Where it does not run.
pub fn held(plan: &Plan, input: &Input, precision: Precision) -> Result<Held, LoadError> {
    match precision {
        Precision::Int8 => {
            let network = program(plan, input, Level::chosen()?)?;
            Ok(Held::of_program(plan, network.weights(), network.workspace(network.together)))
        }
        Precision::F32 | Precision::Bf16 => Ok(Held::of(plan, precision == Precision::Bf16)),
    }
}

/// The integer network of a plan with its ranges.
fn program(plan: &Plan, input: &Input, level: Level) -> Result<int8::Network, LoadError> {
    Held::of(plan, false).check()?;
    let program = Program::new(plan, input).map_err(|e| LoadError::Lower(e.to_string()))?;
    // Before weights are packed.
    Held::of_program(plan, int8::Network::packed(&program, level), 0).check()?;
    let network = int8::Network::new(&program, level).map_err(LoadError::Unsupported)?;
    Held::of_program(plan, network.weights(), network.workspace(network.together)).check()?;
    Ok(network)
}

/// The instruction set that is taken on this machine, in a word.
pub fn instructions() -> &'static str {
    Level::best().name()
}

/// Whether it multiplies bf16. Others multiply the same values as floats, to measure: sums in another order are rounded otherwise from layer
/// to layer, and so the outputs are others, as far from the first as bf16 is from f32.
pub fn multiplies_bf16() -> bool {
    Level::best().has_bf16()
}

/// One network alone, as it came from a file.
pub struct CpuNetwork {
    network: Prepared,
    threads: Share,
}

impl fmt::Debug for CpuNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuNetwork").finish_non_exhaustive()
    }
}

impl CpuNetwork {
    pub fn new(plan: Plan, input: &Input, precision: Precision, threads: NonZeroUsize) -> Result<Self, LoadError> {
        Self::at(Level::chosen()?, plan, input, precision, threads)
    }

    /// The instruction sets of this machine that there are kernels for, the best first.
    pub fn levels() -> Vec<Level> {
        Level::available()
    }

    /// As [`Self::new`], on a chosen one of [`Self::levels`].
    pub fn at(
        level: Level,
        plan: Plan,
        input: &Input,
        precision: Precision,
        threads: NonZeroUsize,
    ) -> Result<Self, LoadError> {
        Ok(Self {
            network: Prepared::new(plan, input, precision, level)?,
            threads: Share::of_all(Threads::of_one(threads)?),
        })
    }

    /// Each image's outputs; images are of the network's size.
    pub fn run(&mut self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ExecuteError> {
        let mut outputs = Zeroizing::default();
        self.threads.run(&self.network, images, 0, &mut outputs)?;
        Ok(Outputs::new(&outputs, self.network.output_values())?.iter().map(<[f32]>::to_vec).collect())
    }
}

/// A network and what it takes.
struct Prepared {
    size: InputSize,
    input: Input,
    runs: Runs,
}

/// What runs: a plan, or in int8 the integer network that it was lowered to.
enum Runs {
    Plan(Network),
    Program(int8::Network),
}

/// The memory that runs need, kept from run to run.
#[derive(Default)]
struct Workspace {
    plan: network::Workspace,
    program: int8::Workspace,
}

impl Prepared {
    fn new(plan: Plan, input: &Input, precision: Precision, level: Level) -> Result<Self, LoadError> {
        let size = InputSize { width: input.width, height: input.height };
        let runs = match precision {
            Precision::Int8 => Runs::Program(program(&plan, input, level)?),
            Precision::F32 | Precision::Bf16 => {
                let bf16 = precision == Precision::Bf16;
                Held::of(&plan, bf16).check()?;
                Runs::Plan(Network::new(plan, level, bf16).map_err(LoadError::Unsupported)?)
            }
        };
        Ok(Self { size, input: input.clone(), runs })
    }

    /// Images that run together, at most.
    fn together(&self) -> usize {
        match &self.runs {
            Runs::Plan(network) => network.together,
            Runs::Program(network) => network.together,
        }
    }

    /// Values that it gives for an image.
    fn output_values(&self) -> usize {
        match &self.runs {
            Runs::Plan(network) => network.output_values(),
            Runs::Program(network) => network.output_values(),
        }
    }

    /// All images' outputs into `y`, one after the other. `threads` work on one image.
    fn run(&self, work: &mut Workspace, threads: usize, images: &[&Pixels], y: &mut [f32]) {
        let (together, each) = (self.together(), self.output_values());
        for (images, y) in images.chunks(together).zip(y.chunks_mut(together * each)) {
            match &self.runs {
                Runs::Plan(network) => {
                    network.run(&mut work.plan, images.len(), threads, |x| self.normalise(images, x), y);
                }
                Runs::Program(network) => network.run(&mut work.program, threads, images, y),
            }
        }
    }

    /// Runs `images` one after the other and shows the values whose ranges int8 needs; nothing where that is what runs.
    fn watch(
        &self,
        work: &mut Workspace,
        threads: usize,
        images: &[&Pixels],
        mut watch: impl FnMut(&Watched, &[Line]),
    ) {
        let Runs::Plan(network) = &self.runs else { return };
        let mut y = Zeroizing::new(vec![0.0; network.output_values()]);
        for image in images {
            network.run_watched(&mut work.plan, 1, threads, |x| self.normalise(&[image], x), &mut y, &mut watch);
        }
    }

    fn normalise(&self, images: &[&Pixels], x: &mut [f32]) {
        let values = x.len() / images.len().max(1);
        for (x, image) in x.chunks_exact_mut(values.max(1)).zip(images) {
            self.input.normalise_all(image.rgb8(), x);
        }
    }
}
