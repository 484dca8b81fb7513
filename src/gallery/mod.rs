//! The biometric reference databases: a durable store, and an index derived from it, changed together.
//!
//! One data directory holds one SQLite file for all galleries and a lock file, so one process serves it. One thread,
//! the writer, changes the file and memory; cases and spent receipts are read beside it, all else from memory.
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
//!    does not show it either. Room is kept on the disk so that erasing works when it is full. Where another program reads the
//!    file and keeps the log, it is emptied within seconds of its end, also by the next process.
//! 4. A template reaches the disk only sealed, under a key of its gallery, bound to gallery, reference, subject and model:
//!    rows cannot be swapped, edited or moved. One row that does not open stops the start. That rows are missing, or the
//!    file is an older copy, is not detected.
//! 5. A gallery holds templates of one model bundle and one dimension.
//! 6. `seq`, the store's row number and the index's id, only grows.
//! 7. What expires goes by service time ([`Clock`]). A spent receipt is remembered for as long as it could be taken.
//! 8. A receipt has one outcome: spending it and recording what was found are one change.
//!
//! Presumed of the disk: a synced write stays, and a page is written in sectors that are old or new.
//!
//! Async callers: reads of a subject's references copy from memory and take no lock; searches run on tokio's blocking threads, reads of
//! cases on a thread of their own. A future that is dropped after its change was queued does not take the change back: send an enrolment again
//! under the same id, a receipt as it is.

mod batch;
mod bench;
mod cases;
mod changes;
mod clock;
mod error;
mod galleries;
mod migrate;
mod reader;
mod reserve;
mod search;
mod settings;
mod spent;
mod state;
mod store;
mod tally;
mod writer;

use std::{fmt, sync::Arc, time::SystemTime};

use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

pub use bench::{EnrolReport, ErasureReport, bench_enrol, bench_erasures};
pub use clock::{Clock, Clocks, MachineClocks, ServiceTime};
pub use error::{CaseError, CreateError, EnrolError, EraseError, OpenError, SearchError, SpendError, StoreError};
pub use galleries::Galleries;
pub use search::Found;
pub use settings::Settings;
pub use spent::Outcome;
pub use tally::Tally;

use self::{
    reader::Reader,
    search::Searches,
    state::State,
    store::GalleryRow,
    writer::{Finish, Op, Prepared},
};
use crate::{
    domain::{
        Case, CaseId, CaseSummary, GalleryName, Judgement, ModelDigest, Reference, ReferenceId, SubjectId, Template,
    },
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
    state: State,
    searches: Arc<Searches>,
    max_references_per_subject: usize,
    shared: Shared,
    /// Weak: the galleries own the writer, and `close` ends it.
    writer: mpsc::WeakSender<Op>,
}

/// What all galleries of a directory share.
#[derive(Clone)]
struct Shared {
    clock: Arc<Clock>,
    reader: Arc<Reader>,
    case_retention: std::time::Duration,
}

impl Shared {
    /// Cases that were opened after it can be read.
    fn cases_since(&self) -> ServiceTime {
        self.clock.now().before(self.case_retention)
    }
}

/// What a search found, to be recorded for its receipt.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The case that it opens; `None` when there was no duplicate.
    pub case: Option<Case>,
    /// The state that was searched, and the store's number of its last reference, as [`Found`] says them.
    pub epoch: u64,
    pub newest: i64,
    /// The search's expected FNIR, where it is known.
    pub fnir: Option<f64>,
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
        self.state.published().epoch
    }

    /// The most references of one subject.
    pub fn max_references_per_subject(&self) -> usize {
        self.max_references_per_subject
    }

    /// The time source of all that expires.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    pub fn describe(&self) -> Description {
        let state = self.state.published();
        Description {
            name: self.name.clone(),
            model: self.model,
            dimension: self.dimension,
            subjects: state.subjects(),
            references: state.references(),
            indexed: state.index.len(),
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
        self.claim(subject).1
    }

    /// As [`Self::references_of`], with the state in which they stand.
    pub fn claim(&self, subject: &SubjectId) -> (u64, Vec<Reference>) {
        let state = self.state.published();
        (state.epoch, state.references_of(subject, self.model))
    }

    /// Whether the subject has a reference. Reads memory only.
    pub fn knows(&self, subject: &SubjectId) -> bool {
        self.state.published().count_of(subject) > 0
    }

    /// Whether the subject has this reference. Reads memory only.
    pub fn holds(&self, subject: &SubjectId, id: ReferenceId) -> bool {
        self.state.published().holds(subject, id)
    }

    /// What was recorded for a receipt; `None` if it is not spent. Reads beside the writer.
    pub async fn outcome(&self, nonce: [u8; 16]) -> Result<Option<Outcome>, StoreError> {
        let read = self.shared.reader.read(move |connection| spent::outcome(connection, nonce)).await?;
        read.map_err(|e| StoreError::Unreadable(e.to_string().into()))
    }

    /// Spends a receipt, opens the case that was found, and records the outcome, all in one change. A receipt that is spent keeps its
    /// outcome, which is the answer then, with `true`.
    ///
    /// # Errors
    /// [`SpendError::Expired`] for a receipt so old that its spending may be forgotten; [`SpendError::Moved`] when a person who was found
    /// is no longer enrolled with any reference that was found: then nothing was changed, and another search tells how it is now.
    pub async fn finish_identification(
        &self,
        nonce: [u8; 16],
        expires: ServiceTime,
        finding: Finding,
    ) -> Result<(Outcome, bool), SpendError> {
        let finish = Box::new(Finish { nonce, expires, finding });
        self.ask(|answer| Op::Finish { gallery: self.key, finish, answer }).await
    }

    /// Open cases, oldest first, `most` at most, from behind the case `after` on. Reads beside the writer.
    ///
    /// # Errors
    /// [`CaseError::NoSuchPage`] when `after` is no case of this gallery, or not any more.
    pub async fn open_cases(&self, after: Option<CaseId>, most: usize) -> Result<Vec<CaseSummary>, CaseError> {
        let (key, since) = (self.key, self.shared.cases_since());
        let rows = self.shared.reader.read(move |connection| cases::open_cases(connection, key, since, after, most));
        rows.await?.map_err(|e| StoreError::Unreadable(e.to_string().into()))?.ok_or(CaseError::NoSuchPage)
    }

    /// Records what a reviewer found, beside what was recorded before; durable when it returns. False when there is no such case here.
    pub async fn judge(&self, id: CaseId, judged: Judgement) -> Result<bool, CaseError> {
        self.ask(|answer| Op::Judge { gallery: self.key, id, judged, answer }).await
    }

    /// Queues a change, waits for a place if need be, and then for its answer.
    async fn ask<T, E: From<StoreError>>(&self, op: impl FnOnce(oneshot::Sender<Result<T, E>>) -> Op) -> Result<T, E> {
        writer::ask(self.writer.upgrade(), op).await
    }

    fn new(
        row: GalleryRow,
        name: GalleryName,
        root: &RootKey,
        writer: mpsc::WeakSender<Op>,
        settings: &Settings,
        shared: Shared,
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
            state: State::new(row.dimension, row.epoch),
            searches: Arc::new(Searches::new(settings.searches_at_once)),
            max_references_per_subject: settings.max_references_per_subject,
            shared,
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

#[cfg(test)]
mod tests;
