//! Where a step finds its operands, its constants and room for its results, when it is launched for a number of images.

#![allow(unsafe_code)]

use std::collections::BTreeMap;

use vultus_cuda::{Device, Error, Function, Launch, Stream, argument};

use super::{
    arguments::{self, Emit, MAX_EMITS, Operand, form},
    layout::{Layout, Place},
    tuning::Tuning,
};
use crate::int8::TensorId;

/// Addresses of a lane, for a number of images.
#[derive(Debug)]
pub struct Addresses {
    pub images: usize,
    pub constants: u64,
    /// Of each tensor.
    pub tensors: Vec<u64>,
}

/// A representation that a step stores; `factors` are the scale and shift of codes.
#[derive(Debug, Clone, Copy)]
pub struct Stored {
    pub tensor: TensorId,
    pub factors: Option<[Place; 2]>,
}

/// A step among them.
#[derive(Debug)]
pub struct Here<'a> {
    pub inputs: &'a [TensorId],
    pub stored: &'a [Stored],
    /// As the first of what is stored; all have its shape and pitch.
    pub out: Layout,
    pub layouts: &'a [Layout],
    pub addresses: &'a Addresses,
}

impl Here<'_> {
    pub fn images(&self) -> usize {
        self.addresses.images
    }

    /// Of the result, of all images.
    pub fn pixels(&self) -> usize {
        let shape = self.out.shape();
        self.images() * shape.height * shape.width
    }

    /// The same, elements.
    pub fn elements(&self) -> usize {
        self.pixels() * self.out.pitch
    }

    pub fn constant(&self, place: Place) -> u64 {
        self.addresses.constants + place.0 as u64
    }

    pub fn operands(&self) -> usize {
        self.inputs.len()
    }

    /// The operand of that number; none where there is none.
    pub fn operand(&self, number: usize) -> Operand {
        let Some(&id) = self.inputs.get(number) else { return Operand::NONE };
        let layout = self.layouts[id];
        let shape = layout.shape();
        Operand {
            data: self.addresses.tensors[id],
            form: form(layout.tensor.form),
            unit: layout.tensor.unit(),
            channels: shape.channels as i32,
            pitch: layout.pitch as i32,
            height: shape.height as i32,
            width: shape.width as i32,
        }
    }

    /// What is stored, of all images: where, and how many bytes.
    pub fn places(&self) -> impl Iterator<Item = (u64, usize)> {
        let of = |stored: &Stored| {
            (self.addresses.tensors[stored.tensor], self.layouts[stored.tensor].bytes() * self.images())
        };
        self.stored.iter().map(of)
    }

    pub fn result(&self) -> arguments::Result {
        let mut emits = [Emit::default(); MAX_EMITS];
        for (emit, stored) in emits.iter_mut().zip(self.stored) {
            let &Stored { tensor, factors } = stored;
            let [scale, shift] = factors.map_or([0, 0], |places| places.map(|place| self.constant(place)));
            let of = self.layouts[tensor].tensor;
            *emit = Emit {
                data: self.addresses.tensors[tensor],
                scale,
                shift,
                form: form(of.form),
                inverse: of.inverse_unit(),
            };
        }
        let shape = self.out.shape();
        arguments::Result {
            emits,
            count: self.stored.len() as i32,
            images: self.images() as i32,
            channels: shape.channels as i32,
            pitch: self.out.pitch as i32,
            height: shape.height as i32,
            width: shape.width as i32,
        }
    }
}

/// What is chosen by.
#[derive(Debug, Clone, Copy)]
pub struct Card<'a> {
    pub multiprocessors: usize,
    /// Whether it has kernels for Hopper.
    pub hopper: bool,
    pub tuning: &'a Tuning,
}

/// What launches go through.
#[derive(Debug)]
pub struct Run<'a> {
    pub device: &'a Device,
    pub stream: &'a Stream,
    pub functions: &'a BTreeMap<&'static str, Function>,
    pub card: Card<'a>,
    /// Scratch of convolutions whose tiles are shared.
    pub partial: u64,
    pub tickets: u64,
}

impl Run<'_> {
    pub fn launch<T: Copy>(&self, kernel: &str, launch: Launch, mut of: T) -> Result<(), Error> {
        let function = self.functions.get(kernel).ok_or_else(|| Error::Arguments {
            kernel: kernel.to_owned(),
            takes: vec![],
            given: vec![size_of::<T>()],
        })?;
        // SAFETY: the argument's addresses are those of the lane and the constants, which live as long as the graph that captures this, and are the
        // stream's alone; sizes of tensors and constants are those that the shapes in it say.
        unsafe { function.launch(self.stream, &launch, &mut [argument(&mut of)]) }
    }
}
