//! The store in one SQLite file: one process, one writer, several readers beside it.
//!
//! A data directory holds one file for all galleries, a lock file and a reserve of room. One thread, the writer, changes the file; what it
//! is asked for while it commits shares the next commit, and so one sync. Cases and outcomes are read beside it.

mod batch;
mod cases;
mod changes;
mod counts;
mod file;
mod known;
mod migrate;
mod reader;
mod reserve;
mod spent;
mod writer;

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use async_trait::async_trait;
use tokio::sync::mpsc;

use self::{
    cases::{case, gallery_of, open_cases},
    changes::Books,
    file::File,
    known::{Held, Known},
    reader::Readers,
    reserve::Reserve,
    writer::{Op, Writer, ask, keep_time},
};
use super::{
    CaseError, Clock, Clocks, CreateError, EnrolError, Enrolled, EraseError, Erased, OpenError, Outcome, Selector,
    Settings, SpendError, StoreError, Tally,
    store::{Change, Finish, FollowError, Follower, SealedReference, Store, StoredGallery, StoredReference},
};
use crate::{
    domain::{Case, CaseId, CaseSummary, GalleryName, Judgement, ModelDigest},
    seal::Sealer,
};

const LOCK_FILE: &str = "galleries.lock";
/// References that are told to a follower together at the start.
const LOAD_ROWS: usize = 1024;

/// Whether a store was ever made in the directory. Looking makes none.
pub(super) fn was_made_in(dir: &Path) -> bool {
    File::is_in(dir) || fs::metadata(dir.join(LOCK_FILE)).is_ok_and(|found| found.len() > 0)
}

/// A store that was opened, and is not served yet.
pub(super) struct Opened {
    file: File,
    reserve: Reserve,
    lock: fs::File,
    log_is_empty: bool,
    settings: Settings,
    clock: Arc<Clock>,
    readers: Arc<Readers>,
}

impl Opened {
    /// Opens the directory, makes it if need be (mode 0700), and locks it. `check` seals the value that tells a wrong key.
    pub(super) fn open(
        dir: &Path,
        check: &Sealer,
        settings: Settings,
        clocks: Arc<dyn Clocks>,
    ) -> Result<Self, OpenError> {
        let mut lock = lock(dir)?;
        let was_made = lock.metadata().is_ok_and(|found| found.len() > 0);
        let (file, log_is_empty) = File::open(dir, was_made, &settings, || Ok(check.seal(b"", b"")?))?;
        if !was_made {
            // Without it a store that is lost looks like one that never was; a full disk is no reason not to serve.
            let _ = lock.write_all(b"a store was made here\n").and_then(|()| lock.sync_all());
        }
        let reserve = Reserve::new(dir, settings.reserve_bytes);
        reserve.keep();
        let fault = |e| file::open_error(e, dir);
        check.open(b"", &file.check_value().map_err(fault)?).map_err(|_| OpenError::WrongKey)?;
        let clock = Arc::new(Clock::resume(clocks, file.clock().map_err(fault)?));
        let readers = Arc::new(Readers::open(dir)?);
        counts::read(&file.0).map_err(fault)?.show();
        Ok(Self { file, reserve, lock, log_is_empty, settings, clock, readers })
    }

    pub(super) fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// Tells the follower every gallery and every reference, then serves: the follower hears of each change from here on.
    pub(super) fn serve(self, follower: Arc<dyn Follower>) -> Result<Sqlite, OpenError> {
        let Self { file, reserve, lock, log_is_empty, settings, clock, readers } = self;
        let (queue, ops) = mpsc::channel(settings.write_queue_depth.max(1));
        let known = load(&file, &*follower)?;
        let (reading, case_retention) = (Arc::clone(&readers), settings.case_retention);
        let books = Books { file, known, settings, clock: Arc::clone(&clock) };
        let mut writer = Writer::new(books, reserve, follower, readers);
        if !log_is_empty {
            writer.owe_log();
        }
        let has_failed = writer.has_failed();
        let thread = thread::Builder::new()
            .name("gallery-writer".into())
            .spawn(move || {
                writer.run(ops);
                drop(lock); // after the store is closed
            })
            .map_err(OpenError::Thread)?;
        let time = keep_time(queue.downgrade()).map_err(OpenError::Thread)?;
        let (queue, thread) = (Mutex::new(Some(queue)), Mutex::new(Some(thread)));
        Ok(Sqlite { queue, thread, has_failed, clock, readers: reading, case_retention, _time: time })
    }
}

/// Held as long as the file is open; a process that dies lets go of it.
fn lock(dir: &Path) -> Result<fs::File, OpenError> {
    let path = dir.join(LOCK_FILE);
    let at = |source| OpenError::Io { path: path.clone(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at)?;
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(at)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError::Locked { path }),
        Err(fs::TryLockError::Error(e)) => Err(at(e)),
    }
}

