//! What dense convolutions multiply: inputs and weights as f32, rounded to bf16, or as bytes.
//!
//! A byte of an input stands for `(byte - zero) * step`, a byte of a weight for itself times a step of its channel out. So
//! zeros of the padding are exact, and the sum over the input's bytes is wrong by `zero` times the sum of the weights: a whole
//! number that is added before the sum becomes a float.

use std::ops::Range;

use super::{
    kernels::{Factors, Level, PANEL, Pass, Vector},
    layout::{LANES, Line, blocks, pair_of_bf16, per_channel},
    prologue::{Prologue, affine},
};
use crate::{
    graph::Shape,
    plan::{ActivationRange, Convolution},
};

/// How the values of an input become bytes.
#[derive(Debug, Clone, Copy)]
pub struct Bytes {
    step: f32,
    inverse: f32,
    /// 0 to 255: stands for 0.
    zero: u8,
}

impl Bytes {
    pub fn new(range: &ActivationRange) -> Self {
        let (low, high) = (range.low.min(0.0), range.high.max(0.0));
        // Nothing was seen but zeros: any step says them. Ranges of no width to speak of must not make it infinite.
        let step = ((high - low) / 255.0).max(f32::MIN_POSITIVE * 1e6);
        let zero = (-low / step).round_ties_even().clamp(0.0, 255.0) as u8;
        Self { step, inverse: 1.0 / step, zero }
    }

    /// A pixel of zeros.
    pub fn zeros(self) -> Line {
        Line([f32::from_bits(u32::from_le_bytes([self.zero; 4])); LANES])
    }
}

/// What makes floats of whole sums.
pub struct Whole {
    pub input: Bytes,
    /// For each channel out: a whole number to add first.
    pub more: Vec<Line>,
    /// For each channel out: the factor of the sum.
    pub step: Vec<Line>,
}

/// Rounds an input of `plane` lines for each block of channels, of which those in `wanted` are needed: to bytes where it is
/// said how, else to bf16, and after the prologue. `y` gets as many lines for each two or four blocks.
pub fn convert(
    level: Level,
    x: &[Line],
    plane: usize,
    wanted: Range<usize>,
    prologue: Option<&Prologue>,
    bytes: Option<Bytes>,
    y: &mut Vec<Line>,
) {
    let each = if bytes.is_some() { 4 } else { 2 };
    let groups = x.len().div_ceil(each * plane);
    y.resize((groups * plane).max(y.len()), Line::ZERO);
    for (group, (x, y)) in x.chunks(each * plane).zip(y.chunks_exact_mut(plane)).enumerate() {
        let first = group * each;
        let lines = |at: usize| x.get(at * plane..(at + 1) * plane).and_then(|lines| lines.get(wanted.clone()));
        let y = &mut y[wanted.clone()];
        let low = lines(0).unwrap_or(&[]);
        match bytes {
            Some(bytes) => {
                let count = x.len() / plane;
                // Lines that are missing are not stored.
                let lines = std::array::from_fn(|at| lines(at).unwrap_or(low));
                level.run(Quantise { bytes, prologue, first, lines, count, y });
            }
            None => level.run(Round { prologue, first, low, high: lines(1).unwrap_or(&[]), y }),
        }
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

/// Up to four lines become one of bytes.
struct Quantise<'a> {
    bytes: Bytes,
    prologue: Option<&'a Prologue>,
    /// The block of the first of `lines`.
    first: usize,
    lines: [&'a [Line]; 4],
    /// How many of them count.
    count: usize,
    y: &'a mut [Line],
}

impl Pass for Quantise<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { bytes: Bytes { inverse, zero, .. }, prologue, first, lines, count, y } = self;
        let (most, zero) = (f32::from(255 - zero), i16::from(zero));
        let [a, b, c, d] = lines;
        let (a, b, c, d) = (&a[..y.len()], &b[..y.len()], &c[..y.len()], &d[..y.len()]);
        let inverse = V::splat(inverse);
        // Prologue and step in one; lines that do not count take what the first takes.
        let mut steps = [[inverse, V::splat(0.0)]; 4];
        if let Some(prologue) = prologue {
            for (at, step) in steps.iter_mut().enumerate() {
                let [scale, shift] = prologue.of::<V>(if at < count { first + at } else { first });
                *step = [scale.mul(inverse), shift.mul(inverse)];
            }
        }
        for (at, y) in y.iter_mut().enumerate() {
            let (a, b) = (affine(&a[at], steps[0]), affine(&b[at], steps[1]));
            let (c, d) = (affine(&c[at], steps[2]), affine(&d[at], steps[3]));
            V::store_bytes([a, b, c, d], count, most, zero, y);
        }
    }
}

