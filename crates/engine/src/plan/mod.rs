//! From graphs to steps: a small typed program that any executor can run, and that can be printed.
//!
//! [`lower`] makes a step of every node; then each pass is a function from steps to steps: [`fold`] takes batch norm into
//! the convolutions around it (into the weights of the one before it, as a prologue of the one after it), [`fuse`] takes residual and activation into their epilogue, [`memory`] says when values
//! die and which can share memory. The steps hold their own weights and need no further check.

mod border;
mod describe;
mod fold;
mod fuse;
mod lower;
mod memory;
mod prologue;
mod ranges;
#[cfg(test)]
mod tests;
mod work;

use super::{
    graph::{Edges, Graph, Shape, ValueId, Window},
    shapes::GraphError,
    weights::Weights,
};

pub use border::Border;
pub use describe::StepLine;
pub use memory::Arena;
pub use prologue::Prologue;
pub use ranges::{ActivationRange, RangeError, union};

/// What happens to each value last.
#[derive(Debug, Clone, PartialEq)]
pub enum Activation {
    Identity,
    Relu,
    /// Negative values times the slope.
    Leaky(f32),
    /// The same with a slope per channel.
    PRelu(Vec<f32>),
}

/// A convolution, and what comes before and after it in the same pass: `activation(convolve(prologue(x)) + bias [+ residual])`.
#[derive(Debug, Clone, PartialEq)]
pub struct Convolution {
    pub prologue: Option<Prologue>,
    /// Out x in/groups x height x width.
    pub weight: Vec<f32>,
    /// One for each channel out.
    pub bias: Vec<f32>,
    /// In place of `bias` where it differs at the edges.
    pub border: Option<Border>,
    pub window: Window,
    pub padding: Edges,
    pub groups: usize,
    /// The step's second operand is added before the activation.
    pub residual: bool,
    pub activation: Activation,
}

/// What a step does; as the operations of [`super::graph::Op`], a fully connected layer being a convolution whose window is
/// the whole image.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant)] // most steps are convolutions, and there are few
pub enum Action {
    Convolution(Convolution),
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
    AveragePool {
        window: Window,
    },
    GlobalAveragePool,
    /// Zeros: channels at the end, rows and columns at the edges.
    Pad {
        edges: Edges,
    },
    Flatten,
}

impl Action {
    /// Whether all numbers that it holds are finite.
    fn is_finite(&self) -> bool {
        let finite = |values: &[f32]| values.iter().all(|v| v.is_finite());
        let activation = |activation: &Activation| match activation {
            Activation::PRelu(slopes) => finite(slopes),
            Activation::Leaky(slope) => slope.is_finite(),
            Activation::Identity | Activation::Relu => true,
        };
        match self {
            Self::Convolution(c) => {
                let border = c.border.as_ref().map_or(&[][..], |border| &border.values);
                finite(&c.weight) && finite(&c.bias) && finite(border) && activation(&c.activation)
            }
            Self::Affine { scale, shift } => finite(scale) && finite(shift),
            Self::Activate(a) | Self::Add(a) => activation(a),
            _ => true,
        }
    }
}

/// One step: values in, one value out.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub action: Action,
    pub inputs: Vec<ValueId>,
    pub output: ValueId,
    /// Values that no later step needs.
    pub frees: Vec<ValueId>,
    /// The operations of the graph that it does, in their order there.
    pub parts: Vec<&'static str>,
}

/// Steps in the order to run them.
#[derive(Debug, Clone)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// Of every value; values that fusing removed keep theirs.
    pub shapes: Vec<Shape>,
    pub output: ValueId,
    /// Of the values that int8 rounds to bytes; none where nobody gave them.
    pub ranges: Vec<ActivationRange>,
}

impl Plan {
    /// Checks the graph and fuses what can be fused. The weights are copied, tensor by tensor.
    pub fn new(graph: &Graph, weights: &Weights) -> Result<Self, GraphError> {
        Self::of(graph, weights.clone())
    }

    /// As [`Self::new`], with weights that nobody else holds moved, not copied.
    pub fn of(graph: &Graph, weights: Weights) -> Result<Self, GraphError> {
        let shapes = graph.shapes(&weights)?;
        let steps = lower::lower(graph, weights)?;
        let steps = [fold::merge_affines, fold::fold_back, fold::fold_forward]
            .into_iter()
            .chain([fold::flatten_into_convolution, fold::fold_forward as work::Pass])
            .chain([fuse::fuse_residual, fuse::fuse_activation])
            .fold(steps, |steps, pass| pass(steps, &shapes, graph.output));
        let steps = memory::free_early(steps, graph.output);
        if let Some(step) = steps.iter().position(|step| !step.action.is_finite()) {
            let (action, parts) = (steps[step].action.to_string(), steps[step].parts.join(" + "));
            return Err(GraphError::NotFinite { step, action, parts });
        }
        Ok(Self { steps, shapes, output: graph.output, ranges: vec![] })
    }

    /// Multiplications and additions for one image, each counted.
    pub fn flops(&self) -> u64 {
        self.steps.iter().map(|step| self.step_flops(step)).sum()
    }

    fn step_flops(&self, step: &Step) -> u64 {
        match &step.action {
            Action::Convolution(c) => {
                let out = self.shapes[step.output];
                2 * (out.height * out.width * c.weight.len()) as u64
            }
            _ => 0,
        }
    }
}