/// Everything that is stored, told to the follower; what the writer knows of it.
fn load(file: &File, follower: &dyn Follower) -> Result<Known, OpenError> {
    let fault = |e: FollowError| match e {
        FollowError::Unopened(id) => OpenError::Reference { id },
        FollowError::NoGallery(_) => OpenError::Damaged { what: e.to_string() },
        FollowError::Index(e) => OpenError::Index(e),
    };
    let mut known = Known::new();
    for gallery in file.galleries()? {
        follower.created(StoredGallery { position: 0, ..gallery.clone() }).map_err(fault)?;
        known.insert(gallery.key, Held { gallery, references: 0 });
    }
    // Of each gallery: what is to be told, and the position of the last of it.
    let mut pending: BTreeMap<i64, (Vec<Change>, u64)> = known.keys().map(|key| (*key, (vec![], 0))).collect();
    let each = |key: i64, stored: StoredReference| {
        let (Some(held), Some((changes, last))) = (known.get_mut(&key), pending.get_mut(&key)) else {
            return Err(OpenError::Reference { id: stored.reference.id });
        };
        // Its gallery did not have such a position then: nothing that this program wrote.
        if !(*last..=held.gallery.position).contains(&stored.position) {
            return Err(OpenError::Reference { id: stored.reference.id });
        }
        *last = stored.position;
        held.references += 1;
        changes.push(Change::Enrolled(stored));
        if changes.len() >= LOAD_ROWS {
            follower.changed(key, std::mem::take(changes), *last).map_err(fault)?;
        }
        Ok(())
    };
    file.references(each, |id| OpenError::Reference { id })?;
    // All that is left is told: whatever else happened up to the gallery's position were erasures.
    for (key, (changes, _)) in pending {
        if let Some(held) = known.get(&key) {
            follower.changed(key, changes, held.gallery.position).map_err(fault)?;
        }
    }
    Ok(known)
}

/// The store, served.
///
/// Dropping it without [`Store::close`] lets the writer finish what is queued, but nobody hears when it has.
pub(super) struct Sqlite {
    /// The one lasting sender; without it the writer ends when its queue is empty.
    queue: Mutex<Option<mpsc::Sender<Op>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    has_failed: Arc<AtomicBool>,
    clock: Arc<Clock>,
    readers: Arc<Readers>,
    case_retention: std::time::Duration,
    /// Ends the thread that keeps the time when it is dropped.
    _time: std::sync::mpsc::SyncSender<()>,
}

impl Sqlite {
    fn queue(&self) -> Option<mpsc::Sender<Op>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Cases that were opened after it can be read.
    fn cases_since(&self) -> super::ServiceTime {
        self.clock.now().before(self.case_retention)
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn create(&self, name: GalleryName, model: ModelDigest, dimension: usize) -> Result<(), CreateError> {
        ask(self.queue(), |answer| Op::Create { name, model, dimension, answer }).await
    }

    async fn enrol(&self, gallery: i64, reference: SealedReference) -> Result<Enrolled, EnrolError> {
        ask(self.queue(), |answer| Op::Enrol { gallery, reference, answer }).await
    }

    async fn erase(&self, gallery: i64, selector: Selector) -> Result<Erased, EraseError> {
        ask(self.queue(), |answer| Op::Erase { gallery, selector, answer }).await
    }

    async fn finish_identification(&self, gallery: i64, finish: Finish) -> Result<(Outcome, bool), SpendError> {
        ask(self.queue(), |answer| Op::Finish { gallery, finish: Box::new(finish), answer }).await
    }

    async fn judge(&self, gallery: i64, id: CaseId, judged: Judgement) -> Result<bool, CaseError> {
        ask(self.queue(), |answer| Op::Judge { gallery, id, judged, answer }).await
    }

    async fn outcome(&self, nonce: [u8; 16]) -> Result<Option<Outcome>, StoreError> {
        self.readers.read(move |connection| spent::outcome(connection, nonce)).await?.map_err(unreadable)
    }

    async fn open_cases(
        &self,
        gallery: i64,
        after: Option<CaseId>,
        most: usize,
    ) -> Result<Vec<CaseSummary>, CaseError> {
        let since = self.cases_since();
        let rows = self.readers.read(move |connection| open_cases(connection, gallery, since, after, most));
        rows.await?.map_err(unreadable)?.ok_or(CaseError::NoSuchPage)
    }

    async fn case(&self, id: CaseId) -> Result<Option<Case>, CaseError> {
        let since = self.cases_since();
        // One row that does not convert concerns nobody but who asks for it.
        match self.readers.read(move |connection| case(connection, id, since)).await?.map_err(|_| damaged(id))? {
            None => Ok(None),
            Some(row) => row.into_case(id).map(Some).ok_or(damaged(id)),
        }
    }

    async fn gallery_of_case(&self, id: CaseId) -> Result<Option<GalleryName>, CaseError> {
        let name = self.readers.read(move |connection| gallery_of(connection, id)).await?.map_err(|_| damaged(id))?;
        name.map(|name| GalleryName::new(&name)).transpose().map_err(|_| damaged(id))
    }

    async fn tally(&self) -> Result<Tally, StoreError> {
        self.readers.read(counts::read).await?.map_err(unreadable)
    }

    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    async fn close(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A writer that died has nothing more to say: its callers were told that the galleries are closed.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    #[cfg(test)]
    async fn in_turn(&self, work: Box<dyn FnOnce() + Send>) {
        if let Some(queue) = self.queue() {
            let _ = queue.send(Op::Call(work)).await; // the writer may be gone
        }
    }
}

fn unreadable(error: rusqlite::Error) -> StoreError {
    StoreError::Unreadable(error.to_string().into())
}

const fn damaged(id: CaseId) -> CaseError {
    CaseError::Damaged { id }
}

#[cfg(test)]
mod tests;
