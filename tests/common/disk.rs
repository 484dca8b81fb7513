//! A disk below SQLite that forgets what was not synced, lies, fails and fills on request.
//!
//! A VFS over the system's own. What SQLite writes stays in this process's memory until it is synced, so that `kill -9` loses exactly what
//! a power cut may lose; some of it reaches the real file early and out of order, sector by sector, as a kernel's writeback does. The
//! names of files are durable at once. Locks and shared memory are the system's.
//!
//! Three floors: the callbacks that SQLite calls at the bottom, `Disk` that models the disk and knows nothing of SQLite in the middle,
//! [`install`] and [`set_capacity`] above. Nothing raw leaves this file.
#![allow(unsafe_code, dead_code)] // SQLite calls a VFS through C; each test binary uses a part

use std::{
    collections::{BTreeSet, HashMap},
    ffi::{CStr, c_char, c_int, c_void},
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError},
};

use rusqlite::ffi::{self, sqlite3_file, sqlite3_filename, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs};

/// What the disk does wrong, besides forgetting.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Of what reaches the disk early.
    pub seed: u64,
    /// Says that it has synced, and has not.
    pub lies: bool,
    /// The number of the first sync that fails; what it should have kept is lost.
    pub failing_sync: Option<u64>,
    /// The number of the first write that fails, as all after it do.
    pub failing_write: Option<u64>,
}

impl Faults {
    /// As an environment variable carries them.
    pub fn to_text(self) -> String {
        let number = |n: Option<u64>| n.map_or("-".into(), |n| n.to_string());
        format!("{} {} {} {}", self.seed, self.lies, number(self.failing_sync), number(self.failing_write))
    }

    pub fn parse(text: &str) -> Self {
        let words: Vec<_> = text.split(' ').collect();
        Self {
            seed: words[0].parse().unwrap(),
            lies: words[1] == "true",
            failing_sync: words[2].parse().ok(),
            failing_write: words[3].parse().ok(),
        }
    }
}

/// From here on SQLite's files in this process lie on such a disk. Once for a process, before a store is opened.
pub fn install(faults: Faults) {
    lock().faults = faults;
    lock().random = faults.seed | 1;
    register();
}

/// Bytes that the disk holds: SQLite's files, and the file `beside` as the system knows it.
pub fn set_capacity(bytes: u64, beside: &Path) {
    lock().capacity = Some((bytes, beside.to_owned()));
}

/// Bytes that are taken.
pub fn used() -> u64 {
    lock().used()
}

const SECTOR: usize = 512;

/// The middle floor.
#[derive(Default)]
struct Disk {
    files: HashMap<PathBuf, Content>,
    faults: Faults,
    capacity: Option<(u64, PathBuf)>,
    random: u64,
    syncs: u64,
    writes: u64,
}

struct Content {
    /// As the process sees it.
    bytes: Vec<u8>,
    /// Sectors that the real file lacks.
    dirty: BTreeSet<usize>,
    /// The real file's length is another.
    resized: bool,
    real: fs::File,
    handles: usize,
}

/// Why the disk did not do it.
enum Fault {
    Sync,
    Write,
    Full,
}

impl Disk {
    fn open(&mut self, path: &Path) -> std::io::Result<()> {
        if let Some(content) = self.files.get_mut(path) {
            content.handles += 1;
            return Ok(());
        }
        let real = fs::OpenOptions::new().read(true).write(true).open(path)?;
        let content = Content { bytes: fs::read(path)?, dirty: BTreeSet::new(), resized: false, real, handles: 1 };
        self.files.insert(path.to_owned(), content);
        Ok(())
    }

    fn close(&mut self, path: &Path) {
        let Some(content) = self.files.get_mut(path) else { return };
        content.handles -= 1;
        // What is not synced stays, as a kernel would keep it for whoever opens the file next.
        if content.handles == 0 && content.dirty.is_empty() && !content.resized {
            self.files.remove(path);
        }
    }

    fn used(&self) -> u64 {
        let beside = self.capacity.as_ref().and_then(|(_, beside)| fs::metadata(beside).ok());
        self.files.values().map(|content| content.bytes.len() as u64).sum::<u64>() + beside.map_or(0, |m| m.len())
    }

