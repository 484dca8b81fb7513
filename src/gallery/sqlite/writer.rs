//! The writer: takes what is queued, commits it as one, follows in memory, answers.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::RecvTimeoutError,
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    batch::{Answer, Batch, Erasure, Pending},
    changes::Books,
    counts,
    file::{is_busy, is_full},
    known::Held,
    reader::Readers,
    reserve::Reserve,
};
use crate::{
    domain::{CaseId, GalleryName, Judgement, ModelDigest},
    gallery::{
        CaseError, CreateError, EnrolError, Enrolled, EraseError, Erased, Outcome, Selector, ServiceTime, SpendError,
        StoreError,
        clock::LONGEST_LOOK,
        store::{Finish, Follower, SealedReference},
    },
};

/// What the writer is asked for. Galleries go by key.
pub(super) enum Op {
    Create {
        name: GalleryName,
        model: ModelDigest,
        dimension: usize,
        answer: Answer<(), CreateError>,
    },
    Enrol {
        gallery: i64,
        reference: SealedReference,
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

/// How often the writer asks itself what is due.
const TICK: Duration = Duration::from_secs(1);

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
    books: Books,
    reserve: Reserve,
    follower: Arc<dyn Follower>,
    readers: Arc<Readers>,
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
    pub(super) fn new(books: Books, reserve: Reserve, follower: Arc<dyn Follower>, readers: Arc<Readers>) -> Self {
        let (purged_at, log_is_due, failed, has_failed) = (None, None, None, Arc::default());
        Self { books, reserve, follower, readers, purged_at, log_is_due, failed, has_failed }
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
        let most = self.books.settings.commit_batch_max.max(1);
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
        self.readers.close();
    }

    /// Whether something is due, also when nobody asks for anything.
    fn has_to_do(&self) -> bool {
        let interval = self.books.settings.purge_interval.min(LONGEST_LOOK);
        self.log_is_due.is_some() || self.purged_at.is_none_or(|at| at.elapsed() >= interval)
    }

    /// Gives up the reserve; what the log holds moves into the file as far as it can.
    fn make_room(&mut self) {
        self.reserve.give_up();
        let _ = self.books.file.empty_log(); // the next commit shows whether it was enough
    }

    /// One transaction, one sync, for all of `ops`. What to erase when the disk was full comes back unanswered if it shall be
    /// tried `again`.
    fn commit(&mut self, ops: impl Iterator<Item = Op>, again: bool) -> Vec<Op> {
        let mut batch = Batch::new(self.failed.clone());
        batch.attempt(|_| self.books.file.begin());
        let kept = self.books.clock.look();
        batch.attempt(|_| self.books.file.keep_clock(kept));
        let purges =
            self.purged_at.is_none_or(|at| at.elapsed() >= self.books.settings.purge_interval.min(LONGEST_LOOK));
        if purges {
            batch.attempt(|_| self.purge(kept.service));
        }
        for op in ops {
            self.execute(op, &mut batch);
        }
        batch.attempt(|batch| {
            let mut touched = batch.touched.iter();
            touched.try_for_each(|(key, touched)| self.books.file.set_epoch(*key, touched.position))
        });
        batch.attempt(|_| self.books.file.commit());
        if batch.failure.is_some() && self.failed.is_none() && self.books.file.rollback().is_err() {
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
            match self.books.file.empty_log() {
                Ok(()) => {
                    self.log_is_due = None;
                    return Ok(());
                }
                Err(e) if is_busy(&e) => self.readers.interrupt(),
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

    /// Tells what was committed.
    fn follow(&mut self, batch: &mut Batch) {
        if batch.counted
            && let Ok(tally) = counts::read(&self.books.file.0)
        {
            tally.show();
        }
        let mut followed = Ok(());
        for gallery in std::mem::take(&mut batch.created) {
            self.books.known.insert(gallery.key, Held { gallery: gallery.clone(), references: 0 });
            followed = followed.and(self.follower.created(gallery));
        }
        for (key, touched) in std::mem::take(&mut batch.touched) {
            let Some(held) = self.books.known.get_mut(&key) else { continue };
            (held.gallery.position, held.references) = (touched.position, touched.references);
            // An operation that changed nothing touched it, too.
            if !touched.changes.is_empty() {
                followed = followed.and(self.follower.changed(key, touched.changes, touched.position));
            }
        }
        if let Err(e) = followed {
            batch.failure.get_or_insert(StoreError::Failed(e.to_string().into()));
        }
    }

    fn execute(&self, op: Op, batch: &mut Batch) {
        match op {
            Op::Create { name, model, dimension, answer } => {
                batch.step(answer, |batch| self.books.create(batch, name, model, dimension));
            }
            Op::Enrol { gallery, reference, answer } => {
                batch.step(answer, |batch| self.books.enrol(batch, gallery, reference));
            }
            Op::Erase { gallery, selector, answer } => {
                let erased = batch.attempt(|batch| self.books.erase(batch, gallery, &selector));
                let erased = erased.unwrap_or_else(|| Err(StoreError::Closed.into()));
                batch.erasures.push(Erasure { gallery, selector, answer, erased });
            }
            Op::Finish { gallery, finish, answer } => {
                batch.step(answer, |batch| self.books.finish(batch, gallery, &finish));
            }
            Op::Judge { gallery, id, judged, answer } => {
                batch.step(answer, |batch| self.books.judge(batch, gallery, id, &judged));
            }
            Op::Tick => {}
            #[cfg(test)]
            Op::Call(work) => work(),
        }
    }

    fn purge(&mut self, now: ServiceTime) -> Result<(), rusqlite::Error> {
        self.purged_at = Some(Instant::now());
        self.books
            .file
            .purge(now.before(self.books.settings.receipt_grace), now.before(self.books.settings.case_retention))
    }
}

/// Tells the writer every [`TICK`] that time passes, until the sender that it returns is dropped or the writer ends.
pub(super) fn keep_time(queue: mpsc::WeakSender<Op>) -> io::Result<std::sync::mpsc::SyncSender<()>> {
    let (ends, end) = std::sync::mpsc::sync_channel::<()>(0);
    thread::Builder::new().name("gallery-clock".into()).spawn(move || {
        while end.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            match queue.upgrade() {
                // A full queue keeps the time with its next commit.
                Some(queue) => drop(queue.try_send(Op::Tick)),
                None => return,
            }
        }
    })?;
    Ok(ends)
}
