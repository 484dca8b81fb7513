//! Operations without weights, and affine steps: a line of channels of one pixel at a time, in f32.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    emit::{Out, Part, cut, shares},
    epilogue::Curve,
    kernels::{Buffer, LINE, Lanes, Pass},
    layout::{Layout, Pixel, each_pixel, in_lines},
};
use crate::{
    cpu::kernels::Level,
    graph::{Edges, Shape, Window},
    input::Input,
    int8::{Form, Op, number},
};

/// Values that a thread should have at least.
const FEW: usize = 16 << 10;

#[derive(Debug)]
pub enum Plain {
    Normalise(Input),
    Affine {
        scale: Vec<[f32; LINE]>,
        shift: Vec<[f32; LINE]>,
    },
    Activate(Curve),
    Clip {
        low: f32,
        high: f32,
    },
    Sigmoid,
    Sqrt,
    Reciprocal,
    Add(Curve),
    Multiply,
    /// By a factor for each channel of an image.
    Scale,
    Divide,
    SumChannels,
    L2Norm,
    RepeatChannel,
    MaxPool {
        window: Window,
        padding: Edges,
    },
    AveragePool {
        window: Window,
    },
    Pad {
        edges: Edges,
    },
    Flatten,
}

/// What an operation reads.
#[derive(Debug, Clone, Copy)]
pub struct Operand<'a> {
    pub layout: Layout,
    pub buffer: &'a Buffer,
}

impl Operand<'_> {
    /// A line of the pixel that is the `number`th of all images.
    #[inline(always)]
    fn line<L: Lanes>(&self, number: usize, block: usize) -> L {
        let at = number * (self.layout.pitch / LINE) + block;
        match self.layout.form {
            Form::F16 => L::load_half(&self.buffer.halves().as_chunks().0[at]).mul(L::splat(self.layout.unit())),
            _ => L::load(&self.buffer.floats().as_chunks().0[at]),
        }
    }

    /// One value of it.
    #[inline(always)]
    fn value<L: Lanes>(&self, number: usize, channel: usize) -> f32 {
        self.line::<L>(number, channel / LINE).values()[channel % LINE]
    }

    /// The number of a pixel.
    #[inline(always)]
    fn number(&self, image: usize, row: usize, column: usize) -> usize {
        (image * self.layout.shape.height + row) * self.layout.shape.width + column
    }

    /// Red, green and blue of tensor 0.
    fn rgb(&self, pixel: Pixel) -> [u8; 3] {
        let at = self.layout.place(pixel) * self.layout.pitch;
        std::array::from_fn(|colour| match self.layout.bytes {
            true => self.buffer.bytes()[at + colour],
            false => (self.buffer.words()[at + colour] + 128) as u8,
        })
    }
}

impl Plain {
    /// `None` for convolutions. `shapes` are those of the operands and of the result.
    pub fn new(op: &Op, input: &Input, shapes: &[Shape], out: Shape) -> Option<Self> {
        Some(match op {
            Op::Stem(_) | Op::Convolution(_) => return None,
            Op::Normalise => Self::Normalise(input.clone()),
            Op::Affine { scale, shift } => Self::Affine { scale: in_lines(scale, 0.0), shift: in_lines(shift, 0.0) },
            Op::Activate(activation) => Self::Activate(Curve::new(activation, out.channels)),
            Op::Clip { low, high } => Self::Clip { low: *low, high: *high },
            Op::Sigmoid => Self::Sigmoid,
            Op::Sqrt => Self::Sqrt,
            Op::Reciprocal => Self::Reciprocal,
            Op::Add(activation) => Self::Add(Curve::new(activation, out.channels)),
            Op::Multiply if shapes.get(1) == Some(&out) => Self::Multiply,
            Op::Multiply => Self::Scale,
            Op::Divide => Self::Divide,
            Op::SumChannels => Self::SumChannels,
            Op::L2Norm => Self::L2Norm,
            Op::RepeatChannel => Self::RepeatChannel,
            Op::MaxPool { window, padding } => Self::MaxPool { window: *window, padding: *padding },
            Op::AveragePool { window } => Self::AveragePool { window: *window },
            Op::Pad { edges } => Self::Pad { edges: *edges },
            Op::Flatten => Self::Flatten,
        })
    }

