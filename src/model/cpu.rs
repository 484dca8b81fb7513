//! The executor for CPUs, in f32.
//!
//! Activations lie as image, row, column, channel (NHWC), so that a convolution is one matrix product of gathered
//! patches (rows: output pixels of all images, columns: kernel row, kernel column, channel) with the weights. Rows are
//! cut into tiles that threads share; how a row is summed does not depend on its tile, so an image alone and among
//! others gives the same bits.

use std::fmt;
use std::num::NonZeroUsize;

use rayon::prelude::*;

use super::{
    bundle::Bundle,
    executor::{ExecuteError, Executor, InputSize, Role},
    gemm::{least_rows, product},
    graph::{Edges, Shape, Window},
    ops,
    plan::{Action, Convolution, Plan},
    set::{ModelSet, OpenError},
};
use crate::domain::Pixels;

/// Images that run together at most; more are run in turns.
pub const MAX_BATCH: usize = 64;

/// Floats of one activation of the images that run together, at most, unless one image alone has more: two fit into a
/// core's share of a common cache.
const MAX_ACTIVATION: usize = 1 << 20;

/// Floats of gathered patches in one tile: half of a common L2 cache.
const TILE_FLOATS: usize = 128 << 10;

/// Runs the three networks of a model set.
pub struct CpuExecutor {
    detect: Network,
    landmark: Network,
    embed: Network,
    pool: rayon::ThreadPool,
}

impl fmt::Debug for CpuExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuExecutor").finish_non_exhaustive()
    }
}

impl CpuExecutor {
    /// `threads`: how many compute; the caller's own waits meanwhile.
    pub fn new(set: &ModelSet, threads: NonZeroUsize) -> Result<Self, OpenError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.get())
            .thread_name(|i| format!("vultus-compute-{i}"))
            .build()
            .map_err(|e| OpenError::Device(e.to_string()))?;
        let network = |role| Network::new(set.bundle(role));
        Ok(Self {
            detect: network(Role::Detect)?,
            landmark: network(Role::Landmark)?,
            embed: network(Role::Embed)?,
            pool,
        })
    }

    fn network(&self, role: Role) -> &Network {
        match role {
            Role::Detect => &self.detect,
            Role::Landmark => &self.landmark,
            Role::Embed => &self.embed,
        }
    }
}

impl Executor for CpuExecutor {
    fn input_size(&self, role: Role) -> InputSize {
        self.network(role).size
    }

    fn run(&mut self, role: Role, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ExecuteError> {
        let network = self.network(role);
        let expected = network.size;
        for (index, image) in images.iter().enumerate() {
            if (image.width(), image.height()) != (expected.width, expected.height) {
                return Err(ExecuteError::Size { index, width: image.width(), height: image.height(), expected });
            }
        }
        // A thread has images of its own before it shares one with others: less to wait for.
        let together = network.batch.min(images.len().div_ceil(self.pool.current_num_threads())).max(1);
        let run = |batch: &[&Pixels]| {
            let values = network.run(batch);
            let each = values.len() / batch.len();
            values.chunks_exact(each).map(<[f32]>::to_vec).collect::<Vec<_>>()
        };
        let outputs: Vec<Vec<f32>> = self.pool.install(|| images.par_chunks(together).flat_map_iter(run).collect());
        match outputs.iter().position(|output| output.iter().any(|v| !v.is_finite())) {
            Some(index) => Err(ExecuteError::NotFinite { index }),
            None => Ok(outputs),
        }
    }
}

/// One network, ready to run.
struct Network {
    size: InputSize,
    mean: [f32; 3],
    scale: f32,
    /// Images that run together at most.
    batch: usize,
    plan: Plan,
    /// For each step that is a dense convolution: its weights as a matrix, patch x channels out.
    matrices: Vec<Option<Vec<f32>>>,
}

impl Network {
    fn new(bundle: &Bundle) -> Result<Self, OpenError> {
        let role = bundle.contract().role;
        let plan = Plan::new(bundle.graph(), bundle.weights()).map_err(|source| OpenError::Graph { role, source })?;
        let input = &bundle.contract().input;
        let size = InputSize { width: input.width, height: input.height };
        Self::of_plan(role, plan, size, input.mean, input.scale)
    }

