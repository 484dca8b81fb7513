//! What goes into a graph and what comes out: one image's floats, and one of its outputs.

use std::collections::HashMap;

use super::{
    OnnxError,
    proto::{
        GraphProto, TensorProto, ValueInfoProto,
        tensor_shape_proto::{Dimension, dimension},
        type_proto,
    },
    shorten,
};
use crate::{graph::Shape, input::MAX_INPUT_SIDE};

/// Element types that are floats: f32, f16 and f64. All is computed in f32.
const FLOATS: [i32; 3] = [1, 10, 11];
/// Outputs that an error names, at most.
const MAX_NAMED: usize = 8;

/// The name of the output `chosen`, or of the only one.
pub fn output<'a>(graph: &'a GraphProto, chosen: Option<&str>) -> Result<&'a str, OnnxError> {
    let names = || {
        let names: Vec<String> =
            graph.output.iter().take(MAX_NAMED).map(|o| format!("{:?}", shorten(&o.name))).collect();
        let more = if graph.output.len() > MAX_NAMED { ", ..." } else { "" };
        names.join(", ") + more
    };
    match (graph.output.as_slice(), chosen) {
        (all, Some(chosen)) => match all.iter().find(|output| output.name == chosen) {
            Some(output) => Ok(&output.name),
            None => Err(OnnxError::Model(format!("the graph has no output {:?}, but {}", shorten(chosen), names()))),
        },
        ([output], None) => Ok(&output.name),
        ([], None) => Err(OnnxError::Model("the graph has no output".into())),
        (all, None) => Err(OnnxError::Model(format!(
            "the graph has {} outputs, {}: expected the name of the one to take, as --output NAME, or in a card as output under \
             [source]",
            all.len(),
            names()
        ))),
    }
}

/// The one input that is no initialiser: its name and shape.
pub fn input<'a>(
    graph: &'a GraphProto,
    initialisers: &HashMap<&str, &TensorProto>,
    (width, height): (u32, u32),
) -> Result<(&'a str, Shape), OnnxError> {
    let inputs: Vec<&ValueInfoProto> =
        graph.input.iter().filter(|i| !initialisers.contains_key(i.name.as_str())).collect();
    let [input] = inputs.as_slice() else {
        return Err(OnnxError::Model(format!("the graph has {} inputs, expected one", inputs.len())));
    };
    let bad = |what: &str| OnnxError::Model(format!("the input {:?} {what}", shorten(&input.name)));
    let tensor = match input.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(type_proto::Value::TensorType(tensor)) => tensor,
        None => return Err(bad("is no tensor")),
    };
    if !FLOATS.contains(&tensor.elem_type) {
        let word = type_name(tensor.elem_type);
        return Err(bad(&format!(
            "has values of type {word}, expected float: it is given normalised pixels, `(v - mean) * scale`. Export the network \
             with an input of floats, and without the cast behind it"
        )));
    }
    let dims = tensor.shape.as_ref().map_or(&[][..], |s| &s.dim);
    let [_, channels, rows, columns] = dims else { return Err(bad("has not the four dimensions N x C x H x W")) };
    let fixed = |dim: &Dimension, otherwise: u32| match dim.value {
        Some(dimension::Value::DimValue(n)) if n > 0 => usize::try_from(n).ok(),
        // 0, -1 and a name: any size.
        Some(dimension::Value::DimValue(-1 | 0) | dimension::Value::DimParam(_)) | None => Some(otherwise as usize),
        Some(dimension::Value::DimValue(_)) => None,
    };
    let sides = fixed(channels, 3).zip(fixed(rows, height)).zip(fixed(columns, width));
    let Some(((channels, height), width)) = sides else { return Err(bad("has a negative dimension")) };
    if channels != 3 {
        return Err(bad(&format!("has {channels} channels, expected 3 in the order N x C x H x W")));
    }
    if height.max(width) > MAX_INPUT_SIDE as usize {
        return Err(bad(&format!("has a side of more than {MAX_INPUT_SIDE} pixels")));
    }
    Ok((&input.name, Shape::new(channels, height, width)))
}

/// As ONNX numbers them.
fn type_name(number: i32) -> String {
    let word = match number {
        2 => "uint8",
        3 => "int8",
        4 => "uint16",
        5 => "int16",
        6 => "int32",
        7 => "int64",
        9 => "bool",
        12 => "uint32",
        13 => "uint64",
        16 => "bfloat16",
        number => return format!("number {number}"),
    };
    word.into()
}
