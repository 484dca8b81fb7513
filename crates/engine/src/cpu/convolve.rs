//! Dense convolutions: tiles of output pixels with panels of channels, and all that follows them in the same pass.
//!
//! A tile's pixels are read in place where they lie in one run inside of the image, and gathered where they do not.
//! Sums run over lines of channels in, then places of the kernel, then channels: in the same order for every tile.

use super::{
    epilogue::{Epilogue, Finish},
    factors::{convert, pack},
    kernels::{Chunk, Factors, Level, PANEL, TILE, Tile},
    layout::{LANES, Line, area, blocks, floats, floats_mut},
    prologue::Prologue,
};
use crate::{
    graph::{Edges, Shape, Window},
    plan::Convolution,
};
use std::ops::Range;

/// Lines that a group of tiles gathers, at most: half of a common L2 cache.
const GROUP_LINES: usize = 8 << 10;
/// Tiles of a group, at most.
const GROUP_TILES: usize = 16;
/// Chunks that are summed before the next tile's turn: their weights, 32 KiB, are then still in the L1 cache.
const RUN: usize = 16;

/// A convolution, ready to run.
pub struct Dense {
    shape: Shape,
    out: Shape,
    window: Window,
    padding: Edges,
    /// The input lies as image, row, column, channel; a tile is part of a row, and a chunk a row of the kernel.
    interleaved: bool,
    /// What is multiplied: the input is rounded first where that is no f32.
    factors: Factors,
    /// Done while rounding.
    prologue: Option<Prologue>,
    /// Panel, chunk, step, line out.
    weights: Vec<Line>,
    epilogue: Epilogue,
}

/// What one thread needs besides, kept from run to run.
#[derive(Default)]
pub struct Scratch {
    pub chunks: Vec<Chunk>,
    pub gathered: Vec<Line>,
    pub sums: Vec<Line>,
    /// The input as bf16.
    rounded: Vec<Line>,
}

/// One thread's part of a convolution.
pub struct Part<'a> {
    pub x: &'a [Line],
    pub residual: &'a [Line],
    pub images: usize,
    pub pixels: Range<usize>,
    /// The panels that this part computes, and for each of their blocks the pixels' place.
    pub panels: Range<usize>,
    pub out: Vec<&'a mut [Line]>,
}

impl Dense {
    /// bf16 where pairs of channels are not cut. A prologue where that is not the case was folded.
    pub fn new(c: &Convolution, shape: Shape, out: Shape, interleaved: bool, factors: Factors) -> Self {
        let weights = pack(c, shape, interleaved, factors);
        let (window, padding, prologue) = (c.window, c.padding, c.prologue.as_ref().map(Prologue::new));
        Self { shape, out, window, padding, interleaved, factors, prologue, weights, epilogue: Epilogue::new(c) }
    }

    pub fn panels(&self) -> usize {
        blocks(self.out.channels).div_ceil(PANEL)
    }

    /// Lines out of a panel.
    pub fn width(&self, panel: usize) -> usize {
        PANEL.min(blocks(self.out.channels) - panel * PANEL)
    }

    fn steps(&self) -> usize {
        self.weights.len() / blocks(self.out.channels)
    }

    /// Values in the place of a float.
    fn each(&self) -> usize {
        self.factors.each()
    }

    /// Lines of a pixel that are read, as it is after rounding.
    fn lines_in(&self) -> usize {
        blocks(self.shape.channels).div_ceil(self.each())
    }

    fn chunks(&self) -> usize {
        chunks(self.window, self.shape, self.interleaved, self.each())
    }

