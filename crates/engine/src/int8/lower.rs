//! From a plan with its ranges to a program.

use std::collections::BTreeMap;

use super::{
    bounds::{self, Sums, Unproved, exponent},
    number::MOST_F16,
    program::{Convolution, Emit, Form, How, Op, Program, Stem, Step, Tensor, TensorId},
    quantise::{Codes, filter_of, stem_filter_of},
};
use crate::{
    graph::{Shape, ValueId, Window},
    input::{Colour, Input},
    plan::{self, Action, Border, Plan, RangeError},
};

/// The greatest magnitude of a pixel less 128.
const MOST_PIXEL: i64 = 128;

/// Why a plan is no program. Steps count from 0; `action` is the step's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LowerError {
    #[error(transparent)]
    Ranges(#[from] RangeError),
    #[error("takes {got}, expected the 3 colours of {width}x{height} pixels")]
    Input { got: Shape, width: u32, height: u32 },
    #[error("the mean or the scale of the input is not finite")]
    Normalisation,
    #[error("step {step} ({action}): the sum of channel {channel} may not fit in 32 bits")]
    Overflow { step: usize, action: String, channel: usize },
    #[error("step {step} ({action}): what channel {channel} gives may not be finite")]
    NotFinite { step: usize, action: String, channel: usize },
    #[error("value {0}: its batch norm over its activation range's step is not finite")]
    Scale(ValueId),
    #[error("step {step} ({action}): expected one bias for all pixels")]
    Border { step: usize, action: String },
}

impl Program {
    /// The program of a plan that has its ranges ([`Plan::with_ranges`]); `input` is the card's. The same on
    /// every machine.
    ///
    /// # Errors
    /// See [`LowerError`].
    pub fn new(plan: &Plan, input: &Input) -> Result<Self, LowerError> {
        let (got, width, height) = (plan.shapes[0], input.width, input.height);
        if got != Shape::new(3, height as usize, width as usize) {
            return Err(LowerError::Input { got, width, height });
        }
        if !input.scale.is_finite() || !input.mean.iter().all(|mean| mean.is_finite()) {
            return Err(LowerError::Normalisation);
        }
        let live = live(plan);
        let stem = plan.stem();
        let mut lowering =
            Lowering { plan, bounds: vec![f64::INFINITY; plan.shapes.len()], emits: BTreeMap::new(), tensors: vec![] };
        lowering.tensors.push(Tensor { shape: got, form: Form::Pixels, exponent: 0 });
        let ends = |&mean: &f32| [0.0, 255.0].map(|pixel| ((pixel - f64::from(mean)) * f64::from(input.scale)).abs());
        lowering.bounds[0] = input.mean.iter().flat_map(ends).fold(0.0, f64::max);
        let output = lowering.want(plan.output, Form::F32, How::F32);
        let mut bare = Vec::new();
        for (at, step) in plan.steps.iter().enumerate().filter(|(_, step)| live[step.output]) {
            let inputs = lowering.inputs(step, stem == Some(at))?;
            let op = lowering.op(at, stem == Some(at), input)?;
            bare.push((op, inputs, step.output));
        }
        let Lowering { mut emits, tensors, .. } = lowering;
        let normalise = emits.contains_key(&0).then(|| (Op::Normalise, vec![0], 0));
        let steps = normalise.into_iter().chain(bare);
        let steps =
            steps.map(|(op, inputs, value)| Step { op, inputs, emits: emits.remove(&value).unwrap_or_default() });
        Ok(Self { input: input.clone(), steps: steps.collect(), tensors, output })
    }
}

/// Which values the output depends on.
fn live(plan: &Plan) -> Vec<bool> {
    let mut live = vec![false; plan.shapes.len()];
    live[plan.output] = true;
    for step in plan.steps.iter().rev() {
        if live[step.output] {
            step.inputs.iter().for_each(|&id| live[id] = true);
        }
    }
    live
}

struct Lowering<'a> {
    plan: &'a Plan,
    /// The greatest magnitude of each value that is computed, infinite where there is none.
    bounds: Vec<f64>,
    tensors: Vec<Tensor>,
    /// What is read of each value.
    emits: BTreeMap<ValueId, Vec<Emit>>,
}

