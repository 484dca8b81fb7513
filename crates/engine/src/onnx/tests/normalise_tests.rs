//! Features that are divided by their length, in the forms that exporters write.

use super::{
    AttributeProto, ModelProto, NodeProto, TensorProto, agrees, filled, int, ints, model, node, read, refused, tensor,
};
use crate::{
    candle,
    graph::Shape,
    image::Pixels,
    input::{Colour, Input},
};

fn integers(name: &str, values: &[i64]) -> TensorProto {
    let dims = vec![values.len() as i64];
    TensorProto { name: name.into(), dims, data_type: 7, int64_data: values.into(), ..Default::default() }
}

/// `more` after five features "f", of N x 5, and the image "x".
fn with(more: Vec<NodeProto>) -> ModelProto {
    let first = vec![node("Flatten", &["x"], "i", vec![]), node("Gemm", &["i", "w"], "f", vec![])];
    let tensors = vec![
        filled("w", &[216, 5]),
        tensor("eps", &[], &[1e-12]),
        tensor("much", &[], &[1e3]),
        tensor("two", &[], &[2.0]),
        tensor("one", &[], &[1.0]),
        integers("axes", &[1]),
        integers("last", &[-1]),
        integers("five", &[5]),
        integers("wide", &[1, 5]),
        integers("three", &[3, 1, 1]),
        integers("none", &[0, 5]),
        integers("four", &[1, 1, 1, 5]),
        integers("batch", &[2, 5]),
    ];
    model([first, more].concat(), tensors)
}

fn l2(inputs: &[&str], attributes: Vec<AttributeProto>) -> NodeProto {
    node("ReduceL2", inputs, "n", attributes)
}

fn length(nodes: Vec<NodeProto>) -> f32 {
    let imported = read(&with(nodes)).unwrap();
    agrees(&imported);
    let shapes = imported.graph.shapes(&imported.weights).unwrap();
    assert_eq!(shapes[imported.graph.output], Shape::new(5, 1, 1));
    let input = Input { width: 9, height: 8, colour: Colour::Rgb, mean: [127.5; 3], scale: 1.0 / 127.5 };
    let image = Pixels::new(9, 8, (0..216).map(|i| (i * 97 % 251) as u8).collect()).unwrap();
    let outputs = candle::reference(&imported.graph, &imported.weights, &input, &[&image]).unwrap();
    outputs[0].iter().map(|v| v * v).sum::<f32>().sqrt()
}

#[test]
fn features_come_out_with_length_one() {
    let axes = || vec![ints("axes", &[1])];
    let divide = |by: &str| node("Div", &["f", by], "y", vec![]);
    let shape = || node("Shape", &["f"], "s", vec![]);
    let expand = |x: &str, to: &str| node("Expand", &[x, to], "e", vec![]);
    let forms = [
        vec![l2(&["f"], axes()), divide("n")],
        vec![l2(&["f"], vec![ints("axes", &[-1]), int("keepdims", 1)]), divide("n")],
        // Axes are an input since opset 18.
        vec![l2(&["f", "last"], vec![]), divide("n")],
        vec![l2(&["f"], axes()), node("Clip", &["n", "eps"], "c", vec![]), shape(), expand("c", "s"), divide("e")],
        vec![l2(&["f"], axes()), node("Max", &["n", "eps"], "c", vec![]), expand("c", "wide"), divide("e")],
        vec![l2(&["f"], axes()), node("Add", &["n", "eps"], "c", vec![]), expand("c", "five"), divide("e")],
        vec![
            l2(&["f"], vec![ints("axes", &[1]), int("keepdims", 0)]),
            node("Unsqueeze", &["n", "last"], "u", vec![]),
            divide("u"),
        ],
        vec![
            node("Mul", &["f", "f"], "q", vec![]),
            node("ReduceSum", &["q", "axes"], "n", vec![]),
            node("Sqrt", &["n"], "r", vec![]),
            divide("r"),
        ],
        vec![
            node("Pow", &["f", "two"], "q", vec![]),
            node("ReduceSum", &["q", "axes"], "n", vec![]),
            node("Sqrt", &["n"], "r", vec![]),
            divide("r"),
        ],
        vec![node("ReduceSumSquare", &["f", "axes"], "n", vec![]), node("Sqrt", &["n"], "r", vec![]), divide("r")],
        // As TensorFlow's l2_normalize is written.
        vec![
            node("ReduceSumSquare", &["f"], "n", axes()),
            node("Max", &["n", "eps"], "m", vec![]),
            node("Sqrt", &["m"], "r", vec![]),
            node("Reciprocal", &["r"], "b", vec![]),
            node("Mul", &["f", "b"], "y", vec![]),
        ],
        vec![l2(&["f"], axes()), node("Div", &["one", "n"], "b", vec![]), node("Mul", &["b", "f"], "y", vec![])],
        vec![node("LpNormalization", &["f"], "y", vec![])],
        vec![node("LpNormalization", &["f"], "y", vec![int("axis", 1), int("p", 2)])],
    ];
    for form in forms {
        let words: Vec<String> = form.iter().map(|node| node.op_type.clone()).collect();
        let length = length(form);
        assert!((length - 1.0).abs() < 1e-6, "{words:?}: {length}");
    }
    // The file's bound counts, whatever it is for.
    let bounded = length(vec![l2(&["f"], axes()), node("Max", &["n", "much"], "c", vec![]), divide("c")]);
    assert!(bounded < 0.1, "{bounded}");
}

