#![allow(clippy::unwrap_used)] // a test fails by panicking

use candle_core::{Device, Tensor};
use proptest::prelude::*;

use super::*;
use crate::{
    candle::interpret,
    graph::{Edges, Graph, Node, Op, Shape, Window},
    plan::ActivationRange,
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
fn network(input: Shape, choices: &[(u8, u8)], seed: u64) -> (Graph, Weights) {
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

/// What a network gives for n images.
fn outputs(network: &Network, work: &mut Workspace, n: usize, threads: usize, x: &[f32]) -> Vec<f32> {
    let mut y = vec![f32::NAN; n * network.output_values()];
    network.run(work, n, threads, |input| input.copy_from_slice(x), &mut y);
    y
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn plans_give_what_the_graph_gives(
        (channels, height, width) in (1usize..6, 1usize..12, 1usize..12),
        choices in proptest::collection::vec((any::<u8>(), any::<u8>()), 1..8),
        seed: u64,
        n in 1usize..4,
    ) {
        let input = Shape::new(channels, height, width);
        let (graph, weights) = network(input, &choices, seed);
        prop_assume!(!graph.nodes.is_empty());
        let count = channels * height * width;
        let images: Vec<Vec<f32>> = (0..n).map(|i| noise(count, seed ^ (i as u64) << 32)).collect();
        for level in Level::available() {
            let network = Network::new(Plan::new(&graph, &weights).unwrap(), level, Precision::F32).unwrap();
            let run = |x: &[f32], n, threads| {
                outputs(&network, &mut Workspace::default(), n, threads, x)
            };
            let batched = run(&images.concat(), n, 1);
            let each = batched.len() / n;
            for (image, batched) in images.iter().zip(batched.chunks_exact(each)) {
                let x = Tensor::from_slice(image, (1, height, width, channels), &Device::Cpu).unwrap();
                let expected = interpret(&graph, &weights, x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap()).unwrap();
                prop_assert_eq!(batched.len(), expected.len());
                // Sums before a clip are larger than what is left of them: hence five times what is seen otherwise.
                let largest = expected.iter().fold(1.0f32, |m, v| m.max(v.abs()));
                for (got, expected) in batched.iter().zip(&expected) {
                    prop_assert!((got - expected).abs() <= 5e-5 * largest, "{} {} in\n{}", got, expected, graph);
                }
                prop_assert!(run(image, 1, 1) == batched, "alone differs from batched");
                prop_assert!(run(image, 1, 3) == batched, "one thread differs from three");
            }
        }
    }
}

/// What the random graphs seldom have: a division by lengths, on vectors and on images, and a root.
#[test]
fn normalised_values_have_length_one() {
    let node = |op, inputs: &[usize]| Node { op, inputs: inputs.into() };
    for input in [Shape::new(37, 1, 1), Shape::new(16, 1, 1), Shape::new(21, 3, 2)] {
        let channels = input.channels;
        let nodes = [
            node(Op::L2Norm, &[0]),
            node(Op::RepeatChannel { channels }, &[1]),
            node(Op::Divide, &[0, 2]),
            node(Op::Multiply, &[3, 3]),
            node(Op::SumChannels, &[4]),
            node(Op::Sqrt, &[5]),
        ];
        let count = input.elements().unwrap();
        for output in [3, 6] {
            let graph = Graph { input, nodes: nodes[..output].to_vec(), output };
            for level in Level::available() {
                let network = Network::new(Plan::new(&graph, &Weights::new()).unwrap(), level, Precision::F32).unwrap();
                // Squares that f32 cannot hold, and such as it takes for zero.
                for size in [1.0, 1e25, 1e-25] {
                    let x: Vec<f32> = noise(2 * count, 5).iter().map(|v| v * size).collect();
                    let mut work = Workspace::default();
                    let run = |work: &mut Workspace, x: &[f32], n| outputs(&network, work, n, 1, x);
                    let batched = run(&mut work, &x, 2);
                    for (image, batched) in x.chunks(count).zip(batched.chunks(batched.len() / 2)) {
                        assert_eq!(run(&mut work, image, 1), batched, "alone differs from batched");
                        let shape = (1, input.height, input.width, channels);
                        let x = Tensor::from_slice(image, shape, &Device::Cpu).unwrap().permute((0, 3, 1, 2)).unwrap();
                        let expected = interpret(&graph, &Weights::new(), x.contiguous().unwrap()).unwrap();
                        for (got, expected) in batched.iter().zip(&expected) {
                            assert!((got - expected).abs() <= 1e-6, "{got} {expected} of {size}, {input}");
                        }
                        assert!(output == 3 || batched.iter().all(|length| (length - 1.0).abs() < 1e-5));
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn int8_gives_one_answer_whatever_runs_beside(
        (channels, height, width) in (16usize..70, 1usize..9, 1usize..9),
        mut choices in proptest::collection::vec((any::<u8>(), any::<u8>()), 1..6),
        seed: u64,
    ) {
        // No sums of channels, roots and quotients: what they give may be much smaller than what was rounded before them.
        choices.iter_mut().for_each(|choice| choice.0 %= 17);
        choices[0].0 = 0; // a dense convolution
        let input = Shape::new(channels, height, width);
        let (graph, weights) = network(input, &choices, seed);
        prop_assume!(!graph.nodes.is_empty());
        let plan = || Plan::new(&graph, &weights).unwrap();
        let values = plan().byte_values();
        prop_assume!(!values.is_empty());
        let images: Vec<Vec<f32>> =
            (0..3).map(|i| noise(channels * height * width, seed ^ (i as u64) << 32)).collect();
        let mut ranges: Vec<ActivationRange> =
            values.iter().map(|&value| ActivationRange { value, low: 0.0, high: 0.0 }).collect();
        let exact = Network::new(plan(), Level::best(), Precision::F32).unwrap();
        let mut work = Workspace::default();
        let mut expected = vec![0.0; 3 * exact.output_values()];
        exact.run_watched(&mut work, 3, 1, |x| x.copy_from_slice(&images.concat()), &mut expected, |watched, x| {
            let range = ranges.iter_mut().find(|range| range.value == watched.value).unwrap();
            let (low, high) = watched.ends(x);
            (range.low, range.high) = (range.low.min(low), range.high.max(high));
        });
        for level in Level::available() {
            let network = Network::new(plan().with_ranges(&ranges).unwrap(), level, Precision::Int8).unwrap();
            let run = |x: &[f32], n, threads| {
                outputs(&network, &mut Workspace::default(), n, threads, x)
            };
            let batched = run(&images.concat(), 3, 1);
            let each = batched.len() / 3;
            for (image, batched) in images.iter().zip(batched.chunks_exact(each)) {
                prop_assert!(run(image, 1, 1) == batched, "alone differs from batched");
                prop_assert!(run(image, 1, 3) == batched, "one thread differs from three");
            }
            // Rounding is as large as what is rounded; a clip after it can make the output smaller than that.
            let rounded = ranges.iter().flat_map(|range| [range.low, range.high]);
            let largest = expected.iter().copied().chain(rounded).fold(0.1f32, |m, v| m.max(v.abs()));
            let worst = expected.iter().zip(&batched).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            prop_assert!(worst <= 0.1 * largest, "{worst} of {largest} in\n{graph}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Two convolutions with a batch norm between them, as in an ArcFace network's blocks: what the second reads has a mean of
    /// so many standard deviations. Precisions that round keep what they have without it.
    #[test]
    fn a_mean_before_a_batch_norm_does_not_matter(
        (channels, outs) in (prop_oneof![Just(32usize), Just(64), 16usize..70], 8usize..70),
        (height, width, kernel, stride) in (4usize..12, 4usize..12, 1usize..4, 1usize..3),
        mean in prop_oneof![Just(0.0f32), Just(3.0), Just(30.0)],
        seed: u64,
    ) {
        let (input, window) = (Shape::new(3, height, width), Window::square(kernel, stride));
        let mut weights = Weights::new();
        let means: Vec<f32> = noise(channels, seed ^ 1).iter().map(|v| v.signum() * mean).collect();
        // Of standard deviation 1 or so.
        weights.insert("a", vec![channels, 3, 1, 1], noise(3 * channels, seed).iter().map(|w| 7.0 * w).collect()).unwrap();
        weights.insert("m", vec![channels], means.clone()).unwrap();
        weights.insert("s", vec![channels], vec![0.5; channels]).unwrap();
        weights.insert("t", vec![channels], means.iter().map(|mean| 0.1 - 0.5 * mean).collect()).unwrap();
        let count = outs * channels * kernel * kernel;
        weights.insert("b", vec![outs, channels, kernel, kernel], noise(count, seed ^ 2)).unwrap();
        let padding = Edges::all(kernel / 2);
        let graph = Graph {
            input,
            nodes: vec![
                Node {
                    op: Op::Convolution {
                        weight: "a".into(), bias: Some("m".into()), window: Window::square(1, 1), padding: Edges::NONE, groups: 1,
                    },
                    inputs: vec![0],
                },
                // Keeps the batch norm out of the convolution before it.
                Node { op: Op::LeakyRelu { slope: 0.999 }, inputs: vec![1] },
                Node { op: Op::Affine { scale: "s".into(), shift: "t".into() }, inputs: vec![2] },
                Node { op: Op::Convolution { weight: "b".into(), bias: None, window, padding, groups: 1 }, inputs: vec![3] },
            ],
            output: 4,
        };
        let x = noise(3 * height * width, seed ^ 3);
        let tensor = Tensor::from_slice(&x, (1, height, width, 3), &Device::Cpu).unwrap().permute((0, 3, 1, 2)).unwrap();
        let expected = interpret(&graph, &weights, tensor.contiguous().unwrap()).unwrap();
        let plan = || Plan::new(&graph, &weights).unwrap();
        let exact = Network::new(plan(), Level::best(), Precision::F32).unwrap();
        let mut ranges = vec![];
        let (mut work, mut y) = (Workspace::default(), vec![0.0; exact.output_values()]);
        exact.run_watched(&mut work, 1, 1, |to| to.copy_from_slice(&x), &mut y, |watched, x| {
            let (low, high) = watched.ends(x);
            ranges.push(ActivationRange { value: watched.value, low, high });
        });
        prop_assert!(ranges.iter().map(|range| range.value).eq([3]), "of what the batch norm gives: {ranges:?}");
        prop_assert!(ranges[0].low >= -3.0 && ranges[0].high <= 3.0, "without the mean: {ranges:?}");
        let size = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        for level in Level::available() {
            for (precision, tolerance) in [(Precision::F32, 1e-4), (Precision::Bf16, 0.02), (Precision::Int8, 0.03)] {
                if precision == Precision::Bf16 && !level.has_bf16() {
                    continue;
                }
                let plan = if precision == Precision::Int8 { plan().with_ranges(&ranges).unwrap() } else { plan() };
                let network = Network::new(plan, level, precision).unwrap();
                let got = outputs(&network, &mut Workspace::default(), 1, 1, &x);
                let apart: Vec<f32> = got.iter().zip(&expected).map(|(a, b)| a - b).collect();
                let error = size(&apart) / size(&expected);
                prop_assert!(error <= tolerance, "{error} in {precision:?} on {level:?}");
            }
        }
    }
}
