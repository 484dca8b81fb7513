//! Passes that take affine steps (batch norm, normalisation) into the convolutions around them. All are exact but for
//! rounding.

use super::{Action, Activation, Convolution, Prologue, Step, work::Work};
use crate::graph::{Edges, Shape, ValueId, Window};

/// Sides of a kernel that stands for a fully connected layer, at most.
const MAX_WHOLE: usize = 64;

/// Two in a row become one.
pub fn merge_affines(steps: Vec<Step>, shapes: &[Shape], output: ValueId) -> Vec<Step> {
    let mut work = Work::new(steps, shapes, output);
    for index in 0..work.steps.len() {
        let Some(before) = affine_before(&work, index) else { continue };
        let (Some(first), Some(mut second)) = (work.steps[before].take(), work.steps[index].take()) else { continue };
        if let (Action::Affine { scale: s1, shift: t1 }, Action::Affine { scale, shift }) =
            (first.action, &mut second.action)
        {
            shift.iter_mut().zip(scale.iter()).zip(&t1).for_each(|((t2, s2), t1)| *t2 += s2 * t1);
            scale.iter_mut().zip(&s1).for_each(|(s2, s1)| *s2 *= s1);
        }
        second.inputs = first.inputs;
        second.parts.splice(0..0, first.parts);
        work.place(index, second);
    }
    work.finish()
}

/// The affine step that makes the operand of the affine step `index`, for it alone.
fn affine_before(work: &Work, index: usize) -> Option<usize> {
    let step = work.steps[index].as_ref().filter(|step| matches!(step.action, Action::Affine { .. }))?;
    let before = work.sole_producer(step.inputs[0])?;
    work.action(before).filter(|action| matches!(action, Action::Affine { .. })).map(|_| before)
}

/// An affine step goes into the convolution before it, if nobody else reads what that gives.
pub fn fold_back(steps: Vec<Step>, shapes: &[Shape], output: ValueId) -> Vec<Step> {
    let mut work = Work::new(steps, shapes, output);
    for index in 0..work.steps.len() {
        let Some(Step { action: Action::Affine { .. }, inputs, .. }) = &work.steps[index] else { continue };
        let Some(before) = work.sole_producer(inputs[0]).filter(|&before| is_bare(work.action(before))) else {
            continue;
        };
        let (Some(mut step), Some(affine)) = (work.steps[before].take(), work.steps[index].take()) else { continue };
        if let (Action::Convolution(c), Action::Affine { scale, shift }) = (&mut step.action, &affine.action) {
            scale_outputs(c, scale, shift);
        }
        step.output = affine.output;
        step.parts.extend(affine.parts);
        work.place(before, step);
    }
    work.finish()
}

/// A convolution whose epilogue is still empty.
pub fn is_bare(action: Option<&Action>) -> bool {
    matches!(action, Some(Action::Convolution(c)) if !c.residual && c.activation == Activation::Identity)
}

fn scale_outputs(c: &mut Convolution, scale: &[f32], shift: &[f32]) {
    let each = c.weight.len() / c.bias.len();
    for (filter, scale) in c.weight.chunks_exact_mut(each).zip(scale) {
        filter.iter_mut().for_each(|w| *w *= scale);
    }
    let classes = c.border.iter_mut().flat_map(|border| border.values.chunks_exact_mut(scale.len()));
    for values in classes.chain([c.bias.as_mut_slice()]) {
        values.iter_mut().zip(scale).zip(shift).for_each(|((value, scale), shift)| *value = *value * scale + shift);
    }
}

/// An affine step becomes a prologue of the convolutions after it, if they alone read what it gives; who else reads what
/// it reads does not matter.
pub fn fold_forward(steps: Vec<Step>, shapes: &[Shape], output: ValueId) -> Vec<Step> {
    let mut work = Work::new(steps, shapes, output);
    for index in 0..work.steps.len() {
        let Some(Step { action: Action::Affine { .. }, output: value, .. }) = &work.steps[index] else { continue };
        let Some(readers) = work.first_readers(*value) else { continue };
        if !readers.iter().all(|&reader| matches!(work.action(reader), Some(Action::Convolution(_)))) {
            continue;
        }
        let Some(affine) = work.steps[index].take() else { continue };
        let Action::Affine { scale, shift } = &affine.action else { continue };
        for reader in readers {
            let Some(step) = &mut work.steps[reader] else { continue };
            if let Action::Convolution(c) = &mut step.action {
                let prologue = Prologue { value: affine.output, scale: scale.clone(), shift: shift.clone() };
                c.prologue = Some(prologue.then(c.prologue.take()));
            }
            step.inputs[0] = affine.inputs[0];
            step.parts.splice(0..0, affine.parts.iter().copied());
        }
    }
    work.finish()
}

/// A fully connected layer of a flattened image is a convolution whose window is the whole image: its weights already lie in
/// the order channel, row, column.
pub fn flatten_into_convolution(steps: Vec<Step>, shapes: &[Shape], output: ValueId) -> Vec<Step> {
    let mut work = Work::new(steps, shapes, output);
    for index in 0..work.steps.len() {
        let Some(Step { action: Action::Flatten, inputs, output: value, .. }) = &work.steps[index] else { continue };
        let image = shapes[inputs[0]];
        let Some(readers) = work.first_readers(*value) else { continue };
        let full = |&reader: &usize| matches!(work.action(reader), Some(Action::Convolution(c)) if c.groups == 1 && c.padding == Edges::NONE);
        if image.height.max(image.width) > MAX_WHOLE || !readers.iter().all(full) {
            continue;
        }
        let Some(flatten) = work.steps[index].take() else { continue };
        for reader in readers {
            let Some(step) = &mut work.steps[reader] else { continue };
            if let Action::Convolution(c) = &mut step.action {
                // One of flattened features is not one of channels.
                c.fold_prologue(shapes[flatten.output], shapes[step.output]);
                c.window = Window { height: image.height, width: image.width, stride: 1 };
            }
            step.inputs[0] = flatten.inputs[0];
            step.parts.splice(0..0, flatten.parts.iter().copied());
        }
    }
    work.finish()
}
