//! The writer: takes what is queued, commits it as one, follows in memory, answers.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Instant, SystemTime},
};

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::{
    CaseError, CreateError, EnrolError, Enrolled, EraseError, Erased, Gallery, Selector, Settings, SpendError,
    StoreError,
    galleries::Map,
    state::{Change, Row},
    store::{self, GalleryRow, Store, store_error},
};
use crate::{
    domain::{CandidateList, Case, CaseId, GalleryName, ModelDigest, Purpose, ReferenceId, Score, SubjectId, Template},
    seal::RootKey,
};

type Answer<T, E> = oneshot::Sender<Result<T, E>>;

/// What the writer is asked for. Galleries go by key.
pub(super) enum Op {
    Create { name: GalleryName, model: ModelDigest, dimension: usize, answer: Answer<Arc<Gallery>, CreateError> },
    Enrol { gallery: i64, prepared: Prepared, answer: Answer<Enrolled, EnrolError> },
    Erase { gallery: i64, selector: Selector, answer: Answer<Erased, EraseError> },
    Spend { nonce: [u8; 16], expires_at: SystemTime, answer: Answer<(), SpendError> },
    OpenCase { case: Box<Case>, answer: Answer<(), CaseError> },
    Case { id: CaseId, answer: Answer<Option<Case>, CaseError> },
}

/// A reference that fits its gallery, sealed by the caller's thread.
pub(super) struct Prepared {
    pub id: ReferenceId,
    pub subject: SubjectId,
    pub template: Template,
    pub sealed: Vec<u8>,
}

/// Queues an operation and waits for its answer.
pub(super) async fn ask<T, E: From<StoreError>>(
    queue: Option<mpsc::Sender<Op>>,
    op: impl FnOnce(Answer<T, E>) -> Op,
) -> Result<T, E> {
    let (answer, answered) = oneshot::channel();
    queue.ok_or(StoreError::Closed)?.send(op(answer)).await.map_err(|_| StoreError::Closed)?;
    answered.await.map_err(|_| StoreError::Closed)?
}

pub(super) struct Writer {
    store: Store,
    galleries: BTreeMap<i64, Arc<Gallery>>,
    by_name: Map,
    root: RootKey,
    settings: Settings,
    queue: mpsc::WeakSender<Op>,
    purged_at: Option<Instant>,
    /// Why nothing is written any more.
    failed: Option<StoreError>,
    /// Tells everyone else that it is so.
    has_failed: Arc<AtomicBool>,
}

impl Writer {
    pub(super) fn new(
        store: Store,
        galleries: BTreeMap<i64, Arc<Gallery>>,
        by_name: Map,
        root: RootKey,
        settings: Settings,
        queue: mpsc::WeakSender<Op>,
        has_failed: Arc<AtomicBool>,
    ) -> Self {
        Self { store, galleries, by_name, root, settings, queue, purged_at: None, failed: None, has_failed }
    }

    /// Ends when every sender is gone and the queue is empty.
    pub(super) fn run(mut self, mut ops: mpsc::Receiver<Op>) {
        let most = self.settings.commit_batch_max.max(1);
        let mut taken = Vec::with_capacity(most);
        while ops.blocking_recv_many(&mut taken, most) > 0 {
            self.commit(taken.drain(..));
        }
    }

    /// One transaction, one sync, for all of `ops`.
    fn commit(&mut self, ops: impl Iterator<Item = Op>) {
        let mut batch = Batch::new(self.failed.clone());
        batch.attempt(|_| self.store.begin());
        if self.purged_at.is_none_or(|at| at.elapsed() >= self.settings.purge_interval) {
            batch.attempt(|_| self.purge());
        }
        for op in ops {
            self.execute(op, &mut batch);
        }
        batch.attempt(|batch| {
            batch.touched.iter().try_for_each(|(key, touched)| self.store.set_epoch(*key, touched.epoch))
        });
        batch.attempt(|_| self.store.commit());
        if batch.failure.is_some() && self.failed.is_none() && self.store.rollback().is_err() {
            // Not even the way back works: no longer a matter of room.
            batch.failure = Some(StoreError::Failed("a failed change could not be rolled back".into()));
        }
        if batch.failure.is_none() {
            let erased = batch.touched.values().any(|touched| touched.erased);
            self.follow(&mut batch);
            if erased && let Err(e) = self.store.empty_log() {
                let what = format!("erased, but the write-ahead log was not emptied: {e}");
                batch.failure.get_or_insert(StoreError::Failed(what.into()));
            }
        }
        if let Some(failure @ (StoreError::Failed(_) | StoreError::Closed)) = &batch.failure {
            self.failed = Some(failure.clone());
            self.has_failed.store(true, Ordering::Release);
        }
        for answer in batch.answers {
            answer.deliver(batch.failure.as_ref());
        }
    }

