//! The convolution of the pixels: kernels/net/stem.cu.

use vultus_cuda::Error;

use super::{Activation, on};
use crate::{
    cuda::{
        arguments::{self, Slide},
        layout::{Constants, Layout, Place},
        place::{Here, Run},
    },
    int8,
};

/// Bytes under the window that a block multiplies in one step.
const STEP: usize = 64;
/// Pixels of the result that a block computes.
const PIXELS: usize = 64;
const THREADS: u32 = 128;
/// Bytes from row to row in shared memory.
const ROW: usize = 80;

#[derive(Debug)]
pub struct Stem {
    activation: Activation,
    weight: Place,
    scale: Place,
    bias: Place,
    row_class: Place,
    column_class: Place,
    column_classes: usize,
    slide: Slide,
    steps: usize,
    area: usize,
    pitch: usize,
}

impl Stem {
    pub fn new(stem: &int8::Stem, out: Layout, constants: &mut Constants) -> Self {
        let (outs, area) = (out.shape().channels, stem.window.height * stem.window.width);
        let steps = (3 * area).div_ceil(STEP);
        let (row, half) = (steps * STEP, out.pitch * steps * STEP);
        let mut weight = vec![0i8; 2 * half];
        for (channel, filter) in stem.weight.chunks_exact(3 * area).enumerate() {
            for (colour, plane) in filter.chunks_exact(area).enumerate() {
                for (place, &w) in plane.iter().enumerate() {
                    let at = channel * row + place * 3 + colour;
                    weight[at] = (w >> 7) as i8;
                    weight[half + at] = (w & 127) as i8;
                }
            }
        }
        let classes: Vec<f32> =
            stem.bias.values.chunks_exact(outs).flat_map(|values| filled(values, out.pitch)).collect();
        Self {
            activation: Activation::new(&stem.activation, outs, constants),
            weight: constants.add_codes(&weight),
            scale: constants.add_channels(&stem.scale),
            bias: constants.add_channels(&classes),
            row_class: constants.add(&stem.bias.row_class),
            column_class: constants.add(&stem.bias.column_class),
            column_classes: stem.bias.column_classes,
            slide: Slide::new(stem.window, stem.padding),
            steps,
            area: out.shape().height * out.shape().width,
            pitch: out.pitch,
        }
    }

    /// The kernels, and the bytes of shared memory that each takes.
    pub const KERNELS: [(&'static str, u32); 2] = [("stem_32", shared(32)), ("stem_64", shared(64))];

    pub fn launch(&self, here: &Here<'_>, run: &Run<'_>) -> Result<(), Error> {
        let argument = arguments::Stem {
            result: here.result(),
            x: here.operand(0),
            activation: self.activation.argument(here),
            weight: here.constant(self.weight),
            scale: here.constant(self.scale),
            bias: here.constant(self.bias),
            row_class: here.constant(self.row_class),
            column_class: here.constant(self.column_class),
            slide: self.slide,
            column_classes: self.column_classes as i32,
            steps: self.steps as i32,
            unused: 0,
        };
        let wide = self.pitch > 32;
        let (kernel, shared) = Self::KERNELS[usize::from(wide)];
        let channels = if wide { 64 } else { 32 };
        let blocks = (self.area * here.images()).div_ceil(PIXELS) * self.pitch.div_ceil(channels);
        run.launch(kernel, on([blocks as u32, 1], THREADS, shared), argument)
    }
}

/// The rows of pixels and of both halves of the weights, and the pixels' places; the sums come in their place.
const fn shared(channels: usize) -> u32 {
    let rows = (PIXELS + 2 * channels) * ROW + PIXELS * 3 * 4;
    let sums = PIXELS * (channels + 8) * 4;
    if rows > sums { rows as u32 } else { sums as u32 }
}

fn filled(values: &[f32], to: usize) -> Vec<f32> {
    let mut values = values.to_vec();
    values.resize(to, 0.0);
    values
}
