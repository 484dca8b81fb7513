//! HTTP/2's greeting, counted on the stream that HTTP/2 is spoken on: a handshake beneath it is none.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{conduct::Conduct, identity::ByteStream};

/// What a client sends at least before its first request: HTTP/2's preface, and a SETTINGS frame without settings.
const GREETING_BYTES: usize = 24 + 9;

/// A stream that notes when the greeting has come over it.
pub struct Greeted {
    stream: Box<dyn ByteStream>,
    /// Bytes of the greeting that are still to come.
    awaited: usize,
    conduct: Conduct,
}

impl Greeted {
    pub fn new(stream: Box<dyn ByteStream>, conduct: Conduct) -> Self {
        Self { stream, awaited: GREETING_BYTES, conduct }
    }
}

impl AsyncRead for Greeted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.awaited > 0 {
            let came = buffer.filled().len().saturating_sub(before);
            self.awaited = self.awaited.saturating_sub(came);
            if self.awaited == 0 {
                self.conduct.note_greeting();
            }
        }
        read
    }
}

impl AsyncWrite for Greeted {
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

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// A client's end and the server's.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_greeting_is_one_when_all_of_it_has_been_read() {
        let ((mut client, server), conduct) = (pair().await, Conduct::default());
        let mut greeted = Greeted::new(Box::new(server), conduct.clone());
        client.write_all(&[0; GREETING_BYTES + 1]).await.unwrap();
        for part in [1, GREETING_BYTES - 2] {
            greeted.read_exact(&mut vec![0; part]).await.unwrap();
            assert!(!conduct.has_greeting(), "after {part}");
        }
        greeted.read_u8().await.unwrap();
        assert!(conduct.has_greeting());
        greeted.read_u8().await.unwrap();
    }

    #[tokio::test]
    async fn pieces_leave_in_one_write() {
        let (mut client, server) = pair().await;
        let mut greeted = Greeted::new(Box::new(server), Conduct::default());
        assert!(greeted.is_write_vectored());
        let pieces = [IoSlice::new(b"head"), IoSlice::new(b"body")];
        assert_eq!(greeted.write_vectored(&pieces).await.unwrap(), 8);
        client.read_exact(&mut [0; 8]).await.unwrap();
    }
}