/// A convolution's weights: panel, chunk, step, line out. Those of bytes come with what their sums need.
pub fn pack(
    c: &Convolution,
    shape: Shape,
    interleaved: bool,
    factors: Factors,
    range: Option<&ActivationRange>,
) -> (Vec<Line>, Option<Whole>) {
    let (taps, channels, out) = (c.window.height * c.window.width, shape.channels, c.bias.len());
    // Where in a filter the values of each step stand.
    let places = if interleaved { places_of_rows(c, channels, factors) } else { places_of_lines(c, channels, factors) };
    let steps = places.len() / factors.each();
    let mut packed = vec![Line::ZERO; blocks(out) * steps];
    let whole = range.filter(|_| factors == Factors::Int8).map(Bytes::new);
    let (mut more, mut step_out) = (Vec::new(), Vec::new());
    for (o, filter) in c.weight.chunks_exact(taps * channels).enumerate() {
        let panel = o / (LANES * PANEL);
        let width = PANEL.min(blocks(out) - panel * PANEL);
        let lines = packed[panel * PANEL * steps..].iter_mut().skip(o / LANES % PANEL).step_by(width);
        let (bytes, step_of_weights) = if factors == Factors::Int8 { bytes_of(filter) } else { (vec![], 1.0) };
        for (line, step) in lines.zip(places.chunks_exact(factors.each())) {
            // Channels that are not there have no value.
            let place = |at: usize| step.get(at).copied().unwrap_or(NOWHERE);
            let value = |at: usize| filter.get(place(at)).copied().unwrap_or(0.0);
            line.0[o % LANES] = match factors {
                Factors::F32 => value(0),
                Factors::Bf16 => pair_of_bf16(value(0), value(1)),
                Factors::Int8 => {
                    let byte = |at: usize| bytes.get(place(at)).copied().unwrap_or(0).cast_unsigned();
                    f32::from_bits(u32::from_le_bytes(std::array::from_fn(byte)))
                }
            };
        }
        if let Some(input) = whole {
            let sum: i32 = bytes.iter().map(|&w| i32::from(w)).sum();
            more.push(f32::from_bits((-i32::from(input.zero) * sum).cast_unsigned()));
            step_out.push(input.step * step_of_weights);
        }
    }
    (packed, whole.map(|input| Whole { input, more: per_channel(&more), step: per_channel(&step_out) }))
}

/// A filter as bytes, and their step. They are rounded to the nearest, then those nearest to a half the other way until their
/// sum is right: inputs are rarely 0 in the mean, and what rounding adds to all of them is no noise but an offset.
fn bytes_of(filter: &[f32]) -> (Vec<i8>, f32) {
    let step = filter.iter().fold(f32::MIN_POSITIVE * 1e6, |largest, w| largest.max(w.abs())) / 127.0;
    let mut bytes: Vec<i8> = filter.iter().map(|w| (w / step).round_ties_even() as i8).collect();
    // By how much each is too large, in steps; those that may become smaller or larger first.
    let errors: Vec<f64> = filter.iter().zip(&bytes).map(|(w, b)| f64::from(*b) - f64::from(w / step)).collect();
    let sum: f64 = errors.iter().sum();
    let mut order: Vec<usize> = (0..errors.len()).collect();
    order.sort_by(|&a, &b| (errors[b] * sum.signum()).total_cmp(&(errors[a] * sum.signum())));
    for &at in order.iter().take((sum.abs() - 0.5).ceil() as usize) {
        bytes[at] -= sum.signum() as i8;
    }
    (bytes, step)
}

