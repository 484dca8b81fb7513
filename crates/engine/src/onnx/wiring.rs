//! The graph so far, while a file is read: what each name stands for, and the operations that were appended.

use std::{cell::Cell, collections::HashMap, path::Path};

use super::{
    OnnxError,
    constant::Constant,
    proto::{NodeProto, TensorProto, tensor_proto::DataLocation},
    shorten,
};
use crate::{
    graph::{Graph, MAX_NODES, Node, Op, Shape, ValueId},
    weights::{MAX_ELEMENTS, Weights},
};

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
    /// Places of the node's inputs that were asked for, a bit each: one that nobody asked for may mean something.
    asked: Cell<u32>,
}

impl<'a> Wiring<'a> {
    /// With the image alone, under `name`; external tensors lie in `folder`.
    pub fn new(
        initialisers: HashMap<&'a str, &'a TensorProto>,
        folder: &'a Path,
        opset: i64,
        (name, input): (&'a str, Shape),
    ) -> Self {
        Self {
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
            asked: Cell::default(),
        }
    }

    /// The graph that gives the value of this name, its weights, and whether some tensor that was read lies in another file.
    pub fn finish(self, input: Shape, output: &str) -> Result<(Graph, Weights, bool), OnnxError> {
        match self.values.get(output) {
            Some(&Value::Computed { id, .. }) if id > 0 => {
                let graph = Graph { input, nodes: self.nodes, output: id };
                // As a whole: what it asks for in sum, before anybody plans it.
                graph.shapes(&self.weights).map_err(|e| OnnxError::Model(e.to_string()))?;
                Ok((graph, self.weights, self.external.get()))
            }
            Some(&Value::Computed { .. }) => {
                Err(OnnxError::Model("the output is the input as it comes: there is nothing to compute".into()))
            }
            _ => Err(OnnxError::Model(format!("the output {:?} is not computed from the input", shorten(output)))),
        }
    }

    /// A tensor that a node holds, decoded when it is used.
    pub fn initialise(&mut self, name: &'a str, tensor: &'a TensorProto) {
        self.initialisers.insert(name, tensor);
    }

    /// Gives a value its name.
    pub fn define(&mut self, name: &'a str, value: Value) -> Result<(), String> {
        if let Value::Known(constant) = &value {
            self.constants += constant.len();
            if self.constants > MAX_ELEMENTS {
                return Err(format!("the constants up to here have more than {MAX_ELEMENTS} values"));
            }
        }
        self.values.insert(name, value);
        Ok(())
    }

    /// A further output of the operation `op`, which nobody may read.
    pub fn leave_unread(&mut self, name: &'a str, op: &'a str) {
        self.unread.insert(name, op);
    }

    pub fn is_there(&self, name: &str) -> bool {
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

    /// To be called before a node's inputs are asked for.
    pub fn begin_node(&self) {
        self.asked.set(0);
    }

    /// Says that the input is known, also where its value makes no difference.
    pub fn ask(&self, index: usize) {
        self.asked.set(self.asked.get() | 1u32.checked_shl(index as u32).unwrap_or(0));
    }

    /// To be called last: refuses an input of the node that nobody asked for.
    pub fn no_other_inputs(&self, node: &NodeProto) -> Result<(), String> {
        let unknown = |(index, name): &(usize, &String)| !name.is_empty() && self.asked.get() >> index & 1 == 0;
        match node.input.iter().enumerate().find(unknown) {
            None => Ok(()),
            Some((index, name)) => Err(format!(
                "its input {index}, {:?}, is not known: opset {} has none there, or an attribute says the same",
                shorten(name),
                self.opset
            )),
        }
    }

    /// The node's input `index`; `None` where it is left out.
    pub fn optional(&self, node: &NodeProto, index: usize) -> Result<Option<Value>, String> {
        self.ask(index);
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
        self.ask(index);
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

pub fn image(rank: usize) -> Result<(), String> {
    if rank == 4 { Ok(()) } else { Err(format!("takes an image of 4 dimensions, got {rank}")) }
}
