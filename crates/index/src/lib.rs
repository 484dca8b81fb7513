//! Nearest neighbours by squared Euclidean distance, the one metric of the system: `Score = 1 - d²/2`.
//!
//! An index is derived from the gallery's store and holds nothing that the store does not. [`ExactIndex`] is the
//! oracle; [`FaissIndex`] serves. Distances of an index are for finding: what is found is compared again with
//! `domain::compare`, so scores do not depend on the index.

#![deny(unsafe_code)]

pub mod bench;
mod exact;
mod faiss;
mod segment;
mod spec;

use std::{cmp::Ordering, sync::Arc};

pub use exact::ExactIndex;
pub use faiss::FaissIndex;
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
}

/// Vectors of one dimension by id.
pub trait Index: Send + Sync {
    /// Values in a vector.
    fn dimension(&self) -> usize;

    /// Vectors held.
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds all rows or none. Ids ascend strictly, and above every id held: the store numbers its rows so.
    fn insert(&mut self, rows: &[(i64, &[f32])]) -> Result<(), IndexError>;

    /// Removes the rows of these ids; returns how many there were.
    fn remove(&mut self, ids: &[i64]) -> Result<usize, IndexError>;

    /// The vector that was inserted under `id`, bit for bit.
    fn vector(&self, id: i64) -> Option<&[f32]>;

    /// The `k` nearest of each probe, or all if there are fewer, in [`Neighbour::order`].
    fn search(&self, probes: &[&[f32]], k: usize) -> Result<Vec<Vec<Neighbour>>, IndexError>;

    /// The index as it is now; later changes of `self` do not show in it. A long search runs on one, so that nobody
    /// waits for it.
    fn snapshot(&self) -> Arc<dyn Index>;
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
