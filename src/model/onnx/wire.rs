//! From a decoded file to a graph: which nodes are needed, what each value is, node after node.

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    path::Path,
};

use super::{
    MIN_OPSET, OnnxError,
    attributes::Attributes,
    constant::Constant,
    operators,
    proto::{
        GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, tensor_proto::DataLocation,
        tensor_shape_proto::dimension, type_proto,
    },
    shorten,
};
use crate::model::{
    contract::MAX_INPUT_SIDE,
    graph::{Graph, MAX_NODES, Node, Op, Shape, ValueId},
    weights::{MAX_ELEMENTS, MAX_TENSORS, Weights},
};

/// Inputs and outputs of one node, at most.
const MAX_OPERANDS: usize = 16;

/// What a name stands for.
#[derive(Clone)]
pub enum Value {
    /// Depends on the image: a value of the graph, and how many dimensions ONNX gives it, the batch included.
    Computed { id: ValueId, rank: usize },
    /// Known; computed from other constants.
    Known(Constant),
}

/// The graph so far.
pub struct Wiring<'a> {
    /// Decoded when they are used, so that a network is not in memory three times.
    initialisers: HashMap<&'a str, &'a TensorProto>,
    folder: &'a Path,
    /// Some tensor that was read lies in another file.
    external: Cell<bool>,
    pub opset: i64,
    values: HashMap<&'a str, Value>,
    /// Elements of the constants among them.
    constants: usize,
    nodes: Vec<Node>,
    shapes: Vec<Shape>,
    weights: Weights,
}

/// The network, and whether some of its weights lie in other files.
pub fn wire(model: ModelProto, folder: &Path, size: (u32, u32)) -> Result<(Graph, Weights, bool), OnnxError> {
    let opset =
        model.opset_import.iter().find(|o| matches!(o.domain.as_str(), "" | "ai.onnx")).map_or(0, |o| o.version);
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
    let (name, input) = input(&graph, &initialisers, size)?;
    let mut wiring = Wiring {
        initialisers,
        folder,
        external: Cell::new(false),
        opset,
        values: HashMap::from([(name, Value::Computed { id: 0, rank: 4 })]),
        constants: 0,
        nodes: vec![],
        shapes: vec![input],
        weights: Weights::new(),
    };
    let [output] = graph.output.as_slice() else {
        return Err(OnnxError::Model(format!("the graph has {} outputs, expected one", graph.output.len())));
    };
    let needed = needed(&graph, &output.name);
    for (node, needed) in graph.node.iter().zip(needed) {
        if needed {
            wiring.node(node)?;
        }
    }
    match wiring.values.get(output.name.as_str()) {
        Some(&Value::Computed { id, .. }) if id > 0 => {
            let external = wiring.external.get();
            Ok((Graph { input, nodes: wiring.nodes, output: id }, wiring.weights, external))
        }
        Some(&Value::Computed { .. }) => {
            Err(OnnxError::Model("the output is the input as it comes: there is nothing to compute".into()))
        }
        _ => Err(OnnxError::Model(format!("the output {:?} is not computed from the input", shorten(&output.name)))),
    }
}

