//! What every executor can do: run batches of views of images through networks.

use std::{borrow::Cow, fmt, sync::Arc};

use crate::{
    image::Pixels,
    input::{Input, InputSize},
    plan::{Plan, RangeError},
    precision::Precision,
    shapes::GraphError,
    view::{Image, View},
};

/// One of an executor's networks, counted from 0 in the order in which it was made with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkId(pub usize);

/// A network as an executor takes it.
#[derive(Debug)]
pub struct Planned {
    pub plan: Plan,
    pub input: Input,
    pub precision: Precision,
}

/// How a network of an executor wants to be fed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batching {
    /// Images of a batch that cost less together than one after the other, ascending, the first 1. A batch between two of them costs what
    /// the greater does.
    pub sizes: Vec<usize>,
    /// Batches that may be submitted before the first of them is complete, at least 1.
    pub in_flight: usize,
}

impl Batching {
    /// One image after the other.
    pub fn one_by_one() -> Self {
        Self::up_to(1)
    }

    /// Any number up to `most`, one batch after the other.
    pub fn up_to(most: usize) -> Self {
        Self { sizes: (1..=most.max(1)).collect(), in_flight: 1 }
    }

    /// Images to run together of `waiting`, at least 1, with at most `limit`: all, as long as less than half of a batch is wasted.
    pub fn take(&self, waiting: usize, limit: usize) -> usize {
        let below = |most: usize| self.sizes.iter().rev().find(|size| **size <= most).copied().unwrap_or(1);
        let waiting = waiting.min(below(limit)).max(1);
        let full = below(waiting);
        let holds_all = self.sizes.iter().find(|size| **size >= waiting).copied().unwrap_or(full);
        if waiting > holds_all / 2 && holds_all <= limit { waiting } else { full }
    }
}

/// Why an executor does not take a network.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot be planned: {0}")]
    Graph(#[from] GraphError),
    #[error("does not run in int8: {0}")]
    Ranges(#[from] RangeError),
    #[error("does not run in int8: {0}")]
    Lower(String),
    #[error("needs {0}, which this executor does not do")]
    Unsupported(&'static str),
    #[error("needs {needs} MiB of memory for {what}, expected at most {most}")]
    Memory { what: &'static str, needs: u64, most: u64 },
    #[error("does not load: the device failed: {0}")]
    Device(String),
}

/// Why a batch did not run.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    #[error("image {index} is {width}x{height}, the network takes {expected:?}")]
    Size { index: usize, width: u32, height: u32, expected: InputSize },
    #[error("the device failed: {0}")]
    Device(String),
    #[error("output {index} of the network is not finite")]
    NotFinite { index: usize },
    /// And whatever is asked of its executors from now on.
    #[error("the device is lost: {0}")]
    Lost(String),
}

/// What an executor is given for one place of a batch.
#[derive(Debug)]
pub enum Sight {
    /// A view that the executor makes.
    Of(Arc<Image>, View),
    /// One that is made.
    Made(Pixels),
}

impl Sight {
    /// The view, made here and now.
    pub fn made(image: &Image, view: &View) -> Self {
        Self::Made(view.of(image.pixels()))
    }

    /// The same, turned clockwise by a quarter; of a square view.
    pub fn turned_by_a_quarter(&self) -> Self {
        match self {
            Self::Of(image, view) => Self::Of(Arc::clone(image), view.turned_by_a_quarter()),
            Self::Made(pixels) => Self::Made(pixels.turned_by_a_quarter()),
        }
    }

    /// Its pixels, made where they are not.
    ///
    /// # Errors
    /// [`ExecuteError::Size`] where they are not of `expected`; `index` is the place in the batch.
    pub fn pixels(&self, index: usize, expected: InputSize) -> Result<Cow<'_, Pixels>, ExecuteError> {
        let (width, height) = match self {
            Self::Of(_, view) => (view.size.width, view.size.height),
            Self::Made(pixels) => (pixels.width(), pixels.height()),
        };
        if (width, height) != (expected.width, expected.height) {
            return Err(ExecuteError::Size { index, width, height, expected });
        }
        Ok(match self {
            Self::Of(image, view) => Cow::Owned(view.of(image.pixels())),
            Self::Made(pixels) => Cow::Borrowed(pixels),
        })
    }
}

/// Outputs of a batch, in the executor's memory: as many values for each image, in the order of the images, all finite.
#[derive(Clone, Copy)]
pub struct Outputs<'a> {
    values: &'a [f32],
    each: usize,
}

