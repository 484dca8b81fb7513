//! What every pass works on: the steps with who makes and who reads each value.

use super::{Action, Step};
use crate::graph::{Shape, ValueId};

/// A pass over steps in their order, with the shapes of all values and the value that the plan gives.
pub type Pass = fn(Vec<Step>, &[Shape], ValueId) -> Vec<Step>;

pub struct Work {
    /// `None`: taken into another.
    pub steps: Vec<Option<Step>>,
    /// The step that makes each value.
    producer: Vec<Option<usize>>,
    /// How often each value is read; the plan's output once more.
    reads: Vec<usize>,
}

impl Work {
    pub fn new(steps: Vec<Step>, shapes: &[Shape], output: ValueId) -> Self {
        let (mut producer, mut reads) = (vec![None; shapes.len()], vec![0; shapes.len()]);
        for (index, step) in steps.iter().enumerate() {
            producer[step.output] = Some(index);
            step.inputs.iter().for_each(|&id| reads[id] += 1);
        }
        reads[output] += 1;
        Self { steps: steps.into_iter().map(Some).collect(), producer, reads }
    }

    pub fn finish(self) -> Vec<Step> {
        self.steps.into_iter().flatten().collect()
    }

    pub fn action(&self, index: usize) -> Option<&Action> {
        self.steps.get(index)?.as_ref().map(|step| &step.action)
    }

    /// The step that makes `value`, where exactly one reader takes it.
    pub fn sole_producer(&self, value: ValueId) -> Option<usize> {
        if self.reads[value] == 1 { self.producer[value] } else { None }
    }

    /// Puts `step` in the place `index`; whoever made its output before is gone.
    pub fn place(&mut self, index: usize, step: Step) {
        self.producer[step.output] = Some(index);
        self.steps[index] = Some(step);
    }

    /// Places of the steps that read `value` as their first operand, if there are any and nobody reads it otherwise.
    pub fn first_readers(&self, value: ValueId) -> Option<Vec<usize>> {
        let readers: Vec<usize> = (self.steps.iter().enumerate())
            .filter(|(_, step)| step.as_ref().is_some_and(|step| step.inputs.first() == Some(&value)))
            .map(|(index, _)| index)
            .collect();
        (!readers.is_empty() && readers.len() == self.reads[value]).then_some(readers)
    }
}
