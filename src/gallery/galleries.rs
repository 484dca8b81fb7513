//! All galleries of a data directory.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    CaseError, Clock, Clocks, CreateError, Gallery, MachineClocks, OpenError, Settings, Shared, StoreError, Tally,
    cases,
    clock::keep_time,
    reader::Reader,
    reserve::Reserve,
    state::{Change, Row},
    store::{self, Store},
    writer::{self, Op, Writer},
};
use crate::{
    domain::{Case, CaseId, GalleryName, ModelDigest, SubjectId, Template},
    seal::RootKey,
};

const LOCK_FILE: &str = "galleries.lock";
/// The use of the key that the store's check value is sealed under.
const CHECK_PURPOSE: &str = "vultus store check v1";
/// References that enter the index together at the start.
const LOAD_ROWS: usize = 1024;

pub(super) type Map = Arc<RwLock<BTreeMap<GalleryName, Arc<Gallery>>>>;

/// All galleries of a data directory, which it locks.
///
/// Dropping it without [`Self::close`] lets the writer finish what is queued, but nobody hears when it has.
pub struct Galleries {
    by_name: Map,
    /// The one lasting sender; without it the writer ends when its queue is empty.
    queue: Mutex<Option<mpsc::Sender<Op>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    has_failed: Arc<AtomicBool>,
    shared: Shared,
    /// Ends the thread that keeps the time when it is dropped.
    _time: std::sync::mpsc::SyncSender<()>,
}

impl Galleries {
    /// Whether a store was ever made in the directory. Looking makes none.
    pub fn were_made_in(dir: &Path) -> bool {
        Store::is_in(dir) || fs::metadata(dir.join(LOCK_FILE)).is_ok_and(|found| found.len() > 0)
    }

    /// Opens the directory, makes it if need be (mode 0700), and loads every gallery. Blocks, for about
    /// 16 s per million references of 512 values: each page is checked, each template opened.
    pub fn open(dir: &Path, root: &RootKey, settings: Settings) -> Result<Self, OpenError> {
        Self::open_by(dir, root, settings, Arc::new(MachineClocks))
    }

    /// As [`Self::open`], by other clocks than the machine's.
    pub fn open_by(dir: &Path, root: &RootKey, settings: Settings, clocks: Arc<dyn Clocks>) -> Result<Self, OpenError> {
        let mut lock = lock(dir)?;
        let was_made = lock.metadata().is_ok_and(|found| found.len() > 0);
        let check = root.sealer(CHECK_PURPOSE);
        let (store, log_is_empty) = Store::open(dir, was_made, &settings, || Ok(check.seal(b"", b"")?))?;
        if !was_made {
            // Without it a store that is lost looks like one that never was; a full disk is no reason not to serve.
            let _ = lock.write_all(b"a store was made here\n").and_then(|()| lock.sync_all());
        }
        let reserve = Reserve::new(dir, settings.reserve_bytes);
        reserve.keep();
        let fault = |e| store::open_error(e, dir);
        check.open(b"", &store.check_value().map_err(fault)?).map_err(|_| OpenError::WrongKey)?;

        let clock = Arc::new(Clock::resume(clocks, store.clock().map_err(fault)?));
        let reader = Arc::new(Reader::open(dir)?);
        Tally::read(&store.0).map_err(fault)?.show();
        let shared = Shared { clock, reader, case_retention: settings.case_retention };

        let (queue, ops) = mpsc::channel(settings.write_queue_depth.max(1));
        let galleries = load(&store, root, &queue.downgrade(), &settings, &shared).map_err(|e| match e {
            OpenError::Sqlite(e) => fault(e),
            other => other,
        })?;
        let by_name = galleries.values().map(|g| (g.name.clone(), Arc::clone(g))).collect();
        let by_name: Map = Arc::new(RwLock::new(by_name));
        let mut writer = Writer::new(
            store,
            reserve,
            galleries,
            Arc::clone(&by_name),
            root.clone(),
            settings,
            queue.downgrade(),
            shared.clone(),
        );
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
        Ok(Self { by_name, queue, thread, has_failed, shared, _time: time })
    }

