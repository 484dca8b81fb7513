//! Sums of several, hard activations, and what opset 8 says otherwise.

use super::{
    AttributeProto, AttributeType, NodeProto, TensorProto, agrees, filled, int, model, node, read, refused, small,
    tensor,
};
use crate::graph::Op;

fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { name: name.into(), f, r#type: AttributeType::Float as i32, ..Default::default() }
}

/// The operations of the graph that `nodes` make.
fn ops(nodes: Vec<NodeProto>, tensors: Vec<TensorProto>) -> Vec<&'static str> {
    let imported = read(&model(nodes, tensors)).unwrap();
    agrees(&imported);
    imported.graph.nodes.iter().map(|node| node.op.name()).collect()
}

#[test]
fn sums_of_several_are_additions() {
    let c = || filled("c", &[3, 1, 1]);
    let sum = |inputs: &[&str]| vec![node("Relu", &["x"], "a", vec![]), node("Sum", inputs, "y", vec![])];
    assert_eq!(ops(sum(&["a"]), vec![]), ["relu"]);
    assert_eq!(ops(sum(&["a", "x", "c"]), vec![c()]), ["relu", "add", "affine"]);
    assert_eq!(ops(sum(&["c", "c", "x", "a"]), vec![c()]), ["relu", "affine", "add"]);
    assert!(refused(&model(sum(&[]), vec![])).contains("(Sum): its input 0 is missing"));
    let wide = refused(&model(sum(&["a", "w"]), vec![filled("w", &[3, 8, 9])]));
    assert!(wide.contains("node \"the y\" (Sum): a constant of shape [3, 8, 9] is not supported"), "{wide}");
}

#[test]
fn hard_activations_are_lines_that_are_cut_off() {
    let gate = |attributes| vec![node("HardSigmoid", &["x"], "y", attributes)];
    let line = |attributes| {
        let imported = read(&model(gate(attributes), vec![])).unwrap();
        agrees(&imported);
        let values = |name| imported.weights.get(name).unwrap().values()[0];
        assert_eq!(imported.graph.nodes[1].op, Op::Clip { low: 0.0, high: 1.0 });
        (values("0.scale"), values("0.shift"))
    };
    assert_eq!(line(vec![]), (0.2, 0.5));
    assert_eq!(line(vec![float("alpha", 1.0 / 6.0), float("beta", 0.25)]), (1.0 / 6.0, 0.25));
    assert!(refused(&model(gate(vec![float("alpha", f32::NAN)]), vec![])).contains("alpha is not finite"));
    assert!(refused(&model(gate(vec![float("gamma", 1.0)]), vec![])).contains("\"gamma\" is not known"));
    let swish = || node("HardSwish", &["x"], "y", vec![]);
    assert_eq!(ops(vec![swish()], vec![]), ["affine", "clip", "multiply"]);
    let known = refused(&model(vec![node("HardSwish", &["c"], "y", vec![])], vec![filled("c", &[3])]));
    assert!(known.contains("(HardSwish): its input 0 is a constant"), "{known}");
}

#[test]
fn powers_and_bounds_by_a_number() {
    let two = TensorProto { name: "two".into(), data_type: 7, int64_data: vec![2], ..Default::default() };
    let one = |value| vec![tensor("c", &[], &[value])];
    let power = |name: &str| vec![node("Pow", &["x", name], "y", vec![])];
    assert_eq!(ops(power("c"), one(2.0)), ["multiply"]);
    assert_eq!(ops(power("two"), vec![two]), ["multiply"]);
    let root = [vec![node("Relu", &["x"], "a", vec![])], vec![node("Pow", &["a", "c"], "y", vec![])]].concat();
    assert_eq!(ops(root, one(0.5)), ["relu", "sqrt"]);
    assert!(refused(&model(power("c"), one(3.0))).contains("(Pow): the exponent 3 is not supported"));
    let bound = |op: &str, inputs: &[&str]| vec![node(op, inputs, "y", vec![])];
    for (op, expected) in
        [("Max", Op::Clip { low: 0.25, high: f32::MAX }), ("Min", Op::Clip { low: f32::MIN, high: 0.25 })]
    {
        for inputs in [["x", "c"], ["c", "x"]] {
            let imported = read(&model(bound(op, &inputs), one(0.25))).unwrap();
            assert_eq!(imported.graph.nodes[0].op, expected);
            agrees(&imported);
        }
    }
    assert!(refused(&model(bound("Max", &["x", "x"]), vec![])).contains("(Max): expected a value that depends"));
    assert!(refused(&model(bound("Min", &["x", "c", "c"]), one(1.0))).contains("(Min): 3 operands"));
    let many = refused(&model(bound("Max", &["x", "c"]), vec![filled("c", &[3, 1, 1])]));
    assert!(many.contains("expected one value, got 3"), "{many}");
}

#[test]
fn opset_8_is_read() {
    let mut old = small();
    old.opset_import[0].version = 8;
    let graph = old.graph.as_mut().unwrap();
    // Bounds are attributes there.
    let clip = &mut graph.node[9];
    clip.input.truncate(1);
    clip.attribute = vec![float("min", -1.5), float("max", 6.0)];
    // What it says where it says it by default; of features there is no other meaning.
    graph.node[3].attribute = vec![int("spatial", 1)];
    graph.node[14].attribute = vec![int("spatial", 0)];
    let (old, new) = (old.clone(), read(&small()).unwrap());
    let read_old = read(&old).unwrap();
    assert_eq!((&read_old.graph, &read_old.weights), (&new.graph, &new.weights));
    let mut spatial = old;
    spatial.graph.as_mut().unwrap().node[3].attribute[0].i = 0;
    let spatial = refused(&spatial);
    assert!(spatial.contains("node \"the c\" (BatchNormalization): spatial 0 of images is not supported"), "{spatial}");
}
