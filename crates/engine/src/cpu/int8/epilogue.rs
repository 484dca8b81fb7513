//! From the whole sums of a convolution to its values: factor and bias, residual, activation.

use super::{
    kernels::{LINE, Lanes},
    layout::{Layout, Pixel, in_lines},
};
use crate::{
    int8::{Convolution, Stem},
    plan::Activation,
};

#[derive(Debug)]
pub struct Epilogue {
    /// What is added to the sums: bytes of codes count from [`Layout::zero`].
    more: Vec<[i32; LINE]>,
    scale: Vec<[f32; LINE]>,
    /// Class, block.
    bias: Vec<[f32; LINE]>,
    border: Option<Classes>,
    /// What the residual's halves are multiplied by, where there is one.
    residual: Option<f32>,
    activation: Curve,
}

/// The rows' and columns' part of a pixel's class.
#[derive(Debug)]
struct Classes {
    row: Vec<u8>,
    column: Vec<u8>,
    columns: usize,
}

/// An activation.
#[derive(Debug)]
pub enum Curve {
    Identity,
    Relu,
    /// For each block of channels.
    Slopes(Vec<[f32; LINE]>),
}

impl Curve {
    pub fn new(activation: &Activation, channels: usize) -> Self {
        match activation {
            Activation::Identity => Self::Identity,
            Activation::Relu => Self::Relu,
            Activation::Leaky(slope) => Self::Slopes(in_lines(&vec![*slope; channels], 0.0)),
            Activation::PRelu(slopes) => Self::Slopes(in_lines(slopes, 0.0)),
        }
    }

    #[inline(always)]
    pub fn apply<L: Lanes>(&self, v: L, block: usize) -> L {
        match self {
            Self::Identity => v,
            Self::Relu => v.max(L::splat(0.0)),
            Self::Slopes(slopes) => v.activate(L::load(&slopes[block])),
        }
    }
}

impl Epilogue {
    /// `sums`: of each channel's weights; `unit`: of the residual.
    pub fn of_convolution(c: &Convolution, sums: Vec<i32>, layout: Layout, unit: f32) -> Self {
        Self {
            more: more(sums, layout),
            scale: in_lines(&c.scale, 0.0),
            bias: in_lines(&c.bias, 0.0),
            border: None,
            residual: c.residual.then_some(unit),
            activation: Curve::new(&c.activation, c.bias.len()),
        }
    }

    /// As [`Self::of_convolution`].
    pub fn of_stem(stem: &Stem, sums: Vec<i32>, layout: Layout) -> Self {
        let (channels, border) = (stem.scale.len(), &stem.bias);
        let (row, column) = (border.row_class.clone(), border.column_class.clone());
        Self {
            more: more(sums, layout),
            scale: in_lines(&stem.scale, 0.0),
            bias: border.values.chunks_exact(channels).flat_map(|values| in_lines(values, 0.0)).collect(),
            border: Some(Classes { row, column, columns: border.column_classes }),
            residual: None,
            activation: Curve::new(&stem.activation, channels),
        }
    }

    /// Lines of channels.
    pub fn blocks(&self) -> usize {
        self.scale.len()
    }

    /// Of a pixel, which is the `number`th of all images, and one block of its channels.
    #[inline(always)]
    pub fn value<L: Lanes>(&self, sums: L::Whole, pixel: Pixel, number: usize, block: usize, residual: &[u16]) -> L {
        let class = self.border.as_ref().map_or(0, |classes| {
            usize::from(classes.row[pixel.row]) * classes.columns + usize::from(classes.column[pixel.column])
        });
        let bias = L::load(&self.bias[class * self.blocks() + block]);
        let mut v = L::of_whole(sums, &self.more[block]).fma(L::load(&self.scale[block]), bias);
        if let Some(unit) = self.residual {
            // The product is exact: this is the sum, rounded once.
            v = L::load_half(&residual.as_chunks().0[number * self.blocks() + block]).fma(L::splat(unit), v);
        }
        self.activation.apply(v, block)
    }
}

fn more(sums: Vec<i32>, layout: Layout) -> Vec<[i32; LINE]> {
    let zero = i32::from(layout.zero());
    in_lines(&sums.iter().map(|sum| -zero * sum).collect::<Vec<_>>(), 0)
}
