//! The families of networks that Vultus runs.

use std::{path::PathBuf, time::Instant};

use super::{super::*, *};

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// As public ArcFace checkpoints are exported: a batch norm before each block, PReLU, a batch norm at the end.
pub fn iresnet(width: usize, blocks: [usize; 4], side: usize) -> Sketch {
    let mut sketch = Sketch::new(Shape::new(3, side, side), 7);
    let x = sketch.convolve(0, width, 3, 1, 1);
    let mut x = sketch.prelu(x);
    for (stage, &count) in blocks.iter().enumerate() {
        let out = width << stage;
        for block in 0..count {
            let stride = if block == 0 { 2 } else { 1 };
            let shortcut = if block == 0 { sketch.convolve(x, out, 1, stride, 1) } else { x };
            let y = sketch.batch_norm(x);
            let y = sketch.convolve(y, out, 3, 1, 1);
            let y = sketch.prelu(y);
            let y = sketch.convolve(y, out, 3, stride, 1);
            x = sketch.push(GraphOp::Add, &[y, shortcut]);
        }
    }
    let x = sketch.batch_norm(x);
    let x = sketch.push(GraphOp::Flatten, &[x]);
    let x = sketch.full(x, 64);
    sketch.batch_norm(x);
    sketch
}

/// Bottlenecks of pointwise and depthwise convolutions, and a depthwise one over the whole image.
pub fn mobilefacenet(side: usize) -> Sketch {
    let mut sketch = Sketch::new(Shape::new(3, side, side), 7);
    let layer = |sketch: &mut Sketch, x, out, window, stride, groups| {
        let y = sketch.convolve(x, out, window, stride, groups);
        let y = sketch.batch_norm(y);
        sketch.prelu(y)
    };
    let x = layer(&mut sketch, 0, 16, 3, 2, 1);
    let mut x = layer(&mut sketch, x, 16, 3, 1, 16);
    for (out, stride) in [(16, 2), (16, 1), (32, 2), (32, 1), (32, 1)] {
        let y = layer(&mut sketch, x, 2 * out, 1, 1, 1);
        let y = layer(&mut sketch, y, 2 * out, 3, stride, 2 * out);
        let y = sketch.convolve(y, out, 1, 1, 1);
        let y = sketch.batch_norm(y);
        x = if stride == 1 { sketch.push(GraphOp::Add, &[y, x]) } else { y };
    }
    let x = layer(&mut sketch, x, 64, 1, 1, 1);
    let Shape { height, width, .. } = sketch.shape(x);
    let weight = sketch.tensor(&[64, 1, height, width], |v| v);
    let window = Window { height, width, stride: 1 };
    let x = sketch.push(GraphOp::Convolution { weight, bias: None, window, padding: Edges::NONE, groups: 64 }, &[x]);
    let x = sketch.push(GraphOp::Flatten, &[x]);
    let x = sketch.full(x, 64);
    sketch.batch_norm(x);
    sketch
}

/// The least cosine of the outputs for some images, whose ranges are those of others; the program too.
fn compare(
    name: &str,
    (graph, weights): (&Graph, &Weights),
    input: &Input,
    image: impl Fn(&Input, u64) -> Pixels,
) -> (f64, Program) {
    let (_, ranges) = observed(graph, weights, input, &[1, 2, 3].map(|seed| image(input, seed)));
    let plan = Plan::new(graph, weights).unwrap();
    let program = lowered(graph, weights, input, &ranges).unwrap();
    assert_eq!(program.steps.len(), plan.steps.len() + usize::from(plan.stem().is_none()), "{name}");
    let images = [4, 5].map(|seed| image(input, seed));
    let (expected, _) = observed(graph, weights, input, &images);
    let started = Instant::now();
    let outputs: Vec<_> = images.iter().map(|image| program.run_oracle(image).unwrap()).collect();
    let seconds = started.elapsed().as_secs_f64() / images.len() as f64;
    let least = outputs.iter().zip(&expected).map(|(got, expected)| cosine(got, expected)).fold(1.0, f64::min);
    let exponent = program.tensors.iter().map(|tensor| tensor.exponent).max().unwrap();
    let form = |form| program.tensors.iter().filter(|tensor| tensor.form == form).count();
    let [u8s, s8s, f16s] = [Form::U8, Form::S8, Form::F16].map(form);
    println!(
        "{name}: {} steps, tensors u8 {u8s} s8 {s8s} f16 {f16s} up to 2^{exponent}, cosine {least:.6}, {seconds:.2} s",
        program.steps.len()
    );
    (least, program)
}

