//! The gRPC surface: assembly and limits, messages in, answers out, one table from error to status.

mod admission;
mod codec;
mod conduct;
mod error;
mod gallery;
mod health;
mod incoming;
mod ledger;
mod limits;
mod matching;
mod metered;
mod metrics;
mod observe;
mod pace;
mod place;
mod receive;
mod redact;
mod respond;
mod review;
mod runtimes;
mod server;
mod transport;

pub use limits::Limits;
pub use server::{Ended, ServeError, Serving, bind};

/// The contract, as generated from `proto/`.
#[allow(missing_docs, clippy::pedantic)]
pub mod pb {
    tonic::include_proto!("vultus.v1");

    /// The compiled contract, and the details of its errors, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/vultus.bin"));
}

use std::{io, sync::Arc};

use tokio::sync::{Semaphore, watch};

use crate::{access::Access, domain::Lane, pipeline::Pipeline, telemetry::Metrics};
use place::Places;
use runtimes::{Priority, Runtimes};

/// What the services share.
#[derive(Debug)]
pub struct Core {
    access: Access,
    pipeline: Pipeline,
    /// What the operator offers a customer who was not matched.
    alternative_route: String,
    limits: Limits,
    /// Who is being answered.
    places: Places,
    /// Where that is done which is urgent, and that which is not.
    runtimes: Runtimes,
    /// A permit per item of a stream being worked on.
    stream_items: Arc<Semaphore>,
    /// One more for each EnrolStream whose answers have not all been taken.
    answer_streams: Arc<()>,
    /// A permit per stream of health or reflection, which anyone may open.
    open_streams: Arc<Semaphore>,
    /// True once the server is told to stop.
    stopping: watch::Sender<bool>,
}

impl Core {
    /// To be called on the runtime that serves.
    ///
    /// # Errors
    /// Where there is none, or when the system gives no threads.
    pub fn new(access: Access, pipeline: Pipeline, alternative_route: String, limits: Limits) -> io::Result<Self> {
        let at_once = pipeline.executors();
        for lane in Lane::ALL {
            let limit = limits.capacity(Priority::of(lane), at_once).by_lane[lane as usize];
            Metrics::get().requests_limit.with_label_values(&[lane.as_str()]).set(gauge(limit));
        }
        Metrics::get().request_bytes_limit.set(gauge(limits.bytes_in_flight));
        let places = Places::new(&limits, at_once);
        let stream_items = Arc::new(Semaphore::new(limits.enrol_stream_window));
        let open_streams = Arc::new(Semaphore::new(limits.open_streams));
        let (runtimes, stopping) = (Runtimes::start()?, watch::Sender::new(false));
        Ok(Self {
            access,
            pipeline,
            alternative_route,
            limits,
            places,
            runtimes,
            stream_items,
            answer_streams: Arc::default(),
            open_streams,
            stopping,
        })
    }
}

fn gauge(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// One service of the contract; all are of this shape.
#[derive(Debug, Clone)]
struct Service(Arc<Core>);
