//! What goes in and what comes out: of the graph, and of a node beyond its first output.

use std::path::Path;

use prost::Message;

use super::{
    GraphProto, Imported, ModelProto, OnnxError, TensorProto, ValueInfoProto, agrees, filled, int, ints, model, node,
    parse, read, refused, small, type_proto,
};
use crate::graph::Shape;

fn typed(number: i32) -> ModelProto {
    let mut model = small();
    let input = &mut model.graph.as_mut().unwrap().input[0];
    if let Some(type_proto::Value::TensorType(tensor)) = &mut input.r#type.as_mut().unwrap().value {
        tensor.elem_type = number;
    }
    model
}

#[test]
fn an_input_is_of_floats() {
    for floats in [1, 10, 11] {
        agrees(&read(&typed(floats)).unwrap());
    }
    for (number, word) in [(2, "uint8"), (3, "int8"), (6, "int32"), (9, "bool"), (0, "number 0"), (99, "number 99")] {
        let message = refused(&typed(number));
        let expected = format!("the input \"x\" has values of type {word}, expected float");
        assert!(message.contains(&expected) && message.contains("Export the network with"), "{message}");
    }
}

fn open_to(model: &ModelProto, output: Option<&str>) -> Result<Imported, OnnxError> {
    parse(model.encode_to_vec().into(), Path::new("."), (112, 112), output)
}