/// Steps of a sum: what a channel out has of weights, in lines.
pub fn steps(c: &Convolution, channels: usize, interleaved: bool, factors: Factors) -> usize {
    let (taps, each) = (c.window.height * c.window.width, factors.each());
    match (interleaved, factors) {
        (true, _) => c.window.height * (c.window.width * channels).div_ceil(each),
        (false, Factors::Int8) => taps * blocks(channels) * (LANES / each),
        (false, _) => taps * channels.div_ceil(each),
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
        let lines = blocks(channels - from).min(each);
        for tap in 0..taps {
            let place = |channel: usize| if channel < channels { channel * taps + tap } else { NOWHERE };
            match factors {
                Factors::Int8 => places.extend((0..LANES / 4 * lines).flat_map(|step| {
                    let first = from + step % lines * LANES + step / lines * 4;
                    (first..first + 4).map(place)
                })),
                _ => {
                    places.extend((from..channels.min(from + each * LANES)).map(place));
                    places.resize(places.len().next_multiple_of(each), NOWHERE);
                }
            }
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        cpu::{
            convolve::{Dense, Part, Scratch},
            layout::area,
            tests::noise,
        },
        graph::{Edges, Window},
        plan::{Activation, Prologue},
    };

    /// The definition, with whole sums: image, channel, row, column.
    fn expected(c: &Convolution, shape: Shape, out: Shape, n: usize, x: &[f32], range: &ActivationRange) -> Vec<f32> {
        let step = (range.high - range.low) / 255.0;
        let zero = (-range.low / step).round_ties_even();
        let byte = |v: f32, channel: usize| {
            let inverse = 1.0 / step;
            let stepped = match &c.prologue {
                None => v * inverse,
                Some(Prologue { scale, shift, .. }) => v * (scale[channel] * inverse) + shift[channel] * inverse,
            };
            (stepped.round_ties_even() + zero).clamp(0.0, 255.0) as i64 - zero as i64
        };
        let Window { height, width, stride } = c.window;
        let mut y = Vec::new();
        for at in 0..n * out.channels * area(out) {
            let (image, o) = (at / area(out) / out.channels, at / area(out) % out.channels);
            let (row, column) = (at % area(out) / out.width, at % out.width);
            let filter = &c.weight[o * shape.channels * height * width..][..shape.channels * height * width];
            let (weights, step_out) = bytes_of(filter);
            let mut sum = 0;
            for (place, w) in weights.iter().enumerate() {
                let r = (row * stride + place / width % height).wrapping_sub(c.padding.top);
                let col = (column * stride + place % width).wrapping_sub(c.padding.left);
                if r < shape.height && col < shape.width {
                    let channel = image * shape.channels + place / width / height;
                    let v = x[(channel * shape.height + r) * shape.width + col];
                    sum += byte(v, place / width / height) * i64::from(*w);
                }
            }
            let v = sum as f32 * (step * step_out) + c.bias[o];
            y.push(if v > 0.0 { v } else { 0.25 * v });
        }
        y
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]

        #[test]
        fn bytes_give_the_same_bits_on_every_instruction_set(
            (channels, outs) in (1usize..140, 1usize..70),
            (height, width) in (1usize..9, 1usize..20),
            (kernel, stride) in (1usize..4, 1usize..3),
            (low, high) in (-1.0f32..0.0, 0.01f32..1.0),
            padded: bool,
            normalised: bool,
            n in 1usize..3,
            seed: u64,
        ) {
            let window = Window::square(kernel, stride);
            let padding = if padded { Edges::all(kernel / 2) } else { Edges::NONE };
            let size = |size: usize, padding: usize| (size + 2 * padding).checked_sub(kernel).map(|room| room / stride + 1);
            let (Some(rows), Some(columns)) = (size(height, padding.top), size(width, padding.left)) else { return Ok(()) };
            let (shape, out) = (Shape::new(channels, height, width), Shape::new(outs, rows, columns));
            // A prologue's: the range is of what it gives, and zeros of the padding are put in after it.
            let scale: Vec<f32> = noise(channels, seed ^ 3).into_iter().map(|v| 1.0 + v).collect();
            let shift = noise(channels, seed ^ 4);
            let c = Convolution {
                prologue: normalised.then(|| Prologue { value: 1, scale: scale.clone(), shift: shift.clone() }),
                weight: noise(outs * channels * kernel * kernel, seed),
                bias: noise(outs, seed ^ 1),
                border: None,
                window,
                padding,
                groups: 1,
                residual: false,
                activation: Activation::Leaky(0.25),
            };
            // Some values lie outside of the range.
            let x: Vec<f32> = noise(n * channels * height * width, seed ^ 2).into_iter().map(|v| 3.0 * v).collect();
            let range = ActivationRange { value: 0, low, high };
            let expected = expected(&c, shape, out, n, &x, &range);
            let mut lines = vec![Line::ZERO; blocks(channels) * n * area(shape)];
            for (at, v) in x.iter().enumerate() {
                let (image, channel, pixel) = (at / area(shape) / channels, at / area(shape) % channels, at % area(shape));
                lines[(channel / LANES * n + image) * area(shape) + pixel].0[channel % LANES] = *v;
            }
            for (interleaved, factors) in [(true, Factors::F32), (true, Factors::Bf16), (false, Factors::F32), (false, Factors::Bf16), (false, Factors::Int8)] {
                let packed = pack(&c, shape, interleaved, factors, Some(&range)).0.len();
                prop_assert_eq!(packed, blocks(outs) * steps(&c, channels, interleaved, factors));
            }
            let dense = Dense::new(&c, shape, out, false, Factors::Int8, Some(&range));
            let pixels = n * area(out);
            for level in Level::available() {
                let mut y = vec![Line::ZERO; blocks(outs) * pixels];
                // In two parts, as two threads would.
                for pixels_of in [0..pixels / 2, pixels / 2..pixels] {
                    let planes = y.chunks_exact_mut(pixels).map(|plane| &mut plane[pixels_of.clone()]).collect();
                    if pixels_of.is_empty() {
                        continue;
                    }
                    let panels = 0..dense.panels();
                    let part = Part { x: &lines, residual: &[], images: n, pixels: pixels_of, panels, out: planes };
                    dense.run(level, &mut Scratch::default(), part);
                }
                for (at, expected) in expected.iter().enumerate() {
                    let (image, o, pixel) = (at / area(out) / outs, at / area(out) % outs, at % area(out));
                    let got = y[o / LANES * pixels + image * area(out) + pixel].0[o % LANES];
                    prop_assert_eq!(got.to_bits(), expected.to_bits(), "{} {}, {:?}", got, expected, level);
                }
            }
        }
    }

    #[test]
    fn weights_are_rounded_and_their_sum_as_well() {
        for seed in 1..20 {
            let filter = noise(576, seed);
            let (bytes, step) = bytes_of(&filter);
            let errors = filter.iter().zip(&bytes).map(|(w, b)| f64::from(f32::from(*b) - w / step));
            assert!(errors.clone().all(|e| e.abs() < 1.0) && bytes.iter().all(|b| b.unsigned_abs() <= 127));
            assert!(errors.sum::<f64>().abs() <= 0.51);
        }
        assert_eq!(bytes_of(&[0.0; 9]).0, [0; 9]);
        assert_eq!(bytes_of(&[-1.0, 0.5, 1.0]).0, [-127, 64, 127], "a tie alone stays");
    }

    #[test]
    fn a_range_of_nothing_says_zeros() {
        let bytes = Bytes::new(&ActivationRange { value: 0, low: 0.0, high: 0.0 });
        assert!(bytes.inverse.is_finite() && bytes.step > 0.0 && bytes.zero == 0);
        // Without negative values all bytes are for the others.
        let bytes = Bytes::new(&ActivationRange { value: 0, low: 0.0, high: 255.0 });
        assert_eq!((bytes.step, bytes.zero), (1.0, 0));
    }
}
