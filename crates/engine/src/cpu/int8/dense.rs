//! Convolutions of codes, dense: tiles of pixels times panels of channels, and all that follows in the same pass.
//!
//! A tile's pixels may lie anywhere. A panel's weights stay in the L2 cache while a group of tiles pass by, of several
//! images where they are small, and so do the group's pixels.

use super::{
    emit::{Out, Part, cut, shares},
    epilogue::Epilogue,
    kernels::{Buffer, Footprint, LINE, Lanes, PANEL, Panel, Pass, STEP, TILE},
    layout::{Layout, Pixel, each_pixel},
};
use crate::{
    cpu::kernels::Level,
    graph::{Edges, Shape, Window},
    int8::{Convolution, Stem},
};
use rayon::prelude::*;
use std::ops::Range;

/// Bytes of the input that all panels go over before the next: so much stays in the L2 cache.
const GROUP: usize = 256 << 10;
/// The same in panels, whose weights are read again for every group.
const GROUP_PANELS: usize = 4;
/// Pixels whose values are made before they are stored.
const FINISHED: usize = 12;
/// Panels for each thread from which on threads share them, not the pixels: weights are then read once.
const MANY_PANELS: usize = 8;

#[derive(Debug)]
pub struct Dense {
    level: Level,
    /// The input's.
    layout: Layout,
    out: Shape,
    window: Window,
    /// Bytes of the input before the first window.
    start: usize,
    /// A stem of bytes has two for each: the upper part of the weights, then the lower.
    panels: Vec<Panel>,
    /// Panels that are one.
    joined: usize,
    epilogue: Epilogue,
}

/// Weights as the packing reads them: out x in/groups x height x width.
struct Filters<'a> {
    of: &'a dyn Fn(usize) -> i16,
    outs: usize,
    groups: usize,
}

impl Dense {
    /// Of any number of groups: the weights between those of a panel are zeros. `unit`: of the residual.
    pub fn new(level: Level, c: &Convolution, layout: Layout, out: Shape, unit: f32) -> Self {
        let filters = Filters { of: &|at| c.weight[at].into(), outs: out.channels, groups: c.groups };
        let panels = pack(level, &filters, c.window, layout);
        let taps = c.weight.len() / out.channels;
        let sums = c.weight.chunks_exact(taps).map(|filter| filter.iter().map(|&w| i32::from(w)).sum());
        let epilogue = Epilogue::of_convolution(c, sums.collect(), layout, unit);
        Self::of(level, layout, out, c.window, c.padding, (panels, 1), epilogue)
    }

    pub fn stem(level: Level, stem: &Stem, layout: Layout, out: Shape) -> Self {
        let pack = |of: &dyn Fn(i16) -> i16| {
            let filters = Filters { of: &|at| of(stem.weight[at]), outs: out.channels, groups: 1 };
            pack(level, &filters, stem.window, layout)
        };
        let panels = if level.takes_bytes() {
            let lower = pack(&|w| w & 127);
            (pack(&|w| w >> 7).into_iter().zip(lower).flat_map(|(upper, lower)| [upper, lower]).collect(), 2)
        } else {
            (pack(&|w| w), 1)
        };
        let taps = stem.weight.len() / out.channels;
        let sums = stem.weight.chunks_exact(taps).map(|filter| filter.iter().map(|&w| i32::from(w)).sum());
        let epilogue = Epilogue::of_stem(stem, sums.collect(), layout);
        Self::of(level, layout, out, stem.window, stem.padding, panels, epilogue)
    }

    fn of(
        level: Level,
        layout: Layout,
        out: Shape,
        window: Window,
        padding: Edges,
        (panels, joined): (Vec<Panel>, usize),
        epilogue: Epilogue,
    ) -> Self {
        let (top, left) = (layout.halo.top - padding.top, layout.halo.left - padding.left);
        let start = (top * layout.columns() + left) * layout.pitch * layout.size();
        Self { level, layout, out, window, start, panels, joined, epilogue }
    }

