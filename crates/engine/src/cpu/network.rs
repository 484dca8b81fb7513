//! One network, ready to run: a plan with its weights packed, and where its values lie.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    convolve::{Dense, Part, Scratch},
    depthwise::{Depthwise, Grouped},
    epilogue::slopes,
    kernels::{Factors, Level, Pass, TILE, Vector},
    layout::{LANES, Line, area, blocks, floats_mut, from_interleaved, lines, per_channel, to_planes},
    memory,
    method::{self, Method},
    ops::{self, Slide},
    prologue::{Prologue, Watched},
    winograd::Winograd,
};
use crate::{
    graph::{Edges, Shape, Window},
    plan::{Action, Arena, Plan},
};

/// What a layer does.
enum Layer {
    Dense(Dense),
    Winograd(Winograd),
    Depthwise(Depthwise),
    Grouped(Grouped),
    Affine {
        scale: Vec<Line>,
        shift: Vec<Line>,
    },
    Add {
        slope: Vec<Line>,
    },
    Activate {
        slope: Vec<Line>,
    },
    Clip {
        low: f32,
        high: f32,
    },
    Sigmoid,
    Sqrt,
    Reciprocal,
    /// Of two values of one shape.
    Multiply,
    Divide,
    /// By one factor for each channel of an image.
    Scale,
    MaxPool(Slide),
    AveragePool(Slide),
    Pad(Slide),
    Flatten,
    SumChannels,
    L2Norm,
    RepeatChannel,
}

struct Placed {
    layer: Layer,
    shape: Shape,
    out: Shape,
    /// Slots of the operands and of the result.
    inputs: Vec<usize>,
    output: usize,
    /// What it convolves, where int8 needs the range of it.
    watched: Option<Watched>,
}

pub struct Network {
    level: Level,
    layers: Vec<Placed>,
    input: Shape,
    /// The input is read as it comes: image, row, column, channel.
    interleaved: bool,
    output: Shape,
    output_slot: usize,
    /// Lines of each slot for one image; slot 0 is the input's.
    slots: Vec<usize>,
    /// Images that run together, at most.
    pub together: usize,
}

/// The memory that a run needs, kept from run to run.
#[derive(Default)]
pub struct Workspace {
    slots: Vec<Vec<Line>>,
    scratch: Vec<Scratch>,
}

