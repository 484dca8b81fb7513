//! The operations around matrix products, on images that lie row, column, channel (NHWC), one after the other.
//!
//! `x` holds n images of `shape`, what comes back n images of `out`; shapes were checked when the graph was. All f32.

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
    slide(x, shape, out, c.window, c.padding, |y, pixel, covered| {
        y.copy_from_slice(&c.bias);
        for (at, x) in covered {
            let kernel = &kernel[at * channels..][..channels];
            y.iter_mut().zip(x).zip(kernel).for_each(|((y, x), w)| *y += x * w);
        }
        if c.residual {
            y.iter_mut().zip(&residual[pixel * channels..]).for_each(|(y, r)| *y += r);
        }
        activate(&c.activation, y);
    })
}

/// Padding counts as minus infinity.
pub fn max_pool(x: &[f32], shape: Shape, out: Shape, window: Window, padding: Edges) -> Vec<f32> {
    slide(x, shape, out, window, padding, |y, _, covered| {
        y.fill(f32::NEG_INFINITY);
        for (_, x) in covered {
            y.iter_mut().zip(x).for_each(|(y, x)| *y = y.max(*x));
        }
    })
}

/// No padding.
pub fn average_pool(x: &[f32], shape: Shape, out: Shape, window: Window) -> Vec<f32> {
    let area = (window.height * window.width) as f32;
    slide(x, shape, out, window, Edges::NONE, |y, _, covered| {
        for (_, x) in covered {
            y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
        }
        y.iter_mut().for_each(|y| *y /= area);
    })
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

/// For every output pixel calls `f(its channels, its number, the input pixels under the window: (place, channels))`, on all
/// threads. Its channels are zero before.
fn slide<'a, F>(x: &'a [f32], shape: Shape, out: Shape, window: Window, padding: Edges, f: F) -> Vec<f32>
where
    F: Fn(&mut [f32], usize, &mut dyn Iterator<Item = (usize, &'a [f32])>) + Sync,
{
    let Shape { channels, height, width } = shape;
    let n = x.len() / (channels * height * width);
    let mut y = vec![0.0; n * out.height * out.width * out.channels];
    y.par_chunks_exact_mut(out.width * out.channels).enumerate().for_each(|(line, y)| {
        let (image, row) = (line / out.height, line % out.height);
        for (column, y) in y.chunks_exact_mut(out.channels).enumerate() {
            let mut covered = (0..window.height * window.width).filter_map(|at| {
                let source_row = (row * window.stride + at / window.width).checked_sub(padding.top)?;
                let source_column = (column * window.stride + at % window.width).checked_sub(padding.left)?;
                if source_row >= height || source_column >= width {
                    return None;
                }
                let start = ((image * height + source_row) * width + source_column) * channels;
                Some((at, &x[start..start + channels]))
            });
            f(y, line * out.width + column, &mut covered);
        }
    });
    y
}
