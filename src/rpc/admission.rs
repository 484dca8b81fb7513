//! The door: who calls, and whether there is room, before a byte of the message is read.
//!
//! Health and reflection pass. Whoever is let in holds a [`Place`] until the answer is there, and every byte of the message is
//! counted against it as it arrives. What is no verification goes on at a lower priority ([`super::background`]).

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use tonic::{
    Status,
    body::Body,
    codegen::{BoxFuture, Bytes, Service, http},
};
use tower_layer::Layer;

use super::{
    Core,
    error::Error,
    ledger::{Ledger, NoRoom},
    observe, receive,
};
use crate::{
    access::{Denied, Right},
    domain::{ClientId, Lane, Turn},
    telemetry::Metrics,
};

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

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if let Some(spoken) = request.extensions().get::<super::incoming::Spoken>() {
            spoken.note();
        }
        let path = request.uri().path();
        if !path.starts_with(GUARDED) {
            return Box::pin(self.inner.call(request));
        }
        let (rpc, lane, streams) = (observe::rpc_name(path), lane(path), path == ENROL_STREAM);
        let (turn, place) = match admit(&self.core, &request, lane, streams) {
            Ok(admitted) => admitted,
            Err(error) => {
                let refused = observe::refuse(rpc, error).into_http();
                return Box::pin(async move { Ok(refused) });
            }
        };
        request.extensions_mut().insert(turn);
        if streams {
            // A stream outlives its first answer, and its items are counted as they are worked on.
            request.extensions_mut().insert(StreamPlace { _place: Arc::clone(&place) });
        } else {
            let place = Arc::clone(&place);
            request = request.map(|body| Body::new(Metered { body, place }));
        }
        let answer = self.inner.call(request);
        match self.core.background.of(lane) {
            None => Box::pin(async move {
                let _place = place; // held until the answer is there
                answer.await
            }),
            Some(background) => background.run(async move {
                let _place = place; // as above
                answer.await
            }),
        }
    }
}

/// Whose turn the request is, and its place.
fn admit(core: &Core, request: &http::Request<Body>, lane: Lane, streams: bool) -> Result<(Turn, Arc<Place>), Error> {
    let client = receive::client(request.headers())?;
    if !core.access.knows(&client) {
        return Err(Denied::UnknownClient.into());
    }
    if streams && !core.access.holds(&client, Right::Enrol) {
        return Err(Denied::Right(Right::Enrol).into());
    }
    let deadline = receive::deadline(request.headers(), &core.limits);
    let turn = Turn::of(&client, lane, deadline);
    let place = core.places.enter(&turn)?;
    Ok((turn, Arc::new(place)))
}

/// How urgent a method is.
fn lane(path: &str) -> Lane {
    match path.rsplit('/').next() {
        Some("Verify" | "Assess") => Lane::Verification,
        Some("Identify") => Lane::Identification,
        _ => Lane::Enrolment,
    }
}

/// The ledger, shared.
#[derive(Debug, Clone)]
pub struct Places(Arc<Mutex<Ledger>>);

impl Places {
    pub fn new(ledger: Ledger) -> Self {
        Self(Arc::new(Mutex::new(ledger)))
    }

    /// Requests being answered.
    pub fn taken(&self) -> usize {
        self.lock().requests()
    }

    fn enter(&self, turn: &Turn) -> Result<Place, Error> {
        let Some(client) = turn.client.clone() else { return Err(Error::Internal("a request without its client")) };
        let lane = turn.lane;
        self.lock().enter(lane, &client).map_err(|none| no_room(none, lane))?;
        Metrics::get().requests_in_flight.with_label_values(&[lane.as_str()]).inc();
        Ok(Place { places: self.clone(), lane, client, bytes: Mutex::new(0) })
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_room(none: NoRoom, lane: Lane) -> Error {
    Metrics::get().refusals_total.with_label_values(&[none.as_str(), lane.as_str()]).inc();
    Error::NoRoom(none)
}

/// A request's place, and what is held for it.
#[derive(Debug)]
struct Place {
    places: Places,
    lane: Lane,
    client: Arc<ClientId>,
    bytes: Mutex<usize>,
}

impl Place {
    fn hold(&self, bytes: usize) -> Result<(), Error> {
        let mut held = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ledger = self.places.lock();
        ledger.hold(&self.client, bytes).map_err(|none| no_room(none, self.lane))?;
        *held += bytes;
        Metrics::get().request_bytes.set(super::gauge(ledger.bytes()));
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut ledger = self.places.lock();
        ledger.leave(self.lane, &self.client, bytes);
        Metrics::get().request_bytes.set(super::gauge(ledger.bytes()));
        Metrics::get().requests_in_flight.with_label_values(&[self.lane.as_str()]).dec();
    }
}

/// What a stream holds until it ends.
#[derive(Debug, Clone)]
pub struct StreamPlace {
    _place: Arc<Place>,
}

/// A message's body that is counted as it arrives, and broken off where there is no room for more.
struct Metered {
    body: Body,
    place: Arc<Place>,
}

impl http_body::Body for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Err(error) = self.place.hold(data.len())
        {
            return Poll::Ready(Some(Err(error.into_status())));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