    /// Brings memory to the state of the store.
    fn follow(&mut self, batch: &mut Batch) {
        for (key, touched) in std::mem::take(&mut batch.touched) {
            let Some(gallery) = self.galleries.get(&key) else { continue };
            let mut state = gallery.state.write().unwrap_or_else(PoisonError::into_inner);
            if let Err(e) = state.apply(touched.changes, touched.epoch) {
                batch.failure.get_or_insert(StoreError::Failed(e.to_string().into()));
            }
        }
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        for gallery in std::mem::take(&mut batch.created) {
            self.galleries.insert(gallery.key, Arc::clone(&gallery));
            by_name.insert(gallery.name.clone(), gallery);
        }
    }

    fn execute(&self, op: Op, batch: &mut Batch) {
        match op {
            Op::Create { name, model, dimension, answer } => {
                batch.step(answer, |batch| self.create(batch, name, model, dimension));
            }
            Op::Enrol { gallery, prepared, answer } => {
                batch.step(answer, |batch| self.enrol(batch, gallery, prepared));
            }
            Op::Erase { gallery, selector, answer } => {
                batch.step(answer, |batch| self.erase(batch, gallery, &selector));
            }
            Op::Spend { nonce, expires_at, answer } => batch.step(answer, |_| self.spend(nonce, expires_at)),
            Op::OpenCase { case, answer } => batch.step(answer, |batch| self.open_case(batch, &case)),
            Op::Case { id, answer } => batch.step(answer, |_| self.case(id)),
        }
    }

    fn create(
        &self,
        batch: &mut Batch,
        name: GalleryName,
        model: ModelDigest,
        dimension: usize,
    ) -> Step<Arc<Gallery>, CreateError> {
        let mut known = self.galleries.values().chain(&batch.created);
        if let Some(gallery) = known.find(|g| g.name == name) {
            return Ok(Ok(Arc::clone(gallery)));
        }
        let limit = self.settings.max_galleries;
        if self.galleries.len() + batch.created.len() >= limit {
            return Ok(Err(CreateError::TooMany { limit }));
        }
        let mut row = GalleryRow {
            key: 0,
            uid: *Uuid::new_v4().as_bytes(),
            name: name.as_str().into(),
            model: *model.as_bytes(),
            dimension,
            epoch: 0,
            created_at: store::now(),
        };
        row.key = self.store.insert_gallery(&row)?;
        let gallery = Arc::new(Gallery::new(row, name, &self.root, self.queue.clone(), &self.settings));
        batch.created.push(Arc::clone(&gallery));
        Ok(Ok(gallery))
    }

    fn enrol(&self, batch: &mut Batch, key: i64, new: Prepared) -> Step<Enrolled, EnrolError> {
        let Some(touched) = batch.touch(&self.galleries, key) else { return Ok(Err(StoreError::Closed.into())) };
        if let Some((gallery, subject)) = self.store.owner(new.id)? {
            return Ok(if gallery == key && subject == new.subject.as_str() {
                Ok(Enrolled { id: new.id, epoch: touched.epoch, repeated: true })
            } else {
                Err(EnrolError::Exists { id: new.id })
            });
        }
        let limit = self.settings.max_references;
        if touched.references >= limit {
            return Ok(Err(EnrolError::GalleryFull { limit }));
        }
        let limit = self.settings.max_references_per_subject;
        if self.store.count_of_subject(key, &new.subject)? >= limit {
            return Ok(Err(EnrolError::TooManyForSubject { limit }));
        }
        let enrolled_at = store::now();
        let seq = self.store.insert_reference(key, new.id, &new.subject, &new.sealed, enrolled_at)?;
        touched.references += 1;
        touched.epoch += 1;
        let row = Row { id: new.id, subject: new.subject, enrolled_at };
        touched.changes.push(Change::Enrolled { seq, row, template: new.template });
        Ok(Ok(Enrolled { id: new.id, epoch: touched.epoch, repeated: false }))
    }

    fn erase(&self, batch: &mut Batch, key: i64, selector: &Selector) -> Step<Erased, EraseError> {
        let Some(touched) = batch.touch(&self.galleries, key) else { return Ok(Err(StoreError::Closed.into())) };
        let gone = match selector {
            Selector::Subject(subject) => self.store.erase_subject(key, subject)?,
            Selector::Reference(id) => self.store.erase_reference(key, *id)?,
        };
        let references = gone.len();
        if references > 0 {
            touched.references = touched.references.saturating_sub(references);
            touched.epoch += 1;
            touched.erased = true;
            touched.changes.push(Change::Erased(gone));
        }
        Ok(Ok(Erased { references, epoch: touched.epoch }))
    }