#[test]
fn iresnets_lower() {
    let sketch = iresnet(8, [2, 2, 2, 2], 48);
    let input = input(48, 48);
    let (cosine, program) = compare("iresnet of width 8", (&sketch.graph, &sketch.weights), &input, slopes);
    assert!(cosine > 0.98, "{cosine}");
    assert!(matches!(program.steps[0].op, Op::Stem(_)));
    // Every other step is a convolution: batch norms, PReLU, additions and the flattening are part of them.
    assert!(program.steps[1..].iter().all(|step| matches!(step.op, Op::Convolution(_))));
}

#[test]
fn mobilefacenets_lower() {
    let sketch = mobilefacenet(48);
    let input = input(48, 48);
    let (cosine, program) = compare("mobilefacenet", (&sketch.graph, &sketch.weights), &input, slopes);
    assert!(cosine > 0.98, "{cosine}");
    assert!(matches!(program.steps[0].op, Op::Stem(_)));
    assert!(program.steps[1..].iter().all(|step| matches!(step.op, Op::Convolution(_))));
}

/// In the sizes of the real one; takes a while.
#[test]
#[ignore = "takes a minute"]
fn iresnet_50_lowers_in_full_size() {
    let sketch = iresnet(64, [3, 4, 14, 3], 112);
    let (cosine, _) = compare("iresnet-50", (&sketch.graph, &sketch.weights), &input(112, 112), image);
    assert!(cosine > 0.98, "{cosine}");
}

/// A bundle's graph and weights, as far as a test needs to read them.
pub fn bundle(name: &str) -> Option<(Graph, Weights)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let models = std::env::var_os("VULTUS_MODELS").map_or_else(|| root.join("data/models"), PathBuf::from);
    let file = models.join(name).join("weights.safetensors");
    let Ok(bytes) = std::fs::read(&file) else {
        println!("skipped: {} is not there", file.display());
        return None;
    };
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (header, data) = bytes[8..].split_at(length);
    let header: serde_json::Value = serde_json::from_slice(header).unwrap();
    let mut weights = Weights::new();
    for (name, tensor) in header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__") {
        let numbers = |key: &str| -> Vec<usize> { serde_json::from_value(tensor[key].clone()).unwrap() };
        let place = numbers("data_offsets");
        let values = data[place[0]..place[1]].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        weights.insert(name, numbers("shape"), values).unwrap();
    }
    Some((serde_json::from_str(header["__metadata__"]["graph"].as_str().unwrap()).unwrap(), weights))
}

#[test]
fn the_default_models_lower() {
    let faces = [122.782, 117.001, 104.298];
    let networks = [
        ("default", faces, 0.98),
        ("face-landmark-68", faces, 0.98),
        ("tiny-face-detector", [117.001, 114.697, 97.404], 0.98),
    ];
    for (name, mean, least) in networks {
        let Some((graph, weights)) = bundle(name) else { continue };
        let (width, height) = (graph.input.width as u32, graph.input.height as u32);
        let input = Input { width, height, colour: Colour::Rgb, mean, scale: 1.0 / 255.0 };
        let (cosine, program) = compare(name, (&graph, &weights), &input, slopes);
        assert!(cosine > least, "{name}: {cosine}");
        assert!(matches!(program.steps[0].op, Op::Stem(_)), "{name}");
    }
}
