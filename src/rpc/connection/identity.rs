//! Who is at the other end of a connection, and on which stream HTTP/2 is spoken with it: decided when the connection is made. The
//! identity is from then on a property of it, which each of its requests carries.

use std::{fmt, future::ready, io, pin::Pin, sync::Arc};

use tokio::io::{AsyncRead, AsyncWrite};
use tonic::codegen::http::{HeaderMap, Request};

use super::incoming::Connection;
use crate::{domain::ClientId, rpc::error::Error};

/// What a connection knows of its peer.
pub trait Identity: fmt::Debug + Send + Sync {
    /// Whose request it is that came with these headers. Where the connection itself has shown that, no header is looked at.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] where nothing says so, in words of what was expected.
    fn client(&self, headers: &HeaderMap) -> Result<ClientId, Error>;
}

/// Decides the identity of each connection, and what HTTP/2 is spoken on. A seam: mutual TLS makes its handshake here, takes the name in
/// the certificate that was proved, and returns the stream that encrypts.
pub trait Identities: fmt::Debug + Send + Sync {
    /// Before HTTP/2 begins, in a task of the connection's own. It has the connection's time for a greeting, and is dropped when that is
    /// over, whatever it waits for, and the connection with it. So does an error end the connection.
    fn of(&self, connection: Connection) -> Deciding<'_>;
}

pub type Deciding<'a> = Pin<Box<dyn Future<Output = io::Result<Decided>> + Send + 'a>>;

/// Who it is, and the stream that HTTP/2 is spoken on: the connection itself, or a stream that wraps it. That waits for nothing but the
/// connection, and polls it as it is polled itself: so the connection's clocks end it, and it moves from one runtime to another.
pub type Decided = (Arc<dyn Identity>, Box<dyn ByteStream>);

/// What HTTP/2 can be spoken on.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// Whose request it is, by the identity of its connection.
///
/// # Errors
/// As [`Identity::client`].
pub fn client<T>(request: &Request<T>) -> Result<ClientId, Error> {
    let identity = request.extensions().get::<Arc<dyn Identity>>();
    identity.ok_or(Error::Internal("a request that came over no connection"))?.client(request.headers())
}

/// The header that names the client.
const CLIENT_HEADER: &str = "vultus-client";

const NOT_NAMED: Error = Error::Unauthenticated { expected: "the client's name in the metadata `vultus-client`" };

/// Of `--insecure`: the connection shows nothing, and each request's header is believed.
#[derive(Debug, Clone, Copy)]
pub struct TakenAtItsWord;

impl Identities for TakenAtItsWord {
    fn of(&self, connection: Connection) -> Deciding<'_> {
        let decided: Decided = (Arc::new(*self), Box::new(connection));
        Box::pin(ready(Ok(decided)))
    }
}

impl Identity for TakenAtItsWord {
    fn client(&self, headers: &HeaderMap) -> Result<ClientId, Error> {
        let name = headers.get(CLIENT_HEADER).and_then(|value| value.to_str().ok()).ok_or(NOT_NAMED)?;
        ClientId::new(name).map_err(|_| NOT_NAMED)
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn who_is_taken_at_its_word_must_give_it() {
        let named = |name: Option<&'static [u8]>| {
            let mut request = Request::new(());
            request.extensions_mut().insert(Arc::new(TakenAtItsWord) as Arc<dyn Identity>);
            if let Some(name) = name {
                request.headers_mut().insert(CLIENT_HEADER, name.try_into().unwrap());
            }
            client(&request)
        };
        assert_eq!(named(Some(b"shop")).unwrap().as_str(), "shop");
        for nobody in [None, Some(&b""[..]), Some(b"a shop"), Some(b"caf\xe9")] {
            let refused = named(nobody).unwrap_err();
            assert_eq!(refused.reason(), "CLIENT_MISSING", "{nobody:?}");
            let status = refused.into_status();
            assert_eq!(status.code(), Code::Unauthenticated);
            assert_eq!(status.message(), "expected the client's name in the metadata `vultus-client`");
        }
    }

    #[test]
    fn a_request_without_a_connection_is_nobodys() {
        let mut request = Request::new(());
        request.headers_mut().insert(CLIENT_HEADER, "shop".parse().unwrap());
        assert!(matches!(client(&request), Err(Error::Internal(_))));
    }
}
