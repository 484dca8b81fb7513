//! What every executor can do: run a batch of equally sized images through the network of a role.

use serde::{Deserialize, Serialize};

use crate::domain::Pixels;

/// The three networks of a model set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Finds faces in an image.
    Detect,
    /// Places 68 landmarks in a face.
    Landmark,
    /// Extracts a template from an aligned face.
    Embed,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Detect, Self::Landmark, Self::Embed];

    /// The word for it in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Detect => "detect",
            Self::Landmark => "landmark",
            Self::Embed => "embed",
        }
    }
}

/// The size that a network takes, pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputSize {
    pub width: u32,
    pub height: u32,
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
}

/// Runs networks. Owned by one OS thread; objects of a device never leave it.
pub trait Executor: Send {
    /// The size that `role`'s network takes.
    fn input_size(&self, role: Role) -> InputSize;

    /// To be called once by the thread that owns it from now on.
    fn settle(&mut self) {}

    /// How many images of `role` run faster together than one after the other. More are let run, and gain nothing.
    fn gains_up_to(&self, role: Role) -> usize;

    /// Runs `images`, each of exactly [`Self::input_size`], through `role`'s network. Normalisation is the bundle's and done
    /// here. Returns each image's outputs, flattened, in the order of `images`; every value is finite. An image's outputs do not depend on its neighbours.
    fn run(&mut self, role: Role, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ExecuteError>;

    /// The same, while so many executors of the same device rest: what they compute with may help.
    fn run_helped(&mut self, role: Role, images: &[&Pixels], resting: usize) -> Result<Vec<Vec<f32>>, ExecuteError> {
        let _ = resting;
        self.run(role, images)
    }
}
