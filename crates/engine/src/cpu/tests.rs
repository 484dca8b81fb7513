#![allow(clippy::unwrap_used)] // a test fails by panicking

use candle_core::{Device, Tensor};
use proptest::prelude::*;

use super::network::Workspace;
use super::*;
pub use crate::generated_tests::noise;
use crate::{
    candle::interpret,
    generated_tests::network,
    graph::{Edges, Graph, Node, Op, Shape, Window},
    plan::ActivationRange,
    weights::Weights,
};

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
            let network = Network::new(Plan::new(&graph, &weights).unwrap(), level, false).unwrap();
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
                let network = Network::new(Plan::new(&graph, &Weights::new()).unwrap(), level, false).unwrap();
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
        let exact = Network::new(plan(), Level::best(), false).unwrap();
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
            for (bf16, tolerance) in [(false, 1e-4), (true, 0.02)] {
                let network = Network::new(plan(), level, bf16).unwrap();
                let got = outputs(&network, &mut Workspace::default(), 1, 1, &x);
                let apart: Vec<f32> = got.iter().zip(&expected).map(|(a, b)| a - b).collect();
                let error = size(&apart) / size(&expected);
                prop_assert!(error <= tolerance, "{error} in bf16 ({bf16}) on {level:?}");
            }
        }
    }
}
