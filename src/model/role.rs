//! What a network is for.

use serde::{Deserialize, Serialize};
use vultus_engine::executor::NetworkId;

/// The networks of a model set, in the order in which a face passes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Finds faces as [`Self::Detect`] does, of whose bundle it is, in a smaller view: where it looks first.
    #[serde(skip)]
    DetectSmall,
    /// Finds faces in an image.
    Detect,
    /// Places 68 landmarks in a face.
    Landmark,
    /// Extracts a template from an aligned face.
    Embed,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::DetectSmall, Self::Detect, Self::Landmark, Self::Embed];
    /// What an image is shown first.
    pub const FIRST: Self = Self::DetectSmall;

    /// The word for it in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DetectSmall => "detect_small",
            Self::Detect => "detect",
            Self::Landmark => "landmark",
            Self::Embed => "embed",
        }
    }

    /// Its network in an executor of a model set: executors are made with one for each role, in the order of [`Self::ALL`].
    pub const fn network(self) -> NetworkId {
        NetworkId(self as usize)
    }
}
