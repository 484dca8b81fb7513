//! Convolutions of 3 x 3 with stride 1 by Winograd's algorithm, in whole numbers: the same sums, exactly, with four
//! ninths of the products. For machines that multiply words; where bytes are multiplied four at a time, there is
//! nothing to gain.
//!
//! Two by two pixels out are one tile. The four by four codes that it reads are transformed (`B^T d B`, at most four
//! times as large: a word), and so is every filter, times 2 in each direction (`4 G g G^T`, at most nine times as
//! large). Each of the 16 positions of the transformed tiles is a product over the channels. Transformed back, the
//! products are four times the convolution's sums, so the division is exact. What passes 32 bits on the way wraps and
//! comes back, as long as four times a sum fits: [`Winograd::applies`] proves it.
//!
//! A. Lavin, S. Gray: Fast Algorithms for Convolutional Neural Networks, F(2 x 2, 3 x 3).

use std::ops::Range;

use rayon::prelude::*;

use super::{
    emit::{Out, Part, cut, shares},
    epilogue::Epilogue,
    kernels::{Buffer, Footprint, LINE, Lanes, Panel, Pass},
    layout::{Layout, Pixel, each_pixel},
};
use crate::{
    cpu::kernels::Level,
    graph::{Shape, Window},
    int8::{Convolution, Form},
};

/// Pixels of a tile in one direction: in, and out.
const IN: usize = 4;
const OUT: usize = 2;
const POSITIONS: usize = IN * IN;
/// Bytes of transformed codes that all panels go over before the next: so much stays in the L2 cache.
const GROUP: usize = 256 << 10;
/// Tiles of a group, at most: their products stay in the L2 cache as well.
const MOST_TILES: usize = 64;
/// Channels, in and out, from which on it pays.
const LEAST_CHANNELS: usize = 32;

#[derive(Debug)]
pub struct Winograd {
    level: Level,
    /// The input's.
    layout: Layout,
    out: Shape,
    /// Rows and columns of the input before the first window.
    before: [usize; 2],
    /// Panel, position.
    panels: Vec<Panel>,
    epilogue: Epilogue,
}

/// A thread's memory: transformed codes, and the products of a panel. Kept from run to run, and wiped when it is
/// dropped.
#[derive(Debug, Default)]
pub struct Scratch {
    codes: Buffer,
    products: Buffer,
}

impl Winograd {
    /// Whether it can compute the convolution, and pays.
    pub fn applies(level: Level, c: &Convolution, layout: Layout, out: Shape) -> bool {
        let channels = layout.shape.channels;
        let fits = c.groups == 1 && c.window == Window::square(3, 1) && !level.takes_bytes();
        let whole = channels.is_multiple_of(LINE) && channels.min(out.channels) >= LEAST_CHANNELS;
        // At an odd end a part of the tiles is for nothing.
        let products = POSITIONS * out.height.div_ceil(OUT) * out.width.div_ceil(OUT);
        let pays = 4 * products <= 3 * 9 * out.height * out.width;
        let most = if layout.form == Form::U8 { 255 } else { 128 };
        let sum = |filter: &[i8]| filter.iter().map(|w| i64::from(w.unsigned_abs())).sum::<i64>();
        fits && whole && pays && c.weight.chunks(9 * channels).all(|f| 4 * most * sum(f) <= i64::from(i32::MAX))
    }

    /// `unit`: of the residual.
    pub fn new(level: Level, c: &Convolution, layout: Layout, out: Shape, unit: f32) -> Self {
        let channels = layout.shape.channels;
        let filters: Vec<[i16; POSITIONS]> = c.weight.as_chunks().0.iter().map(transformed).collect();
        let panel = |first: usize, position: usize| {
            let count = (out.channels - first).min(level.panel());
            let lanes = if count <= LINE { LINE } else { level.panel() };
            let mut weights = vec![0; channels * lanes];
            for (lane, filter) in filters[first * channels..].chunks(channels).take(count).enumerate() {
                for (channel, weight) in filter.iter().enumerate() {
                    let (step, code) = (channel / level.each(), channel % level.each());
                    weights[(step * lanes + lane) * level.each() + code] = weight[position];
                }
            }
            let footprint = Footprint { runs: vec![0], steps: channels / level.each() };
            Panel::new(level, footprint, lanes, &weights)
        };
        let firsts = (0..out.channels).step_by(level.panel());
        let panels = firsts.flat_map(|first| (0..POSITIONS).map(move |position| (first, position)));
        let (panels, sums) = (panels.map(|(first, position)| panel(first, position)).collect(), vec![0; out.channels]);
        let before = [layout.halo.top - c.padding.top, layout.halo.left - c.padding.left];
        Self { level, layout, out, before, panels, epilogue: Epilogue::of_convolution(c, sums, layout, unit) }
    }

