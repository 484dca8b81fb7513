//! Which tensors of a program can lie in the same memory.

use super::{Program, TensorId};
use crate::slots::Slots;

/// Memory for all tensors of a program: slots that they use in turn. Nothing lies where an operand of its step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arena {
    pub slot_of: Vec<usize>,
    /// Of each slot, in the executor's unit, for one image. Tensor 0 lies in the first.
    pub slots: Vec<usize>,
}

impl Arena {
    /// `size`: of each tensor.
    pub fn new(program: &Program, size: impl Fn(TensorId) -> usize) -> Self {
        let mut slots = Slots::default();
        let mut slot_of = vec![0; program.tensors.len()];
        slot_of[0] = slots.take(size(0));
        let mut last = vec![0; program.tensors.len()];
        for (at, step) in program.steps.iter().enumerate() {
            step.inputs.iter().for_each(|&id| last[id] = at);
        }
        last[program.output] = usize::MAX;
        for (at, step) in program.steps.iter().enumerate() {
            for emit in &step.emits {
                slot_of[emit.tensor] = slots.take(size(emit.tensor));
            }
            let (read, stored) = (step.inputs.iter().copied(), step.emits.iter().map(|emit| emit.tensor));
            for id in read.filter(|&id| last[id] == at).chain(stored.filter(|&id| last[id] <= at)) {
                slots.give_back(slot_of[id]);
            }
        }
        Self { slot_of, slots: slots.sizes }
    }
}
