//! Convolutions of 3 x 3 with stride 1 by Winograd's algorithm: tiles of the image are transformed, each position of
//! the transformed tiles is a matrix product over the channels, and the products are transformed back.
//!
//! Tiles stay inside of their image and are summed over channels in one order, whatever else runs.

#[cfg(test)]
mod tests;
mod transform;

use std::{marker::PhantomData, ops::Range};

use self::transform::{Four, Scheme, Two};
use super::{
    convolve::{Part, Scratch},
    epilogue::Epilogue,
    kernels::{Chunk, Factors, Level, PANEL, Pass, TILE, Tile, Vector},
    layout::{LANES, Line, area, blocks, pair_of_bf16},
    prologue::{Prologue, affine, affine_all},
};
use crate::{
    graph::{Edges, Shape, Window},
    plan::Convolution,
};

/// Lines that a group of tiles fills, at most: half of a common L2 cache.
const GROUP_LINES: usize = 8 << 10;

pub struct Winograd {
    shape: Shape,
    out: Shape,
    padding: Edges,
    /// Outputs of a tile in one direction: 2 or 4.
    side: usize,
    /// Products of bf16, two channels in a step.
    bf16: bool,
    /// Done before the transform.
    prologue: Option<Prologue>,
    /// Panel, position, step, line out.
    weights: Vec<Line>,
    epilogue: Epilogue,
}

impl Winograd {
    /// The side of the tiles that cost least, where they cost less than the sums written out.
    pub fn pays(c: &Convolution, out: Shape, bf16: bool) -> Option<usize> {
        let each = if bf16 { 2 } else { 1 };
        let cost = |side: &usize| cost_of_tiles(c, out, *side, each);
        let [four, two] = [4, 2].map(|side| cost(&side));
        if !applies(c) || four.min(two) >= cost_written_out(c, out, each) {
            return None;
        }
        Some(if two < four { 2 } else { 4 })
    }

    /// `bf16` for an even number of lines of channels; without it a prologue was folded.
    pub fn new(c: &Convolution, shape: Shape, out: Shape, side: usize, bf16: bool) -> Self {
        let weights = match side {
            2 => pack::<Two, 4, 2>(c, shape.channels, bf16),
            _ => pack::<Four, 6, 4>(c, shape.channels, bf16),
        };
        let prologue = c.prologue.as_ref().map(Prologue::new);
        Self { shape, out, padding: c.padding, side, bf16, prologue, weights, epilogue: Epilogue::new(c) }
    }

    /// Lines of weights, and of scratch for each thread.
    pub fn lines(shape: Shape, out: Shape, side: usize, bf16: bool) -> (usize, usize) {
        let (positions, steps) = ((side + 2) * (side + 2), if bf16 { shape.channels / 2 } else { shape.channels });
        let scratch = positions * (blocks(steps) + PANEL) * group(positions, blocks(steps));
        (blocks(out.channels) * positions * steps, scratch)
    }

    /// Steps of a sum at one position.
    fn steps(&self) -> usize {
        if self.bf16 { self.shape.channels / 2 } else { self.shape.channels }
    }

    pub fn panels(&self) -> usize {
        blocks(self.out.channels).div_ceil(PANEL)
    }

    fn positions(&self) -> usize {
        (self.side + 2) * (self.side + 2)
    }

    /// Rows of tiles in an image.
    pub fn rows(&self) -> usize {
        self.out.height.div_ceil(self.side)
    }

    fn columns(&self) -> usize {
        self.out.width.div_ceil(self.side)
    }

    /// The first pixel of a row of tiles, counted through all images.
    pub fn pixel(&self, row: usize) -> usize {
        row / self.rows() * area(self.out) + row % self.rows() * self.side * self.out.width
    }

    /// The part's pixels are whole rows of tiles.
    pub fn run(&self, level: Level, scratch: &mut Scratch, mut part: Part<'_>) {
        let row_of = |pixel: usize| {
            let (image, row) = (pixel / area(self.out), pixel % area(self.out) / self.out.width);
            image * self.rows() + row.div_ceil(self.side)
        };
        let tiles = row_of(part.pixels.start) * self.columns()..row_of(part.pixels.end) * self.columns();
        let (positions, taken) = (self.positions(), blocks(self.steps()));
        let group = group(positions, taken);
        let groups = tiles.len().div_ceil(group);
        for at in 0..groups {
            let cut = |at: usize| tiles.start + tiles.len() * at / groups;
            let group = cut(at)..cut(at + 1);
            let (input, sums) = (positions * taken * group.len(), positions * PANEL * group.len());
            scratch.gathered.resize(input.max(scratch.gathered.len()), Line::ZERO);
            scratch.sums.resize(sums.max(scratch.sums.len()), Line::ZERO);
            self.forward(level, scratch, &part, group.clone());
            let mut out = 0;
            for panel in part.panels.clone() {
                self.multiply(level, scratch, panel, group.len());
                self.backward(level, scratch, &mut part, panel, group.clone(), out);
                out += self.width(panel);
            }
        }
    }

    /// Lines out of a panel.
    pub fn width(&self, panel: usize) -> usize {
        PANEL.min(blocks(self.out.channels) - panel * PANEL)
    }

