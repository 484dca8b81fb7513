//! What follows a convolution's sums in the same pass: bias, residual, activation.

use super::layout::{Line, blocks, per_channel};
use crate::model::plan::{Activation, Convolution};

pub struct Epilogue {
    /// Class, block.
    bias: Vec<Line>,
    border: Option<Classes>,
    slope: Vec<Line>,
    /// The residual is added before the activation.
    pub residual: bool,
    blocks: usize,
}

/// The rows' and columns' part of a pixel's class.
struct Classes {
    row: Vec<u8>,
    column: Vec<u8>,
    columns: usize,
}

impl Epilogue {
    pub fn new(c: &Convolution) -> Self {
        let each = c.bias.len();
        let (bias, border) = match &c.border {
            None => (per_channel(&c.bias), None),
            Some(border) => {
                let (row, column) = (border.row_class.clone(), border.column_class.clone());
                let classes = Classes { row, column, columns: border.column_classes };
                (border.values.chunks_exact(each).flat_map(per_channel).collect(), Some(classes))
            }
        };
        Self { bias, border, slope: slopes(&c.activation, each), residual: c.residual, blocks: blocks(each) }
    }

    /// Whether all pixels have one bias.
    pub fn uniform(&self) -> bool {
        self.border.is_none()
    }

    /// Of one block's channels at a pixel of the image.
    #[inline(always)]
    pub fn bias(&self, block: usize, row: usize, column: usize) -> &Line {
        let class = match &self.border {
            None => 0,
            Some(classes) => usize::from(classes.row[row]) * classes.columns + usize::from(classes.column[column]),
        };
        &self.bias[class * self.blocks + block]
    }

    #[inline(always)]
    pub fn slope(&self, block: usize) -> &Line {
        &self.slope[block]
    }
}

/// Negative values are multiplied by it, which says every activation.
pub fn slopes(activation: &Activation, channels: usize) -> Vec<Line> {
    match activation {
        Activation::Identity => per_channel(&vec![1.0; channels]),
        Activation::Relu => per_channel(&vec![0.0; channels]),
        Activation::Leaky(slope) => per_channel(&vec![*slope; channels]),
        Activation::PRelu(slopes) => per_channel(slopes),
    }
}

#[inline(always)]
pub fn add(a: &Line, b: &Line) -> Line {
    let mut y = *a;
    for (y, b) in y.0.iter_mut().zip(&b.0) {
        *y += b;
    }
    y
}

#[inline(always)]
pub fn activate(mut x: Line, slope: &Line) -> Line {
    for (x, slope) in x.0.iter_mut().zip(&slope.0) {
        *x = if *x > 0.0 { *x } else { slope * *x };
    }
    x
}
