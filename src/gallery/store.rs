//! What galleries are stored in: whole operations, each one change or none, and an ordered feed of what they changed.
//!
//! The store is the truth. It knows sealed templates alone. Whoever keeps something in memory follows the feed from the
//! start: every change of a gallery has a position in it, counted from 1, and the position of the last one is the
//! gallery's epoch. What a store holds when it is opened is told as enrolments of what is left.

use std::{fmt, time::SystemTime};

use async_trait::async_trait;
use vultus_index::IndexError;

use super::{
    CaseError, Clock, CreateError, EnrolError, Enrolled, EraseError, Erased, Finding, Outcome, Selector, ServiceTime,
    SpendError, StoreError, Tally,
};
use crate::domain::{
    Case, CaseId, CaseSummary, ExtractionVersion, GalleryName, Judgement, ModelDigest, ReferenceId, SubjectId,
};

/// Holds galleries durably. What an operation answers is committed, synced, and followed by whoever follows the feed.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync {
    /// Makes a gallery, if there is none of this name; the feed tells what it is.
    async fn create(&self, name: GalleryName, model: ModelDigest, dimension: usize) -> Result<(), CreateError>;

    /// Stores a reference. The same id for the same subject again changes nothing.
    async fn enrol(&self, gallery: i64, reference: SealedReference) -> Result<Enrolled, EnrolError>;

    /// Erases, also from cases and from whatever the store keeps of its past.
    async fn erase(&self, gallery: i64, selector: Selector) -> Result<Erased, EraseError>;

    /// Spends a receipt, opens the case that was found and records the outcome; answers what was recorded before, with `true`, where it
    /// is spent.
    async fn finish_identification(&self, gallery: i64, finish: Finish) -> Result<(Outcome, bool), SpendError>;

    /// Adds a verdict to a case. False when there is none of this id in the gallery.
    async fn judge(&self, gallery: i64, id: CaseId, judged: Judgement) -> Result<bool, CaseError>;

    /// What was recorded for a receipt; `None` if it is not spent.
    async fn outcome(&self, nonce: [u8; 16]) -> Result<Option<Outcome>, StoreError>;

    /// Open cases, oldest first, from behind the case `after` on.
    async fn open_cases(&self, gallery: i64, after: Option<CaseId>, most: usize)
    -> Result<Vec<CaseSummary>, CaseError>;

    /// A case, with the candidates that are still enrolled.
    async fn case(&self, id: CaseId) -> Result<Option<Case>, CaseError>;

    /// Whose a case is.
    async fn gallery_of_case(&self, id: CaseId) -> Result<Option<GalleryName>, CaseError>;

    /// What happened since the store was made.
    async fn tally(&self) -> Result<Tally, StoreError>;

    /// The time source of all that expires.
    fn clock(&self) -> &Clock;

    /// True once it takes no further changes: only a restart helps.
    fn has_failed(&self) -> bool;

    /// Refuses new changes, finishes those that are queued, and closes.
    async fn close(&self);

    /// Does the work between two changes.
    #[cfg(test)]
    async fn in_turn(&self, work: Box<dyn FnOnce() + Send>);
}

/// A gallery as it is stored.
#[derive(Debug, Clone)]
pub struct StoredGallery {
    pub key: i64,
    /// Random: no template of a namesake opens in it.
    pub uid: [u8; 16],
    pub name: GalleryName,
    /// What it was called when the gallery was made.
    pub model: ModelDigest,
    /// Values in a template.
    pub dimension: usize,
    /// Of the last change.
    pub position: u64,
    pub created_at: SystemTime,
}

/// A reference that fits its gallery, sealed by its caller.
pub struct SealedReference {
    pub id: ReferenceId,
    pub subject: SubjectId,
    pub sealed: Vec<u8>,
    pub extraction: ExtractionVersion,
}

/// The end of a search.
#[derive(Debug, Clone)]
pub struct Finish {
    pub nonce: [u8; 16],
    pub expires: ServiceTime,
    pub finding: Finding,
}

/// One change of a gallery.
pub enum Change {
    Enrolled(StoredReference),
    /// The rows that are gone.
    Erased(Vec<i64>),
}

/// A reference as it is stored.
pub struct StoredReference {
    /// The row's number: only grows, over all galleries.
    pub seq: i64,
    /// Of its enrolment among the gallery's changes; 0 where an older store did not keep it.
    pub position: u64,
    pub reference: SealedReference,
    pub enrolled_at: SystemTime,
}

/// Keeps something in memory that a store's changes are told to: each after its commit, before its answer, in their order.
pub trait Follower: Send + Sync {
    /// A gallery is there, at position 0, with nothing in it yet: what it holds is told next.
    ///
    /// # Errors
    /// As [`Self::changed`].
    fn created(&self, gallery: StoredGallery) -> Result<(), FollowError>;

    /// What changed in a gallery, in order, and the position that the follower has come to: that of the last of these
    /// changes. Positions never fall. When a store is opened, the last that is told of a gallery has the gallery's own
    /// position, which may be that of an erasure: it is told by what is not there.
    ///
    /// # Errors
    /// Where memory cannot follow: then it no longer agrees with the store.
    fn changed(&self, gallery: i64, changes: Vec<Change>, position: u64) -> Result<(), FollowError>;
}

/// Why memory no longer agrees with the store.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error("there is no gallery {0}")]
    NoGallery(i64),
    #[error("reference {0} does not open")]
    Unopened(ReferenceId),
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl fmt::Debug for SealedReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedReference({}, {} bytes)", self.id, self.sealed.len())
    }
}

impl fmt::Debug for StoredReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredReference({}, {:?})", self.seq, self.reference)
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enrolled(stored) => write!(f, "Enrolled({stored:?})"),
            Self::Erased(rows) => write!(f, "Erased({} rows)", rows.len()),
        }
    }
}
