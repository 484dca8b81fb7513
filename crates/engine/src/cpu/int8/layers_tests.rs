use std::sync::{Mutex, PoisonError};

use super::{
    dense::Dense,
    emit::Out,
    kernels::Buffer,
    winograd::{Scratch, Winograd},
};

/// What layers of other shapes have left in it.
static SCRATCH: Mutex<Vec<Scratch>> = Mutex::new(vec![]);

/// A layer that is tried.
pub enum Layer {
    Dense(Dense),
    Winograd(Winograd),
}

impl Layer {
    pub fn run(&self, [threads, images]: [usize; 2], x: &Buffer, residual: Option<&Buffer>, outs: Vec<Out<'_>>) {
        match self {
            Self::Dense(dense) => dense.run(threads, images, x, residual, outs),
            Self::Winograd(winograd) => {
                let mut scratch = SCRATCH.lock().unwrap_or_else(PoisonError::into_inner);
                winograd.run(threads, images, (x, residual), &mut scratch, outs)
            }
        }
    }
}
