//! Convolutions in groups, f32, a block of channels out at a time. Depthwise ones, a channel for itself, go over tiles
//! of pixels with the sums in registers; all others are rare, and plain.
//!
//! Sums run over rows, columns and channels in, in the same order for every pixel.

use std::ops::Range;

use super::{
    convolve::within,
    epilogue::Epilogue,
    kernels::Vector,
    layout::{LANES, Line, area, blocks},
};
use crate::{
    graph::{Edges, Shape, Window},
    plan::Convolution,
};

/// Output pixels of a tile.
const TILE: usize = 8;

/// Each channel out is one channel in.
pub struct Depthwise {
    shape: Shape,
    out: Shape,
    window: Window,
    padding: Edges,
    /// Block, place of the kernel.
    kernel: Vec<Line>,
    epilogue: Epilogue,
}

impl Depthwise {
    /// `c` has as many groups as channels in, and as channels out.
    pub fn new(c: Convolution, shape: Shape, out: Shape) -> Self {
        let taps = c.window.height * c.window.width;
        let mut kernel = vec![Line::ZERO; blocks(shape.channels) * taps];
        for (channel, weights) in c.weight.chunks_exact(taps).enumerate() {
            for (line, w) in kernel[channel / LANES * taps..].iter_mut().zip(weights) {
                line.0[channel % LANES] = *w;
            }
        }
        Self { shape, out, window: c.window, padding: c.padding, kernel, epilogue: Epilogue::new(&c) }
    }

    /// `x`, `residual` (empty where there is none) and `y` are the block's lines of n images.
    #[inline(always)]
    pub fn run<V: Vector>(&self, block: usize, x: &[Line], residual: &[Line], y: &mut [Line]) {
        match self.window.stride {
            1 => self.slide::<V, 1>(block, x, residual, y),
            2 => self.slide::<V, 2>(block, x, residual, y),
            _ => self.slide::<V, 0>(block, x, residual, y),
        }
    }

    /// With the stride S; 0: any, a pixel at a time.
    #[inline(always)]
    fn slide<V: Vector, const S: usize>(&self, block: usize, x: &[Line], residual: &[Line], y: &mut [Line]) {
        let Self { shape, window, padding, .. } = self;
        let out = self.out;
        let taps = window.height * window.width;
        let kernel = &self.kernel[block * taps..][..taps];
        // Columns whose windows lie inside of the image from left to right.
        let first = padding.left.div_ceil(window.stride).min(out.width);
        let last = (shape.width + padding.left).checked_sub(window.width).map_or(0, |room| room / window.stride + 1);
        let last = if S == 0 { first } else { last.clamp(first, out.width) };
        for (image, (x, y)) in x.chunks_exact(area(*shape)).zip(y.chunks_exact_mut(area(out))).enumerate() {
            for (line, y) in y.chunks_exact_mut(out.width).enumerate() {
                let rows = within(line * window.stride, padding.top, window.height, shape.height);
                let residual = residual.get((image * out.height + line) * out.width..).unwrap_or(&[]);
                let mut column = 0;
                while column < out.width {
                    let at = (block, line, column);
                    if column >= first && column + TILE <= last {
                        self.tile::<V, TILE, S>(kernel, x, at, rows.clone(), 0..window.width, residual, y);
                        column += TILE;
                    } else {
                        let columns = within(column * window.stride, padding.left, window.width, shape.width);
                        self.tile::<V, 1, S>(kernel, x, at, rows.clone(), columns, residual, y);
                        column += 1;
                    }
                }
            }
        }
    }

