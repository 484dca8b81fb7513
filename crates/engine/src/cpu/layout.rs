//! How activations and weights lie in memory: in lines of 64 bytes, what one load of AVX-512 reads.
//!
//! An activation of n images is block, image, row, column: a line holds 16 channels of one pixel, so n images are one
//! tall image. Channels beyond the last are zero.

#![allow(unsafe_code)]

use crate::graph::Shape;

/// Channels of one line.
pub const LANES: usize = 16;

/// 64 bytes, aligned.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub struct Line(pub [f32; LANES]);

impl Line {
    pub const ZERO: Self = Self([0.0; LANES]);
}

/// Lines that hold so many channels of one pixel.
pub const fn blocks(channels: usize) -> usize {
    channels.div_ceil(LANES)
}

/// Lines of one image.
pub fn lines(shape: Shape) -> usize {
    blocks(shape.channels) * area(shape)
}

/// Pixels of one image.
pub fn area(shape: Shape) -> usize {
    shape.height * shape.width
}

/// One value for each channel, in lines, filled up with zeros.
pub fn per_channel(values: &[f32]) -> Vec<Line> {
    let line = |values: &[f32]| {
        let mut line = Line::ZERO;
        line.0[..values.len()].copy_from_slice(values);
        line
    };
    values.chunks(LANES).map(line).collect()
}

/// From image, row, column, channel. `y` has the lines of n images.
pub fn from_interleaved(x: &[f32], channels: usize, y: &mut [Line]) {
    let pixels = x.len() / channels;
    for (block, y) in y.chunks_exact_mut(pixels).enumerate() {
        let from = block * LANES;
        let to = channels.min(from + LANES);
        for (y, x) in y.iter_mut().zip(x.chunks_exact(channels)) {
            *y = Line::ZERO;
            y.0[..to - from].copy_from_slice(&x[from..to]);
        }
    }
}

/// To image, channel, row, column.
pub fn to_planes(x: &[Line], shape: Shape, n: usize, y: &mut [f32]) {
    let (area, channels) = (area(shape), shape.channels);
    for (plane, y) in y.chunks_exact_mut(area).take(n * channels).enumerate() {
        let (image, channel) = (plane / channels, plane % channels);
        let start = (channel / LANES * n + image) * area;
        y.iter_mut().zip(&x[start..start + area]).for_each(|(y, line)| *y = line.0[channel % LANES]);
    }
}

/// Two values rounded to bf16, to the nearest and then to even, the first in the low half: bits in the place of a
/// float.
#[inline(always)]
pub fn pair_of_bf16(low: f32, high: f32) -> f32 {
    let round = |v: f32| {
        let bits = v.to_bits();
        (bits + 0x7fff + (bits >> 16 & 1)) >> 16
    };
    f32::from_bits(round(low) | round(high) << 16)
}

/// The same memory as plain floats.
pub fn floats(lines: &[Line]) -> &[f32] {
    // SAFETY: a line is 16 floats without padding, and aligned more strictly than they are.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * LANES) }
}

/// The same memory as plain floats.
pub fn floats_mut(lines: &mut [Line]) -> &mut [f32] {
    // SAFETY: as above; the borrow is exclusive and passes over.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * LANES) }
}
