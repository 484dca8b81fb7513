//! One network, ready to run: a plan with its weights packed, and where its values lie.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    convolve::{Dense, Part, Scratch, slopes},
    depthwise::{Depthwise, Grouped},
    kernels::{Level, TILE, vectorised},
    layout::{LANES, Line, area, blocks, floats_mut, from_interleaved, lines, per_channel, to_planes},
    ops::{self, Slide},
};
use crate::model::{
    contract::Precision,
    graph::{Edges, Shape, Window},
    plan::{Action, Arena, Convolution, Plan, Step},
};

/// Bytes of the largest activation of the images that run together, at most, unless one image alone has more.
const MAX_ACTIVATION: usize = 4 << 20;
/// Images that run together, at most.
const MAX_TOGETHER: usize = 64;

/// What a layer does.
enum Layer {
    Dense(Dense),
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
    /// Of two values of one shape.
    Multiply,
    /// By one factor for each channel of an image.
    Scale,
    MaxPool(Slide),
    AveragePool(Slide),
    Pad(Slide),
    Flatten,
}

struct Placed {
    layer: Layer,
    shape: Shape,
    out: Shape,
    /// Slots of the operands and of the result.
    inputs: Vec<usize>,
    output: usize,
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
    /// `precision`: what convolutions compute in.
    ///
    /// # Errors
    /// With the precision itself, where this executor does not compute in it.
    pub fn new(plan: Plan, level: Level, precision: Precision) -> Result<Self, Precision> {
        if precision != Precision::F32 {
            return Err(precision);
        }
        let Plan { steps, shapes, output } = plan;
        let input = shapes[0];
        let dense = |c: &Convolution| c.groups == 1;
        let reads_input = |step: &&Step| step.inputs.contains(&0);
        // Few channels would leave most of a line empty.
        let interleaved = input.channels <= 4
            && output != 0
            && steps.iter().filter(reads_input).all(|step| {
                matches!(&step.action, Action::Convolution(c) if dense(c)) && step.inputs.get(1) != Some(&0)
            });
        let Arena { slot_of, slots } = Arena::new(&steps, shapes.len(), |id| match id {
            0 if interleaved => (shapes[0].channels * area(shapes[0])).div_ceil(LANES),
            id => lines(shapes[id]),
        });
        // Only values that fusing removed have no slot, and no step reads those.
        let place = |id: usize| slot_of[id].unwrap_or_default();
        let mut layers = Vec::with_capacity(steps.len());
        for step in steps {
            let (shape, out) = (shapes[step.inputs[0]], shapes[step.output]);
            let slide = |window, padding| Slide { shape, out, window, padding };
            let layer = match step.action {
                Action::Convolution(c) if c.groups == 1 => {
                    Layer::Dense(Dense::new(c, shape, out, interleaved && step.inputs[0] == 0))
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
            layers.push(Placed { layer, shape, out, inputs, output: place(step.output) });
        }
        let largest = slots.iter().max().map_or(1, |lines| lines * size_of::<Line>());
        let together = (MAX_ACTIVATION / largest.max(1)).clamp(1, MAX_TOGETHER);
        let (output, output_slot) = (shapes[output], place(output));
        Ok(Self { level, layers, input, interleaved, output, output_slot, slots, together })
    }

    pub fn input_values(&self) -> usize {
        self.input.channels * area(self.input)
    }

    /// Outputs of n images, one after the other; each in the order channel, row, column. `fill` writes the input: image,
    /// row, column, channel. `threads` share the work; they are those of the current pool.
    pub fn run(&self, work: &mut Workspace, n: usize, threads: usize, fill: impl FnOnce(&mut [f32])) -> Vec<f32> {
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
            let mut y = std::mem::take(&mut work.slots[placed.output]);
            let operand = |i: usize| placed.inputs.get(i).map_or(&[][..], |&slot| &work.slots[slot]);
            let out = &mut y[..lines(placed.out) * n];
            placed.run(self.level, &mut work.scratch[..threads], [operand(0), operand(1)], n, out);
            work.slots[placed.output] = y;
        }
        to_planes(&work.slots[self.output_slot], self.output, n)
    }
}

impl Placed {
    fn run(&self, level: Level, scratch: &mut [Scratch], [x, z]: [&[Line]; 2], n: usize, y: &mut [Line]) {
        let (before, after) = (area(self.shape) * n, area(self.out) * n);
        if let Layer::Dense(dense) = &self.layer {
            return share(dense, level, scratch, x, z, n, after, y);
        }
        if let Layer::Flatten = self.layer {
            return ops::flatten(x, self.shape, n, y);
        }
        let block = |(block, y): (usize, &mut [Line])| {
            if let Layer::Grouped(grouped) = &self.layer {
                let z = z.get(block * after..(block + 1) * after).unwrap_or(&[]);
                return vectorised(level, || grouped.run(block, x, n, z, y));
            }
            // Channels that a pad adds have no input.
            let x = x.get(block * before..(block + 1) * before).filter(|_| block < blocks(self.shape.channels));
            let Some(x) = x else { return y.fill(Line::ZERO) };
            let lanes = self.shape.channels - block * LANES;
            // Of a vector: a line for each image.
            let factors = z.get(block * n..(block + 1) * n).unwrap_or(&[]);
            let z = z.get(block * after..(block + 1) * after).unwrap_or(&[]);
            if let Layer::Depthwise(depthwise) = &self.layer {
                return depthwise.run(level, block, x, z, y);
            }
            vectorised(level, || match &self.layer {
                Layer::Multiply => ops::multiply(x, z, y),
                Layer::Scale => ops::scale(x, factors, y),
                Layer::Clip { low, high } => ops::clip(x, *low, *high, lanes, y),
                Layer::Sigmoid => ops::sigmoid(x, lanes, y),
                Layer::Affine { scale, shift } => ops::affine(x, &scale[block], &shift[block], y),
                Layer::Add { slope } => ops::sum(x, z, &slope[block], y),
                Layer::Activate { slope } => ops::activate(x, &slope[block], y),
                Layer::MaxPool(slide) => slide.max_pool(x, y),
                Layer::AveragePool(slide) => slide.average_pool(x, y),
                Layer::Pad(slide) => slide.pad(x, y),
                Layer::Dense(_) | Layer::Depthwise(_) | Layer::Grouped(_) | Layer::Flatten => {}
            });
        };
        if scratch.len() > 1 {
            y.par_chunks_exact_mut(after).enumerate().for_each(block);
        } else {
            y.chunks_exact_mut(after).enumerate().for_each(block);
        }
    }
}

/// Cuts a convolution into parts: by pixels as long as there are tiles for everyone, else by channels out.
#[allow(clippy::too_many_arguments)] // they are one layer's operands
fn share(
    dense: &Dense,
    level: Level,
    scratch: &mut [Scratch],
    x: &[Line],
    residual: &[Line],
    images: usize,
    pixels: usize,
    y: &mut [Line],
) {
    let threads = scratch.len();
    let across = (dense.panels() >= threads * 8 || pixels < 2 * TILE * threads).then_some(threads.min(dense.panels()));
    let (rows, columns) = across.map_or((threads, 1), |columns| ((threads / columns).clamp(1, pixels), columns));
    let cut = |total: usize, parts: usize, i: usize| total * i / parts..total * (i + 1) / parts;
    let mut parts: Vec<Part<'_>> = Vec::with_capacity(rows * columns);
    for i in 0..rows * columns {
        let (pixels, panels) = (cut(pixels, rows, i / columns), cut(dense.panels(), columns, i % columns));
        parts.push(Part { x, residual, images, pixels, panels, out: Vec::new() });
    }
    let mut planes = y.chunks_exact_mut(pixels);
    for column in 0..columns {
        let panels: Range<usize> = cut(dense.panels(), columns, column);
        for mut plane in planes.by_ref().take(panels.map(|panel| dense.width(panel)).sum()) {
            for row in 0..rows {
                let (part, rest) = plane.split_at_mut(cut(pixels, rows, row).len());
                parts[row * columns + column].out.push(part);
                plane = rest;
            }
        }
    }
    if threads == 1 {
        parts.into_iter().zip(scratch).for_each(|(part, scratch)| dense.run(level, scratch, part));
    } else {
        parts.into_par_iter().zip(scratch.par_iter_mut()).for_each(|(part, scratch)| dense.run(level, scratch, part));
    }
}