    /// N pixels of a line, from the rows and columns of the kernel that lie inside of the image. `residual` and `y` are
    /// the line's.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)] // a struct of them would be made and taken apart in the same loop
    fn tile<V: Vector, const N: usize, const S: usize>(
        &self,
        kernel: &[Line],
        x: &[Line],
        (block, line, column): (usize, usize, usize),
        rows: Range<usize>,
        columns: Range<usize>,
        residual: &[Line],
        y: &mut [Line],
    ) {
        let stride = self.window.stride;
        let mut sums = [V::splat(0.0); N];
        for row in rows {
            let start = (line * stride + row - self.padding.top) * self.shape.width + column * stride + columns.start
                - self.padding.left;
            for (at, w) in kernel[row * self.window.width..][columns.clone()].iter().enumerate() {
                let x = &x[start + at..][..(N - 1) * S + 1];
                let w = V::load(w);
                for (p, sum) in sums.iter_mut().enumerate() {
                    *sum = sum.add(V::load(&x[p * S]).mul(w));
                }
            }
        }
        let slope = V::load(self.epilogue.slope(block));
        for ((at, y), sum) in (column..).zip(&mut y[column..][..N]).zip(&sums) {
            let sum = sum.add(V::load(self.epilogue.bias(block, line, at)));
            let sum = residual.get(at).map_or(sum, |r| sum.add(V::load(r)));
            sum.activate(slope).store(y);
        }
    }
}

/// Any other number of groups.
pub struct Grouped {
    shape: Shape,
    out: Shape,
    window: Window,
    padding: Edges,
    /// Channels in of a group.
    each: usize,
    /// Of each channel out, in lines: the first channel of its group.
    from: Vec<[usize; LANES]>,
    /// Block, place of the kernel, channel in of the group.
    kernel: Vec<Line>,
    epilogue: Epilogue,
}

impl Grouped {
    pub fn new(c: Convolution, shape: Shape, out: Shape) -> Self {
        let taps = c.window.height * c.window.width;
        let (each, outs) = (shape.channels / c.groups, out.channels / c.groups);
        let mut kernel = vec![Line::ZERO; blocks(out.channels) * taps * each];
        let mut from = vec![[0; LANES]; blocks(out.channels)];
        for (o, filter) in c.weight.chunks_exact(taps * each).enumerate() {
            from[o / LANES][o % LANES] = o / outs * each;
            for (channel, plane) in filter.chunks_exact(taps).enumerate() {
                for (tap, w) in plane.iter().enumerate() {
                    kernel[(o / LANES * taps + tap) * each + channel].0[o % LANES] = *w;
                }
            }
        }
        Self { shape, out, window: c.window, padding: c.padding, each, from, kernel, epilogue: Epilogue::new(&c) }
    }

    /// `x` is all of n images; `residual` and `y` are the block's lines.
    pub fn run(&self, block: usize, x: &[Line], n: usize, residual: &[Line], y: &mut [Line]) {
        let Self { shape, window, padding, epilogue, each, .. } = self;
        let (out, plane) = (self.out, area(*shape));
        let taps = window.height * window.width;
        let kernel = &self.kernel[block * taps * each..][..taps * each];
        for (pixel, y) in y.iter_mut().enumerate() {
            let (image, at) = (pixel / area(out), pixel % area(out));
            let (line, column) = (at / out.width, at % out.width);
            let (top, left) = (line * window.stride, column * window.stride);
            let mut sum = Line::ZERO;
            for row in within(top, padding.top, window.height, shape.height) {
                for tap in within(left, padding.left, window.width, shape.width) {
                    let at = (top + row - padding.top) * shape.width + left + tap - padding.left;
                    let weights = &kernel[(row * window.width + tap) * each..][..*each];
                    for (channel, w) in weights.iter().enumerate() {
                        for ((sum, w), from) in sum.0.iter_mut().zip(&w.0).zip(&self.from[block]) {
                            let (block, lane) = ((from + channel) / LANES, (from + channel) % LANES);
                            *sum += x[(block * n + image) * plane + at].0[lane] * w;
                        }
                    }
                }
            }
            let sum = sum.add(*epilogue.bias(block, line, column));
            let sum = residual.get(pixel).map_or(sum, |r| sum.add(*r));
            *y = sum.activate(*epilogue.slope(block));
        }
    }
}