    /// True once the store takes no further changes: only a restart helps.
    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    pub fn get(&self, name: &GalleryName) -> Option<Arc<Gallery>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).map(Arc::clone)
    }

    /// By name.
    pub fn list(&self) -> Vec<Arc<Gallery>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect()
    }

    /// A gallery is made for one model and one dimension, and stays so: asking for another is an error.
    pub async fn get_or_create(
        &self,
        name: &GalleryName,
        model: ModelDigest,
        dimension: usize,
    ) -> Result<Arc<Gallery>, CreateError> {
        if dimension == 0 || dimension > Template::MAX_DIMENSION {
            return Err(CreateError::Dimension { found: dimension });
        }
        let gallery = match self.get(name) {
            Some(gallery) => gallery,
            None => {
                let name = name.clone();
                self.ask(|answer| Op::Create { name, model, dimension, answer }).await?
            }
        };
        if gallery.model != model || gallery.dimension != dimension {
            return Err(CreateError::Model {
                name: name.clone(),
                expected: gallery.model,
                dimension: gallery.dimension,
                found: model,
            });
        }
        Ok(gallery)
    }

    /// The case with the candidates that are still enrolled, ranked anew; `None` if there is none, or its retention is over. Reads
    /// beside the writer.
    pub async fn case(&self, id: CaseId) -> Result<Option<Case>, CaseError> {
        let since = self.shared.cases_since();
        // One row that does not convert concerns nobody but who asks for it.
        let row = self.shared.reader.read(move |connection| cases::case(connection, id, since)).await?;
        match row.map_err(|_| CaseError::Damaged { id })? {
            None => Ok(None),
            Some(row) => row.into_case(id).map(Some).ok_or(CaseError::Damaged { id }),
        }
    }

    /// Whose a case is; `None` if there is none. Reads beside the writer.
    pub async fn gallery_of_case(&self, id: CaseId) -> Result<Option<GalleryName>, CaseError> {
        let read = self.shared.reader.read(move |connection| cases::gallery_of(connection, id)).await?;
        let name = read.map_err(|_| CaseError::Damaged { id })?;
        name.map(|name| GalleryName::new(&name)).transpose().map_err(|_| CaseError::Damaged { id })
    }

    /// What happened since the store was made. Reads beside the writer.
    pub async fn tally(&self) -> Result<Tally, StoreError> {
        let read = self.shared.reader.read(Tally::read).await?;
        read.map_err(|e| StoreError::Unreadable(e.to_string().into()))
    }

    /// The time source of all that expires.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Refuses new changes, finishes those that are queued, closes the store and gives the directory free.
    pub async fn close(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A writer that died has nothing more to say: its callers were told that the galleries are closed.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    async fn ask<T, E: From<StoreError>>(&self, op: impl FnOnce(oneshot::Sender<Result<T, E>>) -> Op) -> Result<T, E> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        writer::ask(queue, op).await
    }
}

impl fmt::Debug for Galleries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
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

/// Every gallery by its key, with all its references opened and indexed.
fn load(
    store: &Store,
    root: &RootKey,
    queue: &mpsc::WeakSender<Op>,
    settings: &Settings,
    shared: &Shared,
) -> Result<BTreeMap<i64, Arc<Gallery>>, OpenError> {
    let mut galleries = BTreeMap::new();
    for row in store.galleries()? {
        let damaged = |what: &str| OpenError::Damaged { what: what.into() };
        let name = GalleryName::new(&row.name).map_err(|_| damaged("a gallery's name is not one"))?;
        if row.dimension == 0 || row.dimension > Template::MAX_DIMENSION {
            return Err(damaged("a gallery's dimension is out of range"));
        }
        let gallery = Gallery::new(row, name, root, queue.clone(), settings, shared.clone());
        galleries.insert(gallery.key, Arc::new(gallery));
    }
    let mut pending: BTreeMap<i64, Vec<Change>> = BTreeMap::new();
    store.references(|row| {
        let unopened = || OpenError::Reference { id: row.id };
        let gallery = galleries.get(&row.gallery).ok_or_else(unopened)?;
        let subject = SubjectId::new(&row.subject).map_err(|_| unopened())?;
        let template = gallery.open(row.id, &subject, &row.sealed).map_err(|_| unopened())?;
        let loaded = pending.entry(row.gallery).or_default();
        let (seq, row) = (row.seq, Row { id: row.id, subject, enrolled_at: row.enrolled_at });
        loaded.push(Change::Enrolled { seq, row, template });
        if loaded.len() >= LOAD_ROWS {
            apply(gallery, std::mem::take(loaded))?;
        }
        Ok::<_, OpenError>(())
    })?;
    for (key, loaded) in pending {
        if let Some(gallery) = galleries.get(&key) {
            apply(gallery, loaded)?;
        }
    }
    Ok(galleries)
}

fn apply(gallery: &Gallery, loaded: Vec<Change>) -> Result<(), OpenError> {
    Ok(gallery.state.apply(loaded, gallery.epoch())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_writer_that_panics_has_failed() {
        let dir = tempfile::tempdir().unwrap();
        let root = RootKey::from_bytes([7; 32]);
        let galleries = Galleries::open(dir.path(), &root, Settings::default()).unwrap();
        assert!(!galleries.has_failed());
        let queue = galleries.queue.lock().unwrap().clone().unwrap();
        queue
            .send(Op::Call(Box::new(|| panic!("as the test wishes"))))
            .await
            .unwrap_or_else(|_| panic!("the writer is there"));
        queue.closed().await;
        drop(queue);
        galleries.close().await;
        assert!(galleries.has_failed());
    }
}
