//! The gRPC surface: assembly and limits, messages in, answers out, one table from error to status.

mod admission;
mod error;
mod gallery;
mod incoming;
mod matching;
mod observe;
mod receive;
mod redact;
mod respond;
mod review;
mod server;

pub use server::{Ended, Limits, ServeError, Serving, bind};

/// The contract, as generated from `proto/`.
#[allow(missing_docs, clippy::pedantic)]
pub mod pb {
    tonic::include_proto!("vultus.v1");

    /// The compiled contract, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/vultus.bin"));
}

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use crate::{access::Access, pipeline::Pipeline};

/// What the services share.
#[derive(Debug)]
pub struct Core {
    access: Access,
    pipeline: Pipeline,
    /// What the operator offers a customer who was not matched.
    alternative_route: String,
    limits: Limits,
    /// A permit per request being answered.
    in_flight: Semaphore,
    /// A permit per item of a stream being worked on.
    stream_items: Semaphore,
    /// True once the server is told to stop.
    stopping: watch::Sender<bool>,
}

impl Core {
    pub fn new(access: Access, pipeline: Pipeline, alternative_route: String, limits: Limits) -> Self {
        let in_flight = Semaphore::new(limits.max_in_flight);
        let stream_items = Semaphore::new(limits.enrol_stream_window);
        let stopping = watch::Sender::new(false);
        Self { access, pipeline, alternative_route, limits, in_flight, stream_items, stopping }
    }
}

/// One service of the contract; all are of this shape.
#[derive(Debug, Clone)]
struct Service(Arc<Core>);
