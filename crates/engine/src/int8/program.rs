//! What an integer network is made of. What each operation computes: [the specification](super).

use super::number::power_of_two;
use crate::{
    graph::{Edges, Shape, Window},
    input::Input,
    plan::{Activation, Border},
};

/// A tensor of a program, by its place in [`Program::tensors`].
pub type TensorId = usize;

/// An integer network. Tensor 0 is the image; steps stand in the order in which they run.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    pub input: Input,
    pub tensors: Vec<Tensor>,
    pub steps: Vec<Step>,
    /// Of [`Form::F32`].
    pub output: TensorId,
}

/// One representation of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tensor {
    pub shape: Shape,
    pub form: Form,
    /// Of [`Form::F16`], 0 to 112: an element h stands for `h * 2^exponent`, which is exact. Of others 0.
    pub exponent: u8,
}

impl Tensor {
    /// `2^exponent`: what elements of [`Form::F16`] are multiplied by when they are read.
    pub fn unit(&self) -> f32 {
        power_of_two(i32::from(self.exponent))
    }

    /// `2^-exponent`: what results are multiplied by before they are stored as [`Form::F16`].
    pub fn inverse_unit(&self) -> f32 {
        power_of_two(-i32::from(self.exponent))
    }
}

/// What the elements of a tensor are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Bytes red, green, blue as they come. Tensor 0 alone.
    Pixels,
    /// Codes 0 to 255; code 0 is the value 0.
    U8,
    /// Codes -128 to 127; code 0 is the value 0.
    S8,
    /// IEEE binary16, always finite, in units of the tensor's.
    F16,
    /// The network's output, and vectors that operations without weights read. Not always finite.
    F32,
}

/// One step: `op` computes a v for each element of its result, and each of `emits` stores a representation of the
/// unrounded v.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub op: Op,
    /// See the operation.
    pub inputs: Vec<TensorId>,
    /// At least one; all of one shape, which is the result's.
    pub emits: Vec<Emit>,
}

/// A representation that a step stores.
#[derive(Debug, Clone, PartialEq)]
pub struct Emit {
    pub tensor: TensorId,
    pub how: How,
}

/// How a v is stored.
#[derive(Debug, Clone, PartialEq)]
pub enum How {
    /// For each channel of the result, both finite: `saturate(round_half_even(fma(v, scale, shift)))`. To
    /// [`Form::U8`] or [`Form::S8`].
    Codes { scale: Vec<f32>, shift: Vec<f32> },
    /// `v * 2^-exponent` of the tensor, rounded half to even, saturated at 65504. To [`Form::F16`].
    F16,
    /// As it is. To [`Form::F32`].
    F32,
}

/// What a step computes. Operands are of [`Form::F16`] or [`Form::F32`] where nothing else is said.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant)] // most steps are convolutions, and there are few
pub enum Op {
    /// Of tensor 0: `(pixel - mean) * scale`, in the order of the network's colours. Where no stem reads the pixels.
    Normalise,
    /// Of tensor 0.
    Stem(Stem),
    /// Of codes; where it has a residual, that is the second operand, of [`Form::F16`].
    Convolution(Convolution),
    /// For each channel.
    Affine {
        scale: Vec<f32>,
        shift: Vec<f32>,
    },
    Activate(Activation),
    Clip {
        low: f32,
        high: f32,
    },
    Sigmoid,
    Sqrt,
    Reciprocal,
    /// Of two values of one shape.
    Add(Activation),
    /// Of two values of one shape, or of an image and a factor for each of its channels.
    Multiply,
    /// Of two values of one shape.
    Divide,
    /// Over the channels of each pixel, to one channel.
    SumChannels,
    L2Norm,
    /// One channel to as many as the result has.
    RepeatChannel,
    MaxPool {
        window: Window,
        padding: Edges,
    },
    /// No padding. A mean over the whole image has a window as large as that.
    AveragePool {
        window: Window,
    },
    /// Zeros: channels at the end up to the result's, rows and columns at the edges.
    Pad {
        edges: Edges,
    },
    /// To a vector: channel, row, column.
    Flatten,
}

/// A dense convolution of the pixels. It normalises them too: outside of the image lies the normalised value 0, which
/// is why the bias depends on how much of the window lies inside. It has no residual: everything else is computed
/// from what it gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Stem {
    /// Out x 3 (red, green, blue) x height x width; from -16383 to 16383, so that each is `128 * (w >> 7) + (w &
    /// 127)`, two bytes with a sign.
    pub weight: Vec<i16>,
    /// For each channel out: the factor of the sum.
    pub scale: Vec<f32>,
    /// For each class of pixels and each channel out. There is always one class at least.
    pub bias: Border,
    pub window: Window,
    pub padding: Edges,
    pub activation: Activation,
}

/// A convolution of codes, dense, in groups or depthwise. A fully connected layer is one whose window is the whole
/// image.
#[derive(Debug, Clone, PartialEq)]
pub struct Convolution {
    /// Out x in/groups x height x width; from -127 to 127.
    pub weight: Vec<i8>,
    /// For each channel out: the factor of the sum.
    pub scale: Vec<f32>,
    /// For each channel out.
    pub bias: Vec<f32>,
    pub window: Window,
    /// With codes 0.
    pub padding: Edges,
    pub groups: usize,
    /// The second operand is added before the activation.
    pub residual: bool,
    pub activation: Activation,
}