impl Network {
    /// The error names what this executor does not do. [`memory::Held`] was checked.
    pub fn new(plan: Plan, level: Level, bf16: bool) -> Result<Self, &'static str> {
        let stem = plan.stem();
        let (interleaved, methods) = (method::interleaves(&plan), method::methods(&plan, bf16));
        let Arena { slot_of, slots } = memory::arena(&plan.steps, &plan.shapes, interleaved);
        let together = memory::together(&plan, &slots);
        let Plan { steps, shapes, output, .. } = plan;
        let input = shapes[0];
        // Only values that fusing removed have no slot, and no step reads those.
        let place = |id: usize| slot_of[id].unwrap_or_default();
        let mut layers = Vec::with_capacity(steps.len());
        for (at, (mut step, method)) in steps.into_iter().zip(methods).enumerate() {
            let (shape, out) = (shapes[step.inputs[0]], shapes[step.output]);
            let slide = |window, padding| Slide { shape, out, window, padding };
            let mut watched = None;
            if let Action::Convolution(c) = &mut step.action {
                watched = (stem != Some(at)).then(|| Watched {
                    value: c.convolved(step.inputs[0]),
                    prologue: c.prologue.as_ref().map(Prologue::new),
                });
                if (interleaved && step.inputs[0] == 0) || !method.is_some_and(Method::rounds) {
                    c.fold_prologue(shape, out);
                }
            }
            let layer = match step.action {
                Action::Convolution(c) if c.groups == 1 => {
                    let interleaved = interleaved && step.inputs[0] == 0;
                    match method.unwrap_or(Method::Dense(Factors::F32)) {
                        Method::Winograd { side, bf16 } => Layer::Winograd(Winograd::new(&c, shape, out, side, bf16)),
                        Method::Dense(factors) => Layer::Dense(Dense::new(&c, shape, out, interleaved, factors)),
                    }
                }
                Action::Convolution(c) if c.groups == shape.channels && c.bias.len() == shape.channels => {
                    Layer::Depthwise(Depthwise::new(c, shape, out))
                }
                Action::Convolution(c) => Layer::Grouped(Grouped::new(c, shape, out)),
                Action::Affine { scale, shift } => {
                    Layer::Affine { scale: per_channel(&scale), shift: per_channel(&shift) }
                }
                Action::Clip { low, high } => Layer::Clip { low, high },
                Action::Sigmoid => Layer::Sigmoid,
                Action::Sqrt => Layer::Sqrt,
                Action::Reciprocal => Layer::Reciprocal,
                Action::Divide => Layer::Divide,
                Action::SumChannels => Layer::SumChannels,
                Action::L2Norm => Layer::L2Norm,
                Action::RepeatChannel => Layer::RepeatChannel,
                Action::Multiply if shapes[step.inputs[1]] == shape => Layer::Multiply,
                Action::Multiply => Layer::Scale,
                Action::Activate(activation) => Layer::Activate { slope: slopes(&activation, out.channels) },
                Action::Add(activation) => Layer::Add { slope: slopes(&activation, out.channels) },
                Action::MaxPool { window, padding } => Layer::MaxPool(slide(window, padding)),
                Action::AveragePool { window } => Layer::AveragePool(slide(window, Edges::NONE)),
                Action::GlobalAveragePool => {
                    let window = Window { height: shape.height, width: shape.width, stride: 1 };
                    Layer::AveragePool(slide(window, Edges::NONE))
                }
                Action::Pad { edges } => Layer::Pad(slide(Window::square(1, 1), edges)),
                Action::Flatten => Layer::Flatten,
            };
            let inputs = step.inputs.iter().map(|&id| place(id)).collect();
            layers.push(Placed { layer, shape, out, inputs, output: place(step.output), watched });
        }
        let (output, output_slot) = (shapes[output], place(output));
        Ok(Self { level, layers, input, interleaved, output, output_slot, slots, together })
    }

    pub fn input_values(&self) -> usize {
        self.input.channels * area(self.input)
    }

    /// Of an image.
    pub fn output_values(&self) -> usize {
        self.output.channels * area(self.output)
    }

    /// Outputs of n images into `y`, one after the other; each in the order channel, row, column. `fill` writes the input:
    /// image, row, column, channel. `threads` share the work; they are those of the current pool.
    pub fn run(&self, work: &mut Workspace, n: usize, threads: usize, fill: impl FnOnce(&mut [f32]), y: &mut [f32]) {
        self.run_watched(work, n, threads, fill, y, |_, _| {});
    }

    /// As [`Self::run`]; `watch` sees each value whose range int8 needs and the lines that it is made of, with zeros in the
    /// place of channels that are not there.
    pub fn run_watched(
        &self,
        work: &mut Workspace,
        n: usize,
        threads: usize,
        fill: impl FnOnce(&mut [f32]),
        y: &mut [f32],
        mut watch: impl FnMut(&Watched, &[Line]),
    ) {
        work.slots.resize_with(self.slots.len().max(work.slots.len()), Vec::new);
        work.scratch.resize_with(threads.max(work.scratch.len()), Scratch::default);
        for (slot, &lines) in work.slots.iter_mut().zip(&self.slots) {
            slot.resize((lines * n).max(slot.len()), Line::ZERO);
        }
        let values = self.input_values() * n;
        if self.interleaved {
            fill(&mut floats_mut(&mut work.slots[0])[..values]);
        } else {
            let mut x = vec![0.0; values];
            fill(&mut x);
            from_interleaved(&x, self.input.channels, &mut work.slots[0][..lines(self.input) * n]);
        }
        for placed in &self.layers {
            let mut result = std::mem::take(&mut work.slots[placed.output]);
            let operand = |i: usize| placed.inputs.get(i).map_or(&[][..], |&slot| &work.slots[slot]);
            if let Some(watched) = &placed.watched {
                watch(watched, &operand(0)[..lines(placed.shape) * n]);
            }
            let out = &mut result[..lines(placed.out) * n];
            placed.run(self.level, &mut work.scratch[..threads], [operand(0), operand(1)], n, out);
            work.slots[placed.output] = result;
        }
        to_planes(&work.slots[self.output_slot], self.output, n, y);
    }
}

