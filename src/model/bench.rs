//! How fast a network runs.

use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    cpu::ceiling,
    device::DeviceChoice,
    executor::{ExecuteError, Executor, Role},
    plan::Plan,
    precision::Precision,
    set::{ModelSet, OpenError},
};
use crate::domain::Pixels;

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Execute(#[from] ExecuteError),
}

/// Faces that went through the network each second, one batch after the other; decoding and alignment not counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchEmbed {
    pub faces_per_s: f64,
    pub batch: usize,
    pub precision: &'static str,
    pub threads: usize,
    pub model: String,
    pub device: String,
    /// Multiplications and additions of the network as it is written, 10⁹ a second.
    pub gflop_per_s: f64,
    /// What the threads can do in this precision at most, and the share of it. Winograd's algorithm needs fewer products
    /// than are written, so that the share can be above 1.
    pub ceiling_gflop_per_s: f64,
    pub share_of_ceiling: f64,
}

/// Runs batches of pseudo-random pixels through the face network for at least `duration`, after one that warms up. The precision
/// is the card's where none is given.
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
    let plan =
        Plan::new(bundle.graph(), bundle.weights()).map_err(|source| OpenError::Graph { role: Role::Embed, source })?;
    let gflop_per_s = faces_per_s * plan.flops() as f64 / 1e9;
    let ceiling_gflop_per_s = ceiling(precision, threads) / 1e9;
    Ok(BenchEmbed {
        faces_per_s,
        batch: batch.get(),
        precision: precision.as_str(),
        threads: threads.get(),
        model: set.card().name.clone(),
        device: device.to_string(),
        gflop_per_s,
        ceiling_gflop_per_s,
        share_of_ceiling: gflop_per_s / ceiling_gflop_per_s,
    })
}

/// Networks and nothing else: one batch after the other, without queue, decoding or alignment.
pub struct BareLoop {
    executor: Box<dyn Executor>,
    /// A batch for each role, in [`Role::ALL`]'s order.
    images: [Vec<Pixels>; Role::ALL.len()],
}

impl BareLoop {
    pub fn new(
        set: &ModelSet,
        device: DeviceChoice,
        batch: NonZeroUsize,
        threads: NonZeroUsize,
    ) -> Result<Self, OpenError> {
        Ok(Self::of(set.executor(device, threads)?, batch))
    }

    fn of(executor: Box<dyn Executor>, batch: NonZeroUsize) -> Self {
        let images = Role::ALL.map(|role| {
            let size = executor.input_size(role);
            (0..batch.get()).filter_map(|seed| noise(size.width, size.height, seed as u32)).collect()
        });
        Self { executor, images }
    }

    /// Faces a second, each through the networks of all `roles`, for at least `duration` after a batch that warms up.
    pub fn faces_per_s(&mut self, roles: &[Role], duration: Duration) -> Result<f64, ExecuteError> {
        self.batch(roles)?;
        let (start, mut done) = (Instant::now(), 0usize);
        while done == 0 || start.elapsed() < duration {
            done += self.batch(roles)?;
        }
        Ok(done as f64 / start.elapsed().as_secs_f64())
    }

    /// The number of faces.
    fn batch(&mut self, roles: &[Role]) -> Result<usize, ExecuteError> {
        let mut faces = 0;
        for role in roles {
            let images: Vec<&Pixels> = self.images[*role as usize].iter().collect();
            faces = self.executor.run(*role, &images)?.len();
        }
        Ok(faces)
    }
}

impl std::fmt::Debug for BareLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BareLoop").field("batch", &self.images[0].len()).finish_non_exhaustive()
    }
}

fn noise(width: u32, height: u32, seed: u32) -> Option<Pixels> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 24) as u8
    };
    Pixels::new(width, height, (0..width as usize * height as usize * 3).map(|_| next()).collect()).ok()
}
