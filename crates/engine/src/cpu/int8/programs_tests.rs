//! Whole programs, held against the oracle.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use proptest::prelude::*;

use super::{
    network::{Network, Workspace},
    tests::{Draw, activation},
};
use crate::{
    cpu::kernels::Level,
    graph::{Edges, Shape, Window},
    image::Pixels,
    input::{Colour, Input},
    int8::{Convolution, Emit, Form, How, Op, Program, Stem, Step, Tensor},
    plan::Border,
};

/// A program that is written step by step: every value remembers the step that gives it.
struct Sketch {
    program: Program,
    values: Vec<Shape>,
    draw: Draw,
}

impl Sketch {
    fn new(height: usize, width: usize, seed: u64) -> Self {
        let mean = [127.5, 110.0, 93.25];
        let input = Input { width: width as u32, height: height as u32, colour: Colour::Bgr, mean, scale: 1.0 / 70.0 };
        let shape = Shape::new(3, height, width);
        let tensors = vec![Tensor { shape, form: Form::Pixels, exponent: 0 }];
        Self { program: Program { input, tensors, steps: vec![], output: 0 }, values: vec![], draw: Draw::new(seed) }
    }

    /// A tensor that holds the value so.
    fn want(&mut self, value: usize, form: Form) -> usize {
        let shape = self.values[value];
        let how = match form {
            Form::F16 => How::F16,
            Form::U8 | Form::S8 => How::Codes {
                scale: (0..shape.channels).map(|_| 60.0 + 80.0 * self.draw.noise()).collect(),
                shift: (0..shape.channels).map(|_| 40.0 * self.draw.noise()).collect(),
            },
            Form::F32 | Form::Pixels => How::F32,
        };
        let tensor = self.program.tensors.len();
        let exponent = if form == Form::F16 { self.draw.below(5) as u8 } else { 0 };
        self.program.tensors.push(Tensor { shape, form, exponent });
        self.program.steps[value].emits.push(Emit { tensor, how });
        tensor
    }

    fn plain(&mut self, value: usize) -> usize {
        let form = if self.draw.below(3) == 0 { Form::F32 } else { Form::F16 };
        self.want(value, form)
    }

    fn push(&mut self, op: Op, inputs: Vec<usize>, shape: Shape) -> usize {
        self.program.steps.push(Step { op, inputs, emits: vec![] });
        self.values.push(shape);
        self.values.len() - 1
    }

    fn window(&mut self, x: Shape) -> (Window, Edges) {
        let (height, width) = (1 + self.draw.below(3), 1 + self.draw.below(3));
        let window = Window { height, width, stride: 1 + self.draw.below(2) };
        let edge = |size: usize, kernel: usize| if size < kernel { kernel - 1 } else { kernel / 2 };
        let (top, left) = (edge(x.height, height), edge(x.width, width));
        (window, Edges { top, left, bottom: top, right: left })
    }

    fn slid(x: Shape, channels: usize, window: Window, padding: Edges) -> Shape {
        let height = (x.height + padding.top + padding.bottom - window.height) / window.stride + 1;
        Shape::new(channels, height, (x.width + padding.left + padding.right - window.width) / window.stride + 1)
    }

    fn stem(&mut self) -> usize {
        let x = self.program.tensors[0].shape;
        let (window, padding) = self.window(x);
        let outs = 1 + self.draw.below(40);
        let out = Self::slid(x, outs, window, padding);
        let taps = 3 * window.height * window.width;
        let stem = Stem {
            weight: (0..outs * taps).map(|_| self.draw.whole(-16383, 16383, false) as i16).collect(),
            scale: self.draw.noises(outs).iter().map(|v| v / (700_000.0 * (taps as f32).sqrt())).collect(),
            bias: Border {
                values: self.draw.noises(4 * outs),
                row_class: (0..out.height).map(|row| (row % 2) as u8).collect(),
                column_class: (0..out.width).map(|column| u8::from(column > 0)).collect(),
                column_classes: 2,
            },
            window,
            padding,
            activation: activation(self.draw.below(4), outs, &mut self.draw),
        };
        self.push(Op::Stem(stem), vec![0], out)
    }

