//! Dense convolutions, f32: tiles of output pixels with panels of channels, and all that follows them in the same pass.
//!
//! A tile's pixels are read in place where they lie in one run inside of the image, and gathered where they do not. Sums
//! run over lines of channels in, then places of the kernel, then channels: in the same order for every tile.

use super::{
    kernels::{Chunk, Level, PANEL, TILE, Tile, vectorised},
    layout::{LANES, Line, area, blocks, floats, floats_mut, per_channel},
};
use crate::model::{
    graph::{Edges, Shape, Window},
    plan::{Activation, Convolution},
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
    /// The input lies as image, row, column, channel, and a chunk's steps go through a row of the kernel.
    interleaved: bool,
    /// Panel, chunk, step, line out.
    weights: Vec<Line>,
    /// Class, block.
    bias: Vec<Line>,
    border: Option<Classes>,
    slope: Vec<Line>,
    residual: bool,
}

struct Classes {
    row: Vec<u8>,
    column: Vec<u8>,
    columns: usize,
}

/// What one thread needs besides, kept from run to run.
#[derive(Default)]
pub struct Scratch {
    chunks: Vec<Chunk>,
    gathered: Vec<Line>,
    sums: Vec<Line>,
    patch: Vec<f32>,
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
    pub fn new(c: Convolution, shape: Shape, out: Shape, interleaved: bool) -> Self {
        let weights = pack(&c, shape, interleaved);
        let each = c.bias.len();
        let (bias, border) = match c.border {
            None => (per_channel(&c.bias), None),
            Some(border) => {
                let classes =
                    Classes { row: border.row_class, column: border.column_class, columns: border.column_classes };
                (border.values.chunks_exact(each).flat_map(per_channel).collect(), Some(classes))
            }
        };
        let (window, padding, residual) = (c.window, c.padding, c.residual);
        let slope = slopes(&c.activation, each);
        Self { shape, out, window, padding, interleaved, weights, bias, border, slope, residual }
    }

    pub fn panels(&self) -> usize {
        blocks(self.out.channels).div_ceil(PANEL)
    }

    /// Lines out of a panel.
    pub fn width(&self, panel: usize) -> usize {
        PANEL.min(blocks(self.out.channels) - panel * PANEL)
    }

    fn steps(&self) -> usize {
        self.window.height * self.window.width * self.shape.channels
    }

    fn chunks(&self) -> usize {
        if self.interleaved {
            return self.steps().div_ceil(LANES);
        }
        self.window.height * self.window.width * blocks(self.shape.channels)
    }

    pub fn run(&self, level: Level, scratch: &mut Scratch, mut part: Part<'_>) {
        let chunks = self.chunks();
        let tiles = (GROUP_LINES / (chunks * TILE)).clamp(2, GROUP_TILES);
        let total = part.pixels.len().div_ceil(TILE);
        // Tiles of nearly equal size: none is left with one pixel.
        let range = part.pixels.clone();
        let cut = |tile: usize| range.start + range.len() * tile / total;
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
                            width,
                            first: from == 0,
                        }
                        .accumulate(level, &mut scratch.sums[start * width..][..pixels.len() * width]);
                    }
                    step += taken;
                }
                let first = cut(group.start);
                for n in 0..width {
                    let sums = &scratch.sums[n..count * width];
                    let block_out = panel * PANEL + n;
                    self.finish(level, sums, width, block_out, first..first + count, &mut part, block);
                    block += 1;
                }
            }
        }
    }

    /// Bias, residual and activation of one block's pixels.
    #[allow(clippy::too_many_arguments)] // a struct of them would be made and taken apart in the same loop
    fn finish(
        &self,
        level: Level,
        sums: &[Line],
        width: usize,
        block: usize,
        pixels: Range<usize>,
        part: &mut Part<'_>,
        out: usize,
    ) {
        let blocks = blocks(self.out.channels);
        let y = &mut part.out[out][pixels.start - part.pixels.start..][..pixels.len()];
        let sums = sums.iter().step_by(width);
        let (bias, slope) = (&self.bias[block], &self.slope[block]);
        let residual = match self.residual {
            true => &part.residual[block * part.images * area(self.out)..][pixels.clone()],
            false => &[],
        };
        vectorised(level, || match (&self.border, self.residual) {
            (None, false) => y.iter_mut().zip(sums).for_each(|(y, x)| *y = activate(add(x, bias), slope)),
            (None, true) => (y.iter_mut().zip(sums).zip(residual))
                .for_each(|((y, x), r)| *y = activate(add(&add(x, bias), r), slope)),
            (Some(classes), _) => {
                for (((y, x), pixel), at) in y.iter_mut().zip(sums).zip(pixels).zip(0..) {
                    let class = classes.of(pixel % area(self.out), self.out.width);
                    let x = add(x, &self.bias[class * blocks + block]);
                    let x = residual.get(at).map_or(x, |r: &Line| add(&x, r));
                    *y = activate(x, slope);
                }
            }
        });
    }

    /// Appends the chunks of a tile.
    fn locate(&self, scratch: &mut Scratch, part: &Part<'_>, pixels: Range<usize>) {
        if self.interleaved {
            return self.gather_interleaved(scratch, part, pixels);
        }
        let Shape { channels, height, width } = self.shape;
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
        scratch.chunks.resize(first + taps * blocks(channels), Chunk { source: 0, steps: 0, at: 0 });
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
            for block in 0..blocks(channels) {
                let steps = LANES.min(channels - block * LANES) as u8;
                let chunk = &mut scratch.chunks[first + block * taps + tap];
                if direct {
                    *chunk = Chunk { source: 0, steps, at: (block * plane + at[0]) as u32 };
                    continue;
                }
                *chunk = Chunk { source: 1, steps, at: scratch.gathered.len() as u32 };
                let x = &part.x[block * plane..][..plane];
                scratch.gathered.extend(at.iter().map(|&at| x.get(at).copied().unwrap_or(Line::ZERO)));
            }
        }
    }

    /// The same from an interleaved input: a patch's values follow each other, 16 to a line.
    fn gather_interleaved(&self, scratch: &mut Scratch, part: &Part<'_>, pixels: Range<usize>) {
        let Shape { channels, height, width } = self.shape;
        let x = floats(part.x);
        let (steps, count, inside) = (self.steps(), pixels.len(), area(self.out));
        let chunks = self.chunks();
        let first = scratch.gathered.len();
        scratch.gathered.resize(first + chunks * count, Line::ZERO);
        scratch.patch.clear();
        scratch.patch.resize(chunks * LANES, 0.0);
        let line = self.window.width * channels;
        for (p, pixel) in pixels.enumerate() {
            let (image, pixel) = (pixel / inside, pixel % inside);
            let (top, left) =
                (pixel / self.out.width * self.window.stride, pixel % self.out.width * self.window.stride);
            let columns = within(left, self.padding.left, self.window.width, width);
            let rows = within(top, self.padding.top, self.window.height, height);
            if rows.len() * columns.len() < self.window.height * self.window.width {
                scratch.patch.fill(0.0);
            }
            for row in rows {
                let start = ((image * height + top + row - self.padding.top) * width + left + columns.start
                    - self.padding.left)
                    * channels;
                let patch = &mut scratch.patch[row * line..][columns.start * channels..columns.end * channels];
                patch.copy_from_slice(&x[start..start + patch.len()]);
            }
            let gathered = floats_mut(&mut scratch.gathered[first..]);
            for (chunk, patch) in scratch.patch.chunks_exact(LANES).enumerate() {
                gathered[(chunk * count + p) * LANES..][..LANES].copy_from_slice(patch);
            }
        }
        scratch.chunks.extend((0..chunks).map(|chunk| {
            let steps = LANES.min(steps - chunk * LANES) as u8;
            Chunk { source: 1, steps, at: (first + chunk * count) as u32 }
        }));
    }
}