    fn of_plan(role: Role, plan: Plan, size: InputSize, mean: [f32; 3], scale: f32) -> Result<Self, OpenError> {
        let mut matrices = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            matrices.push(match &step.action {
                Action::Convolution(c) if c.groups == 1 => Some(matrix(c, plan.shapes[step.inputs[0]].channels)),
                Action::Convolution(c) if !is_depthwise(c, plan.shapes[step.inputs[0]]) => {
                    return Err(OpenError::Unsupported { role, op: "convolution in groups that is not depthwise" });
                }
                _ => None,
            });
        }
        let largest = plan.shapes.iter().filter_map(|shape| shape.elements()).max().unwrap_or(1);
        let batch = (MAX_ACTIVATION / largest).clamp(1, MAX_BATCH);
        Ok(Self { size, batch, mean, scale, plan, matrices })
    }

    /// Outputs of all images, one after the other; each in the order channel, row, column.
    fn run(&self, images: &[&Pixels]) -> Vec<f32> {
        self.forward(self.normalise(images), images.len())
    }

    /// `x`: n images, row, column, channel.
    fn forward(&self, x: Vec<f32>, n: usize) -> Vec<f32> {
        let plan = &self.plan;
        let mut values: Vec<Option<Vec<f32>>> = vec![None; plan.shapes.len()];
        values[0] = Some(x);
        for (step, matrix) in plan.steps.iter().zip(&self.matrices) {
            let shape = plan.shapes[step.inputs[0]];
            let out = plan.shapes[step.output];
            // The planner computes every operand before its first use and frees it after its last.
            let operand = |i: usize| step.inputs.get(i).and_then(|&id| values[id].as_deref()).unwrap_or(&[]);
            let x = operand(0);
            let result = match &step.action {
                Action::Convolution(c) => match matrix {
                    Some(matrix) => convolve(c, matrix, x, operand(1), shape, out, n),
                    None => ops::depthwise(c, x, operand(1), shape, out),
                },
                Action::Affine { scale, shift } => ops::affine(x, scale, shift),
                Action::Activate(activation) => {
                    let mut y = x.to_vec();
                    y.chunks_exact_mut(out.channels).for_each(|row| ops::activate(activation, row));
                    y
                }
                Action::Add(activation) => ops::add(x, operand(1), activation, out.channels),
                Action::MaxPool { window, padding } => ops::max_pool(x, shape, out, *window, *padding),
                Action::AveragePool { window } => ops::average_pool(x, shape, out, *window),
                Action::GlobalAveragePool => {
                    let window = Window { height: shape.height, width: shape.width, stride: 1 };
                    ops::average_pool(x, shape, out, window)
                }
                Action::Pad { edges } => ops::pad(x, shape, out, *edges, n),
                Action::Flatten => ops::to_planes(x, shape),
            };
            values[step.output] = Some(result);
            step.frees.iter().for_each(|&id| values[id] = None);
        }
        let shape = plan.shapes[plan.output];
        let output = values[plan.output].take().unwrap_or_default();
        ops::to_planes(&output, shape)
    }

    fn normalise(&self, images: &[&Pixels]) -> Vec<f32> {
        let pixels = (self.size.width * self.size.height * 3) as usize;
        let mut x = vec![0.0; images.len() * pixels];
        x.par_chunks_exact_mut(pixels).zip(images).for_each(|(x, image)| {
            for (x, rgb) in x.chunks_exact_mut(3).zip(image.rgb8().chunks_exact(3)) {
                for ((x, &v), mean) in x.iter_mut().zip(rgb).zip(self.mean) {
                    *x = (f32::from(v) - mean) * self.scale;
                }
            }
        });
        x
    }
}

fn is_depthwise(c: &Convolution, x: Shape) -> bool {
    c.groups == x.channels && c.bias.len() == x.channels
}

/// Out x in x height x width, as a matrix of (height, width, in) x out.
fn matrix(c: &Convolution, channels: usize) -> Vec<f32> {
    let (area, out) = (c.window.height * c.window.width, c.bias.len());
    let mut values = vec![0.0; c.weight.len()];
    for (o, filter) in c.weight.chunks_exact(channels * area).enumerate() {
        for (i, plane) in filter.chunks_exact(area).enumerate() {
            for (at, &w) in plane.iter().enumerate() {
                values[(at * channels + i) * out + o] = w;
            }
        }
    }
    values
}