    /// Lines that a thread's [`Scratch`] grows to, with `images` that run together.
    pub fn scratch(
        window: Window,
        [shape, out]: [Shape; 2],
        interleaved: bool,
        factors: Factors,
        images: usize,
    ) -> usize {
        let chunks = chunks(window, shape, interleaved, factors.each());
        let (tiles, across) = (tiles(chunks), (TILE - 1) * window.stride + window.width);
        let pixels = (tiles * TILE).min(images * area(out));
        let gathered = match interleaved {
            true => tiles * (window.height * across * shape.channels).div_ceil(LANES),
            // Pixels of such a window lie side by side.
            false if window == Window::square(1, 1) => 0,
            false => pixels * chunks,
        };
        let rounded = if factors == Factors::F32 { 0 } else { images * area(shape) * blocks(shape.channels) };
        let located = (tiles * chunks * size_of::<Chunk>()).div_ceil(size_of::<Line>());
        gathered + located + pixels * PANEL + rounded.div_ceil(factors.each())
    }

    /// Floats from pixel to pixel of a tile.
    fn stride(&self) -> usize {
        if self.interleaved { self.window.stride * self.shape.channels / self.each() } else { LANES }
    }

    /// Pixels that threads must not cut apart.
    pub fn piece(&self) -> usize {
        if self.interleaved { self.out.width } else { 1 }
    }

    pub fn run(&self, level: Level, scratch: &mut Scratch, part: Part<'_>) {
        if self.factors == Factors::F32 {
            return self.compute(level, scratch, part);
        }
        // Lines that become one: neighbours, or those of the same pixel in several blocks.
        let (plane, wanted) =
            if self.interleaved { (1, 0..1) } else { (part.images * area(self.shape), self.pixels_in(&part.pixels)) };
        let x = match self.interleaved {
            true => &part.x[..(part.images * area(self.shape) * self.shape.channels).div_ceil(LANES)],
            false => &part.x[..plane * blocks(self.shape.channels)],
        };
        let mut rounded = std::mem::take(&mut scratch.rounded);
        convert(level, x, plane, wanted, self.prologue.as_ref(), &mut rounded);
        self.compute(level, scratch, Part { x: &rounded, ..part });
        scratch.rounded = rounded;
    }

    /// The rows of the input, in pixels, that these pixels out are made of.
    fn pixels_in(&self, pixels: &Range<usize>) -> Range<usize> {
        let Shape { height, width, .. } = self.shape;
        let row = |pixel: usize, more: usize| {
            let (image, row) = (pixel / area(self.out), pixel % area(self.out) / self.out.width);
            image * height + (row * self.window.stride + more).saturating_sub(self.padding.top).min(height)
        };
        let end = row(pixels.end.saturating_sub(1), self.window.height) * width;
        (row(pixels.start, 0) * width).min(end)..end
    }

    fn compute(&self, level: Level, scratch: &mut Scratch, mut part: Part<'_>) {
        let chunks = self.chunks();
        let tiles = tiles(chunks);
        // Tiles of nearly equal size: none is left with one pixel.
        let range = part.pixels.clone();
        let line = if self.interleaved { self.out.width } else { range.len() };
        let each = line.div_ceil(TILE);
        let total = range.len() / line * each;
        let cut = |tile: usize| range.start + tile / each * line + line * (tile % each) / each;
        for group in (0..total).step_by(tiles) {
            let group = group..total.min(group + tiles);
            scratch.chunks.clear();
            scratch.gathered.clear();
            for tile in group.clone() {
                self.locate(scratch, &part, cut(tile)..cut(tile + 1));
            }
            let count = cut(group.end) - cut(group.start);
            scratch.sums.resize((count * PANEL).max(scratch.sums.len()), Line::ZERO);
            let mut block = 0;
            for panel in part.panels.clone() {
                let width = self.width(panel);
                let weights = &self.weights[panel * PANEL * self.steps()..][..width * self.steps()];
                let mut step = 0;
                for from in (0..chunks).step_by(RUN) {
                    let run = from..chunks.min(from + RUN);
                    let taken: usize = scratch.chunks[run.clone()].iter().map(|c| usize::from(c.steps)).sum();
                    for (at, tile) in group.clone().enumerate() {
                        let pixels = cut(tile)..cut(tile + 1);
                        let start = pixels.start - cut(group.start);
                        Tile {
                            chunks: &scratch.chunks[at * chunks..][run.clone()],
                            sources: [part.x, &scratch.gathered],
                            weights: &weights[step * width..][..taken * width],
                            pixels: pixels.len(),
                            stride: self.stride(),
                            width,
                            first: from == 0,
                            factors: self.factors,
                        }
                        .accumulate(level, &mut scratch.sums[start * width..][..pixels.len() * width]);
                    }
                    step += taken;
                }
                let first = cut(group.start);
                for n in 0..width {
                    let block_out = panel * PANEL + n;
                    let residual = match self.epilogue.residual {
                        true => &part.residual[block_out * part.images * area(self.out) + first..][..count],
                        false => &[],
                    };
                    level.run(Finish {
                        epilogue: &self.epilogue,
                        block: block_out,
                        sums: &scratch.sums[n..count * width],
                        width,
                        residual,
                        y: &mut part.out[block][first - part.pixels.start..][..count],
                        first,
                        out: self.out,
                    });
                    block += 1;
                }
            }
        }
    }

