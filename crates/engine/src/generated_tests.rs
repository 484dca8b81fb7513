//! Graphs that tests make up.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use crate::{
    graph::{Edges, Graph, Node, Op, Shape, Window},
    weights::Weights,
};

/// Values from -0.5 to 0.5.
pub fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..n).map(|_| next()).collect()
}

/// A graph of the operations that `choices` name, each on the last value; what does not fit is left out.
pub fn network(input: Shape, choices: &[(u8, u8)], seed: u64) -> (Graph, Weights) {
    let mut graph = Graph { input, nodes: vec![], output: 0 };
    let mut weights = Weights::new();
    for (index, &(choice, size)) in choices.iter().enumerate() {
        let x = graph.shapes(&weights).map_or(input, |shapes| shapes[graph.output]);
        let (channels, size) = (x.channels, size as usize);
        let mut tensor = |name: &str, shape: &[usize]| {
            let name = format!("{index}.{name}");
            let count = shape.iter().product();
            weights.insert(&name, shape.to_vec(), noise(count, seed ^ (count + index) as u64)).unwrap();
            name
        };
        let window = Window { height: 1 + size % 3, width: 1 + size / 3 % 3, stride: 1 + size % 2 };
        let padding = Edges::same(x.height, x.width, window);
        let out = 1 + size % 70;
        let bias = (size % 2 == 0).then(|| tensor("b", &[out]));
        let op = match choice % 21 {
            0 | 1 => {
                let weight = tensor("w", &[out, channels, window.height, window.width]);
                Op::Convolution { weight, bias, window, padding, groups: 1 }
            }
            2 => {
                let weight = tensor("w", &[channels, 1, window.height, window.width]);
                Op::Convolution { weight, bias: None, window, padding, groups: channels }
            }
            3 => Op::Affine { scale: tensor("s", &[channels]), shift: tensor("t", &[channels]) },
            4 => Op::Relu,
            5 => Op::LeakyRelu { slope: 0.1 },
            6 => Op::PRelu { slope: tensor("p", &[channels]) },
            7 => Op::Add,
            8 => Op::MaxPool { window, padding },
            9 => Op::AveragePool { window },
            10 => Op::PadChannels { count: size % 5 },
            11 => Op::PadSpatial { edges: Edges { top: size % 2, left: 1, bottom: size % 3, right: 0 } },
            13 => Op::Clip { low: -0.2, high: 0.3 },
            14 => Op::Sigmoid,
            15 => Op::Multiply,
            17 => Op::SumChannels,
            18 => Op::L2Norm,
            19 => Op::RepeatChannel { channels: out },
            20 if size % 3 == 0 => Op::Divide,
            20 if size % 3 == 1 => Op::Reciprocal,
            20 => Op::Sqrt,
            // Two channels out for each group of one or all.
            16 => {
                let groups = if size % 2 == 0 { channels } else { 2 };
                let weight = tensor("w", &[2 * groups, (channels / groups).max(1), window.height, window.width]);
                let bias = Some(tensor("gb", &[2 * groups]));
                Op::Convolution { weight, bias, window, padding, groups }
            }
            _ if size % 3 == 0 => Op::GlobalAveragePool,
            _ if size % 3 == 1 => Op::Flatten,
            _ => Op::FullyConnected { weight: tensor("w", &[out, channels]), bias },
        };
        // An addition takes an earlier value of the same shape where there is one; a product may take factors of
        // channels.
        let shapes = graph.shapes(&weights).unwrap_or(vec![input]);
        let inputs = match op {
            Op::Add => vec![graph.output, shapes.iter().position(|&shape| shape == x).unwrap_or(graph.output)],
            Op::Multiply => {
                let factors = |&shape: &Shape| shape == Shape::new(channels, 1, 1);
                let images = shapes.iter().rposition(|shape| shape.channels == channels && !shape.is_vector());
                match (shapes.iter().position(factors), images) {
                    (Some(factors), Some(image)) => vec![image, factors],
                    _ => vec![graph.output; 2],
                }
            }
            // By what is not near zero, and the root of it.
            Op::Divide => vec![shapes.iter().position(|&shape| shape == x).unwrap_or(graph.output), graph.output],
            _ => vec![graph.output],
        };
        let positive = matches!(graph.nodes.last(), Some(Node { op: Op::Sigmoid, .. }));
        if matches!(op, Op::Divide | Op::Sqrt | Op::Reciprocal) && !positive {
            continue;
        }
        graph.nodes.push(Node { op, inputs });
        graph.output = graph.nodes.len();
        if graph.shapes(&weights).is_err() {
            graph.nodes.pop();
            graph.output = graph.nodes.len();
        }
    }
    (graph, weights)
}
