//! Operators that move no value: reshaping, and the arithmetic on shapes that exporters write for it. The batch's size
//! is not known: it is passed on as such, and `Reshape` alone reads it, as "as it was". Whatever would compute with it
//! is refused.

use super::{
    attributes::Attributes,
    constant::{Constant, Dimension, OF_THE_BATCH, Values, round_to_half},
    proto::NodeProto,
    reduce,
    wiring::{Value, Wiring},
};
use crate::graph::{Op, Shape, ValueId};

/// Integers in a list, at most: shapes and axes are short.
const MAX_LIST: usize = 64;

pub fn apply(w: &mut Wiring<'_>, node: &NodeProto, a: &Attributes<'_>) -> Result<Value, String> {
    match node.op_type.as_str() {
        "Flatten" => {
            let (x, rank) = w.computed(node, 0)?;
            match a.int("axis", 1)? {
                1 => flatten(w, x),
                axis if rank > 1 && axis == 1 - rank as i64 => flatten(w, x),
                axis => Err(format!("axis {axis} is not supported: expected 1")),
            }
        }
        "Reshape" => reshape(w, node, a),
        "Squeeze" => squeeze(w, node, a),
        "Unsqueeze" => unsqueeze(w, node, a),
        "Transpose" => transpose(w, node, a),
        "Shape" => {
            let (x, rank) = w.computed(node, 0)?;
            let Shape { channels, height, width } = w.shape(x);
            let sides = [channels, height, width].map(|n| Dimension::Of(n as i64));
            // A part of it, since opset 15.
            let place =
                |at: i64| (if at < 0 { at.saturating_add(rank as i64) } else { at }).clamp(0, rank as i64) as usize;
            let (start, end) = (place(a.int("start", 0)?), place(a.int("end", rank as i64)?));
            list([Dimension::Batch].into_iter().chain(sides).take(rank).take(end).skip(start).collect())
        }
        "Gather" => {
            a.only("axis", 0)?;
            let values = dimensions(w, node, 0)?;
            let index = w.known(node, 1)?;
            let scalar = index.shape.is_empty();
            let picked: Option<Vec<Dimension>> = (index.integers()?.iter())
                .map(|&i| values.get(usize::try_from(if i < 0 { i + values.len() as i64 } else { i }).ok()?).copied())
                .collect();
            let picked = picked.ok_or("its index lies outside of the list")?;
            let shape = if scalar { vec![] } else { vec![picked.len()] };
            Ok(Value::Known(Constant::of_dimensions(shape, picked)))
        }
        "Concat" => {
            a.only("axis", 0)?;
            let mut all = Vec::new();
            for index in 0..node.input.len() {
                all.extend(dimensions(w, node, index)?);
            }
            list(all)
        }
        "Cast" => cast(w, node, a),
        "Expand" => reduce::expand(w, node),
        _ => Err("this operator is not known".into()),
    }
}

/// A short list of integers. Not of what depends on the image.
fn dimensions(w: &Wiring<'_>, node: &NodeProto, index: usize) -> Result<Vec<Dimension>, String> {
    let values = match w.value(node, index)? {
        Value::Known(constant) => constant.dimensions()?,
        Value::Computed { .. } => return Err("it is supported for shapes alone, not for images or features".into()),
    };
    if values.len() > MAX_LIST { Err(format!("a shape of more than {MAX_LIST} numbers")) } else { Ok(values) }
}

fn list(values: Vec<Dimension>) -> Result<Value, String> {
    if values.len() > MAX_LIST {
        return Err(format!("a shape of more than {MAX_LIST} numbers"));
    }
    Ok(Value::Known(Constant::of_dimensions(vec![values.len()], values)))
}

fn flatten(w: &mut Wiring<'_>, x: ValueId) -> Result<Value, String> {
    // A vector is flat already.
    if w.shape(x).is_vector() {
        return Ok(Value::Computed { id: x, rank: 2 });
    }
    w.push(Op::Flatten, &[x], 2)
}

