#![allow(clippy::unwrap_used)] // a test fails by panicking

use proptest::prelude::*;

use super::{
    dense::Dense,
    emit::{Emission, Out},
    kernels::{Buffer, from_half, to_half},
    layers_tests::Layer,
    layout::{Layout, Pixel},
    winograd::Winograd,
};
use crate::{
    cpu::kernels::Level,
    graph::{Edges, Shape, Window},
    int8::{
        Convolution, Form, How, Stem, Tensor,
        drawn_tests::{Draw, activation},
        number,
    },
    plan::{Activation, Border},
};

/// Of halves.
const EXPONENT: u8 = 3;

/// Values of n images as the specification has them: image, channel, row, column.
pub struct Values {
    pub shape: Shape,
    pub of: Vec<f32>,
}

impl Values {
    pub fn at(&self, image: usize, channel: usize, row: isize, column: isize) -> Option<f32> {
        let Shape { channels, height, width } = self.shape;
        let (row, column) = (usize::try_from(row).ok()?, usize::try_from(column).ok()?);
        let inside = row < height && column < width;
        inside.then(|| self.of[((image * channels + channel) * height + row) * width + column])
    }

    pub fn write(&self, layout: Layout, images: usize) -> Buffer {
        let mut buffer = Buffer::default();
        buffer.grow(layout.room(images));
        // What is in no pixel must not matter.
        buffer.bytes_mut().fill(0xaa);
        layout.surround(images, &mut buffer);
        let Shape { channels, height, width } = self.shape;
        for (at, v) in self.of.iter().enumerate() {
            let (column, row, channel) = (at % width, at / width % height, at / width / height % channels);
            let pixel = Pixel { image: at / width / height / channels, row, column };
            let at = layout.place(pixel) * layout.pitch + channel;
            match layout.form {
                Form::Pixels if !layout.bytes => buffer.words_mut()[at] = *v as i16 - 128,
                Form::U8 | Form::S8 if !layout.bytes => buffer.words_mut()[at] = *v as i16,
                Form::Pixels | Form::U8 => buffer.bytes_mut()[at] = *v as u8,
                Form::S8 => buffer.bytes_mut()[at] = (*v as i8).cast_unsigned() ^ 0x80,
                Form::F16 => buffer.halves_mut()[at] = to_half(*v / layout.unit()),
                Form::F32 => buffer.floats_mut()[at] = *v,
            }
        }
        buffer
    }

    pub fn read(layout: Layout, images: usize, buffer: &Buffer) -> Vec<f32> {
        let Shape { channels, height, width } = layout.shape;
        let mut values = Vec::new();
        for at in 0..images * channels * height * width {
            let (column, row, channel) = (at % width, at / width % height, at / width / height % channels);
            let pixel = Pixel { image: at / width / height / channels, row, column };
            let at = layout.place(pixel) * layout.pitch + channel;
            values.push(match layout.form {
                Form::U8 | Form::S8 if !layout.bytes => buffer.words()[at].into(),
                Form::Pixels | Form::U8 => buffer.bytes()[at].into(),
                Form::S8 => ((buffer.bytes()[at] ^ 0x80).cast_signed()).into(),
                Form::F16 => from_half(buffer.halves()[at]) * layout.unit(),
                Form::F32 => buffer.floats()[at],
            });
        }
        values
    }
}

pub fn activate(activation: &Activation, v: f32, channel: usize) -> f32 {
    match activation {
        Activation::Identity => v,
        Activation::Relu => number::relu(v),
        Activation::Leaky(slope) => number::leaky(v, *slope),
        Activation::PRelu(slopes) => number::leaky(v, slopes[channel]),
    }
}

pub fn stored(how: &How, form: Form, v: f32, channel: usize) -> f32 {
    match (how, form) {
        (How::Codes { scale, shift }, Form::U8) => number::to_u8(v.mul_add(scale[channel], shift[channel])).into(),
        (How::Codes { scale, shift }, _) => number::to_s8(v.mul_add(scale[channel], shift[channel])).into(),
        (How::F16, _) => {
            let unit = number::power_of_two(EXPONENT.into());
            number::from_f16(number::to_f16(v / unit)) * unit
        }
        (How::F32, _) => v,
    }
}

