//! From graphs to steps: batch norm folded, bias, residual and activation in the convolution's epilogue.
//!
//! The steps are what executors run; they hold their own weights and need no further check.

use super::{
    graph::{Edges, Graph, Node, Op, Shape, ValueId, Window},
    shapes::GraphError,
    weights::{Weights, WeightsError},
};

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

/// A bias for each class of pixels: what a batch norm before a zero-padded convolution leaves of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Border {
    /// Row class, column class, channel out.
    pub values: Vec<f32>,
    pub row_class: Vec<u8>,
    pub column_class: Vec<u8>,
    pub column_classes: usize,
}

/// A convolution and all that follows it in the same pass: `activation(convolve(x) + bias [+ residual])`.
#[derive(Debug, Clone, PartialEq)]
pub struct Convolution {
    /// Out x in/groups x height x width.
    pub weight: Vec<f32>,
    /// One for each channel out.
    pub bias: Vec<f32>,
    /// In place of `bias`.
    pub border: Option<Border>,
    pub window: Window,
    pub padding: Edges,
    pub groups: usize,
    /// The step's second operand is added before the activation.
    pub residual: bool,
    pub activation: Activation,
}

/// What a step does; as the operations of [`Op`], a fully connected layer being a convolution of a 1x1 image.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Convolution(Convolution),
    Affine {
        scale: Vec<f32>,
        shift: Vec<f32>,
    },
    Activate(Activation),
    Add(Activation),
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

/// One step: values in, one value out.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub action: Action,
    pub inputs: Vec<ValueId>,
    pub output: ValueId,
    /// Values that no later step needs.
    pub frees: Vec<ValueId>,
}

/// Steps in the order to run them.
#[derive(Debug, Clone)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// Of every value; values that fusing removed keep theirs.
    pub shapes: Vec<Shape>,
    pub output: ValueId,
}

impl Plan {
    /// Checks the graph and fuses what can be fused.
    pub fn new(graph: &Graph, weights: &Weights) -> Result<Self, GraphError> {
        let shapes = graph.shapes(weights)?;
        let mut planner = Planner { graph, weights, uses: uses(graph), done: vec![false; graph.nodes.len()] };
        let mut steps = Vec::with_capacity(graph.nodes.len());
        for index in 0..graph.nodes.len() {
            if !planner.done[index] {
                let step = planner.step(index).map_err(|fault| GraphError::Node {
                    node: index,
                    op: graph.nodes[index].op.name(),
                    fault: fault.into(),
                })?;
                steps.push(step);
            }
        }
        free_early(&mut steps, graph.output);
        Ok(Self { steps, shapes, output: graph.output })
    }

    /// Multiplications and additions for one image, each counted.
    pub fn flops(&self) -> u64 {
        self.steps
            .iter()
            .map(|step| match &step.action {
                Action::Convolution(c) => {
                    let out = self.shapes[step.output];
                    2 * (out.height * out.width * c.weight.len()) as u64
                }
                _ => 0,
            })
            .sum()
    }
}

struct Planner<'a> {
    graph: &'a Graph,
    weights: &'a Weights,
    /// The nodes that read each value.
    uses: Vec<Vec<usize>>,
    done: Vec<bool>,
}