    fn convolve(&mut self, value: usize, kind: usize) -> usize {
        let x = self.values[value];
        let (mut window, mut padding) = self.window(x);
        if x.height * x.width < 30 && self.draw.below(4) == 0 && x.height == x.width {
            (window, padding) = (Window::square(x.height, 1), Edges::NONE); // fully connected
        }
        let (groups, outs) = match kind {
            0 => (x.channels, x.channels),
            1 => (x.channels, 2 * x.channels),
            2 if x.channels.is_multiple_of(2) => (2, 2 * (1 + self.draw.below(20))),
            // Whole lines, for which Winograd's algorithm applies.
            4 => (1, 16 * (2 + self.draw.below(3))),
            _ => (1, 1 + self.draw.below(70)),
        };
        let (outs, groups) = if outs > 150 { (9, 1) } else { (outs, groups) };
        let out = Self::slid(x, outs, window, padding);
        let form = if self.draw.below(2) == 0 { Form::U8 } else { Form::S8 };
        let mut inputs = vec![self.want(value, form)];
        let residual = self.values.iter().position(|&shape| shape == out);
        if let Some(residual) = residual {
            inputs.push(self.want(residual, Form::F16));
        }
        let taps = x.channels / groups * window.height * window.width;
        let convolution = Convolution {
            weight: (0..outs * taps).map(|_| self.draw.whole(-127, 127, true) as i8).collect(),
            scale: self.draw.noises(outs).iter().map(|v| v / (4000.0 * (taps as f32).sqrt())).collect(),
            bias: self.draw.noises(outs),
            window,
            padding,
            groups,
            residual: residual.is_some(),
            activation: activation(self.draw.below(4), outs, &mut self.draw),
        };
        self.push(Op::Convolution(convolution), inputs, out)
    }

    /// An operation on the last value, where it fits.
    fn step(&mut self, choice: usize) {
        let value = self.values.len() - 1;
        let x = self.values[value];
        let (window, padding) = self.window(x);
        let channels = x.channels;
        let other = self.values.iter().position(|&shape| shape == x).unwrap_or(value);
        let unary = |op: Op| (op, vec![value], x);
        let (op, operands, out) = match choice {
            0..=7 => {
                self.convolve(value, choice);
                return;
            }
            8 => unary(Op::Affine { scale: self.draw.noises(channels), shift: self.draw.noises(channels) }),
            9 => unary(Op::Activate(activation(self.draw.below(4), channels, &mut self.draw))),
            10 => unary(Op::Clip { low: -0.2, high: 0.3 }),
            11 => unary(Op::Sigmoid),
            12 => unary(Op::Sqrt),
            13 => unary(Op::Reciprocal),
            14 => (Op::Add(activation(self.draw.below(4), channels, &mut self.draw)), vec![value, other], x),
            15 => (Op::Multiply, vec![other, value], x),
            16 => (Op::Divide, vec![value, other], x),
            17 => (Op::SumChannels, vec![value], Shape { channels: 1, ..x }),
            18 => (Op::L2Norm, vec![value], Shape { channels: 1, ..x }),
            19 if channels == 1 => (Op::RepeatChannel, vec![value], Shape { channels: 37, ..x }),
            20 => (Op::MaxPool { window, padding }, vec![value], Self::slid(x, channels, window, padding)),
            21 if x.height > 2 && x.width > 2 => {
                (Op::AveragePool { window }, vec![value], Self::slid(x, channels, window, Edges::NONE))
            }
            22 => {
                let window = Window { height: x.height, width: x.width, stride: 1 };
                let mean = self.plain(value);
                let mean = self.push(Op::AveragePool { window }, vec![mean], Shape::new(channels, 1, 1));
                (Op::Multiply, vec![value, mean], x)
            }
            23 => {
                let edges = Edges { top: 1, left: 2, bottom: 0, right: 1 };
                (Op::Pad { edges }, vec![value], Shape::new(channels + 5, x.height + 1, x.width + 3))
            }
            24 if channels * x.height * x.width < 4000 => {
                (Op::Flatten, vec![value], Shape::new(channels * x.height * x.width, 1, 1))
            }
            _ => return,
        };
        let inputs = operands.into_iter().map(|value| self.plain(value)).collect();
        self.push(op, inputs, out);
    }

