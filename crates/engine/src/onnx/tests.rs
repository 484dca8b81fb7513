//! Files made here, good and hostile.

mod arithmetic_tests;
mod batch_tests;
mod bounds_tests;
mod ends_tests;
mod field_tests;
mod normalise_tests;
mod unknown_tests;

use std::{fs, num::NonZeroUsize, path::Path};

use proptest::prelude::*;
use prost::Message;

use super::{
    Imported, OnnxError, open, parse,
    proto::{
        AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
        TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType, tensor_shape_proto, type_proto,
    },
};
use crate::{
    graph::Shape,
    input::{Colour, Input},
    parity::parity,
    plan::Plan,
    precision::Precision,
    shapes::GraphError,
};

fn tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    let raw_data = values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>().into();
    TensorProto { name: name.into(), dims: dims.into(), data_type: 1, raw_data, ..Default::default() }
}

/// Small values that differ.
fn filled(name: &str, dims: &[i64]) -> TensorProto {
    let count = dims.iter().product::<i64>();
    tensor(name, dims, &(0..count).map(|i| ((i * 37 + 11) % 64) as f32 / 64.0 - 0.4).collect::<Vec<_>>())
}

fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), ints: ints.into(), r#type: AttributeType::Ints as i32, ..Default::default() }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i, r#type: AttributeType::Int as i32, ..Default::default() }
}

fn node(op: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    let input = inputs.iter().map(|name| (*name).into()).collect();
    let name = format!("the {output}");
    NodeProto { op_type: op.into(), input, output: vec![output.into()], name, attribute, ..Default::default() }
}

/// N x 3 x 8 x 9.
fn info(name: &str, sides: [i64; 3]) -> ValueInfoProto {
    let dim = |value| tensor_shape_proto::Dimension { value: Some(value) };
    let batch = dim(tensor_shape_proto::dimension::Value::DimParam("N".into()));
    let sides = sides.map(|n| dim(tensor_shape_proto::dimension::Value::DimValue(n)));
    let shape = Some(TensorShapeProto { dim: [vec![batch], sides.into()].concat() });
    let tensor = type_proto::Tensor { elem_type: 1, shape };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)) }) }
}

fn model(node: Vec<NodeProto>, initializer: Vec<TensorProto>) -> ModelProto {
    let graph = GraphProto {
        output: vec![ValueInfoProto { name: "y".into(), r#type: None }],
        input: vec![info("x", [3, 8, 9])],
        name: "a test".into(),
        node,
        initializer,
    };
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 14 }];
    ModelProto { ir_version: 8, graph: Some(graph), opset_import, ..Default::default() }
}

/// Of every kind of node that ArcFace networks have.
fn small() -> ModelProto {
    let pads = || ints("pads", &[1, 1, 1, 1]);
    let norm = |x: &str, n: &str, y: &str| {
        node(
            "BatchNormalization",
            &[x, &format!("{n}s"), &format!("{n}t"), &format!("{n}m"), &format!("{n}v")],
            y,
            vec![],
        )
    };
    let parts = |n: &str, c: i64| {
        let variance = tensor(&format!("{n}v"), &[c], &vec![0.7; c as usize]);
        let [scale, shift, mean] = ["s", "t", "m"].map(|part| filled(&format!("{n}{part}"), &[c]));
        vec![scale, shift, mean, variance]
    };
    let nodes = vec![
        node("Sub", &["x", "half"], "x0", vec![]),
        node("Conv", &["x0", "w1", "b1"], "a", vec![pads(), ints("kernel_shape", &[3, 3])]),
        node("PRelu", &["a", "p"], "b", vec![]),
        norm("b", "n", "c"),
        node("Conv", &["c", "w2"], "d", vec![pads(), int("group", 4)]),
        norm("d", "o", "e"),
        node("Relu", &["e"], "e1", vec![]),
        node("Conv", &["e1", "w3"], "e2", vec![int("group", 2)]),
        node("Add", &["e2", "b"], "f", vec![]),
        node("Clip", &["f", "low", "high"], "f1", vec![]),
        node("MaxPool", &["f1"], "g", vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])]),
        node("Dropout", &["g"], "h", vec![]),
        node("Flatten", &["h"], "i", vec![]),
        node("Gemm", &["i", "w4", "b4"], "j", vec![int("transB", 1)]),
        norm("j", "q", "y"),
    ];
    let mut tensors = vec![
        tensor("half", &[1], &[0.5]),
        filled("w1", &[4, 3, 3, 3]),
        filled("b1", &[4]),
        filled("p", &[4, 1, 1]),
        filled("w2", &[4, 1, 3, 3]),
        filled("w3", &[4, 2, 1, 1]),
        tensor("low", &[], &[-1.5]),
        tensor("high", &[], &[6.0]),
        filled("w4", &[5, 64]),
        filled("b4", &[5]),
    ];
    tensors.extend([parts("n", 4), parts("o", 4), parts("q", 5)].concat());
    model(nodes, tensors)
}

