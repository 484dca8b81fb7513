//! What every call is wrapped in: admission, a span with the transaction's id, metrics, and the way from error to status.

use std::{future::Future, time::Instant};

use tokio::sync::SemaphorePermit;
use tonic::{Code, Response, Status};
use tracing::{Instrument, Span, field::Empty, info_span};

use super::{Service, error::Error};
use crate::{
    domain::{ClientId, RequestContext},
    telemetry::Metrics,
};

impl Service {
    /// Answers one call of `rpc`. At most `max_in_flight` are answered at a time; more are refused at once.
    pub(super) async fn answer<T>(
        &self,
        rpc: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<Response<T>, Status> {
        self.observe(rpc, async { self.0.in_flight.try_acquire().map_err(|_| Error::Busy) }, work)
            .await
            .map(Response::new)
    }

    /// As [`Self::answer`] for an item of a stream: waits for its turn, as the stream's flow control makes the client wait.
    pub(super) async fn answer_when_free<T>(
        &self,
        rpc: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Status> {
        self.observe(rpc, async { self.0.in_flight.acquire().await.map_err(|_| Error::Busy) }, work).await
    }

    async fn observe<T>(
        &self,
        rpc: &'static str,
        admission: impl Future<Output = Result<SemaphorePermit<'_>, Error>>,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Status> {
        let span = info_span!("call", rpc, transaction_id = Empty, client = Empty, purpose = Empty, site = Empty);
        let started = Instant::now();
        let metrics = Metrics::get();
        let result = async {
            let _permit = admission.await?;
            let _counted = InFlight::enter();
            work.await
        }
        .instrument(span.clone())
        .await;
        let took = started.elapsed();
        metrics.request_seconds.with_label_values(&[rpc]).observe(took.as_secs_f64());
        let answer = result.map_err(|error| {
            metrics.failures_total.with_label_values(&[rpc, error.reason()]).inc();
            span.in_scope(|| tracing::info!(reason = error.reason(), detail = %error, "failed"));
            error.into_status()
        });
        let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
        metrics.answers_total.with_label_values(&[rpc, code_name(code)]).inc();
        answer
    }
}

/// Writes who calls, and why, on every later line of the call.
pub fn note(client: &ClientId, context: &RequestContext) {
    let span = Span::current();
    span.record("client", client.as_str());
    span.record("transaction_id", context.transaction_id.as_str());
    span.record("purpose", context.purpose.as_str());
    span.record("site", context.site.as_str());
}

/// Counts a call for as long as it is being answered, also when the client leaves.
struct InFlight;

impl InFlight {
    fn enter() -> Self {
        Metrics::get().requests_in_flight.inc();
        Self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        Metrics::get().requests_in_flight.dec();
    }
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
