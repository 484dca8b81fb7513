//! Programs that are drawn at random, for whoever runs programs.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use crate::{
    graph::{Edges, Shape, Window},
    image::Pixels,
    input::{Colour, Input},
    int8::{Convolution, Emit, Form, How, Op, Program, Stem, Step, Tensor},
    plan::{Activation, Border},
};

/// Numbers that are the same wherever they are drawn.
pub struct Draw(u64);

impl Draw {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2) | 1)
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    /// From -0.5 to 0.5.
    pub fn noise(&mut self) -> f32 {
        self.below(1 << 24) as f32 / (1u32 << 24) as f32 - 0.5
    }

    pub fn noises(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.noise()).collect()
    }

    /// The ends as often as all others together, where it is said so.
    pub fn whole(&mut self, low: i32, high: i32, ends: bool) -> i32 {
        match (ends, self.below(4)) {
            (true, 0) => low,
            (true, 1) => high,
            _ => low + self.below((high - low + 1) as usize) as i32,
        }
    }
}

pub fn activation(kind: usize, channels: usize, draw: &mut Draw) -> Activation {
    match kind % 4 {
        0 => Activation::Identity,
        1 => Activation::Relu,
        2 => Activation::Leaky(0.1),
        _ => Activation::PRelu(draw.noises(channels)),
    }
}

/// A program that is written step by step: every value remembers the step that gives it.
pub struct Sketch {
    pub program: Program,
    pub values: Vec<Shape>,
    pub draw: Draw,
}

impl Sketch {
    pub fn new(height: usize, width: usize, seed: u64) -> Self {
        let mean = [127.5, 110.0, 93.25];
        let input = Input { width: width as u32, height: height as u32, colour: Colour::Bgr, mean, scale: 1.0 / 70.0 };
        let shape = Shape::new(3, height, width);
        let tensors = vec![Tensor { shape, form: Form::Pixels, exponent: 0 }];
        Self { program: Program { input, tensors, steps: vec![], output: 0 }, values: vec![], draw: Draw::new(seed) }
    }

    /// A program of these operations, after a stem or plain pixels.
    pub fn drawn((height, width): (usize, usize), stem: bool, choices: &[usize], seed: u64) -> Program {
        let mut sketch = Self::new(height, width, seed);
        if stem {
            sketch.stem();
        } else {
            sketch.push(Op::Normalise, vec![0], Shape::new(3, height, width));
        }
        choices.iter().for_each(|&choice| sketch.step(choice));
        sketch.finish()
    }

    /// A tensor that holds the value so.
    pub fn want(&mut self, value: usize, form: Form) -> usize {
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

    pub fn push(&mut self, op: Op, inputs: Vec<usize>, shape: Shape) -> usize {
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

    pub fn stem(&mut self) -> usize {
        let (window, padding) = self.window(self.program.tensors[0].shape);
        let outs = 1 + self.draw.below(40);
        self.stem_of(outs, window, padding)
    }

    pub fn stem_of(&mut self, outs: usize, window: Window, padding: Edges) -> usize {
        let out = Self::slid(self.program.tensors[0].shape, outs, window, padding);
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

    pub fn convolve(&mut self, value: usize, kind: usize) -> usize {
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
        self.convolve_of(value, outs, groups, window, padding)
    }

    pub fn convolve_of(&mut self, value: usize, outs: usize, groups: usize, window: Window, padding: Edges) -> usize {
        let x = self.values[value];
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
    pub fn step(&mut self, choice: usize) {
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

    pub fn finish(mut self) -> Program {
        for value in 0..self.values.len() {
            if self.program.steps[value].emits.is_empty() {
                self.plain(value);
            }
        }
        self.program.output = self.want(self.values.len() - 1, Form::F32);
        self.program
    }
}

pub fn image(input: &Input, draw: &mut Draw) -> Pixels {
    let rgb8 = (0..input.width * input.height * 3).map(|_| draw.below(256) as u8).collect();
    Pixels::new(input.width, input.height, rgb8).unwrap()
}
