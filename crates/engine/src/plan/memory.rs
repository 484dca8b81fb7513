//! When values die, and which of them can lie in the same memory.

use super::{Plan, Step};
use crate::{graph::ValueId, slots::Slots};

/// Says after which step each value is needed no more.
pub fn free_early(mut steps: Vec<Step>, output: ValueId) -> Vec<Step> {
    let mut needed = vec![output];
    for step in steps.iter_mut().rev() {
        step.frees.clear();
        for &id in step.inputs.iter().chain([&step.output]) {
            if !needed.contains(&id) {
                needed.push(id);
                step.frees.push(id);
            }
        }
    }
    steps
}

/// Memory for all activations of a plan: slots that values use in turn. Made once, it serves every batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arena {
    /// The slot of each value; `None` for values that fusing removed. The input's is 0.
    pub slot_of: Vec<Option<usize>>,
    /// The size of each slot, for one image.
    pub slots: Vec<usize>,
}

impl Arena {
    /// In values.
    pub fn of(plan: &Plan) -> Self {
        Self::new(&plan.steps, plan.shapes.len(), |id| plan.shapes[id].elements().unwrap_or(0))
    }

    /// `values`: how many there are; `size`: of each, in the executor's unit. A step's result never lies where one of its
    /// operands does. Each value takes the free slot that fits best.
    pub fn new(steps: &[Step], values: usize, size: impl Fn(ValueId) -> usize) -> Self {
        let mut slots = Slots::default();
        let mut slot_of = vec![None; values];
        slot_of[0] = Some(slots.take(size(0)));
        for step in steps {
            slot_of[step.output] = Some(slots.take(size(step.output)));
            step.frees.iter().filter_map(|&id| slot_of[id]).for_each(|slot| slots.give_back(slot));
        }
        Self { slot_of, slots: slots.sizes }
    }

    /// Of all slots, for a batch of `images`.
    pub fn elements(&self, images: usize) -> usize {
        self.slots.iter().map(|slot| slot.saturating_mul(images)).fold(0, usize::saturating_add)
    }
}
