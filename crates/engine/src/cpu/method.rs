//! How each dense convolution of a plan is computed: written out or by Winograd's algorithm, and in which factors.
//!
//! It depends on the network and the precision, never on the batch: alone equals batched.

use super::{kernels::Factors, layout::LANES, winograd::Winograd};
use crate::{
    graph::{Shape, Window},
    plan::{Action, Convolution, Plan, Step},
};

/// How a dense convolution is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Sums written out.
    Dense(Factors),
    /// In tiles of this side.
    Winograd { side: usize, bf16: bool },
}

impl Method {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dense(Factors::F32) => "f32",
            Self::Dense(Factors::Bf16) => "bf16",
            Self::Winograd { bf16: false, .. } => "f32, Winograd",
            Self::Winograd { bf16: true, .. } => "bf16, Winograd",
        }
    }

    /// Whether the input is rounded to something less than f32.
    pub const fn rounds(self) -> bool {
        !matches!(self, Self::Dense(Factors::F32) | Self::Winograd { bf16: false, .. })
    }
}

/// The input is read as it comes: image, row, column, channel. Few channels would leave most of a line empty.
pub fn interleaves(plan: &Plan) -> bool {
    plan.shapes[0].channels <= 4 && plan.stem().is_some()
}

/// The method of each step; `None` for what is no dense convolution.
pub fn methods(plan: &Plan, bf16: bool) -> Vec<Option<Method>> {
    let interleaved = interleaves(plan);
    let factors = if bf16 { Factors::Bf16 } else { Factors::F32 };
    let method = |step: &Step| {
        let Action::Convolution(c) = &step.action else { return None };
        let (input, out) = (step.inputs[0], plan.shapes[step.output]);
        let shape = plan.shapes[input];
        if c.groups != 1 {
            return None;
        }
        if interleaved && input == 0 {
            return Some(Method::Dense(pairs_or(c, shape, true, factors)));
        }
        let bf16 = bf16 && shape.channels.is_multiple_of(2 * LANES);
        let winograd = Winograd::pays(c, out, bf16).map(|side| Method::Winograd { side, bf16 });
        Some(winograd.unwrap_or(Method::Dense(pairs_or(c, shape, false, factors))))
    };
    plan.steps.iter().map(method).collect()
}

/// bf16 where the shapes allow it, else f32: pairs of channels must not be cut.
fn pairs_or(c: &Convolution, shape: Shape, interleaved: bool, factors: Factors) -> Factors {
    let Window { stride, .. } = c.window;
    let even = |values: usize| values.is_multiple_of(2);
    let pairs = match interleaved {
        true => {
            let unpadded = c.padding == crate::graph::Edges::NONE;
            unpadded && even(shape.width * shape.channels) && even(stride * shape.channels)
        }
        false => shape.channels.is_multiple_of(2 * LANES),
    };
    if factors == Factors::Bf16 && !pairs { Factors::F32 } else { factors }
}