    /// Bytes of the weights of such a convolution.
    pub fn packed(level: Level, layout: Layout, out: Shape) -> usize {
        let weights = layout.shape.channels.saturating_mul(out.channels.next_multiple_of(level.panel()));
        weights.saturating_mul(POSITIONS * size_of::<i16>())
    }

    /// Bytes of weights.
    pub fn bytes(&self) -> usize {
        self.panels.iter().map(Panel::bytes).sum()
    }

    /// Bytes of a thread's scratch.
    pub fn scratch(&self) -> usize {
        self.group()
            * POSITIONS
            * (self.layout.shape.channels * size_of::<i16>() + self.level.panel() * size_of::<i32>())
    }

    /// Tiles of a group.
    fn group(&self) -> usize {
        let tile = POSITIONS * self.layout.shape.channels * size_of::<i16>();
        (GROUP / tile).clamp(self.level.tile(), MOST_TILES)
    }

    /// Of an image.
    fn tiles(&self) -> Shape {
        Shape::new(1, self.out.height.div_ceil(OUT), self.out.width.div_ceil(OUT))
    }

    /// As [`super::dense::Dense::run`].
    pub fn run(
        &self,
        threads: usize,
        images: usize,
        (x, residual): (&Buffer, Option<&Buffer>),
        scratch: &mut Vec<Scratch>,
        outs: Vec<Out<'_>>,
    ) {
        let (down, panels) = (self.tiles().height, self.panels.len() / POSITIONS);
        let strips = images * down;
        // Threads that share panels transform the same tiles.
        let columns = if threads > strips { threads.min(panels) } else { 1 };
        let first = |strip: usize| {
            let row = strip / down * self.out.height + (strip % down * OUT).min(self.out.height);
            row * self.out.width
        };
        let rows = shares(strips, (threads / columns).clamp(1, strips));
        let rows: Vec<_> = rows.map(|strips| first(strips.start)..first(strips.end)).collect();
        let parts = cut(outs, &rows, columns, panels, self.level.panel());
        let residual = residual.map_or(&[][..], Buffer::halves);
        if scratch.len() < parts.len() {
            scratch.resize_with(parts.len(), Scratch::default);
        }
        if threads == 1 {
            let with = parts.into_iter().zip(scratch);
            with.for_each(|(part, scratch)| self.run_part(x.words(), residual, scratch, part));
        } else {
            let with = parts.into_par_iter().zip(scratch);
            with.for_each(|(part, scratch)| self.run_part(x.words(), residual, scratch, part));
        }
    }