impl Lowering<'_> {
    /// The tensor that holds a value so; readers of one representation share it.
    fn want(&mut self, value: ValueId, form: Form, how: How) -> TensorId {
        let emits = self.emits.entry(value).or_default();
        let same = |emit: &&Emit| self.tensors[emit.tensor].form == form && emit.how == how;
        if let Some(emit) = emits.iter().find(same) {
            return emit.tensor;
        }
        let tensor = self.tensors.len();
        let exponent = if form == Form::F16 { exponent(self.bounds[value]) } else { 0 };
        self.tensors.push(Tensor { shape: self.plan.shapes[value], form, exponent });
        emits.push(Emit { tensor, how });
        tensor
    }

    fn inputs(&mut self, step: &plan::Step, is_stem: bool) -> Result<Vec<TensorId>, LowerError> {
        let mut inputs = Vec::with_capacity(step.inputs.len());
        for (place, &id) in step.inputs.iter().enumerate() {
            inputs.push(match (&step.action, place) {
                (Action::Convolution(_), 0) if is_stem => 0,
                (Action::Convolution(c), 0) => {
                    let codes = self.codes(c, id)?;
                    let (scale, shift) = codes.of(c.prologue.as_ref(), self.plan.shapes[id].channels);
                    if !scale.iter().chain(&shift).all(|v| v.is_finite()) {
                        return Err(LowerError::Scale(c.convolved(id)));
                    }
                    self.want(id, codes.form, How::Codes { scale, shift })
                }
                // Lengths, their squares and their inverses are vectors: they need the range of f32, and take no room.
                (action, _) if self.plan.shapes[id].is_vector() && !matches!(action, Action::Convolution(_)) => {
                    self.want(id, Form::F32, How::F32)
                }
                _ => self.want(id, Form::F16, How::F16),
            });
        }
        Ok(inputs)
    }

    /// How a convolution's input is coded.
    fn codes(&self, c: &plan::Convolution, input: ValueId) -> Result<Codes, RangeError> {
        let value = c.convolved(input);
        let range = self.plan.range(value).ok_or(RangeError::Missing(value))?;
        if range.is_good() { Ok(Codes::new(range)) } else { Err(RangeError::Ends(value)) }
    }

    /// The operation of a step whose operands were lowered, and the bound of what it gives.
    fn op(&mut self, at: usize, is_stem: bool, input: &Input) -> Result<Op, LowerError> {
        let plan = self.plan;
        let step = &plan.steps[at];
        let (x, out) = (plan.shapes[step.inputs[0]], plan.shapes[step.output]);
        let operand = |place: usize| step.inputs.get(place).map_or(0.0, |&id| self.bounds[id]);
        let with = |op| (op, bounds::of(&step.action, operand(0), operand(1), x.channels));
        let unproved = |unproved| match unproved {
            Unproved::Sum { channel } => LowerError::Overflow { step: at, action: step.action.to_string(), channel },
            Unproved::Result { channel } => {
                LowerError::NotFinite { step: at, action: step.action.to_string(), channel }
            }
        };
        let (op, bound) = match &step.action {
            Action::Convolution(c) if is_stem => {
                let stem = stem(c, input, x, out);
                let of = |channel: usize| stem.bias.values.iter().skip(channel).step_by(out.channels);
                let largest = |channel| of(channel).fold(0.0f32, |most, bias| most.max(bias.abs()));
                let bias: Vec<f32> = (0..out.channels).map(largest).collect();
                let (scale, bias, activation) = (&stem.scale, &bias, &stem.activation);
                let sums = Sums { most: MOST_PIXEL, scale, bias, residual: 0.0, activation };
                let bound = sums.prove(magnitudes(&stem.weight, out.channels)).map_err(unproved)?;
                (Op::Stem(stem), bound)
            }
            Action::Convolution(c) => {
                if c.border.is_some() {
                    return Err(LowerError::Border { step: at, action: step.action.to_string() });
                }
                let codes = self.codes(c, step.inputs[0])?;
                let convolution = convolution(c, codes);
                // What has no bound saturates when it is stored.
                let residual = if operand(1).is_finite() { operand(1) } else { f64::from(MOST_F16) };
                let (scale, bias, activation) = (&convolution.scale, &convolution.bias, &convolution.activation);
                let sums = Sums { most: codes.most, scale, bias, residual, activation };
                let bound = sums.prove(magnitudes(&convolution.weight, out.channels)).map_err(unproved)?;
                (Op::Convolution(convolution), bound)
            }
            Action::Affine { scale, shift } => with(Op::Affine { scale: scale.clone(), shift: shift.clone() }),
            Action::Activate(activation) => with(Op::Activate(activation.clone())),
            Action::Clip { low, high } => with(Op::Clip { low: *low, high: *high }),
            Action::Sigmoid => with(Op::Sigmoid),
            Action::Sqrt => with(Op::Sqrt),
            Action::Reciprocal => with(Op::Reciprocal),
            Action::Add(activation) => with(Op::Add(activation.clone())),
            Action::Multiply => with(Op::Multiply),
            Action::Divide => with(Op::Divide),
            Action::SumChannels => with(Op::SumChannels),
            Action::L2Norm => with(Op::L2Norm),
            Action::RepeatChannel => with(Op::RepeatChannel),
            Action::MaxPool { window, padding } => with(Op::MaxPool { window: *window, padding: *padding }),
            Action::AveragePool { window } => with(Op::AveragePool { window: *window }),
            Action::GlobalAveragePool => {
                with(Op::AveragePool { window: Window { height: x.height, width: x.width, stride: 1 } })
            }
            Action::Pad { edges } => with(Op::Pad { edges: *edges }),
            Action::Flatten => with(Op::Flatten),
        };
        self.bounds[step.output] = bound;
        Ok(op)
    }
}