fn reshape(w: &mut Wiring<'_>, node: &NodeProto, a: &Attributes<'_>) -> Result<Value, String> {
    let target = w.known(node, 1)?;
    // 0 is "as it was", or in earnest an empty dimension, which no opset before 14 could say.
    match if w.opset < 14 { 0 } else { a.int("allowzero", 0)? } {
        0 => {}
        1 if !target.clone().dimensions()?.contains(&Dimension::Of(0)) => {}
        1 => return Err("allowzero 1 with a 0 in the target is not supported: the result would be empty".into()),
        other => return Err(format!("allowzero {other} is not supported: expected 0 or 1")),
    }
    let (x, rank) = match w.value(node, 0)? {
        Value::Computed { id, rank } => (id, rank),
        Value::Known(constant) => return reshaped(constant, &target.integers()?).map(Value::Known),
    };
    // The batch's size in its own place is what 0 says there: as it was.
    let mut target = target.dimensions()?;
    if let Some(batch @ Dimension::Batch) = target.first_mut() {
        *batch = Dimension::Of(0);
    }
    let target = Constant::of_dimensions(vec![target.len()], target).integers()?;
    let from = w.shape(x);
    let refused = || format!("a reshape of N x {from} to {target:?} is not supported: expected N x all others");
    let Some((&batch, rest)) = target.split_first().filter(|_| target.len() <= 4) else { return Err(refused()) };
    let dims = [from.channels, from.height, from.width];
    let mut sizes = Vec::with_capacity(rest.len());
    for (place, &n) in rest.iter().enumerate() {
        sizes.push(match n {
            0 if place < rank - 1 => Some(dims[place.min(2)]),
            -1 => None,
            n => Some(usize::try_from(n).map_err(|_| refused())?),
        });
    }
    let elements = from.elements().ok_or_else(refused)?;
    let known =
        sizes.iter().flatten().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n > 0).ok_or_else(refused)?;
    let open = sizes.iter().filter(|s| s.is_none()).count() + usize::from(batch == -1);
    if open > 1 || !(-1..=1).contains(&batch) || elements % known != 0 {
        return Err(refused());
    }
    let sizes: Vec<usize> = sizes.into_iter().map(|s| s.unwrap_or(elements / known)).collect();
    match sizes.as_slice() {
        &[features] if features == elements => flatten(w, x),
        &[c, 1, 1] if c == elements => match flatten(w, x)? {
            Value::Computed { id, .. } => Ok(Value::Computed { id, rank: 4 }),
            known @ Value::Known(_) => Ok(known),
        },
        same if same == dims => Ok(Value::Computed { id: x, rank: 4 }),
        _ => Err(refused()),
    }
}

fn reshaped(constant: Constant, target: &[i64]) -> Result<Constant, String> {
    let count: usize = constant.shape.iter().product();
    let refused = || format!("a constant of shape {:?} cannot become {target:?}", constant.shape);
    let known: Option<usize> =
        target.iter().enumerate().filter(|(_, n)| **n != -1).try_fold(1usize, |product, (i, &n)| {
            product.checked_mul(if n == 0 { *constant.shape.get(i)? } else { usize::try_from(n).ok()? })
        });
    let known = known.filter(|&n| n > 0 && count.is_multiple_of(n)).ok_or_else(refused)?;
    let shape: Vec<usize> = (target.iter().enumerate())
        .map(|(i, &n)| match n {
            -1 => count / known,
            0 => constant.shape.get(i).copied().unwrap_or(0),
            n => usize::try_from(n).unwrap_or(0),
        })
        .collect();
    if shape.len() > 4 || shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) != Some(count) {
        return Err(refused());
    }
    Ok(Constant { shape, ..constant })
}

/// `axes` of an attribute, or, since opset 13, of an input.
fn axes(w: &Wiring<'_>, node: &NodeProto, a: &Attributes<'_>) -> Result<Option<Vec<i64>>, String> {
    match a.ints("axes")? {
        Some(axes) => Ok(Some(axes.to_vec())),
        None => w.known_or_none(node, 1)?.map(Constant::integers).transpose(),
    }
}

