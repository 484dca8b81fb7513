//! The SQLite file, as the writer's thread has it open. Knows rows, not meaning.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, SystemTime},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, params};

use crate::{
    domain::{ExtractionVersion, GalleryName, ModelDigest, ReferenceId, SubjectId, Template},
    gallery::{
        OpenError, ServiceTime, Settings, StoreError,
        clock::{Kept, micros, time},
        store::{SealedReference, StoredGallery, StoredReference},
    },
};

pub(super) const SCHEMA: &str = include_str!("schema.sql");
pub(super) const SCHEMA_VERSION: i64 = 6;
/// How long to wait for whoever has the file locked, or keeps the write-ahead log, at a time.
const BUSY: Duration = Duration::from_millis(50);
/// "VULT": a file without it is somebody else's.
const APPLICATION_ID: i64 = 0x5655_4c54;
pub(super) const FILE: &str = "galleries.db";
/// Three sealed templates of 512 values fit in a page.
const PAGE_BYTES: u64 = 8192;

pub(super) struct File(pub(super) Connection);

impl File {
    /// Whether `dir` has a store's file.
    pub(super) fn is_in(dir: &Path) -> bool {
        dir.join(FILE).is_file()
    }

    /// Opens the store of `dir`, which the caller has locked; makes one if there is none, and none `was_made` before. `seal` makes
    /// a fresh store's check value. With whether the write-ahead log is empty: one that is not may hold what was erased.
    pub(super) fn open(
        dir: &Path,
        was_made: bool,
        settings: &Settings,
        seal: impl FnOnce() -> Result<Vec<u8>, OpenError>,
    ) -> Result<(Self, bool), OpenError> {
        let path = dir.join(FILE);
        let at = |source| OpenError::Io { path: path.clone(), source };
        match fs::metadata(&path) {
            Ok(found) if found.len() == 0 => return Err(OpenError::Damaged { what: format!("{FILE} is empty") }),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if fs::exists(dir.join(format!("{FILE}-wal"))).map_err(at)? {
                    return Err(OpenError::Damaged { what: format!("{FILE} is missing, its -wal file is there") });
                }
                if was_made {
                    return Err(OpenError::Damaged {
                        what: format!("{} is missing, it was there before", path.display()),
                    });
                }
                create(dir, &seal()?)?;
            }
            Err(e) => return Err(at(e)),
        }
        let fault = |e| open_error(e, &path);
        let connection =
            Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
                .map_err(fault)?;
        connection.set_prepared_statement_cache_capacity(64);
        let store = Self(connection);
        store.0.busy_timeout(BUSY).map_err(fault)?;
        let pragma = |name| store.pragma(name).map_err(fault);
        if pragma("application_id")? != APPLICATION_ID {
            return Err(OpenError::Foreign { path });
        }
        let version = pragma("user_version")?;
        if !(1..=SCHEMA_VERSION).contains(&version) {
            return Err(OpenError::Version { found: version, known: SCHEMA_VERSION });
        }
        store.configure(settings).map_err(fault)?;
        let verdict: String = store.0.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(fault)?;
        if verdict != "ok" {
            return Err(OpenError::Damaged { what: verdict });
        }
        // What a crash left in the log enters the file. Then the file is whole pages; SQLite would take less for zeros.
        let mut is_empty = store.empty_log();
        match &is_empty {
            // On a full disk, or beside a reader, the log stays as it is, and serves; it is emptied later.
            Err(_) => {}
            Ok(()) if fs::metadata(&path).map_err(at)?.len() % PAGE_BYTES == 0 => {}
            Ok(()) => return Err(OpenError::Damaged { what: format!("{FILE} ends within a page") }),
        }
        if version < SCHEMA_VERSION {
            store.migrate(version).map_err(fault)?;
            is_empty = store.empty_log();
        }
        match is_empty {
            Err(e) if !is_full(&e) && !is_busy(&e) => Err(fault(e)),
            emptied => Ok((store, emptied.is_ok())),
        }
    }

    fn configure(&self, settings: &Settings) -> Result<(), rusqlite::Error> {
        let pages = i64::try_from(settings.max_store_bytes / PAGE_BYTES).unwrap_or(i64::MAX).clamp(1, 0xffff_fffe);
        self.0.execute_batch(&format!(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA foreign_keys = ON;
             PRAGMA secure_delete = ON;
             PRAGMA trusted_schema = OFF;
             PRAGMA temp_store = MEMORY;
             PRAGMA cache_size = -65536;
             PRAGMA wal_autocheckpoint = 2048;
             PRAGMA max_page_count = {pages};"
        ))
    }

    fn pragma(&self, name: &str) -> Result<i64, rusqlite::Error> {
        self.0.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
    }

    pub(super) fn check_value(&self) -> Result<Vec<u8>, rusqlite::Error> {
        self.0.query_row("SELECT check_value FROM seal", [], |row| row.get(0))
    }

    pub(super) fn clock(&self) -> Result<Kept, rusqlite::Error> {
        let read = |row: &Row<'_>| Ok(Kept { service: ServiceTime::from_micros(row.get(0)?), wall: row.get(1)? });
        self.0.query_row("SELECT service, wall FROM clock", [], read)
    }

    pub(super) fn keep_clock(&self, kept: Kept) -> Result<(), rusqlite::Error> {
        let mut update = self.0.prepare_cached("UPDATE clock SET service = max(service, ?), wall = ?")?;
        update.execute(params![kept.service.micros(), kept.wall])?;
        Ok(())
    }

    pub(super) fn begin(&self) -> Result<(), rusqlite::Error> {
        self.0.execute_batch("BEGIN IMMEDIATE")
    }

    /// Durable when it returns.
    pub(super) fn commit(&self) -> Result<(), rusqlite::Error> {
        self.0.execute_batch("COMMIT")
    }

    pub(super) fn rollback(&self) -> Result<(), rusqlite::Error> {
        // Some failures have rolled back already.
        if self.0.is_autocommit() { Ok(()) } else { self.0.execute_batch("ROLLBACK") }
    }

    /// Moves the write-ahead log into the file and cuts it to nothing, so that no old page stays in it. Fails as busy where
    /// somebody still reads from it.
    pub(super) fn empty_log(&self) -> Result<(), rusqlite::Error> {
        let busy: i64 = self.0.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        match busy {
            0 => self.sync_log(),
            _ => Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None)),
        }
    }

    /// SQLite cuts the log and does not sync it: a power cut would bring back what was in it.
    fn sync_log(&self) -> Result<(), rusqlite::Error> {
        let log = format!("{}-wal", self.0.path().unwrap_or_default());
        match fs::File::open(log).and_then(|log| log.sync_all()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
                Err(rusqlite::Error::SqliteFailure(code, Some(e.to_string())))
            }
            _ => Ok(()),
        }
    }

    /// # Errors
    /// [`OpenError::Damaged`] for what this program did not write.
    pub(super) fn galleries(&self) -> Result<Vec<StoredGallery>, OpenError> {
        let mut select =
            self.0.prepare("SELECT key, uid, name, model, dimension, epoch, created_at FROM gallery ORDER BY key")?;
        let mut rows = select.query([])?;
        let mut galleries = Vec::new();
        while let Some(row) = rows.next()? {
            let damaged = |what: &str| OpenError::Damaged { what: what.into() };
            let (name, dimension): (String, usize) = (row.get(2)?, unsigned(row, 4)?);
            if dimension == 0 || dimension > Template::MAX_DIMENSION {
                return Err(damaged("a gallery's dimension is out of range"));
            }
            galleries.push(StoredGallery {
                key: row.get(0)?,
                uid: row.get(1)?,
                name: GalleryName::new(&name).map_err(|_| damaged("a gallery's name is not one"))?,
                model: ModelDigest::new(row.get(3)?),
                dimension,
                position: unsigned(row, 5)?,
                created_at: time(row.get(6)?),
            });
        }
        Ok(galleries)
    }

    pub(super) fn insert_gallery(&self, row: &StoredGallery) -> Result<i64, rusqlite::Error> {
        let mut insert = self.0.prepare_cached(
            "INSERT INTO gallery (uid, name, model, dimension, epoch, created_at) VALUES (?, ?, ?, ?, ?, ?)",
        )?;
        insert.insert(params![
            row.uid,
            row.name.as_str(),
            row.model.as_bytes(),
            signed(row.dimension)?,
            signed(row.position)?,
            micros(row.created_at)
        ])
    }

    pub(super) fn set_epoch(&self, gallery: i64, epoch: u64) -> Result<(), rusqlite::Error> {
        self.0.prepare_cached("UPDATE gallery SET epoch = ? WHERE key = ?")?.execute([signed(epoch)?, gallery])?;
        Ok(())
    }

    /// Gives every reference to `each`, with its gallery's key, by ascending `seq`.
    pub(super) fn references<E: From<rusqlite::Error>>(
        &self,
        mut each: impl FnMut(i64, StoredReference) -> Result<(), E>,
        damaged: impl Fn(ReferenceId) -> E,
    ) -> Result<(), E> {
        let mut select = self.0.prepare(
            "SELECT seq, id, gallery, subject, template, enrolled_at, position, extraction FROM reference ORDER BY seq",
        )?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let (id, subject): (_, String) = (ReferenceId::from_bytes(row.get(1)?), row.get(3)?);
            let subject = SubjectId::new(&subject).map_err(|_| damaged(id))?;
            let extraction = ExtractionVersion::new(row.get(7)?);
            let reference = SealedReference { id, subject, sealed: row.get(4)?, extraction };
            let (seq, position, enrolled_at) = (row.get(0)?, unsigned(row, 6)?, time(row.get(5)?));
            each(row.get(2)?, StoredReference { seq, position, reference, enrolled_at })?;
        }
        Ok(())
    }

    /// The subject of a reference.
    pub(super) fn owner(&self, gallery: i64, id: ReferenceId) -> Result<Option<String>, rusqlite::Error> {
        let mut select = self.0.prepare_cached("SELECT subject FROM reference WHERE id = ? AND gallery = ?")?;
        select.query_row(params![id.as_bytes(), gallery], |row| row.get(0)).optional()
    }

    pub(super) fn count_of_subject(&self, gallery: i64, subject: &SubjectId) -> Result<usize, rusqlite::Error> {
        let mut select = self.0.prepare_cached("SELECT count(*) FROM reference WHERE gallery = ? AND subject = ?")?;
        select.query_row(params![gallery, subject.as_str()], |row| unsigned(row, 0))
    }

    pub(super) fn insert_reference(
        &self,
        gallery: i64,
        new: &SealedReference,
        enrolled_at: SystemTime,
        position: u64,
    ) -> Result<i64, rusqlite::Error> {
        let mut insert = self.0.prepare_cached(
            "INSERT INTO reference (id, gallery, subject, template, enrolled_at, position, extraction) VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?;
        let (id, subject) = (new.id.as_bytes(), new.subject.as_str());
        let (at, extraction) = (micros(enrolled_at), new.extraction.as_bytes());
        insert.insert(params![id, gallery, subject, new.sealed, at, signed(position)?, extraction])
    }

    /// Returns the `seq`s that are gone. Candidates go with their references, and the claims of whoever has none left.
    pub(super) fn erase_subject(&self, gallery: i64, subject: &SubjectId) -> Result<Vec<i64>, rusqlite::Error> {
        let mut erase =
            self.0.prepare_cached("DELETE FROM reference WHERE gallery = ? AND subject = ? RETURNING seq")?;
        let gone = erase.query_map(params![gallery, subject.as_str()], |row| row.get(0))?.collect::<Result<_, _>>()?;
        self.forget_claims(gallery, subject.as_str())?;
        Ok(gone)
    }

    /// As [`Self::erase_subject`].
    pub(super) fn erase_reference(&self, gallery: i64, id: ReferenceId) -> Result<Vec<i64>, rusqlite::Error> {
        let mut erase =
            self.0.prepare_cached("DELETE FROM reference WHERE gallery = ? AND id = ? RETURNING seq, subject")?;
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let gone: Vec<(i64, String)> =
            erase.query_map(params![gallery, id.as_bytes()], read)?.collect::<Result<_, _>>()?;
        gone.iter().try_for_each(|(_, subject)| self.forget_claims(gallery, subject))?;
        Ok(gone.into_iter().map(|(seq, _)| seq).collect())
    }

    /// Deletes receipts that had expired at `now`, and cases that were opened before `opened`.
    pub(super) fn purge(&self, now: ServiceTime, opened: ServiceTime) -> Result<(), rusqlite::Error> {
        let mut delete = self.0.prepare_cached("DELETE FROM spent_receipt WHERE expires_service <= ?")?;
        delete.execute([now.micros()])?;
        let mut delete = self.0.prepare_cached("DELETE FROM review_case WHERE opened_service <= ?")?;
        delete.execute([opened.micros()])?;
        Ok(())
    }
}