    /// Bytes of the weights of such a convolution, at most: between those of several groups there are zeros.
    pub fn packed(level: Level, (window, groups): (Window, usize), layout: Layout, out: Shape) -> usize {
        let (each, outs) = (layout.shape.channels / groups, (out.channels / groups).max(1));
        let (runs, length) = match groups {
            1 => (window.height, window.width * layout.pitch),
            _ => (window.height * window.width, ((level.panel() - 1) / outs + 2).min(groups) * each + level.each()),
        };
        let channels = out.channels.next_multiple_of(level.panel());
        [runs, length.div_ceil(level.each()), STEP, channels].into_iter().fold(1, usize::saturating_mul)
    }

    /// Bytes of weights.
    pub fn bytes(&self) -> usize {
        self.panels.iter().map(Panel::bytes).sum()
    }

    /// `x` and `residual`, which is of halves, hold n images. `threads` of the current pool share the work.
    pub fn run(&self, threads: usize, images: usize, x: &Buffer, residual: Option<&Buffer>, outs: Vec<Out<'_>>) {
        let (pixels, panels) = (images * self.out.height * self.out.width, self.panels.len() / self.joined);
        let across = threads > 1 && (panels >= threads * MANY_PANELS || pixels < threads * self.level.tile());
        let columns = if across { threads.min(panels) } else { 1 };
        let rows: Vec<_> = shares(pixels, (threads / columns).clamp(1, pixels)).collect();
        let parts = cut(outs, &rows, columns, panels, self.level.panel());
        let residual = residual.map_or(&[][..], Buffer::halves);
        if threads == 1 {
            parts.into_iter().for_each(|part| self.run_part(x.bytes(), residual, part));
        } else {
            parts.into_par_iter().for_each(|part| self.run_part(x.bytes(), residual, part));
        }
    }

    /// Pixels of a group.
    fn group(&self) -> usize {
        let panel = self.panels.first().map_or(0, Panel::bytes) * self.joined;
        let most = GROUP.max(GROUP_PANELS * panel);
        let image = self.layout.elements(1) * self.layout.size();
        (most * self.out.height * self.out.width / image).max(self.level.tile())
    }

    fn run_part(&self, x: &[u8], residual: &[u16], mut part: Part<'_>) {
        let (tile, mut sums) = (self.level.tile(), [0; 2 * TILE * PANEL]);
        // Groups and tiles of nearly equal size: none is left with one pixel.
        let cut = |range: &Range<usize>, most: usize| {
            let start = range.start;
            shares(range.len(), range.len().div_ceil(most)).map(move |part| start + part.start..start + part.end)
        };
        for group in cut(&part.pixels, self.group()) {
            for panel in part.panels.clone() {
                for pixels in cut(&group, tile) {
                    self.run_tile(x, residual, panel, pixels, &mut sums, &mut part.outs);
                }
            }
        }
    }

