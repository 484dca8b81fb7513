//! The writer: takes what is queued, commits it as one, follows in memory, answers.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Instant, SystemTime},
};

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::{
    CaseError, CreateError, EnrolError, Enrolled, EraseError, Erased, Gallery, Selector, Settings, SpendError,
    StoreError,
    batch::{Batch, Erasure, Pending, Step},
    galleries::Map,
    reserve::Reserve,
    state::{Change, Row},
    store::{self, GalleryRow, Store, is_full},
};
use crate::{
    domain::{Case, CaseId, GalleryName, ModelDigest, ReferenceId, SubjectId, Template},
    seal::RootKey,
};

pub(super) type Answer<T, E> = oneshot::Sender<Result<T, E>>;

/// What the writer is asked for. Galleries go by key.
pub(super) enum Op {
    Create {
        name: GalleryName,
        model: ModelDigest,
        dimension: usize,
        answer: Answer<Arc<Gallery>, CreateError>,
    },
    Enrol {
        gallery: i64,
        prepared: Prepared,
        answer: Answer<Enrolled, EnrolError>,
    },
    Erase {
        gallery: i64,
        selector: Selector,
        answer: Answer<Erased, EraseError>,
    },
    Spend {
        nonce: [u8; 16],
        expires_at: SystemTime,
        answer: Answer<(), SpendError>,
    },
    OpenCase {
        case: Box<Case>,
        answer: Answer<(), CaseError>,
    },
    Case {
        id: CaseId,
        answer: Answer<Option<Case>, CaseError>,
    },
    #[cfg(test)]
    Call(fn()),
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
    reserve: Reserve,
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

impl Drop for Writer {
    fn drop(&mut self) {
        if thread::panicking() {
            self.has_failed.store(true, Ordering::Release);
        }
    }
}

impl Writer {
    pub(super) fn new(
        store: Store,
        reserve: Reserve,
        galleries: BTreeMap<i64, Arc<Gallery>>,
        by_name: Map,
        root: RootKey,
        settings: Settings,
        queue: mpsc::WeakSender<Op>,
    ) -> Self {
        let has_failed = Arc::default();
        Self { store, reserve, galleries, by_name, root, settings, queue, purged_at: None, failed: None, has_failed }
    }

    /// True once nothing is written any more.
    pub(super) fn has_failed(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.has_failed)
    }

    /// Ends when every sender is gone and the queue is empty.
    pub(super) fn run(mut self, mut ops: mpsc::Receiver<Op>) {
        let most = self.settings.commit_batch_max.max(1);
        let mut taken = Vec::with_capacity(most);
        while ops.blocking_recv_many(&mut taken, most) > 0 {
            let purged_at = self.purged_at;
            let erasures = self.commit(taken.drain(..), self.reserve.is_kept());
            if !erasures.is_empty() {
                self.make_room();
                self.commit(erasures.into_iter(), false);
            }
            if self.purged_at != purged_at {
                self.reserve.keep(); // as often as that, and after the answers
            }
        }
    }

    /// Gives up the reserve; what the log holds moves into the file as far as it can.
    fn make_room(&mut self) {
        self.reserve.give_up();
        let _ = self.store.empty_log(); // the next commit shows whether it was enough
    }

    /// One transaction, one sync, for all of `ops`. What to erase when the disk was full comes back unanswered if it shall be
    /// tried `again`.
    fn commit(&mut self, ops: impl Iterator<Item = Op>, again: bool) -> Vec<Op> {
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
            if erased && let Err(e) = self.empty_log() {
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
        let full = matches!(batch.failure, Some(StoreError::Full));
        let mut unanswered = Vec::new();
        for Erasure { gallery, selector, answer, erased } in batch.erasures {
            if full && again {
                unanswered.push(Op::Erase { gallery, selector, answer });
            } else {
                Box::new((answer, erased)).deliver(batch.failure.as_ref());
            }
        }
        unanswered
    }

    fn empty_log(&mut self) -> Result<(), rusqlite::Error> {
        match self.store.empty_log() {
            Err(e) if is_full(&e) && self.reserve.give_up() => self.store.empty_log(),
            emptied => emptied,
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
        if batch.created.is_empty() {
            // Not even for a moment: who waits to write keeps new readers waiting, until the last reader has gone on, which may be a
            // thread that runs when a core is idle.
            return;
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
                let erased = batch.attempt(|batch| self.erase(batch, gallery, &selector));
                let erased = erased.unwrap_or_else(|| Err(StoreError::Closed.into()));
                batch.erasures.push(Erasure { gallery, selector, answer, erased });
            }
            Op::Spend { nonce, expires_at, answer } => batch.step(answer, |_| self.spend(nonce, expires_at)),
            Op::OpenCase { case, answer } => batch.step(answer, |batch| self.open_case(batch, &case)),
            Op::Case { id, answer } => batch.step(answer, |_| self.case(id)),
            #[cfg(test)]
            Op::Call(work) => work(),
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
        let damaged = || Ok(Err(CaseError::Damaged { id }));
        let row = match self.store.case(id) {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(Ok(None)),
            // One row that does not convert concerns nobody but who asks for it.
            Err(e) if e.sqlite_error_code().is_none() => return damaged(),
            Err(e) => return Err(e),
        };
        let Some(gallery) = self.galleries.get(&row.gallery) else { return damaged() };
        if row.opened_at.checked_add(self.settings.case_retention).is_some_and(|end| end < SystemTime::now()) {
            return Ok(Ok(None));
        }
        row.into_case(id, gallery.name.clone()).map_or_else(damaged, |case| Ok(Ok(Some(case))))
    }

    fn purge(&mut self) -> Result<(), rusqlite::Error> {
        self.purged_at = Some(Instant::now());
        let now = SystemTime::now();
        let before = |age| now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        self.store.purge(before(self.settings.receipt_grace), before(self.settings.case_retention))
    }
}