impl Classes {
    fn of(&self, pixel: usize, width: usize) -> usize {
        usize::from(self.row[pixel / width]) * self.columns + usize::from(self.column[pixel % width])
    }
}

/// Negative values are multiplied by it, which says every activation.
pub fn slopes(activation: &Activation, channels: usize) -> Vec<Line> {
    match activation {
        Activation::Identity => per_channel(&vec![1.0; channels]),
        Activation::Relu => per_channel(&vec![0.0; channels]),
        Activation::Leaky(slope) => per_channel(&vec![*slope; channels]),
        Activation::PRelu(slopes) => per_channel(slopes),
    }
}

#[inline(always)]
pub fn add(a: &Line, b: &Line) -> Line {
    let mut y = *a;
    for (y, b) in y.0.iter_mut().zip(&b.0) {
        *y += b;
    }
    y
}

#[inline(always)]
pub fn activate(mut x: Line, slope: &Line) -> Line {
    for (x, slope) in x.0.iter_mut().zip(&slope.0) {
        *x = if *x > 0.0 { *x } else { slope * *x };
    }
    x
}

/// The places of a window of `kernel` that lie inside of `size`, when it starts at `start` of the padded image.
pub fn within(start: usize, padding: usize, kernel: usize, size: usize) -> Range<usize> {
    let from = padding.saturating_sub(start).min(kernel);
    from..(size + padding).saturating_sub(start).clamp(from, kernel)
}

/// Out x in x height x width to panel, chunk, step, line out.
fn pack(c: &Convolution, shape: Shape, interleaved: bool) -> Vec<Line> {
    let (taps, channels, out) = (c.window.height * c.window.width, shape.channels, c.bias.len());
    // (tap, channel in) of every step.
    let steps: Vec<(usize, usize)> = if interleaved {
        (0..taps).flat_map(|tap| (0..channels).map(move |channel| (tap, channel))).collect()
    } else {
        let of_block = |from: usize| {
            (0..taps).flat_map(move |tap| (from..channels.min(from + LANES)).map(move |channel| (tap, channel)))
        };
        (0..channels).step_by(LANES).flat_map(of_block).collect()
    };
    let mut packed = vec![Line::ZERO; blocks(out) * steps.len()];
    for (o, filter) in c.weight.chunks_exact(taps * channels).enumerate() {
        let panel = o / (LANES * PANEL);
        let width = PANEL.min(blocks(out) - panel * PANEL);
        let lines = &mut packed[panel * PANEL * steps.len()..][o / LANES % PANEL..];
        for (line, &(tap, channel)) in lines.iter_mut().step_by(width).zip(&steps) {
            line.0[o % LANES] = filter[channel * taps + tap];
        }
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::plan::Border;

    #[test]
    fn a_border_gives_each_class_of_pixels_its_bias() {
        let (shape, channels) = (Shape::new(1, 5, 6), 40);
        let class = |at: usize, size: usize| if at == 0 { 0 } else { 1 + usize::from(at + 1 == size) };
        let classes = |size: usize| (0..size).map(|at| class(at, size) as u8).collect();
        let convolution = Convolution {
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
        let dense = Dense::new(convolution, shape, out, false);
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