impl Placed {
    fn run(&self, level: Level, scratch: &mut [Scratch], [x, z]: [&[Line]; 2], n: usize, y: &mut [Line]) {
        let (before, after) = (area(self.shape) * n, area(self.out) * n);
        match &self.layer {
            Layer::Dense(dense) => return share(dense, level, scratch, x, z, n, after, y),
            Layer::Winograd(winograd) => return share(winograd, level, scratch, x, z, n, after, y),
            // These go across blocks.
            Layer::Flatten => return ops::flatten(x, self.shape, n, y),
            Layer::SumChannels => return ops::sum_channels(&x[..lines(self.shape) * n], y),
            Layer::L2Norm => return ops::l2_norm(&x[..lines(self.shape) * n], y),
            Layer::RepeatChannel => return ops::repeat_channel(&x[..before], self.out.channels, y),
            _ => {}
        }
        let block = |(block, y): (usize, &mut [Line])| {
            if let Layer::Grouped(grouped) = &self.layer {
                return grouped.run(block, x, n, z.get(block * after..(block + 1) * after).unwrap_or(&[]), y);
            }
            // Channels that a pad adds have no input.
            let x = x.get(block * before..(block + 1) * before).filter(|_| block < blocks(self.shape.channels));
            let Some(x) = x else { return y.fill(Line::ZERO) };
            // Factors of channels are a vector: a line for each image.
            let each = if let Layer::Scale = self.layer { n } else { after };
            let z = z.get(block * each..(block + 1) * each).unwrap_or(&[]);
            let lanes = self.shape.channels - block * LANES;
            level.run(Plain { layer: &self.layer, block, lanes, x, z, y });
        };
        if scratch.len() > 1 {
            y.par_chunks_exact_mut(after).enumerate().for_each(block);
        } else {
            y.chunks_exact_mut(after).enumerate().for_each(block);
        }
    }
}

/// A layer that computes each block of channels by itself.
struct Plain<'a> {
    layer: &'a Layer,
    block: usize,
    /// Channels from the block's first on.
    lanes: usize,
    x: &'a [Line],
    z: &'a [Line],
    y: &'a mut [Line],
}

impl Pass for Plain<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { layer, block, lanes, x, z, y } = self;
        match layer {
            Layer::Depthwise(depthwise) => depthwise.run::<V>(block, x, z, y),
            Layer::Affine { scale, shift } => ops::affine::<V>(x, &scale[block], &shift[block], y),
            Layer::Add { slope } => ops::sum::<V>(x, z, &slope[block], y),
            Layer::Activate { slope } => ops::activate::<V>(x, &slope[block], y),
            Layer::Clip { low, high } => ops::clip(x, *low, *high, lanes, y),
            Layer::Sigmoid => ops::sigmoid(x, lanes, y),
            Layer::Sqrt => ops::sqrt(x, lanes, y),
            Layer::Reciprocal => ops::reciprocal(x, lanes, y),
            Layer::Divide => ops::divide(x, z, lanes, y),
            Layer::Multiply => ops::multiply::<V>(x, z, y),
            Layer::Scale => ops::scale::<V>(x, z, y),
            Layer::MaxPool(slide) => slide.max_pool::<V>(x, y),
            Layer::AveragePool(slide) => slide.average_pool::<V>(x, y),
            Layer::Pad(slide) => slide.pad(x, y),
            Layer::Dense(_) | Layer::Winograd(_) | Layer::Grouped(_) => {}
            Layer::Flatten | Layer::SumChannels | Layer::L2Norm | Layer::RepeatChannel => {}
        }
    }
}