    fn run_part(&self, x: &[i16], residual: &[u16], scratch: &mut Scratch, mut part: Part<'_>) {
        let (Shape { height: down, width: across, .. }, channels) = (self.tiles(), self.layout.shape.channels);
        // A part begins and ends with whole strips of tiles.
        let strip = |pixel: usize| {
            let row = pixel / self.out.width;
            row / self.out.height * down + row % self.out.height / OUT
        };
        let tiles = strip(part.pixels.start) * across..strip(part.pixels.end) * across;
        let most = self.group();
        let places: Vec<usize> = (0..most).map(|tile| tile * channels * size_of::<i16>()).collect();
        scratch.codes.grow(most * POSITIONS * channels * size_of::<i16>() + Layout::SLACK);
        scratch.products.grow(most * POSITIONS * self.level.panel() * size_of::<i32>());
        for group in shares(tiles.len(), tiles.len().div_ceil(most).max(1)) {
            let group = tiles.start + group.start..tiles.start + group.end;
            let count = group.len();
            // Of nearly equal size: none is left with one tile.
            let runs: Vec<_> = shares(count, count.div_ceil(self.level.tile())).collect();
            self.level.run_lanes(Transform { of: self, x, tiles: group.clone(), to: scratch.codes.words_mut() });
            for panel in part.panels.clone() {
                let of_panel = &self.panels[panel * POSITIONS..][..POSITIONS];
                let lanes = of_panel[0].lanes();
                let products = &mut scratch.products.wholes_mut()[..POSITIONS * count * lanes];
                let codes = scratch.codes.bytes().chunks(count * channels * size_of::<i16>());
                for ((weights, codes), products) in of_panel.iter().zip(codes).zip(products.chunks_mut(count * lanes)) {
                    for run in &runs {
                        let products = &mut products[run.start * lanes..run.end * lanes];
                        weights.sum(self.level, codes, &places[run.clone()], products);
                    }
                }
                self.level.run_lanes(Finish {
                    of: self,
                    products: &scratch.products.wholes()[..POSITIONS * count * lanes],
                    lanes,
                    channel: panel * self.level.panel(),
                    tiles: group.clone(),
                    residual,
                    outs: &mut part.outs,
                });
            }
        }
    }
}

/// `4 G g G^T`.
fn transformed(filter: &[i8; 9]) -> [i16; POSITIONS] {
    let each = |g: [i16; 3]| [2 * g[0], g[0] + g[1] + g[2], g[0] - g[1] + g[2], 2 * g[2]];
    let columns: [[i16; IN]; 3] =
        std::array::from_fn(|column| each(std::array::from_fn(|row| filter[row * 3 + column].into())));
    let rows: [[i16; IN]; IN] = std::array::from_fn(|row| each(std::array::from_fn(|column| columns[column][row])));
    std::array::from_fn(|at| rows[at / IN][at % IN])
}

/// `B^T d B` of tiles: position, tile, channel.
struct Transform<'a> {
    of: &'a Winograd,
    x: &'a [i16],
    tiles: Range<usize>,
    to: &'a mut [i16],
}

impl Pass for Transform<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Winograd { layout, before, .. } = self.of;
        let (channels, count) = (layout.shape.channels, self.tiles.len());
        let [rows, columns] = [layout.rows(), layout.columns()];
        for (tile, at) in each_pixel(self.of.tiles(), self.tiles).enumerate() {
            let Pixel { image, row: down, column: across } = at;
            // What an odd end reads beyond the halo goes into no pixel: anything will do.
            let row = |i: usize| (down * OUT + before[0] + i).min(rows - 1);
            let column = |i: usize| (across * OUT + before[1] + i).min(columns - 1);
            let places: [usize; POSITIONS] =
                std::array::from_fn(|at| ((image * rows + row(at / IN)) * columns + column(at % IN)) * layout.pitch);
            for channel in (0..channels).step_by(LINE) {
                // A column of the result at a time: what it needs fits the registers.
                let columns = [
                    column_of::<0, 2>(less, self.x, &places, channel),
                    column_of::<1, 2>(plus, self.x, &places, channel),
                    column_of::<2, 1>(less, self.x, &places, channel),
                    column_of::<1, 3>(less, self.x, &places, channel),
                ];
                for (column, values) in columns.into_iter().enumerate() {
                    for (row, values) in values.into_iter().enumerate() {
                        let place = ((row * IN + column) * count + tile) * channels + channel;
                        self.to[place..place + LINE].copy_from_slice(&values);
                    }
                }
            }
        }
    }
}

