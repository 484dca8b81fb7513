//! Networks as small graphs of typed operations: what importers write, planners rewrite and executors run.
//!
//! Images flow as channels x height x width (the batch is implied), features as one dimension. A graph says nothing of
//! a layout in memory or of a device. Values are numbered: 0 is the input, i + 1 is what node i gives.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Nodes of one graph, at most.
pub const MAX_NODES: usize = 4096;
/// Values in one image's activation, at most: 64 Mi, a quarter of a GiB of f32.
pub const MAX_ACTIVATION: usize = 64 << 20;

/// A value of the graph: 0 is the input, i + 1 the output of node i.
pub type ValueId = usize;

/// The shape of one value, without the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    pub channels: usize,
    pub height: usize,
    pub width: usize,
}

impl Shape {
    pub fn new(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, height, width }
    }

    /// Values in it; `None` beyond [`MAX_ACTIVATION`] or when empty.
    pub fn elements(self) -> Option<usize> {
        let n = self.channels.checked_mul(self.height)?.checked_mul(self.width)?;
        (1..=MAX_ACTIVATION).contains(&n).then_some(n)
    }

    pub fn is_vector(self) -> bool {
        self.height == 1 && self.width == 1
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.channels, self.height, self.width)
    }
}

/// Rows and columns added at each edge. The four may differ: TensorFlow's 'same' with stride 2 pads bottom and right
/// alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edges {
    pub top: usize,
    pub left: usize,
    pub bottom: usize,
    pub right: usize,
}

impl Edges {
    pub const NONE: Self = Self { top: 0, left: 0, bottom: 0, right: 0 };

    pub const fn all(n: usize) -> Self {
        Self { top: n, left: n, bottom: n, right: n }
    }

    /// TensorFlow's 'same': `ceil(size / stride)` outputs, the odd row or column at the bottom and the right.
    pub fn same(height: usize, width: usize, window: Window) -> Self {
        let pad = |size: usize, kernel: usize| {
            let outputs = size.div_ceil(window.stride.max(1));
            (outputs.saturating_sub(1) * window.stride + kernel).saturating_sub(size)
        };
        let (rows, columns) = (pad(height, window.height), pad(width, window.width));
        Self { top: rows / 2, left: columns / 2, bottom: rows - rows / 2, right: columns - columns / 2 }
    }
}

/// What slides over the image: height and width of the kernel, one stride for both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    pub height: usize,
    pub width: usize,
    pub stride: usize,
}

impl Window {
    pub const fn square(side: usize, stride: usize) -> Self {
        Self { height: side, width: side, stride }
    }
}

/// An operation. Tensors are named; C is the channels that come in, O those that go out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// Cross-correlation with zero padding. `weight` is O x C/groups x height x width, `bias` is O.
    Convolution {
        weight: String,
        bias: Option<String>,
        window: Window,
        padding: Edges,
        groups: usize,
    },
    /// `x * scale + shift` per channel, each C.
    Affine {
        scale: String,
        shift: String,
    },
    Relu,
    /// `x` where positive, else `slope * x`.
    LeakyRelu {
        slope: f32,
    },
    /// As [`Op::LeakyRelu`], with a slope per channel.
    PRelu {
        slope: String,
    },
    /// Not below `low`, not above `high`.
    Clip {
        low: f32,
        high: f32,
    },
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// Not of negative values, which give no number.
    Sqrt,
    /// `1 / x`.
    Reciprocal,
    /// Sum of two values of one shape.
    Add,
    /// Product of two values of one shape, or of an image and a vector with one factor per channel.
    Multiply,
    /// Quotient of two values of one shape.
    Divide,
    /// Over the channels of each pixel, to one channel.
    SumChannels,
    /// Euclidean length over the channels of each pixel, to one channel.
    L2Norm,
    /// The one channel that comes in, `channels` times.
    RepeatChannel {
        channels: usize,
    },
    /// The padding counts as minus infinity.
    MaxPool {
        window: Window,
        padding: Edges,
    },
    /// Mean of the window; no padding.
    AveragePool {
        window: Window,
    },
    /// Mean over height and width.
    GlobalAveragePool,
    /// Appends channels of zeros.
    PadChannels {
        count: usize,
    },
    /// Adds rows and columns of zeros.
    PadSpatial {
        edges: Edges,
    },
    /// Features in the order channel, row, column: a vector of C x height x width channels.
    Flatten,
    /// `weight` is O x C on a vector, `bias` is O.
    FullyConnected {
        weight: String,
        bias: Option<String>,
    },
}

impl Op {
    /// The word for it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Convolution { .. } => "convolution",
            Self::Affine { .. } => "affine",
            Self::Relu => "relu",
            Self::LeakyRelu { .. } => "leaky_relu",
            Self::PRelu { .. } => "p_relu",
            Self::Clip { .. } => "clip",
            Self::Sigmoid => "sigmoid",
            Self::Sqrt => "sqrt",
            Self::Reciprocal => "reciprocal",
            Self::Add => "add",
            Self::Multiply => "multiply",
            Self::Divide => "divide",
            Self::SumChannels => "sum_channels",
            Self::L2Norm => "l2_norm",
            Self::RepeatChannel { .. } => "repeat_channel",
            Self::MaxPool { .. } => "max_pool",
            Self::AveragePool { .. } => "average_pool",
            Self::GlobalAveragePool => "global_average_pool",
            Self::PadChannels { .. } => "pad_channels",
            Self::PadSpatial { .. } => "pad_spatial",
            Self::Flatten => "flatten",
            Self::FullyConnected { .. } => "fully_connected",
        }
    }
}

/// One operation and where its operands come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    pub op: Op,
    pub inputs: Vec<ValueId>,
}

/// A network; `output` is the value it gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Graph {
    pub input: Shape,
    pub nodes: Vec<Node>,
    pub output: ValueId,
}

impl fmt::Display for Graph {
    /// One line a node, like `%3 = convolution(%2) ...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "%0 = input {}", self.input)?;
        for (index, node) in self.nodes.iter().enumerate() {
            let inputs: Vec<String> = node.inputs.iter().map(|id| format!("%{id}")).collect();
            writeln!(f, "%{} = {}({}) {:?}", index + 1, node.op.name(), inputs.join(", "), node.op)?;
        }
        write!(f, "output %{}", self.output)
    }
}
