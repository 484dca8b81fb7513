//! What every call is wrapped in: admission, a span with the transaction's id, metrics, and the way from error to status.

use std::{future::Future, time::Instant};

use tonic::{Code, Response, Status};
use tracing::{Instrument, Span, field::Empty, info_span};

use super::{Service, error::Error, pb, receive};
use crate::{
    access::{Denied, Pass, Right},
    domain::{ClientId, RequestContext},
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
        let span = Span::current();
        span.record("client", client.as_str());
        span.record("transaction_id", context.transaction_id.as_str());
        span.record("purpose", context.purpose.as_str());
        span.record("site", context.site.as_str());
        let pass = self.0.access.authorise(client, rights, &context)?;
        Ok((pass, context))
    }

    /// Answers one call of `rpc`, which the door has let in.
    pub(super) async fn answer<T>(
        &self,
        rpc: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<Response<T>, Status> {
        observe(rpc, work).await.map(Response::new)
    }
}

/// Runs `work` in a span of its own; counts and times it.
pub async fn observe<T>(rpc: &'static str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Status> {
    let span = info_span!("call", rpc, transaction_id = Empty, client = Empty, purpose = Empty, site = Empty);
    let started = Instant::now();
    let result = work.instrument(span.clone()).await;
    Metrics::get().request_seconds.with_label_values(&[rpc]).observe(started.elapsed().as_secs_f64());
    match result {
        Ok(answer) => {
            count_answer(rpc, Code::Ok);
            Ok(answer)
        }
        Err(error) => Err(span.in_scope(|| refuse(rpc, error))),
    }
}

/// The status of a failed call, logged and counted.
pub fn refuse(rpc: &'static str, error: Error) -> Status {
    Metrics::get().failures_total.with_label_values(&[rpc, error.reason()]).inc();
    // The door refuses thousands a second under overload, and strangers could fill the log: the counters tell it better.
    match &error {
        Error::NoRoom(_) | Error::Unauthenticated | Error::Denied(Denied::UnknownClient) => {
            tracing::debug!(reason = error.reason(), detail = %error, "refused")
        }
        _ => tracing::info!(reason = error.reason(), detail = %error, "failed"),
    }
    let status = error.into_status();
    count_answer(rpc, status.code());
    status
}

fn count_answer(rpc: &'static str, code: Code) {
    Metrics::get().answers_total.with_label_values(&[rpc, code_name(code)]).inc();
}

/// The method that a path names; one word for all that is none, so that labels stay few.
pub fn rpc_name(path: &str) -> &'static str {
    const RPCS: [&str; 8] =
        ["Verify", "Identify", "Assess", "Enrol", "EnrolStream", "Erase", "DescribeGallery", "GetCase"];
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
