//! The operators, one function each: what ONNX says of them, in terms of the graph's operations.

use super::{
    arithmetic::{self, affine, per_channel},
    attributes::Attributes,
    constant::{Constant, Values},
    proto::NodeProto,
    reduce, shapes,
    wiring::{Value, Wiring, image},
};
use crate::graph::{Edges, Op, Shape, ValueId, Window};

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
        "HardSigmoid" => hard_sigmoid(w, node, a),
        "HardSwish" => hard_swish(w, node),
        "MaxPool" => max_pool(w, node, a),
        "AveragePool" => average_pool(w, node, a),
        "GlobalAveragePool" => {
            let (x, rank) = w.computed(node, 0)?;
            image(rank)?;
            w.push(Op::GlobalAveragePool, &[x], 4)
        }
        "Gemm" => gemm(w, node, a),
        "MatMul" => mat_mul(w, node),
        "Pad" => pad(w, node, a),
        "Identity" => w.value(node, 0),
        "Dropout" => dropout(w, node, a),
        "Constant" => constant(a),
        "Add" | "Sub" | "Mul" | "Div" | "Sum" | "Sqrt" | "Reciprocal" | "Pow" | "Max" | "Min" => {
            arithmetic::apply(w, node)
        }
        op if op.starts_with("Reduce") => reduce::apply(w, node, a),
        "LpNormalization" => reduce::lp_normalization(w, node, a),
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
        // ONNX gives the two together no meaning.
        said @ ("VALID" | "SAME_UPPER") if pads != Edges::NONE => {
            return Err(format!("pads beside auto_pad {said} are not supported: expected one of the two"));
        }
        "VALID" => Edges::NONE,
        "SAME_UPPER" => Edges::same(x.height, x.width, window),
        other => return Err(format!("auto_pad {other:?} is not supported: expected NOTSET, VALID or SAME_UPPER")),
    };
    Ok((window, padding))
}

fn batch_normalization(w: &mut Wiring<'_>, node: &NodeProto, a: &Attributes<'_>) -> Result<Value, String> {
    let (x, rank) = w.computed(node, 0)?;
    a.only("training_mode", 0)?;
    // Until opset 8; of features it makes no difference.
    if a.int("spatial", 1)? != 1 && rank != 2 {
        return Err("spatial 0 of images is not supported: expected 1".into());
    }
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
    let id = affine(w, x, scale.iter().map(|&s| s as f32).collect(), shift)?;
    Ok(Value::Computed { id, rank })
}

fn p_relu(w: &mut Wiring<'_>, node: &NodeProto) -> Result<Value, String> {
    let (x, rank) = w.computed(node, 0)?;
    let mut slope = w.known(node, 1)?;
    let Shape { channels, width, .. } = w.shape(x);
    // Some exporters write C alone, which ONNX would align with the columns. Where these are as many, or a single one
    // that would become as many, nobody can tell.
    if rank == 4 && channels > 1 && slope.shape == [channels] {
        if width == channels || width == 1 {
            return Err(format!("a slope of shape [{channels}] could be of channels or of columns"));
        }
        slope.shape = vec![channels, 1, 1];
    }
    let slope = per_channel(slope, rank, channels)?;
    let slope = w.keep("slope", vec![channels], slope)?;
    w.push(Op::PRelu { slope }, &[x], rank)
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

/// `clip(alpha * x + beta, 0, 1)`.
fn hard_sigmoid(w: &mut Wiring<'_>, node: &NodeProto, a: &Attributes<'_>) -> Result<Value, String> {
    let (x, rank) = w.computed(node, 0)?;
    let (alpha, beta) = (a.float("alpha", 0.2)?, a.float("beta", 0.5)?);
    let gate = gate(w, x, alpha, beta)?;
    Ok(Value::Computed { id: gate, rank })
}

/// `x * clip(x / 6 + 1 / 2, 0, 1)`.
fn hard_swish(w: &mut Wiring<'_>, node: &NodeProto) -> Result<Value, String> {
    if w.opset < 14 {
        return Err(format!("opset {} does not know it: expected 14 or later", w.opset));
    }
    let (x, rank) = w.computed(node, 0)?;
    let gate = gate(w, x, 1.0 / 6.0, 0.5)?;
    w.push(Op::Multiply, &[x, gate], rank)
}

fn gate(w: &mut Wiring<'_>, x: ValueId, alpha: f32, beta: f32) -> Result<ValueId, String> {
    let channels = w.shape(x).channels;
    let line = affine(w, x, vec![alpha; channels], vec![beta; channels])?;
    w.append(Op::Clip { low: 0.0, high: 1.0 }, &[line])
}

fn max_pool(w: &mut Wiring<'_>, node: &NodeProto, a: &Attributes<'_>) -> Result<Value, String> {
    let (x, rank) = w.computed(node, 0)?;
    image(rank)?;
    a.only_all("dilations", 1)?;
    a.only("storage_order", 0)?;
    let (window, padding) = window(a, w.shape(x), None)?;
    floor(a, w.shape(x), window, padding)?;
    w.push(Op::MaxPool { window, padding }, &[x], 4)
}

fn average_pool(w: &mut Wiring<'_>, node: &NodeProto, a: &Attributes<'_>) -> Result<Value, String> {
    let (mut x, rank) = w.computed(node, 0)?;
    image(rank)?;
    a.only_all("dilations", 1)?;
    let (window, padding) = window(a, w.shape(x), None)?;
    floor(a, w.shape(x), window, padding)?;
    let counts_padding = a.int("count_include_pad", 0)? == 1;
    if padding != Edges::NONE {
        if !counts_padding {
            return Err("padding that is left out of the mean (count_include_pad 0) is not supported".into());
        }
        x = w.append(Op::PadSpatial { edges: padding }, &[x])?;
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
            let padded = w.append(Op::PadSpatial { edges }, &[x])?;
            w.push(Op::PadChannels { count }, &[padded], 4)
        }
    }
}

/// It does nothing outside of training. In training, which its third input says, it is no part of a network that
/// serves.
fn dropout(w: &mut Wiring<'_>, node: &NodeProto, a: &Attributes<'_>) -> Result<Value, String> {
    a.float("ratio", 0.5)?;
    a.int("seed", 0)?;
    if w.opset >= 12 {
        w.ask(1); // the ratio
        if w.is_training(node, 2) {
            return Err("training_mode is not supported: expected false, as exporters write it for inference".into());
        }
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

fn vector(rank: usize) -> Result<(), String> {
    if rank == 2 { Ok(()) } else { Err(format!("takes a matrix of 2 dimensions, batch x features, got {rank}")) }
}
