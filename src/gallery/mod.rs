//! The biometric reference databases: a durable store, and an index that follows it.
//!
//! A store ([`store`]) does whole operations and tells what they changed as an ordered feed; memory is kept from the feed. Today's store is
//! one SQLite file ([`sqlite`]). Cases and spent receipts are read from it, all else from memory.
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
//! Async callers: reads of a subject's references copy from memory and take no lock; searches run on tokio's blocking
//! threads, reads of cases on threads of their own. A future that is dropped after its change was queued does not take
//! the change back ([`carried`] takes along what follows from it): send an enrolment again under the same id, a receipt
//! as it is.

mod bench;
mod carried;
mod clock;
#[cfg(test)]
mod doubles;
mod error;
mod galleries;
mod outcome;
mod search;
mod settings;
mod sqlite;
mod state;
mod store;
mod tally;

use std::{
    fmt,
    sync::{Arc, OnceLock, Weak},
    time::SystemTime,
};

use vultus_index::IndexError;
use zeroize::Zeroizing;

pub use bench::{EnrolReport, ErasureReport, bench_enrol, bench_erasures};
pub use carried::{Lease, carried};
pub use clock::{Clock, Clocks, MachineClocks, ServiceTime};
pub use error::{CaseError, CreateError, EnrolError, EraseError, OpenError, SearchError, SpendError, StoreError};
pub use galleries::Galleries;
pub use outcome::Outcome;
pub use search::Found;
pub use settings::Settings;
pub use tally::Tally;

use self::{
    search::Searches,
    state::State,
    store::{Change, Finish, FollowError, SealedReference, Store, StoredGallery, StoredReference},
};
use crate::{
    domain::{
        Case, CaseId, CaseSummary, ExtractionVersion, GalleryName, Judgement, ModelDigest, Reference, ReferenceId,
        SubjectId, Template,
    },
    seal::{NotAuthentic, RootKey, SealError, Sealer, random},
};

/// One gallery, open.
pub struct Gallery {
    key: i64,
    uid: [u8; 16],
    name: GalleryName,
    model: ModelDigest,
    /// What the model was called when the gallery was made: templates are sealed for it.
    sealed_for: ModelDigest,
    dimension: usize,
    created_at: SystemTime,
    sealer: Sealer,
    /// Follows the store, right after each commit.
    state: State,
    searches: Arc<Searches>,
    max_references_per_subject: usize,
    clock: Arc<Clock>,
    store: Arc<OnceLock<Weak<dyn Store>>>,
}

