//! The reference executor: every node of the graph as it stands, in candle, on the CPU, in f32. Slow and plain: the oracle
//! for the planner and for the executors that run its plans.

use std::{fmt, sync::Arc};

use candle_core::{D, DType, Device, Result, Tensor};
use zeroize::Zeroizing;

use crate::{
    executor::{Batching, ExecuteError, Executor, NetworkId, Outputs, Sight},
    graph::{Edges, Graph, Op},
    image::Pixels,
    input::{Input, InputSize},
    weights::Weights,
};

/// A network as it is written, and what it takes.
#[derive(Debug, Clone)]
pub struct Written {
    pub graph: Graph,
    pub weights: Weights,
    pub input: Input,
}

/// Runs networks, node by node.
pub struct CandleExecutor {
    networks: Vec<Written>,
    begun: Option<(NetworkId, Vec<Arc<Sight>>)>,
    /// Of the last batch; wiped before the next, and in the end.
    outputs: Zeroizing<Vec<f32>>,
}

impl fmt::Debug for CandleExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CandleExecutor").finish_non_exhaustive()
    }
}

impl CandleExecutor {
    pub fn new(networks: Vec<Written>) -> Self {
        Self { networks, begun: None, outputs: Zeroizing::default() }
    }
}

impl Executor for CandleExecutor {
    fn input_size(&self, network: NetworkId) -> InputSize {
        let size =
            |Written { input: Input { width, height, .. }, .. }: &_| InputSize { width: *width, height: *height };
        self.networks.get(network.0).map_or(InputSize { width: 0, height: 0 }, size)
    }

    fn batching(&self, _: NetworkId) -> Batching {
        Batching::one_by_one()
    }

    fn submit(&mut self, network: NetworkId, sights: &[Arc<Sight>]) -> std::result::Result<(), ExecuteError> {
        if network.0 >= self.networks.len() || self.begun.is_some() {
            return Err(ExecuteError::Device("expected one of its networks, and one batch at a time".into()));
        }
        self.begun = Some((network, sights.to_vec()));
        Ok(())
    }

    fn complete(&mut self) -> std::result::Result<Outputs<'_>, ExecuteError> {
        let none = || ExecuteError::Device("no batch is begun".into());
        let (network, sights) = self.begun.take().ok_or_else(none)?;
        let Written { graph, weights, input } = self.networks.get(network.0).ok_or_else(none)?;
        let size = InputSize { width: input.width, height: input.height };
        let mut images = Vec::with_capacity(sights.len());
        for (index, sight) in sights.iter().enumerate() {
            images.push(sight.pixels(index, size)?);
        }
        let images: Vec<&Pixels> = images.iter().map(AsRef::as_ref).collect();
        self.outputs = Zeroizing::new(reference(graph, weights, input, &images)?.concat());
        Outputs::new(&self.outputs, self.outputs.len() / images.len().max(1))
    }
}

/// Each image's outputs, flattened: what an executor promises, for one network.
pub fn reference(
    graph: &Graph,
    weights: &Weights,
    input: &Input,
    images: &[&Pixels],
) -> std::result::Result<Vec<Vec<f32>>, ExecuteError> {
    let expected = InputSize { width: input.width, height: input.height };
    let mut outputs = Vec::with_capacity(images.len());
    for (index, image) in images.iter().enumerate() {
        let (width, height) = (image.width(), image.height());
        if (width, height) != (expected.width, expected.height) {
            return Err(ExecuteError::Size { index, width, height, expected });
        }
        let output = normalise(input, image).and_then(|x| interpret(graph, weights, x));
        let output = output.map_err(|e| ExecuteError::Device(e.to_string()))?;
        if !output.iter().all(|v| v.is_finite()) {
            return Err(ExecuteError::NotFinite { index });
        }
        outputs.push(output);
    }
    Ok(outputs)
}

/// What the network takes for an image: 1 x 3 x height x width.
pub fn normalise(input: &Input, image: &Pixels) -> Result<Tensor> {
    let shape = (1, image.height() as usize, image.width() as usize, 3);
    let (pixels, _) = image.rgb8().as_chunks::<3>();
    let values: Vec<f32> = pixels.iter().flat_map(|&rgb| input.normalise(rgb)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)?.permute((0, 3, 1, 2))?.contiguous()
}

/// The graph's output for `x` (1 x channels x height x width), flattened. The graph was checked with these weights.
pub fn interpret(graph: &Graph, weights: &Weights, x: Tensor) -> Result<Vec<f32>> {
    match values(graph, weights, x)?.get(graph.output) {
        Some(output) => output.flatten_all()?.to_vec1(),
        None => candle_core::bail!("the output is missing: the graph was not checked"),
    }
}