    fn run_tile(
        &self,
        x: &[u8],
        residual: &[u16],
        panel: usize,
        range: Range<usize>,
        sums: &mut [i32],
        outs: &mut [Out<'_>],
    ) {
        let panels = &self.panels[panel * self.joined..][..self.joined];
        let lanes = panels[0].lanes();
        let (mut pixels, mut places) = ([Pixel::default(); TILE], [0; TILE]);
        let places_of = places.iter_mut().zip(&mut pixels);
        for ((place, pixel), next) in places_of.zip(each_pixel(self.out, range.clone())) {
            (*pixel, *place) = (next, self.place(next));
        }
        let size = range.len() * lanes;
        for (panel, sums) in panels.iter().zip(sums.chunks_exact_mut(size)) {
            panel.sum(self.level, x, &places[..range.len()], sums);
        }
        let (upper, lower) = sums[..self.joined * size].split_at(size);
        self.level.run_lanes(Finish {
            epilogue: &self.epilogue,
            sums: [upper, lower],
            lanes,
            channel: panel * self.level.panel(),
            pixels: &pixels[..range.len()],
            first: range.start,
            residual,
            outs,
        });
    }

    /// Where a pixel's window begins in the input.
    fn place(&self, Pixel { image, row, column }: Pixel) -> usize {
        let (layout, stride) = (&self.layout, self.window.stride);
        let row = image * layout.rows() + row * stride;
        self.start + (row * layout.columns() + column * stride) * layout.pitch * layout.size()
    }
}

/// Panels of all channels out.
fn pack(level: Level, filters: &Filters<'_>, window: Window, layout: Layout) -> Vec<Panel> {
    let Window { height, width, .. } = window;
    let (codes, taps, pitch) = (level.each(), height * width, layout.pitch);
    let (each, outs) = (layout.shape.channels / filters.groups, filters.outs / filters.groups);
    let panel = |first: usize| {
        let count = (filters.outs - first).min(level.panel());
        let lanes = if count <= LINE { LINE } else { level.panel() };
        // Rows of the kernel lie in one run; of groups, the channels of those in the panel do.
        let (whole, from) = (filters.groups == 1, first / outs * each / codes * codes);
        let until = ((first + count - 1) / outs + 1) * each;
        let (runs, length) = if whole { (height, width * pitch) } else { (taps, until - from) };
        let steps = length.div_ceil(codes);
        let start = |run: usize| match whole {
            true => run * layout.columns() * pitch,
            false => (run / width * layout.columns() + run % width) * pitch + from,
        };
        let footprint = Footprint { runs: (0..runs).map(|run| start(run) * layout.size()).collect(), steps };
        let mut weights = vec![0; runs * steps * lanes * codes];
        for (lane, o) in (first..first + count).enumerate() {
            for (channel, tap) in (0..each).flat_map(|channel| (0..taps).map(move |tap| (channel, tap))) {
                let place = o / outs * each + channel;
                let (run, code) = if whole { (tap / width, tap % width * pitch + place) } else { (tap, place - from) };
                let step = run * steps + code / codes;
                weights[(step * lanes + lane) * codes + code % codes] = (filters.of)((o * each + channel) * taps + tap);
            }
        }
        Panel::new(level, footprint, lanes, &weights)
    };
    (0..filters.outs).step_by(level.panel()).map(panel).collect()
}

/// Makes values of a tile's sums and stores them.
struct Finish<'a, 'b> {
    epilogue: &'a Epilogue,
    /// Pixel, channel; the second of a stem alone.
    sums: [&'a [i32]; 2],
    lanes: usize,
    /// The first.
    channel: usize,
    pixels: &'a [Pixel],
    /// The number of the first, counted through all images.
    first: usize,
    residual: &'a [u16],
    outs: &'a mut [Out<'b>],
}

impl Pass for Finish<'_, '_> {
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let [upper, lower] = self.sums.map(|sums| sums.as_chunks::<LINE>().0);
        let (epilogue, each) = (self.epilogue, self.lanes / LINE);
        let blocks = epilogue.blocks();
        // Lines first: what belongs to the channels stays in registers.
        for line in 0..each.min(blocks.saturating_sub(self.channel / LINE)) {
            let block = self.channel / LINE + line;
            for (start, pixels) in (0..).step_by(FINISHED).zip(self.pixels.chunks(FINISHED)) {
                let mut values = [L::splat(0.0); FINISHED];
                for (at, (v, pixel)) in (start..).zip(values.iter_mut().zip(pixels)) {
                    let mut sums = L::load_whole(&upper[at * each + line]);
                    if let Some(lower) = lower.get(at * each + line) {
                        sums = L::join(sums, L::load_whole(lower));
                    }
                    *v = epilogue.value::<L>(sums, *pixel, self.first + at, block, self.residual);
                }
                self.outs.iter_mut().for_each(|out| out.store(&values, pixels, block * LINE));
            }
        }
    }
}
