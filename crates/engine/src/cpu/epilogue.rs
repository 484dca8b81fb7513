//! What follows a convolution's sums in the same pass: bias, residual, activation.

use super::{
    kernels::{Pass, Vector},
    layout::{Line, area, blocks, per_channel},
};
use crate::{
    graph::Shape,
    plan::{Activation, Convolution},
};

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

/// Finishes one block's pixels, whose sums lie `width` lines apart.
pub struct Finish<'a> {
    pub epilogue: &'a Epilogue,
    pub block: usize,
    pub sums: &'a [Line],
    pub width: usize,
    /// One for each pixel, where there is a residual.
    pub residual: &'a [Line],
    pub y: &'a mut [Line],
    /// The first pixel, counted through all images.
    pub first: usize,
    pub out: Shape,
}

impl Pass for Finish<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let width = self.width;
        let sums = &self.sums[..(self.y.len() - 1) * width + 1];
        self.apply::<V>(|at| V::load(&sums[at * width]));
    }
}

impl Finish<'_> {
    #[inline(always)]
    fn apply<V: Vector>(self, sum: impl Fn(usize) -> V) {
        let Self { epilogue, block, residual, y, first, out, .. } = self;
        let (bias, slope) = (V::load(epilogue.bias(block, 0, 0)), V::load(epilogue.slope(block)));
        if !epilogue.uniform() {
            let pixel = first % area(out);
            let (mut row, mut column) = (pixel / out.width, pixel % out.width);
            for (at, y) in y.iter_mut().enumerate() {
                let mut v = sum(at).add(V::load(epilogue.bias(block, row, column)));
                if epilogue.residual {
                    v = v.add(V::load(&residual[at]));
                }
                v.activate(slope).store(y);
                column += 1;
                if column == out.width {
                    (row, column) = ((row + 1) % out.height, 0);
                }
            }
        } else if epilogue.residual {
            for at in 0..y.len() {
                sum(at).add(bias).add(V::load(&residual[at])).activate(slope).store(&mut y[at]);
            }
        } else {
            for (at, y) in y.iter_mut().enumerate() {
                sum(at).add(bias).activate(slope).store(y);
            }
        }
    }
}
