//! The operations around dense convolutions, a block of channels at a time: what each does lies in one plane of lines.
//!
//! `x` and `y` are one block's lines of n images, one after the other; shapes were checked when the graph was.

use super::{
    convolve::within,
    epilogue::{activate as activated, add, slopes},
    layout::{LANES, Line, area, blocks, per_channel},
};
use crate::model::{
    graph::{Edges, Shape, Window},
    plan::Convolution,
};

/// `x * scale + shift`.
#[inline(always)]
pub fn affine(x: &[Line], scale: &Line, shift: &Line, y: &mut [Line]) {
    for (y, x) in y.iter_mut().zip(x) {
        for (((y, x), scale), shift) in y.0.iter_mut().zip(&x.0).zip(&scale.0).zip(&shift.0) {
            *y = x * scale + shift;
        }
    }
}

#[inline(always)]
pub fn activate(x: &[Line], slope: &Line, y: &mut [Line]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y = activated(*x, slope));
}

/// `activation(a + b)`.
#[inline(always)]
pub fn sum(a: &[Line], b: &[Line], slope: &Line, y: &mut [Line]) {
    for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
        *y = activated(add(a, b), slope);
    }
}

/// A depthwise convolution with its epilogue.
pub struct Depthwise {
    slide: Slide,
    /// Block, place of the kernel.
    kernel: Vec<Line>,
    bias: Vec<Line>,
    slope: Vec<Line>,
    residual: bool,
}

impl Depthwise {
    pub fn new(c: Convolution, shape: Shape, out: Shape) -> Self {
        let taps = c.window.height * c.window.width;
        let mut kernel = vec![Line::ZERO; blocks(shape.channels) * taps];
        for (channel, weights) in c.weight.chunks_exact(taps).enumerate() {
            for (line, w) in kernel[channel / LANES * taps..].iter_mut().zip(weights) {
                line.0[channel % LANES] = *w;
            }
        }
        let slide = Slide { shape, out, window: c.window, padding: c.padding };
        let (bias, slope) = (per_channel(&c.bias), slopes(&c.activation, c.bias.len()));
        Self { slide, kernel, bias, slope, residual: c.residual }
    }

    #[inline(always)]
    pub fn run(&self, block: usize, x: &[Line], residual: &[Line], y: &mut [Line]) {
        let taps = self.slide.window.height * self.slide.window.width;
        let kernel = &self.kernel[block * taps..][..taps];
        let (bias, slope) = (&self.bias[block], &self.slope[block]);
        let each = |sum: &mut Line, tap: usize, x: &Line| {
            for ((sum, x), w) in sum.0.iter_mut().zip(&x.0).zip(&kernel[tap].0) {
                *sum += x * w;
            }
        };
        let last = |sum: Line, pixel: usize| {
            let sum = add(&sum, bias);
            let sum = if self.residual { add(&sum, &residual[pixel]) } else { sum };
            activated(sum, slope)
        };
        self.slide.run(x, Line::ZERO, each, last, y);
    }
}

/// What slides over the images, and from which shape to which.
#[derive(Clone, Copy)]
pub struct Slide {
    pub shape: Shape,
    pub out: Shape,
    pub window: Window,
    pub padding: Edges,
}

impl Slide {
    /// Padding counts as minus infinity.
    #[inline(always)]
    pub fn max_pool(&self, x: &[Line], y: &mut [Line]) {
        let larger = |y: &mut Line, _, x: &Line| {
            for (y, x) in y.0.iter_mut().zip(&x.0) {
                *y = if *x > *y { *x } else { *y };
            }
        };
        self.run(x, Line([f32::NEG_INFINITY; LANES]), larger, |y, _| y, y);
    }

    /// No padding.
    #[inline(always)]
    pub fn average_pool(&self, x: &[Line], y: &mut [Line]) {
        let taps = (self.window.height * self.window.width) as f32;
        let each = |sum: &mut Line, _, x: &Line| *sum = add(sum, x);
        self.run(x, Line::ZERO, each, |sum, _| Line(sum.0.map(|v| v / taps)), y);
    }

    /// Zeros at the edges; `self.padding` says how many.
    pub fn pad(&self, x: &[Line], y: &mut [Line]) {
        y.fill(Line::ZERO);
        for (y, x) in y.chunks_exact_mut(area(self.out)).zip(x.chunks_exact(area(self.shape))) {
            let rows = y.chunks_exact_mut(self.out.width).skip(self.padding.top);
            for (y, x) in rows.zip(x.chunks_exact(self.shape.width)) {
                y[self.padding.left..][..x.len()].copy_from_slice(x);
            }
        }
    }

    /// For every output pixel: `each(sum, place in the window, line there)` for every place that lies inside of the image,
    /// in order, then `last(sum, its number)`. Sums start as `first`.
    #[inline(always)]
    fn run(
        &self,
        x: &[Line],
        first: Line,
        each: impl Fn(&mut Line, usize, &Line),
        last: impl Fn(Line, usize) -> Line,
        y: &mut [Line],
    ) {
        let Self { shape: Shape { height, width, .. }, out, window, padding } = *self;
        let mut pixel = 0;
        for (x, y) in x.chunks_exact(height * width).zip(y.chunks_exact_mut(area(out))) {
            for (line, y) in y.chunks_exact_mut(out.width).enumerate() {
                let top = line * window.stride;
                let rows = within(top, padding.top, window.height, height);
                for (column, y) in y.iter_mut().enumerate() {
                    let left = column * window.stride;
                    let columns = within(left, padding.left, window.width, width);
                    let mut sum = first;
                    for row in rows.clone() {
                        let start = (top + row - padding.top) * width + left + columns.start - padding.left;
                        let tap = row * window.width + columns.start;
                        for (at, x) in x[start..start + columns.len()].iter().enumerate() {
                            each(&mut sum, tap + at, x);
                        }
                    }
                    *y = last(sum, pixel);
                    pixel += 1;
                }
            }
        }
    }
}

/// Features in the order channel, row, column, for n images.
pub fn flatten(x: &[Line], shape: Shape, n: usize, y: &mut [Line]) {
    let area = area(shape);
    for (block, y) in y.chunks_exact_mut(n).enumerate() {
        for (image, y) in y.iter_mut().enumerate() {
            for (lane, y) in y.0.iter_mut().enumerate() {
                let (channel, at) = ((block * LANES + lane) / area, (block * LANES + lane) % area);
                let line = (channel / LANES * n + image) * area + at;
                *y = if channel < shape.channels { x[line].0[channel % LANES] } else { 0.0 };
            }
        }
    }
}
