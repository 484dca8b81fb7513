//! The operations around dense convolutions, a block of channels at a time: what each does lies in one plane of lines.
//!
//! `x` and `y` are one block's lines of n images, one after the other; shapes were checked when the graph was.

use super::{
    convolve::{activate as activated, add, within},
    layout::{LANES, Line, area},
};
use crate::model::graph::{Edges, Shape, Window};

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

/// Product of two values of one shape.
#[inline(always)]
pub fn multiply(a: &[Line], b: &[Line], y: &mut [Line]) {
    for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
        y.0.iter_mut().zip(&a.0).zip(&b.0).for_each(|((y, a), b)| *y = a * b);
    }
}

/// Each image times its line of `factors`.
#[inline(always)]
pub fn scale(x: &[Line], factors: &[Line], y: &mut [Line]) {
    let area = x.len() / factors.len().max(1);
    for ((y, x), factor) in y.chunks_exact_mut(area).zip(x.chunks_exact(area)).zip(factors) {
        for (y, x) in y.iter_mut().zip(x) {
            y.0.iter_mut().zip(&x.0).zip(&factor.0).for_each(|((y, x), factor)| *y = x * factor);
        }
    }
}

/// `lanes`: channels that are there; the others stay zero.
#[inline(always)]
pub fn clip(x: &[Line], low: f32, high: f32, lanes: usize, y: &mut [Line]) {
    each(x, lanes, |v| v.clamp(low, high), y);
}

/// `lanes` as for [`clip`].
#[inline(always)]
pub fn sigmoid(x: &[Line], lanes: usize, y: &mut [Line]) {
    each(x, lanes, |v| 1.0 / (1.0 + (-v).exp()), y);
}

#[inline(always)]
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
