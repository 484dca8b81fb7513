//! The door: who calls, and whether there is room, before a byte of the message is read.
//!
//! Whoever is let in holds a [`Place`] until the answer is there and nothing is being changed any more, and every byte
//! of the message is counted against it as it arrives. What is no verification goes on at a lower priority
//! ([`Priority`]). Health and reflection ask for no client, and get next to nothing: small messages (set where they are
//! assembled), little time, few streams.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tonic::{
    Code, Status,
    body::Body,
    codegen::{BoxFuture, Bytes, Service, http},
    service::Routes,
};

use super::{
    deadline::deadline,
    metered::{Metered, take_in},
    place::{Place, StreamPlace},
};
use crate::{
    access::{Denied, Right},
    domain::{ClientId, Lane, Turn},
    gallery::Lease,
    rpc::{
        Core,
        connection::{self, Answers, Conduct, Priority},
        error::Error,
        observe::{self, Call},
    },
};

/// The paths that are guarded.
const GUARDED: &str = "/vultus.v1.";
const ENROL_STREAM: &str = "/vultus.v1.GalleryService/EnrolStream";
/// Those that are open to everyone: a question with an answer, and streams.
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
const OPEN_STREAMS: [&str; 2] = ["/grpc.health.v1.Health/Watch", "/grpc.reflection."];

/// How much later than its own work's end a request is broken off: what waits for its message has no other end.
const BACKSTOP: Duration = Duration::from_millis(50);

/// How long a health check may take, its message's arrival included.
const CHECK_TIME: Duration = Duration::from_secs(2);

/// Lets in whom the policy knows, as many as may be answered at a time.
#[derive(Debug, Clone)]
pub struct Door {
    pub core: Arc<Core>,
    /// What is behind it; always ready.
    pub routes: Routes,
}

type Answer = BoxFuture<http::Response<Body>, Infallible>;

impl Answers for Door {
    /// Answers the request, or says why not.
    fn answer(&self, request: http::Request<Body>) -> Answer {
        let path = request.uri().path();
        let most = self.core.limits.header_bytes;
        if header_bytes(request.headers()) > most as usize {
            let rpc = observe::rpc_name(path);
            return self.turn_away(request, rpc, Error::Headers { most });
        }
        if !path.starts_with(GUARDED) {
            return self.call_open(request);
        }
        let (rpc, lane) = (observe::rpc_name(path), lane(path));
        let client = match known(&self.core, &request) {
            Ok(client) => client,
            Err(error) => return self.turn_away(request, rpc, error),
        };
        // There is room or none: also to find that out is work of the lane's priority.
        let door = self.clone();
        self.core
            .runtimes
            .run(Priority::of(lane), async move { Ok(door.answer_guarded(request, client, rpc, lane).await) })
    }
}

impl Door {
    /// Nobody that the policy knows is told so where its connection is served, whatever it asks for, and earns that no longer life.
    fn turn_away(&self, request: http::Request<Body>, rpc: &'static str, error: Error) -> Answer {
        if let Some(conduct) = request.extensions().get::<Conduct>() {
            conduct.note_stranger();
        }
        take_in(request.into_body(), self.core.limits.stream_window_bytes as usize);
        let refused = refuse(rpc, error);
        Box::pin(async move { Ok(refused) })
    }

