//! What happens to a convolution's input first: a batch norm that stands before it.
//!
//! An executor that rounds the input does it while rounding, so that what is rounded is normalised, as large as it may lie
//! from zero before. One that does not folds it into weights and bias: exact but for the rounding of f32, and at no cost.

use super::{Border, Convolution};
use crate::graph::{Shape, ValueId};

/// `scale * x + shift` for each channel in, before the padding.
#[derive(Debug, Clone, PartialEq)]
pub struct Prologue {
    /// What it gives, numbered as in the graph.
    pub value: ValueId,
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
}

impl Prologue {
    /// Both in one, which gives what `later` gives.
    pub fn then(self, later: Option<Self>) -> Self {
        let Some(mut later) = later else { return self };
        let first = self.scale.iter().zip(&self.shift);
        for ((scale, shift), (s1, t1)) in later.scale.iter_mut().zip(&mut later.shift).zip(first) {
            *shift += *scale * t1;
            *scale *= s1;
        }
        later
    }
}

impl Convolution {
    /// The value that it convolves, where its step reads `input`.
    pub fn convolved(&self, input: ValueId) -> ValueId {
        self.prologue.as_ref().map_or(input, |prologue| prologue.value)
    }

    /// Takes the prologue into weights and bias, given the shapes of input and output. Zeros of the padding are not
    /// shifted: the bias may differ at the edges from then on.
    pub fn fold_prologue(&mut self, x: Shape, out: Shape) {
        let Some(Prologue { scale, shift, .. }) = self.prologue.take() else { return };
        // With the weights as they are: they multiply the shifted values.
        Border::absorb(self, &shift, x, out);
        let area = self.window.height * self.window.width;
        let (group_in, group_out) = (scale.len() / self.groups, self.bias.len() / self.groups);
        for (o, filter) in self.weight.chunks_exact_mut(group_in * area).enumerate() {
            let scales = scale.iter().skip(o / group_out * group_in);
            for (plane, scale) in filter.chunks_exact_mut(area).zip(scales) {
                plane.iter_mut().for_each(|w| *w *= scale);
            }
        }
    }
}
