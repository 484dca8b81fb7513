//! Connections: as many as are allowed, none that keeps its place without a request, and none for ever.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    runtime::{self, Handle},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, Sleep},
};
use tokio_stream::wrappers::ReceiverStream;

use super::conduct::Conduct;
use crate::rpc::Limits;

/// How long a new connection may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// To show who it is, and for HTTP/2's greeting after that.
    pub handshake: Duration,
    /// For the first request.
    pub first_request: Duration,
    /// For all: what is not done by then is broken off.
    pub whole: Duration,
}

impl Patience {
    pub fn of(limits: &Limits) -> Self {
        Self {
            handshake: limits.handshake_timeout,
            first_request: limits.first_request_timeout,
            // The transport tells it to go at its age.
            whole: limits.connection_age + limits.connection_age_grace,
        }
    }
}

/// A connection as it was accepted. It holds its place until it ends, and ends in time, whatever is spoken over it.
#[derive(Debug)]
pub struct Connection {
    /// `None` only after it could not be handed to another runtime.
    stream: Option<TcpStream>,
    /// The runtime that watches the stream.
    watched_by: runtime::Id,
    /// When the wait for the greeting ends, or then for the first request, or then the connection's life.
    patience: Pin<Box<Sleep>>,
    greeting_by: Instant,
    first_request_by: Instant,
    end: Instant,
    conduct: Conduct,
    /// Reads and writes since the clock was asked.
    unasked: u32,
    _place: OwnedSemaphorePermit,
}

/// Reads and writes that are done before the clock is asked.
const UNASKED: u32 = 64;

impl Connection {
    fn new(stream: TcpStream, patience: Patience, place: OwnedSemaphorePermit) -> Self {
        let now = Instant::now();
        let greeting_by = now + patience.handshake.min(patience.first_request).min(patience.whole);
        Self {
            stream: Some(stream),
            watched_by: Handle::current().id(),
            patience: Box::pin(tokio::time::sleep_until(greeting_by)),
            greeting_by,
            first_request_by: now + patience.first_request,
            end: now + patience.whole,
            conduct: Conduct::default(),
            unasked: 0,
            _place: place,
        }
    }

    pub fn conduct(&self) -> Conduct {
        self.conduct.clone()
    }

    /// When HTTP/2's greeting must have come.
    pub fn greeting_by(&self) -> Instant {
        self.greeting_by
    }