/// A whole store appears under its name or none: written aside, synced, renamed.
fn create(dir: &Path, check_value: &[u8]) -> Result<(), OpenError> {
    let fresh = dir.join(format!("{FILE}.new"));
    let at = |source| OpenError::Io { path: fresh.clone(), source };
    for leftover in [fresh.clone(), dir.join(format!("{FILE}.new-journal"))] {
        match fs::remove_file(leftover) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(at(e)),
            _ => {}
        }
    }
    // SQLite gives its other files the mode of this one.
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).map_err(at)?;
    let connection = Connection::open(&fresh)?;
    connection.execute_batch(&format!(
        "PRAGMA page_size = {PAGE_BYTES};
         PRAGMA synchronous = FULL;
         BEGIN;
         {SCHEMA}
         PRAGMA application_id = {APPLICATION_ID};
         PRAGMA user_version = {SCHEMA_VERSION};"
    ))?;
    connection.execute("INSERT INTO seal (check_value) VALUES (?)", [check_value])?;
    connection.execute_batch("COMMIT")?;
    connection.close().map_err(|(_, e)| e)?;
    fs::rename(&fresh, dir.join(FILE)).and_then(|()| fs::File::open(dir)?.sync_all()).map_err(at)
}

/// What a failure to open or to read says about the file.
pub(super) fn open_error(error: rusqlite::Error, path: &Path) -> OpenError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::Foreign { path: path.into() },
        _ => error.into(),
    }
}

/// What a failure means for the writer.
pub(super) fn store_error(error: &rusqlite::Error) -> StoreError {
    match error {
        error if is_full(error) => StoreError::Full,
        error if is_busy(error) => StoreError::Busy,
        error => StoreError::Failed(error.to_string().into()),
    }
}

pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

/// SQLite's integers are signed.
pub(super) fn unsigned<T: TryFrom<i64>>(row: &Row<'_>, column: usize) -> Result<T, rusqlite::Error> {
    let value = row.get(column)?;
    T::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

pub(super) fn signed<T: TryInto<i64>>(value: T) -> Result<i64, rusqlite::Error> {
    value.try_into().map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, i64::MAX))
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            // Without a code it is a value of the wrong type or range: not as this program wrote it.
            None | Some(ErrorCode::DatabaseCorrupt) => Self::Damaged { what: error.to_string() },
            Some(_) => Self::Store(error.to_string()),
        }
    }
}
