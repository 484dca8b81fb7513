//! The writer: takes what is queued, commits it as one, follows in memory, answers.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    CaseError, CreateError, EnrolError, Enrolled, EraseError, Erased, Finding, Gallery, Outcome, Selector, ServiceTime,
    Settings, Shared, SpendError, StoreError, Tally,
    batch::{Batch, Erasure, Pending},
    clock::LONGEST_LOOK,
    galleries::Map,
    reserve::Reserve,
    store::{Store, is_busy, is_full},
};
use crate::{
    domain::{CaseId, GalleryName, Judgement, ModelDigest, ReferenceId, SubjectId, Template},
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
    Finish {
        gallery: i64,
        finish: Box<Finish>,
        answer: Answer<(Outcome, bool), SpendError>,
    },
    Judge {
        gallery: i64,
        id: CaseId,
        judged: Judgement,
        answer: Answer<bool, CaseError>,
    },
    /// Nothing but to keep the time, and to delete what has expired.
    Tick,
    #[cfg(test)]
    Call(Box<dyn FnOnce() + Send>),
}

/// A reference that fits its gallery, sealed by the caller's thread.
pub(super) struct Prepared {
    pub id: ReferenceId,
    pub subject: SubjectId,
    pub template: Template,
    pub sealed: Vec<u8>,
}

/// The end of a search.
pub(super) struct Finish {
    pub nonce: [u8; 16],
    pub expires: ServiceTime,
    pub finding: Finding,
}

/// How long a commit that erased waits for readers of the write-ahead log at most. Ours are broken off; where another program's goes on,
/// the log is emptied later.
const LOG_PATIENCE: Duration = Duration::from_millis(200);

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
    pub(super) store: Store,
    reserve: Reserve,
    pub(super) galleries: BTreeMap<i64, Arc<Gallery>>,
    by_name: Map,
    pub(super) root: RootKey,
    pub(super) settings: Settings,
    pub(super) queue: mpsc::WeakSender<Op>,
    pub(super) shared: Shared,
    purged_at: Option<Instant>,
    /// The write-ahead log holds something erased, as a reader kept it; with the last try beside that.
    log_is_due: Option<Option<Instant>>,
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
    #[expect(clippy::too_many_arguments, reason = "each is one thing that the writer owns")]
    pub(super) fn new(
        store: Store,
        reserve: Reserve,
        galleries: BTreeMap<i64, Arc<Gallery>>,
        by_name: Map,
        root: RootKey,
        settings: Settings,
        queue: mpsc::WeakSender<Op>,
        shared: Shared,
    ) -> Self {
        let (purged_at, log_is_due, failed, has_failed) = (None, None, None, Arc::default());
        Self {
            store,
            reserve,
            galleries,
            by_name,
            root,
            settings,
            queue,
            shared,
            purged_at,
            log_is_due,
            failed,
            has_failed,
        }
    }

    /// The log was found with something in it, and could not be emptied: the next commit tries at once.
    pub(super) fn owe_log(&mut self) {
        self.log_is_due = Some(None);
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
            if taken.iter().all(|op| matches!(op, Op::Tick)) && !self.has_to_do() {
                taken.clear();
                continue;
            }
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
        self.shared.reader.close();
    }

    /// Whether something is due, also when nobody asks for anything.
    fn has_to_do(&self) -> bool {
        let interval = self.settings.purge_interval.min(LONGEST_LOOK);
        self.log_is_due.is_some() || self.purged_at.is_none_or(|at| at.elapsed() >= interval)
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
        let kept = self.shared.clock.look();
        batch.attempt(|_| self.store.keep_clock(kept));
        let purges = self.purged_at.is_none_or(|at| at.elapsed() >= self.settings.purge_interval.min(LONGEST_LOOK));
        if purges {
            batch.attempt(|_| self.purge(kept.service));
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
            if (erased || self.log_is_due.is_some())
                && let Err(e) = self.empty_log(erased)
            {
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

    /// A reader of ours that keeps the log is broken off, and begins again. Who goes on reading is no reason to fail, nor to keep others
    /// waiting: then the log is emptied later, and tried now and then.
    fn empty_log(&mut self, erased: bool) -> Result<(), rusqlite::Error> {
        let patience = match self.log_is_due {
            None => LOG_PATIENCE,
            Some(Some(tried)) if tried.elapsed() < 10 * LOG_PATIENCE => return Ok(()),
            Some(_) => Duration::ZERO,
        };
        let begun = Instant::now();
        loop {
            match self.store.empty_log() {
                Ok(()) => {
                    self.log_is_due = None;
                    return Ok(());
                }
                Err(e) if is_busy(&e) => self.shared.reader.interrupt(),
                // The reserve is for erasing: what was erased before waits for room.
                Err(e) if is_full(&e) && !erased => break,
                Err(e) if is_full(&e) && self.reserve.give_up() => continue,
                Err(e) => return Err(e),
            }
            if begun.elapsed() >= patience {
                break;
            }
        }
        if self.log_is_due.replace(Some(Instant::now())).is_none() {
            tracing::warn!("somebody reads the store and keeps its write-ahead log: it is emptied later");
        }
        Ok(())
    }

    /// Brings memory to the state of the store.
    fn follow(&mut self, batch: &mut Batch) {
        if batch.counted
            && let Ok(tally) = Tally::read(&self.store.0)
        {
            tally.show();
        }
        for (key, touched) in std::mem::take(&mut batch.touched) {
            let Some(gallery) = self.galleries.get(&key) else { continue };
            if let Err(e) = gallery.state.apply(touched.changes, touched.epoch) {
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
            Op::Finish { gallery, finish, answer } => {
                batch.step(answer, |batch| self.finish(batch, gallery, &finish));
            }
            Op::Judge { gallery, id, judged, answer } => {
                batch.step(answer, |batch| self.judge(batch, gallery, id, &judged));
            }
            Op::Tick => {}
            #[cfg(test)]
            Op::Call(work) => work(),
        }
    }

    fn purge(&mut self, now: ServiceTime) -> Result<(), rusqlite::Error> {
        self.purged_at = Some(Instant::now());
        self.store.purge(now.before(self.settings.receipt_grace), now.before(self.settings.case_retention))
    }
}
