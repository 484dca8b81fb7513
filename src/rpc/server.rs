//! Assembly: listeners, limits, health, reflection, metrics, and the way down.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tonic::{codec::CompressionEncoding::Gzip, service::Routes};

use super::{
    Core, Service,
    admission::Door,
    connection::{Identities, Patience, Transport, accept},
    health, metrics,
    pb::{
        self, gallery_service_server::GalleryServiceServer, match_service_server::MatchServiceServer,
        review_service_server::ReviewServiceServer,
    },
};
use crate::pipeline::Condition;

/// Of a message to health or reflection, which anyone may send: a name and little more.
const OPEN_MESSAGE_BYTES: usize = 1 << 10;

/// Why the server did not start, or broke off.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("listening on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("{address} is not a loopback address: without mutual TLS the server binds loopback alone")]
    NotLoopback { address: SocketAddr },
    #[error("assembling the server: {0}")]
    Assemble(String),
}

/// A server that listens, but does not answer before [`Serving::until`].
#[derive(Debug)]
pub struct Serving {
    core: Arc<Core>,
    identities: Arc<dyn Identities>,
    listener: TcpListener,
    metrics: TcpListener,
    reflection: bool,
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every request in flight was answered, and no stream's answers are unread.
    Drained,
    /// The grace was over before they were.
    BrokenOff,
    /// The device was lost, with what it had under way, and nothing took its place.
    DeviceLost,
}

/// Binds both ports; port 0 takes a free one. Plaintext, so loopback alone. `identities` decide who is at the other end of each
/// connection.
///
/// # Errors
/// [`ServeError::NotLoopback`], or [`ServeError::Listen`] when the port is taken.
pub async fn bind(
    core: Core,
    identities: Arc<dyn Identities>,
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
    Ok(Serving { core: Arc::new(core), identities, listener, metrics, reflection })
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
        let (reporter, health_service) = tonic_health::server::health_reporter();
        let service = || Service(Arc::clone(&self.core));
        let sized = limits.message_bytes;
        let mut routes = Routes::builder();
        routes
            .add_service(health_service.max_decoding_message_size(OPEN_MESSAGE_BYTES).accept_compressed(Gzip))
            .add_service(MatchServiceServer::new(service()).max_decoding_message_size(sized).accept_compressed(Gzip))
            .add_service(GalleryServiceServer::new(service()).max_decoding_message_size(sized).accept_compressed(Gzip))
            .add_service(ReviewServiceServer::new(service()).max_decoding_message_size(sized).accept_compressed(Gzip));
        if self.reflection {
            let fault = |e: tonic_reflection::server::Error| ServeError::Assemble(e.to_string());
            let (v1, v1alpha) = (reflection().build_v1().map_err(fault)?, reflection().build_v1alpha().map_err(fault)?);
            routes
                .add_service(v1.max_decoding_message_size(OPEN_MESSAGE_BYTES).accept_compressed(Gzip))
                .add_service(v1alpha.max_decoding_message_size(OPEN_MESSAGE_BYTES).accept_compressed(Gzip));
        }
        let door = Door { core: Arc::clone(&self.core), routes: routes.routes().prepare() };

        let core = Arc::clone(&self.core);
        let stopped = core.stopping.subscribe();
        let metrics = tokio::spawn({
            let (listener, stopped) = (self.metrics, stopped.clone());
            async move {
                if let Err(error) = metrics::serve(listener, stopped).await {
                    tracing::error!(%error, "the metrics' port failed");
                }
            }
        });
        let watcher = tokio::spawn(health::watch(Arc::clone(&self.core), reporter, stopped.clone()));
        let connections = accept(self.listener, limits.connections, Patience::of(&limits));
        let server =
            Transport::new(&limits, core.runtimes.clone(), self.identities, stopped).serve(connections, Arc::new(door));
        tokio::pin!(server);
        let mut condition = self.core.pipeline.condition();
        let mut lost = false;
        let told_or_lost = async {
            tokio::select! {
                () = stop => {}
                // Without a sender there is no device to lose.
                Ok(_) = condition.wait_for(|condition| matches!(condition, Condition::Lost(_))) => lost = true,
            }
        };
        let ended = tokio::select! {
            () = &mut server => Ended::Drained,
            () = told_or_lost => {
                core.stopping.send_replace(true);
                // Connections may be gone while changes that were begun over them are still carried to their end, and to their record.
                let drained = async {
                    server.await;
                    unchanged(&self.core).await;
                };
                tokio::select! {
                    () = drained => Ended::Drained,
                    () = idle(&self.core) => Ended::Drained,
                    () = tokio::time::sleep(limits.drain_grace) => Ended::BrokenOff,
                }
            }
        };
        core.stopping.send_replace(true);
        watcher.abort();
        metrics.abort();
        Ok(if lost { Ended::DeviceLost } else { ended })
    }
}

/// Done once no request holds a place: what it has begun to change holds it to the end.
async fn unchanged(core: &Core) {
    while core.places.taken() > 0 || core.stream_items.available_permits() < core.limits.enrol_stream_window {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Done when no request has been answered for a second, and no stream has answers that its client has yet to read: a client that
/// ignores GOAWAY keeps its connection, but is owed nothing.
async fn idle(core: &Core) {
    let mut quiet = 0;
    while quiet < 10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let answering = core.places.taken() > 0
            || core.stream_items.available_permits() < core.limits.enrol_stream_window
            || Arc::strong_count(&core.answer_streams) > 1;
        quiet = if answering { 0 } else { quiet + 1 };
    }
}

/// The contract, and the details of its errors, which clients such as grpcurl look up to print them: each under one file name alone.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
