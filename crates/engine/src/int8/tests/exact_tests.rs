//! Small networks whose results are known exactly.

use super::{super::*, *};
use crate::{
    executor::ExecuteError,
    plan::{Activation, Border, RangeError},
};

const PLAIN: Window = Window::square(1, 1);

/// One that takes pixels as they are.
fn raw(height: usize, width: usize) -> Input {
    Input { mean: [0.0; 3], scale: 1.0, ..input(height, width) }
}

fn pixels(values: &[u8]) -> Pixels {
    Pixels::new((values.len() / 3) as u32, 1, values.to_vec()).unwrap()
}

/// A program of one row of pixels that normalises them, stores `first` and then does `op`, to F32 as everything in
/// `out` channels.
fn program(width: usize, scale: f32, first: Vec<(Form, How)>, op: Op, out: usize) -> Program {
    let shape = Shape::new(3, 1, width);
    let mut tensors = vec![Tensor { shape, form: Form::Pixels, exponent: 0 }];
    tensors.extend(first.iter().map(|&(form, _)| Tensor { shape, form, exponent: 0 }));
    tensors.push(Tensor { shape: Shape::new(out, 1, width), form: Form::F32, exponent: 0 });
    let output = tensors.len() - 1;
    let emits = first.into_iter().zip(1..).map(|((_, how), tensor)| Emit { tensor, how }).collect();
    let steps = vec![
        Step { op: Op::Normalise, inputs: vec![0], emits },
        Step { op, inputs: (1..output).collect(), emits: vec![Emit { tensor: output, how: How::F32 }] },
    ];
    Program { input: Input { scale, ..raw(1, width) }, tensors, steps, output }
}

/// Depthwise, each channel times its weight.
fn times(weight: [i8; 3], scale: f32, bias: f32, residual: bool, activation: Activation) -> Op {
    Op::Convolution(Convolution {
        weight: weight.to_vec(),
        scale: vec![scale; 3],
        bias: vec![bias; 3],
        window: PLAIN,
        padding: Edges::NONE,
        groups: 3,
        residual,
        activation,
    })
}

fn codes(scale: f32, shift: f32) -> How {
    How::Codes { scale: vec![scale; 3], shift: vec![shift; 3] }
}

#[test]
fn codes_end_where_they_do_and_ties_are_even() {
    let same = || times([1; 3], 1.0, 0.0, false, Activation::Identity);
    let image = pixels(&[0, 1, 2, 3, 4, 5, 253, 254, 255]);
    // Channel by channel: pixels 0, 3, 253, then 1, 4, 254, then 2, 5, 255.
    let run =
        |form, scale, shift| program(3, 1.0, vec![(form, codes(scale, shift))], same(), 3).run_oracle(&image).unwrap();
    assert_eq!(run(Form::U8, 0.5, 0.0), [0., 2., 126., 0., 2., 127., 1., 2., 128.]);
    assert_eq!(run(Form::U8, 2.0, -1.0), [0., 5., 255., 1., 7., 255., 3., 9., 255.]);
    assert_eq!(run(Form::S8, 0.5, 0.5), [0., 2., 127., 1., 2., 127., 2., 3., 127.]);
    assert_eq!(run(Form::S8, -1.0, -2.0), [-2., -5., -128., -3., -6., -128., -4., -7., -128.]);
}

#[test]
fn a_residual_is_added_before_the_activation() {
    let first = || vec![(Form::U8, codes(1.0, 0.0)), (Form::F16, How::F16)];
    let image = pixels(&[1, 2, 200]);
    let run = |scale, weight, activation| {
        program(1, scale, first(), times(weight, 0.5, 0.25, true, activation), 3).run_oracle(&image).unwrap()
    };
    // Half of the weight, a quarter, the pixel.
    assert_eq!(run(1.0, [-4, 2, -127], Activation::Identity), [-0.75, 4.25, -12499.75]);
    assert_eq!(run(1.0, [-4, 2, -127], Activation::Relu), [0.0, 4.25, 0.0]);
    assert_eq!(run(1.0, [-4, 2, -127], Activation::Leaky(0.5)), [-0.375, 4.25, -6249.875]);
    assert_eq!(run(1.0, [-4, 2, -127], Activation::PRelu(vec![2.0, 0.0, 0.0])), [-1.5, 4.25, -0.0]);
    // A residual of 200,000 is stored as 65504; the code of it is 255.
    assert_eq!(run(1000.0, [0, 0, 2], Activation::Identity), [1000.25, 2000.25, 65504.0 + 255.25]);
}

