//! Reads of the store beside the writer: on connections of their own, which change nothing, and which work also when the
//! writer takes no more changes.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, InterruptHandle, OpenFlags};
use tokio::sync::{mpsc, oneshot};

use super::file::{FILE, open_error};
use crate::gallery::{OpenError, StoreError};

/// The writer breaks a read off that keeps the write-ahead log from being emptied; so often it is begun again.
const TRIES: usize = 10;

/// Reads that wait for a thread; more callers wait for a place.
const WAITING: usize = 64;

/// Connections that read at a time, each on a thread of its own.
const READERS: usize = 4;

/// The threads have the priority of the writer's: a read that waited for an idle core would keep the log, and so every erasure, for as
/// long.
pub(super) struct Readers {
    queue: mpsc::Sender<Job>,
    interrupts: Vec<InterruptHandle>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

enum Job {
    Read(Box<dyn FnOnce(&Connection) + Send>),
    Close,
}

impl Readers {
    /// Of a store that the writer has open.
    pub(super) fn open(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(FILE);
        let (queue, jobs) = mpsc::channel(WAITING);
        let jobs = Arc::new(Mutex::new(jobs));
        let (mut interrupts, mut threads) = (Vec::new(), Vec::new());
        for number in 0..READERS {
            let connection = connect(&path).map_err(|e| open_error(e, &path))?;
            interrupts.push(connection.get_interrupt_handle());
            let jobs = Arc::clone(&jobs);
            let next = move || jobs.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
            let run = move || {
                while let Some(Job::Read(work)) = next() {
                    work(&connection);
                }
            };
            let name = format!("gallery-reader-{number}");
            threads.push(thread::Builder::new().name(name).spawn(run).map_err(OpenError::Thread)?);
        }
        Ok(Self { queue, interrupts, threads: Mutex::new(threads) })
    }

    /// Before the writer closes: who closes last empties the write-ahead log, which these connections may not. Blocks.
    pub(super) fn close(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        // Each takes one. Where a thread died, the others take theirs, and it has closed already.
        for _ in &threads {
            let _ = self.queue.blocking_send(Job::Close);
        }
        for thread in threads {
            let _ = thread.join(); // a thread that died has closed, too
        }
    }

    /// Breaks off what is being read; it is read again.
    pub(super) fn interrupt(&self) {
        self.interrupts.iter().for_each(InterruptHandle::interrupt);
    }

    /// The inner error is a row that does not convert.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl Fn(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<Result<T, rusqlite::Error>, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job = move |connection: &Connection| {
            if answer.is_closed() {
                return; // who asked has left
            }
            let mut read = work(connection);
            for _ in 1..TRIES {
                match &read {
                    Err(e) if e.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                        read = work(connection);
                    }
                    _ => break,
                }
            }
            let _ = answer.send(read); // as above
        };
        self.queue.send(Job::Read(Box::new(job))).await.map_err(|_| StoreError::Closed)?;
        match answered.await.map_err(|_| StoreError::Closed)? {
            Err(e) if e.sqlite_error_code().is_some() => Err(StoreError::Unreadable(e.to_string().into())),
            read => Ok(read),
        }
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Readers")
    }
}

fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(1))?;
    connection.execute_batch("PRAGMA query_only = ON; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY;")?;
    Ok(connection)
}
