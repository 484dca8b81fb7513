//! Counts what a file would make in memory before it is decoded: two bytes of protobuf can become a message of
//! hundreds.

use super::OnnxError;

/// Messages of all kinds in a file, at most: nodes, attributes, tensors, names. IResNet-100 has about 3000.
const MAX_MESSAGES: usize = 200_000;
/// Bytes of everything but tensors' values, at most.
const MAX_DESCRIPTION: usize = 16 << 20;
/// Bytes of integers and halves that are written as varints, at most: they grow when they are decoded.
const MAX_VARINTS: usize = 64 << 20;

/// What a field's bytes are.
enum Kind {
    Message(Message),
    /// As long in memory as in the file, or not kept.
    Values,
    Varints,
    Description,
}

/// The messages that are decoded, as far as others are inside of them.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Info,
    Type,
    TensorType,
    Shape,
    /// Without further messages.
    Leaf,
}

impl Message {
    /// By the field's number, as in `proto/onnx/onnx.proto`.
    fn field(self, number: u64) -> Kind {
        use Message::{Attribute, Graph, Info, Leaf, Model, Node, Shape, Tensor, TensorType, Type};
        match (self, number) {
            (Model, 7) => Kind::Message(Graph),
            (Graph, 1) => Kind::Message(Node),
            (Graph, 5) | (Attribute, 5) => Kind::Message(Tensor),
            (Graph, 11 | 12) => Kind::Message(Info),
            (Node, 5) => Kind::Message(Attribute),
            (Info, 2) => Kind::Message(Type),
            (Type, 1) => Kind::Message(TensorType),
            (TensorType, 2) => Kind::Message(Shape),
            (Model, 8) | (Tensor, 13) | (Shape, 1) => Kind::Message(Leaf),
            (Tensor, 4 | 9 | 10) => Kind::Values,
            (Tensor, 5) => Kind::Varints,
            // Each becomes a string of its own.
            (Node, 1 | 2) => Kind::Message(Leaf),
            _ => Kind::Description,
        }
    }
}

/// Checks that `file`, a `ModelProto`, is whole and within the limits. Allocates nothing.
pub fn check(file: &[u8]) -> Result<(), OnnxError> {
    let mut census = Census { messages: 0, description: 0, varints: 0 };
    census.message(file, Message::Model)?;
    let too_much = |what, limit| Err(OnnxError::TooLarge { what, limit: limit as u64 });
    match census {
        Census { varints, .. } if varints > MAX_VARINTS => too_much("varints in bytes", MAX_VARINTS),
        _ => Ok(()),
    }
}

struct Census {
    messages: usize,
    description: usize,
    varints: usize,
}

impl Census {
    fn message(&mut self, mut bytes: &[u8], message: Message) -> Result<(), OnnxError> {
        self.messages += 1;
        if self.messages > MAX_MESSAGES {
            return Err(OnnxError::TooLarge { what: "messages", limit: MAX_MESSAGES as u64 });
        }
        if matches!(message, Message::Leaf) {
            return self.describe(bytes.len());
        }
        while !bytes.is_empty() {
            let tag = varint(&mut bytes)?;
            let length = match tag & 7 {
                0 => {
                    let before = bytes.len();
                    varint(&mut bytes)?;
                    self.unpacked(message, tag >> 3, before - bytes.len())?;
                    continue;
                }
                1 => 8,
                2 => usize::try_from(varint(&mut bytes)?).map_err(|_| OnnxError::Truncated)?,
                5 => 4,
                _ => return Err(OnnxError::Wire),
            };
            let (field, rest) = bytes.split_at_checked(length).ok_or(OnnxError::Truncated)?;
            bytes = rest;
            match (tag & 7, message.field(tag >> 3)) {
                (2, Kind::Message(inner)) => self.message(field, inner)?,
                (_, Kind::Values) => {}
                (_, Kind::Varints) => self.varints += length,
                _ => self.describe(length)?,
            }
        }
        Ok(())
    }

    /// One number of a field that repeats without packing, or a field of one number.
    fn unpacked(&mut self, message: Message, number: u64, length: usize) -> Result<(), OnnxError> {
        match message.field(number) {
            Kind::Varints => self.varints += length,
            _ => self.describe(length)?,
        }
        Ok(())
    }

    fn describe(&mut self, length: usize) -> Result<(), OnnxError> {
        self.description = self.description.saturating_add(length);
        if self.description > MAX_DESCRIPTION {
            return Err(OnnxError::TooLarge { what: "bytes beside tensors", limit: MAX_DESCRIPTION as u64 });
        }
        Ok(())
    }
}

/// Takes one from the front.
fn varint(bytes: &mut &[u8]) -> Result<u64, OnnxError> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(OnnxError::Truncated)?;
        *bytes = rest;
        value |= u64::from(byte & 127).checked_shl(shift).unwrap_or(0);
        if byte < 128 {
            return Ok(value);
        }
    }
    Err(OnnxError::Wire)
}
