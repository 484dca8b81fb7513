//! Arithmetic between values and constants, and ONNX's broadcasting as far as it is along channels.

use super::{
    constant::{Constant, Values},
    proto::NodeProto,
    shapes,
    wiring::{Value, Wiring},
};
use crate::graph::{Op, ValueId};

pub fn apply(w: &mut Wiring<'_>, node: &NodeProto) -> Result<Value, String> {
    match node.op_type.as_str() {
        "Sum" => {
            let mut sum = w.value(node, 0)?;
            for index in 1..node.input.len() {
                let next = w.value(node, index)?;
                sum = binary(w, "Add", sum, next)?;
            }
            Ok(sum)
        }
        "Sqrt" => {
            let (x, rank) = w.computed(node, 0)?;
            w.push(Op::Sqrt, &[x], rank)
        }
        "Reciprocal" => {
            let (x, rank) = w.computed(node, 0)?;
            w.push(Op::Reciprocal, &[x], rank)
        }
        "Pow" => power(w, node),
        "Max" | "Min" => bound(w, node),
        op => {
            let (x, y) = (w.value(node, 0)?, w.value(node, 1)?);
            binary(w, op, x, y)
        }
    }
}

fn binary(w: &mut Wiring<'_>, op: &str, x: Value, y: Value) -> Result<Value, String> {
    match (x, y) {
        (Value::Computed { id: x, rank }, Value::Computed { id: y, rank: other }) => {
            if rank != other {
                return Err(format!("operands of {rank} and {other} dimensions are not supported"));
            }
            let (x, y) = broadcast(w, op, x, y)?;
            let swapped = w.shape(x).is_vector() && !w.shape(y).is_vector();
            match op {
                "Add" => w.push(Op::Add, &[x, y], rank),
                "Mul" if swapped => w.push(Op::Multiply, &[y, x], rank),
                "Mul" => w.push(Op::Multiply, &[x, y], rank),
                "Div" => w.push(Op::Divide, &[x, y], rank),
                _ => Err("two values that depend on the image are not supported: expected one constant".into()),
            }
        }
        (Value::Computed { id, rank }, Value::Known(constant)) => {
            let channels = w.shape(id).channels;
            let each = per_channel(constant, rank, channels)?;
            let (ones, zeros) = (vec![1.0; channels], vec![0.0; channels]);
            let id = match op {
                "Add" => affine(w, id, ones, each),
                "Sub" => affine(w, id, ones, each.iter().map(|v| -v).collect()),
                "Mul" => affine(w, id, each, zeros),
                _ => affine(w, id, each.iter().map(|v| 1.0 / v).collect(), zeros),
            }?;
            Ok(Value::Computed { id, rank })
        }
        (Value::Known(constant), Value::Computed { id, rank }) => {
            let channels = w.shape(id).channels;
            let each = per_channel(constant, rank, channels)?;
            let id = match op {
                "Add" => affine(w, id, vec![1.0; channels], each),
                "Sub" => affine(w, id, vec![-1.0; channels], each),
                "Mul" => affine(w, id, each, vec![0.0; channels]),
                _ if each.iter().all(|&v| v == 1.0) => w.append(Op::Reciprocal, &[id]),
                _ => Err("a constant divided by a value is not supported: expected 1".into()),
            }?;
            Ok(Value::Computed { id, rank })
        }
        (Value::Known(x), Value::Known(y)) => shapes::fold(op, x, y).map(Value::Known),
    }
}

/// One channel meets many, as a length does what it divides: it is repeated. All else stays; shapes are checked with the
/// operation.
fn broadcast(w: &mut Wiring<'_>, op: &str, x: ValueId, y: ValueId) -> Result<(ValueId, ValueId), String> {
    let (sx, sy) = (w.shape(x), w.shape(y));
    let same = (sx.height, sx.width) == (sy.height, sy.width);
    // A product takes a factor for each channel of an image.
    let vector = |is_vector: bool| same || (op == "Mul" && is_vector);
    let repeat = |w: &mut Wiring<'_>, id, channels| w.append(Op::RepeatChannel { channels }, &[id]);
    match (sx.channels, sy.channels) {
        (1, channels) if channels > 1 && vector(sx.is_vector()) => Ok((repeat(w, x, channels)?, y)),
        (channels, 1) if channels > 1 && vector(sy.is_vector()) => Ok((x, repeat(w, y, channels)?)),
        _ => Ok((x, y)),
    }
}

/// `x * scale + shift`.
pub fn affine(w: &mut Wiring<'_>, x: ValueId, scale: Vec<f32>, shift: Vec<f32>) -> Result<ValueId, String> {
    let scale = w.keep("scale", vec![scale.len()], scale)?;
    let shift = w.keep("shift", vec![shift.len()], shift)?;
    w.append(Op::Affine { scale, shift }, &[x])
}

/// One value per channel from a constant that ONNX broadcasts over N x C x ...: all other dimensions must be 1.
pub fn per_channel(constant: Constant, rank: usize, channels: usize) -> Result<Vec<f32>, String> {
    let (shape, values) = constant.floats()?;
    let refused = || format!("a constant of shape {shape:?} is not supported: expected one value, or one per channel");
    // Aligned at the end, as ONNX does.
    let aligned: Vec<usize> = std::iter::repeat_n(1, rank.saturating_sub(shape.len())).chain(shape.clone()).collect();
    let others = aligned.iter().enumerate().any(|(axis, &d)| axis != 1 && d != 1);
    match values.as_slice() {
        &[value] if aligned.len() == rank => Ok(vec![value; channels]),
        _ if aligned.len() == rank && !others && values.len() == channels => Ok(values),
        _ => Err(refused()),
    }
}

fn power(w: &mut Wiring<'_>, node: &NodeProto) -> Result<Value, String> {
    let (x, rank) = w.computed(node, 0)?;
    let exponent = one_number(w.known(node, 1)?, rank)?;
    if exponent == 2.0 {
        w.push(Op::Multiply, &[x, x], rank)
    } else if exponent == 0.5 {
        w.push(Op::Sqrt, &[x], rank)
    } else {
        Err(format!("the exponent {exponent} is not supported: expected 2 or 0.5"))
    }
}

/// The greater or the lesser of a value and a number.
fn bound(w: &mut Wiring<'_>, node: &NodeProto) -> Result<Value, String> {
    let ((x, rank), number) = match node.input.len() {
        2 => match (w.value(node, 0)?, w.value(node, 1)?) {
            (Value::Computed { id, rank }, Value::Known(number)) => ((id, rank), number),
            (Value::Known(number), Value::Computed { id, rank }) => ((id, rank), number),
            _ => return Err("expected a value that depends on the image and a constant".into()),
        },
        count => return Err(format!("{count} operands are not supported: expected two")),
    };
    let number = one_number(number, rank)?;
    let (low, high) = if node.op_type == "Max" { (number, f32::MAX) } else { (f32::MIN, number) };
    w.push(Op::Clip { low, high }, &[x], rank)
}

/// Of a constant that makes no dimensions where it meets a value of `rank`.
fn one_number(constant: Constant, rank: usize) -> Result<f32, String> {
    match &constant.values {
        _ if constant.shape.len() > rank => Err(format!("a constant of shape {:?} is not supported", constant.shape)),
        Values::Integers(integers) if matches!(integers.as_slice(), [-16..=16]) => Ok(integers[0] as f32),
        _ => constant.scalar(),
    }
}
