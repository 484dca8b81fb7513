//! The biometric reference databases: a durable store, and an index derived from it, changed together.
//!
//! One data directory holds one SQLite file for all galleries and a lock file, so one process serves it. One thread,
//! the writer, owns the connection; everyone else reads memory.
//!
//! What always holds:
//!
//! 1. The store is the truth. Memory (index, whose row is whose, counts, epoch) is what loading the store would give,
//!    or, between a commit and its answers, what it gave before.
//! 2. Acknowledged means committed, synced to the disk (WAL, `synchronous=FULL`) and searchable. A failed commit
//!    acknowledges nobody who shared it. After any failure but a full disk the writer refuses further changes until a
//!    restart, since the file's state is then the disk's secret.
//! 3. Erased means: out of the store, the index and every candidate list, overwritten in the file (`secure_delete`) and gone from the
//!    write-ahead log, before the answer; a subject without references is claimed in no case. A search that began earlier
//!    does not show it either. Room is kept on the disk so that erasing works when it is full.
//! 4. A template reaches the disk only sealed, under a key of its gallery, bound to gallery, reference, subject and model:
//!    rows cannot be swapped, edited or moved. One row that does not open stops the start. That rows are missing, or the
//!    file is an older copy, is not detected.
//! 5. A gallery holds templates of one model bundle and one dimension.
//! 6. `seq`, the store's row number and the index's id, only grows.
//!
//! Presumed of the disk: a synced write stays, and a page is written in sectors that are old or new.
//!
//! Async callers: reads of a subject's references copy from memory under a lock that the writer holds for the change of
//! at most two segments of the index (milliseconds at worst); searches run on tokio's blocking threads, on a snapshot. A
//! future that is dropped after its change was queued does not take the change back: send an enrolment again under the same id.

mod batch;
mod bench;
mod cases;
mod error;
mod galleries;
mod reserve;
mod search;
mod settings;
mod state;
mod store;
mod writer;

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::SystemTime,
};

use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

pub use bench::{EnrolReport, bench_enrol};
pub use error::{CaseError, CreateError, EnrolError, EraseError, OpenError, SearchError, SpendError, StoreError};
pub use galleries::Galleries;
pub use settings::Settings;

use self::{
    search::Searches,
    state::State,
    store::GalleryRow,
    writer::{Op, Prepared},
};
use crate::{
    domain::{Case, GalleryName, ModelDigest, Reference, ReferenceId, SubjectId, Template},
    seal::{NotAuthentic, RootKey, SealError, Sealer},
};

/// One gallery, open.
pub struct Gallery {
    key: i64,
    uid: [u8; 16],
    name: GalleryName,
    model: ModelDigest,
    dimension: usize,
    created_at: SystemTime,
    sealer: Sealer,
    /// The writer changes it, right after each commit.
    state: RwLock<State>,
    searches: Arc<Searches>,
    /// Weak: the galleries own the writer, and `close` ends it.
    writer: mpsc::WeakSender<Op>,
}

/// What is to be enrolled.
#[derive(Debug, Clone)]
pub struct NewReference {
    /// Chosen by the caller, so that an enrolment can be sent again; random if there is none.
    pub id: Option<ReferenceId>,
    pub subject: SubjectId,
    pub template: Template,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enrolled {
    pub id: ReferenceId,
    /// The state in which the reference is searchable.
    pub epoch: u64,
    /// The reference was there already: the template of this call was not looked at.
    pub repeated: bool,
}

/// What to erase. There is no selector for everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// All references of a subject.
    Subject(SubjectId),
    Reference(ReferenceId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erased {
    /// 0 if there were none.
    pub references: usize,
    pub epoch: u64,
}

/// Counts of one state of a gallery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    pub name: GalleryName,
    pub model: ModelDigest,
    /// Values in a template.
    pub dimension: usize,
    pub subjects: usize,
    pub references: usize,
    /// Rows of the index; equals `references`.
    pub indexed: usize,
    /// Counts the changes.
    pub epoch: u64,
    pub created_at: SystemTime,
}

impl Gallery {
    pub fn name(&self) -> &GalleryName {
        &self.name
    }

    pub fn model(&self) -> ModelDigest {
        self.model
    }

    /// Values in a template.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    pub fn epoch(&self) -> u64 {
        self.state().epoch
    }

