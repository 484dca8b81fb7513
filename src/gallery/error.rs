//! Why a gallery did not do it: one enum per operation.

use std::{io, path::PathBuf, sync::Arc};

use vultus_index::IndexError;

use crate::{
    domain::{CalibrationError, CaseId, GalleryName, ModelDigest, ModelMismatch, ReferenceId},
    seal::SealError,
};

/// Why a data directory did not open. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: another process serves these galleries")]
    Locked { path: PathBuf },
    #[error("{path} is not a Vultus gallery store")]
    Foreign { path: PathBuf },
    #[error("the store has schema version {found}, this program knows versions up to {known}")]
    Version { found: i64, known: i64 },
    #[error("the store was sealed under another root key")]
    WrongKey,
    #[error("reference {id} does not open: it was tampered with, damaged, or sealed elsewhere")]
    Reference { id: ReferenceId },
    #[error("the store is damaged: {what}")]
    Damaged { what: String },
    #[error("the store failed: {0}")]
    Store(String),
    #[error("the index did not load: {0}")]
    Index(#[from] IndexError),
    #[error("the store's writer did not start: {0}")]
    Thread(#[source] io::Error),
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Why the store did nothing. One failed commit fails everyone who shared it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Erase something or make room; then writes work again. Erasing works on a full disk too, out of the room that is kept for it.
    #[error("the disk, or the store's limit of size, is full: nothing was changed")]
    Full,
    #[error("the store failed, and takes no further changes before a restart: {0}")]
    Failed(Arc<str>),
    #[error("another program holds the store: nothing was changed")]
    Busy,
    #[error("the store could not be read: {0}")]
    Unreadable(Arc<str>),
    #[error("the galleries are closed")]
    Closed,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum CreateError {
    #[error("gallery {name} holds templates of model {expected} with {dimension} values, not of {found}")]
    Model { name: GalleryName, expected: ModelDigest, dimension: usize, found: ModelDigest },
    #[error("a template has 1 to {max} values, not {found}", max = crate::domain::Template::MAX_DIMENSION)]
    Dimension { found: usize },
    #[error("there are {limit} galleries, the limit max_galleries")]
    TooMany { limit: usize },
    #[error("the system's random source failed")]
    Random,
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum EnrolError {
    #[error("the gallery holds templates of model {expected}, this one is of {found}")]
    Model { expected: ModelDigest, found: ModelDigest },
    #[error("the gallery holds templates of {expected} values, this one has {found}")]
    Dimension { expected: usize, found: usize },
    #[error("reference {id} exists already in this gallery, for another subject")]
    Exists { id: ReferenceId },
    #[error("the subject has {limit} references, the limit max_references_per_subject")]
    TooManyForSubject { limit: usize },
    #[error("the gallery has {limit} references, the limit max_references")]
    GalleryFull { limit: usize },
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum EraseError {
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum SearchError {
    #[error(transparent)]
    Model(#[from] ModelMismatch),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Rates(#[from] CalibrationError),
    #[error("the deadline passed before the search began")]
    Late,
    #[error(
        "people who were found were erased or enrolled anew during each search: the receipt is not spent, send it again"
    )]
    Moved,
    #[error("the search was broken off: the service is going down")]
    Stopped,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum SpendError {
    #[error("the receipt has expired, so long ago that its use may be forgotten")]
    Expired,
    #[error("case {id} exists already")]
    CaseExists { id: CaseId },
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("a person who was found was erased or enrolled anew since the search: nothing was changed")]
    Moved,
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum CaseError {
    #[error("case {id} is damaged in the store")]
    Damaged { id: CaseId },
    #[error("the page begins behind a case that is not there any more: begin at the first page again")]
    NoSuchPage,
    #[error("everyone who was a candidate of the case was erased since: there is nothing to judge")]
    Empty,
    #[error(transparent)]
    Store(#[from] StoreError),
}
