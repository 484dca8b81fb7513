//! Operations without weights, and affine ones: kernels/net/{elementwise,pool,reduce,move}.cu.

use vultus_cuda::Error;

use super::{Activation, BLOCK, by_fours, on};
use crate::{
    cuda::{
        arguments::{self, ElementwiseKind as Kind, MoveKind, Operand, Slide},
        layout::{Constants, Layout, Place},
        place::{Here, Run},
    },
    graph::Edges,
    input::{Colour, Input},
    int8::Op,
    plan,
};

#[derive(Debug)]
pub enum Plain {
    Elementwise { kind: Kind, activation: Activation, channels: Option<[Place; 2]>, low: f32, high: f32 },
    Normalise { mean: [f32; 3], scale: f32, colour: [i32; 3] },
    Pool { slide: Slide, share: f32 },
    Reduce { squares: bool },
    Move { kind: MoveKind, top: usize, left: usize },
}

impl Plain {
    /// `None` for what is none of these; `inputs` are the operands.
    pub fn new(op: &Op, input: &Input, inputs: &[Layout], out: Layout, constants: &mut Constants) -> Option<Self> {
        let channels = out.shape().channels;
        let mut elementwise = |kind, activation: &plan::Activation| Self::Elementwise {
            kind,
            activation: Activation::new(activation, channels, constants),
            channels: None,
            low: 0.0,
            high: 0.0,
        };
        let identity = &plan::Activation::Identity;
        Some(match op {
            Op::Stem(_) | Op::Convolution(_) => return None,
            Op::Normalise => Self::Normalise {
                mean: input.mean,
                scale: input.scale,
                colour: match input.colour {
                    Colour::Rgb => [0, 1, 2],
                    Colour::Bgr => [2, 1, 0],
                },
            },
            Op::Affine { scale, shift } => Self::Elementwise {
                kind: Kind::Affine,
                activation: Activation::new(identity, channels, constants),
                channels: Some([constants.add_channels(scale), constants.add_channels(shift)]),
                low: 0.0,
                high: 0.0,
            },
            Op::Activate(activation) => elementwise(Kind::Activate, activation),
            Op::Clip { low, high } => Self::Elementwise {
                kind: Kind::Clip,
                activation: Activation::new(identity, channels, constants),
                channels: None,
                low: *low,
                high: *high,
            },
            Op::Sigmoid => elementwise(Kind::Sigmoid, identity),
            Op::Sqrt => elementwise(Kind::Sqrt, identity),
            Op::Reciprocal => elementwise(Kind::Reciprocal, identity),
            Op::Add(activation) => elementwise(Kind::Add, activation),
            Op::Multiply if inputs.get(1)?.shape() == inputs.first()?.shape() => elementwise(Kind::Multiply, identity),
            Op::Multiply => elementwise(Kind::MultiplyChannels, identity),
            Op::Divide => elementwise(Kind::Divide, identity),
            Op::SumChannels => Self::Reduce { squares: false },
            Op::L2Norm => Self::Reduce { squares: true },
            Op::RepeatChannel => Self::Move { kind: MoveKind::Repeat, top: 0, left: 0 },
            Op::MaxPool { window, padding } => Self::Pool { slide: Slide::new(*window, *padding), share: 0.0 },
            Op::AveragePool { window } => Self::Pool {
                slide: Slide::new(*window, Edges::NONE),
                share: 1.0 / (window.height * window.width) as f32,
            },
            Op::Pad { edges } => Self::Move { kind: MoveKind::Pad, top: edges.top, left: edges.left },
            Op::Flatten => Self::Move { kind: MoveKind::Flatten, top: 0, left: 0 },
        })
    }

    pub fn launch(&self, here: &Here<'_>, run: &Run<'_>) -> Result<(), Error> {
        let (result, x) = (here.result(), here.operand(0));
        match self {
            Self::Elementwise { kind, activation, channels, low, high } => {
                let [first, second] = channels.map_or([0, 0], |places| places.map(|place| here.constant(place)));
                let b = if here.operands() > 1 { here.operand(1) } else { Operand::NONE };
                let argument = arguments::Elementwise {
                    result,
                    a: x,
                    b,
                    activation: activation.argument(here),
                    first,
                    second,
                    low: *low,
                    high: *high,
                    kind: *kind as i32,
                    unused: 0,
                };
                run.launch("elementwise", by_fours(here), argument)
            }
            &Self::Normalise { mean, scale, colour } => run.launch(
                "normalise",
                by_fours(here),
                arguments::Normalise { result, x, mean, scale, colour, unused: 0 },
            ),
            &Self::Pool { slide, share } => {
                run.launch("pool", by_fours(here), arguments::Pool { result, x, slide, share })
            }
            &Self::Reduce { squares } => {
                let blocks = here.pixels().div_ceil(BLOCK as usize) as u32;
                let argument = arguments::Reduce { result, x, squares: i32::from(squares), unused: 0 };
                run.launch("reduce", on([blocks, 1], BLOCK, 0), argument)
            }
            &Self::Move { kind, top, left } => {
                let (top, left) = (top as i32, left as i32);
                run.launch(
                    "move",
                    by_fours(here),
                    arguments::Move { result, x, kind: kind as i32, top, left, unused: 0 },
                )
            }
        }
    }
}