fn read(model: &ModelProto) -> Result<Imported, OnnxError> {
    parse(model.encode_to_vec().into(), Path::new("."), (112, 112), None)
}

fn refused(model: &ModelProto) -> String {
    read(model).map(|_| "it was read").unwrap_err().to_string()
}

fn agrees(Imported { graph, weights, .. }: &Imported) {
    let [width, height] = [graph.input.width, graph.input.height].map(|side| side as u32);
    let input = Input { width, height, colour: Colour::Rgb, mean: [127.5; 3], scale: 1.0 / 127.5 };
    let three = NonZeroUsize::new(3).unwrap();
    for agreement in parity(graph, weights, &input, Precision::F32, three, NonZeroUsize::MIN).unwrap() {
        assert!(agreement.one_minus_cosine < 1e-6, "{agreement:?}");
    }
}

#[test]
fn every_kind_of_node_is_read_and_planned() {
    let imported = read(&small()).unwrap();
    let plan = Plan::new(&imported.graph, &imported.weights).unwrap();
    assert_eq!(plan.shapes[plan.output], Shape::new(5, 1, 1));
    let parts: Vec<String> = plan.steps.iter().map(|step| step.parts.join("+")).collect();
    assert_eq!(
        parts,
        [
            "affine+convolution+p_relu",
            "affine+convolution+affine+relu",
            "convolution+add",
            "clip",
            "max_pool",
            "flatten+fully_connected+affine"
        ]
    );
    agrees(&imported);
}