    fn finish(mut self) -> Program {
        for value in 0..self.values.len() {
            if self.program.steps[value].emits.is_empty() {
                self.plain(value);
            }
        }
        self.program.output = self.want(self.values.len() - 1, Form::F32);
        self.program
    }
}

fn image(input: &Input, draw: &mut Draw) -> Pixels {
    let rgb8 = (0..input.width * input.height * 3).map(|_| draw.below(256) as u8).collect();
    Pixels::new(input.width, input.height, rgb8).unwrap()
}

/// Runs the images on all levels, with one thread and with two, and compares the outputs' bits.
fn compare(program: &Program, images: &[Pixels], work: &mut Workspace) {
    let expected: Vec<f32> = images.iter().flat_map(|image| program.run_oracle(image).unwrap()).collect();
    let images: Vec<&Pixels> = images.iter().collect();
    for level in Level::tested() {
        let network = Network::new(program, level).unwrap();
        assert!(network.weights() <= Network::packed(program, level));
        for threads in [1, 2] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let each = network.output_values();
            let mut got = vec![f32::INFINITY; each * images.len()];
            assert_eq!(got.len(), expected.len());
            let parts = images.chunks(network.together).zip(got.chunks_mut(each * network.together));
            parts.for_each(|(images, got)| pool.install(|| network.run(work, threads, images, got)));
            for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
                // Of what is no number, neither sign nor payload is said.
                let same = got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
                assert!(same, "{level:?}, {threads} threads, at {at}: {got}, not {expected}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn programs_have_the_bits_of_the_oracle(
        size in (3..18usize, 3..18usize),
        stem in any::<bool>(),
        choices in proptest::collection::vec(0..25usize, 1..9),
        images in 1..4usize,
        seed in any::<u64>(),
    ) {
        let mut sketch = Sketch::new(size.0, size.1, seed);
        if stem {
            sketch.stem();
        } else {
            sketch.push(Op::Normalise, vec![0], Shape::new(3, size.0, size.1));
        }
        choices.into_iter().for_each(|choice| sketch.step(choice));
        let program = sketch.finish();
        let mut draw = Draw::new(seed);
        let images: Vec<Pixels> = (0..images).map(|_| image(&program.input, &mut draw)).collect();
        compare(&program, &images, &mut Workspace::default());
    }
}

#[test]
fn an_image_alone_and_among_32_others_gives_the_same() {
    let mut sketch = Sketch::new(12, 9, 77);
    sketch.stem();
    [5, 3, 0, 20, 6, 14, 2, 7].into_iter().for_each(|choice| sketch.step(choice));
    let program = sketch.finish();
    let mut draw = Draw::new(5);
    let images: Vec<Pixels> = (0..33).map(|_| image(&program.input, &mut draw)).collect();
    // Larger and smaller batches in the same memory.
    let mut work = Workspace::default();
    [2, 33, 1, 7].into_iter().for_each(|count| compare(&program, &images[..count], &mut work));
    let outputs = [0, 1].map(|at| program.run_oracle(&images[at]).unwrap());
    let apart = outputs[0].iter().zip(&outputs[1]).filter(|(a, b)| a.is_finite() && a != b).count();
    assert!(4 * apart > outputs[0].len(), "{apart} of {} tell the images apart", outputs[0].len());
}

/// Layer after layer that goes by Winograd's algorithm, in one memory.
#[test]
fn programs_of_tiles_have_the_bits_of_the_oracle() {
    let (mut tiled, mut work) = (0, Workspace::default());
    for seed in 0..200 {
        let mut sketch = Sketch::new(9 + seed as usize % 8, 12, seed);
        sketch.stem();
        (0..7).for_each(|_| sketch.step(4));
        let program = sketch.finish();
        for level in Level::available() {
            tiled += Network::new(&program, level).unwrap().tiled();
        }
        let mut draw = Draw::new(seed);
        let images: Vec<Pixels> = (0..3).map(|_| image(&program.input, &mut draw)).collect();
        compare(&program, &images, &mut work);
    }
    let takes_words = Level::available().iter().any(|level| !level.takes_bytes());
    println!("{tiled} convolutions in tiles");
    assert!(tiled >= 40 || !takes_words, "{tiled}");
}