    fn spend(&self, nonce: [u8; 16], expires_at: SystemTime) -> Step<(), SpendError> {
        // An expired one may have been forgotten already.
        if expires_at <= SystemTime::now() {
            return Ok(Err(SpendError::Expired));
        }
        Ok(if self.store.spend(nonce, expires_at)? { Ok(()) } else { Err(SpendError::AlreadySpent) })
    }

    fn open_case(&self, batch: &Batch, case: &Case) -> Step<(), CaseError> {
        let mut known = self.galleries.values().chain(&batch.created);
        let Some(gallery) = known.find(|g| g.name == case.gallery) else {
            return Ok(Err(CaseError::NoGallery { name: case.gallery.clone() }));
        };
        let fresh = self.store.insert_case(gallery.key, case)?;
        Ok(if fresh { Ok(()) } else { Err(CaseError::Exists { id: case.id }) })
    }

    fn case(&self, id: CaseId) -> Step<Option<Case>, CaseError> {
        let Some(row) = self.store.case(id)? else { return Ok(Ok(None)) };
        let unreadable = || StoreError::Failed(format!("case {id} is damaged").into());
        let (Some(gallery), Some((claimed, opened_by)), Some(opened_for)) =
            (self.galleries.get(&row.gallery), row.texts(), Purpose::parse(&row.opened_for))
        else {
            return Ok(Err(unreadable().into()));
        };
        if row.opened_at + self.settings.case_retention < SystemTime::now() {
            return Ok(Ok(None));
        }
        let mut found = Vec::with_capacity(row.candidates.len());
        for (subject, reference, score) in row.candidates {
            let (Ok(subject), Some(score)) = (SubjectId::new(&subject), Score::new(score as f32)) else {
                return Ok(Err(unreadable().into()));
            };
            found.push((subject, reference, score));
        }
        let most = found.len();
        Ok(Ok(Some(Case {
            id,
            gallery: gallery.name.clone(),
            claimed,
            opened_at: row.opened_at,
            opened_by,
            opened_for,
            model: ModelDigest::new(row.model),
            candidates: CandidateList::new(found, most),
        })))
    }

    fn purge(&mut self) -> Result<(), rusqlite::Error> {
        self.purged_at = Some(Instant::now());
        let now = SystemTime::now();
        let before = |age| now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        self.store.purge(before(self.settings.receipt_grace), before(self.settings.case_retention))
    }
}

/// Outside: the store failed, and the whole batch with it. Inside: the caller's answer.
type Step<T, E> = Result<Result<T, E>, rusqlite::Error>;

/// What one transaction has done so far.
struct Batch {
    failure: Option<StoreError>,
    touched: BTreeMap<i64, Touched>,
    created: Vec<Arc<Gallery>>,
    answers: Vec<Box<dyn Pending>>,
}

/// A gallery's part of a batch.
struct Touched {
    epoch: u64,
    references: usize,
    erased: bool,
    changes: Vec<Change>,
}

impl Batch {
    fn new(failure: Option<StoreError>) -> Self {
        Self { failure, touched: BTreeMap::new(), created: Vec::new(), answers: Vec::new() }
    }

    /// Does `work` unless the batch has failed; its failure is the batch's.
    fn attempt<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, rusqlite::Error>) -> Option<T> {
        if self.failure.is_some() {
            return None;
        }
        work(self).map_err(|e| self.failure = Some(store_error(&e))).ok()
    }

    /// As [`Self::attempt`]; keeps the answer until the commit.
    fn step<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        &mut self,
        to: Answer<T, E>,
        work: impl FnOnce(&mut Self) -> Step<T, E>,
    ) {
        let value = self.attempt(work).unwrap_or_else(|| Err(StoreError::Closed.into()));
        self.answers.push(Box::new((to, value)));
    }

    fn touch(&mut self, galleries: &BTreeMap<i64, Arc<Gallery>>, key: i64) -> Option<&mut Touched> {
        match self.touched.entry(key) {
            Entry::Occupied(touched) => Some(touched.into_mut()),
            Entry::Vacant(place) => {
                let state = galleries.get(&key)?.state();
                let (epoch, references) = (state.epoch, state.references());
                Some(place.insert(Touched { epoch, references, erased: false, changes: Vec::new() }))
            }
        }
    }
}

/// An answer that waits for the commit.
trait Pending {
    /// The answer, or `failure` in its place. A caller that has left is no concern.
    fn deliver(self: Box<Self>, failure: Option<&StoreError>);
}

impl<T, E: From<StoreError>> Pending for (Answer<T, E>, Result<T, E>) {
    fn deliver(self: Box<Self>, failure: Option<&StoreError>) {
        let (to, value) = *self;
        let _ = to.send(failure.map_or(value, |failure| Err(failure.clone().into())));
    }
}
