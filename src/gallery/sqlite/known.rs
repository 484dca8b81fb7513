//! What the writer knows of what is stored, so that it need not ask the file.

use std::collections::BTreeMap;

use crate::gallery::store::StoredGallery;

/// What is stored, by the gallery's key, as of the last commit.
pub(super) type Known = BTreeMap<i64, Held>;

/// A gallery, and how much is in it.
pub(super) struct Held {
    pub gallery: StoredGallery,
    pub references: usize,
}