#[derive(Debug, Clone)]
pub struct Case {
    pub input: Shape,
    pub outs: usize,
    pub window: Window,
    pub padding: Edges,
    pub halo: usize,
    pub signed: bool,
    pub groups: bool,
    pub residual: bool,
    pub activation: usize,
    pub extreme: bool,
    pub images: usize,
    pub threads: usize,
    pub seed: u64,
}

pub fn cases() -> impl Strategy<Value = Case> {
    let sizes = (1..140usize, 1..70usize, 1..17usize, 1..17usize);
    let windows = (1..4usize, 1..4usize, 1..3usize, 0..3usize, 0..3usize, 0..3usize);
    let rest = (any::<[bool; 4]>(), 0..4usize, 1..4usize, 1..6usize, any::<u64>());
    (sizes, windows, rest).prop_map(|((channels, outs, height, width), windows, rest)| {
        let (kernel_height, kernel_width, stride, edge, other, halo) = windows;
        let ([signed, groups, residual, extreme], activation, images, threads, seed) = rest;
        let (height, width) = (height.max(kernel_height), width.max(kernel_width));
        let window = Window { height: kernel_height, width: kernel_width, stride };
        let padding = Edges { top: edge, left: other, bottom: other, right: edge };
        // Two groups; the numbers of channels are even then.
        let groups = groups && seed % 4 == 0;
        let (channels, outs) = if groups { (2 * channels.div_ceil(2), 2 * outs.div_ceil(2)) } else { (channels, outs) };
        let input = Shape::new(channels, height, width);
        Case {
            input,
            outs,
            window,
            padding,
            halo,
            signed,
            groups,
            residual,
            activation,
            extreme,
            images,
            threads,
            seed,
        }
    })
}

impl Case {
    pub fn out(&self) -> Shape {
        let size = |size: usize, edges: usize, kernel: usize| (size + edges - kernel) / self.window.stride + 1;
        let Edges { top, left, bottom, right } = self.padding;
        let height = size(self.input.height, top + bottom, self.window.height);
        Shape::new(self.outs, height, size(self.input.width, left + right, self.window.width))
    }

    fn halo(&self) -> Edges {
        let Edges { top, left, bottom, right } = self.padding;
        let more = self.halo;
        Edges { top: top + more, left: left + more / 2, bottom, right: right + more }
    }

    pub fn values(&self, shape: Shape, draw: &mut Draw, mut one: impl FnMut(&mut Draw) -> f32) -> Values {
        let count = self.images * shape.channels * shape.height * shape.width;
        Values { shape, of: (0..count).map(|_| one(draw)).collect() }
    }

    /// Sums over the window of `x` times `weight`, where values count from `zero` and those outside are zeros.
    fn sums(&self, x: &Values, zero: f32, groups: usize, weight: &dyn Fn(usize) -> i32) -> Vec<i32> {
        let (out, each) = (self.out(), self.input.channels / groups);
        let mut sums = Vec::new();
        for at in 0..self.images * out.channels * out.height * out.width {
            let (column, row) = (at % out.width, at / out.width % out.height);
            let o = at / out.width / out.height % out.channels;
            let image = at / out.width / out.height / out.channels;
            let mut sum = 0;
            for channel in 0..each {
                for tap in 0..self.window.height * self.window.width {
                    let row = (row * self.window.stride + tap / self.window.width) as isize;
                    let column = (column * self.window.stride + tap % self.window.width) as isize;
                    let from = o / (out.channels / groups) * each + channel;
                    let (row, column) = (row - self.padding.top as isize, column - self.padding.left as isize);
                    let value = x.at(image, from, row, column).map_or(0.0, |v| v - zero) as i32;
                    sum += value * weight((o * each + channel) * self.window.height * self.window.width + tap);
                }
            }
            sums.push(sum);
        }
        sums
    }

