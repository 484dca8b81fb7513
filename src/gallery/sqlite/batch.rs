//! What shares a commit: the answers wait for it, and fail with it.

use std::collections::{BTreeMap, btree_map::Entry};

use tokio::sync::oneshot;

use super::{file::store_error, known::Known};
use crate::gallery::{
    EraseError, Erased, Selector, StoreError,
    store::{Change, StoredGallery},
};

pub(super) type Answer<T, E> = oneshot::Sender<Result<T, E>>;

/// Outside: the store failed, and the whole batch with it. Inside: the caller's answer.
pub(super) type Step<T, E> = Result<Result<T, E>, rusqlite::Error>;

/// What one transaction has done so far.
pub(super) struct Batch {
    pub failure: Option<StoreError>,
    pub touched: BTreeMap<i64, Touched>,
    pub created: Vec<StoredGallery>,
    /// Something was tallied.
    pub counted: bool,
    pub answers: Vec<Box<dyn Pending>>,
    /// Kept apart: they may be tried again.
    pub erasures: Vec<Erasure>,
}

pub(super) struct Erasure {
    pub gallery: i64,
    pub selector: Selector,
    pub answer: Answer<Erased, EraseError>,
    pub erased: Result<Erased, EraseError>,
}

/// A gallery's part of a batch.
pub(super) struct Touched {
    pub position: u64,
    pub references: usize,
    pub erased: bool,
    pub changes: Vec<Change>,
}

impl Batch {
    pub(super) fn new(failure: Option<StoreError>) -> Self {
        Self {
            failure,
            touched: BTreeMap::new(),
            created: Vec::new(),
            counted: false,
            answers: Vec::new(),
            erasures: Vec::new(),
        }
    }

    /// Does `work` unless the batch has failed; its failure is the batch's.
    pub(super) fn attempt<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, rusqlite::Error>) -> Option<T> {
        if self.failure.is_some() {
            return None;
        }
        work(self).map_err(|e| self.failure = Some(store_error(&e))).ok()
    }

    /// As [`Self::attempt`]; keeps the answer until the commit.
    pub(super) fn step<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        &mut self,
        to: Answer<T, E>,
        work: impl FnOnce(&mut Self) -> Step<T, E>,
    ) {
        let value = self.attempt(work).unwrap_or_else(|| Err(StoreError::Closed.into()));
        self.answers.push(Box::new((to, value)));
    }

    pub(super) fn touch(&mut self, known: &Known, key: i64) -> Option<&mut Touched> {
        match self.touched.entry(key) {
            Entry::Occupied(touched) => Some(touched.into_mut()),
            Entry::Vacant(place) => {
                let held = known.get(&key)?;
                let (position, references) = (held.gallery.position, held.references);
                Some(place.insert(Touched { position, references, erased: false, changes: Vec::new() }))
            }
        }
    }
}

/// An answer that waits for the commit.
pub(super) trait Pending {
    /// The answer, or `failure` in its place. A caller that has left is no concern.
    fn deliver(self: Box<Self>, failure: Option<&StoreError>);
}

impl<T, E: From<StoreError>> Pending for (Answer<T, E>, Result<T, E>) {
    fn deliver(self: Box<Self>, failure: Option<&StoreError>) {
        let (to, value) = *self;
        let _ = to.send(failure.map_or(value, |failure| Err(failure.clone().into())));
    }
}
