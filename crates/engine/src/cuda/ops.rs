//! The operations: for each, what it takes, its weights as its kernel wants them, and its launch. The kernels are kernels/net/*.cu.

mod convolve;
mod grouped;
mod hopper;
mod plain;
mod stem;

use vultus_cuda::Launch;

pub use self::{
    convolve::{Convolve, Method, TILES},
    grouped::Grouped,
    hopper::HOPPER_TILES,
    plain::Plain,
    stem::Stem,
};
use super::{
    arguments,
    layout::{Constants, Place},
    place::Here,
};
use crate::plan;

/// Threads of a block of the kernels that give each thread four channels of a pixel.
const BLOCK: u32 = 128;

fn on(grid: [u32; 2], block: u32, shared: u32) -> Launch {
    Launch { grid: [grid[0], grid[1], 1], block, shared, cluster: 1, overlaps: false }
}

/// Of the kernel that compares: kernels/net/digest.cu.
pub const DIGEST: Launch = Launch { grid: [256, 1, 1], block: 256, shared: 0, cluster: 1, overlaps: false };

/// A launch with a thread for each four channels of a result.
fn by_fours(here: &Here<'_>) -> Launch {
    on([here.elements().div_ceil(4 * BLOCK as usize) as u32, 1], BLOCK, 0)
}

/// An activation among the constants.
#[derive(Debug, Clone, Copy)]
pub struct Activation {
    kind: i32,
    slopes: Option<Place>,
}

impl Activation {
    fn new(activation: &plan::Activation, channels: usize, constants: &mut Constants) -> Self {
        let (kind, slopes) = match activation {
            plan::Activation::Identity => (0, None),
            plan::Activation::Relu => (1, None),
            plan::Activation::Leaky(slope) => (2, Some(vec![*slope; channels])),
            plan::Activation::PRelu(slopes) => (2, Some(slopes.clone())),
        };
        Self { kind, slopes: slopes.map(|slopes| constants.add_channels(&slopes)) }
    }

    fn argument(&self, here: &Here<'_>) -> arguments::Activation {
        let slopes = self.slopes.map_or(0, |slopes| here.constant(slopes));
        arguments::Activation { slopes, kind: self.kind, unused: 0 }
    }
}
