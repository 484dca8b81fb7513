//! One program, ready to run: its weights packed, and where its tensors lie.

use super::{
    dense::Dense,
    depthwise::Depthwise,
    emit::{Emission, Out},
    kernels::{Buffer, LINE},
    layout::{Layout, Pixel},
    plain::{Operand, Plain},
    winograd::{Scratch, Winograd},
};
use crate::{
    cpu::kernels::Level,
    graph::{Edges, Shape},
    image::Pixels,
    int8::{Arena, Convolution, Emit, Op, Program, Step, Tensor},
};

/// Bytes of the largest tensor of the images that run together, at most, unless one image alone has more.
const MAX_TENSOR: usize = 3 << 19;
/// The same for a network of more than [`MANY_WEIGHTS`]: these come from memory once for all images that run together.
const MAX_TENSOR_OF_LARGE: usize = 8 << 20;
/// Bytes of weights that do not stay in a common L3 cache.
const MANY_WEIGHTS: usize = 24 << 20;
/// Images that run together, at most.
const MAX_TOGETHER: usize = 64;

#[derive(Debug)]
enum Layer {
    Dense(Dense),
    Winograd(Winograd),
    Depthwise(Depthwise),
    Plain(Plain),
}

#[derive(Debug)]
struct Placed {
    layer: Layer,
    out: Shape,
    /// Slots of the operands, and how they lie there.
    inputs: Vec<(usize, Layout)>,
    /// Those of what is stored.
    emissions: Vec<(usize, Emission)>,
}

/// A program on one instruction set.
#[derive(Debug)]
pub struct Network {
    level: Level,
    layers: Vec<Placed>,
    input: Layout,
    output: (usize, Layout),
    /// Bytes of each slot for one image; slot 0 is the input's.
    slots: Vec<usize>,
    /// Images that run together, at most.
    pub together: usize,
}

/// The memory that a run needs, kept from run to run. Wiped when it is dropped.
#[derive(Debug, Default)]
pub struct Workspace {
    slots: Vec<Buffer>,
    scratch: Vec<Scratch>,
}