#[test]
fn halves_are_in_units() {
    let first = || vec![(Form::U8, codes(1.0, 0.0)), (Form::F16, How::F16)];
    let mut program = program(1, 1000.0, first(), times([0; 3], 0.5, 0.25, true, Activation::Identity), 3);
    program.tensors[2].exponent = 2;
    // In units of 4: of 1,000 and 2,001 no bit is lost, 200,000 is rounded as 50,000 is.
    program.input.mean = [0.0, -0.001, 0.0];
    let got = program.run_oracle(&pixels(&[1, 2, 200])).unwrap();
    assert_eq!(got, [1000.25, 2001.25, 4.0 * 49984.0 + 0.25]);
    program.tensors[2].exponent = 0;
    assert_eq!(program.run_oracle(&pixels(&[1, 2, 200])).unwrap()[2], 65504.25);
}

#[test]
fn sums_beyond_24_bits_are_rounded_half_to_even() {
    const WIDTH: usize = 176;
    let of = |sum_of_weights: usize| {
        let mut weight: Vec<i8> = (0..3 * WIDTH).map(|at| if at < sum_of_weights / 127 { 127 } else { 0 }).collect();
        weight[3 * WIDTH - 1] = (sum_of_weights % 127) as i8;
        let op = Op::Convolution(Convolution {
            weight,
            scale: vec![1.0],
            bias: vec![0.0],
            window: Window { height: 1, width: WIDTH, stride: 1 },
            padding: Edges::NONE,
            groups: 1,
            residual: false,
            activation: Activation::Identity,
        });
        let mut program = program(WIDTH, 1.0, vec![(Form::U8, codes(1.0, 0.0))], op, 1);
        program.tensors[2].shape = Shape::new(1, 1, 1);
        program.run_oracle(&pixels(&[255; 3 * WIDTH])).unwrap()
    };
    assert_eq!(of(65795), [16_777_724.0], "16,777,725 lies between two");
    assert_eq!(of(65797), [16_778_236.0], "16,778,235 too");
}

#[test]
fn padding_is_of_what_the_batch_norm_gives() {
    let (height, width) = (3, 4);
    let mut sketch = Sketch::new(Shape::new(3, height, width), 1);
    let eye = (0..9).map(|at| f32::from(u8::from(at % 4 == 0))).collect();
    let weight = sketch.given("eye", &[3, 3, 1, 1], eye);
    let x =
        sketch.push(GraphOp::Convolution { weight, bias: None, window: PLAIN, padding: Edges::NONE, groups: 1 }, &[0]);
    let x = sketch.push(GraphOp::Relu, &[x]);
    let (scale, shift) = (sketch.given("s", &[3], vec![1.0; 3]), sketch.given("t", &[3], vec![3.0; 3]));
    let x = sketch.push(GraphOp::Affine { scale, shift }, &[x]);
    let weight = sketch.given("ones", &[1, 3, 3, 3], vec![1.0; 27]);
    let window = Window::square(3, 1);
    sketch.push(GraphOp::Convolution { weight, bias: None, window, padding: Edges::all(1), groups: 1 }, &[x]);
    let input = raw(height, width);
    let ranges = [ActivationRange { value: 3, low: 0.0, high: 255.0 }];
    let program = lowered(&sketch.graph, &sketch.weights, &input, &ranges).unwrap();
    assert_eq!(program.steps.len(), 2);
    let image = Pixels::new(4, 3, (0..36).map(|v| v * 7 % 250).collect()).unwrap();
    let got = program.run_oracle(&image).unwrap();
    for (at, got) in got.iter().enumerate() {
        let (row, column) = (at / width, at % width);
        let near = |a: usize, b: usize| a.abs_diff(b) <= 1;
        let inside = (0..36).filter(|v| near(v / 3 / width, row) && near(v / 3 % width, column));
        let exact: usize = inside.map(|v| v * 7 % 250 + 3).sum();
        assert!((f64::from(*got) - exact as f64).abs() < 1e-3, "{got} {exact} at {row} {column}");
    }
}

