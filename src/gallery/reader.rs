//! Reads of the store beside the writer: on a connection of their own, which changes nothing, and which works also when the
//! writer takes no more changes.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, InterruptHandle, OpenFlags};

use super::{
    OpenError, StoreError,
    store::{FILE, open_error},
};

/// The writer breaks a read off that keeps the write-ahead log from being emptied; so often it is begun again.
const TRIES: usize = 10;

pub(super) struct Reader {
    /// Cases are read by few people: one connection, in turn. `None` once the galleries are closed.
    connection: Mutex<Option<Connection>>,
    interrupt: InterruptHandle,
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
        Ok(Self { connection: Mutex::new(Some(connection)), interrupt })
    }

    /// Before the writer closes: who closes last empties the write-ahead log, which this connection may not.
    pub(super) fn close(&self) {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Breaks off what is being read; it is read again.
    pub(super) fn interrupt(&self) {
        self.interrupt.interrupt();
    }

    /// Reads on a thread that may block. The inner error is a row that does not convert.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl Fn(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<Result<T, rusqlite::Error>, StoreError> {
        let reader = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || {
            let connection = reader.connection.lock().unwrap_or_else(PoisonError::into_inner);
            let connection = connection.as_ref().ok_or(StoreError::Closed)?;
            let mut read = work(connection);
            for _ in 1..TRIES {
                match &read {
                    Err(e) if e.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                        read = work(connection);
                    }
                    _ => break,
                }
            }
            Ok(read)
        });
        match read.await.map_err(|_| StoreError::Closed)?? {
            Err(e) if e.sqlite_error_code().is_some() => Err(StoreError::Unreadable(e.to_string().into())),
            read => Ok(read),
        }
    }
}
