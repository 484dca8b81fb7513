//! The operations around matrix products, on images that lie row, column, channel (NHWC), one after the other.
//!
//! `x` holds n images of `shape`, what comes back n images of `out`; shapes were checked when the graph was. All f32.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    graph::{Edges, Shape, Window},
    plan::{Activation, Convolution},
};

/// In place, on one pixel's channels.
pub fn activate(activation: &Activation, pixel: &mut [f32]) {
    match activation {
        Activation::Identity => {}
        Activation::Relu => pixel.iter_mut().for_each(|v| *v = v.max(0.0)),
        Activation::Leaky(slope) => pixel.iter_mut().for_each(|v| *v = if *v > 0.0 { *v } else { slope * *v }),
        Activation::PRelu(slopes) => {
            pixel.iter_mut().zip(slopes).for_each(|(v, slope)| *v = if *v > 0.0 { *v } else { slope * *v });
        }
    }
}

/// `x * scale + shift` per channel.
pub fn affine(x: &[f32], scale: &[f32], shift: &[f32]) -> Vec<f32> {
    let mut y = x.to_vec();
    for pixel in y.chunks_exact_mut(scale.len()) {
        pixel.iter_mut().zip(scale).zip(shift).for_each(|((v, scale), shift)| *v = *v * scale + shift);
    }
    y
}

/// `activation(a + b)`.
pub fn add(a: &[f32], b: &[f32], activation: &Activation, channels: usize) -> Vec<f32> {
    let mut y: Vec<f32> = a.iter().zip(b).map(|(a, b)| a + b).collect();
    y.chunks_exact_mut(channels).for_each(|pixel| activate(activation, pixel));
    y
}

/// Depthwise convolution with its epilogue: each channel with its own kernel.
pub fn depthwise(c: &Convolution, x: &[f32], residual: &[f32], shape: Shape, out: Shape) -> Vec<f32> {
    let (channels, area) = (out.channels, c.window.height * c.window.width);
    // Kernel place, channel: so that the innermost loop runs along the channels.
    let mut kernel = vec![0.0; c.weight.len()];
    for (channel, weights) in c.weight.chunks_exact(area).enumerate() {
        weights.iter().enumerate().for_each(|(at, w)| kernel[at * channels + channel] = *w);
    }
    let slide = Slide { shape, out, window: c.window, padding: c.padding };
    slide.run(
        x,
        0.0,
        |y, at, x| {
            let kernel = &kernel[at * channels..][..channels];
            y.iter_mut().zip(x).zip(kernel).for_each(|((y, x), w)| *y += x * w);
        },
        |y, pixel| {
            y.iter_mut().zip(&c.bias).for_each(|(y, b)| *y += b);
            if c.residual {
                y.iter_mut().zip(&residual[pixel * channels..]).for_each(|(y, r)| *y += r);
            }
            activate(&c.activation, y);
        },
    )
}

/// Padding counts as minus infinity.
pub fn max_pool(x: &[f32], shape: Shape, out: Shape, window: Window, padding: Edges) -> Vec<f32> {
    let larger =
        |y: &mut [f32], _, x: &[f32]| y.iter_mut().zip(x).for_each(|(y, x)| *y = if *x > *y { *x } else { *y });
    Slide { shape, out, window, padding }.run(x, f32::NEG_INFINITY, larger, |_, _| {})
}

/// No padding.
pub fn average_pool(x: &[f32], shape: Shape, out: Shape, window: Window) -> Vec<f32> {
    let area = (window.height * window.width) as f32;
    let sum = |y: &mut [f32], _, x: &[f32]| y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
    let divide = |y: &mut [f32], _| y.iter_mut().for_each(|y| *y /= area);
    Slide { shape, out, window, padding: Edges::NONE }.run(x, 0.0, sum, divide)
}

/// Zeros at the edges, and as further channels.
pub fn pad(x: &[f32], shape: Shape, out: Shape, edges: Edges, n: usize) -> Vec<f32> {
    let mut y = vec![0.0; n * out.channels * out.height * out.width];
    for (row, line) in x.chunks_exact(shape.width * shape.channels).enumerate() {
        let (image, row) = (row / shape.height, row % shape.height);
        let start = ((image * out.height + row + edges.top) * out.width + edges.left) * out.channels;
        for (y, x) in y[start..].chunks_exact_mut(out.channels).zip(line.chunks_exact(shape.channels)) {
            y[..shape.channels].copy_from_slice(x);
        }
    }
    y
}

/// From row, column, channel to channel, row, column.
pub fn to_planes(x: &[f32], shape: Shape) -> Vec<f32> {
    let area = shape.height * shape.width;
    if area == 1 {
        return x.to_vec();
    }
    let mut y = vec![0.0; x.len()];
    let image = area * shape.channels;
    for (y, x) in y.chunks_exact_mut(image).zip(x.chunks_exact(image)) {
        for (at, pixel) in x.chunks_exact(shape.channels).enumerate() {
            pixel.iter().enumerate().for_each(|(channel, v)| y[channel * area + at] = *v);
        }
    }
    y
}

/// What slides over the images, and from which shape to which.
struct Slide {
    shape: Shape,
    out: Shape,
    window: Window,
    padding: Edges,
}

impl Slide {
    /// For every output pixel, on all threads: `each(its channels, place in the window, channels there)` for every place
    /// that lies inside of the image, in order, then `last(its channels, its number)`. They start as `first`.
    fn run(
        &self,
        x: &[f32],
        first: f32,
        each: impl Fn(&mut [f32], usize, &[f32]) + Sync,
        last: impl Fn(&mut [f32], usize) + Sync,
    ) -> Vec<f32> {
        let Self { shape: Shape { channels, height, width }, out, window, padding } = *self;
        let n = x.len() / (channels * height * width);
        let mut y = vec![first; n * out.height * out.width * out.channels];
        y.par_chunks_exact_mut(out.width * out.channels).enumerate().for_each(|(line, y)| {
            let (image, top) = (line / out.height, line % out.height * window.stride);
            let rows = inside(top, padding.top, window.height, height);
            for (column, y) in y.chunks_exact_mut(out.channels).enumerate() {
                let left = column * window.stride;
                let columns = inside(left, padding.left, window.width, width);
                for row in rows.clone() {
                    let line = (image * height + top + row - padding.top) * width;
                    let start = (line + left + columns.start - padding.left) * channels;
                    let pixels = x[start..start + columns.len() * channels].chunks_exact(channels);
                    for (column, x) in columns.clone().zip(pixels) {
                        each(y, row * window.width + column, x);
                    }
                }
                last(y, line * out.width + column);
            }
        });
        y
    }
}

/// The places of a window of `kernel` that lie inside of `size`, when it starts at `start` of the padded image.
pub fn inside(start: usize, padding: usize, kernel: usize, size: usize) -> Range<usize> {
    let from = padding.saturating_sub(start).min(kernel);
    from..(size + padding).saturating_sub(start).clamp(from, kernel)
}