    /// The stream, watched by the runtime that serves it now: another's threads would wake for each of its frames.
    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let here = Handle::current().id();
        if self.watched_by != here
            && let Some(stream) = self.stream.take()
        {
            self.stream = Some(TcpStream::from_std(stream.into_std()?)?);
            self.watched_by = here;
        }
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// What was done, or the wait for it as long as the client may make the server wait.
    fn unless_too_late<T>(&mut self, done: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if done.is_pending() {
            self.check_patience(context)?;
        } else {
            // Who always has more to say is never waited for: the clock is asked now and then.
            self.unasked = (self.unasked + 1) % UNASKED;
            if self.unasked == 0 && Instant::now() >= self.until() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        done
    }

    /// The end of the present wait.
    fn until(&self) -> Instant {
        match () {
            () if self.conduct.has_request() => self.end,
            () if self.conduct.has_greeting() => self.first_request_by.min(self.end),
            () => self.greeting_by,
        }
    }

    /// An error once the present wait is over. Asked only when there is nothing to read, or no room to write: requests pay nothing.
    fn check_patience(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let until = self.until();
        if self.patience.deadline() != until {
            self.patience.as_mut().reset(until);
        }
        match self.patience.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

/// Accepts at most `most` connections at a time; more wait in the system's backlog. One that is silent for longer than `patience`
/// is closed. A failure to accept (no file handles, say) is waited out.
pub fn accept(listener: TcpListener, most: usize, patience: Patience) -> ReceiverStream<Connection> {
    let (connections, incoming) = mpsc::channel(1);
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(most));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = connections.closed() => return,
            };
            // Answers go at once, not when the client's delayed acknowledgement comes.
            let connection = accepted.and_then(|(stream, _)| stream.set_nodelay(true).map(|()| stream));
            match connection {
                Ok(stream) => {
                    if connections.send(Connection::new(stream, patience, place)).await.is_err() {
                        return; // the server has ended
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    });
    ReceiverStream::new(incoming)
}

/// After a connection that could not be accepted: what is short may come back.
const BACK_OFF: Duration = Duration::from_millis(100);

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.stream()?.poll_read(context, buffer);
        self.unless_too_late(read, context)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.stream()?.poll_write(context, bytes);
        self.unless_too_late(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream()?.poll_write_vectored(context, slices);
        self.unless_too_late(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        true // as every TCP stream's
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_stream::StreamExt;

    use super::*;
    use crate::domain::Lane;

    const SHORT: Duration = Duration::from_millis(200);
    const LONG: Duration = Duration::from_secs(60);

    /// A client's end and the server's.
    async fn pair(patience: Patience) -> (TcpStream, Connection) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, accept(listener, 8, patience).next().await.unwrap())
    }

    #[tokio::test]
    async fn bytes_that_are_no_greeting_do_not_keep_a_connection() {
        let (mut client, mut served) = pair(Patience { handshake: SHORT, first_request: LONG, whole: LONG }).await;
        client.write_all(&[0; 100]).await.unwrap();
        let error = served.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn nor_does_a_greeting_without_a_request() {
        let (_client, mut served) = pair(Patience { handshake: SHORT, first_request: 2 * SHORT, whole: LONG }).await;
        served.conduct().note_greeting();
        let started = Instant::now();
        let error = served.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() > SHORT, "the handshake's time ended it");
    }

    #[tokio::test]
    async fn after_a_request_silence_is_no_fault() {
        let (mut client, mut served) = pair(Patience { handshake: SHORT, first_request: SHORT, whole: LONG }).await;
        client.write_all(&[7]).await.unwrap();
        served.conduct().note_greeting();
        served.conduct().note_request(Lane::Verification, false);
        assert_eq!(served.read_u8().await.unwrap(), 7);
        assert!(tokio::time::timeout(3 * SHORT, served.read_u8()).await.is_err());
    }

    #[tokio::test]
    async fn a_connection_may_be_handed_to_another_runtime_and_back() {
        let (mut client, mut served) = pair(Patience { handshake: LONG, first_request: LONG, whole: LONG }).await;
        let other = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        client.write_all(&[1]).await.unwrap();
        assert_eq!(served.read_u8().await.unwrap(), 1);
        let there = other.spawn(async move {
            let read = served.read_u8().await.unwrap();
            served.write_all(&[read + 1]).await.unwrap();
            assert_eq!(served.watched_by, Handle::current().id());
            served
        });
        client.write_all(&[2]).await.unwrap(); // what comes later wakes the runtime that reads
        assert_eq!(client.read_u8().await.unwrap(), 3);
        let mut served = there.await.unwrap();
        other.shutdown_background();
        client.write_all(&[4]).await.unwrap();
        assert_eq!(served.read_u8().await.unwrap(), 4, "and the other runtime is not needed any more");
    }

    #[tokio::test]
    async fn no_connection_lives_for_ever() {
        let (mut client, mut served) = pair(Patience { handshake: LONG, first_request: LONG, whole: SHORT }).await;
        served.conduct().note_request(Lane::Verification, false);
        client.write_all(&[7; 100]).await.unwrap();
        let error = served.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn nor_for_ever_where_there_is_always_more_to_read() {
        let (mut client, mut served) = pair(Patience { handshake: LONG, first_request: SHORT, whole: LONG }).await;
        served.conduct().note_greeting();
        tokio::spawn(async move { while client.write_all(&[7; 64 << 10]).await.is_ok() {} });
        let endless = async {
            let mut read = [0; 16];
            loop {
                // As a reader that is never pending: budgets of tasks are not this connection's business.
                if let Err(error) = tokio::task::unconstrained(served.read_exact(&mut read)).await {
                    return error.kind();
                }
            }
        };
        let ended = tokio::time::timeout(LONG, endless).await;
        assert_eq!(ended.unwrap(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn nor_for_ever_where_nobody_reads() {
        let (_client, mut served) = pair(Patience { handshake: LONG, first_request: LONG, whole: SHORT }).await;
        served.conduct().note_request(Lane::Verification, false);
        let endless = async { while served.write_all(&[0; 64 << 10]).await.is_ok() {} };
        assert!(tokio::time::timeout(LONG, endless).await.is_ok());
    }

    #[tokio::test]
    async fn no_more_connections_than_places() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut incoming = accept(listener, 2, Patience { handshake: LONG, first_request: LONG, whole: LONG });
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        let first = incoming.next().await.unwrap();
        let _second = incoming.next().await.unwrap();
        assert!(tokio::time::timeout(SHORT, incoming.next()).await.is_err(), "a third was let in");
        drop(first);
        assert!(tokio::time::timeout(SHORT, incoming.next()).await.is_ok());
    }
}
