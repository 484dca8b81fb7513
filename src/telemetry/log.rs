//! Logs: lines on stderr, written by threads of their own.

use std::{
    io::{self, BufWriter, IsTerminal, Write},
    sync::OnceLock,
    thread,
    time::Duration,
};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt};

use crate::priority::{run_when_idle, runs_when_idle};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Lines that wait for stderr at most. A reader that stalls costs lines, which are counted, and never holds up an answer.
const WAITING_LINES: usize = 16_384;

/// Lines that are written at once, where many wait, bytes.
const LINES_AT_ONCE: usize = 64 << 10;

/// How long lines wait for more: a writer that is woken for each of them costs a request more than its line does.
const GATHERED_FOR: Duration = Duration::from_millis(5);

/// Writes what waits when it is dropped.
#[must_use = "lines that wait are written when it is dropped"]
#[derive(Debug)]
pub struct Log {
    _guards: Option<[WorkerGuard; 2]>,
}

/// Where lines wait. Those of threads that run when a core is idle have a place and a writer of their own: such a thread may be
/// interrupted while it holds the place's lock, and no verification is to wait for it.
#[derive(Debug)]
struct Lines {
    usual: NonBlocking,
    when_idle: NonBlocking,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = NonBlocking;

    fn make_writer(&'a self) -> NonBlocking {
        if runs_when_idle() { self.when_idle.clone() } else { self.usual.clone() }
    }
}

/// Lines lost so far, of the log that stands.
static LOST_LINES: OnceLock<[ErrorCounter; 2]> = OnceLock::new();

/// So many lines waited in vain for stderr.
pub(super) fn lost_lines() -> usize {
    LOST_LINES.get().into_iter().flatten().map(ErrorCounter::dropped_lines).sum()
}

/// A place, and a thread that writes what waits there.
fn lines() -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING_LINES)
        .thread_name("log")
        .finish(Gathering(BufWriter::with_capacity(LINES_AT_ONCE, io::stderr())))
}

/// Lets lines gather after each write. Its thread flushes when no line waits, and sleeps where lines do not wake it.
struct Gathering<W: Write>(BufWriter<W>);

impl<W: Write> Write for Gathering<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.0.buffer().is_empty() {
            return self.0.flush();
        }
        let flushed = self.0.flush();
        thread::sleep(GATHERED_FOR);
        flushed
    }
}

/// The same, with a thread that runs when a core is idle.
fn lines_when_idle() -> (NonBlocking, WorkerGuard) {
    // A thread inherits the priority of the one that starts it. Where there is none to be had, the writer is as urgent as the rest.
    let begun = thread::Builder::new().spawn(|| {
        let _ = run_when_idle(); // as above
        lines()
    });
    begun.ok().and_then(|begun| begun.join().ok()).unwrap_or_else(lines)
}

/// Starts logging to stderr, from threads of its own, at the level of the environment variable `VULTUS_LOG` (default `info`). A
/// second call does nothing.
pub fn log_to_stderr(format: LogFormat) -> Log {
    // HTTP/2's own warnings are about what strangers send, who could fill the log with them.
    let filter = EnvFilter::try_from_env("VULTUS_LOG").unwrap_or_else(|_| EnvFilter::new("info,h2=error"));
    let ((usual, guard), (when_idle, idle_guard)) = (lines(), lines_when_idle());
    let lost = [usual.error_counter(), when_idle.error_counter()];
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(Lines { usual, when_idle })
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    // An error means that a subscriber stands already, as in tests that start several servers.
    let started = match format {
        LogFormat::Text => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true).with_span_list(false)).try_init(),
    };
    if started.is_ok() {
        let _ = LOST_LINES.set(lost); // the first log is the one that stands
    }
    Log { _guards: started.is_ok().then_some([guard, idle_guard]) }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What was written, a piece for each write.
    #[derive(Clone, Default)]
    struct Writes(Arc<Mutex<Vec<Vec<u8>>>>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(bytes.into());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const LINES: usize = 100;

    #[test]
    fn lines_leave_together_in_order_and_all_of_them() {
        let writes = Writes::default();
        let gathering = Gathering(BufWriter::with_capacity(LINES_AT_ONCE, writes.clone()));
        let (mut lines, guard) = NonBlockingBuilder::default().finish(gathering);
        let expected: String = (0..LINES).map(|line| format!("line {line}\n")).collect();
        for line in expected.split_inclusive('\n') {
            lines.write_all(line.as_bytes()).unwrap();
            thread::sleep(GATHERED_FOR / 20); // time enough to write it alone
        }
        drop(guard);
        let writes = writes.0.lock().unwrap();
        assert_eq!(String::from_utf8(writes.concat()).unwrap(), expected);
        assert!(writes.len() < LINES / 2, "{} writes of {LINES} lines", writes.len());
    }
}