    /// Appends the chunks of a tile.
    fn locate(&self, scratch: &mut Scratch, part: &Part<'_>, pixels: Range<usize>) {
        if self.interleaved {
            return self.gather_interleaved(scratch, part, pixels);
        }
        let Shape { height, width, .. } = self.shape;
        let (inside, count) = (area(self.out), pixels.len());
        let mut places = [(0usize, 0isize, 0isize); TILE];
        for (place, pixel) in places.iter_mut().zip(pixels) {
            let (image, pixel) = (pixel / inside, pixel % inside);
            let (row, column) = (pixel / self.out.width, pixel % self.out.width);
            let start = |at: usize, padding: usize| (at * self.window.stride) as isize - padding as isize;
            *place = (image * height * width, start(row, self.padding.top), start(column, self.padding.left));
        }
        let places = &places[..count];
        let plane = part.images * height * width;
        let first = scratch.chunks.len();
        let taps = self.window.height * self.window.width;
        scratch.chunks.resize(first + taps * self.lines_in(), Chunk { source: 0, steps: 0, at: 0 });
        for tap in 0..taps {
            let (down, right) = ((tap / self.window.width) as isize, (tap % self.window.width) as isize);
            let mut at = [usize::MAX; TILE];
            for (at, &(image, row, column)) in at.iter_mut().zip(places) {
                let (row, column) = (row + down, column + right);
                if (0..height as isize).contains(&row) && (0..width as isize).contains(&column) {
                    *at = image + row as usize * width + column as usize;
                }
            }
            let at = &at[..count];
            let direct = at.iter().enumerate().all(|(p, &at_p)| at[0] != usize::MAX && at_p == at[0] + p);
            for block in 0..self.lines_in() {
                let steps = self.steps_of(block) as u16;
                let chunk = &mut scratch.chunks[first + block * taps + tap];
                if direct {
                    *chunk = Chunk { source: 0, steps, at: ((block * plane + at[0]) * LANES) as u32 };
                    continue;
                }
                *chunk = Chunk { source: 1, steps, at: (scratch.gathered.len() * LANES) as u32 };
                let x = &part.x[block * plane..][..plane];
                scratch.gathered.extend(at.iter().map(|&at| x.get(at).copied().unwrap_or(Line::ZERO)));
            }
        }
    }

    /// Steps of a line that is read.
    fn steps_of(&self, line: usize) -> usize {
        let (channels, each) = (self.shape.channels, self.each());
        LANES.min(channels / each - line * LANES)
    }

