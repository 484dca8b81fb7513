//! Assembly: listeners, limits, health, reflection, metrics, and the way down.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch};
use tonic::transport::Server;
use tonic_health::server::HealthReporter;

use super::{
    Core, Service,
    admission::Admission,
    incoming::accept,
    pb::{
        self, gallery_service_server::GalleryServiceServer, match_service_server::MatchServiceServer,
        review_service_server::ReviewServiceServer,
    },
};
use crate::telemetry::Metrics;

/// What a client can make the server hold or do at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message. Two images of the greatest size fit (the 2 MiB of an encoded one; a raw one may be larger than that).
    pub message_bytes: usize,
    /// Requests answered at a time; more are refused with RESOURCE_EXHAUSTED.
    pub max_in_flight: usize,
    /// Connections at a time; more wait in the system's backlog.
    pub connections: usize,
    /// How long a new connection may be silent.
    pub first_byte: Duration,
    /// Streams on one connection.
    pub streams_per_connection: u32,
    /// Items of EnrolStreams that are worked on at a time, of one and of all together; the senders wait for more.
    pub enrol_stream_window: usize,
    /// Bytes of a request's headers.
    pub header_bytes: u32,
    /// How long a caller that names no deadline is worked for.
    pub default_deadline: Duration,
    /// The longest that any caller is worked for.
    pub max_deadline: Duration,
    /// How often an idle connection is asked whether it is there, and how long the answer may take.
    pub keepalive: Duration,
    /// How long requests in flight may take once the server is told to stop.
    pub drain_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 5 << 20,
            max_in_flight: 256,
            connections: 1024,
            first_byte: Duration::from_secs(10),
            streams_per_connection: 128,
            enrol_stream_window: 64,
            header_bytes: 16 << 10,
            default_deadline: Duration::from_secs(10),
            max_deadline: Duration::from_secs(60),
            keepalive: Duration::from_secs(30),
            drain_grace: Duration::from_secs(25),
        }
    }
}

/// Why the server did not start, or broke off.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("listening on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("{address} is not a loopback address: without mutual TLS the server binds loopback alone")]
    NotLoopback { address: SocketAddr },
    #[error("assembling the server: {0}")]
    Assemble(String),
    #[error("the transport failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// A server that listens, but does not answer before [`Serving::until`].
#[derive(Debug)]
pub struct Serving {
    core: Arc<Core>,
    listener: TcpListener,
    metrics: TcpListener,
    reflection: bool,
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every request in flight was answered.
    Drained,
    /// The grace was over before they were.
    BrokenOff,
}

/// Binds both ports; port 0 takes a free one. Plaintext, so loopback alone.
///
/// # Errors
/// [`ServeError::NotLoopback`], or [`ServeError::Listen`] when the port is taken.
pub async fn bind(
    core: Core,
    listen: SocketAddr,
    metrics_listen: SocketAddr,
    reflection: bool,
) -> Result<Serving, ServeError> {
    if let Some(address) = [listen, metrics_listen].into_iter().find(|a| !a.ip().is_loopback()) {
        return Err(ServeError::NotLoopback { address });
    }
    let bound = |address| async move {
        TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })
    };
    let (listener, metrics) = (bound(listen).await?, bound(metrics_listen).await?);
    Ok(Serving { core: Arc::new(core), listener, metrics, reflection })
}

impl Serving {
    /// Where gRPC is answered.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where Prometheus scrapes.
    pub fn metrics_address(&self) -> io::Result<SocketAddr> {
        self.metrics.local_addr()
    }

