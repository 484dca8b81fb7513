//! How each dense convolution of a plan is computed: written out or by Winograd's algorithm, and in which factors.
//!
//! It depends on the network, the precision and the instruction set, never on the batch: alone equals batched.

use super::{
    kernels::{Factors, Level},
    layout::LANES,
    winograd::Winograd,
};
use crate::{
    graph::{Shape, ValueId, Window},
    plan::{Action, Convolution, Plan, Step},
    precision::Precision,
};

/// Of the cost of bf16 by Winograd's algorithm, what bytes written out may cost in its place: as measured, such layers
/// take a tenth longer, and read a sixth of the weights.
const BYTES_MAY_COST: f64 = 1.3;

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
            Self::Dense(Factors::Int8) => "int8",
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
    plan.shapes[0].channels <= 4
        && plan.output != 0
        && plan.steps.iter().filter(|step| step.inputs.contains(&0)).all(|step| {
            matches!(&step.action, Action::Convolution(c) if c.groups == 1) && step.inputs.get(1) != Some(&0)
        })
}

/// The method of each step; `None` for what is no dense convolution. In int8 what does not pay with bytes is computed
/// in bf16, where the level has it, else in f32.
pub fn methods(plan: &Plan, level: Level, precision: Precision) -> Vec<Option<Method>> {
    let interleaved = interleaves(plan);
    let rest = if precision != Precision::F32 && level.has_bf16() { Factors::Bf16 } else { Factors::F32 };
    let method = |step: &Step| {
        let Action::Convolution(c) = &step.action else { return None };
        let (input, out) = (step.inputs[0], plan.shapes[step.output]);
        let shape = plan.shapes[input];
        if c.groups != 1 {
            return None;
        }
        if interleaved && input == 0 {
            return Some(Method::Dense(pairs_or(c, shape, true, rest)));
        }
        let bf16 = rest == Factors::Bf16 && shape.channels.is_multiple_of(2 * LANES);
        let winograd = Winograd::pays(c, out, bf16).map(|side| Method::Winograd { side, bf16 });
        if precision == Precision::Int8 && c.takes_bytes(shape) && pays(c, out, is_shared(plan, input)) {
            return Some(Method::Dense(Factors::Int8));
        }
        Some(winograd.unwrap_or(Method::Dense(pairs_or(c, shape, false, rest))))
    };
    plan.steps.iter().map(method).collect()
}

/// Whether bytes pay: wherever Winograd's algorithm does not, and where it gains little. What a shortcut reads as well
/// is the sum of all blocks before: it is spread more widely than a byte says well, and stays as it is where that costs
/// nothing.
fn pays(c: &Convolution, out: Shape, shared: bool) -> bool {
    match Winograd::cost_in_bf16(c, out) {
        Some(cost) => !shared && Winograd::cost_in_bytes(c, out) <= BYTES_MAY_COST * cost,
        None => true,
    }
}

/// More than one step reads it.
fn is_shared(plan: &Plan, value: ValueId) -> bool {
    plan.steps.iter().flat_map(|step| &step.inputs).filter(|&&id| id == value).count() > 1
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
