//! When values die, and which of them can lie in the same memory.

use super::{Plan, Step};
use crate::model::graph::ValueId;

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
    /// The slot of each value; `None` for values that fusing removed.
    pub slot_of: Vec<Option<usize>>,
    /// Values in each slot, for one image.
    pub slots: Vec<usize>,
}

impl Arena {
    /// A step's result never lies where one of its operands does. Each value takes the free slot that fits best.
    pub fn new(plan: &Plan) -> Self {
        let elements = |id: ValueId| plan.shapes[id].elements().unwrap_or(0);
        let mut arena = Self { slot_of: vec![None; plan.shapes.len()], slots: vec![] };
        let mut free: Vec<usize> = Vec::new();
        arena.take(0, elements(0), &mut free);
        for step in &plan.steps {
            arena.take(step.output, elements(step.output), &mut free);
            free.extend(step.frees.iter().filter_map(|&id| arena.slot_of[id]));
        }
        arena
    }

    fn take(&mut self, value: ValueId, elements: usize, free: &mut Vec<usize>) {
        // The smallest that is large enough; else the largest grows.
        let size = |&&slot: &&usize| {
            let size = self.slots[slot];
            if size >= elements { (0, size) } else { (1, usize::MAX - size) }
        };
        let slot = match free.iter().min_by_key(size).copied() {
            Some(slot) => {
                free.retain(|&other| other != slot);
                self.slots[slot] = self.slots[slot].max(elements);
                slot
            }
            None => {
                self.slots.push(elements);
                self.slots.len() - 1
            }
        };
        self.slot_of[value] = Some(slot);
    }

    /// Values of all slots, for a batch of `images`.
    pub fn elements(&self, images: usize) -> usize {
        self.slots.iter().map(|slot| slot.saturating_mul(images)).fold(0, usize::saturating_add)
    }
}
