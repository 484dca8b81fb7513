//! The batch's size, which nobody knows before there is a batch.

use super::{NodeProto, TensorProto, agrees, int, ints, model, node, read, refused};

#[test]
fn the_batchs_size_is_a_shapes_alone() {
    let integers = |name: &str, values: &[i64]| TensorProto {
        name: name.into(),
        dims: if values.len() == 1 { vec![] } else { vec![values.len() as i64] },
        data_type: 7,
        int64_data: values.into(),
        ..Default::default()
    };
    let tensors =
        || vec![integers("zero", &[0]), integers("one", &[1]), integers("rest", &[1, 2, 3]), integers("-1", &[-1])];
    let with = |more: Vec<NodeProto>| {
        let first = vec![node("Shape", &["x"], "s", vec![]), node("Gather", &["s", "zero"], "n", vec![])];
        model([first, more].concat(), tensors())
    };
    let to = |kind| vec![int("to", kind)];
    let used = [
        vec![node("Cast", &["n"], "f", to(1)), node("Add", &["x", "f"], "y", vec![])],
        vec![
            node("Gather", &["rest", "n"], "c", vec![]),
            node("Cast", &["c"], "f", to(1)),
            node("Add", &["x", "f"], "y", vec![]),
        ],
        vec![
            node("Mul", &["n", "one"], "m", vec![]),
            node("Cast", &["m"], "f", to(1)),
            node("Add", &["x", "f"], "y", vec![]),
        ],
    ];
    for (nodes, failing) in used.into_iter().zip(["the f\" (Cast)", "the c\" (Gather)", "the m\" (Mul)"]) {
        let message = refused(&with(nodes));
        assert!(
            message.contains(failing) && message.contains("takes the batch's size, which is not known"),
            "{message}"
        );
    }
    // As exporters write it: N x all others. A dimension that is 0 in earnest is a number like others.
    let axes = || vec![ints("axes", &[0])];
    let flattened = with(vec![
        node("Unsqueeze", &["n"], "n1", axes()),
        node("Unsqueeze", &["-1"], "m1", axes()),
        node("Concat", &["n1", "m1"], "c", vec![int("axis", 0)]),
        node("Cast", &["c"], "c1", to(7)),
        node("Reshape", &["x", "c1"], "z", vec![]),
        node("Sub", &["one", "one"], "none", vec![]),
        node("Mul", &["none", "one"], "none1", vec![]),
        node("Cast", &["none1"], "f", to(1)),
        node("Add", &["z", "f"], "y", vec![]),
    ]);
    agrees(&read(&flattened).unwrap());
    // Not in another place than its own.
    let elsewhere = with(vec![
        node("Unsqueeze", &["n"], "n1", axes()),
        node("Unsqueeze", &["-1"], "m1", axes()),
        node("Concat", &["m1", "n1"], "c", vec![int("axis", 0)]),
        node("Reshape", &["x", "c"], "y", vec![]),
    ]);
    assert!(refused(&elsewhere).contains("the y\" (Reshape): it takes the batch's size"), "{}", refused(&elsewhere));
}