    /// Transforms a group's tiles: position, block, tile.
    fn forward(&self, level: Level, scratch: &mut Scratch, part: &Part<'_>, tiles: Range<usize>) {
        let to = &mut scratch.gathered[..];
        match self.side {
            2 => level.run(Forward::<Two, 4, 2> {
                layer: self,
                x: part.x,
                images: part.images,
                tiles,
                to,
                scheme: PhantomData,
            }),
            _ => level.run(Forward::<Four, 6, 4> {
                layer: self,
                x: part.x,
                images: part.images,
                tiles,
                to,
                scheme: PhantomData,
            }),
        }
    }

    /// Sums over the channels: position, tile, line out.
    fn multiply(&self, level: Level, scratch: &mut Scratch, panel: usize, tiles: usize) {
        let (taken, steps, width) = (blocks(self.steps()), self.steps(), self.width(panel));
        let first = panel * PANEL * self.positions() * steps;
        let parts = tiles.div_ceil(TILE);
        for position in 0..self.positions() {
            let weights = &self.weights[first + position * steps * width..][..steps * width];
            for at in 0..parts {
                let part = tiles * at / parts..tiles * (at + 1) / parts;
                scratch.chunks.clear();
                scratch.chunks.extend((0..taken).map(|block| Chunk {
                    source: 0,
                    steps: LANES.min(steps - block * LANES) as u16,
                    at: (((position * taken + block) * tiles + part.start) * LANES) as u32,
                }));
                let chunks = &scratch.chunks;
                let sources = [&scratch.gathered[..], &[]];
                let sums = &mut scratch.sums[(position * tiles + part.start) * width..][..part.len() * width];
                let (pixels, stride) = (part.len(), LANES);
                let factors = if self.bf16 { Factors::Bf16 } else { Factors::F32 };
                Tile { chunks, sources, weights, pixels, stride, width, first: true, factors }.accumulate(level, sums);
            }
        }
    }

    /// Transforms a panel's sums back and finishes the pixels.
    fn backward(
        &self,
        level: Level,
        scratch: &Scratch,
        part: &mut Part<'_>,
        panel: usize,
        tiles: Range<usize>,
        out: usize,
    ) {
        for line in 0..self.width(panel) {
            let block = panel * PANEL + line;
            let residual = match self.epilogue.residual {
                true => &part.residual[block * part.images * area(self.out)..][..part.images * area(self.out)],
                false => &[],
            };
            let sums = &scratch.sums[line..];
            let (layer, width, tiles) = (self, self.width(panel), tiles.clone());
            let (start, y) = (part.pixels.start, &mut *part.out[out + line]);
            match self.side {
                2 => level.run(Backward::<Two, 4, 2> {
                    layer,
                    sums,
                    width,
                    tiles,
                    block,
                    residual,
                    start,
                    y,
                    scheme: PhantomData,
                }),
                _ => level.run(Backward::<Four, 6, 4> {
                    layer,
                    sums,
                    width,
                    tiles,
                    block,
                    residual,
                    start,
                    y,
                    scheme: PhantomData,
                }),
            }
        }
    }

    /// Image, row and column of a tile's first output.
    #[inline(always)]
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let (row, column) = (tile / self.columns(), tile % self.columns());
        (row / self.rows(), row % self.rows() * self.side, column * self.side)
    }
}

/// Tiles that are transformed together.
fn group(positions: usize, taken: usize) -> usize {
    (GROUP_LINES / (positions * (taken + PANEL)) / TILE * TILE).max(TILE)
}

fn applies(c: &Convolution) -> bool {
    c.window == Window::square(3, 1) && c.groups == 1
}

/// Cycles for an image: products of `each` channels a step, transforms, and weights that come from afar once for a few
/// images.
fn cost_of_tiles(c: &Convolution, out: Shape, side: usize, each: usize) -> usize {
    let (lines_out, channels) = (blocks(out.channels), channels_of(c));
    let positions = (side + 2) * (side + 2);
    let tiles = out.height.div_ceil(side) * out.width.div_ceil(side);
    let products = tiles * positions * (channels / each) * lines_out;
    let transforms = tiles * positions * (blocks(channels) * 6 + lines_out * 7);
    products + transforms + positions * (channels / each) * lines_out * 2
}

/// The same for the sums written out.
fn cost_written_out(c: &Convolution, out: Shape, each: usize) -> usize {
    (area(out) + 2) * 9 * (channels_of(c) / each) * blocks(out.channels)
}

fn channels_of(c: &Convolution) -> usize {
    c.weight.len() / c.bias.len().max(1) / (c.window.height * c.window.width)
}

struct Forward<'a, S, const N: usize, const M: usize> {
    layer: &'a Winograd,
    x: &'a [Line],
    images: usize,
    tiles: Range<usize>,
    to: &'a mut [Line],
    scheme: PhantomData<S>,
}