    /// `operands` hold n images. `threads` of the current pool share the work.
    pub fn run(
        &self,
        level: Level,
        threads: usize,
        images: usize,
        out: Shape,
        operands: &[Operand<'_>],
        outs: Vec<Out<'_>>,
    ) {
        let Some(&x) = operands.first() else { return };
        let z = operands.get(1).copied().unwrap_or(x);
        let pixels = images * out.height * out.width;
        let threads = threads.min(pixels * out.channels / FEW).clamp(1, pixels);
        let rows: Vec<_> = shares(pixels, threads).collect();
        let parts = cut(outs, &rows, 1, 1, out.channels);
        let run = |part| level.run_lanes(Run { plain: self, x, z, out, part });
        if threads == 1 { parts.into_iter().for_each(run) } else { parts.into_par_iter().for_each(run) }
    }

    /// A line of the result, for the pixel that is the `number`th of all images.
    #[inline(always)]
    fn value<L: Lanes>(&self, [x, z]: [Operand<'_>; 2], pixel: Pixel, number: usize, block: usize) -> L {
        let line = || x.line::<L>(number, block);
        let each = |f: fn(f32) -> f32| L::load(&line().values().map(f));
        let channels = x.layout.shape.channels;
        let sum = |f: fn(f64) -> f64| {
            (0..channels).map(|channel| f(x.value::<L>(number, channel).into())).fold(0.0, |sum: f64, v| sum + v)
        };
        match self {
            Self::Normalise(input) => {
                let [a, b, c] = input.normalise(x.rgb(pixel));
                let mut line = [0.0; LINE];
                line[..3].copy_from_slice(&[a, b, c]);
                L::load(&line)
            }
            Self::Affine { scale, shift } => line().fma(L::load(&scale[block]), L::load(&shift[block])),
            Self::Activate(curve) => curve.apply(line(), block),
            Self::Clip { low, high } => L::load(&line().values().map(|v| number::clip(v, *low, *high))),
            Self::Sigmoid => each(number::sigmoid),
            Self::Sqrt => each(f32::sqrt),
            Self::Reciprocal => each(|v| 1.0 / v),
            Self::Add(curve) => curve.apply(line().add(z.line(number, block)), block),
            Self::Multiply => line().mul(z.line(number, block)),
            Self::Scale => line().mul(z.line(pixel.image, block)),
            Self::Divide => {
                let (a, b) = (line().values(), z.line::<L>(number, block).values());
                L::load(&std::array::from_fn(|lane| a[lane] / b[lane]))
            }
            Self::SumChannels => L::splat(sum(|v| v) as f32),
            Self::L2Norm => L::splat(sum(|v| v * v).sqrt() as f32),
            Self::RepeatChannel => L::splat(x.value::<L>(number, 0)),
            Self::MaxPool { window, padding } => {
                let start = L::splat(f32::NEG_INFINITY);
                under(*window, *padding, x, pixel, start, |most, at| x.line::<L>(at, block).max(most))
            }
            Self::AveragePool { window } => {
                let share = 1.0 / (window.height * window.width) as f32;
                let start = L::splat(0.0);
                let sum = under(*window, Edges::NONE, x, pixel, start, |sum, at| sum.add(x.line(at, block)));
                sum.mul(L::splat(share))
            }
            Self::Pad { edges } => {
                let (row, column) = (pixel.row.wrapping_sub(edges.top), pixel.column.wrapping_sub(edges.left));
                let Shape { height, width, .. } = x.layout.shape;
                if row >= height || column >= width || block * LINE >= channels {
                    return L::splat(0.0);
                }
                let mut line = x.line::<L>(x.number(pixel.image, row, column), block).values();
                line.iter_mut().skip(channels - block * LINE).for_each(|v| *v = 0.0);
                L::load(&line)
            }
            Self::Flatten => {
                let area = x.layout.shape.height * x.layout.shape.width;
                let value = |at: usize| x.value::<L>(pixel.image * area + at % area, at / area);
                let line = std::array::from_fn(|lane| block * LINE + lane);
                L::load(&line.map(|at| if at < channels * area { value(at) } else { 0.0 }))
            }
        }
    }
}

/// Folds the pixels under a window that lie inside of the image, row by row.
#[inline(always)]
fn under<L: Lanes>(
    window: Window,
    padding: Edges,
    x: Operand<'_>,
    Pixel { image, row, column }: Pixel,
    start: L,
    fold: impl Fn(L, usize) -> L,
) -> L {
    let Shape { height, width, .. } = x.layout.shape;
    let inside = |at: usize, edge: usize, kernel: usize, size: usize| -> Range<usize> {
        let end = (at * window.stride + kernel).saturating_sub(edge).min(size);
        (at * window.stride).saturating_sub(edge).min(end)..end
    };
    let mut v = start;
    for row in inside(row, padding.top, window.height, height) {
        for column in inside(column, padding.left, window.width, width) {
            v = fold(v, x.number(image, row, column));
        }
    }
    v
}

struct Run<'a, 'b> {
    plain: &'a Plain,
    x: Operand<'a>,
    z: Operand<'a>,
    out: Shape,
    part: Part<'b>,
}

impl Pass for Run<'_, '_> {
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { plain, x, z, out, mut part } = self;
        for (number, pixel) in part.pixels.clone().zip(each_pixel(out, part.pixels)) {
            for block in 0..out.channels.div_ceil(LINE) {
                let v = plain.value::<L>([x, z], pixel, number, block);
                part.outs.iter_mut().for_each(|out| out.store(&[v], &[pixel], block * LINE));
            }
        }
    }
}
