//! Reads of the store beside the writer: on a connection of their own, which changes nothing, and which works also when the
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

use super::{
    OpenError, StoreError,
    store::{FILE, open_error},
};

/// The writer breaks a read off that keeps the write-ahead log from being emptied; so often it is begun again.
const TRIES: usize = 10;

/// Reads that wait for the thread; more callers wait for a place.
const WAITING: usize = 64;

/// Cases are read by few people: one connection, in turn. Its thread has the priority of the writer's: a read that waited for an idle core
/// would keep the log, and so every erasure, for as long.
pub(super) struct Reader {
    queue: mpsc::Sender<Job>,
    interrupt: InterruptHandle,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Job {
    Read(Box<dyn FnOnce(&Connection) + Send>),
    Close,
}

impl Reader {
    /// Of a store that the writer has open.
    pub(super) fn open(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(FILE);
        let fault = |e| open_error(e, &path);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags).map_err(fault)?;
        connection.busy_timeout(Duration::from_secs(1)).map_err(fault)?;
        connection
            .execute_batch("PRAGMA query_only = ON; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY;")
            .map_err(fault)?;
        let interrupt = connection.get_interrupt_handle();
        let (queue, mut jobs) = mpsc::channel(WAITING);
        let run = move || {
            while let Some(Job::Read(work)) = jobs.blocking_recv() {
                work(&connection);
            }
        };
        let thread = thread::Builder::new().name("gallery-reader".into()).spawn(run).map_err(OpenError::Thread)?;
        Ok(Self { queue, interrupt, thread: Mutex::new(Some(thread)) })
    }

    /// Before the writer closes: who closes last empties the write-ahead log, which this connection may not. Blocks.
    pub(super) fn close(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = self.queue.blocking_send(Job::Close); // a thread that has ended already
            let _ = thread.join(); // a thread that died has closed, too
        }
    }

    /// Breaks off what is being read; it is read again.
    pub(super) fn interrupt(&self) {
        self.interrupt.interrupt();
    }

    /// The inner error is a row that does not convert.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
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

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reader")
    }
}