/// The one input that is no initialiser: its name and shape.
fn input<'a>(
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
    let dims = tensor.shape.as_ref().map_or(&[][..], |s| &s.dim);
    let [_, channels, rows, columns] = dims else { return Err(bad("has not the four dimensions N x C x H x W")) };
    let fixed = |dim: &super::proto::tensor_shape_proto::Dimension, otherwise: u32| match dim.value {
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

impl<'a> Wiring<'a> {
    fn node(&mut self, node: &'a NodeProto) -> Result<(), OnnxError> {
        let first = node.output.first().map_or("", String::as_str);
        let failed = |reason: String| OnnxError::Node {
            node: shorten(if node.name.is_empty() { first } else { &node.name }),
            op: shorten(&node.op_type),
            reason,
        };
        if !matches!(node.domain.as_str(), "" | "ai.onnx") {
            return Err(failed(format!("operators of the domain {:?} are not known", shorten(&node.domain))));
        }
        if node.input.len().max(node.output.len()) > MAX_OPERANDS || first.is_empty() {
            return Err(failed(format!("expected at most {MAX_OPERANDS} inputs and 1 to {MAX_OPERANDS} outputs")));
        }
        let attributes = Attributes::new(node);
        let there = self.values.contains_key(first) || self.initialisers.contains_key(first);
        if there {
            return Err(failed(format!("the value {:?} is there twice", shorten(first))));
        }
        if node.op_type == "Constant"
            && let Some(tensor) = attributes.tensor("value").map_err(failed)?
        {
            self.initialisers.insert(first, tensor);
            return attributes.no_others().map_err(failed);
        }
        let value = operators::apply(self, node, &attributes).map_err(failed)?;
        attributes.no_others().map_err(failed)?;
        if let Value::Known(constant) = &value {
            self.constants += constant.len();
            if self.constants > MAX_ELEMENTS {
                return Err(failed(format!("the constants up to here have more than {MAX_ELEMENTS} values")));
            }
        }
        self.values.insert(first, value);
        Ok(())
    }

    /// Appends an operation on computed values; its shapes are checked.
    pub fn push(&mut self, op: Op, inputs: &[ValueId], rank: usize) -> Result<Value, String> {
        if self.nodes.len() >= MAX_NODES {
            return Err(format!("the network has more than {MAX_NODES} operations"));
        }
        let node = Node { op, inputs: inputs.to_vec() };
        let shape = node.shape(&self.shapes, &self.weights).map_err(|fault| fault.to_string())?;
        shape.elements().ok_or("its result is empty or too large")?;
        self.nodes.push(node);
        self.shapes.push(shape);
        Ok(Value::Computed { id: self.nodes.len(), rank })
    }

    /// Keeps a tensor of the operation that is appended next; what comes back is its name.
    pub fn keep(&mut self, role: &str, shape: Vec<usize>, values: Vec<f32>) -> Result<String, String> {
        let name = format!("{}.{role}", self.nodes.len());
        self.weights.insert(&name, shape, values).map_err(|e| e.to_string())?;
        Ok(name)
    }

    pub fn shape(&self, id: ValueId) -> Shape {
        // Ids come from `push` alone.
        self.shapes.get(id).copied().unwrap_or(Shape::new(0, 0, 0))
    }

    /// The node's input `index`; `None` where it is left out.
    pub fn optional(&self, node: &NodeProto, index: usize) -> Result<Option<Value>, String> {
        let Some(name) = node.input.get(index).filter(|name| !name.is_empty()) else { return Ok(None) };
        if let Some(value) = self.values.get(name.as_str()) {
            return Ok(Some(value.clone()));
        }
        match self.initialisers.get(name.as_str()) {
            Some(tensor) => Ok(Some(Value::Known(self.read(tensor)?))),
            None => Err(format!(
                "its input {:?} is not computed before it: it is missing, or the graph is cyclic or not sorted",
                shorten(name)
            )),
        }
    }

    pub fn value(&self, node: &NodeProto, index: usize) -> Result<Value, String> {
        self.optional(node, index)?.ok_or_else(|| format!("its input {index} is missing"))
    }

    /// Id and rank of an input that must depend on the image.
    pub fn computed(&self, node: &NodeProto, index: usize) -> Result<(ValueId, usize), String> {
        match self.value(node, index)? {
            Value::Computed { id, rank } => Ok((id, rank)),
            Value::Known(_) => Err(format!("its input {index} is a constant, which is not supported here")),
        }
    }

    /// An input that must be known.
    pub fn known(&self, node: &NodeProto, index: usize) -> Result<Constant, String> {
        self.known_or_none(node, index)?.ok_or_else(|| format!("its input {index} is missing"))
    }

    pub fn known_or_none(&self, node: &NodeProto, index: usize) -> Result<Option<Constant>, String> {
        match self.optional(node, index)? {
            Some(Value::Known(constant)) => Ok(Some(constant)),
            Some(Value::Computed { .. }) => {
                Err(format!("its input {index} depends on the image: only a constant is supported here"))
            }
            None => Ok(None),
        }
    }

    /// Whether the node's input `index` is there, and is not known to be false. Truth values are read nowhere else.
    pub fn is_training(&self, node: &NodeProto, index: usize) -> bool {
        let Some(name) = node.input.get(index).filter(|name| !name.is_empty()) else { return false };
        self.initialisers.get(name.as_str()).is_none_or(|tensor| {
            let external = tensor.data_location == DataLocation::External as i32;
            external || tensor.raw_data.iter().any(|b| *b != 0) || tensor.int32_data.iter().any(|v| *v != 0)
        })
    }

    pub fn read(&self, tensor: &TensorProto) -> Result<Constant, String> {
        self.external.set(self.external.get() || tensor.data_location == DataLocation::External as i32);
        Constant::read(tensor, self.folder).map_err(|e| e.to_string())
    }
}