/// A stem of whole weights, whose greatest is 16383: so its steps are 1 and every sum is exact.
#[test]
fn a_stems_border_is_exact() {
    let (height, width, out) = (5, 6, 4);
    for (colour, stride, prologue) in [(Colour::Rgb, 1, false), (Colour::Bgr, 2, false), (Colour::Rgb, 1, true)] {
        let mut sketch = Sketch::new(Shape::new(3, height, width), 1);
        let mut x = 0;
        let (by, plus) = if prologue { ([1.0, -1.0, 1.0], [5.0, 0.0, -7.0]) } else { ([1.0; 3], [0.0; 3]) };
        if prologue {
            let (scale, shift) = (sketch.given("s", &[3], by.to_vec()), sketch.given("t", &[3], plus.to_vec()));
            x = sketch.push(GraphOp::Affine { scale, shift }, &[0]);
        }
        let mut weights: Vec<f32> = noise(out * 27, 3).iter().map(|v| (v * 200.0).round()).collect();
        weights.iter_mut().step_by(27).for_each(|w| *w = 16383.0);
        let weight = sketch.given("w", &[out, 3, 3, 3], weights.clone());
        let bias = Some(sketch.given("b", &[out], vec![1.0, -2.0, 3.0, 0.0]));
        let (window, padding) = (Window::square(3, stride), Edges { top: 1, left: 2, bottom: 1, right: 0 });
        x = sketch.push(GraphOp::Convolution { weight, bias, window, padding, groups: 1 }, &[x]);
        let mean = [128.0, 100.0, 7.0];
        let input = Input { colour, mean, ..raw(height, width) };
        let program = lowered(&sketch.graph, &sketch.weights, &input, &[]).unwrap();
        assert!(matches!(program.steps.as_slice(), [Step { op: Op::Stem(_), .. }]));
        let image = image(&input, 9);
        let got = program.run_oracle(&image).unwrap();
        let Shape { height: rows, width: columns, .. } = sketch.shape(x);
        assert_eq!(got.len(), out * rows * columns);
        for (at, got) in got.iter().enumerate() {
            let (o, row, column) = (at / columns / rows, at / columns % rows, at % columns);
            let mut exact = [1, -2, 3, 0][o];
            for (place, w) in weights[o * 27..][..27].iter().enumerate() {
                let (channel, r, c) = (place / 9, row * stride + place / 3 % 3, column * stride + place % 3);
                let (Some(r), Some(c)) = (r.checked_sub(1), c.checked_sub(2)) else { continue };
                if r < height && c < width {
                    let colour = if colour == Colour::Bgr { 2 - channel } else { channel };
                    let v = i64::from(image.rgb8()[(r * width + c) * 3 + colour]) - mean[channel] as i64;
                    exact += *w as i64 * (by[channel] as i64 * v + plus[channel] as i64);
                }
            }
            assert_eq!(*got, exact as f32, "channel {o} at {row} {column}, {colour:?}");
        }
    }
}

#[test]
fn readers_share_what_they_read_alike() {
    let mut sketch = Sketch::new(Shape::new(3, 8, 8), 1);
    let x = sketch.convolve(0, 8, 3, 1, 1);
    let x = sketch.push(GraphOp::Relu, &[x]);
    let (a, b) = (sketch.convolve(x, 8, 3, 1, 1), sketch.convolve(x, 8, 1, 1, 1));
    let normal = sketch.batch_norm(x);
    let c = sketch.convolve(normal, 8, 1, 1, 1);
    let sum = sketch.push(GraphOp::Add, &[a, b]);
    let sum = sketch.push(GraphOp::Add, &[sum, c]);
    let sum = sketch.push(GraphOp::Add, &[sum, x]);
    sketch.push(GraphOp::GlobalAveragePool, &[sum]);
    // Nobody reads this.
    sketch.batch_norm(sum);
    sketch.graph.output = sum + 1;
    let input = input(8, 8);
    let (_, ranges) = observed(&sketch.graph, &sketch.weights, &input, &[image(&input, 1)]);
    let program = lowered(&sketch.graph, &sketch.weights, &input, &ranges).unwrap();
    let forms = |step: &Step| step.emits.iter().map(|emit| program.tensors[emit.tensor].form).collect::<Vec<_>>();
    // The stem's: codes for a and b, others behind the batch norm for c, and the sum's.
    assert_eq!(forms(&program.steps[0]).len(), 3);
    assert_eq!(forms(&program.steps[0]).iter().filter(|form| **form == Form::F16).count(), 1);
    let last = program.steps.last().unwrap();
    assert!(matches!(last.op, Op::AveragePool { window: Window { height: 8, width: 8, stride: 1 } }));
    assert_eq!(forms(last), [Form::F32]);
}