#[test]
fn images_are_normalised_along_their_channels() {
    let forms = [
        vec![l2(&["x"], vec![ints("axes", &[1])]), node("Div", &["x", "n"], "y", vec![])],
        vec![node("LpNormalization", &["x"], "y", vec![int("axis", 1)])],
        vec![
            l2(&["x", "axes"], vec![]),
            node("Expand", &["n", "three"], "e", vec![]),
            node("Mul", &["e", "x"], "y", vec![]),
        ],
    ];
    for form in forms {
        agrees(&read(&with(form)).unwrap());
    }
}

#[test]
fn what_has_no_length_stays_zero_with_lp_normalization_alone() {
    let run = |nodes| {
        let imported = read(&with(nodes)).unwrap();
        let input = Input { width: 9, height: 8, colour: Colour::Rgb, mean: [128.0; 3], scale: 1.0 };
        let image = Pixels::new(9, 8, vec![128; 216]).unwrap();
        candle::reference(&imported.graph, &imported.weights, &input, &[&image])
    };
    assert_eq!(run(vec![node("LpNormalization", &["f"], "y", vec![])]).unwrap(), [vec![0.0; 5]]);
    let plain = vec![l2(&["f"], vec![ints("axes", &[1])]), node("Div", &["f", "n"], "y", vec![])];
    assert!(run(plain).is_err(), "0 / 0 is no number");
}

#[test]
fn what_is_no_normalisation_of_features_is_refused() {
    let axes = |axes: &[i64]| vec![ints("axes", axes)];
    let one = |op: &str, inputs: &[&str], attributes| refused(&with(vec![node(op, inputs, "y", attributes)]));
    let cases = [
        (one("ReduceL2", &["f"], vec![]), "node \"the y\" (ReduceL2): axes are missing: the batch would be among them"),
        (one("ReduceL2", &["f"], axes(&[0])), "the axes [0] of N x 5x1x1 in 2 dimensions are not supported"),
        (one("ReduceL2", &["f"], axes(&[])), "the axes [] of"),
        (one("ReduceL2", &["f"], axes(&[i64::MIN])), "are not supported: expected the channels"),
        (one("ReduceL2", &["x"], axes(&[1, 2, 3])), "the axes [1, 2, 3] of N x 3x8x9 in 4 dimensions"),
        (one("ReduceL2", &["x"], [axes(&[1]), vec![int("keepdims", 0)]].concat()), "keepdims 0 of images"),
        (one("ReduceL2", &["f", "f"], vec![]), "its input 1 depends on the image"),
        (one("ReduceL2", &["f", "axes"], vec![int("noop_with_empty_axes", 1)]), "noop_with_empty_axes 1"),
        (one("ReduceL1", &["f"], axes(&[1])), "(ReduceL1): this operator is not known"),
        (one("ReduceMax", &["f"], axes(&[1])), "(ReduceMax): this operator is not known"),
        (one("LpNormalization", &["f"], vec![int("p", 1)]), "(LpNormalization): p 1 is not supported: expected 2"),
        (one("LpNormalization", &["f"], vec![int("axis", 0)]), "axis 0 of 2 dimensions is not supported"),
        (one("LpNormalization", &["x"], vec![]), "axis -1 of 4 dimensions is not supported"),
        (one("Expand", &["f", "none"], vec![]), "(Expand): N x 5x1x1 in 2 dimensions to 0 x 5 is not supported"),
        (one("Expand", &["f", "batch"], vec![]), "to 2 x 5 is not supported"),
        (one("Expand", &["f", "four"], vec![]), "to 1 x 1 x 1 x 5 is not supported"),
        (one("Expand", &["x", "three"], vec![]), "the output is the input as it comes"),
        (one("Expand", &["f", "f"], vec![]), "its input 1 depends on the image"),
        (one("Sub", &["f", "f"], vec![]), "(Sub): two values that depend on the image"),
        (one("Div", &["x", "f"], vec![]), "(Div): operands of 4 and 2 dimensions are not supported"),
        (one("Div", &["two", "f"], vec![]), "(Div): a constant divided by a value is not supported"),
    ];
    for (message, expected) in cases {
        assert!(message.contains(expected), "expected {expected:?} in {message:?}");
    }
    let two = |first: NodeProto, second: NodeProto| refused(&with(vec![first, second]));
    let flat = || l2(&["f"], vec![ints("axes", &[1]), int("keepdims", 0)]);
    // N features divided by N lengths would meet the wrong ones.
    let message = two(flat(), node("Div", &["f", "n"], "y", vec![]));
    assert!(message.contains("(Div): operands of 2 and 1 dimensions are not supported"), "{message}");
    let message = two(flat(), node("Flatten", &["n"], "y", vec![int("axis", 0)]));
    assert!(message.contains("(Flatten): axis 0 is not supported"), "{message}");
    let huge = integers("wide", &[1, i64::MAX]);
    let mut large = with(vec![l2(&["f"], axes(&[1])), node("Expand", &["n", "wide"], "y", vec![])]);
    let tensors = &mut large.graph.as_mut().unwrap().initializer;
    tensors.retain(|tensor| tensor.name != "wide");
    tensors.push(huge);
    assert!(refused(&large).contains("at most 65536 channels"), "{}", refused(&large));
}
