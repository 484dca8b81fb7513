//! What happens to the values of an input as they are rounded: the affine step of a batch norm before the convolution.

use super::{
    kernels::Vector,
    layout::{LANES, Line, floats, per_channel},
};
use crate::{graph::ValueId, plan};

/// A line for each block of channels in, zeros for channels that are not there.
pub struct Prologue {
    pub scale: Vec<Line>,
    pub shift: Vec<Line>,
}

impl Prologue {
    pub fn new(prologue: &plan::Prologue) -> Self {
        Self { scale: per_channel(&prologue.scale), shift: per_channel(&prologue.shift) }
    }

    /// Scale and shift of a block.
    #[inline(always)]
    pub fn of<V: Vector>(&self, block: usize) -> [V; 2] {
        [V::load(&self.scale[block]), V::load(&self.shift[block])]
    }
}

/// `scale * x + shift`, rounded twice: so every instruction set gives the same.
#[inline(always)]
pub fn affine<V: Vector>(x: &Line, [scale, shift]: [V; 2]) -> V {
    V::load(x).mul(scale).add(shift)
}

/// Of all lines; without a prologue as they are.
#[inline(always)]
pub fn affine_all<V: Vector>(x: &[Line], prologue: Option<[V; 2]>, y: &mut [Line]) {
    let Some(of) = prologue else { return y.copy_from_slice(x) };
    for (y, x) in y.iter_mut().zip(x) {
        affine(x, of).store(y);
    }
}

/// A value whose range int8 needs, and how it is made of what is read.
pub struct Watched {
    pub value: ValueId,
    pub prologue: Option<Prologue>,
}

impl Watched {
    /// The least and the greatest of it and 0, in lines that are read.
    pub fn ends(&self, lines: &[Line]) -> (f32, f32) {
        let wider = |(low, high): (f32, f32), v: f32| (low.min(v), high.max(v));
        let Some(Prologue { scale, shift }) = &self.prologue else {
            return floats(lines).iter().copied().fold((0.0, 0.0), wider);
        };
        let planes = lines.chunks((lines.len() / scale.len().max(1)).max(1)).zip(scale.iter().zip(shift));
        let values = planes.flat_map(|(plane, (scale, shift))| {
            let lanes = plane.iter().flat_map(|line| line.0.iter().enumerate());
            lanes.map(|(lane, v)| v * scale.0[lane % LANES] + shift.0[lane % LANES])
        });
        values.fold((0.0, 0.0), wider)
    }
}
