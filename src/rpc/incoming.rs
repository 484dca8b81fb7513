//! Connections: as many as are allowed, and none that stays silent.

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
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Sleep,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// A connection that holds its place until it ends.
pub struct Connection {
    stream: TcpStream,
    /// Until the first byte: when the wait for it ends.
    first_byte: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

/// Accepts at most `most` connections at a time; more wait in the system's backlog. One that sends nothing for `patience` is
/// closed. A failure to accept (no file handles, say) is waited out.
pub fn accept(listener: TcpListener, most: usize, patience: Duration) -> ReceiverStream<io::Result<Connection>> {
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
                    let first_byte = Some(Box::pin(tokio::time::sleep(patience)));
                    let connection = Connection { stream, first_byte, _place: place };
                    if connections.send(Ok(connection)).await.is_err() {
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
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.first_byte = None;
        } else if let Some(patience) = &mut self.first_byte
            && patience.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_stream::StreamExt;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn a_silent_connection_is_closed_and_a_talking_one_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut incoming = accept(listener, 8, PATIENCE);
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut served = incoming.next().await.unwrap().unwrap();
        let error = served.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let mut talking = TcpStream::connect(address).await.unwrap();
        let mut served = incoming.next().await.unwrap().unwrap();
        talking.write_u8(7).await.unwrap();
        assert_eq!(served.read_u8().await.unwrap(), 7);
        assert!(tokio::time::timeout(3 * PATIENCE, served.read_u8()).await.is_err(), "silence later on is no fault");
    }

    #[tokio::test]
    async fn no_more_connections_than_places() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut incoming = accept(listener, 2, Duration::from_secs(60));
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        let first = incoming.next().await.unwrap().unwrap();
        let _second = incoming.next().await.unwrap().unwrap();
        assert!(tokio::time::timeout(PATIENCE, incoming.next()).await.is_err(), "a third was let in");
        drop(first);
        assert!(tokio::time::timeout(PATIENCE, incoming.next()).await.is_ok());
    }
}