/// A column of the transformed tile, which columns A and B of the codes give.
#[inline(always)]
fn column_of<const A: usize, const B: usize>(
    both: impl Fn([i16; LINE], [i16; LINE]) -> [i16; LINE],
    x: &[i16],
    places: &[usize; POSITIONS],
    channel: usize,
) -> [[i16; LINE]; IN] {
    let a = both(words(&x[places[A] + channel..]), words(&x[places[B] + channel..]));
    let b = both(words(&x[places[IN + A] + channel..]), words(&x[places[IN + B] + channel..]));
    let c = both(words(&x[places[2 * IN + A] + channel..]), words(&x[places[2 * IN + B] + channel..]));
    let d = both(words(&x[places[3 * IN + A] + channel..]), words(&x[places[3 * IN + B] + channel..]));
    [less(a, c), plus(b, c), less(c, b), less(b, d)]
}

/// What a row of products, `pitch` lines apart, is to the left and to the right pixel out.
#[inline(always)]
fn across<L: Lanes>(products: &[[i32; LINE]], pitch: usize) -> [L::Whole; OUT] {
    let (b, c) = (L::load_whole(&products[pitch]), L::load_whole(&products[2 * pitch]));
    let left = L::add_whole(L::add_whole(L::load_whole(&products[0]), b), c);
    [left, L::subtract_whole(L::subtract_whole(b, c), L::load_whole(&products[3 * pitch]))]
}

#[inline(always)]
fn words(from: &[i16]) -> [i16; LINE] {
    from.first_chunk().copied().unwrap_or([0; LINE])
}

#[inline(always)]
fn plus(a: [i16; LINE], b: [i16; LINE]) -> [i16; LINE] {
    std::array::from_fn(|i| a[i].wrapping_add(b[i]))
}

#[inline(always)]
fn less(a: [i16; LINE], b: [i16; LINE]) -> [i16; LINE] {
    std::array::from_fn(|i| a[i].wrapping_sub(b[i]))
}

/// Makes sums of a panel's products, values of the sums, and stores them.
struct Finish<'a, 'b> {
    of: &'a Winograd,
    /// Position, tile, channel.
    products: &'a [i32],
    lanes: usize,
    /// The first.
    channel: usize,
    tiles: Range<usize>,
    residual: &'a [u16],
    outs: &'a mut [Out<'b>],
}

impl Pass for Finish<'_, '_> {
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Winograd { epilogue, out, .. } = self.of;
        let (products, each) = (self.products.as_chunks::<LINE>().0, self.lanes / LINE);
        let count = self.tiles.len();
        for line in 0..each.min(epilogue.blocks().saturating_sub(self.channel / LINE)) {
            let block = self.channel / LINE + line;
            for (tile, at) in each_pixel(self.of.tiles(), self.tiles.clone()).enumerate() {
                let row = |row: usize| (row * IN * count + tile) * each + line;
                // A row of products at a time: what it adds to fits the registers.
                let a = across::<L>(&products[row(0)..], count * each);
                let b = across::<L>(&products[row(1)..], count * each);
                let mut sums = [L::add_whole(a[0], b[0]), L::add_whole(a[1], b[1]), b[0], b[1]];
                let c = across::<L>(&products[row(2)..], count * each);
                sums = [
                    L::add_whole(sums[0], c[0]),
                    L::add_whole(sums[1], c[1]),
                    L::subtract_whole(sums[2], c[0]),
                    L::subtract_whole(sums[3], c[1]),
                ];
                let d = across::<L>(&products[row(3)..], count * each);
                sums[2] = L::subtract_whole(sums[2], d[0]);
                sums[3] = L::subtract_whole(sums[3], d[1]);
                let Pixel { image, row: down, column: across } = at;
                let (mut values, mut pixels, mut stored) = ([L::splat(0.0); 4], [Pixel::default(); 4], 0);
                for (at, sums) in sums.into_iter().enumerate() {
                    let (row, column) = (down * OUT + at / OUT, across * OUT + at % OUT);
                    if row >= out.height || column >= out.width {
                        continue;
                    }
                    let (pixel, number) =
                        (Pixel { image, row, column }, (image * out.height + row) * out.width + column);
                    values[stored] = epilogue.value::<L>(L::quarter(sums), pixel, number, block, self.residual);
                    pixels[stored] = pixel;
                    stored += 1;
                }
                self.outs.iter_mut().for_each(|out| out.store(&values[..stored], &pixels[..stored], block * LINE));
            }
        }
    }
}