/// What a search found, to be recorded for its receipt.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The case that it opens; `None` when there was no duplicate.
    pub case: Option<Case>,
    /// The state that was searched, as [`Found`] says it.
    pub epoch: u64,
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
    /// How its face was found.
    pub extraction: ExtractionVersion,
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
    /// How the faces of references were found, and of how many each.
    pub extractions: Vec<(ExtractionVersion, usize)>,
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
        &self.clock
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
            extractions: state.extractions(),
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
        let id = match new.id {
            Some(id) => id,
            None => ReferenceId::from_random_bytes(random()?),
        };
        let sealed = self.seal(id, &new.subject, &new.template)?;
        let NewReference { subject, extraction, .. } = new;
        self.store()?.enrol(self.key, SealedReference { id, subject, sealed, extraction }).await
    }

    /// Erases from the store, the index and all candidate lists; done when it returns. What is not there counts 0.
    pub async fn erase(&self, selector: Selector) -> Result<Erased, EraseError> {
        self.store()?.erase(self.key, selector).await
    }

    /// The subject's references in the order of enrolment; none for an unknown subject. Reads what the index keeps.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] where one of them cannot be read: a claim is never compared with the others alone.
    pub fn references_of(&self, subject: &SubjectId) -> Result<Vec<Reference>, StoreError> {
        self.claim(subject).map(|claim| claim.1)
    }

    /// As [`Self::references_of`], with the state in which they stand.
    pub fn claim(&self, subject: &SubjectId) -> Result<(u64, Vec<Reference>), StoreError> {
        let state = self.state.published();
        let references = state.references_of(subject, self.model);
        Ok((state.epoch, references.map_err(|e| StoreError::Unreadable(e.to_string().into()))?))
    }

    /// Whether the subject has a reference. Reads memory only.
    pub fn knows(&self, subject: &SubjectId) -> bool {
        self.state.published().count_of(subject) > 0
    }

    /// Whether the subject has this reference. Reads memory only.
    pub fn holds(&self, subject: &SubjectId, id: ReferenceId) -> bool {
        self.held_at(subject, id).is_some()
    }

    /// The state in which the subject has this reference, where it does. Reads memory only.
    pub fn held_at(&self, subject: &SubjectId, id: ReferenceId) -> Option<u64> {
        let state = self.state.published();
        state.holds(subject, id).then_some(state.epoch)
    }

    /// What was recorded for a receipt; `None` if it is not spent. Reads beside the writer.
    pub async fn outcome(&self, nonce: [u8; 16]) -> Result<Option<Outcome>, StoreError> {
        self.store()?.outcome(nonce).await
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
        self.store()?.finish_identification(self.key, Finish { nonce, expires, finding }).await
    }

    /// Open cases, oldest first, `most` at most, from behind the case `after` on. Reads beside the writer.
    ///
    /// # Errors
    /// [`CaseError::NoSuchPage`] when `after` is no case of this gallery, or not any more.
    pub async fn open_cases(&self, after: Option<CaseId>, most: usize) -> Result<Vec<CaseSummary>, CaseError> {
        self.store()?.open_cases(self.key, after, most).await
    }

    /// Records what a reviewer found, beside what was recorded before; durable when it returns. False when there is no such case here.
    pub async fn judge(&self, id: CaseId, judged: Judgement) -> Result<bool, CaseError> {
        self.store()?.judge(self.key, id, judged).await
    }

    /// # Errors
    /// [`StoreError::Closed`].
    fn store(&self) -> Result<Arc<dyn Store>, StoreError> {
        self.store.get().and_then(Weak::upgrade).ok_or(StoreError::Closed)
    }

    /// What the feed tells of this gallery, which has then come to the position.
    fn follow(&self, changes: Vec<Change>, position: u64) -> Result<(), FollowError> {
        let opened = |change| match change {
            Change::Erased(rows) => Ok(state::Change::Erased(rows)),
            Change::Enrolled(StoredReference { seq, reference, enrolled_at, .. }) => {
                let SealedReference { id, subject, sealed, extraction } = reference;
                let template = self.open(id, &subject, &sealed).map_err(|_| FollowError::Unopened(id))?;
                Ok(state::Change::Enrolled { seq, row: state::Row { id, subject, enrolled_at, extraction }, template })
            }
        };
        let changes = changes.into_iter().map(opened).collect::<Result<_, FollowError>>()?;
        Ok(self.state.apply(changes, position)?)
    }

    fn new(
        stored: StoredGallery,
        root: &RootKey,
        store: Arc<OnceLock<Weak<dyn Store>>>,
        settings: &Settings,
        clock: Arc<Clock>,
    ) -> Result<Self, IndexError> {
        let StoredGallery { key, uid, name, model: sealed_for, dimension, position, created_at } = stored;
        // Of the same model under its name of today. Templates stay sealed for the one that they were made under.
        let model =
            settings.renamed_model.filter(|(before, _)| *before == sealed_for).map_or(sealed_for, |(_, now)| now);
        Ok(Self {
            key,
            uid,
            name,
            model,
            sealed_for,
            dimension,
            created_at,
            sealer: root.sealer(&format!("vultus gallery v1 {}", hex::encode(uid))),
            state: State::new(settings.indexes.make(dimension)?, position),
            searches: Arc::new(Searches::new(settings.searches_at_once)),
            max_references_per_subject: settings.max_references_per_subject,
            clock,
            store,
        })
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
        [self.uid.as_slice(), id.as_bytes(), self.sealed_for.as_bytes(), subject.as_str().as_bytes()].concat()
    }
}

impl fmt::Debug for Gallery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gallery({})", self.name)
    }
}

#[cfg(test)]
mod tests;
