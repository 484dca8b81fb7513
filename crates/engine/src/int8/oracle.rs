//! Runs a program as the specification says, one step after the other, on one thread: what all other executors are
//! held against. Plain loops, exact integers, and the operations of f32 as they are written.

use super::{
    number::{clip, from_f16, leaky, relu, sigmoid, to_f16, to_s8, to_u8},
    program::{Emit, Form, How, Op, Program, Step, TensorId},
};
use crate::{
    executor::ExecuteError,
    graph::{Edges, Shape, Window},
    image::Pixels,
    input::InputSize,
    plan::Activation,
};

/// A tensor's elements: channel, row, column.
#[derive(Debug, Clone, PartialEq)]
enum Data {
    /// Codes, or pixels less 128.
    Codes(Vec<i16>),
    F16(Vec<u16>),
    F32(Vec<f32>),
}

impl Program {
    /// What the network gives for one image: channel, row, column. Not always finite.
    ///
    /// # Errors
    /// [`ExecuteError::Size`] where the image is not of the network's size; [`ExecuteError::Device`] where the
    /// program was not made by [`Program::new`] and reads what it did not store.
    pub fn run_oracle(&self, image: &Pixels) -> Result<Vec<f32>, ExecuteError> {
        let expected = InputSize { width: self.input.width, height: self.input.height };
        let (width, height) = (image.width(), image.height());
        if (width, height) != (expected.width, expected.height) {
            return Err(ExecuteError::Size { index: 0, width, height, expected });
        }
        let mut stored: Vec<Option<Data>> = vec![None; self.tensors.len()];
        let last = self.last_reads();
        for (at, step) in self.steps.iter().enumerate() {
            let results = self.run_step(step, image, &stored)?;
            for (emit, data) in step.emits.iter().zip(results) {
                *stored.get_mut(emit.tensor).ok_or_else(|| missing(emit.tensor))? = Some(data);
            }
            step.inputs.iter().filter(|&&id| last.get(id) == Some(&at)).for_each(|&id| stored[id] = None);
        }
        match stored.get_mut(self.output).and_then(Option::take) {
            Some(Data::F32(values)) => Ok(values),
            _ => Err(missing(self.output)),
        }
    }

    /// The step that reads each tensor last; the output is kept.
    fn last_reads(&self) -> Vec<usize> {
        let mut last = vec![usize::MAX; self.tensors.len()];
        for (at, step) in self.steps.iter().enumerate() {
            for &id in &step.inputs {
                if let Some(last) = last.get_mut(id) {
                    *last = at;
                }
            }
        }
        if let Some(last) = last.get_mut(self.output) {
            *last = usize::MAX;
        }
        last
    }

    fn shape(&self, tensor: TensorId) -> Result<Shape, ExecuteError> {
        self.tensors.get(tensor).map(|tensor| tensor.shape).ok_or_else(|| missing(tensor))
    }

    /// What the step stores for each of its emits.
    fn run_step(&self, step: &Step, image: &Pixels, stored: &[Option<Data>]) -> Result<Vec<Data>, ExecuteError> {
        let mut out = None;
        for emit in &step.emits {
            out = Some(self.shape(emit.tensor)?);
        }
        let out = out.ok_or_else(|| missing(usize::MAX))?;
        let operand = |place: usize| {
            let id = *step.inputs.get(place).ok_or_else(|| missing(usize::MAX))?;
            let data = stored.get(id).and_then(Option::as_ref).ok_or_else(|| missing(id))?;
            Ok((data, self.shape(id)?))
        };
        let floats = |place: usize| {
            let (data, shape) = operand(place)?;
            match data {
                Data::F16(halves) => {
                    let unit = self.tensors[step.inputs[place]].unit();
                    Ok((halves.iter().map(|&half| from_f16(half) * unit).collect(), shape))
                }
                Data::F32(values) => Ok((values.clone(), shape)),
                Data::Codes(_) => Err(missing(step.inputs[place])),
            }
        };
        let v = match &step.op {
            Op::Normalise => planes(image, |rgb| self.input.normalise(rgb)).concat(),
            Op::Stem(stem) => {
                let pixels = planes(image, |rgb| rgb.map(|v| i16::from(v) - 128)).concat();
                let mut v = vec![0.0; area(out) * out.channels];
                let slide = Slide { x: self.shape(0)?, out, window: stem.window, padding: stem.padding };
                slide.convolve(&pixels, &stem.weight, 1, |channel, row, column, sum| {
                    let border = &stem.bias;
                    let class = usize::from(border.row_class[row]) * border.column_classes
                        + usize::from(border.column_class[column]);
                    let bias = border.values[class * out.channels + channel];
                    let result = (sum as f32).mul_add(stem.scale[channel], bias);
                    v[slide.place(channel, row, column)] = activate(result, &stem.activation, channel);
                });
                v
            }
            Op::Convolution(c) => {
                let (Data::Codes(codes), x) = operand(0)? else { return Err(missing(step.inputs[0])) };
                let residual = if c.residual { Some(floats(1)?.0) } else { None };
                let weight: Vec<i16> = c.weight.iter().map(|&w| w.into()).collect();
                let mut v = vec![0.0; area(out) * out.channels];
                let slide = Slide { x, out, window: c.window, padding: c.padding };
                slide.convolve(codes, &weight, c.groups, |channel, row, column, sum| {
                    let place = slide.place(channel, row, column);
                    let mut result = (sum as f32).mul_add(c.scale[channel], c.bias[channel]);
                    if let Some(residual) = &residual {
                        result += residual[place];
                    }
                    v[place] = activate(result, &c.activation, channel);
                });
                v
            }
            op => other(op, floats(0)?, || floats(1), out)?,
        };
        Ok(step.emits.iter().map(|emit| self.emit(emit, &v, area(out))).collect())
    }

