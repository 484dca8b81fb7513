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
    ends, operators,
    proto::{GraphProto, ModelProto, NodeProto, TensorProto, tensor_proto::DataLocation},
    shorten,
};
use crate::model::{
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
    /// Further outputs that nobody may read, with the operation that gives them.
    unread: HashMap<&'a str, &'a str>,
    /// Elements of the constants among them.
    constants: usize,
    nodes: Vec<Node>,
    shapes: Vec<Shape>,
    weights: Weights,
}

/// The network, and whether some of its weights lie in other files.
pub fn wire(
    model: ModelProto,
    folder: &Path,
    size: (u32, u32),
    output: Option<&str>,
) -> Result<(Graph, Weights, bool), OnnxError> {
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
    let (name, input) = ends::input(&graph, &initialisers, size)?;
    let output = ends::output(&graph, output)?;
    let mut wiring = Wiring {
        initialisers,
        folder,
        external: Cell::new(false),
        opset,
        values: HashMap::from([(name, Value::Computed { id: 0, rank: 4 })]),
        unread: HashMap::new(),
        constants: 0,
        nodes: vec![],
        shapes: vec![input],
        weights: Weights::new(),
    };
    let needed = needed(&graph, output);
    for (node, needed) in graph.node.iter().zip(needed) {
        if needed {
            wiring.node(node)?;
        }
    }
    match wiring.values.get(output) {
        Some(&Value::Computed { id, .. }) if id > 0 => {
            let external = wiring.external.get();
            Ok((Graph { input, nodes: wiring.nodes, output: id }, wiring.weights, external))
        }
        Some(&Value::Computed { .. }) => {
            Err(OnnxError::Model("the output is the input as it comes: there is nothing to compute".into()))
        }
        _ => Err(OnnxError::Model(format!("the output {:?} is not computed from the input", shorten(output)))),
    }
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
        let outputs = || node.output.iter().map(String::as_str).filter(|name| !name.is_empty());
        let mut names: HashSet<&str> = HashSet::new();
        if let Some(twice) = outputs().find(|name| self.is_there(name) || !names.insert(name)) {
            return Err(failed(format!("the value {:?} is there twice", shorten(twice))));
        }
        if node.op_type == "Constant"
            && let Some(tensor) = attributes.tensor("value").map_err(failed)?
        {
            self.initialisers.insert(first, tensor);
            return further_outputs(node).and_then(|()| attributes.no_others()).map_err(failed);
        }
        let value = operators::apply(self, node, &attributes).map_err(failed)?;
        further_outputs(node).and_then(|()| attributes.no_others()).map_err(failed)?;
        self.unread.extend(outputs().filter(|name| *name != first).map(|name| (name, node.op_type.as_str())));
        if let Value::Known(constant) = &value {
            self.constants += constant.len();
            if self.constants > MAX_ELEMENTS {
                return Err(failed(format!("the constants up to here have more than {MAX_ELEMENTS} values")));
            }
        }
        self.values.insert(first, value);
        Ok(())
    }

    fn is_there(&self, name: &str) -> bool {
        self.values.contains_key(name) || self.initialisers.contains_key(name) || self.unread.contains_key(name)
    }

    /// As [`Self::append`]; `rank` is how many dimensions ONNX gives the result.
    pub fn push(&mut self, op: Op, inputs: &[ValueId], rank: usize) -> Result<Value, String> {
        Ok(Value::Computed { id: self.append(op, inputs)?, rank })
    }

    /// Appends an operation on computed values; its shapes are checked.
    pub fn append(&mut self, op: Op, inputs: &[ValueId]) -> Result<ValueId, String> {
        if self.nodes.len() >= MAX_NODES {
            return Err(format!("the network has more than {MAX_NODES} operations"));
        }
        let node = Node { op, inputs: inputs.to_vec() };
        let shape = node.shape(&self.shapes, &self.weights).map_err(|fault| fault.to_string())?;
        shape.elements().ok_or("its result is empty or too large")?;
        self.nodes.push(node);
        self.shapes.push(shape);
        Ok(self.nodes.len())
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
        match (self.initialisers.get(name.as_str()), self.unread.get(name.as_str())) {
            (Some(tensor), _) => Ok(Some(Value::Known(self.read(tensor)?))),
            (None, Some(op)) => {
                Err(format!("its input {:?}, a further output of a {}, is not supported", shorten(name), shorten(op)))
            }
            (None, None) => Err(format!(
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
