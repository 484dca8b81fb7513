//! How tensors and weights lie on the device: image, row, column, channel; the channels of a pixel rounded up to [`LINE`].

use crate::{
    graph::Shape,
    int8::{Form, Tensor},
};

/// Channels that lie together, and what weights and factors are filled up to: with zeros.
pub const LINE: usize = 16;
/// Where things begin, bytes.
pub const ALIGNMENT: usize = 256;

/// A tensor on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pub tensor: Tensor,
    /// Elements of a pixel.
    pub pitch: usize,
}

impl Layout {
    pub fn new(tensor: Tensor) -> Self {
        let channels = tensor.shape.channels;
        Self { tensor, pitch: if tensor.form == Form::Pixels { channels } else { channels.next_multiple_of(LINE) } }
    }

    pub fn shape(&self) -> Shape {
        self.tensor.shape
    }

    /// Elements of one image.
    pub fn elements(&self) -> usize {
        self.shape().height * self.shape().width * self.pitch
    }

    /// Bytes of one image.
    pub fn bytes(&self) -> usize {
        self.elements() * element(self.tensor.form)
    }
}

fn element(form: Form) -> usize {
    match form {
        Form::Pixels | Form::U8 | Form::S8 => 1,
        Form::F16 => 2,
        Form::F32 => 4,
    }
}

/// Where something lies among the constants: bytes from their start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(pub usize);

/// Weights, factors and the like of all networks, as they lie on the device.
#[derive(Debug, Default)]
pub struct Constants(Vec<u8>);

impl Constants {
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn add(&mut self, bytes: &[u8]) -> Place {
        let at = self.0.len().next_multiple_of(ALIGNMENT);
        self.0.resize(at, 0);
        self.0.extend_from_slice(bytes);
        Place(at)
    }

    /// A number for each channel, filled up with zeros.
    pub fn add_channels(&mut self, values: &[f32]) -> Place {
        let mut filled = values.to_vec();
        filled.resize(values.len().next_multiple_of(LINE), 0.0);
        self.add(bytemuck::cast_slice(&filled))
    }

    pub fn add_codes(&mut self, codes: &[i8]) -> Place {
        self.add(bytemuck::cast_slice(codes))
    }
}
