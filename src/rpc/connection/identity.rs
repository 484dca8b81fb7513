//! Who is at the other end of a connection: decided when it is made, and from then on a property of it, which each of its requests
//! carries.

use std::{fmt, future::ready, io, pin::Pin, sync::Arc};

use tonic::codegen::http::{HeaderMap, Request};

use super::incoming::Connection;
use crate::{domain::ClientId, rpc::error::Error};

/// What a connection knows of its peer.
pub trait Identity: fmt::Debug + Send + Sync {
    /// Whose request it is that came with these headers. Where the connection itself has shown that, no header is looked at.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] where nothing says so.
    fn client(&self, headers: &HeaderMap) -> Result<ClientId, Error>;
}

/// Decides the identity of each connection. A seam: with mutual TLS it is the name in the certificate that the handshake has proved.
pub trait Identities: fmt::Debug + Send + Sync {
    /// Before HTTP/2 begins, in a task of the connection's own and in its time for a greeting. An error ends the connection.
    fn of<'a>(&'a self, connection: &'a mut Connection) -> Deciding<'a>;
}

pub type Deciding<'a> = Pin<Box<dyn Future<Output = io::Result<Arc<dyn Identity>>> + Send + 'a>>;

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

/// Of `--insecure`: the connection shows nothing, and each request's header is believed.
#[derive(Debug, Clone, Copy)]
pub struct TakenAtItsWord;

impl Identities for TakenAtItsWord {
    fn of<'a>(&'a self, _: &'a mut Connection) -> Deciding<'a> {
        Box::pin(ready(Ok(Arc::new(*self) as Arc<dyn Identity>)))
    }
}

impl Identity for TakenAtItsWord {
    fn client(&self, headers: &HeaderMap) -> Result<ClientId, Error> {
        let name = headers.get(CLIENT_HEADER).and_then(|value| value.to_str().ok()).ok_or(Error::Unauthenticated)?;
        ClientId::new(name).map_err(|_| Error::Unauthenticated)
    }
}

#[cfg(test)]
mod tests {
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
            assert!(matches!(named(nobody), Err(Error::Unauthenticated)), "{nobody:?}");
        }
    }

    #[test]
    fn a_request_without_a_connection_is_nobodys() {
        let mut request = Request::new(());
        request.headers_mut().insert(CLIENT_HEADER, "shop".parse().unwrap());
        assert!(matches!(client(&request), Err(Error::Internal(_))));
    }
}