impl Planner<'_> {
    fn step(&mut self, index: usize) -> Result<Step, WeightsError> {
        self.done[index] = true;
        let Node { op, inputs } = &self.graph.nodes[index];
        let mut inputs = inputs.clone();
        let mut output = index + 1;
        let action = match op {
            Op::Convolution { weight, bias, window, padding, groups } => {
                let weight = self.weights.get(weight)?;
                let out = weight.shape()[0];
                let bias = match bias {
                    Some(bias) => self.weights.get(bias)?.values().to_vec(),
                    None => vec![0.0; out],
                };
                let mut convolution = Convolution {
                    weight: weight.values().to_vec(),
                    bias,
                    border: None,
                    window: *window,
                    padding: *padding,
                    groups: *groups,
                    residual: false,
                    activation: Activation::Identity,
                };
                self.fuse(&mut convolution, &mut inputs, &mut output)?;
                Action::Convolution(convolution)
            }
            Op::FullyConnected { weight, bias } => {
                let weight = self.weights.get(weight)?;
                let bias = match bias {
                    Some(bias) => self.weights.get(bias)?.values().to_vec(),
                    None => vec![0.0; weight.shape()[0]],
                };
                let mut convolution = Convolution {
                    weight: weight.values().to_vec(),
                    bias,
                    border: None,
                    window: Window::square(1, 1),
                    padding: Edges::NONE,
                    groups: 1,
                    residual: false,
                    activation: Activation::Identity,
                };
                self.fuse(&mut convolution, &mut inputs, &mut output)?;
                Action::Convolution(convolution)
            }
            Op::Affine { scale, shift } => Action::Affine {
                scale: self.weights.get(scale)?.values().to_vec(),
                shift: self.weights.get(shift)?.values().to_vec(),
            },
            Op::Relu | Op::LeakyRelu { .. } | Op::PRelu { .. } => {
                Action::Activate(self.activation(op)?.unwrap_or(Activation::Identity))
            }
            Op::Add => Action::Add(self.fuse_activation(&mut output)?),
            Op::MaxPool { window, padding } => Action::MaxPool { window: *window, padding: *padding },
            Op::AveragePool { window } => Action::AveragePool { window: *window },
            Op::GlobalAveragePool => Action::GlobalAveragePool,
            Op::PadChannels { .. } => Action::Pad { edges: Edges::NONE },
            Op::PadSpatial { edges } => Action::Pad { edges: *edges },
            Op::Flatten => Action::Flatten,
        };
        Ok(Step { action, inputs, output, frees: vec![] })
    }

    /// Takes affine, add and activation into the convolution as far as nobody else reads what lies between.
    fn fuse(
        &mut self,
        c: &mut Convolution,
        inputs: &mut Vec<ValueId>,
        output: &mut ValueId,
    ) -> Result<(), WeightsError> {
        while let Some(next) = self.sole_reader(*output) {
            let Op::Affine { scale, shift } = &self.graph.nodes[next].op else { break };
            let (scale, shift) = (self.weights.get(scale)?.values(), self.weights.get(shift)?.values());
            let each = c.weight.len() / c.bias.len();
            for (filter, scale) in c.weight.chunks_exact_mut(each).zip(scale) {
                filter.iter_mut().for_each(|w| *w *= scale);
            }
            for ((bias, scale), shift) in c.bias.iter_mut().zip(scale).zip(shift) {
                *bias = *bias * scale + shift;
            }
            self.done[next] = true;
            *output = next + 1;
        }
        if let Some(next) = self.sole_reader(*output)
            && let Node { op: Op::Add, inputs: operands } = &self.graph.nodes[next]
            && let Some(&other) = operands.iter().find(|&&id| id != *output)
            && self.is_computed(other)
        {
            c.residual = true;
            inputs.push(other);
            self.done[next] = true;
            *output = next + 1;
        }
        c.activation = self.fuse_activation(output)?;
        Ok(())
    }

    fn fuse_activation(&mut self, output: &mut ValueId) -> Result<Activation, WeightsError> {
        let Some(next) = self.sole_reader(*output) else { return Ok(Activation::Identity) };
        let Some(activation) = self.activation(&self.graph.nodes[next].op)? else { return Ok(Activation::Identity) };
        self.done[next] = true;
        *output = next + 1;
        Ok(activation)
    }

    fn activation(&self, op: &Op) -> Result<Option<Activation>, WeightsError> {
        Ok(match op {
            Op::Relu => Some(Activation::Relu),
            Op::LeakyRelu { slope } => Some(Activation::Leaky(*slope)),
            Op::PRelu { slope } => Some(Activation::PRelu(self.weights.get(slope)?.values().to_vec())),
            _ => None,
        })
    }

    fn sole_reader(&self, value: ValueId) -> Option<usize> {
        match self.uses[value].as_slice() {
            &[reader] if value != self.graph.output => Some(reader),
            _ => None,
        }
    }

    /// Steps run in the order of the nodes, so what a finished node gives is there.
    fn is_computed(&self, value: ValueId) -> bool {
        value.checked_sub(1).is_none_or(|node| self.done[node])
    }
}

/// The nodes that read each value; one that reads a value twice stands there twice.
fn uses(graph: &Graph) -> Vec<Vec<usize>> {
    let mut uses = vec![vec![]; graph.nodes.len() + 1];
    for (index, node) in graph.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|&id| uses[id].push(index));
    }
    uses
}

fn free_early(steps: &mut [Step], output: ValueId) {
    let mut needed = vec![output];
    for step in steps.iter_mut().rev() {
        for &id in step.inputs.iter().chain([&step.output]) {
            if !needed.contains(&id) {
                needed.push(id);
                step.frees.push(id);
            }
        }
    }
}
