//! One network whose bits are written down: whatever machine runs this test gives them.

use super::{super::*, *};

/// FNV-1a.
fn digest(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Every operation once, in shapes that no vector divides.
fn sketch() -> (Sketch, Vec<ActivationRange>) {
    let mut sketch = Sketch::new(Shape::new(3, 17, 19), 11);
    let x = sketch.convolve(0, 13, 3, 2, 1);
    let x = sketch.prelu(x);
    let normal = sketch.batch_norm(x);
    let y = sketch.convolve(normal, 13, 3, 1, 1);
    let y = sketch.prelu(y);
    let y = sketch.convolve(y, 13, 3, 1, 13);
    let y = sketch.push(GraphOp::Add, &[y, x]);
    let y = sketch.push(GraphOp::LeakyRelu { slope: 0.1 }, &[y]);
    let window = Window::square(3, 2);
    let y = sketch.push(GraphOp::MaxPool { window, padding: Edges::all(1) }, &[y]);
    let y = sketch.push(GraphOp::PadChannels { count: 5 }, &[y]);
    let y = sketch.push(GraphOp::PadSpatial { edges: Edges { bottom: 1, ..Edges::NONE } }, &[y]);
    let y = sketch.convolve(y, 18, 3, 1, 6);
    let gate = sketch.push(GraphOp::GlobalAveragePool, &[y]);
    let gate = sketch.full(gate, 18);
    let gate = sketch.push(GraphOp::Sigmoid, &[gate]);
    let y = sketch.push(GraphOp::Multiply, &[y, gate]);
    let y = sketch.push(GraphOp::Clip { low: -1.0, high: 2.0 }, &[y]);
    let y = sketch.push(GraphOp::AveragePool { window: Window::square(2, 2) }, &[y]);
    let channels = sketch.push(GraphOp::SumChannels, &[y]);
    let channels = sketch.push(GraphOp::Multiply, &[channels, channels]);
    let channels = sketch.push(GraphOp::Sigmoid, &[channels]);
    let channels = sketch.push(GraphOp::Sqrt, &[channels]);
    let channels = sketch.push(GraphOp::Reciprocal, &[channels]);
    let channels = sketch.push(GraphOp::RepeatChannel { channels: 18 }, &[channels]);
    let y = sketch.push(GraphOp::Multiply, &[y, channels]);
    let y = sketch.batch_norm(y);
    let y = sketch.push(GraphOp::Flatten, &[y]);
    let y = sketch.full(y, 21);
    let length = sketch.push(GraphOp::L2Norm, &[y]);
    let length = sketch.push(GraphOp::RepeatChannel { channels: 21 }, &[length]);
    sketch.push(GraphOp::Divide, &[y, length]);
    // Fixed: what candle sums in another order elsewhere would move them.
    let coded = Plan::new(&sketch.graph, &sketch.weights).unwrap().code_values();
    let range = |value| ActivationRange { value, low: if value % 2 == 0 { -2.5 } else { -1.75 }, high: 2.25 };
    (sketch, coded.into_iter().map(range).collect())
}

#[test]
fn the_bits_are_those_of_this_version() {
    let (sketch, ranges) = sketch();
    let input = input(17, 19);
    let program = lowered(&sketch.graph, &sketch.weights, &input, &ranges).unwrap();
    let (expected, _) = observed(&sketch.graph, &sketch.weights, &input, &[image(&input, 5)]);
    let got = program.run_oracle(&image(&input, 5)).unwrap();
    let cosine: f32 = got.iter().zip(&expected[0]).map(|(a, b)| a * b).sum();
    assert!(cosine > 0.95, "{cosine}: {got:?} {expected:?}");
    let bits = digest(got.iter().flat_map(|v| v.to_bits().to_le_bytes()));
    let weights = program.steps.iter().flat_map(|step| match &step.op {
        Op::Convolution(c) => c.weight.iter().map(|w| w.cast_unsigned()).collect(),
        _ => vec![],
    });
    assert_eq!((VERSION, digest(weights), bits), ("1", 0x73ff_4993_4a24_f9f3, 0x5034_d1b4_5183_be15), "{cosine}");
}