    /// `area`: elements of each channel.
    fn emit(&self, emit: &Emit, v: &[f32], area: usize) -> Data {
        match &emit.how {
            How::F32 => Data::F32(v.to_vec()),
            How::F16 => {
                let inverse = self.tensors[emit.tensor].inverse_unit();
                Data::F16(v.iter().map(|&v| to_f16(v * inverse)).collect())
            }
            How::Codes { scale, shift } => {
                let unsigned = self.tensors[emit.tensor].form == Form::U8;
                let code = |z: f32| if unsigned { to_u8(z).into() } else { to_s8(z).into() };
                let channels = v.chunks_exact(area).zip(scale.iter().zip(shift));
                Data::Codes(
                    channels
                        .flat_map(|(v, (&scale, &shift))| v.iter().map(move |v| code(v.mul_add(scale, shift))))
                        .collect(),
                )
            }
        }
    }
}

fn missing(tensor: TensorId) -> ExecuteError {
    ExecuteError::Device(format!("tensor {tensor} of the program is not there, or in another form"))
}

fn area(shape: Shape) -> usize {
    shape.height * shape.width
}

/// Three planes of an image's pixels.
fn planes<T: Copy>(image: &Pixels, of: impl Fn([u8; 3]) -> [T; 3]) -> [Vec<T>; 3] {
    let pixels: Vec<[T; 3]> = image.rgb8().as_chunks::<3>().0.iter().map(|&rgb| of(rgb)).collect();
    [0, 1, 2].map(|channel| pixels.iter().map(|pixel| pixel[channel]).collect())
}

fn activate(v: f32, activation: &Activation, channel: usize) -> f32 {
    match activation {
        Activation::Identity => v,
        Activation::Relu => relu(v),
        Activation::Leaky(slope) => leaky(v, *slope),
        Activation::PRelu(slopes) => leaky(v, slopes[channel]),
    }
}

/// What slides over an image, from which shape to which.
#[derive(Clone, Copy)]
struct Slide {
    x: Shape,
    out: Shape,
    window: Window,
    padding: Edges,
}

impl Slide {
    /// Of an element of the result.
    fn place(&self, channel: usize, row: usize, column: usize) -> usize {
        (channel * self.out.height + row) * self.out.width + column
    }

    /// The elements of `x` under the window for the pixel (row, column), of the channels from `first` on: channel,
    /// row, column; where the window lies outside, none.
    fn under<T: Copy>(&self, x: &[T], first: usize, channels: usize, [row, column]: [usize; 2]) -> Vec<Option<T>> {
        let Self { x: shape, window, padding, .. } = *self;
        let mut found = Vec::with_capacity(channels * window.height * window.width);
        for channel in first..first + channels {
            for r in (0..window.height).map(|r| (row * window.stride + r).checked_sub(padding.top)) {
                for c in (0..window.width).map(|c| (column * window.stride + c).checked_sub(padding.left)) {
                    found.push(match (r, c) {
                        (Some(r), Some(c)) if r < shape.height && c < shape.width => {
                            Some(x[(channel * shape.height + r) * shape.width + c])
                        }
                        _ => None,
                    });
                }
            }
        }
        found
    }

