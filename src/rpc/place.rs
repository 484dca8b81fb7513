//! A request's place among those that are answered, and the bytes that are held for it.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::Sleep;
use tonic::{
    Status,
    body::Body,
    codegen::{Bytes, http},
};

use super::{
    Limits,
    error::Error,
    ledger::{End, Ledger, NoRoom},
    runtimes::Priority,
};
use crate::{
    domain::{ClientId, Lane, Turn},
    telemetry::Metrics,
};

/// The ledgers, shared: one for the lanes of each priority. A thread that runs when a core is idle may be interrupted while it holds
/// its ledger's lock, and for as long as there is work on verifications; only its like may wait for that.
#[derive(Debug, Clone)]
pub struct Places(Arc<[Mutex<Ledger>; 2]>);

impl Places {
    pub fn new(limits: &Limits) -> Self {
        Self(Arc::new(Priority::ALL.map(|priority| Mutex::new(Ledger::new(limits.capacity(priority))))))
    }

    /// Requests being answered.
    pub fn taken(&self) -> usize {
        Lane::ALL.iter().map(|lane| self.lock(*lane).requests_of(*lane)).sum()
    }

    /// # Errors
    /// [`Error::NoRoom`], which is counted.
    pub fn enter(&self, turn: &Turn) -> Result<Place, Error> {
        let Some(client) = turn.client.clone() else { return Err(Error::Internal("a request without its client")) };
        let lane = turn.lane;
        self.lock(lane).enter(lane, &client, turn.arrived, turn.deadline).map_err(|none| no_room(none, lane))?;
        Metrics::get().requests_in_flight.with_label_values(&[lane.as_str()]).inc();
        let (bytes, arrived, answered) = (Mutex::new(0), AtomicBool::new(false), AtomicBool::new(false));
        Ok(Place { places: self.clone(), lane, client, bytes, arrived, answered })
    }

    fn lock(&self, lane: Lane) -> MutexGuard<'_, Ledger> {
        let [usual, when_idle] = &*self.0;
        let ledger = match Priority::of(lane) {
            Priority::Usual => usual,
            Priority::WhenIdle => when_idle,
        };
        ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_room(none: NoRoom, lane: Lane) -> Error {
    Metrics::get().refusals_total.with_label_values(&[none.as_str(), lane.as_str()]).inc();
    Error::NoRoom(none)
}

/// Held from the door to the answer.
#[derive(Debug)]
pub struct Place {
    places: Places,
    lane: Lane,
    client: Arc<ClientId>,
    bytes: Mutex<usize>,
    /// True once the whole message is there.
    arrived: AtomicBool,
    /// True once its work is done, and not refused.
    answered: AtomicBool,
}

impl Place {
    /// Passes the answer on; notes whether it is one.
    pub fn answered_by(&self, answer: http::Response<Body>) -> http::Response<Body> {
        // A status among the headers is an error: that of an answer follows its message.
        self.answered.store(!answer.headers().contains_key(Status::GRPC_STATUS), Ordering::Relaxed);
        answer
    }

    fn arrived(&self) {
        if !self.arrived.swap(true, Ordering::Relaxed) {
            self.places.lock(self.lane).arrived(self.lane, &self.client, Instant::now());
        }
    }

    fn hold(&self, bytes: usize) -> Result<(), Error> {
        let mut held = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        self.places.lock(self.lane).hold(&self.client, bytes).map_err(|none| no_room(none, self.lane))?;
        *held += bytes;
        Metrics::get().request_bytes.add(super::gauge(bytes));
        Ok(())
    }

    fn release(&self, bytes: usize) {
        let mut held = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        self.places.lock(self.lane).release(&self.client, bytes);
        *held = held.saturating_sub(bytes);
        Metrics::get().request_bytes.sub(super::gauge(bytes));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut().unwrap_or_else(PoisonError::into_inner);
        let end = match (self.arrived.load(Ordering::Relaxed), self.answered.load(Ordering::Relaxed)) {
            (false, _) => End::Unarrived,
            (true, false) => End::Unanswered,
            (true, true) => End::Answered(Instant::now()),
        };
        self.places.lock(self.lane).leave(self.lane, &self.client, bytes, end);
        Metrics::get().request_bytes.sub(super::gauge(bytes));
        Metrics::get().requests_in_flight.with_label_values(&[self.lane.as_str()]).dec();
    }
}

/// What a stream holds until it ends.
#[derive(Debug, Clone)]
pub struct StreamPlace(pub Arc<Place>);

impl StreamPlace {
    /// Holds an item's bytes until it is answered.
    ///
    /// # Errors
    /// As [`Places::enter`].
    pub fn hold(&self, bytes: usize) -> Result<HeldItem, Error> {
        self.0.hold(bytes)?;
        Ok(HeldItem { place: Arc::clone(&self.0), bytes })
    }
}

/// Gives an item's bytes back.
#[derive(Debug)]
pub struct HeldItem {
    place: Arc<Place>,
    bytes: usize,
}

impl Drop for HeldItem {
    fn drop(&mut self) {
        self.place.release(self.bytes);
    }
}

/// A message's body that is counted as it arrives, and broken off where there is no room for more, or when it takes too long.
pub struct Metered {
    body: Body,
    place: Arc<Place>,
    patience: Duration,
    /// Set when there is nothing to read for the first time: most messages are there at once.
    until: Option<Pin<Box<Sleep>>>,
}

impl Metered {
    pub fn new(body: Body, place: Arc<Place>, patience: Duration) -> Self {
        Self { body, place, patience, until: None }
    }
}

impl http_body::Body for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            let patience = self.patience;
            let until = self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
            std::task::ready!(until.as_mut().poll(context));
            return Poll::Ready(Some(Err(Error::SlowMessage.into_status())));
        };
        match &frame {
            None => self.place.arrived(),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref()
                    && let Err(error) = self.place.hold(data.len())
                {
                    return Poll::Ready(Some(Err(error.into_status())));
                }
            }
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        // Nobody may skip the end: it says that the message is there.
        false
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
