//! Convolutions of codes in which every channel is a group of its own: a line of channels of one pixel at a time.

use rayon::prelude::*;

use super::{
    emit::{Out, Part, cut, shares},
    epilogue::Epilogue,
    kernels::{Buffer, LINE, Lanes, Pass},
    layout::{Layout, Pixel, each_pixel, in_lines},
};
use crate::{
    cpu::kernels::Level,
    graph::{Shape, Window},
    int8::Convolution,
};

#[derive(Debug)]
pub struct Depthwise {
    level: Level,
    /// The input's.
    layout: Layout,
    out: Shape,
    window: Window,
    /// Elements of the input before the first window.
    start: usize,
    /// Those of each tap, from the window's first on.
    taps: Vec<usize>,
    /// Block, tap.
    weights: Vec<[i32; LINE]>,
    epilogue: Epilogue,
}

impl Depthwise {
    /// `c` has as many groups as channels in and as channels out. `unit`: of the residual.
    pub fn new(level: Level, c: &Convolution, layout: Layout, out: Shape, unit: f32) -> Self {
        let Window { height, width, .. } = c.window;
        let (taps, columns) = (height * width, layout.columns());
        let weight = |channel: usize, tap: usize| i32::from(c.weight[channel * taps + tap]);
        let of_tap = |tap: usize| (0..out.channels).map(|channel| weight(channel, tap)).collect::<Vec<i32>>();
        let of_taps: Vec<_> = (0..taps).map(|tap| in_lines(&of_tap(tap), 0)).collect();
        let blocks = out.channels.div_ceil(LINE);
        let weights = (0..blocks).flat_map(|block| of_taps.iter().map(move |tap| tap[block])).collect();
        let sums = (0..out.channels).map(|channel| (0..taps).map(|tap| weight(channel, tap)).sum());
        let (top, left) = (layout.halo.top - c.padding.top, layout.halo.left - c.padding.left);
        Self {
            level,
            layout,
            out,
            window: c.window,
            start: (top * columns + left) * layout.pitch,
            taps: (0..taps).map(|tap| (tap / width * columns + tap % width) * layout.pitch).collect(),
            weights,
            epilogue: Epilogue::of_convolution(c, sums.collect(), layout, unit),
        }
    }

    /// Bytes of weights.
    pub fn bytes(&self) -> usize {
        self.weights.len() * size_of::<[i32; LINE]>()
    }

    /// As [`super::dense::Dense::run`].
    pub fn run(&self, threads: usize, images: usize, x: &Buffer, residual: Option<&Buffer>, outs: Vec<Out<'_>>) {
        let pixels = images * self.out.height * self.out.width;
        let rows: Vec<_> = shares(pixels, threads.clamp(1, pixels)).collect();
        let parts = cut(outs, &rows, 1, 1, self.out.channels);
        let residual = residual.map_or(&[][..], Buffer::halves);
        let run = |part| self.level.run_lanes(Slide { layer: self, x, residual, part });
        if threads == 1 { parts.into_iter().for_each(run) } else { parts.into_par_iter().for_each(run) }
    }

    /// The element of the input where a pixel's window begins.
    fn place(&self, Pixel { image, row, column }: Pixel) -> usize {
        let (layout, stride) = (&self.layout, self.window.stride);
        let row = image * layout.rows() + row * stride;
        self.start + (row * layout.columns() + column * stride) * layout.pitch
    }
}

struct Slide<'a, 'b> {
    layer: &'a Depthwise,
    x: &'a Buffer,
    residual: &'a [u16],
    part: Part<'b>,
}

impl Pass for Slide<'_, '_> {
    #[inline(always)]
    fn run<L: Lanes>(self) {
        if self.layer.layout.bytes {
            let bytes = self.x.bytes();
            self.slide::<L, u8>(bytes, L::multiply_bytes);
        } else {
            let words = self.x.words();
            self.slide::<L, i16>(words, L::multiply_words);
        }
    }
}

impl Slide<'_, '_> {
    #[inline(always)]
    fn slide<L: Lanes, T>(self, x: &[T], multiply: impl Fn(L::Whole, &[T; LINE], &[i32; LINE]) -> L::Whole) {
        let Self { layer, residual, mut part, .. } = self;
        let each = layer.taps.len();
        for (number, pixel) in part.pixels.clone().zip(each_pixel(layer.out, part.pixels)) {
            let x = &x[layer.place(pixel)..];
            for (block, weights) in layer.weights.chunks_exact(each).enumerate() {
                let mut sums = L::whole();
                for (tap, weights) in layer.taps.iter().zip(weights) {
                    // After the last channel of a pixel others follow, and after the last pixel some room: their
                    // weights are zeros.
                    if let Some(codes) = x[tap + block * LINE..].first_chunk() {
                        sums = multiply(sums, codes, weights);
                    }
                }
                let v = layer.epilogue.value::<L>(sums, pixel, number, block, residual);
                part.outs.iter_mut().for_each(|out| out.store(&[v], &[pixel], block * LINE));
            }
        }
    }
}
