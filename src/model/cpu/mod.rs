//! The executor for CPUs, in f32 and, for the face network, bf16 and int8: factors are rounded, sums are f32 or exact,
//! and all else stays f32.
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

use std::{fmt, num::NonZeroUsize, sync::Arc};

pub use self::{ceiling::ceiling, memory::Held};
use self::{
    kernels::Level,
    layout::Line,
    network::{Network, Workspace},
    prologue::Watched,
    threads::{Share, Threads},
};
use super::{
    executor::{ExecuteError, Executor, InputSize, Role},
    input::Input,
    plan::Plan,
    precision::Precision,
    set::{ModelSet, OpenError},
};
use crate::domain::Pixels;

/// Runs the three networks of a model set.
pub struct CpuExecutor {
    networks: Arc<Networks>,
    threads: Share,
    /// That of the thread which owns it, if it has one.
    core: Option<usize>,
}

struct Networks {
    detect: Prepared,
    landmark: Prepared,
    embed: Prepared,
}

impl fmt::Debug for CpuExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuExecutor").finish_non_exhaustive()
    }
}

impl CpuExecutor {
    /// One that has all `threads` for itself. `precision` is the face network's; the others run in f32.
    pub fn new(set: &ModelSet, precision: Precision, threads: NonZeroUsize) -> Result<Self, OpenError> {
        let networks = Arc::new(Networks::new(set, precision)?);
        Ok(Self { networks, threads: Share::of_all(Threads::of_one(threads)?), core: None })
    }

    /// As many as there are `threads`, of one set of weights. Each computes on its caller's thread; while others rest
    /// it has theirs as well.
    pub fn for_each_thread(
        set: &ModelSet,
        precision: Precision,
        threads: NonZeroUsize,
    ) -> Result<Vec<Self>, OpenError> {
        let networks = Arc::new(Networks::new(set, precision)?);
        let shares = Share::of_each(Threads::of_each(threads)?).zip(cores::for_each(threads.get()));
        Ok(shares.map(|(threads, core)| Self { networks: Arc::clone(&networks), threads, core }).collect())
    }
}

impl Networks {
    fn of(&self, role: Role) -> &Prepared {
        match role {
            Role::Detect => &self.detect,
            Role::Landmark => &self.landmark,
            Role::Embed => &self.embed,
        }
    }

    fn new(set: &ModelSet, precision: Precision) -> Result<Self, OpenError> {
        let prepared = |role| {
            let bundle = set.bundle(role);
            // Boxes and landmarks stay exact: only templates are compared by precision class.
            let precision = if role == Role::Embed { precision } else { Precision::F32 };
            let plan = Plan::new(bundle.graph(), bundle.weights());
            let mut plan = plan.map_err(|source| OpenError::Graph { role, source })?;
            if precision == Precision::Int8 {
                plan = plan.with_ranges(set.ranges())?;
            }
            Prepared::new(role, plan, &bundle.contract().input, precision, Level::best())
        };
        Ok(Self { detect: prepared(Role::Detect)?, landmark: prepared(Role::Landmark)?, embed: prepared(Role::Embed)? })
    }
}

impl Executor for CpuExecutor {
    fn input_size(&self, role: Role) -> InputSize {
        self.networks.of(role).size
    }

    fn settle(&mut self) {
        self.core.into_iter().for_each(cores::keep_to);
    }

    fn gains_up_to(&self, role: Role) -> usize {
        self.networks.of(role).network.together
    }

    fn run(&mut self, role: Role, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ExecuteError> {
        self.run_helped(role, images, 0)
    }

    fn run_helped(&mut self, role: Role, images: &[&Pixels], resting: usize) -> Result<Vec<Vec<f32>>, ExecuteError> {
        self.threads.run(self.networks.of(role), images, resting)
    }
}

/// How each step of a plan is computed on this machine; `None` for what is no dense convolution.
pub fn methods(plan: &Plan, precision: Precision) -> Vec<Option<&'static str>> {
    let methods = method::methods(plan, Level::best(), precision);
    methods.into_iter().map(|method| method.map(method::Method::name)).collect()
}

/// What the plan's network holds in memory on this machine.
pub fn held(plan: &Plan, precision: Precision) -> Held {
    Held::of(plan, Level::best(), precision)
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
    pub fn new(plan: Plan, input: &Input, precision: Precision, threads: NonZeroUsize) -> Result<Self, OpenError> {
        Self::at(Level::best(), plan, input, precision, threads)
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
    ) -> Result<Self, OpenError> {
        Ok(Self {
            network: Prepared::new(Role::Embed, plan, input, precision, level)?,
            threads: Share::of_all(Threads::of_one(threads)?),
        })
    }

    /// As [`Executor::run`].
    pub fn run(&mut self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ExecuteError> {
        self.threads.run(&self.network, images, 0)
    }
}

/// A role's network and what it takes.
struct Prepared {
    size: InputSize,
    input: Input,
    network: Network,
}

impl Prepared {
    fn new(role: Role, plan: Plan, input: &Input, precision: Precision, level: Level) -> Result<Self, OpenError> {
        let size = InputSize { width: input.width, height: input.height };
        memory::Held::of(&plan, level, precision).check(role)?;
        let network = Network::new(plan, level, precision).map_err(|op| OpenError::Unsupported { role, op })?;
        Ok(Self { size, input: input.clone(), network })
    }

    /// Each image's outputs. `threads` work on one image.
    fn run(&self, work: &mut Workspace, threads: usize, images: &[&Pixels]) -> Vec<Vec<f32>> {
        let mut outputs = Vec::with_capacity(images.len());
        for images in images.chunks(self.network.together) {
            let values = self.network.run(work, images.len(), threads, |x| self.normalise(images, x));
            outputs.extend(values.chunks_exact(values.len() / images.len()).map(<[f32]>::to_vec));
        }
        outputs
    }

    /// Runs `images` one after the other and shows the values whose ranges int8 needs.
    fn watch(
        &self,
        work: &mut Workspace,
        threads: usize,
        images: &[&Pixels],
        mut watch: impl FnMut(&Watched, &[Line]),
    ) {
        for image in images {
            self.network.run_watched(work, 1, threads, |x| self.normalise(&[image], x), &mut watch);
        }
    }

    fn normalise(&self, images: &[&Pixels], x: &mut [f32]) {
        let values = x.len() / images.len().max(1);
        for (x, image) in x.chunks_exact_mut(values.max(1)).zip(images) {
            self.input.normalise_all(image.rgb8(), x);
        }
    }
}
