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

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use proptest::prelude::*;

    use super::*;
    use crate::model::{
        candle::interpret,
        graph::{Edges, Graph, Node, Op, Shape, Window},
        weights::Weights,
    };

    /// Values from -0.5 to 0.5.
    pub(super) fn noise(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        (0..n).map(|_| next()).collect()
    }

    /// A graph of the operations that `choices` name, each on the last value; what does not fit is left out.
    fn network(input: Shape, choices: &[(u8, u8)], seed: u64) -> (Graph, Weights) {
        let mut graph = Graph { input, nodes: vec![], output: 0 };
        let mut weights = Weights::new();
        for (index, &(choice, size)) in choices.iter().enumerate() {
            let x = graph.shapes(&weights).map_or(input, |shapes| shapes[graph.output]);
            let (channels, size) = (x.channels, size as usize);
            let mut tensor = |name: &str, shape: &[usize]| {
                let name = format!("{index}.{name}");
                let count = shape.iter().product();
                weights.insert(&name, shape.to_vec(), noise(count, seed ^ (count + index) as u64)).unwrap();
                name
            };
            let window = Window { height: 1 + size % 3, width: 1 + size / 3 % 3, stride: 1 + size % 2 };
            let padding = Edges::same(x.height, x.width, window);
            let out = 1 + size % 70;
            let bias = (size % 2 == 0).then(|| tensor("b", &[out]));
            let op = match choice % 17 {
                0 | 1 => {
                    let weight = tensor("w", &[out, channels, window.height, window.width]);
                    Op::Convolution { weight, bias, window, padding, groups: 1 }
                }
                2 => {
                    let weight = tensor("w", &[channels, 1, window.height, window.width]);
                    Op::Convolution { weight, bias: None, window, padding, groups: channels }
                }
                3 => Op::Affine { scale: tensor("s", &[channels]), shift: tensor("t", &[channels]) },
                4 => Op::Relu,
                5 => Op::LeakyRelu { slope: 0.1 },
                6 => Op::PRelu { slope: tensor("p", &[channels]) },
                7 => Op::Add,
                8 => Op::MaxPool { window, padding },
                9 => Op::AveragePool { window },
                10 => Op::PadChannels { count: size % 5 },
                11 => Op::PadSpatial { edges: Edges { top: size % 2, left: 1, bottom: size % 3, right: 0 } },
                13 => Op::Clip { low: -0.2, high: 0.3 },
                14 => Op::Sigmoid,
                15 => Op::Multiply,
                // Two channels out for each group of one or all.
                16 => {
                    let groups = if size % 2 == 0 { channels } else { 2 };
                    let weight = tensor("w", &[2 * groups, (channels / groups).max(1), window.height, window.width]);
                    let bias = Some(tensor("gb", &[2 * groups]));
                    Op::Convolution { weight, bias, window, padding, groups }
                }
                _ if size % 3 == 0 => Op::GlobalAveragePool,
                _ if size % 3 == 1 => Op::Flatten,
                _ => Op::FullyConnected { weight: tensor("w", &[out, channels]), bias },
            };
            // An addition takes an earlier value of the same shape where there is one; a product may take factors of channels.
            let shapes = graph.shapes(&weights).unwrap_or(vec![input]);
            let inputs = match op {
                Op::Add => vec![graph.output, shapes.iter().position(|&shape| shape == x).unwrap_or(graph.output)],
                Op::Multiply => {
                    let factors = |&shape: &Shape| shape == Shape::new(channels, 1, 1);
                    let images = shapes.iter().rposition(|shape| shape.channels == channels && !shape.is_vector());
                    match (shapes.iter().position(factors), images) {
                        (Some(factors), Some(image)) => vec![image, factors],
                        _ => vec![graph.output; 2],
                    }
                }
                _ => vec![graph.output],
            };
            graph.nodes.push(Node { op, inputs });
            graph.output = graph.nodes.len();
            if graph.shapes(&weights).is_err() {
                graph.nodes.pop();
                graph.output = graph.nodes.len();
            }
        }
        (graph, weights)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn plans_give_what_the_graph_gives(
            (channels, height, width) in (1usize..6, 1usize..12, 1usize..12),
            choices in proptest::collection::vec((any::<u8>(), any::<u8>()), 1..8),
            seed: u64,
            n in 1usize..4,
        ) {
            let input = Shape::new(channels, height, width);
            let (graph, weights) = network(input, &choices, seed);
            prop_assume!(!graph.nodes.is_empty());
            let count = channels * height * width;
            let images: Vec<Vec<f32>> = (0..n).map(|i| noise(count, seed ^ (i as u64) << 32)).collect();
            for level in Level::available() {
            let network = Network::new(Plan::new(&graph, &weights).unwrap(), level, Precision::F32).unwrap();
            let run = |x: &[f32], n, threads| {
                network.run(&mut Workspace::default(), n, threads, |input| input.copy_from_slice(x))
            };
            let batched = run(&images.concat(), n, 1);
            let each = batched.len() / n;
            for (image, batched) in images.iter().zip(batched.chunks_exact(each)) {
                let x = Tensor::from_slice(image, (1, height, width, channels), &Device::Cpu).unwrap();
                let expected = interpret(&graph, &weights, x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap()).unwrap();
                prop_assert_eq!(batched.len(), expected.len());
                let largest = expected.iter().fold(1.0f32, |m, v| m.max(v.abs()));
                for (got, expected) in batched.iter().zip(&expected) {
                    prop_assert!((got - expected).abs() <= 1e-5 * largest, "{} {} in\n{}", got, expected, graph);
                }
                prop_assert!(run(image, 1, 1) == batched, "alone differs from batched");
                prop_assert!(run(image, 1, 3) == batched, "one thread differs from three");
            }
            }
        }
    }
}
