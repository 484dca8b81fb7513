//! A plan as a table.

use serde::Serialize;

use super::{Action, Plan, Step};

/// One step of a plan, in words and figures, for one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepLine {
    pub step: usize,
    /// With kernel, stride and groups.
    pub action: String,
    /// Channels x height x width.
    pub input: String,
    pub output: String,
    /// Multiplications and additions, each counted.
    pub flops: u64,
    /// Of its weights, f32.
    pub weight_bytes: u64,
    /// Of its operands and its result, f32.
    pub activation_bytes: u64,
    /// The operations of the graph that it does.
    pub parts: Vec<&'static str>,
}

impl Plan {
    /// The plan for people to read.
    pub fn lines(&self) -> Vec<StepLine> {
        self.steps.iter().enumerate().map(|(index, step)| self.line(index, step)).collect()
    }

    fn line(&self, index: usize, step: &Step) -> StepLine {
        let shape = |id: &usize| self.shapes[*id];
        let touched = step.inputs.iter().chain([&step.output]).filter_map(|id| shape(id).elements());
        let input = step.inputs.first().map(|id| shape(id).to_string()).unwrap_or_default();
        StepLine {
            step: index,
            action: step.action.to_string(),
            input,
            output: shape(&step.output).to_string(),
            flops: self.step_flops(step),
            weight_bytes: 4 * step.action.parameters() as u64,
            activation_bytes: 4 * touched.sum::<usize>() as u64,
            parts: step.parts.clone(),
        }
    }
}

impl Action {
    /// Numbers that it holds.
    pub fn parameters(&self) -> usize {
        match self {
            Self::Convolution(c) => {
                let slopes = if let super::Activation::PRelu(slopes) = &c.activation { slopes.len() } else { 0 };
                c.weight.len()
                    + c.bias.len()
                    + slopes
                    + c.prologue.as_ref().map_or(0, |prologue| 2 * prologue.scale.len())
            }
            Self::Affine { scale, shift } => scale.len() + shift.len(),
            Self::Activate(super::Activation::PRelu(slopes)) | Self::Add(super::Activation::PRelu(slopes)) => {
                slopes.len()
            }
            _ => 0,
        }
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = match self {
            Self::Convolution(c) => {
                write!(f, "convolution {}x{}/{}", c.window.height, c.window.width, c.window.stride)?;
                if c.groups > 1 {
                    write!(f, " in {} groups", c.groups)?;
                }
                if c.prologue.is_some() {
                    f.write_str(", affine first")?;
                }
                return Ok(());
            }
            Self::MaxPool { window, .. } => {
                return write!(f, "max_pool {}x{}/{}", window.height, window.width, window.stride);
            }
            Self::AveragePool { window } => {
                return write!(f, "average_pool {}x{}/{}", window.height, window.width, window.stride);
            }
            Self::Affine { .. } => "affine",
            Self::Activate(_) => "activation",
            Self::Clip { .. } => "clip",
            Self::Sigmoid => "sigmoid",
            Self::Sqrt => "sqrt",
            Self::Reciprocal => "reciprocal",
            Self::Add(_) => "add",
            Self::Multiply => "multiply",
            Self::Divide => "divide",
            Self::SumChannels => "sum_channels",
            Self::L2Norm => "l2_norm",
            Self::RepeatChannel => "repeat_channel",
            Self::GlobalAveragePool => "global_average_pool",
            Self::Pad { .. } => "pad",
            Self::Flatten => "flatten",
        };
        f.write_str(word)
    }
}