#[test]
fn weights_come_in_every_form() {
    let plain = read(&small()).unwrap();
    let mut other = small();
    let graph = other.graph.as_mut().unwrap();
    for tensor in &mut graph.initializer {
        let values: Vec<f32> = tensor.raw_data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        match tensor.name.as_str() {
            "w1" => (tensor.float_data, tensor.raw_data) = (values, Default::default()),
            "b1" => {
                tensor.data_type = 11;
                tensor.raw_data = values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect::<Vec<_>>().into();
            }
            _ => {}
        }
    }
    // One of them as a node.
    let at = graph.initializer.iter().position(|t| t.name == "w2").unwrap();
    let t = Some(graph.initializer.remove(at));
    let value = AttributeProto { name: "value".into(), t, r#type: AttributeType::Tensor as i32, ..Default::default() };
    graph.node.insert(0, node("Constant", &[], "w2", vec![value]));
    let other = read(&other).unwrap();
    assert_eq!((other.graph, other.weights), (plain.graph, plain.weights));
}

#[test]
fn what_cannot_be_run_is_refused_with_node_operation_and_reason() {
    let change = |edit: &dyn Fn(&mut GraphProto)| {
        let mut model = small();
        edit(model.graph.as_mut().unwrap());
        refused(&model)
    };
    let of = |index: usize, edit: &dyn Fn(&mut NodeProto)| change(&|graph| edit(&mut graph.node[index]));
    let weight = |name: &str, edit: &dyn Fn(&mut TensorProto)| {
        change(&|graph| edit(graph.initializer.iter_mut().find(|t| t.name == name).unwrap()))
    };
    let cases = [
        (of(2, &|n| n.op_type = "Mish".into()), "node \"the b\" (Mish): this operator is not known"),
        (of(2, &|n| n.domain = "com.acme".into()), "com.acme"),
        (of(1, &|n| n.attribute.push(ints("dilations", &[2, 2]))), "dilations 2 is not supported"),
        (of(1, &|n| n.attribute.push(int("colour", 1))), "attribute \"colour\" is not known"),
        (of(1, &|n| n.input[0] = "f".into()), "node \"the a\" (Conv): its input \"f\" is not computed before it"),
        (of(1, &|n| n.input[0] = "a".into()), "the graph is cyclic or not sorted"),
        (of(1, &|n| n.input[0].clear()), "its input 0 is missing"),
        (change(&|g| g.node.insert(2, g.node[1].clone())), "there twice"),
        (change(&|g| g.initializer.push(g.initializer[3].clone())), "the initialiser \"p\" is there twice"),
        (of(1, &|n| n.attribute.push(ints("pads", &[0; 4]))), "attribute \"pads\" is there twice"),
        (of(11, &|n| n.input.extend([String::new(), "half".into()])), "(Dropout): training_mode is not supported"),
        (change(&|g| g.node = vec![node("Identity", &["x"], "y", vec![])]), "the output is the input as it comes"),
        (of(4, &|n| n.attribute[1].i = 3), "3 groups do not divide 4 channels"),
        (of(4, &|n| n.attribute[1].i = -1), "group is negative"),
        (of(4, &|n| n.attribute[0].ints = vec![i64::MAX; 4]), "padding at most 64"),
        (of(10, &|n| n.attribute[0].ints = vec![i64::MAX; 2]), "kernel sides and strides"),
        (of(13, &|n| n.attribute[0].i = 0), "(Gemm)"),
        (of(5, &|n| n.input.truncate(4)), "its input 4 is missing"),
        (weight("w1", &|t| t.dims = vec![4, 3, 3, 4]), "needs 576 bytes, it has 432"),
        (weight("w1", &|t| t.dims = vec![i64::MAX; 4]), "has more than"),
        (weight("w1", &|t| t.dims = vec![-4, 3, 3, 3]), "negative"),
        (weight("w1", &|t| t.dims = vec![1; 50]), "more than 4 dimensions"),
        (weight("w1", &|t| t.dims = vec![4, 27]), "expected O x C x H x W"),
        (weight("w1", &|t| *t = tensor("w1", &[4, 3, 3, 3], &[f32::NAN; 108])), "value 0 is not finite"),
        (weight("w1", &|t| t.data_type = 16), "data type 16 is not supported"),
        (weight("ov", &|t| *t = tensor("ov", &[4], &[-1.0; 4])), "not finite"),
        (weight("p", &|t| *t = filled("p", &[1, 8, 1])), "expected one value, or one per channel"),
        (change(&|g| g.input[0] = info("x", [3, 1 << 40, 9])), "side of more than 2048"),
        (change(&|g| g.input[0] = info("x", [3, -7, 9])), "negative dimension"),
        (change(&|g| g.input[0] = info("x", [9, 8, 3])), "has 9 channels, expected 3"),
        (change(&|g| g.input.clear()), "0 inputs, expected one"),
        (change(&|g| g.output[0].name = "nowhere".into()), "is not computed from the input"),
        (change(&|g| g.node = vec![g.node[0].clone(); 5000]), "more nodes"),
    ];
    for (message, expected) in cases {
        assert!(message.contains(expected), "expected {expected:?} in {message:?}");
    }
    let mut old = small();
    old.opset_import[0].version = 7;
    assert!(refused(&old).contains("opset 7 is not supported"));
}

#[test]
fn external_data_stay_in_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (inside, outside) = (dir.path().join("model"), dir.path().join("secret"));
    fs::create_dir(&inside).unwrap();
    let bytes = filled("w1", &[4, 3, 3, 3]).raw_data;
    let padded = [&[0; 16][..], &bytes].concat();
    for path in [&inside.join("data"), &outside] {
        fs::write(path, &padded).unwrap();
    }
    std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
    std::os::unix::fs::symlink(dir.path(), inside.join("up")).unwrap();
    fs::write(inside.join("short"), &padded[..40]).unwrap();
    let file = inside.join("a.onnx");
    let open_with = |location: &str, offset: &str| {
        let mut model = small();
        let w1 = model.graph.as_mut().unwrap().initializer.iter_mut().find(|t| t.name == "w1").unwrap();
        let entry = |key: &str, value: &str| StringStringEntryProto { key: key.into(), value: value.into() };
        w1.external_data = vec![entry("location", location), entry("offset", offset), entry("length", "432")];
        (w1.data_location, w1.raw_data) = (1, Default::default());
        fs::write(&file, model.encode_to_vec()).unwrap();
        open(&file, (112, 112), None).map_err(|e| e.to_string())
    };
    for location in ["data", "./data", "././data"] {
        assert_eq!(open_with(location, "16").unwrap().weights, read(&small()).unwrap().weights, "{location}");
    }
    let absolute = outside.display().to_string();
    for location in
        ["../secret", "link", "./link", "up/secret", "./up/secret", "./../secret", "./up/../secret", &absolute, ""]
    {
        let refused = open_with(location, "16").unwrap_err();
        assert!(refused.contains("outside of the model's folder"), "{location}: {refused}");
    }
    for (location, offset) in
        [("short", "16"), ("data", "17"), ("data", "18446744073709551615"), ("up", "0"), (".", "0")]
    {
        open_with(location, offset).unwrap_err();
    }
    assert!(open_with("nothing", "0").unwrap_err().contains("nothing"));
    assert!(open_with("data", "many").unwrap_err().contains("no number"));
}