    /// Gives `each` the sum of every element: channel, row, column, sum. `weight` is out x in/groups x height x
    /// width. No sum leaves 32 bits, whatever the order: that was proved when the program was made.
    fn convolve(&self, x: &[i16], weight: &[i16], groups: usize, mut each: impl FnMut(usize, usize, usize, i32)) {
        let (ins, outs) = (self.x.channels / groups, self.out.channels / groups);
        let filters = weight.len() / self.out.channels;
        for pixel in 0..area(self.out) {
            let (row, column) = (pixel / self.out.width, pixel % self.out.width);
            for group in 0..groups {
                let under = self.under(x, group * ins, ins, [row, column]);
                let under: Vec<i16> = under.into_iter().map(|code| code.unwrap_or(0)).collect();
                for (at, filter) in weight.chunks_exact(filters).skip(group * outs).take(outs).enumerate() {
                    let sum = under.iter().zip(filter).map(|(&x, &w)| i32::from(x) * i32::from(w)).sum();
                    each(group * outs + at, row, column, sum);
                }
            }
        }
    }

    /// For every element of the result, what `of` makes of the elements under the window in their order.
    fn pool(&self, x: &[f32], of: impl Fn(&mut dyn Iterator<Item = f32>) -> f32) -> Vec<f32> {
        let mut v = Vec::with_capacity(self.out.channels * area(self.out));
        for channel in 0..self.out.channels {
            for pixel in 0..area(self.out) {
                let under = self.under(x, channel, 1, [pixel / self.out.width, pixel % self.out.width]);
                v.push(of(&mut under.into_iter().flatten()));
            }
        }
        v
    }
}

/// Operations without weights, and affine steps. Those of no kind here are none.
fn other(
    op: &Op,
    (x, shape): (Vec<f32>, Shape),
    second: impl Fn() -> Result<(Vec<f32>, Shape), ExecuteError>,
    out: Shape,
) -> Result<Vec<f32>, ExecuteError> {
    let all = |f: &dyn Fn(f32) -> f32| x.iter().map(|&v| f(v)).collect();
    // With the channel of each.
    let channels =
        |f: &dyn Fn(usize, f32) -> f32| x.iter().enumerate().map(|(at, &v)| f(at / area(shape), v)).collect();
    let both = |f: &dyn Fn(f32, f32) -> f32| {
        let (y, _) = second()?;
        Ok(x.iter().zip(y).map(|(&a, b)| f(a, b)).collect::<Vec<f32>>())
    };
    // Of each pixel, its channels one after the other.
    let pixels = |f: &dyn Fn(&mut dyn Iterator<Item = f64>) -> f64| {
        let of = |at: usize| f(&mut x.iter().skip(at).step_by(area(shape)).map(|&v| f64::from(v))) as f32;
        (0..area(shape)).map(of).collect()
    };
    Ok(match op {
        Op::Normalise | Op::Stem(_) | Op::Convolution(_) => return Err(missing(usize::MAX)),
        Op::Affine { scale, shift } => channels(&|c, v| v.mul_add(scale[c], shift[c])),
        Op::Activate(activation) => channels(&|c, v| activate(v, activation, c)),
        Op::Clip { low, high } => all(&|v| clip(v, *low, *high)),
        Op::Sigmoid => all(&sigmoid),
        Op::Sqrt => all(&f32::sqrt),
        Op::Reciprocal => all(&|v| 1.0 / v),
        Op::Add(activation) => {
            let sums = both(&|a, b| a + b)?;
            sums.iter().enumerate().map(|(at, &v)| activate(v, activation, at / area(shape))).collect()
        }
        Op::Multiply => match second()? {
            (y, of) if of == shape => x.iter().zip(y).map(|(a, b)| a * b).collect(),
            (factors, _) => channels(&|c, v| v * factors[c]),
        },
        Op::Divide => both(&|a, b| a / b)?,
        Op::SumChannels => pixels(&|values| values.fold(0.0, |sum, v| sum + v)),
        Op::L2Norm => pixels(&|values| values.fold(0.0, |sum, v| sum + v * v).sqrt()),
        Op::RepeatChannel => x.repeat(out.channels),
        Op::MaxPool { window, padding } => {
            let slide = Slide { x: shape, out, window: *window, padding: *padding };
            slide.pool(&x, |values| values.fold(f32::NEG_INFINITY, |most, v| if v > most { v } else { most }))
        }
        Op::AveragePool { window } => {
            let slide = Slide { x: shape, out, window: *window, padding: Edges::NONE };
            let share = 1.0 / (window.height * window.width) as f32;
            slide.pool(&x, |values| values.fold(0.0, |sum, v| sum + v) * share)
        }
        Op::Pad { edges } => {
            let mut v = vec![0.0; out.channels * area(out)];
            for (at, &x) in x.iter().enumerate() {
                let (row, column) = (at / shape.width % shape.height, at % shape.width);
                v[(at / area(shape) * out.height + row + edges.top) * out.width + column + edges.left] = x;
            }
            v
        }
        Op::Flatten => x,
    })
}