    pub fn describe(&self) -> Description {
        let state = self.state();
        Description {
            name: self.name.clone(),
            model: self.model,
            dimension: self.dimension,
            subjects: state.subjects(),
            references: state.references(),
            indexed: state.indexed(),
            epoch: state.epoch,
            created_at: self.created_at,
        }
    }

    /// Stores a reference; durable and searchable when it returns. The same id for the same subject again answers
    /// `repeated` and changes nothing.
    pub async fn enrol(&self, new: NewReference) -> Result<Enrolled, EnrolError> {
        if new.template.model() != self.model {
            return Err(EnrolError::Model { expected: self.model, found: new.template.model() });
        }
        if new.template.dimension() != self.dimension {
            return Err(EnrolError::Dimension { expected: self.dimension, found: new.template.dimension() });
        }
        let id = new.id.unwrap_or_else(ReferenceId::random);
        let sealed = self.seal(id, &new.subject, &new.template)?;
        let prepared = Prepared { id, subject: new.subject, template: new.template, sealed };
        self.ask(|answer| Op::Enrol { gallery: self.key, prepared, answer }).await
    }

    /// Erases from the store, the index and all candidate lists; done when it returns. What is not there counts 0.
    pub async fn erase(&self, selector: Selector) -> Result<Erased, EraseError> {
        self.ask(|answer| Op::Erase { gallery: self.key, selector, answer }).await
    }

    /// The subject's references in the order of enrolment; none for an unknown subject. Reads memory only.
    pub fn references_of(&self, subject: &SubjectId) -> Vec<Reference> {
        self.state().references_of(subject, self.model)
    }

    /// Whether the subject has this reference. Reads memory only.
    pub fn holds(&self, subject: &SubjectId, id: ReferenceId) -> bool {
        self.state().holds(subject, id)
    }

    /// As [`Galleries::spend_receipt`], for whoever holds a gallery of them.
    pub async fn spend_receipt(&self, nonce: [u8; 16], expires_at: SystemTime) -> Result<(), SpendError> {
        self.ask(|answer| Op::Spend { nonce, expires_at, answer }).await
    }

    /// As [`Galleries::open_case`], for whoever holds a gallery of them.
    pub async fn open_case(&self, case: Case) -> Result<(), CaseError> {
        self.ask(|answer| Op::OpenCase { case: Box::new(case), answer }).await
    }

    /// Queues a change, waits for a place if need be, and then for its answer.
    async fn ask<T, E: From<StoreError>>(&self, op: impl FnOnce(oneshot::Sender<Result<T, E>>) -> Op) -> Result<T, E> {
        writer::ask(self.writer.upgrade(), op).await
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn new(
        row: GalleryRow,
        name: GalleryName,
        root: &RootKey,
        writer: mpsc::WeakSender<Op>,
        settings: &Settings,
    ) -> Self {
        let uid = hex::encode(row.uid);
        Self {
            key: row.key,
            uid: row.uid,
            name,
            model: ModelDigest::new(row.model),
            dimension: row.dimension,
            created_at: row.created_at,
            sealer: root.sealer(&format!("vultus gallery v1 {uid}")),
            state: RwLock::new(State::new(row.dimension, row.epoch)),
            searches: Arc::new(Searches::new(settings.searches_at_once)),
            writer,
        }
    }

    fn seal(&self, id: ReferenceId, subject: &SubjectId, template: &Template) -> Result<Vec<u8>, SealError> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(4 * template.dimension()));
        bytes.extend(template.values().iter().flat_map(|v| v.to_le_bytes()));
        self.sealer.seal(&self.context(id, subject), &bytes)
    }

    fn open(&self, id: ReferenceId, subject: &SubjectId, sealed: &[u8]) -> Result<Template, NotAuthentic> {
        let bytes = self.sealer.open(&self.context(id, subject), sealed)?;
        let (values, rest) = bytes.as_chunks::<4>();
        if values.len() != self.dimension || !rest.is_empty() {
            return Err(NotAuthentic);
        }
        let values = values.iter().map(|v| f32::from_le_bytes(*v)).collect();
        Template::new(self.model, values).map_err(|_| NotAuthentic)
    }

    /// What a sealed template is bound to: fields of fixed length, and one of variable length at the end.
    fn context(&self, id: ReferenceId, subject: &SubjectId) -> Vec<u8> {
        [self.uid.as_slice(), id.as_bytes(), self.model.as_bytes(), subject.as_str().as_bytes()].concat()
    }
}

impl fmt::Debug for Gallery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gallery({})", self.name)
    }
}
