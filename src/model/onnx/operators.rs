//! The operators, one function each: what ONNX says of them, in terms of the graph's operations.

use super::{
    attributes::Attributes,
    constant::{Constant, Values},
    proto::NodeProto,
    shapes,
    wire::{Value, Wiring},
};
use crate::model::graph::{Edges, Op, Shape, ValueId, Window};

/// What the node gives. Attributes that were not asked for are refused by the caller.
pub fn apply(w: &mut Wiring<'_>, node: &NodeProto, a: &Attributes<'_>) -> Result<Value, String> {
    match node.op_type.as_str() {
        "Conv" => convolution(w, node, a),
        "BatchNormalization" => batch_normalization(w, node, a),
        "PRelu" => p_relu(w, node),
        "Relu" => unary(w, node, Op::Relu),
        "Sigmoid" => unary(w, node, Op::Sigmoid),
        "LeakyRelu" => {
            let slope = a.float("alpha", 0.01)?;
            unary(w, node, Op::LeakyRelu { slope })
        }
        "Clip" => clip(w, node, a),
        "Add" | "Sub" | "Mul" | "Div" => arithmetic(w, node),
        "MaxPool" => max_pool(w, node, a),
        "AveragePool" => average_pool(w, node, a),
        "GlobalAveragePool" => {
            let (x, _) = w.computed(node, 0)?;
            w.push(Op::GlobalAveragePool, &[x], 4)
        }
        "ReduceMean" => reduce_mean(w, node, a),
        "Gemm" => gemm(w, node, a),
        "MatMul" => mat_mul(w, node),
        "Pad" => pad(w, node, a),
        "Identity" => w.value(node, 0),
        "Dropout" => dropout(w, node, a),
        "Constant" => constant(a),
        _ => shapes::apply(w, node, a),
    }
}

fn unary(w: &mut Wiring<'_>, node: &NodeProto, op: Op) -> Result<Value, String> {
    let (x, rank) = w.computed(node, 0)?;
    w.push(op, &[x], rank)
}

fn convolution(w: &mut Wiring<'_>, node: &NodeProto, a: &Attributes<'_>) -> Result<Value, String> {
    let (x, rank) = w.computed(node, 0)?;
    image(rank)?;
    let (shape, values) = w.known(node, 1)?.floats()?;
    let &[_, _, height, width] = shape.as_slice() else {
        return Err(format!("its weights have shape {shape:?}, expected O x C x H x W"));
    };
    a.only_all("dilations", 1)?;
    let groups = usize::try_from(a.int("group", 1)?).map_err(|_| "group is negative")?;
    let (window, padding) = window(a, w.shape(x), Some((height, width)))?;
    let weight = w.keep("weight", shape, values)?;
    let bias = match w.known_or_none(node, 2)? {
        Some(bias) => {
            let (shape, values) = bias.floats()?;
            Some(w.keep("bias", shape, values)?)
        }
        None => None,
    };
    w.push(Op::Convolution { weight, bias, window, padding, groups }, &[x], 4)
}

/// Kernel, stride and padding of what slides. `kernel`: the weights' height and width, where there are weights.
fn window(a: &Attributes<'_>, x: Shape, kernel: Option<(usize, usize)>) -> Result<(Window, Edges), String> {
    let number = |&v: &i64| usize::try_from(v).map_err(|_| format!("{v} is no size"));
    let list = |name: &'static str| -> Result<Option<Vec<usize>>, String> {
        a.ints(name)?.map(|list| list.iter().map(number).collect()).transpose()
    };
    let said = list("kernel_shape")?.map(|sides| match sides.as_slice() {
        &[height, width] => Ok((height, width)),
        _ => Err(format!("kernel_shape {sides:?} is not supported: expected two sides")),
    });
    let (height, width) = match (said.transpose()?, kernel) {
        (Some(said), Some(kernel)) if said != kernel => {
            return Err(format!("kernel_shape {said:?} is not that of its weights, {kernel:?}"));
        }
        (_, Some(kernel)) => kernel,
        (Some(said), None) => said,
        (None, None) => return Err("kernel_shape is missing".into()),
    };
    let stride = match list("strides")?.as_deref() {
        None => 1,
        Some(&[down, right]) if down == right => down,
        Some(other) => return Err(format!("strides {other:?} are not supported: expected two equal ones")),
    };
    let window = Window { height, width, stride };
    let pads = match list("pads")?.as_deref() {
        None => Edges::NONE,
        Some(&[top, left, bottom, right]) => Edges { top, left, bottom, right },
        Some(other) => return Err(format!("pads {other:?} are not supported: expected four")),
    };
    let padding = match a.word("auto_pad")?.as_str() {
        "" | "NOTSET" => pads,
        "VALID" => Edges::NONE,
        "SAME_UPPER" => Edges::same(x.height, x.width, window),
        other => return Err(format!("auto_pad {other:?} is not supported: expected NOTSET, VALID or SAME_UPPER")),
    };
    Ok((window, padding))
}