    /// The same from an interleaved input: the strip of it under a tile, which is part of one row, with the padding.
    fn gather_interleaved(&self, scratch: &mut Scratch, part: &Part<'_>, pixels: Range<usize>) {
        let Shape { channels, height, width } = self.shape;
        let (image, pixel) = (pixels.start / area(self.out), pixels.start % area(self.out));
        let (top, left) = (pixel / self.out.width * self.window.stride, pixel % self.out.width * self.window.stride);
        let across = (pixels.len() - 1) * self.window.stride + self.window.width;
        let first = scratch.gathered.len() * LANES;
        // In floats, each one value or a pair.
        let (pitch, each) = ((across * channels).div_ceil(self.each()), self.each());
        let lines = (self.window.height * pitch).div_ceil(LANES);
        scratch.gathered.resize(scratch.gathered.len() + lines, Line::ZERO);
        let (x, strip) = (floats(part.x), &mut floats_mut(&mut scratch.gathered)[first..]);
        let columns = within(left, self.padding.left, across, width);
        for row in within(top, self.padding.top, self.window.height, height) {
            let place = (image * height + top + row - self.padding.top) * width + left + columns.start;
            let place = (place - self.padding.left) * channels / each;
            let from = &x[place..][..(columns.len() * channels).div_ceil(each)];
            strip[row * pitch + columns.start * channels / each..][..from.len()].copy_from_slice(from);
        }
        scratch.chunks.extend((0..self.window.height).map(|row| Chunk {
            source: 1,
            steps: (self.window.width * channels).div_ceil(each) as u16,
            at: (first + row * pitch) as u32,
        }));
    }
}

/// Runs of a pixel's values that lie side by side.
fn chunks(window: Window, shape: Shape, interleaved: bool, each: usize) -> usize {
    match interleaved {
        true => window.height,
        false => window.height * window.width * blocks(shape.channels).div_ceil(each),
    }
}

/// Tiles of a group, by their chunks.
fn tiles(chunks: usize) -> usize {
    (GROUP_LINES / (chunks * TILE)).clamp(2, GROUP_TILES)
}

/// The places of a window of `kernel` that lie inside of `size`, when it starts at `start` of the padded image.
pub fn within(start: usize, padding: usize, kernel: usize, size: usize) -> Range<usize> {
    let from = padding.saturating_sub(start).min(kernel);
    from..(size + padding).saturating_sub(start).clamp(from, kernel)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Activation, Border};

    #[test]
    fn a_border_gives_each_class_of_pixels_its_bias() {
        let (shape, channels) = (Shape::new(1, 5, 6), 40);
        let class = |at: usize, size: usize| if at == 0 { 0 } else { 1 + usize::from(at + 1 == size) };
        let classes = |size: usize| (0..size).map(|at| class(at, size) as u8).collect();
        let convolution = Convolution {
            prologue: None,
            weight: vec![0.0; channels * 9],
            bias: vec![f32::NAN; channels],
            border: Some(Border {
                values: (0..9 * channels).map(|v| v as f32).collect(),
                row_class: classes(5),
                column_class: classes(6),
                column_classes: 3,
            }),
            window: Window::square(3, 1),
            padding: Edges::all(1),
            groups: 1,
            residual: false,
            activation: Activation::Identity,
        };
        let out = Shape::new(channels, 5, 6);
        let dense = Dense::new(&convolution, shape, out, false, Factors::F32);
        let (x, images) = (vec![Line::ZERO; 60], 2);
        for level in Level::available() {
            let mut y = vec![Line::ZERO; 3 * 60];
            let planes = y.chunks_exact_mut(60).collect();
            let part = Part { x: &x, residual: &[], images, pixels: 0..60, panels: 0..dense.panels(), out: planes };
            dense.run(level, &mut Scratch::default(), part);
            for (at, line) in y.iter().enumerate() {
                let (block, pixel) = (at / 60, at % 30);
                let class = class(pixel / 6, 5) * 3 + class(pixel % 6, 6);
                for (lane, &got) in line.0.iter().enumerate() {
                    let channel = block * LANES + lane;
                    let expected = if channel < channels { (class * channels + channel) as f32 } else { 0.0 };
                    assert_eq!(got, expected, "channel {channel} of pixel {pixel}, class {class}, {level:?}");
                }
            }
        }
    }
}
