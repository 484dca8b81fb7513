//! What dense convolutions multiply: inputs and weights as f32, or rounded to bf16.

use std::ops::Range;

use super::{
    kernels::{Factors, Level, PANEL, Pass, Vector},
    layout::{LANES, Line, blocks, pair_of_bf16},
    prologue::{Prologue, affine},
};
use crate::{graph::Shape, plan::Convolution};

/// Rounds an input of `plane` lines for each block of channels, of which those in `wanted` are needed, to bf16, after the prologue. `y`
/// gets as many lines for each two blocks.
pub fn convert(
    level: Level,
    x: &[Line],
    plane: usize,
    wanted: Range<usize>,
    prologue: Option<&Prologue>,
    y: &mut Vec<Line>,
) {
    let groups = x.len().div_ceil(2 * plane);
    y.resize((groups * plane).max(y.len()), Line::ZERO);
    for (group, (x, y)) in x.chunks(2 * plane).zip(y.chunks_exact_mut(plane)).enumerate() {
        let lines = |at: usize| x.get(at * plane..(at + 1) * plane).and_then(|lines| lines.get(wanted.clone()));
        let (low, high) = (lines(0).unwrap_or(&[]), lines(1).unwrap_or(&[]));
        level.run(Round { prologue, first: 2 * group, low, high, y: &mut y[wanted.clone()] });
    }
}

/// Two lines become one of bf16.
struct Round<'a> {
    prologue: Option<&'a Prologue>,
    /// The block of `low`.
    first: usize,
    low: &'a [Line],
    /// Where a line is missing, the half stays as it is.
    high: &'a [Line],
    y: &'a mut [Line],
}

impl Pass for Round<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Some(prologue) = self.prologue else {
            for (y, x) in self.y.iter_mut().zip(self.low) {
                V::load(x).store_half(y, false);
            }
            for (y, x) in self.y.iter_mut().zip(self.high) {
                V::load(x).store_half(y, true);
            }
            return;
        };
        // Pairs of channels are not cut: both halves are there.
        let (low, high) = (prologue.of::<V>(self.first), prologue.of::<V>(self.first + 1));
        for (y, (a, b)) in self.y.iter_mut().zip(self.low.iter().zip(self.high)) {
            affine(a, low).store_half(y, false);
            affine(b, high).store_half(y, true);
        }
    }
}

/// A convolution's weights: panel, chunk, step, line out.
pub fn pack(c: &Convolution, shape: Shape, interleaved: bool, factors: Factors) -> Vec<Line> {
    let (taps, channels, out) = (c.window.height * c.window.width, shape.channels, c.bias.len());
    // Where in a filter the values of each step stand.
    let places = if interleaved { places_of_rows(c, channels, factors) } else { places_of_lines(c, channels, factors) };
    let steps = places.len() / factors.each();
    let mut packed = vec![Line::ZERO; blocks(out) * steps];
    for (o, filter) in c.weight.chunks_exact(taps * channels).enumerate() {
        let panel = o / (LANES * PANEL);
        let width = PANEL.min(blocks(out) - panel * PANEL);
        let lines = packed[panel * PANEL * steps..].iter_mut().skip(o / LANES % PANEL).step_by(width);
        for (line, step) in lines.zip(places.chunks_exact(factors.each())) {
            // Channels that are not there have no value.
            let place = |at: usize| step.get(at).copied().unwrap_or(NOWHERE);
            let value = |at: usize| filter.get(place(at)).copied().unwrap_or(0.0);
            line.0[o % LANES] = match factors {
                Factors::F32 => value(0),
                Factors::Bf16 => pair_of_bf16(value(0), value(1)),
            };
        }
    }
    packed
}

/// Steps of a sum: what a channel out has of weights, in lines.
pub fn steps(c: &Convolution, channels: usize, interleaved: bool, factors: Factors) -> usize {
    let (taps, each) = (c.window.height * c.window.width, factors.each());
    match interleaved {
        true => c.window.height * (c.window.width * channels).div_ceil(each),
        false => taps * channels.div_ceil(each),
    }
}

/// A channel that is not there.
const NOWHERE: usize = usize::MAX;

/// Rows of the kernel, as they lie in an interleaved image.
fn places_of_rows(c: &Convolution, channels: usize, factors: Factors) -> Vec<usize> {
    let (taps, each) = (c.window.height * c.window.width, factors.each());
    let mut places = Vec::with_capacity(each * steps(c, channels, true, factors));
    for row in 0..c.window.height {
        let taps_of_row = row * c.window.width..(row + 1) * c.window.width;
        places.extend(taps_of_row.flat_map(|tap| (0..channels).map(move |c| c * taps + tap)));
        places.resize(places.len().next_multiple_of(each), NOWHERE);
    }
    places
}

/// Lines of channels, each at every place of the kernel.
fn places_of_lines(c: &Convolution, channels: usize, factors: Factors) -> Vec<usize> {
    let (taps, each) = (c.window.height * c.window.width, factors.each());
    let mut places = Vec::with_capacity(each * steps(c, channels, false, factors));
    for from in (0..channels).step_by(each * LANES) {
        for tap in 0..taps {
            places.extend((from..channels.min(from + each * LANES)).map(|channel| channel * taps + tap));
            places.resize(places.len().next_multiple_of(each), NOWHERE);
        }
    }
    places
}
