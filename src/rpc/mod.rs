//! The gRPC surface. The life of a request: its `connection`, its `admission`, what every call is wrapped in (`observe`), the message
//! in (`receive`), the service that it asks for (`matching`, `gallery`, `review`), and the answer out (`respond`), or one table from
//! error to status (`error`).
//!
//! What is timed here are waits and deadlines of this process, by `Instant`. What is stored, or expires, goes by the gallery's clock;
//! and no random bytes are drawn.

mod admission;
mod codec;
mod connection;
mod error;
mod gallery;
mod health;
mod limits;
mod matching;
mod metrics;
mod observe;
mod receive;
mod redact;
mod respond;
mod review;
mod server;

pub use connection::{Identities, TakenAtItsWord};
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

use crate::{
    access::Access,
    audit::{DecisionEvent, Sink},
    pipeline::Pipeline,
};
use admission::Places;
use connection::Runtimes;
use error::Error;

/// What the services share.
#[derive(Debug)]
pub struct Core {
    access: Access,
    pipeline: Pipeline,
    /// Who is told of each decision before the caller is.
    sink: Arc<dyn Sink>,
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
    pub fn new(
        access: Access,
        pipeline: Pipeline,
        sink: Arc<dyn Sink>,
        alternative_route: String,
        limits: Limits,
    ) -> io::Result<Self> {
        let places = Places::new(&limits, pipeline.executors());
        let stream_items = Arc::new(Semaphore::new(limits.enrol_stream_window));
        let open_streams = Arc::new(Semaphore::new(limits.open_streams));
        let (runtimes, stopping) = (Runtimes::start()?, watch::Sender::new(false));
        Ok(Self {
            access,
            pipeline,
            sink,
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

    /// Done when the decision may be answered.
    ///
    /// # Errors
    /// Where it could not be recorded: then no answer leaves.
    async fn decided(&self, event: DecisionEvent) -> Result<(), Error> {
        Ok(self.sink.record(event).await?)
    }
}

fn gauge(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// One service of the contract; all are of this shape.
#[derive(Debug, Clone)]
struct Service(Arc<Core>);
