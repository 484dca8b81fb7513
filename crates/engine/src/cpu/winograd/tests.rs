#![allow(clippy::unwrap_used)] // a test fails by panicking

use proptest::prelude::*;

use super::*;
use crate::{
    cpu::{convolve::Dense, kernels::Level, tests::noise},
    plan::{Activation, Prologue},
};

/// To lines, from image, channel, row, column.
fn lines(values: &[f32], shape: Shape, n: usize) -> Vec<Line> {
    let area = area(shape);
    let mut lines = vec![Line::ZERO; blocks(shape.channels) * n * area];
    for (at, value) in values.iter().enumerate() {
        let (image, channel, pixel) = (at / area / shape.channels, at / area % shape.channels, at % area);
        lines[(channel / LANES * n + image) * area + pixel].0[channel % LANES] = *value;
    }
    lines
}

/// The definition, in f64: image, channel, row, column.
fn expected(c: &Convolution, shape: Shape, out: Shape, n: usize, x: &[f32], residual: &[f32]) -> Vec<f32> {
    let Window { height, width, stride } = c.window;
    let mut y = Vec::new();
    for at in 0..n * out.channels * area(out) {
        let (image, o) = (at / area(out) / out.channels, at / area(out) % out.channels);
        let (row, column) = (at % area(out) / out.width, at % out.width);
        let mut sum = f64::from(c.bias[o]);
        for (w, weight) in
            c.weight[o * shape.channels * height * width..][..shape.channels * height * width].iter().enumerate()
        {
            let r = (row * stride + w / width % height).wrapping_sub(c.padding.top);
            let col = (column * stride + w % width).wrapping_sub(c.padding.left);
            if r < shape.height && col < shape.width {
                let place = ((image * shape.channels + w / width / height) * shape.height + r) * shape.width + col;
                sum += f64::from(*weight) * f64::from(x[place]);
            }
        }
        let sum = sum + f64::from(*residual.get(at).unwrap_or(&0.0));
        y.push(if sum > 0.0 { sum as f32 } else { 0.25 * sum as f32 });
    }
    y
}

fn run(layer: impl Fn(&mut Scratch, Part<'_>), out: Shape, n: usize, x: &[Line], residual: &[Line]) -> Vec<Line> {
    let pixels = n * area(out);
    let mut y = vec![Line::ZERO; blocks(out.channels) * pixels];
    let panels = 0..blocks(out.channels).div_ceil(PANEL);
    layer(
        &mut Scratch::default(),
        Part { x, residual, images: n, pixels: 0..pixels, panels, out: y.chunks_exact_mut(pixels).collect() },
    );
    y
}

fn close(got: &[Line], expected: &[Line], tolerance: f32) -> bool {
    let largest = expected.iter().flat_map(|line| line.0).fold(1.0f32, |m, v| m.max(v.abs()));
    let near = |(a, b): (&Line, &Line)| a.0.iter().zip(b.0).all(|(a, b)| (a - b).abs() <= tolerance * largest);
    got.len() == expected.len() && got.iter().zip(expected).all(near)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn tiles_and_written_out_sums_give_the_definition(
        (height, width, padding) in (3usize..14, 3usize..40, 0usize..2),
        channels in prop_oneof![1usize..40, Just(32), Just(64)],
        channels_out in 1usize..70,
        n in 1usize..4,
        residual: bool,
        mean in prop_oneof![Just(None), Just(Some(0.0f32)), Just(Some(3.0)), Just(Some(30.0))],
        seed: u64,
    ) {
        let shape = Shape::new(channels, height, width);
        let out = Shape::new(channels_out, height + 2 * padding - 2, width + 2 * padding - 2);
        let mut c = Convolution {
            prologue: None,
            weight: noise(channels_out * channels * 9, seed),
            bias: noise(channels_out, seed ^ 1 << 20),
            border: None,
            window: Window::square(3, 1),
            padding: Edges::all(padding),
            groups: 1,
            residual,
            activation: Activation::Leaky(0.25),
        };
        // What is convolved has no mean; what is read has one for each channel, in its standard deviations, which a batch
        // norm takes away. The definition pads after that.
        let convolved = noise(n * channels * area(shape), seed ^ 1 << 30);
        let signs = noise(channels, seed ^ 1 << 50);
        let means: Vec<f32> = signs.iter().map(|v| 0.3 * mean.unwrap_or(0.0) * v.signum()).collect();
        let x: Vec<f32> =
            convolved.iter().enumerate().map(|(at, v)| 2.0 * v + means[at / area(shape) % channels]).collect();
        let (scale, shift) = (vec![0.5; channels], means.iter().map(|mean| -0.5 * mean).collect());
        let x = if mean.is_some() { x } else { convolved.clone() };
        let added = if residual { noise(n * channels_out * area(out), seed ^ 1 << 40) } else { vec![] };
        let want = lines(&expected(&c, shape, out, n, &convolved, &added), out, n);
        c.prologue = mean.map(|_| Prologue { value: 1, scale, shift });
        // What does not round has it in weights and bias, which differs at edges.
        let mut folded = c.clone();
        folded.fold_prologue(shape, out);
        prop_assert_eq!(folded.border.is_some(), padding > 0 && mean.is_some());
        let each = x.len() / n;
        let alone = lines(&x[..each], shape, 1);
        let (x, added) = (lines(&x, shape, n), lines(&added, out, n));
        for level in Level::available() {
            let may = channels.is_multiple_of(32);
            // In bf16 as exact whatever the mean; in f32 the mean's last places are lost.
            let exact = 2e-5 * (1.0 + 0.3 * mean.unwrap_or(0.0));
            for (bf16, tolerance) in [(false, exact), (true, 3e-2)].into_iter().take(1 + usize::from(may)) {
                let c = if bf16 { &c } else { &folded };
                let dense = Dense::new(c, shape, out, false, if bf16 { Factors::Bf16 } else { Factors::F32 });
                let y = run(|scratch, part| dense.run(level, scratch, part), out, n, &x, &added);
                prop_assert!(close(&y, &want, tolerance), "written out, {level:?}, bf16 {bf16}");
                for side in [2, 4] {
                    let tiles = Winograd::new(c, shape, out, side, bf16);
                    let y = run(|scratch, part| tiles.run(level, scratch, part), out, n, &x, &added);
                    prop_assert!(close(&y, &want, tolerance), "tiles of {side}, {level:?}, bf16 {bf16}");
                    if !residual {
                        let single = run(|scratch, part| tiles.run(level, scratch, part), out, 1, &alone, &[]);
                        let same = single.chunks(area(out)).zip(y.chunks(n * area(out))).all(|(a, b)| *a == b[..a.len()]);
                        prop_assert!(same, "alone differs from batched: tiles of {side}, {level:?}");
                    }
                }
            }
        }
    }
}