impl Network {
    /// The error names what this executor does not do: programs that [`Program::new`] would not make.
    pub fn new(program: &Program, level: Level) -> Result<Self, &'static str> {
        if !level.is_exact() {
            return Err("AMX on this machine: its sums are wrong");
        }
        let layouts = layouts(program, level);
        let arena = Arena::new(program, |id| layouts[id].elements(1) * layouts[id].size());
        let mut layers = Vec::with_capacity(program.steps.len());
        for step in &program.steps {
            let Some(first) = step.emits.first() else { return Err("a step that stores nothing") };
            let out = program.tensors[first.tensor].shape;
            let inputs: Vec<_> = step.inputs.iter().map(|&id| (arena.slot_of[id], layouts[id])).collect();
            let Some(&(_, layout)) = inputs.first() else { return Err("a step that reads nothing") };
            let shapes: Vec<Shape> = inputs.iter().map(|(_, layout)| layout.shape).collect();
            let unit = inputs.get(1).map_or(1.0, |(_, layout)| layout.unit());
            let layer = match &step.op {
                Op::Stem(stem) => Layer::Dense(Dense::stem(level, stem, layout, out)),
                Op::Convolution(c) if is_depthwise(c, layout.shape, out) => {
                    Layer::Depthwise(Depthwise::new(level, c, layout, out, unit))
                }
                Op::Convolution(c) if Winograd::applies(level, c, layout, out) => {
                    Layer::Winograd(Winograd::new(level, c, layout, out, unit))
                }
                Op::Convolution(c) => Layer::Dense(Dense::new(level, c, layout, out, unit)),
                op => Layer::Plain(Plain::new(op, &program.input, &shapes, out).ok_or("an operation")?),
            };
            let emission = |emit: &Emit| (arena.slot_of[emit.tensor], Emission::new(&emit.how, layouts[emit.tensor]));
            layers.push(Placed { layer, out, inputs, emissions: step.emits.iter().map(emission).collect() });
        }
        let output = (arena.slot_of[program.output], layouts[program.output]);
        let weights: usize = layers.iter().map(|placed| placed.layer.bytes()).sum();
        let largest = arena.slots.iter().copied().max().unwrap_or(1).max(1);
        let most = if weights > MANY_WEIGHTS { MAX_TENSOR_OF_LARGE } else { MAX_TENSOR };
        let together = (most / largest).clamp(1, MAX_TOGETHER);
        Ok(Self { level, layers, input: layouts[0], output, slots: arena.slots, together })
    }

    /// Bytes of a program's weights once they are packed, at most.
    pub fn packed(program: &Program, level: Level) -> usize {
        let layouts = layouts(program, level);
        let of_step = |step: &Step| {
            let (Some(&id), Some(emit)) = (step.inputs.first(), step.emits.first()) else { return 0 };
            let (layout, out) = (layouts[id], program.tensors[emit.tensor].shape);
            match &step.op {
                Op::Convolution(c) if is_depthwise(c, layout.shape, out) => {
                    size_of::<i32>() * c.weight.len() / out.channels * out.channels.next_multiple_of(LINE)
                }
                Op::Convolution(c) if Winograd::applies(level, c, layout, out) => Winograd::packed(level, layout, out),
                Op::Convolution(c) => Dense::packed(level, (c.window, c.groups), layout, out),
                // As two panels of bytes, or one of words.
                Op::Stem(stem) => 2 * Dense::packed(level, (stem.window, 1), layout, out),
                _ => 0,
            }
        };
        program.steps.iter().map(of_step).fold(0, usize::saturating_add)
    }

    /// Convolutions that go by Winograd's algorithm.
    #[cfg(test)]
    pub fn tiled(&self) -> usize {
        self.layers.iter().filter(|placed| matches!(placed.layer, Layer::Winograd(_))).count()
    }

    /// Bytes of packed weights.
    pub fn weights(&self) -> usize {
        self.layers.iter().map(|placed| placed.layer.bytes()).sum()
    }

    /// Bytes of the tensors of n images, and of scratch.
    pub fn workspace(&self, images: usize) -> usize {
        let scratch = self.layers.iter().map(|placed| placed.layer.scratch()).max().unwrap_or(0);
        self.slots.iter().map(|bytes| bytes * images + Layout::SLACK).sum::<usize>() + scratch
    }

    /// Values that it gives for an image.
    pub fn output_values(&self) -> usize {
        let Shape { channels, height, width } = self.output.1.shape;
        channels * height * width
    }

    /// The outputs of all images into `y`, one after the other; each in the order channel, row, column. Images are of the
    /// network's size, and as many as run together at most. `threads` of the current pool share the work.
    pub fn run(&self, work: &mut Workspace, threads: usize, images: &[&Pixels], y: &mut [f32]) {
        let (n, threads) = (images.len(), threads.max(1));
        work.slots.resize_with(self.slots.len().max(work.slots.len()), Buffer::default);
        for (slot, bytes) in work.slots.iter_mut().zip(&self.slots) {
            slot.grow(bytes * n + Layout::SLACK);
        }
        self.fill(&mut work.slots[0], images);
        for placed in &self.layers {
            let taken = |(slot, _): &(usize, Emission)| std::mem::take(&mut work.slots[*slot]);
            let mut taken: Vec<Buffer> = placed.emissions.iter().map(taken).collect();
            let outs = placed.emissions.iter().zip(&mut taken);
            let outs = outs.map(|((_, emission), buffer)| Out::new(emission, n, buffer)).collect();
            placed.run(self.level, [threads, n], &work.slots, &mut work.scratch, outs);
            for ((slot, _), buffer) in placed.emissions.iter().zip(taken) {
                work.slots[*slot] = buffer;
            }
        }
        // That of threads that were lent goes back with them.
        work.scratch.truncate(1);
        let (slot, layout) = self.output;
        let (values, Shape { channels, height, width }) = (work.slots[slot].floats(), layout.shape);
        let images =
            values.chunks_exact(height * width * layout.pitch).zip(y.chunks_exact_mut(channels * height * width));
        for (image, y) in images.take(n) {
            for (channel, y) in y.chunks_exact_mut(height * width).enumerate() {
                let plane = image.iter().skip(channel).step_by(layout.pitch);
                y.iter_mut().zip(plane).for_each(|(y, value)| *y = *value);
            }
        }
    }

    /// The pixels, as the first convolution reads them.
    fn fill(&self, buffer: &mut Buffer, images: &[&Pixels]) {
        let layout = &self.input;
        layout.surround(images.len(), buffer);
        let across = layout.shape.width * layout.pitch;
        for (image, pixels) in images.iter().enumerate() {
            for (row, from) in pixels.rgb8().chunks_exact(across).enumerate() {
                let at = layout.place(Pixel { image, row, column: 0 }) * layout.pitch;
                if layout.bytes {
                    buffer.bytes_mut()[at..][..across].copy_from_slice(from);
                } else {
                    let to = &mut buffer.words_mut()[at..][..across];
                    to.iter_mut().zip(from).for_each(|(to, &from)| *to = i16::from(from) - 128);
                }
            }
        }
    }
}