#[test]
fn what_cannot_be_exact_is_refused() {
    let wide = |count: usize, low: f32| {
        let mut sketch = Sketch::new(Shape::new(3, count, count), 1);
        let x = sketch.push(GraphOp::Flatten, &[0]);
        let weight = sketch.given("w", &[2, 3 * count * count], vec![0.5; 6 * count * count]);
        sketch.push(GraphOp::FullyConnected { weight, bias: None }, &[x]);
        let ranges = [ActivationRange { value: 1, low, high: 1.0 }];
        lowered(&sketch.graph, &sketch.weights, &input(count, count), &ranges).map(|_| ())
    };
    // 127 * 255 * 3 * 148 * 148 is just below 2^31, 149 just above.
    assert_eq!(wide(148, 0.0), Ok(()));
    let action = "convolution 1x1/1".to_string();
    assert_eq!(wide(149, 0.0), Err(LowerError::Overflow { step: 1, action, channel: 0 }));
    assert_eq!(wide(149, -1.0), Ok(()), "of 128");
    let stem = |side: usize, bias: f32| {
        let mut sketch = Sketch::new(Shape::new(3, 64, 64), 1);
        let weight = sketch.given("w", &[1, 3, side, side], vec![1.0; 3 * side * side]);
        let bias = Some(sketch.given("b", &[1], vec![bias]));
        let window = Window::square(side, 1);
        sketch.push(GraphOp::Convolution { weight, bias, window, padding: Edges::NONE, groups: 1 }, &[0]);
        lowered(&sketch.graph, &sketch.weights, &input(64, 64), &[]).map(|_| ())
    };
    assert_eq!(stem(18, 1e38), Ok(()));
    let refused = stem(19, 0.0).unwrap_err();
    assert!(matches!(refused, LowerError::Overflow { step: 0, .. }), "{refused}");
    let refused = stem(1, 3.2e38).unwrap_err();
    assert_eq!(refused.to_string(), "step 0 (convolution 1x1/1): what channel 0 gives may not be finite");
}

#[test]
fn what_is_missing_is_named() {
    let mut sketch = Sketch::new(Shape::new(3, 4, 4), 1);
    let x = sketch.convolve(0, 4, 1, 1, 1);
    let x = sketch.push(GraphOp::Sigmoid, &[x]);
    let (scale, shift) = (sketch.given("s", &[4], vec![3e38; 4]), sketch.given("t", &[4], vec![0.0; 4]));
    let x = sketch.push(GraphOp::Affine { scale, shift }, &[x]);
    sketch.convolve(x, 4, 1, 1, 4);
    let plan = Plan::new(&sketch.graph, &sketch.weights).unwrap();
    assert_eq!((plan.code_values(), plan.stem()), (vec![3], Some(0)));
    let refused = Program::new(&plan, &input(4, 4)).unwrap_err();
    assert_eq!(refused, LowerError::Ranges(RangeError::Missing(3)));
    let of = |ranges: &[ActivationRange]| lowered(&sketch.graph, &sketch.weights, &input(4, 4), ranges).unwrap_err();
    assert_eq!(of(&[]), LowerError::Ranges(RangeError::None));
    let refused = of(&[ActivationRange { value: 3, low: 0.0, high: 1.0 }]);
    assert_eq!(refused, LowerError::Scale(3), "3e38 * 255 is not finite");
    assert!(matches!(Program::new(&plan, &input(4, 5)), Err(LowerError::Input { .. })));
    let endless = Input { scale: f32::INFINITY, ..input(4, 4) };
    assert_eq!(Program::new(&plan, &endless), Err(LowerError::Normalisation));
    // Of the wrong size, or written by hand and wrong.
    let small = program(3, 1.0, vec![(Form::F16, How::F16)], Op::Sigmoid, 3);
    assert!(matches!(small.run_oracle(&pixels(&[1, 2, 3])), Err(ExecuteError::Size { .. })));
    let wrong = Program { steps: small.steps[1..].to_vec(), ..small.clone() };
    assert!(matches!(wrong.run_oracle(&pixels(&[0; 9])), Err(ExecuteError::Device(_))));
    let wrong = Program { output: 0, ..small };
    assert!(matches!(wrong.run_oracle(&pixels(&[0; 9])), Err(ExecuteError::Device(_))));
}

#[test]
fn a_stem_has_a_class_at_least() {
    let mut sketch = Sketch::new(Shape::new(3, 4, 4), 1);
    let weight = sketch.tensor(&[2, 3, 2, 2], |v| v);
    let window = Window::square(2, 2);
    sketch.push(GraphOp::Convolution { weight, bias: None, window, padding: Edges::NONE, groups: 1 }, &[0]);
    let program = lowered(&sketch.graph, &sketch.weights, &input(4, 4), &[]).unwrap();
    let Op::Stem(Stem { bias: Border { values, row_class, column_class, column_classes }, .. }) = &program.steps[0].op
    else {
        panic!("{:?}", program.steps[0].op)
    };
    assert_eq!((values.len(), &row_class[..], &column_class[..], *column_classes), (2, &[0, 0][..], &[0, 0][..], 1));
}