fn batch_normalization(w: &mut Wiring<'_>, node: &NodeProto, a: &Attributes<'_>) -> Result<Value, String> {
    let (x, rank) = w.computed(node, 0)?;
    a.only("training_mode", 0)?;
    a.only("spatial", 1)?;
    a.float("momentum", 0.9)?;
    let epsilon = f64::from(a.float("epsilon", 1e-5)?);
    let channels = w.shape(x).channels;
    let part = |index| match w.known(node, index)?.floats()? {
        (shape, values) if shape == [channels] => Ok(values),
        (shape, _) => Err(format!("its input {index} has shape {shape:?}, expected [{channels}]")),
    };
    let (gamma, beta, mean, variance) = (part(1)?, part(2)?, part(3)?, part(4)?);
    let scale: Vec<f64> =
        gamma.iter().zip(&variance).map(|(&g, &v)| f64::from(g) / (f64::from(v) + epsilon).sqrt()).collect();
    let shift =
        beta.iter().zip(&mean).zip(&scale).map(|((&b, &m), s)| (f64::from(b) - f64::from(m) * s) as f32).collect();
    affine(w, x, rank, scale.iter().map(|&s| s as f32).collect(), shift)
}

fn affine(w: &mut Wiring<'_>, x: ValueId, rank: usize, scale: Vec<f32>, shift: Vec<f32>) -> Result<Value, String> {
    let scale = w.keep("scale", vec![scale.len()], scale)?;
    let shift = w.keep("shift", vec![shift.len()], shift)?;
    w.push(Op::Affine { scale, shift }, &[x], rank)
}

fn p_relu(w: &mut Wiring<'_>, node: &NodeProto) -> Result<Value, String> {
    let (x, rank) = w.computed(node, 0)?;
    let mut slope = w.known(node, 1)?;
    let Shape { channels, width, .. } = w.shape(x);
    // Some exporters write C alone, which ONNX would align with the columns. Where these are as many, nobody can tell.
    if rank == 4 && channels > 1 && slope.shape == [channels] {
        if width == channels {
            return Err(format!("a slope of shape [{channels}] could be of channels or of columns"));
        }
        slope.shape = vec![channels, 1, 1];
    }
    let slope = per_channel(slope, rank, channels)?;
    let slope = w.keep("slope", vec![channels], slope)?;
    w.push(Op::PRelu { slope }, &[x], rank)
}

