//! The gRPC surface: assembly and limits, messages in, answers out, one table from error to status.

mod error;
mod gallery;
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

use tokio::sync::Semaphore;

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
}

impl Core {
    pub fn new(access: Access, pipeline: Pipeline, alternative_route: String, limits: Limits) -> Self {
        let in_flight = Semaphore::new(limits.max_in_flight);
        Self { access, pipeline, alternative_route, limits, in_flight }
    }
}

/// One service of the contract; all are of this shape.
#[derive(Debug, Clone)]
struct Service(Arc<Core>);
