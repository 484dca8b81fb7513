#![allow(clippy::unwrap_used)] // a test fails by panicking

mod exact_tests;
mod known_tests;
pub mod networks_tests;
mod random_tests;

use super::{LowerError, Program};
use crate::{
    candle,
    generated_tests::noise,
    graph::{Edges, Graph, Node, Op as GraphOp, Shape, Window},
    image::Pixels,
    input::{Colour, Input},
    plan::{ActivationRange, Plan},
    weights::Weights,
};

pub fn input(height: usize, width: usize) -> Input {
    let mean = [127.5, 120.0, 100.25];
    Input { width: width as u32, height: height as u32, colour: Colour::Rgb, mean, scale: 1.0 / 127.5 }
}

/// An image without a meaning.
pub fn image(input: &Input, seed: u64) -> Pixels {
    let count = (input.width * input.height * 3) as usize;
    let rgb8 = noise(count, seed).into_iter().map(|v| ((v + 0.5) * 256.0) as u8).collect();
    Pixels::new(input.width, input.height, rgb8).unwrap()
}

/// An image of smooth slopes, which is more like a photo than noise is.
pub fn slopes(input: &Input, seed: u64) -> Pixels {
    let waves = noise(24, seed);
    let at = |place: usize| {
        let (x, y) = (place / 3 % input.width as usize, place / 3 / input.width as usize);
        let (x, y) = (x as f32 / input.width as f32, y as f32 / input.height as f32);
        let wave = |w: &[f32]| (6.0 * (w[0] * x + w[1] * y + w[2])).sin() * w[3];
        let sum: f32 = waves.chunks(4).map(wave).sum::<f32>() + 0.1 * waves[place % 3];
        (127.5 + 110.0 * sum).clamp(0.0, 255.0) as u8
    };
    let rgb8 = (0..(input.width * input.height * 3) as usize).map(at).collect();
    Pixels::new(input.width, input.height, rgb8).unwrap()
}

/// What the network gives in f32 for each image, and the ranges of the values that the program codes.
pub fn observed(
    graph: &Graph,
    weights: &Weights,
    input: &Input,
    images: &[Pixels],
) -> (Vec<Vec<f32>>, Vec<ActivationRange>) {
    let coded = Plan::new(graph, weights).unwrap().code_values();
    let mut ranges: Vec<_> = coded.iter().map(|&value| ActivationRange { value, low: 0.0, high: 0.0 }).collect();
    let mut outputs = Vec::new();
    for image in images {
        let values = candle::values(graph, weights, candle::normalise(input, image).unwrap()).unwrap();
        let of = |id: usize| values[id].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for range in &mut ranges {
            for v in of(range.value) {
                (range.low, range.high) = (range.low.min(v), range.high.max(v));
            }
        }
        outputs.push(of(graph.output));
    }
    (outputs, ranges)
}

/// The program of a graph with these ranges.
pub fn lowered(
    graph: &Graph,
    weights: &Weights,
    input: &Input,
    ranges: &[ActivationRange],
) -> Result<Program, LowerError> {
    Program::new(&Plan::new(graph, weights).unwrap().with_ranges(ranges)?, input)
}

/// A graph that is written down operation by operation, with random weights.
pub struct Sketch {
    pub graph: Graph,
    pub weights: Weights,
    seed: u64,
}

impl Sketch {
    pub fn new(input: Shape, seed: u64) -> Self {
        Self { graph: Graph { input, nodes: vec![], output: 0 }, weights: Weights::new(), seed }
    }

    pub fn shape(&self, value: usize) -> Shape {
        if value == 0 { self.graph.input } else { self.graph.shapes(&self.weights).unwrap()[value] }
    }

    pub fn push(&mut self, op: GraphOp, inputs: &[usize]) -> usize {
        self.graph.nodes.push(Node { op, inputs: inputs.into() });
        self.graph.output = self.graph.nodes.len();
        self.graph.output
    }

    pub fn tensor(&mut self, shape: &[usize], value: impl Fn(f32) -> f32) -> String {
        self.seed += 1;
        let (name, count) = (format!("t{}", self.seed), shape.iter().product());
        self.given(
            &name,
            shape,
            noise(count, self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into_iter().map(value).collect(),
        )
    }

    pub fn given(&mut self, name: &str, shape: &[usize], values: Vec<f32>) -> String {
        self.weights.insert(name, shape.to_vec(), values).unwrap();
        name.into()
    }

    pub fn convolve(&mut self, x: usize, out: usize, side: usize, stride: usize, groups: usize) -> usize {
        let channels = self.shape(x).channels / groups;
        // Of the variance that keeps that of what goes through it.
        let size = (24.0 / (channels * side * side) as f32).sqrt();
        let weight = self.tensor(&[out, channels, side, side], |v| v * size);
        let bias = Some(self.tensor(&[out], |v| 0.1 * v));
        let (window, padding) = (Window::square(side, stride), Edges::all(side / 2));
        self.push(GraphOp::Convolution { weight, bias, window, padding, groups }, &[x])
    }

    pub fn batch_norm(&mut self, x: usize) -> usize {
        let channels = self.shape(x).channels;
        let (scale, shift) = (self.tensor(&[channels], |v| 1.0 + 0.2 * v), self.tensor(&[channels], |v| 0.2 * v));
        self.push(GraphOp::Affine { scale, shift }, &[x])
    }

    pub fn prelu(&mut self, x: usize) -> usize {
        let channels = self.shape(x).channels;
        let slope = self.tensor(&[channels], |v| 0.25 + 0.1 * v);
        self.push(GraphOp::PRelu { slope }, &[x])
    }

    pub fn full(&mut self, x: usize, out: usize) -> usize {
        let channels = self.shape(x).channels;
        let weight = self.tensor(&[out, channels], |v| v * (12.0 / channels as f32).sqrt());
        self.push(GraphOp::FullyConnected { weight, bias: None }, &[x])
    }
}