fn squeeze(w: &mut Wiring<'_>, node: &NodeProto, a: &Attributes<'_>) -> Result<Value, String> {
    let axes = axes(w, node, a)?;
    match w.value(node, 0)? {
        Value::Known(constant) => {
            let rank = constant.shape.len() as i64;
            let gone = |i: usize| match &axes {
                Some(axes) => axes.iter().any(|&axis| axis == i as i64 || axis.checked_add(rank) == Some(i as i64)),
                None => true,
            };
            let said = |(i, d): (usize, &usize)| axes.is_some() && gone(i) && *d != 1;
            if constant.shape.iter().enumerate().any(said) {
                return Err(format!("a constant of shape {:?} has more than one value along {axes:?}", constant.shape));
            }
            let shape: Vec<usize> =
                constant.shape.iter().enumerate().filter(|(i, d)| !(gone(*i) && **d == 1)).map(|(_, &d)| d).collect();
            Ok(Value::Known(Constant { shape, ..constant }))
        }
        Value::Computed { id, rank } => {
            let mut axes = axes.ok_or("axes are missing: the batch could be squeezed")?;
            axes.iter_mut().for_each(|axis| *axis = if *axis < 0 { axis.saturating_add(rank as i64) } else { *axis });
            axes.sort_unstable();
            if rank != 4 || !w.shape(id).is_vector() || axes != [2, 3] {
                return Err(format!(
                    "axes {axes:?} of N x {} are not supported: expected height and width",
                    w.shape(id)
                ));
            }
            Ok(Value::Computed { id, rank: 2 })
        }
    }
}

fn unsqueeze(w: &mut Wiring<'_>, node: &NodeProto, a: &Attributes<'_>) -> Result<Value, String> {
    let axes = axes(w, node, a)?.ok_or("axes are missing")?;
    let (rank, known) = match w.value(node, 0)? {
        Value::Known(constant) => (constant.shape.len(), Some(constant)),
        Value::Computed { rank, .. } => (rank, None),
    };
    let all = (rank + axes.len().min(5)) as i64;
    let mut places: Vec<i64> =
        axes.iter().map(|&axis| if axis < 0 { axis.saturating_add(all) } else { axis }).collect();
    places.sort_unstable();
    places.dedup();
    if places.len() != axes.len() || all > 4 || places.iter().any(|place| !(0..all).contains(place)) {
        return Err(format!("axes {axes:?} are not supported"));
    }
    match known {
        Some(constant) => {
            let mut shape = constant.shape.clone();
            places.iter().for_each(|&place| shape.insert((place as usize).min(shape.len()), 1));
            Ok(Value::Known(Constant { shape, ..constant }))
        }
        None if rank == 2 && places == [2, 3] || rank == 1 && [&[1][..], &[1, 2, 3]].contains(&places.as_slice()) => {
            w.computed(node, 0).map(|(id, _)| Value::Computed { id, rank: all as usize })
        }
        None => Err(format!("axes {axes:?} are not supported: expected 2 and 3 of features")),
    }
}

fn transpose(w: &mut Wiring<'_>, node: &NodeProto, a: &Attributes<'_>) -> Result<Value, String> {
    let perm = a.ints("perm")?;
    let order = |rank: usize| -> Result<Vec<usize>, String> {
        let Some(perm) = perm else { return Ok((0..rank).rev().collect()) };
        perm.iter().map(|&axis| usize::try_from(axis).map_err(|_| "perm has a negative axis".into())).collect()
    };
    match w.value(node, 0)? {
        Value::Known(constant) => {
            let order = order(constant.shape.len())?;
            constant.transposed(&order).map(Value::Known)
        }
        Value::Computed { id, rank } => {
            let order = order(rank)?;
            if order.iter().copied().eq(0..rank) {
                return Ok(Value::Computed { id, rank });
            }
            Err(format!("perm {order:?} of images is not supported: expected N x C x H x W throughout"))
        }
    }
}

/// f16, as ONNX numbers types.
const HALF: i64 = 10;