/// One value per channel from a constant that ONNX broadcasts over N x C x ...: all other dimensions must be 1.
fn per_channel(constant: Constant, rank: usize, channels: usize) -> Result<Vec<f32>, String> {
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

fn clip(w: &mut Wiring<'_>, node: &NodeProto, a: &Attributes<'_>) -> Result<Value, String> {
    let (low, high) = if w.opset < 11 {
        (a.float_or_none("min")?, a.float_or_none("max")?)
    } else {
        let bound = |index| w.known_or_none(node, index)?.map(Constant::scalar).transpose();
        (bound(1)?, bound(2)?)
    };
    // Infinite bounds, as some exporters write them, are none.
    let low = low.filter(|low| *low != f32::NEG_INFINITY).unwrap_or(f32::MIN);
    let high = high.filter(|high| *high != f32::INFINITY).unwrap_or(f32::MAX);
    unary(w, node, Op::Clip { low, high })
}

fn arithmetic(w: &mut Wiring<'_>, node: &NodeProto) -> Result<Value, String> {
    let op = node.op_type.as_str();
    match (w.value(node, 0)?, w.value(node, 1)?) {
        (Value::Computed { id: x, rank }, Value::Computed { id: y, rank: other }) => {
            let (sx, sy) = (w.shape(x), w.shape(y));
            match op {
                "Add" if rank == other => w.push(Op::Add, &[x, y], rank),
                "Mul" if rank == other && sx.is_vector() && !sy.is_vector() => w.push(Op::Multiply, &[y, x], rank),
                "Mul" if rank == other => w.push(Op::Multiply, &[x, y], rank),
                "Add" | "Mul" => Err(format!("operands of {rank} and {other} dimensions are not supported")),
                _ => Err("two values that depend on the image are not supported: expected one constant".into()),
            }
        }
        (Value::Computed { id, rank }, Value::Known(constant)) => {
            let (shape, channels) = (w.shape(id), w.shape(id).channels);
            let each = per_channel(constant, rank, channels)?;
            let (ones, zeros) = (vec![1.0; shape.channels], vec![0.0; shape.channels]);
            match op {
                "Add" => affine(w, id, rank, ones, each),
                "Sub" => affine(w, id, rank, ones, each.iter().map(|v| -v).collect()),
                "Mul" => affine(w, id, rank, each, zeros),
                _ => affine(w, id, rank, each.iter().map(|v| 1.0 / v).collect(), zeros),
            }
        }
        (Value::Known(constant), Value::Computed { id, rank }) => {
            let channels = w.shape(id).channels;
            let each = per_channel(constant, rank, channels)?;
            match op {
                "Add" => affine(w, id, rank, vec![1.0; channels], each),
                "Sub" => affine(w, id, rank, vec![-1.0; channels], each),
                "Mul" => affine(w, id, rank, each, vec![0.0; channels]),
                _ => Err("a constant divided by a value is not supported".into()),
            }
        }
        (Value::Known(x), Value::Known(y)) => shapes::fold(op, x, y).map(Value::Known),
    }
}

fn max_pool(w: &mut Wiring<'_>, node: &NodeProto, a: &Attributes<'_>) -> Result<Value, String> {
    let (x, _) = w.computed(node, 0)?;
    a.only_all("dilations", 1)?;
    a.only("storage_order", 0)?;
    let (window, padding) = window(a, w.shape(x), None)?;
    floor(a, w.shape(x), window, padding)?;
    w.push(Op::MaxPool { window, padding }, &[x], 4)
}

fn average_pool(w: &mut Wiring<'_>, node: &NodeProto, a: &Attributes<'_>) -> Result<Value, String> {
    let (mut x, _) = w.computed(node, 0)?;
    a.only_all("dilations", 1)?;
    let (window, padding) = window(a, w.shape(x), None)?;
    floor(a, w.shape(x), window, padding)?;
    let counts_padding = a.int("count_include_pad", 0)? == 1;
    if padding != Edges::NONE {
        if !counts_padding {
            return Err("padding that is left out of the mean (count_include_pad 0) is not supported".into());
        }
        if let Value::Computed { id, .. } = w.push(Op::PadSpatial { edges: padding }, &[x], 4)? {
            x = id;
        }
    }
    w.push(Op::AveragePool { window }, &[x], 4)
}

/// `ceil_mode` makes no difference where the last window ends at the edge.
fn floor(a: &Attributes<'_>, x: Shape, window: Window, padding: Edges) -> Result<(), String> {
    let even = |size: usize, pads: usize, kernel: usize| {
        size.saturating_add(pads).saturating_sub(kernel).is_multiple_of(window.stride.max(1))
    };
    let even = even(x.height, padding.top.saturating_add(padding.bottom), window.height)
        && even(x.width, padding.left.saturating_add(padding.right), window.width);
    if a.int("ceil_mode", 0)? == 0 || even { Ok(()) } else { Err("ceil_mode 1 is not supported: expected 0".into()) }
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

fn gemm(w: &mut Wiring<'_>, node: &NodeProto, a: &Attributes<'_>) -> Result<Value, String> {
    let (x, rank) = w.computed(node, 0)?;
    vector(rank)?;
    a.only("transA", 0)?;
    let (alpha, beta) = (a.float("alpha", 1.0)?, a.float("beta", 1.0)?);
    let weight = w.known(node, 1)?;
    let weight = if a.int("transB", 0)? == 0 { weight.transposed(&[1, 0])? } else { weight };
    let (shape, mut values) = weight.floats()?;
    let out = shape.first().copied().unwrap_or(0);
    if alpha != 1.0 {
        values.iter_mut().for_each(|v| *v *= alpha);
    }
    let weight = w.keep("weight", shape, values)?;
    let bias = match w.known_or_none(node, 2)? {
        Some(bias) => {
            let bias = per_channel(bias, 2, out)?.iter().map(|b| b * beta).collect();
            Some(w.keep("bias", vec![out], bias)?)
        }
        None => None,
    };
    w.push(Op::FullyConnected { weight, bias }, &[x], 2)
}

fn mat_mul(w: &mut Wiring<'_>, node: &NodeProto) -> Result<Value, String> {
    let (x, rank) = w.computed(node, 0)?;
    vector(rank)?;
    let (shape, values) = w.known(node, 1)?.transposed(&[1, 0])?.floats()?;
    let weight = w.keep("weight", shape, values)?;
    w.push(Op::FullyConnected { weight, bias: None }, &[x], 2)
}

fn pad(w: &mut Wiring<'_>, node: &NodeProto, a: &Attributes<'_>) -> Result<Value, String> {
    let (x, rank) = w.computed(node, 0)?;
    image(rank)?;
    let mode = a.word("mode")?;
    if !matches!(mode.as_str(), "" | "constant") {
        return Err(format!("mode {mode:?} is not supported: expected constant"));
    }
    let (pads, value) = if w.opset < 11 {
        (a.ints("pads")?.ok_or("pads are missing")?.to_vec(), a.float("value", 0.0)?)
    } else {
        let value = w.known_or_none(node, 2)?.map_or(Ok(0.0), Constant::scalar)?;
        (w.known(node, 1)?.integers()?, value)
    };
    if value != 0.0 || w.optional(node, 3)?.is_some() {
        return Err("padding by other values than zeros, or along chosen axes, is not supported".into());
    }
    let sizes: Option<Vec<usize>> = pads.iter().map(|&n| usize::try_from(n).ok()).collect();
    let Some(&[0, 0, top, left, 0, count, bottom, right]) = sizes.as_deref() else {
        return Err(format!("pads {pads:?} are not supported: expected zeros around images, or further channels"));
    };
    let edges = Edges { top, left, bottom, right };
    match (count, edges == Edges::NONE) {
        (0, true) => Ok(Value::Computed { id: x, rank }),
        (0, false) => w.push(Op::PadSpatial { edges }, &[x], 4),
        (_, true) => w.push(Op::PadChannels { count }, &[x], 4),
        (_, false) => {
            let padded = w.push(Op::PadSpatial { edges }, &[x], 4)?;
            let Value::Computed { id, .. } = padded else { return Ok(padded) };
            w.push(Op::PadChannels { count }, &[id], 4)
        }
    }
}

/// It does nothing outside of training. In training, which its third input says, it is no part of a network that
/// serves.
fn dropout(w: &mut Wiring<'_>, node: &NodeProto, a: &Attributes<'_>) -> Result<Value, String> {
    a.float("ratio", 0.5)?;
    a.int("seed", 0)?;
    if w.is_training(node, 2) {
        return Err("training_mode is not supported: expected false, as exporters write it for inference".into());
    }
    w.value(node, 0)
}

/// One that holds no tensor; tensors are kept where they are until they are used.
fn constant(a: &Attributes<'_>) -> Result<Value, String> {
    let known = |shape, values| Ok(Value::Known(Constant { shape, values }));
    if let Some(values) = a.ints("value_ints")? {
        return known(vec![values.len()], Values::Integers(values.to_vec()));
    }
    if let Some(values) = a.floats("value_floats")? {
        return known(vec![values.len()], Values::Floats(values.to_vec()));
    }
    match (a.float_or_none("value_float")?, a.int_or_none("value_int")?) {
        (Some(value), None) => known(vec![], Values::Floats(vec![value])),
        (None, Some(value)) => known(vec![], Values::Integers(vec![value])),
        _ => Err("its value is not supported: expected a tensor, floats or integers".into()),
    }
}

fn image(rank: usize) -> Result<(), String> {
    if rank == 4 { Ok(()) } else { Err(format!("takes an image of 4 dimensions, got {rank}")) }
}

fn vector(rank: usize) -> Result<(), String> {
    if rank == 2 { Ok(()) } else { Err(format!("takes a matrix of 2 dimensions, batch x features, got {rank}")) }
}