/// All values of the graph, the input first.
pub fn values(graph: &Graph, weights: &Weights, x: Tensor) -> Result<Vec<Tensor>> {
    let mut values = vec![x];
    for node in &graph.nodes {
        let operand = |i: usize| match node.inputs.get(i).and_then(|&id| values.get(id)) {
            Some(value) => Ok(value),
            None => candle_core::bail!("an operand is missing: the graph was not checked"),
        };
        let result = apply(&node.op, weights, operand(0)?, || operand(1))?;
        values.push(result);
    }
    Ok(values)
}

fn apply<'a>(op: &Op, weights: &Weights, x: &'a Tensor, y: impl Fn() -> Result<&'a Tensor>) -> Result<Tensor> {
    let tensor = |name: &String| {
        let weight = weights.get(name).map_err(candle_core::Error::wrap)?;
        Tensor::from_slice(weight.values(), weight.shape(), &Device::Cpu)
    };
    let per_channel = |name: &String| tensor(name)?.reshape((1, (), 1, 1));
    let leaky = |slope: &Tensor| x.relu()? - x.neg()?.relu()?.broadcast_mul(slope)?;
    match op {
        Op::Convolution { weight, bias, window, padding, groups } => {
            let y = pad(x, *padding, 0.0)?.conv2d(&tensor(weight)?, 0, window.stride, 1, *groups)?;
            bias.as_ref().map_or(Ok(y.clone()), |bias| y.broadcast_add(&per_channel(bias)?))
        }
        Op::Affine { scale, shift } => x.broadcast_mul(&per_channel(scale)?)?.broadcast_add(&per_channel(shift)?),
        Op::Relu => x.relu(),
        Op::LeakyRelu { slope } => leaky(&Tensor::new(*slope, &Device::Cpu)?),
        Op::PRelu { slope } => leaky(&per_channel(slope)?),
        Op::Clip { low, high } => x.clamp(*low, *high),
        Op::Sigmoid => (x.neg()?.exp()? + 1.0)?.recip(),
        Op::Sqrt => x.sqrt(),
        Op::Reciprocal => x.recip(),
        Op::Add => x + y()?,
        Op::Multiply => x.broadcast_mul(y()?),
        Op::Divide => x / y()?,
        // Wide enough for the squares of all f32.
        Op::SumChannels => x.to_dtype(DType::F64)?.sum_keepdim(1)?.to_dtype(DType::F32),
        Op::L2Norm => x.to_dtype(DType::F64)?.sqr()?.sum_keepdim(1)?.sqrt()?.to_dtype(DType::F32),
        Op::RepeatChannel { channels } => x.repeat((1, *channels, 1, 1)),
        Op::MaxPool { window, padding } => pad(x, *padding, f32::NEG_INFINITY)?
            .max_pool2d_with_stride((window.height, window.width), (window.stride, window.stride)),
        Op::AveragePool { window } => {
            x.avg_pool2d_with_stride((window.height, window.width), (window.stride, window.stride))
        }
        Op::GlobalAveragePool => x.mean_keepdim(D::Minus1)?.mean_keepdim(D::Minus2),
        Op::PadChannels { count } => x.pad_with_zeros(1, 0, *count),
        Op::PadSpatial { edges } => pad(x, *edges, 0.0),
        Op::Flatten => x.reshape((1, (), 1, 1)),
        Op::FullyConnected { weight, bias } => {
            let y = x.reshape((1, ()))?.matmul(&tensor(weight)?.t()?)?.reshape((1, (), 1, 1))?;
            bias.as_ref().map_or(Ok(y.clone()), |bias| y.broadcast_add(&per_channel(bias)?))
        }
    }
}

fn pad(x: &Tensor, edges: Edges, value: f32) -> Result<Tensor> {
    let mut x = x.clone();
    for (dim, before, after) in [(2, edges.top, edges.bottom), (3, edges.left, edges.right)] {
        let edge = |size: usize| {
            let mut shape = x.dims().to_vec();
            shape[dim] = size;
            Tensor::full(value, shape, &Device::Cpu)
        };
        let parts = [(before > 0).then(|| edge(before)), Some(Ok(x.clone())), (after > 0).then(|| edge(after))];
        x = Tensor::cat(&parts.into_iter().flatten().collect::<Result<Vec<_>>>()?, dim)?;
    }
    Ok(x)
}