/// Dense convolution. `x`: n images of `shape`; `residual`: n images of `out`, or empty. Sums in f32.
fn convolve(
    c: &Convolution,
    matrix: &[f32],
    x: &[f32],
    residual: &[f32],
    shape: Shape,
    out: Shape,
    n: usize,
) -> Vec<f32> {
    let patch = c.window.height * c.window.width * shape.channels;
    let rows = n * out.height * out.width;
    // Small enough for the cache, and a tile for every thread.
    let tile = (TILE_FLOATS / patch).clamp(96, 1024).min(rows.div_ceil(rayon::current_num_threads())).max(1);
    let mut y = vec![0.0; rows * out.channels];
    y.par_chunks_mut(tile * out.channels).enumerate().for_each(|(index, y)| {
        let (first, count) = (index * tile, y.len() / out.channels);
        let patches = gather(x, shape, out, c.window, c.padding, first, count);
        let gathered = patches.len() / patch;
        if gathered == count {
            product(count, patch, out.channels, &patches, matrix, y);
        } else {
            let mut padded = vec![0.0; gathered * out.channels];
            product(gathered, patch, out.channels, &patches, matrix, &mut padded);
            y.copy_from_slice(&padded[..y.len()]);
        }
        for (r, y) in y.chunks_exact_mut(out.channels).enumerate() {
            y.iter_mut().zip(&c.bias).for_each(|(y, b)| *y += b);
            if c.residual {
                let at = (first + r) * out.channels;
                y.iter_mut().zip(&residual[at..]).for_each(|(y, r)| *y += r);
            }
            ops::activate(&c.activation, y);
        }
    });
    y
}

/// The patches under `count` output pixels from the `first` on: a row each, kernel row, kernel column, channel. At least
/// [`least_rows`] rows; what lies outside of the image is zero.
fn gather(x: &[f32], shape: Shape, out: Shape, window: Window, padding: Edges, first: usize, count: usize) -> Vec<f32> {
    let Shape { channels, height, width } = shape;
    let line = window.width * channels;
    let patch = window.height * line;
    let mut patches = vec![0.0; count.max(least_rows(out.channels)) * patch];
    for (pixel, patch) in (first..first + count).zip(patches.chunks_exact_mut(patch)) {
        let (image, pixel) = (pixel / (out.height * out.width), pixel % (out.height * out.width));
        let (top, left) = (pixel / out.width * window.stride, pixel % out.width * window.stride);
        let columns = ops::inside(left, padding.left, window.width, width);
        for row in ops::inside(top, padding.top, window.height, height) {
            let start =
                ((image * height + top + row - padding.top) * width + left + columns.start - padding.left) * channels;
            let line = &mut patch[row * line..][columns.start * channels..columns.end * channels];
            line.copy_from_slice(&x[start..start + line.len()]);
        }
    }
    patches
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use proptest::prelude::*;

    use super::*;
    use crate::model::{
        candle::interpret,
        graph::{Graph, Node, Op},
        weights::Weights,
    };

    fn noise(n: usize, seed: u64) -> Vec<f32> {
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
            let op = match choice % 13 {
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
                _ if size % 3 == 0 => Op::GlobalAveragePool,
                _ if size % 3 == 1 => Op::Flatten,
                _ => Op::FullyConnected { weight: tensor("w", &[out, channels]), bias },
            };
            // An addition takes an earlier value of the same shape where there is one.
            let shapes = graph.shapes(&weights).unwrap_or(vec![input]);
            let inputs = match op {
                Op::Add => vec![graph.output, shapes.iter().position(|&shape| shape == x).unwrap_or(graph.output)],
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
            let plan = Plan::new(&graph, &weights).unwrap();
            let size = InputSize { width: width as u32, height: height as u32 };
            let network = Network::of_plan(Role::Embed, plan, size, [0.0; 3], 1.0).unwrap();
            let count = channels * height * width;
            let images: Vec<Vec<f32>> = (0..n).map(|i| noise(count, seed ^ (i as u64) << 32)).collect();
            let batched = network.forward(images.concat(), n);
            let each = batched.len() / n;
            for (image, batched) in images.iter().zip(batched.chunks_exact(each)) {
                let x = Tensor::from_slice(image, (1, height, width, channels), &Device::Cpu).unwrap();
                let expected = interpret(&graph, &weights, x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap()).unwrap();
                prop_assert_eq!(batched.len(), expected.len());
                let largest = expected.iter().fold(1.0f32, |m, v| m.max(v.abs()));
                for (got, expected) in batched.iter().zip(&expected) {
                    prop_assert!((got - expected).abs() <= 1e-5 * largest, "{} {} in\n{}", got, expected, graph);
                }
                prop_assert!(network.forward(image.clone(), 1) == batched, "alone differs from batched");
            }
        }
    }
}
