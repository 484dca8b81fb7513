//! What every call is wrapped in: admission, a deadline, a span with the transaction's id, metrics, and the way from error to status.

use std::{future::Future, time::Instant};

use tonic::{Code, Response, Status, body::Body, codegen::http};
use tracing::{Instrument, Span, field::Empty, info_span};

use super::{Service, error::Error, pb, receive};
use crate::{
    access::{Denied, Pass, Right},
    domain::{ClientId, RequestContext, Turn},
    telemetry::Metrics,
};

impl Service {
    /// Checks why the call is made and what the client may do with one of `rights`; who calls, and why, stands on every
    /// later line of the log. Before anything else of a request is looked at.
    pub(super) fn enter(
        &self,
        client: &ClientId,
        context: Option<pb::RequestContext>,
        rights: &[Right],
    ) -> Result<(Pass, RequestContext), Error> {
        let context = receive::context(context)?;
        tracing::record_all!(
            Span::current(),
            client = client.as_str(),
            transaction_id = context.transaction_id.as_str(),
            purpose = context.purpose.as_str(),
            site = context.site.as_str(),
        );
        let pass = self.0.access.authorise(client, rights, &context)?;
        Ok((pass, context))
    }

    /// Answers one call of `rpc`, which the door has let in and counts.
    pub(super) async fn answer<T, W>(
        &self,
        rpc: &'static str,
        turn: Result<Turn, Error>,
        work: impl FnOnce(Turn) -> W,
    ) -> Result<Response<T>, Status>
    where
        W: Future<Output = Result<T, Error>>,
    {
        match turn {
            Ok(turn) => observe(rpc, turn.deadline, work(turn)).await.map(Response::new),
            Err(error) => Err(refuse(rpc, error)),
        }
    }
}

/// Runs `work` until the deadline, in a span of its own, in which its failure is logged.
pub async fn observe<T>(
    rpc: &'static str,
    deadline: Instant,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Status> {
    let span = info_span!("call", rpc, transaction_id = Empty, client = Empty, purpose = Empty, site = Empty);
    let result = tokio::time::timeout_at(deadline.into(), work.instrument(span.clone())).await;
    result.unwrap_or(Err(Error::TimeUp)).map_err(|error| span.in_scope(|| refuse(rpc, error)))
}

/// The status of a failed call, logged, and counted by its reason.
pub fn refuse(rpc: &'static str, error: Error) -> Status {
    Metrics::get().failures_total.with_label_values(&[rpc, error.reason()]).inc();
    // The door refuses thousands a second under overload, and strangers could fill the log: the counters tell it better.
    match &error {
        Error::NoRoom(_) | Error::Unauthenticated { .. } | Error::Denied(Denied::UnknownClient) => {
            tracing::debug!(reason = error.reason(), detail = %error, "refused")
        }
        _ => tracing::info!(reason = error.reason(), detail = %error, "failed"),
    }
    error.into_status()
}

/// A call that is to be counted once, by the code that it ends with.
#[derive(Debug)]
pub struct Call {
    rpc: &'static str,
    /// `None` where its time says nothing of answers.
    timed_since: Option<Instant>,
    code: Code,
}

impl Call {
    /// One that is worked on: timed until it is answered.
    pub fn begun(rpc: &'static str) -> Self {
        Self { rpc, timed_since: Some(Instant::now()), code: Code::Cancelled }
    }

    /// One that is refused at the door.
    pub fn refused(rpc: &'static str) -> Self {
        Self { rpc, timed_since: None, code: Code::Cancelled }
    }

    /// Without this its client has gone before the answer.
    pub fn answered(mut self, code: Code) {
        self.code = code;
        if let Some(since) = self.timed_since {
            Metrics::get().request_seconds.with_label_values(&[self.rpc]).observe(since.elapsed().as_secs_f64());
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        Metrics::get().answers_total.with_label_values(&[self.rpc, code_name(self.code)]).inc();
    }
}

/// The status that stands in an answer's headers; that of an answer with a message follows it, and is OK.
pub fn code_of(answer: &http::Response<Body>) -> Code {
    answer.headers().get(Status::GRPC_STATUS).map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
}

/// The code of a refusal without details, which the transport made: all of ours have some.
pub fn unnamed(answer: &http::Response<Body>) -> Option<Code> {
    let code = code_of(answer);
    (code != Code::Ok && !answer.headers().contains_key(Status::GRPC_STATUS_DETAILS)).then_some(code)
}

/// The method that a path names; one word for all that is none, so that labels stay few.
pub fn rpc_name(path: &str) -> &'static str {
    const RPCS: [&str; 10] = [
        "Verify",
        "Identify",
        "Assess",
        "Enrol",
        "EnrolStream",
        "Erase",
        "DescribeGallery",
        "ListCases",
        "GetCase",
        "RecordVerdict",
    ];
    let method = path.rsplit('/').next().unwrap_or_default();
    RPCS.into_iter().find(|rpc| *rpc == method).unwrap_or("other")
}

/// The name that gRPC's documents use.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
