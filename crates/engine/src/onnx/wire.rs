//! From a decoded file to a graph: which nodes are needed, what each value is, node after node.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use super::{
    MIN_OPSET, OnnxError,
    attributes::Attributes,
    ends, operators,
    proto::{GraphProto, ModelProto, NodeProto, TensorProto},
    shorten,
    wiring::Wiring,
};
use crate::{
    graph::{Graph, MAX_NODES},
    weights::{MAX_TENSORS, Weights},
};

/// Inputs and outputs of one node, at most.
const MAX_OPERANDS: usize = 16;
/// The names of ONNX's own domain.
const DEFAULT_DOMAIN: [&str; 2] = ["", "ai.onnx"];

/// The network, and whether some of its weights lie in other files.
pub fn wire(
    model: ModelProto,
    folder: &Path,
    size: (u32, u32),
    output: Option<&str>,
) -> Result<(Graph, Weights, bool), OnnxError> {
    let mut opsets = model.opset_import.iter().filter(|o| DEFAULT_DOMAIN.contains(&o.domain.as_str()));
    let opset = opsets.next().map_or(0, |o| o.version);
    if opsets.next().is_some() {
        return Err(OnnxError::Model("the file imports two opsets of the default domain, expected one".into()));
    }
    if opset < MIN_OPSET {
        return Err(OnnxError::Model(format!("opset {opset} is not supported: expected {MIN_OPSET} or later")));
    }
    let graph = model.graph.ok_or_else(|| OnnxError::Model("the file has no graph".into()))?;
    if graph.node.len() > MAX_NODES {
        return Err(OnnxError::TooLarge { what: "nodes", limit: MAX_NODES as u64 });
    }
    if graph.initializer.len() > MAX_TENSORS {
        return Err(OnnxError::TooLarge { what: "tensors", limit: MAX_TENSORS as u64 });
    }
    let initialisers: HashMap<&str, &TensorProto> = graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
    if initialisers.len() < graph.initializer.len() {
        let mut names = HashSet::new();
        let twice = graph.initializer.iter().find(|t| !names.insert(t.name.as_str()));
        let name = twice.map_or(String::new(), |t| shorten(&t.name));
        return Err(OnnxError::Model(format!("the initialiser {name:?} is there twice")));
    }
    let (name, input) = ends::input(&graph, &initialisers, size)?;
    let output = ends::output(&graph, output)?;
    let mut wiring = Wiring::new(initialisers, folder, opset, (name, input));
    let needed = needed(&graph, output);
    for (node, needed) in graph.node.iter().zip(needed) {
        if needed {
            append(&mut wiring, node)?;
        }
    }
    wiring.finish(input, output)
}

/// For each node: whether the output depends on it. What was left over from training is not read.
fn needed(graph: &GraphProto, output: &str) -> Vec<bool> {
    let mut names = HashSet::from([output]);
    let mut needed = vec![false; graph.node.len()];
    for (node, needed) in graph.node.iter().zip(&mut needed).rev() {
        if node.output.iter().any(|name| names.contains(name.as_str())) {
            *needed = true;
            names.extend(node.input.iter().map(String::as_str));
        }
    }
    needed
}

/// Refuses outputs beyond the first that say something of the node, or of which nothing is known. Some can be left alone.
fn further_outputs(node: &NodeProto) -> Result<(), String> {
    let Some((place, name)) = node.output.iter().enumerate().skip(1).find(|(_, name)| !name.is_empty()) else {
        return Ok(());
    };
    match node.op_type.as_str() {
        // The mask, and the places of the greatest: nobody has to read them.
        "Dropout" | "MaxPool" if place == 1 && node.output.iter().skip(2).all(String::is_empty) => Ok(()),
        "BatchNormalization" => Err(format!(
            "its further output {:?} says that it is in its training form, which normalises by each batch: expected one \
             output, as exporters write it for inference",
            shorten(name)
        )),
        _ => Err(format!("its further output {:?} is not known: expected one output", shorten(name))),
    }
}

/// Refuses what nobody asked for: it may mean something.
fn all_is_known(wiring: &Wiring<'_>, node: &NodeProto, attributes: &Attributes<'_>) -> Result<(), String> {
    further_outputs(node)?;
    attributes.no_others()?;
    wiring.no_other_inputs(node)
}

/// Appends a node.
fn append<'a>(wiring: &mut Wiring<'a>, node: &'a NodeProto) -> Result<(), OnnxError> {
    let first = node.output.first().map_or("", String::as_str);
    let failed = |reason: String| OnnxError::Node {
        node: shorten(if node.name.is_empty() { first } else { &node.name }),
        op: shorten(&node.op_type),
        reason,
    };
    if !DEFAULT_DOMAIN.contains(&node.domain.as_str()) {
        return Err(failed(format!("operators of the domain {:?} are not known", shorten(&node.domain))));
    }
    if node.input.len().max(node.output.len()) > MAX_OPERANDS || first.is_empty() {
        return Err(failed(format!("expected at most {MAX_OPERANDS} inputs and 1 to {MAX_OPERANDS} outputs")));
    }
    let attributes = Attributes::new(node);
    wiring.begin_node();
    let outputs = || node.output.iter().map(String::as_str).filter(|name| !name.is_empty());
    let mut names: HashSet<&str> = HashSet::new();
    if let Some(twice) = outputs().find(|name| wiring.is_there(name) || !names.insert(name)) {
        return Err(failed(format!("the value {:?} is there twice", shorten(twice))));
    }
    if node.op_type == "Constant"
        && let Some(tensor) = attributes.tensor("value").map_err(failed)?
    {
        wiring.initialise(first, tensor);
        return all_is_known(wiring, node, &attributes).map_err(failed);
    }
    let value = operators::apply(wiring, node, &attributes).map_err(failed)?;
    all_is_known(wiring, node, &attributes).map_err(failed)?;
    outputs().filter(|name| *name != first).for_each(|name| wiring.leave_unread(name, &node.op_type));
    wiring.define(first, value).map_err(failed)
}
