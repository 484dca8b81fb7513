//! Nearest neighbours by squared Euclidean distance, the one metric of the system: `Score = 1 - d²/2`. Knows vectors and ids.
//!
//! What is changed is an [`Index`]. It gives one state of itself after another, a [`Snapshot`]: what is searched. Where
//! the vectors of that state are kept is its [`Vectors`]: an index may hold codes that find, and the vectors that
//! decide may lie elsewhere. [`ExactIndex`] is the oracle; [`FaissIndex`] serves, and is all three in the same memory.
//! Who opens galleries chooses by [`Indexes`]. Distances of an index are for finding: what is found is compared again,
//! so scores do not depend on the index.

#![deny(unsafe_code)]

pub mod bench;
mod exact;
mod faiss;
mod segment;
mod spec;

use std::{borrow::Cow, cmp::Ordering, fmt, sync::Arc};

pub use exact::ExactIndex;
pub use faiss::{FaissIndex, FaissIndexes};
pub use spec::{Spec, SpecError};

/// One found row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    pub id: i64,
    /// Squared Euclidean distance to the probe, as the index computes it; at least 0.
    pub squared_distance: f32,
}

impl Neighbour {
    /// The order of answers: ascending distance, ties by id.
    pub fn order(&self, other: &Self) -> Ordering {
        self.squared_distance.total_cmp(&other.squared_distance).then_with(|| self.id.cmp(&other.id))
    }
}

/// Why an index did not do it. What is refused changes nothing; after [`IndexError::Engine`] rebuild the index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    #[error("the index holds vectors of {expected} values, this one has {found}")]
    Dimension { expected: usize, found: usize },
    #[error("ids must ascend: {id} comes after {last}")]
    Order { id: i64, last: i64 },
    #[error("Faiss failed: {0}")]
    Engine(String),
    /// Nothing may be decided as if there were no such row.
    #[error("the vector of row {id} cannot be read: {why}")]
    Unreadable { id: i64, why: String },
}

/// Makes the index of each gallery. A seam: who opens galleries says which.
pub trait Indexes: fmt::Debug + Send + Sync {
    /// An empty index, for vectors of `dimension` values.
    ///
    /// # Errors
    /// Where there is no room for one, or no device.
    fn make(&self, dimension: usize) -> Result<Box<dyn Index>, IndexError>;
}

/// Vectors of one dimension by id, as their one writer has them.
pub trait Index: Send + Sync {
    /// Adds all rows or none. Ids ascend strictly, and above every id held: who keeps the rows numbers them so.
    fn insert(&mut self, rows: &[(i64, &[f32])]) -> Result<(), IndexError>;

    /// Removes the rows of these ids; returns how many there were.
    fn remove(&mut self, ids: &[i64]) -> Result<usize, IndexError>;

    /// The index as it is now; later changes of `self` do not show in it. A long search runs on one, so that nobody
    /// waits for it.
    fn snapshot(&self) -> Arc<dyn Snapshot>;
}

/// Asks for what decides: all that lies within a distance.
#[derive(Clone, Copy)]
pub struct Within<'a> {
    pub probe: &'a [f32],
    /// The greatest squared distance of what is asked for.
    pub squared_distance: f32,
    /// So many rows at most, the nearest up to rounding: who gets as many may ask for more. An index of coarse codes
    /// compares what it found with the vectors before it cuts.
    pub most: usize,
}

/// One state of an index, never changed. A search runs on the caller's thread, which may wait in it for a device.
pub trait Snapshot: Send + Sync {
    /// Vectors held.
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// For decisions: what lies within the distance of each ask, in [`Neighbour::order`]. An index that rounds answers a little beyond
    /// it rather than leave out a row within.
    fn within(&self, asks: &[Within<'_>]) -> Result<Vec<Vec<Neighbour>>, IndexError>;

    /// For investigations: the `k` nearest of each probe, or all if there are fewer, in [`Neighbour::order`].
    fn nearest(&self, probes: &[&[f32]], k: usize) -> Result<Vec<Vec<Neighbour>>, IndexError>;

    /// Where the vectors of this very state are kept.
    fn vectors(&self) -> &dyn Vectors;
}

/// Where vectors are kept, bit for bit as they were inserted.
pub trait Vectors: Send + Sync {
    /// Lent where it lies in memory, owned where it was opened on demand; `None` if there is no such row.
    ///
    /// # Errors
    /// [`IndexError::Unreadable`].
    fn vector(&self, id: i64) -> Result<Option<Cow<'_, [f32]>>, IndexError>;
}

impl fmt::Debug for Within<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Within").field("most", &self.most).finish_non_exhaustive()
    }
}

/// What `insert` demands of its rows.
fn check_rows(dimension: usize, mut last: Option<i64>, rows: &[(i64, &[f32])]) -> Result<(), IndexError> {
    for &(id, vector) in rows {
        check_dimension(dimension, vector)?;
        if let Some(last) = last.filter(|&last| id <= last) {
            return Err(IndexError::Order { id, last });
        }
        last = Some(id);
    }
    Ok(())
}

fn check_dimension(expected: usize, vector: &[f32]) -> Result<(), IndexError> {
    match vector.len() {
        found if found == expected => Ok(()),
        found => Err(IndexError::Dimension { expected, found }),
    }
}

/// How far beyond a distance an answer reaches, so that rounding to f32 leaves nothing out.
fn with_room(squared_distance: f32) -> f32 {
    const ROUNDING: f32 = 1e-4;
    squared_distance + ROUNDING * (1.0 + squared_distance.abs())
}

/// Keeps the best `k` of `found`, in order.
fn keep_best(found: &mut Vec<Neighbour>, k: usize) {
    if k == 0 {
        found.clear();
    } else if found.len() > k {
        found.select_nth_unstable_by(k - 1, Neighbour::order);
        found.truncate(k);
    }
    found.sort_unstable_by(Neighbour::order);
}
