//! The executor for CPUs, in f32 and, for the face network, bf16 and int8: factors are rounded, sums are f32 or exact, and all else
//! stays f32.
//!
//! Activations lie in lines of 16 channels ([`layout`]); convolutions are tiles of pixels times panels of channels
//! ([`convolve`]) on kernels for each instruction set ([`kernels`]). How a pixel is summed does not depend on its tile, so
//! an image alone and among others gives the same bits.

pub mod calibrate;
mod ceiling;
mod convolve;
mod depthwise;
mod epilogue;
mod factors;
mod kernels;
mod layout;
mod method;
mod network;
mod ops;
#[cfg(test)]
mod tests;
mod winograd;

use std::{fmt, num::NonZeroUsize};

use rayon::prelude::*;

pub use self::ceiling::ceiling;
use self::{
    kernels::Level,
    network::{Network, Workspace},
};
use super::{
    contract::Input,
    executor::{ExecuteError, Executor, InputSize, Role},
    graph::ValueId,
    plan::Plan,
    precision::Precision,
    set::{ModelSet, OpenError},
};
use crate::domain::Pixels;

/// Runs the three networks of a model set.
pub struct CpuExecutor {
    detect: Prepared,
    landmark: Prepared,
    embed: Prepared,
    threads: Threads,
}

impl fmt::Debug for CpuExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuExecutor").finish_non_exhaustive()
    }
}

impl CpuExecutor {
    /// `precision` is the face network's; the others run in f32. `threads`: how many compute; the caller's own waits meanwhile.
    pub fn new(set: &ModelSet, precision: Precision, threads: NonZeroUsize) -> Result<Self, OpenError> {
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
        Ok(Self {
            detect: prepared(Role::Detect)?,
            landmark: prepared(Role::Landmark)?,
            embed: prepared(Role::Embed)?,
            threads: Threads::new(threads)?,
        })
    }
}

impl Executor for CpuExecutor {
    fn input_size(&self, role: Role) -> InputSize {
        match role {
            Role::Detect => self.detect.size,
            Role::Landmark => self.landmark.size,
            Role::Embed => self.embed.size,
        }
    }

    fn run(&mut self, role: Role, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ExecuteError> {
        let prepared = match role {
            Role::Detect => &self.detect,
            Role::Landmark => &self.landmark,
            Role::Embed => &self.embed,
        };
        self.threads.run(prepared, images)
    }
}

/// How each step of a plan is computed on this machine; `None` for what is no dense convolution.
pub fn methods(plan: &Plan, precision: Precision) -> Vec<Option<&'static str>> {
    let methods = method::methods(plan, Level::best(), precision);
    methods.into_iter().map(|method| method.map(method::Method::name)).collect()
}

/// One network alone, as it came from a file.
pub struct CpuNetwork {
    network: Prepared,
    threads: Threads,
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
            threads: Threads::new(threads)?,
        })
    }

    /// As [`Executor::run`].
    pub fn run(&mut self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ExecuteError> {
        self.threads.run(&self.network, images)
    }
}

/// Who computes, and the memory that each needs.
struct Threads {
    pool: rayon::ThreadPool,
    /// One for each thread.
    work: Vec<Workspace>,
}

impl Threads {
    fn new(threads: NonZeroUsize) -> Result<Self, OpenError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.get())
            .thread_name(|i| format!("vultus-compute-{i}"))
            .build()
            .map_err(|e| OpenError::Device(e.to_string()))?;
        Ok(Self { pool, work: (0..threads.get()).map(|_| Workspace::default()).collect() })
    }

    /// As [`Prepared::watch`]; images of another size were left out.
    fn watch(&mut self, prepared: &Prepared, images: &[&Pixels], watch: impl FnMut(ValueId, &[f32]) + Send) {
        let (threads, work) = (self.work.len(), &mut self.work);
        self.pool.install(|| prepared.watch(&mut work[0], threads, images, watch));
    }

    fn run(&mut self, prepared: &Prepared, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ExecuteError> {
        let expected = prepared.size;
        for (index, image) in images.iter().enumerate() {
            if (image.width(), image.height()) != (expected.width, expected.height) {
                return Err(ExecuteError::Size { index, width: image.width(), height: image.height(), expected });
            }
        }
        let (threads, work) = (self.work.len(), &mut self.work);
        let outputs: Vec<Vec<f32>> = self.pool.install(|| {
            // Threads with images of their own do not wait for each other; few images are shared by all.
            if images.len() < 2 * threads && !images.len().is_multiple_of(threads) {
                return prepared.run(&mut work[0], threads, images);
            }
            let share = images.len().div_ceil(threads).max(1);
            (images.par_chunks(share).zip(work.par_iter_mut()))
                .flat_map_iter(|(images, work)| prepared.run(work, 1, images))
                .collect()
        });
        match outputs.iter().position(|output| output.iter().any(|v| !v.is_finite())) {
            Some(index) => Err(ExecuteError::NotFinite { index }),
            None => Ok(outputs),
        }
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
    fn watch(&self, work: &mut Workspace, threads: usize, images: &[&Pixels], mut watch: impl FnMut(ValueId, &[f32])) {
        for image in images {
            self.network.run_watched(work, 1, threads, |x| self.normalise(&[image], x), &mut watch);
        }
    }

    fn normalise(&self, images: &[&Pixels], x: &mut [f32]) {
        let pixels = images.iter().flat_map(|image| image.rgb8().as_chunks::<3>().0);
        for (x, &rgb) in x.as_chunks_mut::<3>().0.iter_mut().zip(pixels) {
            *x = self.input.normalise(rgb);
        }
    }
}