    /// Serves until `stop` is done, then answers what is in flight, within the grace.
    pub async fn until(self, stop: impl Future<Output = ()> + Send) -> Result<Ended, ServeError> {
        let limits = self.core.limits.clone();
        let (health, health_service) = tonic_health::server::health_reporter();
        let reflection = self.reflection.then(reflection).transpose()?;
        let service = || Service(Arc::clone(&self.core));
        let sized = limits.message_bytes;
        let router = Server::builder()
            .max_concurrent_streams(limits.streams_per_connection)
            .http2_keepalive_interval(Some(limits.keepalive))
            .http2_keepalive_timeout(Some(limits.keepalive))
            .http2_max_header_list_size(limits.header_bytes)
            .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS))
            .timeout(limits.max_deadline)
            .layer(Admission(Arc::clone(&self.core)))
            .add_service(health_service)
            .add_optional_service(reflection)
            .add_service(MatchServiceServer::new(service()).max_decoding_message_size(sized))
            .add_service(GalleryServiceServer::new(service()).max_decoding_message_size(sized))
            .add_service(ReviewServiceServer::new(service()).max_decoding_message_size(sized));

        let core = Arc::clone(&self.core);
        let stopped = core.stopping.subscribe();
        let metrics = tokio::spawn(serve_metrics(self.metrics, stopped.clone()));
        let watcher = tokio::spawn(watch_health(Arc::clone(&self.core), health, stopped.clone()));
        let mut told = stopped.clone();
        let connections = accept(self.listener, limits.connections, limits.first_byte);
        let server = router.serve_with_incoming_shutdown(connections, async move {
            let _ = told.wait_for(|stop| *stop).await; // an error means that the sender is gone: stop as well
        });
        tokio::pin!(server);
        let ended = tokio::select! {
            served = &mut server => served.map(|()| Ended::Drained)?,
            () = stop => {
                core.stopping.send_replace(true);
                tokio::select! {
                    served = &mut server => served.map(|()| Ended::Drained)?,
                    () = idle(&self.core) => Ended::Drained,
                    () = tokio::time::sleep(limits.drain_grace) => Ended::BrokenOff,
                }
            }
        };
        core.stopping.send_replace(true);
        watcher.abort();
        metrics.abort();
        Ok(ended)
    }
}

/// Done when no request has been answered for a second: a client that ignores GOAWAY keeps its connection, but is owed
/// nothing.
async fn idle(core: &Core) {
    let mut quiet = 0;
    while quiet < 10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let answering = core.in_flight.available_permits() < core.limits.max_in_flight
            || core.stream_items.available_permits() < core.limits.enrol_stream_window;
        quiet = if answering { 0 } else { quiet + 1 };
    }
}

/// Streams that a client opened and reset before they were looked at; more end the connection.
const PENDING_RESETS: usize = 64;

fn reflection() -> Result<
    tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection>,
    ServeError,
> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| ServeError::Assemble(error.to_string()))
}

/// Health is earned: serving after every network has run for real, not serving as soon as the device or the store has failed, or the server
/// is told to stop.
async fn watch_health(core: Arc<Core>, health: HealthReporter, mut stopped: watch::Receiver<bool>) {
    set_health(&health, false).await;
    match core.pipeline.self_test().await {
        Ok(()) => tracing::info!("self-test passed; serving"),
        Err(error) => {
            tracing::error!(%error, "self-test failed; not serving");
            return;
        }
    }
    set_health(&health, true).await;
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            () = tokio::time::sleep(HEALTH_INTERVAL) => {}
        }
        Metrics::get().references.set(i64::try_from(core.access.references()).unwrap_or(i64::MAX));
        if core.access.store_failed() {
            tracing::error!("the store has failed; not serving");
            break;
        }
        if !core.pipeline.is_running() {
            tracing::error!("the device has stopped; not serving");
            break;
        }
    }
    set_health(&health, false).await;
}

const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

async fn set_health(health: &HealthReporter, serving: bool) {
    let status = if serving { tonic_health::ServingStatus::Serving } else { tonic_health::ServingStatus::NotServing };
    for service in ["", "vultus.v1.MatchService", "vultus.v1.GalleryService", "vultus.v1.ReviewService"] {
        health.set_service_status(service, status).await;
    }
}

/// `/metrics`, in Prometheus' text format, on its own port.
async fn serve_metrics(listener: TcpListener, mut stopped: watch::Receiver<bool>) {
    let exposition = || async {
        Metrics::get().exposition().map_err(|error| {
            tracing::error!(%error, "metrics do not encode");
            axum::http::StatusCode::INTERNAL_SERVER_ERROR
        })
    };
    let routes = axum::Router::new().route("/metrics", axum::routing::get(exposition));
    let stop = async move {
        let _ = stopped.wait_for(|stop| *stop).await; // as above
    };
    if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(stop).await {
        tracing::error!(%error, "the metrics' port failed");
    }
}