#[test]
fn every_truncation_is_refused() {
    let bytes = small().encode_to_vec();
    for end in 0..bytes.len() {
        assert!(parse(bytes[..end].to_vec().into(), Path::new("."), (112, 112), None).is_err(), "{end} bytes");
    }
}

#[test]
fn small_files_do_not_become_large() {
    // 2 bytes each: an empty node.
    let mut nodes = vec![];
    (0..300_000).for_each(|_| nodes.extend([0x0a, 0x00]));
    let mut file = vec![0x3a];
    prost::encoding::encode_varint(nodes.len() as u64, &mut file);
    file.extend(nodes);
    let refused = parse(file.into(), Path::new("."), (112, 112), None).unwrap_err().to_string();
    assert!(refused.contains("messages"), "{refused}");
    // A file of 3 GiB that is not there: it is refused by its length.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.onnx");
    fs::File::create(&path).unwrap().set_len(3 << 30).unwrap();
    assert!(matches!(open(&path, (112, 112), None), Err(OnnxError::TooLarge { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Any file ends in an answer; what is read can be planned.
    #[test]
    fn changed_files_end_in_an_answer(changes in proptest::collection::vec((any::<u16>(), any::<u8>(), 0u8..4), 1..6)) {
        let mut bytes = small().encode_to_vec();
        for (at, value, kind) in changes {
            let at = usize::from(at) % bytes.len();
            match kind {
                0 => bytes[at] = value,
                1 => bytes[at] ^= 1 << (value % 8),
                2 => bytes.insert(at, value),
                _ => { bytes.remove(at); }
            }
        }
        if let Ok(Imported { graph, weights, .. }) = parse(bytes.into(), Path::new("."), (112, 112), None) {
            let planned = Plan::of(&graph, weights);
            prop_assert!(matches!(planned, Ok(_) | Err(GraphError::NotFinite { .. })), "{planned:?}");
        }
    }
}
