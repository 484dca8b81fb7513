//! Memory that values use in turn.

/// Slots, each as large as the largest value that lies in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots {
    pub sizes: Vec<usize>,
    free: Vec<usize>,
}

impl Slots {
    /// A slot that is free: the smallest that is large enough; else the largest grows.
    pub fn take(&mut self, need: usize) -> usize {
        let fit = |&slot: &usize| (self.sizes[slot] < need, self.sizes[slot].abs_diff(need));
        let slot = self.free.iter().copied().min_by_key(fit).unwrap_or_else(|| {
            self.sizes.push(0);
            self.sizes.len() - 1
        });
        self.free.retain(|&other| other != slot);
        self.sizes[slot] = self.sizes[slot].max(need);
        slot
    }

    /// What lay there is needed no more; it may be said twice.
    pub fn give_back(&mut self, slot: usize) {
        if !self.free.contains(&slot) {
            self.free.push(slot);
        }
    }
}
