//! A step for every node, with its weights.

use std::collections::HashMap;

use super::{Action, Activation, Convolution, Step};
use crate::{
    graph::{Edges, Graph, Node, Op, Window},
    shapes::GraphError,
    weights::{Weights, WeightsError},
};

/// The graph was checked with these weights.
pub fn lower(graph: &Graph, weights: Weights) -> Result<Vec<Step>, GraphError> {
    let mut tensors = Tensors { uses: HashMap::new(), weights };
    for name in graph.nodes.iter().flat_map(|node| names(&node.op)) {
        *tensors.uses.entry(name).or_default() += 1;
    }
    let step = |(index, node): (usize, &Node)| {
        let failed = |fault: WeightsError| GraphError::Node { node: index, op: node.op.name(), fault: fault.into() };
        let action = action(&node.op, &mut tensors).map_err(failed)?;
        Ok(Step { action, inputs: node.inputs.clone(), output: index + 1, frees: vec![], parts: vec![node.op.name()] })
    };
    graph.nodes.iter().enumerate().map(step).collect()
}

/// The tensors that an operation names.
fn names(op: &Op) -> Vec<&str> {
    let named = match op {
        Op::Convolution { weight, bias, .. } | Op::FullyConnected { weight, bias } => [Some(weight), bias.as_ref()],
        Op::Affine { scale, shift } => [Some(scale), Some(shift)],
        Op::PRelu { slope } => [Some(slope), None],
        _ => [None, None],
    };
    named.into_iter().flatten().map(String::as_str).collect()
}

struct Tensors<'a> {
    /// How often each is still needed.
    uses: HashMap<&'a str, usize>,
    weights: Weights,
}

impl Tensors<'_> {
    /// Moves the values out where nobody needs the tensor any more.
    fn take(&mut self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let left = self.uses.get_mut(name).map_or(0, |uses| {
            *uses = uses.saturating_sub(1);
            *uses
        });
        if left > 0 {
            return Ok(self.weights.get(name)?.values().to_vec());
        }
        Ok(self.weights.take(name)?.into_parts().1)
    }

    fn convolution(
        &mut self,
        (weight, bias): (&str, Option<&String>),
        window: Window,
        padding: Edges,
        groups: usize,
    ) -> Result<Action, WeightsError> {
        let out = self.weights.get(weight)?.shape().first().copied().unwrap_or(0);
        let bias = bias.map_or_else(|| Ok(vec![0.0; out]), |bias| self.take(bias))?;
        let weight = self.take(weight)?;
        let (residual, activation) = (false, Activation::Identity);
        Ok(Action::Convolution(Convolution {
            prologue: None,
            weight,
            bias,
            border: None,
            window,
            padding,
            groups,
            residual,
            activation,
        }))
    }
}

fn action(op: &Op, tensors: &mut Tensors<'_>) -> Result<Action, WeightsError> {
    Ok(match op {
        Op::Convolution { weight, bias, window, padding, groups } => {
            tensors.convolution((weight, bias.as_ref()), *window, *padding, *groups)?
        }
        Op::FullyConnected { weight, bias } => {
            tensors.convolution((weight, bias.as_ref()), Window::square(1, 1), Edges::NONE, 1)?
        }
        Op::Affine { scale, shift } => Action::Affine { scale: tensors.take(scale)?, shift: tensors.take(shift)? },
        Op::Relu => Action::Activate(Activation::Relu),
        Op::LeakyRelu { slope } => Action::Activate(Activation::Leaky(*slope)),
        Op::PRelu { slope } => Action::Activate(Activation::PRelu(tensors.take(slope)?)),
        Op::Clip { low, high } => Action::Clip { low: *low, high: *high },
        Op::Sigmoid => Action::Sigmoid,
        Op::Sqrt => Action::Sqrt,
        Op::Reciprocal => Action::Reciprocal,
        Op::Add => Action::Add(Activation::Identity),
        Op::Multiply => Action::Multiply,
        Op::Divide => Action::Divide,
        Op::SumChannels => Action::SumChannels,
        Op::L2Norm => Action::L2Norm,
        Op::RepeatChannel { .. } => Action::RepeatChannel,
        Op::MaxPool { window, padding } => Action::MaxPool { window: *window, padding: *padding },
        Op::AveragePool { window } => Action::AveragePool { window: *window },
        Op::GlobalAveragePool => Action::GlobalAveragePool,
        Op::PadChannels { .. } => Action::Pad { edges: Edges::NONE },
        Op::PadSpatial { edges } => Action::Pad { edges: *edges },
        Op::Flatten => Action::Flatten,
    })
}
