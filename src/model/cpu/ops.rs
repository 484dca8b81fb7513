//! The operations around dense convolutions, a block of channels at a time: what each does lies in one plane of lines.
//!
//! `x` and `y` are one block's lines of n images, one after the other; shapes were checked when the graph was.

use super::{
    convolve::within,
    epilogue::slopes,
    kernels::Vector,
    layout::{LANES, Line, area, blocks, per_channel},
};
use crate::model::{
    graph::{Edges, Shape, Window},
    plan::Convolution,
};

/// `x * scale + shift`.
#[inline(always)]
pub fn affine<V: Vector>(x: &[Line], scale: &Line, shift: &Line, y: &mut [Line]) {
    let (scale, shift) = (V::load(scale), V::load(shift));
    for (y, x) in y.iter_mut().zip(x) {
        V::load(x).mul(scale).add(shift).store(y);
    }
}

#[inline(always)]
pub fn activate<V: Vector>(x: &[Line], slope: &Line, y: &mut [Line]) {
    let slope = V::load(slope);
    for (y, x) in y.iter_mut().zip(x) {
        V::load(x).activate(slope).store(y);
    }
}

/// `activation(a + b)`.
#[inline(always)]
pub fn sum<V: Vector>(a: &[Line], b: &[Line], slope: &Line, y: &mut [Line]) {
    let slope = V::load(slope);
    for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
        V::load(a).add(V::load(b)).activate(slope).store(y);
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
    pub fn run<V: Vector>(&self, block: usize, x: &[Line], residual: &[Line], y: &mut [Line]) {
        let taps = self.slide.window.height * self.slide.window.width;
        let kernel = &self.kernel[block * taps..][..taps];
        let (bias, slope) = (V::load(&self.bias[block]), V::load(&self.slope[block]));
        let each = |sum: V, tap: usize, x: V| sum.add(x.mul(V::load(&kernel[tap])));
        let last = |sum: V, pixel: usize| {
            let sum = sum.add(bias);
            let sum = if self.residual { sum.add(V::load(&residual[pixel])) } else { sum };
            sum.activate(slope)
        };
        self.slide.run(x, V::splat(0.0), each, last, y);
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
    pub fn max_pool<V: Vector>(&self, x: &[Line], y: &mut [Line]) {
        self.run(x, V::splat(f32::NEG_INFINITY), |y, _, x| x.max(y), |y, _| y, y);
    }

    /// No padding.
    #[inline(always)]
    pub fn average_pool<V: Vector>(&self, x: &[Line], y: &mut [Line]) {
        let share = 1.0 / (self.window.height * self.window.width) as f32;
        self.run(x, V::splat(0.0), |sum, _, x| sum.add(x), |sum, _| sum.times(share), y);
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
    fn run<V: Vector>(
        &self,
        x: &[Line],
        first: V,
        each: impl Fn(V, usize, V) -> V,
        last: impl Fn(V, usize) -> V,
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
                            sum = each(sum, tap + at, V::load(x));
                        }
                    }
                    last(sum, pixel).store(y);
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
