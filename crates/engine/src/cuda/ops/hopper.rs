//! A dense convolution of codes on Hopper: kernels/net/convolve_hopper.cu. Its weights are those of [`super::convolve`].

use vultus_cuda::{Error, RowMap, WindowMap};

use super::on;
use crate::cuda::{
    arguments,
    place::{Here, Run},
};

/// Threads of a block: one warp group that copies, two that multiply.
const THREADS: u32 = 384;
const RING_BYTES: usize = 200 << 10;
const MAX_STAGES: usize = 8;
/// What the copy engine takes.
const MAX_STRIDE: i32 = 8;
const MAX_CORNER: i64 = 127;

/// A kernel: pixels and channels that a block computes, and the bytes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HopperTile {
    /// Of signless codes, and of those with a sign.
    pub names: [&'static str; 2],
    pub pixels: usize,
    pub channels: usize,
    pub bytes: usize,
}

impl HopperTile {
    /// Bytes of shared memory: the ring, its barriers, and what aligning takes.
    pub const fn shared(&self) -> u32 {
        let stage = (self.pixels + self.channels) * self.bytes;
        let stages = if RING_BYTES / stage < MAX_STAGES { RING_BYTES / stage } else { MAX_STAGES };
        (1024 + stages * stage + (2 * MAX_STAGES + 2) * 8) as u32
    }
}

macro_rules! tile {
    ($pixels:literal, $channels:literal, $bytes:literal) => {
        HopperTile {
            names: [
                concat!("hopper_u8_", $pixels, "x", $channels, "_", $bytes),
                concat!("hopper_s8_", $pixels, "x", $channels, "_", $bytes),
            ],
            pixels: $pixels,
            channels: $channels,
            bytes: $bytes,
        }
    };
}

/// All kernels.
pub const HOPPER_TILES: [HopperTile; 6] = [
    tile!(128, 64, 64),
    tile!(128, 128, 64),
    tile!(64, 64, 128),
    tile!(128, 64, 128),
    tile!(128, 128, 128),
    tile!(128, 256, 128),
];

/// What a convolution is, for these kernels.
#[derive(Debug, Clone, Copy)]
pub struct Form<'a> {
    pub argument: &'a arguments::Convolution,
    pub signed: bool,
    /// Of the operand and of the result, elements of a pixel; and pixels of an image of the result.
    pub pitches: [usize; 2],
    pub area: usize,
}

/// Whether the kernel computes such a convolution.
pub fn fits(tile: &HopperTile, slide: &arguments::Slide, pitch: usize) -> bool {
    let corners = [slide.left, slide.top, slide.width - 1, slide.height - 1].map(i64::from);
    // Of 64 channels a step has all, of 128 and more half of what lies together.
    pitch.is_multiple_of(tile.bytes)
        && (pitch == 64) == (tile.bytes == 64)
        && slide.stride <= MAX_STRIDE
        && corners.iter().all(|corner| *corner <= MAX_CORNER)
}

/// Launches it. `x` is the operand; its windows end where those of the result do.
pub fn launch(tile: &HopperTile, form: &Form<'_>, here: &Here<'_>, run: &Run<'_>) -> Result<(), Error> {
    let arguments::Convolution { result, x, residual, activation, weight, scale, bias, slide, .. } = *form.argument;
    let [pitch, out] = form.pitches;
    let (height, width) = (i64::from(x.height), i64::from(x.width));
    // The last window begins at (outputs - 1) * stride of the padded image; the next would begin beyond this.
    let last = |outputs: i32, before: i32| i64::from(outputs * slide.stride - 1 - before);
    let windows = WindowMap {
        address: x.data,
        images: here.images() as u64,
        height: height as u64,
        width: width as u64,
        channels: pitch as u64,
        left: i64::from(-slide.left),
        top: i64::from(-slide.top),
        right: last(result.width, slide.left) - (width - 1),
        bottom: last(result.height, slide.top) - (height - 1),
        stride: slide.stride as u64,
        pixels: tile.pixels as u64,
        bytes: tile.bytes as u64,
    };
    let row_bytes = (slide.height * slide.width) as u64 * pitch as u64;
    let rows = RowMap {
        address: weight,
        rows: out as u64,
        row_bytes,
        box_rows: tile.channels as u64,
        bytes: tile.bytes as u64,
    };
    let across = out.div_ceil(tile.channels);
    let tiles = (form.area * here.images()).div_ceil(tile.pixels) * across;
    let argument = arguments::HopperConvolution {
        x: run.device.window_map(&windows)?,
        weight: run.device.row_map(&rows)?,
        result,
        residual,
        activation,
        scale,
        bias,
        slide,
        parts: (pitch / tile.bytes) as i32,
        tiles: tiles as i32,
        across: across as i32,
    };
    let blocks = tiles.min(run.card.multiprocessors);
    run.launch(tile.names[usize::from(form.signed)], on([blocks as u32, 1], THREADS, tile.shared()), argument)
}
