//! What nobody asked for is refused, what ONNX leaves open is refused, and what it says is done.

use super::{
    AttributeProto, AttributeType, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, agrees, filled, int, ints,
    model, node, read, refused, tensor,
};

fn one(op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> Vec<NodeProto> {
    vec![node(op, inputs, "y", attributes)]
}

fn integers(name: &str, values: &[i64]) -> TensorProto {
    let dims = vec![values.len() as i64];
    TensorProto { name: name.into(), dims, data_type: 7, int64_data: values.into(), ..Default::default() }
}

fn of_opset(version: i64, nodes: Vec<NodeProto>) -> ModelProto {
    let tensors = vec![
        tensor("a", &[], &[0.5]),
        tensor("b", &[], &[0.75]),
        filled("w", &[4, 3, 3, 3]),
        filled("c", &[4]),
        filled("three", &[3]),
        tensor("variance", &[3], &[0.5; 3]),
        integers("pads", &[0, 0, 2, 2, 0, 0, 2, 2]),
        integers("axes", &[2, 3]),
        integers("all", &[1, 216]),
    ];
    let mut model = model(nodes, tensors);
    model.opset_import[0].version = version;
    model
}

#[test]
fn an_input_that_nobody_asked_for_is_refused() {
    let word = |name: &str, s: &'static [u8]| AttributeProto {
        name: name.into(),
        s: s.into(),
        r#type: AttributeType::String as i32,
        ..Default::default()
    };
    let axes = || vec![ints("axes", &[2, 3])];
    let around = || vec![ints("pads", &[0, 0, 1, 1, 0, 0, 1, 1])];
    let batch = ["x", "three", "three", "three", "variance", "a"];
    let refusals = [
        (13, one("Relu", &["x", "a"], vec![]), "(Relu): its input 1, \"a\", is not known"),
        (13, one("Conv", &["x", "w", "c", "a"], vec![]), "its input 3, \"a\", is not known"),
        (13, one("Mul", &["x", "a", "b"], vec![]), "its input 2, \"b\", is not known"),
        (13, one("Mul", &["x", "a", "nowhere"], vec![]), "its input 2, \"nowhere\", is not known"),
        (13, one("BatchNormalization", &batch, vec![]), "its input 5"),
        (8, one("Clip", &["x", "a", "b"], vec![]), "its input 1, \"a\", is not known: opset 8 has none there"),
        (8, one("Pad", &["x", "pads"], around()), "its input 1"),
        (13, one("ReduceMean", &["x", "axes"], axes()), "its input 1, \"axes\", is not known"),
        (18, one("ReduceL2", &["x", "axes"], vec![ints("axes", &[1])]), "its input 1"),
        (10, one("Dropout", &["x", "a"], vec![]), "its input 1"),
        // Known since opset 14.
        (13, one("HardSwish", &["x"], vec![]), "opset 13 does not know it: expected 14 or later"),
        (13, one("Reshape", &["x", "all"], vec![int("allowzero", 0)]), "\"allowzero\" is not known"),
        // Two things said of one.
        (
            13,
            one("Conv", &["x", "w"], vec![word("auto_pad", b"VALID"), ints("pads", &[1; 4])]),
            "pads beside auto_pad VALID",
        ),
        (
            13,
            one("Conv", &["x", "w"], vec![word("auto_pad", b"SAME_UPPER"), ints("pads", &[0, 0, 1, 1])]),
            "pads beside auto_pad SAME_UPPER",
        ),
    ];
    for (version, nodes, expected) in refusals {
        let message = refused(&of_opset(version, nodes));
        assert!(message.contains(expected), "expected {expected:?} in {message:?}");
    }
    // An empty name says that there is none; a ratio makes no difference.
    let none = |inputs: &[&str]| [one("Dropout", inputs, vec![]), vec![node("Relu", &["y"], "z", vec![])]].concat();
    for inputs in [&["x", "a"][..], &["x", "", ""]] {
        let mut dropout = of_opset(13, none(inputs));
        dropout.graph.as_mut().unwrap().output[0].name = "z".into();
        agrees(&read(&dropout).unwrap());
    }
    agrees(&read(&of_opset(13, one("Conv", &["x", "w", ""], vec![]))).unwrap());
}

#[test]
fn one_opset_of_the_default_domain_is_expected() {
    let other = |domain: &str| {
        let mut model = of_opset(13, one("Relu", &["x"], vec![]));
        model.opset_import.push(OperatorSetIdProto { domain: domain.into(), version: 8 });
        model
    };
    for domain in ["", "ai.onnx"] {
        assert!(refused(&other(domain)).contains("two opsets of the default domain"));
    }
    agrees(&read(&other("com.acme")).unwrap());
}