    async fn answer_guarded(
        self,
        mut request: http::Request<Body>,
        client: ClientId,
        rpc: &'static str,
        lane: Lane,
    ) -> http::Response<Body> {
        let streams = request.uri().path() == ENROL_STREAM;
        if let Some(conduct) = request.extensions().get::<Conduct>() {
            conduct.note_request(lane, streams);
        }
        let window = self.core.limits.stream_window_bytes as usize;
        let (turn, place) = match admit(&self.core, request.headers(), &client, lane, streams) {
            Ok(admitted) => admitted,
            Err(error) => {
                take_in(request.into_body(), window);
                return refuse(rpc, error);
            }
        };
        // What comes out of a compressed message is not known before it is there: it counts as the largest. A stream unpacks one item
        // at a time, and holds this until it ends.
        if is_compressed(request.headers())
            && let Err(error) = place.hold(self.core.limits.message_bytes)
        {
            take_in(request.into_body(), window);
            return refuse(rpc, error);
        }
        request.extensions_mut().insert(turn.clone());
        // Kept beyond the answer by what has begun to change something for a caller that left.
        request.extensions_mut().insert(Lease::new(Arc::clone(&place)));
        if streams {
            // A stream outlives its first answer, and its items are counted as they are worked on.
            request.extensions_mut().insert(StreamPlace(Arc::clone(&place)));
        } else {
            let (place, patience) = (Arc::clone(&place), self.core.limits.message_timeout);
            request = request.map(|body| Body::new(Metered::new(body, place, patience, window)));
        }
        let call = (!streams).then(|| Call::begun(rpc));
        let answer = tokio::time::timeout_at((turn.deadline + BACKSTOP).into(), self.pass_on(request)).await;
        let Ok(answer) = answer.unwrap_or_else(|_| Ok(observe::refuse(rpc, Error::TimeUp).into_http()));
        let answer = match observe::unnamed(&answer)
            .and_then(|code| Error::of_transport(code, self.core.limits.message_bytes))
        {
            Some(error) => observe::refuse(rpc, error).into_http(),
            None => answer,
        };
        let code = observe::code_of(&answer);
        place.answered(code);
        match call {
            Some(call) => call.answered(code),
            None if code != Code::Ok => Call::refused(rpc).answered(code),
            None => {}
        }
        if !streams {
            return answer;
        }
        // Whoever reads a stream's answers slowly keeps nobody out, but is owed them.
        let owed = Arc::clone(&self.core.answer_streams);
        answer.map(|body| Body::new(Held { body, _held: owed }))
    }

    fn pass_on(
        &self,
        request: http::Request<Body>,
    ) -> impl Future<Output = Result<http::Response<Body>, Infallible>> + use<> {
        Service::call(&mut self.routes.clone(), request)
    }

    /// Health, reflection, and paths that there are none of.
    fn call_open(&self, request: http::Request<Body>) -> Answer {
        let path = request.uri().path();
        let conduct = request.extensions().get::<Conduct>().cloned().unwrap_or_default();
        conduct.note_open_call();
        if path == HEALTH_CHECK {
            let answer = tokio::time::timeout(CHECK_TIME, self.pass_on(request));
            return Box::pin(async move {
                answer.await.unwrap_or_else(|_| Ok(Status::deadline_exceeded("the request took too long").into_http()))
            });
        }
        if !OPEN_STREAMS.iter().any(|open| path.starts_with(open)) {
            return Box::pin(self.pass_on(request));
        }
        let Ok(permit) = Arc::clone(&self.core.open_streams).try_acquire_owned() else {
            let refused = Status::resource_exhausted("as many open streams as there may be; check instead").into_http();
            return Box::pin(async move { Ok(refused) });
        };
        let held = (permit, conduct.open_stream());
        let answer = self.pass_on(request);
        Box::pin(async move { Ok(answer.await?.map(|body| Body::new(Held { body, _held: held }))) })
    }
}

/// An answer that holds something until it has ended, or its client has gone.
struct Held<T> {
    body: Body,
    _held: T,
}

impl<T: Unpin> http_body::Body for Held<T> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// A refusal at the door, counted.
fn refuse(rpc: &'static str, error: Error) -> http::Response<Body> {
    let refused = observe::refuse(rpc, error);
    Call::refused(rpc).answered(refused.code());
    refused.into_http()
}

/// As HTTP/2 counts a list of headers.
fn header_bytes(headers: &http::HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

fn is_compressed(headers: &http::HeaderMap) -> bool {
    headers.get("grpc-encoding").is_some_and(|encoding| encoding != "identity")
}

/// Who calls.
fn known(core: &Core, request: &http::Request<Body>) -> Result<ClientId, Error> {
    let client = connection::client(request)?;
    if core.access.knows(&client) { Ok(client) } else { Err(Denied::UnknownClient.into()) }
}

/// Whose turn the request is, and its place.
fn admit(
    core: &Core,
    headers: &http::HeaderMap,
    client: &ClientId,
    lane: Lane,
    streams: bool,
) -> Result<(Turn, Arc<Place>), Error> {
    if streams && !core.access.holds(client, Right::Enrol) {
        return Err(Denied::Right(Right::Enrol).into());
    }
    let turn = Turn::of(client, lane, deadline(headers, &core.limits));
    let place = if streams { core.places.enter_stream(&turn) } else { core.places.enter(&turn) }?;
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
