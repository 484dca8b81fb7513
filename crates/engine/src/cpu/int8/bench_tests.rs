//! What convolutions of well-known networks reach, beside what the machine can do at most.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::{
    dense::Dense,
    emit::{Emission, Out},
    kernels::Buffer,
    layers_tests::Layer,
    layout::Layout,
    winograd::Winograd,
};
use crate::{
    cpu::kernels::Level,
    graph::{Edges, Shape, Window},
    int8::{Convolution, Form, How, Tensor, drawn_tests::Draw},
    plan::Activation,
};

/// How often, side of the image, channels in and out, side of the kernel, stride.
const IRESNET_50: [[usize; 6]; 18] = [
    [1, 112, 64, 64, 3, 1],
    [1, 112, 64, 64, 3, 2],
    [1, 112, 64, 64, 1, 2],
    [4, 56, 64, 64, 3, 1],
    [1, 56, 64, 128, 3, 1],
    [1, 56, 128, 128, 3, 2],
    [1, 56, 64, 128, 1, 2],
    [6, 28, 128, 128, 3, 1],
    [1, 28, 128, 256, 3, 1],
    [1, 28, 256, 256, 3, 2],
    [1, 28, 128, 256, 1, 2],
    [26, 14, 256, 256, 3, 1],
    [1, 14, 256, 512, 3, 1],
    [1, 14, 512, 512, 3, 2],
    [1, 14, 256, 512, 1, 2],
    [4, 7, 512, 512, 3, 1],
    [1, 7, 512, 512, 7, 1],
    [0, 1, 512, 128, 1, 1],
];

/// The same of dlib's network, the default.
const DEFAULT: [[usize; 6]; 9] = [
    [6, 35, 32, 32, 3, 1],
    [1, 36, 32, 64, 3, 2],
    [7, 18, 64, 64, 3, 1],
    [1, 18, 64, 128, 3, 2],
    [5, 9, 128, 128, 3, 1],
    [1, 8, 128, 256, 3, 2],
    [5, 4, 256, 256, 3, 1],
    [2, 4, 256, 256, 3, 2],
    [1, 1, 256, 128, 1, 1],
];

/// Weights as networks have them: near to normal, the largest of a filter 127.
fn weights(filters: usize, taps: usize, draw: &mut Draw) -> Vec<i8> {
    let mut weights = Vec::new();
    for _ in 0..filters {
        let filter: Vec<f32> = (0..taps).map(|_| draw.noises(6).iter().sum()).collect();
        let most = filter.iter().fold(1e-9f32, |most, w| most.max(w.abs()));
        weights.extend(filter.iter().map(|w| (w / most * 127.0).round() as i8));
    }
    weights
}

/// Of the processor, not of the wall, where there is one thread: others may take the core meanwhile.
fn seconds(alone: bool, mut work: impl FnMut()) -> f64 {
    let spent = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let mut once = || {
        let (start, before) = (Instant::now(), spent());
        work();
        if alone { (spent() - before).as_secs_f64() } else { start.elapsed().as_secs_f64() }
    };
    let first = once();
    (0..((0.1 / first) as usize).clamp(3, 200)).map(|_| once()).fold(first, f64::min)
}

#[test]
#[ignore = "a measurement"]
fn convolutions_beside_the_ceiling() {
    let most: usize = std::env::var("VULTUS_BENCH_THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(most).build().unwrap();
    for level in Level::available().into_iter().filter(|level| level.name() != "portable") {
        let mut done = 0;
        let ceiling = seconds(true, || done = level.multiply_codes_on_registers().unwrap());
        let ceiling = done as f64 / ceiling;
        println!("{level:?}, {most} threads, ceiling of one {:.0} GOP/s", ceiling / 1e9);
        for (name, layers, images) in [
            ("IResNet-50", &IRESNET_50[..], 1),
            ("IResNet-50", &IRESNET_50[..], 8),
            ("the default network", &DEFAULT[..], 1),
            ("the default network", &DEFAULT[..], 8),
        ] {
            let mut total = 0.0;
            for &[count, side, channels, outs, kernel, stride] in layers {
                let mut draw = Draw::new(7);
                let whole = kernel == side && side > 1;
                let padding = if whole { Edges::NONE } else { Edges::all(kernel / 2) };
                let input = Shape::new(channels, side, side);
                let size = if whole { 1 } else { side.div_ceil(stride) };
                let out = Shape::new(outs, size, size);
                let layout = Layout::new(level, Tensor { shape: input, form: Form::S8, exponent: 0 }, padding);
                let convolution = Convolution {
                    weight: weights(outs, channels * kernel * kernel, &mut draw),
                    scale: vec![1e-4; outs],
                    bias: vec![0.0; outs],
                    window: Window::square(kernel, stride),
                    padding,
                    groups: 1,
                    residual: false,
                    activation: Activation::PRelu(vec![0.25; outs]),
                };
                let tiles = Winograd::applies(level, &convolution, layout, out)
                    && std::env::var_os("VULTUS_BENCH_WRITTEN_OUT").is_none();
                let mut scratch = vec![];
                let layer = if tiles {
                    Layer::Winograd(Winograd::new(level, &convolution, layout, out, 1.0))
                } else {
                    Layer::Dense(Dense::new(level, &convolution, layout, out, 1.0))
                };
                let how = How::Codes { scale: vec![1.0; outs], shift: vec![0.0; outs] };
                let emission = Emission::new(
                    &how,
                    Layout::new(level, Tensor { shape: out, form: Form::S8, exponent: 0 }, Edges::all(1)),
                );
                let (mut x, mut y) = (Buffer::default(), Buffer::default());
                x.grow(layout.room(images));
                if level.takes_bytes() {
                    x.bytes_mut().iter_mut().for_each(|code| *code = draw.below(256) as u8);
                } else {
                    x.words_mut().iter_mut().for_each(|code| *code = draw.below(256) as i16 - 128);
                }
                y.grow(emission.layout.room(images));
                let time = pool.install(|| {
                    seconds(most == 1, || match &layer {
                        Layer::Dense(dense) => {
                            dense.run(most, images, &x, None, vec![Out::new(&emission, images, &mut y)])
                        }
                        Layer::Winograd(winograd) => winograd.run(
                            most,
                            images,
                            (&x, None),
                            &mut scratch,
                            vec![Out::new(&emission, images, &mut y)],
                        ),
                    })
                });
                let operations = 2.0 * (images * out.height * out.width * convolution.weight.len()) as f64;
                total += count as f64 * time / images as f64;
                println!(
                    "batch {images} {count:2} x {input} -> {outs} {kernel}x{kernel}/{stride}: {:6.1} GOP/s, {:5.1} %, \
                     {:7.1} us an image",
                    operations / time / 1e9,
                    operations / time / ceiling / most as f64 * 100.0,
                    time / images as f64 * 1e6,
                );
            }
            println!("batch {images}: all convolutions of {name} but the first {:.2} ms an image", total * 1e3);
        }
    }
}