    fn write(&mut self, path: &Path, bytes: &[u8], at: usize) -> Result<(), Fault> {
        self.writes += 1;
        if self.faults.failing_write.is_some_and(|first| self.writes >= first) {
            return Err(Fault::Write);
        }
        let end = at + bytes.len();
        let growth = end.saturating_sub(self.files.get(path).map_or(0, |content| content.bytes.len()));
        if growth > 0 && self.capacity.as_ref().is_some_and(|(most, _)| self.used() + growth as u64 > *most) {
            return Err(Fault::Full);
        }
        // A quarter of writes start a writeback of some of the file's sectors.
        let (early, mut chances) = (self.chance().is_multiple_of(4), self.chance());
        let Some(content) = self.files.get_mut(path) else { return Err(Fault::Write) };
        if content.bytes.len() < end {
            content.bytes.resize(end, 0);
            content.resized = true;
        }
        content.bytes[at..end].copy_from_slice(bytes);
        content.dirty.extend(at / SECTOR..end.div_ceil(SECTOR));
        if early {
            let some: Vec<usize> = content.dirty.iter().copied().collect();
            for sector in some {
                chances = chances.rotate_left(1);
                if chances & 1 == 1 {
                    content.write_back(sector);
                }
            }
        }
        Ok(())
    }

    fn truncate(&mut self, path: &Path, length: usize) {
        if let Some(content) = self.files.get_mut(path) {
            content.bytes.truncate(length);
            content.dirty.split_off(&length.div_ceil(SECTOR));
            content.resized = true;
        }
    }

    fn sync(&mut self, path: &Path) -> Result<(), Fault> {
        self.syncs += 1;
        if self.faults.lies {
            return Ok(());
        }
        let fails = self.faults.failing_sync == Some(self.syncs);
        let Some(content) = self.files.get_mut(path) else { return Ok(()) };
        if fails {
            // A kernel forgets what it could not write, and the next sync has nothing to complain of.
            content.dirty.clear();
            return Err(Fault::Sync);
        }
        let all: Vec<usize> = content.dirty.iter().copied().collect();
        all.into_iter().for_each(|sector| content.write_back(sector));
        content.real.set_len(content.bytes.len() as u64).unwrap();
        content.resized = false;
        Ok(())
    }

    fn chance(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random >> 13
    }
}

impl Content {
    fn write_back(&mut self, sector: usize) {
        let start = sector * SECTOR;
        if start < self.bytes.len() {
            let end = (start + SECTOR).min(self.bytes.len());
            self.real.write_all_at(&self.bytes[start..end], start as u64).unwrap();
        }
        self.dirty.remove(&sector);
    }
}

/// The disk of this process.
fn lock() -> MutexGuard<'static, Disk> {
    static DISK: LazyLock<Mutex<Disk>> = LazyLock::new(Mutex::default);
    DISK.lock().unwrap_or_else(PoisonError::into_inner)
}

// The bottom floor. SQLite's handle of a file is the system's own, made by the system's `xOpen`; only its table of methods is replaced,
// by a copy in which reads, writes, truncations, syncs and sizes are the disk's.

/// An open file of SQLite's.
struct Handle {
    path: PathBuf,
    /// The system's methods.
    real: &'static sqlite3_io_methods,
}

/// By the address of SQLite's handle, which does not move while it is open.
fn handles() -> MutexGuard<'static, HashMap<usize, Handle>> {
    static HANDLES: LazyLock<Mutex<HashMap<usize, Handle>>> = LazyLock::new(Mutex::default);
    HANDLES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn path_of(file: *mut sqlite3_file) -> Option<PathBuf> {
    handles().get(&(file as usize)).map(|handle| handle.path.clone())
}

/// The system's VFS, once [`register`] has found it.
static SYSTEM: OnceLock<System> = OnceLock::new();

struct System(*mut sqlite3_vfs);

// SAFETY: SQLite's registered VFS objects live as long as the process, and SQLite itself calls them from all threads.
unsafe impl Send for System {}
// SAFETY: as above; this file only reads the structure.
unsafe impl Sync for System {}

/// The system's VFS with `xOpen`, `xDelete` and `xAccess` replaced, as the default.
fn register() {
    // SAFETY: SQLite initialises itself in `sqlite3_vfs_find`; NULL asks for the default, which exists on every Unix. The copy
    // keeps `pAppData`, so that the system's other methods find in it what they look for; it is leaked, as SQLite demands.
    unsafe {
        let system = ffi::sqlite3_vfs_find(std::ptr::null());
        assert!(!system.is_null() && SYSTEM.set(System(system)).is_ok(), "the disk is installed once");
        let mut own: sqlite3_vfs = std::ptr::read(system);
        own.zName = c"forgetful".as_ptr();
        own.pNext = std::ptr::null_mut();
        own.xOpen = Some(open);
        own.xDelete = Some(delete);
        own.xAccess = Some(access);
        assert_eq!(ffi::sqlite3_vfs_register(Box::leak(Box::new(own)), 1), ffi::SQLITE_OK);
    }
}

fn system() -> &'static sqlite3_vfs {
    // SAFETY: set before the copy was registered, and alive for ever (see `System`).
    unsafe { &*SYSTEM.get().expect("registered").0 }
}

