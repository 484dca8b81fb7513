//! Passes that take what follows a convolution into its epilogue.

use super::{Action, Activation, Step, fold::is_bare, work::Work};
use crate::graph::{Shape, ValueId};

/// An addition goes into the convolution that makes one of its operands, for it alone; of two, into the later one. The
/// fused step stands where the addition stood: there both operands are computed.
pub fn fuse_residual(steps: Vec<Step>, shapes: &[Shape], output: ValueId) -> Vec<Step> {
    let mut work = Work::new(steps, shapes, output);
    for index in 0..work.steps.len() {
        let Some(Step { action: Action::Add(Activation::Identity), inputs, .. }) = &work.steps[index] else { continue };
        let &[a, b] = inputs.as_slice() else { continue };
        let bare = |value| work.sole_producer(value).filter(|&before| is_bare(work.action(before)));
        let Some((before, other)) = [(bare(a), b), (bare(b), a)]
            .into_iter()
            .filter_map(|(before, other)| Some((before?, other)))
            .max_by_key(|&(before, _)| before)
        else {
            continue;
        };
        let (Some(mut step), Some(add)) = (work.steps[before].take(), work.steps[index].take()) else { continue };
        if let Action::Convolution(c) = &mut step.action {
            c.residual = true;
        }
        step.inputs.push(other);
        step.output = add.output;
        step.parts.extend(add.parts);
        work.place(index, step);
    }
    work.finish()
}

/// An activation goes into the convolution or addition before it, if nobody else reads what that gives.
pub fn fuse_activation(steps: Vec<Step>, shapes: &[Shape], output: ValueId) -> Vec<Step> {
    let mut work = Work::new(steps, shapes, output);
    for index in 0..work.steps.len() {
        let Some(Step { action: Action::Activate(_), inputs, .. }) = &work.steps[index] else { continue };
        let Some(before) = work.sole_producer(inputs[0]) else { continue };
        let free = match work.action(before) {
            Some(Action::Convolution(c)) => c.activation == Activation::Identity,
            Some(Action::Add(activation)) => *activation == Activation::Identity,
            _ => false,
        };
        if !free {
            continue;
        }
        let (Some(mut step), Some(last)) = (work.steps[before].take(), work.steps[index].take()) else { continue };
        if let (
            Action::Convolution(super::Convolution { activation, .. }) | Action::Add(activation),
            Action::Activate(a),
        ) = (&mut step.action, last.action)
        {
            *activation = a;
        }
        step.output = last.output;
        step.parts.extend(last.parts);
        work.place(before, step);
    }
    work.finish()
}
