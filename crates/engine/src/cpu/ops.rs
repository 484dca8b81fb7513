//! The operations around dense convolutions, a block of channels at a time: what each does lies in one plane of lines.
//!
//! `x` and `y` are one block's lines of n images, one after the other; shapes were checked when the graph was.

use super::{
    convolve::within,
    kernels::Vector,
    layout::{LANES, Line, area},
};
use crate::graph::{Edges, Shape, Window};

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

/// Product of two values of one shape.
#[inline(always)]
pub fn multiply<V: Vector>(a: &[Line], b: &[Line], y: &mut [Line]) {
    for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
        V::load(a).mul(V::load(b)).store(y);
    }
}

/// Each image times its line of `factors`.
#[inline(always)]
pub fn scale<V: Vector>(x: &[Line], factors: &[Line], y: &mut [Line]) {
    let area = x.len() / factors.len().max(1);
    for ((y, x), factor) in y.chunks_exact_mut(area).zip(x.chunks_exact(area)).zip(factors) {
        y.iter_mut().zip(x).for_each(|(y, x)| V::load(x).mul(V::load(factor)).store(y));
    }
}

/// `lanes`: channels that are there; the others stay zero.
pub fn clip(x: &[Line], low: f32, high: f32, lanes: usize, y: &mut [Line]) {
    each(x, lanes, |v| v.clamp(low, high), y);
}

/// `lanes` as for [`clip`].
pub fn sigmoid(x: &[Line], lanes: usize, y: &mut [Line]) {
    each(x, lanes, |v| 1.0 / (1.0 + (-v).exp()), y);
}

/// `lanes` as for [`clip`].
pub fn sqrt(x: &[Line], lanes: usize, y: &mut [Line]) {
    each(x, lanes, f32::sqrt, y);
}

/// `lanes` as for [`clip`].
pub fn reciprocal(x: &[Line], lanes: usize, y: &mut [Line]) {
    each(x, lanes, |v| 1.0 / v, y);
}

/// Quotient of two values of one shape. `lanes` as for [`clip`].
pub fn divide(a: &[Line], b: &[Line], lanes: usize, y: &mut [Line]) {
    for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
        *y = Line::ZERO;
        y.0.iter_mut().zip(a.0.iter().zip(&b.0)).take(lanes).for_each(|(y, (a, b))| *y = a / b);
    }
}

fn each(x: &[Line], lanes: usize, f: impl Fn(f32) -> f32, y: &mut [Line]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = Line(x.0.map(&f));
        y.0.iter_mut().skip(lanes).for_each(|y| *y = 0.0);
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

    /// For every output pixel: `each(sum, place in the window, line there)` for every place that lies inside of the
    /// image, in order, then `last(sum, its number)`. Sums start as `first`.
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

/// To one channel: of all blocks of `x`, summed in f64.
pub fn sum_channels(x: &[Line], y: &mut [Line]) {
    across(x, |v| v, |sum| sum, y);
}

/// As [`sum_channels`], of squares: f64 holds those of all f32.
pub fn l2_norm(x: &[Line], y: &mut [Line]) {
    across(x, |v| v * v, f64::sqrt, y);
}

/// For every pixel of all images, whose lines are those of `y`. Channels that are not there count as zeros.
fn across(x: &[Line], each: impl Fn(f64) -> f64, last: impl Fn(f64) -> f64, y: &mut [Line]) {
    let pixels = y.len();
    for (pixel, y) in y.iter_mut().enumerate() {
        let channels = x.iter().skip(pixel).step_by(pixels).flat_map(|line| line.0);
        *y = Line::ZERO;
        y.0[0] = last(channels.map(|v| each(v.into())).sum()) as f32;
    }
}

/// The one channel of `x` in each of `channels`.
pub fn repeat_channel(x: &[Line], channels: usize, y: &mut [Line]) {
    for (block, y) in y.chunks_exact_mut(x.len()).enumerate() {
        let lanes = channels - block * LANES;
        for (y, x) in y.iter_mut().zip(x) {
            *y = Line::ZERO;
            y.0.iter_mut().take(lanes).for_each(|y| *y = x.0[0]);
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