impl Layer {
    fn bytes(&self) -> usize {
        match self {
            Self::Dense(dense) => dense.bytes(),
            Self::Winograd(winograd) => winograd.bytes(),
            Self::Depthwise(depthwise) => depthwise.bytes(),
            Self::Plain(_) => 0,
        }
    }

    /// Bytes that each thread needs besides tensors.
    fn scratch(&self) -> usize {
        match self {
            Self::Winograd(winograd) => winograd.scratch(),
            Self::Dense(_) | Self::Depthwise(_) | Self::Plain(_) => 0,
        }
    }
}

impl Placed {
    fn run(
        &self,
        level: Level,
        [threads, images]: [usize; 2],
        slots: &[Buffer],
        scratch: &mut Vec<Scratch>,
        outs: Vec<Out<'_>>,
    ) {
        let operands: Vec<_> =
            self.inputs.iter().map(|&(slot, layout)| Operand { layout, buffer: &slots[slot] }).collect();
        let Some(x) = operands.first() else { return };
        let residual = operands.get(1).map(|operand| operand.buffer);
        match &self.layer {
            Layer::Dense(dense) => dense.run(threads, images, x.buffer, residual, outs),
            Layer::Winograd(winograd) => winograd.run(threads, images, (x.buffer, residual), scratch, outs),
            Layer::Depthwise(depthwise) => depthwise.run(threads, images, x.buffer, residual, outs),
            Layer::Plain(plain) => plain.run(level, threads, images, self.out, &operands, outs),
        }
    }
}

fn is_depthwise(c: &Convolution, shape: Shape, out: Shape) -> bool {
    c.groups == shape.channels && c.groups == out.channels && c.groups > 1
}

/// How each tensor lies: with a halo as wide as the paddings of all convolutions that read it.
fn layouts(program: &Program, level: Level) -> Vec<Layout> {
    let mut halos = vec![Edges::NONE; program.tensors.len()];
    for step in &program.steps {
        let padding = match &step.op {
            Op::Stem(stem) => stem.padding,
            Op::Convolution(c) => c.padding,
            _ => continue,
        };
        if let Some(halo) = step.inputs.first().and_then(|&id| halos.get_mut(id)) {
            halo.top = halo.top.max(padding.top);
            halo.left = halo.left.max(padding.left);
            halo.bottom = halo.bottom.max(padding.bottom);
            halo.right = halo.right.max(padding.right);
        }
    }
    let with = |(tensor, halo): (&Tensor, Edges)| Layout::new(level, *tensor, halo);
    program.tensors.iter().zip(halos).map(with).collect()
}