/// Of what depends on the image, between floats: nothing to do, all is f32 here. Of integers: to integers alone.
fn cast(w: &mut Wiring<'_>, node: &NodeProto, a: &Attributes<'_>) -> Result<Value, String> {
    const FLOATS: [i64; 3] = [1, HALF, 11];
    const INTEGERS: [i64; 2] = [6, 7];
    let to = a.int("to", 0)?;
    match w.value(node, 0)? {
        Value::Known(Constant { values: Values::Integers(values), shape }) if FLOATS.contains(&to) => {
            floats(shape, values.iter().map(|&v| v as f32).collect(), to)
        }
        Value::Known(Constant { values: Values::Floats(values), shape }) if FLOATS.contains(&to) => {
            floats(shape, values, to)
        }
        value @ Value::Known(Constant { values: Values::Integers(_), .. }) if INTEGERS.contains(&to) => Ok(value),
        Value::Known(Constant { values: Values::Integers(_), .. }) => {
            Err(format!("a cast to type {to} is not supported"))
        }
        value @ Value::Known(Constant { values: Values::Dimensions(_), .. }) if INTEGERS.contains(&to) => Ok(value),
        Value::Known(Constant { values: Values::Dimensions(_), .. }) => Err(OF_THE_BATCH.into()),
        value if FLOATS.contains(&to) => Ok(value),
        _ => Err(format!("a cast to type {to} is not supported: expected floats")),
    }
}

/// A constant after a cast to a type of floats: of 16 bits it is rounded, as every other reader of the file does.
fn floats(shape: Vec<usize>, mut values: Vec<f32>, to: i64) -> Result<Value, String> {
    if to == HALF {
        values.iter_mut().for_each(|v| *v = round_to_half(*v));
        if !values.iter().all(|v| v.is_finite()) {
            return Err("a value of the constant is too large for 16 bits".into());
        }
    }
    Ok(Value::Known(Constant { shape, values: Values::Floats(values) }))
}

/// Arithmetic between two constants of one shape, or one of which is one value. What comes out has the shape that ONNX's
/// broadcasting gives: as many dimensions as the longer one has, those that are missing in front counting as 1.
pub fn fold(op: &str, x: Constant, y: Constant) -> Result<Constant, String> {
    if x.len() == 0 || y.len() == 0 {
        return Err("an empty constant".into());
    }
    let unequal = format!("constants of shapes {:?} and {:?} are not supported", x.shape, y.shape);
    let widest = if x.len() == 1 { &y.shape } else { &x.shape };
    if x.shape != y.shape && x.len() != 1 && y.len() != 1 {
        return Err(unequal);
    }
    let ones = x.shape.len().max(y.shape.len()) - widest.len();
    let shape: Vec<usize> = std::iter::repeat_n(1, ones).chain(widest.iter().copied()).collect();
    let (n, pick) = (x.len().max(y.len()), |i: usize, n: usize| if n == 1 { 0 } else { i });
    let values = match (x.values, y.values) {
        (Values::Floats(a), Values::Floats(b)) => {
            let apply = |a: f32, b: f32| match op {
                "Add" => a + b,
                "Sub" => a - b,
                "Mul" => a * b,
                _ => a / b,
            };
            let values: Vec<f32> = (0..n).map(|i| apply(a[pick(i, a.len())], b[pick(i, b.len())])).collect();
            if !values.iter().all(|v| v.is_finite()) {
                return Err("what it computes from constants is not finite".into());
            }
            Values::Floats(values)
        }
        (Values::Integers(_), Values::Integers(_)) if n > MAX_LIST => return Err(unequal),
        (Values::Integers(a), Values::Integers(b)) => {
            let apply = |a: i64, b: i64| match op {
                "Add" => a.checked_add(b),
                "Sub" => a.checked_sub(b),
                "Mul" => a.checked_mul(b),
                _ => a.checked_div(b),
            };
            let values: Option<_> = (0..n).map(|i| apply(a[pick(i, a.len())], b[pick(i, b.len())])).collect();
            Values::Integers(values.ok_or("what it computes from constants is too large, or divided by 0")?)
        }
        (Values::Dimensions(_), _) | (_, Values::Dimensions(_)) => return Err(OF_THE_BATCH.into()),
        _ => return Err("a constant of integers and one of floats are not supported".into()),
    };
    Ok(Constant { shape, values })
}