impl<'a> Outputs<'a> {
    /// `each` values an image, at least 1.
    ///
    /// # Errors
    /// [`ExecuteError::NotFinite`].
    pub fn new(values: &'a [f32], each: usize) -> Result<Self, ExecuteError> {
        let each = each.max(1);
        match values.iter().position(|v| !v.is_finite()) {
            Some(at) => Err(ExecuteError::NotFinite { index: at / each }),
            None => Ok(Self { values, each }),
        }
    }

    /// One image's after the other's.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [f32]> {
        self.values.chunks_exact(self.each)
    }
}

impl fmt::Debug for Outputs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outputs({} of {} values)", self.values.len() / self.each, self.each)
    }
}

/// Runs networks. Owned by one OS thread; objects of a device never leave it. Executors of one device are alike, and may share what
/// they compute with.
pub trait Executor: Send {
    /// The size that the network takes.
    fn input_size(&self, network: NetworkId) -> InputSize;

    /// How the network wants to be fed.
    fn batching(&self, network: NetworkId) -> Batching;

    /// Whether it makes views itself, of images that it keeps. Otherwise who has the image makes them before it waits for a batch:
    /// [`Sight::made`].
    fn makes_views(&self) -> bool {
        false
    }

    /// To be called once by the thread that owns it from now on.
    fn settle(&mut self) {}

    /// Begins a batch: takes what is to be seen into its memory, each of exactly [`Self::input_size`], and runs it through the
    /// network. Normalisation is the network's, and done here.
    ///
    /// # Errors
    /// When the batch is not begun; it is not to be completed then.
    fn submit(&mut self, network: NetworkId, sights: &[Arc<Sight>]) -> Result<(), ExecuteError>;

    /// Waits for the batch that was begun first, of those that are not complete. An image's outputs do not depend on its neighbours.
    ///
    /// # Errors
    /// When the batch failed, which is complete then; or none is begun.
    fn complete(&mut self) -> Result<Outputs<'_>, ExecuteError>;
}

/// Runs one batch: each image's outputs. For measurements and tests, which have one batch at a time.
///
/// # Errors
/// As [`Executor::submit`] and [`Executor::complete`].
pub fn run(executor: &mut dyn Executor, network: NetworkId, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ExecuteError> {
    let sights: Vec<_> = images.iter().map(|image| Arc::new(Sight::Made((*image).clone()))).collect();
    executor.submit(network, &sights)?;
    Ok(executor.complete()?.iter().map(<[f32]>::to_vec).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Region;

    #[test]
    fn a_batch_wastes_less_than_half_of_what_it_costs() {
        let device = Batching { sizes: vec![1, 4, 16, 64], in_flight: 2 };
        let took = [1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 64, 900].map(|waiting| device.take(waiting, 1000));
        assert_eq!(took, [1, 1, 3, 4, 4, 4, 9, 16, 16, 16, 33, 64, 64]);
        assert_eq!([3, 15, 64].map(|waiting| device.take(waiting, 15)), [3, 4, 4], "no more than the limit");
        let any = Batching::up_to(7);
        assert_eq!([0, 1, 5, 7, 8].map(|waiting| any.take(waiting, 6)), [1, 1, 5, 6, 6]);
        assert_eq!(Batching::one_by_one().take(9, 9), 1);
    }

    #[test]
    fn outputs_are_finite_and_as_many_for_each() {
        assert_eq!(
            Outputs::new(&[1.0, 2.0, 3.0, 4.0], 2).unwrap().iter().collect::<Vec<_>>(),
            [[1.0, 2.0], [3.0, 4.0]]
        );
        let refused = Outputs::new(&[1.0, 2.0, 3.0, f32::NAN], 2).unwrap_err();
        assert!(matches!(refused, ExecuteError::NotFinite { index: 1 }));
    }

    #[test]
    fn a_sight_is_of_the_networks_size_whoever_makes_it() {
        let size = InputSize { width: 4, height: 4 };
        let image = Arc::new(Image::new(Pixels::flat(2, 2, [7; 3]), ()));
        let view = View::filled(Region::of(image.pixels()), size);
        let (here, there) = (Sight::made(&image, &view), Sight::Of(Arc::clone(&image), view));
        assert!(*here.pixels(0, size).unwrap() == *there.pixels(0, size).unwrap());
        for sight in [here, there] {
            let refused = sight.pixels(3, InputSize { width: 5, height: 4 }).unwrap_err();
            assert!(matches!(refused, ExecuteError::Size { index: 3, width: 4, height: 4, .. }));
        }
    }
}