/// Of a name that SQLite gives: its own, zero-terminated, and valid for the call.
unsafe fn path_named(name: *const c_char) -> PathBuf {
    // SAFETY: the caller's promise.
    PathBuf::from(unsafe { CStr::from_ptr(name) }.to_str().unwrap())
}

unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives `file` with room for the system's handle, as the copied `szOsFile` says; on success the system has filled it,
    // methods first, and the methods are static.
    unsafe {
        let opened = system().xOpen.unwrap()(vfs, name, file, flags, out);
        let kept = ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_WAL;
        if opened != ffi::SQLITE_OK || name.is_null() || flags & kept == 0 {
            return opened;
        }
        let (path, real) = (path_named(name), &*(*file).pMethods);
        if lock().open(&path).is_err() {
            real.xClose.unwrap()(file);
            (*file).pMethods = std::ptr::null();
            return ffi::SQLITE_CANTOPEN;
        }
        handles().insert(file as usize, Handle { path, real });
        let mut methods: sqlite3_io_methods = std::ptr::read(real);
        methods.iVersion = methods.iVersion.min(2); // no memory-mapped files: they would bypass the disk
        methods.xClose = Some(close);
        methods.xRead = Some(read);
        methods.xWrite = Some(write);
        methods.xTruncate = Some(truncate);
        methods.xSync = Some(sync);
        methods.xFileSize = Some(file_size);
        (*file).pMethods = Box::leak(Box::new(methods));
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    let Some(handle) = handles().remove(&(file as usize)) else { return ffi::SQLITE_MISUSE };
    lock().close(&handle.path);
    // SAFETY: the handle is the system's own, and is closed once.
    unsafe { handle.real.xClose.unwrap()(file) }
}

unsafe extern "C" fn read(file: *mut sqlite3_file, to: *mut c_void, count: c_int, at: sqlite3_int64) -> c_int {
    let Some(path) = path_of(file) else { return ffi::SQLITE_MISUSE };
    // SAFETY: SQLite gives room for `count` bytes.
    let to = unsafe { std::slice::from_raw_parts_mut(to.cast::<u8>(), count as usize) };
    let disk = lock();
    let bytes = disk.files.get(&path).map_or(&[][..], |content| &content.bytes);
    let there = bytes.get(at as usize..).unwrap_or_default();
    let there = &there[..there.len().min(to.len())];
    to[..there.len()].copy_from_slice(there);
    to[there.len()..].fill(0);
    if there.len() == to.len() { ffi::SQLITE_OK } else { ffi::SQLITE_IOERR_SHORT_READ }
}

unsafe extern "C" fn write(file: *mut sqlite3_file, from: *const c_void, count: c_int, at: sqlite3_int64) -> c_int {
    let Some(path) = path_of(file) else { return ffi::SQLITE_MISUSE };
    // SAFETY: SQLite gives `count` bytes.
    let from = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), count as usize) };
    code(lock().write(&path, from, at as usize))
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, length: sqlite3_int64) -> c_int {
    let Some(path) = path_of(file) else { return ffi::SQLITE_MISUSE };
    lock().truncate(&path, length as usize);
    ffi::SQLITE_OK
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, _flags: c_int) -> c_int {
    let Some(path) = path_of(file) else { return ffi::SQLITE_MISUSE };
    code(lock().sync(&path))
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, size: *mut sqlite3_int64) -> c_int {
    let Some(path) = path_of(file) else { return ffi::SQLITE_MISUSE };
    let length = lock().files.get(&path).map_or(0, |content| content.bytes.len());
    // SAFETY: SQLite gives room for the answer.
    unsafe { *size = length as sqlite3_int64 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(vfs: *mut sqlite3_vfs, name: *const c_char, sync_dir: c_int) -> c_int {
    // SAFETY: the arguments are SQLite's own.
    unsafe {
        lock().files.remove(&path_named(name));
        system().xDelete.unwrap()(vfs, name, sync_dir)
    }
}

/// The system takes an empty log for none; here it may be empty on the disk alone.
unsafe extern "C" fn access(vfs: *mut sqlite3_vfs, name: *const c_char, flags: c_int, out: *mut c_int) -> c_int {
    // SAFETY: the arguments are SQLite's own.
    unsafe {
        if let (Some(content), ffi::SQLITE_ACCESS_EXISTS) = (lock().files.get(&path_named(name)), flags) {
            *out = c_int::from(!content.bytes.is_empty());
            return ffi::SQLITE_OK;
        }
        system().xAccess.unwrap()(vfs, name, flags, out)
    }
}

fn code(done: Result<(), Fault>) -> c_int {
    match done {
        Ok(()) => ffi::SQLITE_OK,
        Err(Fault::Sync) => ffi::SQLITE_IOERR_FSYNC,
        Err(Fault::Write) => ffi::SQLITE_IOERR_WRITE,
        Err(Fault::Full) => ffi::SQLITE_FULL,
    }
}