/// A convolution that threads share.
trait Shared: Sync {
    fn panels(&self) -> usize;
    /// Lines out of a panel.
    fn width(&self, panel: usize) -> usize;
    /// Pieces that its pixels can be cut into, and how many a thread should have at least.
    fn pieces(&self, pixels: usize, images: usize) -> (usize, usize);
    /// The first pixel of a piece.
    fn pixel(&self, piece: usize) -> usize;
    fn run(&self, level: Level, scratch: &mut Scratch, part: Part<'_>);
}

impl Shared for Dense {
    fn panels(&self) -> usize {
        self.panels()
    }

    fn width(&self, panel: usize) -> usize {
        self.width(panel)
    }

    fn pieces(&self, pixels: usize, _: usize) -> (usize, usize) {
        (pixels / self.piece(), (2 * TILE).div_ceil(self.piece()))
    }

    fn pixel(&self, piece: usize) -> usize {
        piece * self.piece()
    }

    fn run(&self, level: Level, scratch: &mut Scratch, part: Part<'_>) {
        self.run(level, scratch, part);
    }
}

impl Shared for Winograd {
    fn panels(&self) -> usize {
        self.panels()
    }

    fn width(&self, panel: usize) -> usize {
        self.width(panel)
    }

    fn pieces(&self, _: usize, images: usize) -> (usize, usize) {
        (images * self.rows(), 4)
    }

    fn pixel(&self, piece: usize) -> usize {
        self.pixel(piece)
    }

    fn run(&self, level: Level, scratch: &mut Scratch, part: Part<'_>) {
        self.run(level, scratch, part);
    }
}

/// Cuts a convolution into parts: by pixels as long as there are enough for everyone, else by channels out.
#[allow(clippy::too_many_arguments)] // they are one layer's operands
fn share(
    layer: &impl Shared,
    level: Level,
    scratch: &mut [Scratch],
    x: &[Line],
    residual: &[Line],
    images: usize,
    pixels: usize,
    y: &mut [Line],
) {
    let (threads, panels) = (scratch.len(), layer.panels());
    let (pieces, least) = layer.pieces(pixels, images);
    let across = (threads > 1 && (panels >= threads * 8 || pieces < least * threads)).then_some(threads.min(panels));
    let (rows, columns) = across.map_or((threads, 1), |columns| ((threads / columns).clamp(1, pieces), columns));
    let cut = |total: usize, parts: usize, i: usize| total * i / parts..total * (i + 1) / parts;
    let pixels_of = |row: usize| {
        let pieces = cut(pieces, rows, row);
        layer.pixel(pieces.start)..layer.pixel(pieces.end)
    };
    let mut parts: Vec<Part<'_>> = Vec::with_capacity(rows * columns);
    for i in 0..rows * columns {
        let (pixels, panels) = (pixels_of(i / columns), cut(panels, columns, i % columns));
        parts.push(Part { x, residual, images, pixels, panels, out: Vec::new() });
    }
    let mut planes = y.chunks_exact_mut(pixels);
    for column in 0..columns {
        let panels: Range<usize> = cut(panels, columns, column);
        for mut plane in planes.by_ref().take(panels.map(|panel| layer.width(panel)).sum()) {
            for row in 0..rows {
                let (part, rest) = plane.split_at_mut(pixels_of(row).len());
                parts[row * columns + column].out.push(part);
                plane = rest;
            }
        }
    }
    if threads == 1 {
        parts.into_iter().zip(scratch).for_each(|(part, scratch)| layer.run(level, scratch, part));
    } else {
        parts.into_par_iter().zip(scratch.par_iter_mut()).for_each(|(part, scratch)| layer.run(level, scratch, part));
    }
}