    /// Runs a layer on every level and compares all representations.
    fn compare(
        &self,
        x: (&Values, Form),
        residual: &Values,
        expected: &[f32],
        draw: &mut Draw,
        build: impl Fn(Level, Layout, Shape) -> Option<Layer>,
    ) {
        let (out, halo) = (self.out(), Edges { top: 1, left: 0, bottom: 2, right: 1 });
        let (scale, shift) = (draw.noises(self.outs), draw.noises(self.outs));
        let scaled = |by: f32| How::Codes {
            scale: scale.iter().map(|v| v * by).collect(),
            shift: shift.iter().map(|v| v * by).collect(),
        };
        let hows = [(scaled(40.0), Form::U8), (scaled(30.0), Form::S8), (How::F16, Form::F16), (How::F32, Form::F32)];
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads).build().unwrap();
        for level in Level::tested() {
            let layout = |shape: Shape, form: Form, halo: Edges| {
                let exponent = if form == Form::F16 { EXPONENT } else { 0 };
                Layout::new(level, Tensor { shape, form, exponent }, halo)
            };
            let emissions = hows.each_ref().map(|(how, form)| Emission::new(how, layout(out, *form, halo)));
            let buffer = x.0.write(layout(self.input, x.1, self.halo()), self.images);
            let residual = self.residual.then(|| residual.write(layout(out, Form::F16, Edges::NONE), self.images));
            let Some(layer) = build(level, layout(self.input, x.1, self.halo()), out) else { continue };
            let mut buffers = emissions.each_ref().map(|emission| {
                let mut buffer = Buffer::default();
                buffer.grow(emission.layout.room(self.images));
                buffer.bytes_mut().fill(0x55);
                buffer
            });
            let outs = emissions.iter().zip(&mut buffers).map(|(e, buffer)| Out::new(e, self.images, buffer)).collect();
            pool.install(|| layer.run([self.threads, self.images], &buffer, residual.as_ref(), outs));
            for (((how, form), emission), buffer) in hows.iter().zip(&emissions).zip(&buffers) {
                let got = Values::read(emission.layout, self.images, buffer);
                for (at, (&got, &v)) in got.iter().zip(expected).enumerate() {
                    let channel = at / out.width / out.height % out.channels;
                    let expected = stored(how, *form, v, channel);
                    assert_eq!(got.to_bits(), expected.to_bits(), "{level:?} {form:?} at {at}: {got}, not {expected}");
                }
                self.check_halo(emission.layout, buffer);
            }
        }
    }

    /// Every place of it holds the code 0.
    fn check_halo(&self, layout: Layout, buffer: &Buffer) {
        let (Shape { height, width, .. }, Edges { top, left, .. }) = (layout.shape, layout.halo);
        let pixels =
            buffer.bytes()[..layout.elements(self.images) * layout.size()].chunks(layout.pitch * layout.size());
        for (at, pixel) in pixels.enumerate() {
            let (row, column) = (at / layout.columns() % layout.rows(), at % layout.columns());
            let inside = (top..top + height).contains(&row) && (left..left + width).contains(&column);
            assert!(inside || pixel.iter().all(|&byte| byte == layout.zero()), "{layout:?} {row} {column}");
        }
    }

    pub fn convolution(&self) {
        let draw = &mut Draw::new(self.seed);
        let (form, low, high) = if self.signed { (Form::S8, -128, 127) } else { (Form::U8, 0, 255) };
        let x = self.values(self.input, draw, |draw| draw.whole(low, high, self.extreme) as f32);
        let groups = if self.groups { 2 } else { 1 };
        let taps = self.input.channels / groups * self.window.height * self.window.width;
        let weight: Vec<i8> = (0..self.outs * taps).map(|_| draw.whole(-127, 127, self.extreme) as i8).collect();
        let scale: Vec<f32> = draw.noises(self.outs).iter().map(|v| v / (20.0 * taps as f32)).collect();
        let convolution = Convolution {
            weight,
            scale,
            bias: draw.noises(self.outs),
            window: self.window,
            padding: self.padding,
            groups,
            residual: self.residual,
            activation: activation(self.activation, self.outs, draw),
        };
        self.check(&convolution, &x, form, draw);
    }

    /// Holds layers against plain loops.
    pub fn check(&self, c: &Convolution, x: &Values, form: Form, draw: &mut Draw) {
        let out = self.out();
        let residual = self.values(out, draw, |draw| stored(&How::F16, Form::F16, draw.noise(), 0));
        let sums = self.sums(x, 0.0, c.groups, &|at| c.weight[at].into());
        let expected: Vec<f32> = (sums.iter().enumerate())
            .map(|(at, &sum)| {
                let channel = at / out.width / out.height % out.channels;
                let v = (sum as f32).mul_add(c.scale[channel], c.bias[channel]);
                activate(&c.activation, if c.residual { v + residual.of[at] } else { v }, channel)
            })
            .collect();
        let unit = number::power_of_two(EXPONENT.into());
        self.compare((x, form), &residual, &expected, draw, |level, layout, out| {
            Some(Layer::Dense(Dense::new(level, c, layout, out, unit)))
        });
        self.compare((x, form), &residual, &expected, draw, |level, layout, out| {
            let applies = Winograd::applies(level, c, layout, out);
            applies.then(|| Layer::Winograd(Winograd::new(level, c, layout, out, unit)))
        });
    }

    /// Of three colours, with a bias for every row and column.
    fn stem(&self) {
        let case = &Self { input: Shape { channels: 3, ..self.input }, residual: false, ..self.clone() };
        let (out, draw) = (case.out(), &mut Draw::new(case.seed));
        let x = case.values(case.input, draw, |draw| draw.whole(0, 255, case.extreme) as f32);
        let taps = 3 * case.window.height * case.window.width;
        let bias = Border {
            values: draw.noises(out.height * out.width * case.outs),
            row_class: (0..out.height).map(|at| at as u8).collect(),
            column_class: (0..out.width).map(|at| at as u8).collect(),
            column_classes: out.width,
        };
        let stem = Stem {
            weight: (0..case.outs * taps).map(|_| draw.whole(-16383, 16383, case.extreme) as i16).collect(),
            scale: draw.noises(case.outs).iter().map(|v| v / (2000.0 * taps as f32)).collect(),
            bias,
            window: case.window,
            padding: case.padding,
            activation: activation(case.activation, case.outs, draw),
        };
        let none = Values { shape: out, of: vec![] };
        let sums = case.sums(&x, 128.0, 1, &|at| stem.weight[at].into());
        let expected: Vec<f32> = (sums.iter().enumerate())
            .map(|(at, &sum)| {
                let (area, channel) = (out.height * out.width, at / out.width / out.height % out.channels);
                let bias = stem.bias.values[at % area * case.outs + channel];
                activate(&stem.activation, (sum as f32).mul_add(stem.scale[channel], bias), channel)
            })
            .collect();
        case.compare((&x, Form::Pixels), &none, &expected, draw, |level, layout, out| {
            Some(Layer::Dense(Dense::stem(level, &stem, layout, out)))
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn convolutions_have_the_bits_of_plain_loops(case in cases()) {
        case.convolution();
    }

    #[test]
    fn stems_have_the_bits_of_plain_loops(case in cases()) {
        case.stem();
    }
}

#[test]
fn halves_are_those_of_the_specification() {
    for bits in (0..=u32::MAX).step_by(977) {
        let v = f32::from_bits(bits);
        assert_eq!(to_half(v), number::to_f16(v), "{v}");
    }
    for half in (0..=u16::MAX).filter(|half| half & 0x7c00 != 0x7c00) {
        assert_eq!(from_half(half).to_bits(), number::from_f16(half).to_bits());
    }
}