impl<S: Scheme<N, M>, const N: usize, const M: usize> Pass for Forward<'_, S, N, M> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { layer, x, images, tiles, to, .. } = self;
        let Shape { height, width, channels } = layer.shape;
        let (taken, count) = (blocks(channels), tiles.len());
        let mut patch = [[Line::ZERO; N]; N];
        for (at, tile) in tiles.enumerate() {
            let (image, row, column) = layer.place(tile);
            let (top, left) =
                (row as isize - layer.padding.top as isize, column as isize - layer.padding.left as isize);
            let inside = |start: isize, size: usize| {
                (-start).clamp(0, N as isize) as usize..(size as isize - start).clamp(0, N as isize) as usize
            };
            let (rows, columns) = (inside(top, height), inside(left, width));
            let whole = rows.len() == N && columns.len() == N;
            if !whole {
                patch = [[Line::ZERO; N]; N];
            }
            for block in 0..taken {
                let plane = &x[(block * images + image) * height * width..][..height * width];
                let (line, half) = if layer.bf16 { (block / 2, Some(block % 2 == 1)) } else { (block, None) };
                let to = &mut to[line * count + at..];
                let step = blocks(layer.steps()) * count;
                #[allow(clippy::manual_map)] // a closure would not be inlined
                let prologue = match &layer.prologue {
                    None => None,
                    Some(prologue) => Some(prologue.of::<V>(block)),
                };
                if whole {
                    let from = &plane[top as usize * width + left as usize..];
                    let mut rows = [&[Line::ZERO; N]; N];
                    for (r, row) in rows.iter_mut().enumerate() {
                        *row = from[r * width..].first_chunk().unwrap_or(&[Line::ZERO; N]);
                    }
                    match prologue {
                        None => transform::forward::<S, V, N, M>(rows, to, step, half),
                        Some(of) => {
                            for (to, from) in patch.as_flattened_mut().iter_mut().zip(rows.into_iter().flatten()) {
                                affine(from, of).store(to);
                            }
                            transform::forward::<S, V, N, M>(patch.each_ref(), to, step, half);
                        }
                    }
                } else {
                    for r in rows.clone() {
                        let start = (top + r as isize) as usize * width + (left + columns.start as isize) as usize;
                        let (to, from) = (&mut patch[r][columns.clone()], &plane[start..start + columns.len()]);
                        affine_all(from, prologue, to);
                    }
                    transform::forward::<S, V, N, M>(patch.each_ref(), to, step, half);
                }
            }
        }
    }
}

struct Backward<'a, S, const N: usize, const M: usize> {
    layer: &'a Winograd,
    /// From the block's line on.
    sums: &'a [Line],
    /// Lines from tile to tile.
    width: usize,
    tiles: Range<usize>,
    block: usize,
    residual: &'a [Line],
    /// The pixel where y starts.
    start: usize,
    y: &'a mut [Line],
    scheme: PhantomData<S>,
}

impl<S: Scheme<N, M>, const N: usize, const M: usize> Pass for Backward<'_, S, N, M> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { layer, sums, width, tiles, block, residual, start, y, .. } = self;
        let (out, epilogue) = (layer.out, &layer.epilogue);
        let slope = V::load(epilogue.slope(block));
        let step = tiles.len() * width;
        for (at, tile) in tiles.enumerate() {
            let (image, row, column) = layer.place(tile);
            let sums = &sums[at * width..];
            let first = image * area(out) + row * out.width + column;
            let (rows, columns) = (M.min(out.height - row), M.min(out.width - column));
            let outputs = transform::backward::<S, V, N, M>(sums, step);
            for (r, outputs) in outputs.into_iter().enumerate().take(rows) {
                for (c, sum) in outputs.into_iter().enumerate().take(columns) {
                    let pixel = first + r * out.width + c;
                    let mut v = sum.add(V::load(epilogue.bias(block, row + r, column + c)));
                    if epilogue.residual {
                        v = v.add(V::load(&residual[pixel]));
                    }
                    v.activate(slope).store(&mut y[pixel - start]);
                }
            }
        }
    }
}

/// Out x in x 3 x 3 to panel, position, step, line out.
fn pack<S: Scheme<N, M>, const N: usize, const M: usize>(c: &Convolution, channels: usize, bf16: bool) -> Vec<Line> {
    let out = c.bias.len();
    let each = if bf16 { 2 } else { 1 };
    let steps = channels / each;
    let mut packed = vec![Line::ZERO; blocks(out) * N * N * steps];
    for (o, filter) in c.weight.chunks_exact(9 * channels).enumerate() {
        let panel = o / (LANES * PANEL);
        let width = PANEL.min(blocks(out) - panel * PANEL);
        let lines = &mut packed[panel * PANEL * N * N * steps..];
        for (step, pair) in filter.chunks_exact(9 * each).enumerate() {
            let low = transform::kernel::<S, N, M>(&pair[..9]);
            let high = transform::kernel::<S, N, M>(&pair[9 * (each - 1)..]);
            for (position, (low, high)) in low.as_flattened().iter().zip(high.as_flattened()).enumerate() {
                let line = (position * steps + step) * width + o / LANES % PANEL;
                lines[line].0[o % LANES] = if bf16 { pair_of_bf16(*low, *high) } else { *low };
            }
        }
    }
    packed
}
