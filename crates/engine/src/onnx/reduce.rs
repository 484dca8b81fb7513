//! Means, sums and lengths, and the normalisation that networks end with.

use super::{
    attributes::Attributes,
    constant::Dimension,
    proto::NodeProto,
    wiring::{Value, Wiring, image},
};
use crate::graph::{Op, ValueId};

pub fn apply(w: &mut Wiring<'_>, node: &NodeProto, a: &Attributes<'_>) -> Result<Value, String> {
    match node.op_type.as_str() {
        "ReduceMean" => reduce_mean(w, node, a),
        "ReduceL2" => {
            let (x, rank) = over_channels(w, node, a)?;
            w.push(Op::L2Norm, &[x], rank)
        }
        "ReduceSum" => {
            let (x, rank) = over_channels(w, node, a)?;
            w.push(Op::SumChannels, &[x], rank)
        }
        "ReduceSumSquare" => {
            let (x, rank) = over_channels(w, node, a)?;
            let squares = w.append(Op::Multiply, &[x, x])?;
            w.push(Op::SumChannels, &[squares], rank)
        }
        _ => Err("this operator is not known".into()),
    }
}

fn reduce_mean(w: &mut Wiring<'_>, node: &NodeProto, a: &Attributes<'_>) -> Result<Value, String> {
    let (x, rank) = w.computed(node, 0)?;
    image(rank)?;
    a.only("noop_with_empty_axes", 0)?;
    let keep = a.int("keepdims", 1)? != 0;
    let mut axes = match a.ints("axes")? {
        Some(axes) => axes.to_vec(),
        None => w.known(node, 1)?.integers()?,
    };
    axes.iter_mut().for_each(|axis| *axis = if *axis < 0 { axis.saturating_add(4) } else { *axis });
    axes.sort_unstable();
    if axes != [2, 3] {
        return Err(format!("a mean over the axes {axes:?} is not supported: expected height and width, 2 and 3"));
    }
    w.push(Op::GlobalAveragePool, &[x], if keep { 4 } else { 2 })
}

/// What is reduced, and how many dimensions are left.
fn over_channels(w: &Wiring<'_>, node: &NodeProto, a: &Attributes<'_>) -> Result<(ValueId, usize), String> {
    let (x, rank) = w.computed(node, 0)?;
    a.only("noop_with_empty_axes", 0)?;
    let keep = a.int("keepdims", 1)? != 0;
    let axes = match a.ints("axes")? {
        Some(axes) => Some(axes.to_vec()),
        None => w.known_or_none(node, 1)?.map(super::constant::Constant::integers).transpose()?,
    };
    let mut axes = axes.ok_or("axes are missing: the batch would be among them")?;
    axes.iter_mut().for_each(|axis| *axis = if *axis < 0 { axis.saturating_add(rank as i64) } else { *axis });
    axes.sort_unstable();
    // Of an image of one pixel, height and width may be among them.
    let all = rank == 4 && w.shape(x).is_vector() && axes == [1, 2, 3];
    if !(all || axes == [1] && matches!(rank, 2 | 4)) {
        return Err(format!(
            "the axes {axes:?} of N x {} in {rank} dimensions are not supported: expected the channels, 1",
            w.shape(x)
        ));
    }
    match (keep, rank) {
        (true, rank) => Ok((x, rank)),
        (false, rank) if all || rank == 2 => Ok((x, 1)),
        (false, _) => Err("keepdims 0 of images is not supported: expected 1".into()),
    }
}

/// `x / length(x)`; what has length 0 stays.
pub fn lp_normalization(w: &mut Wiring<'_>, node: &NodeProto, a: &Attributes<'_>) -> Result<Value, String> {
    // A length is 0 or at least this.
    const LEAST: f32 = f32::from_bits(1);
    let (x, rank) = w.computed(node, 0)?;
    match a.int("p", 2)? {
        2 => {}
        p => return Err(format!("p {p} is not supported: expected 2")),
    }
    let axis = a.int("axis", -1)?;
    if !matches!(rank, 2 | 4) || (axis != 1 && axis != 1 - rank as i64) {
        return Err(format!("axis {axis} of {rank} dimensions is not supported: expected the channels, 1"));
    }
    let norm = w.append(Op::L2Norm, &[x])?;
    let least = w.append(Op::Clip { low: LEAST, high: f32::MAX }, &[norm])?;
    let wide = w.append(Op::RepeatChannel { channels: w.shape(x).channels }, &[least])?;
    w.push(Op::Divide, &[x, wide], rank)
}

/// Broadcasts a value to a shape: one channel to many, or as it is.
pub fn expand(w: &mut Wiring<'_>, node: &NodeProto) -> Result<Value, String> {
    let (x, rank) = w.computed(node, 0)?;
    let target = w.known(node, 1)?.dimensions()?;
    let from = w.shape(x);
    let words = |dimension: &Dimension| match dimension {
        Dimension::Batch => "N".to_owned(),
        Dimension::Of(n) => n.to_string(),
    };
    let refused = || {
        let target: Vec<String> = target.iter().take(8).map(words).collect();
        format!(
            "N x {from} in {rank} dimensions to {} is not supported: expected N x channels x all others as they are",
            target.join(" x ")
        )
    };
    if target.len() > rank {
        return Err(refused());
    }
    let mut channels = from.channels;
    // Aligned at the end, as ONNX does.
    for (axis, &dimension) in (rank - target.len()..).zip(&target) {
        let own = [None, Some(from.channels), Some(from.height), Some(from.width)].get(axis).copied().flatten();
        match (dimension, own) {
            (Dimension::Batch, None) | (Dimension::Of(1), _) => {}
            (Dimension::Of(n), Some(own)) if usize::try_from(n) == Ok(own) => {}
            (Dimension::Of(n), Some(1)) if axis == 1 => {
                channels = usize::try_from(n).ok().filter(|&n| n > 0).ok_or_else(refused)?;
            }
            _ => return Err(refused()),
        }
    }
    if channels == from.channels {
        return Ok(Value::Computed { id: x, rank });
    }
    w.push(Op::RepeatChannel { channels }, &[x], rank)
}
