//! The door: who calls, and whether there is room, before a byte of the message is read.
//!
//! Health and reflection pass. A stream of enrolments takes no permit here: each of its items waits for one of their own.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tonic::{
    body::Body,
    codegen::{BoxFuture, Service, http},
    metadata::MetadataMap,
};
use tower_layer::Layer;

use super::{Core, error::Error, observe, receive};
use crate::access::{Denied, Right};

/// The paths that are guarded.
const GUARDED: &str = "/vultus.v1.";
const ENROL_STREAM: &str = "/vultus.v1.GalleryService/EnrolStream";

/// Wraps every service in [`Door`].
#[derive(Debug, Clone)]
pub struct Admission(pub Arc<Core>);

impl<S> Layer<S> for Admission {
    type Service = Door<S>;

    fn layer(&self, inner: S) -> Door<S> {
        Door { inner, core: Arc::clone(&self.0) }
    }
}

/// Lets in whom the policy knows, as many as may be answered at a time.
#[derive(Debug, Clone)]
pub struct Door<S> {
    inner: S,
    core: Arc<Core>,
}

impl<S> Service<http::Request<Body>> for Door<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // The clone takes this one's place; the one that was polled ready is called.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let core = Arc::clone(&self.core);
        Box::pin(async move {
            let path = request.uri().path();
            if !path.starts_with(GUARDED) {
                return inner.call(request).await;
            }
            let rpc = observe::rpc_name(path);
            match admit(&core, &request) {
                Err(error) => Ok(observe::refuse(rpc, error).into_http()),
                Ok(_permit) => inner.call(request).await, // held until the answer is there
            }
        })
    }
}

/// A permit to be answered; none for a stream.
fn admit<'a>(core: &'a Core, request: &http::Request<Body>) -> Result<Option<tokio::sync::SemaphorePermit<'a>>, Error> {
    let client = receive::client(&MetadataMap::from_headers(request.headers().clone()))?;
    if !core.access.knows(&client) {
        return Err(Denied::UnknownClient.into());
    }
    if request.uri().path() == ENROL_STREAM {
        if !core.access.holds(&client, Right::Enrol) {
            return Err(Denied::Right(Right::Enrol).into());
        }
        return Ok(None);
    }
    core.in_flight.try_acquire().map(Some).map_err(|_| Error::Busy)
}