/// A feature, its length, and an output that takes a node which is not known.
fn several() -> ModelProto {
    let mut model = model(
        vec![
            node("Flatten", &["x"], "i", vec![]),
            node("Gemm", &["i", "w"], "f", vec![]),
            node("ReduceL2", &["f"], "norm", vec![ints("axes", &[1])]),
            node("Div", &["f", "norm"], "feature", vec![]),
            node("Mish", &["f"], "aside", vec![]),
        ],
        vec![filled("w", &[216, 5])],
    );
    let info = |name: &str| ValueInfoProto { name: name.into(), r#type: None };
    model.graph.as_mut().unwrap().output = ["feature", "norm", "aside"].map(info).into();
    model
}

#[test]
fn one_of_several_outputs_is_chosen_by_its_name() {
    let feature = open_to(&several(), Some("feature")).unwrap();
    agrees(&feature);
    let shape = |imported: &Imported| imported.graph.shapes(&imported.weights).unwrap()[imported.graph.output];
    assert_eq!(shape(&feature), Shape::new(5, 1, 1));
    let norm = open_to(&several(), Some("norm")).unwrap();
    agrees(&norm);
    // What the others alone need is not there.
    assert_eq!((shape(&norm), norm.graph.nodes.len()), (Shape::new(1, 1, 1), feature.graph.nodes.len() - 2));
    let refused = |output| open_to(&several(), output).unwrap_err().to_string();
    assert!(refused(Some("aside")).contains("node \"the aside\" (Mish): this operator is not known"));
    let message = refused(None);
    assert!(message.contains("3 outputs, \"feature\", \"norm\", \"aside\": expected the name"), "{message}");
    assert!(message.contains("--output NAME"), "{message}");
    // A value inside of the graph is no output of it.
    for missing in ["f", "", "Feature"] {
        let expected = format!("the graph has no output {missing:?}, but \"feature\", \"norm\", \"aside\"");
        assert!(refused(Some(missing)).contains(&expected), "{}", refused(Some(missing)));
    }
    let mut none = several();
    none.graph.as_mut().unwrap().output.clear();
    assert!(open_to(&none, None).unwrap_err().to_string().contains("the graph has no output"));
    let mut many = several();
    let outputs = &mut many.graph.as_mut().unwrap().output;
    outputs.extend((0..100).map(|i| ValueInfoProto { name: format!("o{i}"), r#type: None }));
    let message = open_to(&many, None).unwrap_err().to_string();
    assert!(message.contains("103 outputs") && message.contains("\"o4\", ...: expected"), "{message}");
    // The only one may be named as well.
    assert_eq!(open_to(&small(), Some("y")).unwrap().graph, read(&small()).unwrap().graph);
}

#[test]
fn outputs_of_a_node_that_are_not_understood_refuse_the_file() {
    let change = |edit: &dyn Fn(&mut GraphProto)| {
        let mut model = small();
        edit(model.graph.as_mut().unwrap());
        model
    };
    let with = |index: usize, more: &[&str]| {
        change(&|graph| graph.node[index].output.extend(more.iter().map(|name| (*name).into())))
    };
    let training = refused(&with(3, &["mean", "variance"]));
    assert!(training.contains("node \"the c\" (BatchNormalization): its further output \"mean\""), "{training}");
    assert!(training.contains("training form"), "{training}");
    assert!(refused(&with(14, &["", "", "saved"])).contains("its further output \"saved\" says"));
    assert!(refused(&with(2, &["b2"])).contains("node \"the b\" (PRelu): its further output \"b2\" is not known"));
    assert!(refused(&with(11, &["mask", "more"])).contains("(Dropout): its further output \"mask\""));
    // Left out, or what nobody has to read: the mask and the places of the greatest.
    for (index, more) in [(3, vec!["", ""]), (11, vec!["mask"]), (10, vec!["places"])] {
        let other = read(&with(index, &more)).unwrap();
        assert_eq!(other.graph, read(&small()).unwrap().graph);
    }
    let masked = |edit: &dyn Fn(&mut GraphProto)| {
        let mut model = with(11, &["mask"]);
        edit(model.graph.as_mut().unwrap());
        refused(&model)
    };
    let read_mask = masked(&|graph| graph.node[12].input[0] = "mask".into());
    assert!(read_mask.contains("its input \"mask\", a further output of a Dropout, is not supported"), "{read_mask}");
    let again = masked(&|graph| (graph.node[12].output[0], graph.node[13].input[0]) = ("mask".into(), "mask".into()));
    assert!(again.contains("the value \"mask\" is there twice"), "{again}");
    assert!(masked(&|graph| graph.node[11].output[1] = "h".into()).contains("the value \"h\" is there twice"));
    assert!(masked(&|graph| graph.output[0].name = "mask".into()).contains("\"mask\" is not computed"));
}

#[test]
fn allowzero_makes_no_difference_without_a_zero() {
    let integers = |values: &[i64]| TensorProto {
        name: "to".into(),
        dims: vec![values.len() as i64],
        data_type: 7,
        int64_data: values.into(),
        ..Default::default()
    };
    let reshape = |to: &[i64], allow| {
        model(vec![node("Reshape", &["x", "to"], "y", vec![int("allowzero", allow)])], vec![integers(to)])
    };
    for to in [[-1, 216], [1, -1]] {
        agrees(&read(&reshape(&to, 1)).unwrap());
    }
    agrees(&read(&reshape(&[0, -1], 0)).unwrap());
    for to in [[0, -1], [0, 216]] {
        let message = refused(&reshape(&to, 1));
        assert!(message.contains("(Reshape): allowzero 1 with a 0 in the target is not supported"), "{message}");
    }
    assert!(refused(&reshape(&[1, 216], 2)).contains("allowzero 2 is not supported"));
    // The batch's size in its own place is no zero, also where it comes from a part of the shape.
    let nodes = |start: i64, end: i64| {
        vec![
            node("Shape", &["x"], "n", vec![int("start", start), int("end", end)]),
            node("Concat", &["n", "to"], "all", vec![int("axis", 0)]),
            node("Reshape", &["x", "all"], "y", vec![int("allowzero", 1)]),
        ]
    };
    for (start, end) in [(0, 1), (-4, -3), (-9, 1)] {
        agrees(&read(&model(nodes(start, end), vec![integers(&[216])])).unwrap());
    }
    let sides = refused(&model(nodes(1, 9), vec![integers(&[216])]));
    assert!(sides.contains("(Reshape): a reshape of N x 3x8x9 to [3, 8, 9, 216]"), "{sides}");
}
