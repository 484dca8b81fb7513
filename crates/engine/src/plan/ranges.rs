//! Between which values each input of a convolution lies: what the integer network needs to know. Measured once, on faces, and constant
//! from then on: a range of each batch would make a face's template depend on its neighbours.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Action, Plan};
use crate::graph::ValueId;

/// The greatest magnitude of a range's end: beyond it sums may not be finite.
const MAX_MAGNITUDE: f32 = 1e30;

/// The values that `value` (numbered as in the graph) takes. In a card: `[value, low, high]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "(ValueId, f32, f32)", into = "(ValueId, f32, f32)")]
pub struct ActivationRange {
    pub value: ValueId,
    /// At most 0: zeros of the padding are among the values.
    pub low: f32,
    /// At least 0.
    pub high: f32,
}

impl From<(ValueId, f32, f32)> for ActivationRange {
    fn from((value, low, high): (ValueId, f32, f32)) -> Self {
        Self { value, low, high }
    }
}

impl From<ActivationRange> for (ValueId, f32, f32) {
    fn from(range: ActivationRange) -> Self {
        (range.value, range.low, range.high)
    }
}

/// Why ranges are not those of a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error("int8 needs activation ranges in the card: `vultus model calibrate` measures them on faces")]
    None,
    #[error(
        "there are activation ranges for {got} values, the network has {expected}: `vultus model calibrate` measures them anew"
    )]
    Count { expected: usize, got: usize },
    #[error("the activation ranges have none for value {0}")]
    Missing(ValueId),
    #[error("the activation range of value {0}: expected finite numbers, the first not above 0, the second not below")]
    Ends(ValueId),
}

impl ActivationRange {
    /// Finite, and 0 is in it.
    pub fn is_good(&self) -> bool {
        (-MAX_MAGNITUDE..=0.0).contains(&self.low) && (0.0..=MAX_MAGNITUDE).contains(&self.high)
    }
}

/// Ranges that hold all that each of `parts` hold: of the same values, each once.
pub fn union<'a>(parts: impl IntoIterator<Item = &'a [ActivationRange]>) -> Vec<ActivationRange> {
    let mut all: BTreeMap<ValueId, ActivationRange> = BTreeMap::new();
    for range in parts.into_iter().flatten() {
        let ActivationRange { low, high, .. } = all.entry(range.value).or_insert(*range);
        (*low, *high) = (low.min(range.low), high.max(range.high));
    }
    all.into_values().collect()
}

impl Plan {
    /// The step that convolves the input's pixels as they come: the only one that reads the input, without groups.
    pub fn stem(&self) -> Option<usize> {
        let mut readers = self.steps.iter().enumerate().filter(|(_, step)| step.inputs.contains(&0));
        let (at, step) = readers.next().filter(|_| readers.next().is_none() && self.output != 0)?;
        let dense = matches!(&step.action, Action::Convolution(c) if c.groups == 1);
        (dense && step.inputs == [0]).then_some(at)
    }

    /// The values that the integer network codes, each once, in the order in which they are read first: the inputs of all
    /// convolutions but [`Self::stem`].
    pub fn code_values(&self) -> Vec<ValueId> {
        let (stem, mut values) = (self.stem(), Vec::new());
        for (at, step) in self.steps.iter().enumerate() {
            let (Action::Convolution(c), Some(&id)) = (&step.action, step.inputs.first()) else { continue };
            let value = c.convolved(id);
            if stem != Some(at) && !values.contains(&value) {
                values.push(value);
            }
        }
        values
    }

    /// The plan with the ranges of all [`Self::code_values`], each once: ready for int8.
    pub fn with_ranges(mut self, ranges: &[ActivationRange]) -> Result<Self, RangeError> {
        let values = self.code_values();
        if ranges.is_empty() && !values.is_empty() {
            return Err(RangeError::None);
        }
        if ranges.len() != values.len() {
            return Err(RangeError::Count { expected: values.len(), got: ranges.len() });
        }
        let range_of = |value: ValueId| {
            let range = ranges.iter().find(|range| range.value == value).ok_or(RangeError::Missing(value))?;
            if range.is_good() { Ok(*range) } else { Err(RangeError::Ends(value)) }
        };
        self.ranges = values.into_iter().map(range_of).collect::<Result<_, _>>()?;
        Ok(self)
    }

    /// Of a value, where it is known.
    pub fn range(&self, value: ValueId) -> Option<&ActivationRange> {
        self.ranges.iter().find(|range| range.value == value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_union_holds_what_its_parts_hold() {
        let range = |value, low, high| ActivationRange { value, low, high };
        let (a, b) = ([range(7, -1.0, 2.0), range(3, 0.0, 5.0)], [range(3, -0.5, 4.0), range(7, -3.0, 0.0)]);
        assert_eq!(union([&a[..], &b]), [range(3, -0.5, 5.0), range(7, -3.0, 2.0)]);
        assert_eq!(union([&a[..]]), [range(3, 0.0, 5.0), range(7, -1.0, 2.0)]);
    }
}