/// Of each filter, the sum of its weights' magnitudes.
fn magnitudes<T: Copy + Into<i64>>(weight: &[T], filters: usize) -> impl Iterator<Item = i64> {
    weight.chunks_exact(weight.len() / filters).map(|filter| filter.iter().map(|&w| w.into().abs()).sum())
}

fn convolution(c: &plan::Convolution, codes: Codes) -> Convolution {
    let mut weight = Vec::with_capacity(c.weight.len());
    let mut scale = Vec::with_capacity(c.bias.len());
    for filter in c.weight.chunks_exact(c.weight.len() / c.bias.len()) {
        let (bytes, step) = filter_of(filter);
        weight.extend(bytes);
        scale.push((codes.step * step) as f32);
    }
    Convolution {
        weight,
        scale,
        bias: c.bias.clone(),
        window: c.window,
        padding: c.padding,
        groups: c.groups,
        residual: c.residual,
        activation: c.activation.clone(),
    }
}

/// Pixels are taken less 128: the network sees `scale * (pixel - 128) + shift` of each colour, where scale and shift
/// are those of the normalisation and of the prologue in one. The scales go into the weights, the shifts into the
/// bias of each class.
fn stem(c: &plan::Convolution, input: &Input, x: Shape, out: Shape) -> Stem {
    let mut c = c.clone();
    let prologue = c.prologue.take();
    let of = |channel: usize| {
        let one = |values: &[f32]| values.get(channel).map_or(0.0, |&v| f64::from(v));
        let (scale, shift) = prologue.as_ref().map_or((1.0, 0.0), |p| (one(&p.scale), one(&p.shift)));
        let scale = scale * f64::from(input.scale);
        (scale, (128.0 - one(&input.mean)) * scale + shift)
    };
    let normal = [0, 1, 2].map(of);
    Border::absorb(&mut c, &normal.map(|(_, shift)| shift as f32), x, out);
    let uniform = |bias: &[f32]| Border {
        values: bias.to_vec(),
        row_class: vec![0; out.height],
        column_class: vec![0; out.width],
        column_classes: 1,
    };
    let bias = c.border.take().unwrap_or_else(|| uniform(&c.bias));
    let (area, mut weight, mut scale) = (c.window.height * c.window.width, vec![], vec![]);
    for filter in c.weight.chunks_exact(3 * area) {
        let planes = filter.chunks_exact(area).zip(normal);
        let mut planes: Vec<Vec<f64>> =
            planes.map(|(plane, (scale, _))| plane.iter().map(|&w| f64::from(w) * scale).collect()).collect();
        if input.colour == Colour::Bgr {
            planes.reverse();
        }
        let (codes, step) = stem_filter_of(&planes.concat());
        weight.extend(codes);
        scale.push(step as f32);
    }
    Stem { weight, scale, bias, window: c.window, padding: c.padding, activation: c.activation }
}