#[test]
fn constants_that_meet_have_the_shape_of_their_broadcast() {
    // [3] and [1, 1] are [1, 3], which are columns and no channels; here there are as many of both.
    let mut columns = model(
        vec![node("Add", &["k", "one"], "s", vec![]), node("Mul", &["x", "s"], "y", vec![])],
        vec![filled("k", &[3]), tensor("one", &[1, 1], &[1.5])],
    );
    columns.graph.as_mut().unwrap().input[0] = super::info("x", [3, 8, 3]);
    assert!(refused(&columns).contains("a constant of shape [1, 3] is not supported"), "{}", refused(&columns));
    for (many, one) in [("k", "one"), ("one", "k")] {
        let sum = |k: &[i64], shape: &[i64]| {
            let nodes = vec![node("Add", &[many, one], "s", vec![]), node("Mul", &["x", "s"], "y", vec![])];
            model(nodes, vec![filled("k", k), tensor("one", shape, &[1.5])])
        };
        for (k, shape) in [(&[3, 1, 1][..], &[1, 1, 1, 1][..]), (&[1, 3, 1, 1], &[1]), (&[3, 1, 1], &[])] {
            agrees(&read(&sum(k, shape)).unwrap());
        }
        assert!(refused(&sum(&[3], &[1, 1, 1])).contains("a constant of shape [1, 1, 3] is not supported"));
    }
    let nodes = vec![node("Add", &["k", "columns"], "s", vec![]), node("Mul", &["x", "s"], "y", vec![])];
    let outer = refused(&model(nodes, vec![filled("k", &[3, 1, 1]), filled("columns", &[9])]));
    assert!(outer.contains("constants of shapes [3, 1, 1] and [9] are not supported"), "{outer}");
}

#[test]
fn what_is_squeezed_has_one_value() {
    let squeezed = |axis: i64| {
        let nodes = vec![node("Squeeze", &["k", "axis"], "s", vec![]), node("Mul", &["x", "s"], "y", vec![])];
        model(nodes, vec![filled("k", &[1, 3, 1, 1]), integers("axis", &[axis])])
    };
    agrees(&read(&squeezed(0)).unwrap());
    assert!(refused(&squeezed(1)).contains("has more than one value along"));
}

#[test]
fn a_constant_that_becomes_a_half_is_rounded() {
    let cast = |value: f32| {
        let nodes = vec![node("Cast", &["k"], "h", vec![int("to", 10)]), node("Mul", &["x", "h"], "y", vec![])];
        read(&model(nodes, vec![tensor("k", &[3, 1, 1], &[value; 3])]))
    };
    assert_eq!(cast(0.1).unwrap().weights.get("0.scale").unwrap().values(), [0.099_975_586; 3]);
    assert!(cast(1e6).unwrap_err().to_string().contains("too large for 16 bits"));
}

#[test]
fn a_slope_of_channels_is_not_taken_for_one_of_a_single_column() {
    let slope = |shape: &[i64]| {
        let nodes = vec![node("GlobalAveragePool", &["x"], "p", vec![]), node("PRelu", &["p", "k"], "y", vec![])];
        model(nodes, vec![filled("k", shape)])
    };
    assert!(refused(&slope(&[3])).contains("could be of channels or of columns"));
    agrees(&read(&slope(&[3, 1, 1])).unwrap());
}

#[test]
fn relu_gives_a_zero_whose_reciprocal_is_positive() {
    let nodes = vec![
        node("Relu", &["x"], "r", vec![]),
        node("Reciprocal", &["r"], "q", vec![]),
        node("Clip", &["q", "low", "high"], "y", vec![]),
    ];
    let bounds = vec![tensor("low", &[], &[-1.0]), tensor("high", &[], &[1.0])];
    agrees(&read(&model(nodes, bounds)).unwrap());
}

#[test]
fn a_small_file_asks_for_no_day_of_work_and_no_gigabyte() {
    // On an image as large as images may be; the file has 30 kB.
    let layers = |count: usize| {
        let name = |at: usize| if at == count { "y".to_owned() } else { format!("l{at}") };
        let mut nodes = vec![node("Conv", &["x", "first"], &name(0), vec![])];
        for at in 0..count {
            nodes.push(node("Conv", &[&name(at), "w"], &name(at + 1), vec![ints("pads", &[3; 4])]));
        }
        let mut model = model(nodes, vec![filled("first", &[8, 3, 1, 1]), filled("w", &[8, 8, 7, 7])]);
        model.graph.as_mut().unwrap().input[0] = super::info("x", [3, 2048, 2048]);
        model
    };
    read(&layers(60)).unwrap();
    assert!(refused(&layers(100)).contains("more than 1000000000000 multiplications"));
    let expand = |to: &[i64]| {
        let nodes = vec![node("Conv", &["x", "w"], "c", vec![]), node("Expand", &["c", "to"], "y", vec![])];
        model(nodes, vec![filled("w", &[1, 3, 1, 1]), integers("to", to)])
    };
    read(&expand(&[1, 65536, 8, 9])).unwrap();
    for channels in [65537, 1 << 40] {
        let message = refused(&expand(&[1, channels, 8, 9]));
        assert!(message.contains("(Expand)") && message.contains("at most 65536 channels"), "{message}");
    }
}
