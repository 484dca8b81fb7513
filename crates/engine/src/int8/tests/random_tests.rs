//! Graphs of every operation against the reference in f32.

use proptest::prelude::*;

use super::{super::*, *};
use crate::generated_tests::network;

/// A run of the oracle for each image.
fn run(program: &Program, images: &[Pixels]) -> Vec<Vec<f32>> {
    images.iter().map(|image| program.run_oracle(image).unwrap()).collect()
}

/// Each step reads what was stored before it, in the form that it takes, and every tensor is stored once.
fn assert_sound(program: &Program) {
    assert_eq!(program.tensors[0].form, Form::Pixels);
    assert_eq!(program.tensors[program.output].form, Form::F32);
    let mut stored = vec![0];
    for step in &program.steps {
        assert!(!step.emits.is_empty(), "{:?}", step.op);
        for (place, &id) in step.inputs.iter().enumerate() {
            assert!(stored.contains(&id), "tensor {id} is read before it is stored");
            let form = program.tensors[id].form;
            assert!(match &step.op {
                Op::Normalise | Op::Stem(_) => form == Form::Pixels,
                Op::Convolution(_) if place == 0 => matches!(form, Form::U8 | Form::S8),
                Op::Convolution(_) => form == Form::F16,
                _ => matches!(form, Form::F16 | Form::F32),
            });
        }
        for Emit { tensor, how } in &step.emits {
            let Tensor { shape, form, exponent } = program.tensors[*tensor];
            assert!(exponent == 0 || form == Form::F16);
            assert!(!stored.contains(tensor));
            stored.push(*tensor);
            assert_eq!(shape, program.tensors[step.emits[0].tensor].shape);
            match how {
                How::F32 => assert_eq!(form, Form::F32),
                How::F16 => assert_eq!(form, Form::F16),
                How::Codes { scale, shift } => {
                    assert!(matches!(form, Form::U8 | Form::S8));
                    assert_eq!((scale.len(), shift.len()), (shape.channels, shape.channels));
                }
            }
        }
    }
    assert_eq!(stored.len(), program.tensors.len(), "every tensor is stored");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_program_gives_nearly_what_the_graph_gives(
        (height, width) in (1usize..12, 1usize..12),
        mut choices in proptest::collection::vec((any::<u8>(), any::<u8>()), 1..7),
        seed: u64,
        bgr: bool,
    ) {
        // No sums of channels, roots and quotients: what they give may be much smaller than what was rounded before.
        choices.iter_mut().for_each(|choice| choice.0 %= 17);
        let (graph, weights) = network(Shape::new(3, height, width), &choices, seed);
        prop_assume!(!graph.nodes.is_empty());
        let input = Input { colour: if bgr { Colour::Bgr } else { Colour::Rgb }, ..input(height, width) };
        let images = [image(&input, seed), slopes(&input, seed)];
        let (expected, ranges) = observed(&graph, &weights, &input, &images);
        let program = lowered(&graph, &weights, &input, &ranges).unwrap();
        assert_sound(&program);
        for (got, expected) in run(&program, &images).iter().zip(&expected) {
            prop_assert_eq!(got.len(), expected.len());
            // Rounding is as large as what is rounded; a clip after it can make the output smaller than that.
            let rounded = ranges.iter().flat_map(|range| [range.low, range.high]);
            let largest = expected.iter().copied().chain(rounded).fold(0.1f32, |m, v| m.max(v.abs()));
            let worst = expected.iter().zip(got).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            prop_assert!(worst <= 0.1 * largest, "{worst} of {largest} in\n{graph}");
        }
    }

    /// Whatever the operations; also on images that nobody measured ranges on.
    #[test]
    fn every_graph_lowers_and_runs(
        (height, width) in (1usize..9, 1usize..9),
        choices in proptest::collection::vec((any::<u8>(), any::<u8>()), 1..9),
        seed: u64,
    ) {
        let (graph, weights) = network(Shape::new(3, height, width), &choices, seed);
        prop_assume!(!graph.nodes.is_empty());
        let input = input(height, width);
        let (_, ranges) = observed(&graph, &weights, &input, &[image(&input, seed)]);
        prop_assume!(ranges.iter().all(ActivationRange::is_good));
        let program = lowered(&graph, &weights, &input, &ranges).unwrap();
        assert_sound(&program);
        prop_assert_eq!(&program, &lowered(&graph, &weights, &input, &ranges).unwrap());
        let other = image(&input, !seed);
        let outputs = run(&program, &[other.clone(), other]);
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&outputs[0]), bits(&outputs[1]));
    }
}
