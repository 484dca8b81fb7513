//! An integer program as a device runs it: its steps, each with its constants, and where its tensors lie.

use vultus_cuda::Error;

use super::{
    arguments::MAX_EMITS,
    layout::{ALIGNMENT, Constants, Layout},
    ops::{Convolve, Grouped, Plain, Stem},
    place::{Addresses, Card, Here, Run, Stored},
};
use crate::{
    graph::Shape,
    int8::{Arena, How, Op, Program, Step, TensorId},
};

/// Pixels of a result of all images together, at most: kernels count them in 32 bits.
const MAX_PIXELS: usize = 1 << 30;

#[derive(Debug)]
enum Kind {
    Convolve(Convolve),
    Grouped(Grouped),
    Stem(Stem),
    Plain(Plain),
}

/// A step.
#[derive(Debug)]
pub struct Node {
    kind: Kind,
    inputs: Vec<TensorId>,
    stored: Vec<Stored>,
    out: Layout,
}

#[derive(Debug)]
pub struct DeviceProgram {
    nodes: Vec<Node>,
    layouts: Vec<Layout>,
    arena: Arena,
    output: TensorId,
}

impl DeviceProgram {
    /// Its constants come to those that are there.
    ///
    /// # Errors
    /// What the kernels do not do.
    pub fn new(program: &Program, constants: &mut Constants) -> Result<Self, &'static str> {
        let layouts: Vec<Layout> = program.tensors.iter().map(|&tensor| Layout::new(tensor)).collect();
        let nodes =
            program.steps.iter().map(|step| node(program, step, &layouts, constants)).collect::<Result<_, _>>()?;
        let arena = Arena::new(program, |id| layouts[id].bytes());
        Ok(Self { nodes, layouts, arena, output: program.output })
    }

    /// Images that can run together, whatever the memory.
    pub fn most_images(&self) -> usize {
        let area = |layout: &Layout| layout.shape().height * layout.shape().width;
        MAX_PIXELS / self.layouts.iter().map(area).max().unwrap_or(1).max(1)
    }

    /// Bytes of all tensors of so many images.
    pub fn bytes(&self, images: usize) -> usize {
        self.slots(images).1
    }

    /// Where each slot begins, and where the last ends.
    fn slots(&self, images: usize) -> (Vec<usize>, usize) {
        let mut end = 0;
        let mut starts = Vec::with_capacity(self.arena.slots.len());
        for bytes in &self.arena.slots {
            starts.push(end);
            end += (bytes * images).next_multiple_of(ALIGNMENT);
        }
        (starts, end)
    }

    /// Scratch of its convolutions, whichever methods are taken: bytes of parts of sums, and tickets.
    pub fn scratch(&self, images: usize, card: &Card<'_>) -> (usize, usize) {
        let of = |convolve: &Convolve| {
            convolve
                .methods(images, card)
                .into_iter()
                .map(|method| convolve.scratch(method, images))
                .collect::<Vec<_>>()
        };
        self.convolutions().flat_map(of).fold((0, 0), |most, of| (most.0.max(of.0), most.1.max(of.1)))
    }

    /// Its dense convolutions.
    pub fn convolutions(&self) -> impl Iterator<Item = &Convolve> {
        self.nodes.iter().filter_map(Node::convolution)
    }

    /// Bytes of an image's pixels, which lie at the start.
    pub fn input_bytes(&self) -> usize {
        self.layouts[0].bytes()
    }

    pub fn output(&self) -> Layout {
        self.layouts[self.output]
    }

    pub fn output_shape(&self) -> Shape {
        self.output().shape()
    }

    /// Where the output begins, bytes.
    pub fn output_at(&self, images: usize) -> usize {
        self.slots(images).0[self.arena.slot_of[self.output]]
    }

    /// Where everything is for so many images, if tensors lie from `base` on.
    pub fn addresses(&self, images: usize, constants: u64, base: u64) -> Addresses {
        let (starts, _) = self.slots(images);
        Addresses {
            images,
            constants,
            tensors: self.arena.slot_of.iter().map(|&slot| base + starts[slot] as u64).collect(),
        }
    }

    /// The steps, in their order.
    pub fn steps<'a>(&'a self, addresses: &'a Addresses) -> impl Iterator<Item = (&'a Node, Here<'a>)> {
        self.nodes.iter().map(|node| {
            let Node { inputs, stored, out, .. } = node;
            (node, Here { inputs, stored, out: *out, layouts: &self.layouts, addresses })
        })
    }

    /// Launches all of it.
    pub fn launch(&self, addresses: &Addresses, run: &Run<'_>) -> Result<(), Error> {
        self.steps(addresses).try_for_each(|(node, here)| node.launch(&here, run))
    }
}

impl Node {
    pub fn launch(&self, here: &Here<'_>, run: &Run<'_>) -> Result<(), Error> {
        match &self.kind {
            Kind::Convolve(convolve) => convolve.launch(here, run),
            Kind::Grouped(grouped) => grouped.launch(here, run),
            Kind::Stem(stem) => stem.launch(here, run),
            Kind::Plain(plain) => plain.launch(here, run),
        }
    }

    /// Where there are several ways to compute it.
    pub fn convolution(&self) -> Option<&Convolve> {
        match &self.kind {
            Kind::Convolve(convolve) => Some(convolve),
            Kind::Grouped(_) | Kind::Stem(_) | Kind::Plain(_) => None,
        }
    }
}

fn node(program: &Program, step: &Step, layouts: &[Layout], constants: &mut Constants) -> Result<Node, &'static str> {
    if step.emits.len() > MAX_EMITS {
        return Err("a value in more than eight representations");
    }
    let (Some(first), Some(&id)) = (step.emits.first(), step.inputs.first()) else {
        return Err("a step that reads or stores nothing");
    };
    let (x, out) = (layouts[id], layouts[first.tensor]);
    let inputs: Vec<Layout> = step.inputs.iter().map(|&id| layouts[id]).collect();
    let kind = match &step.op {
        Op::Stem(stem) => Kind::Stem(Stem::new(stem, out, constants)),
        Op::Convolution(c) => match Convolve::new(c, x, out, constants) {
            Some(convolve) => Kind::Convolve(convolve),
            None => Kind::Grouped(Grouped::new(c, x, out, constants)),
        },
        op => Kind::Plain(Plain::new(op, &program.input, &inputs, out, constants).ok_or("an operation")?),
    };
    let mut stored = |emit: &crate::int8::Emit| {
        let factors = match &emit.how {
            How::Codes { scale, shift } => Some([constants.add_channels(scale), constants.add_channels(shift)]),
            How::F16 | How::F32 => None,
        };
        Stored { tensor: emit.tensor, factors }
    };
    Ok(Node { kind, inputs: step.inputs.clone(), stored: step.emits.iter().map(&mut stored).collect(), out })
}
