//! A request's place among those that are answered, and the bytes that are held for it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tonic::Code;

use super::ledger::{Capacity, End, Ledger, Lost, Ticket};
use crate::{
    domain::{ClientId, Lane, Turn},
    rpc::{
        Limits,
        connection::Priority,
        error::{Error, NoRoom},
        gauge,
    },
    telemetry::Metrics,
};

/// The ledgers, shared: one for the lanes of each priority. A thread that runs when a core is idle may be interrupted while it holds
/// its ledger's lock, and for as long as there is work on verifications; only its like may wait for that.
#[derive(Debug, Clone)]
pub struct Places(Arc<[Mutex<Ledger>; 2]>);

impl Places {
    /// Of lanes that work on `at_once` requests at a time, at least.
    pub fn new(limits: &Limits, at_once: usize) -> Self {
        for lane in Lane::ALL {
            let limit = Capacity::of(limits, Priority::of(lane), at_once).by_lane[lane as usize];
            Metrics::get().requests_limit.with_label_values(&[lane.as_str()]).set(gauge(limit));
        }
        Metrics::get().request_bytes_limit.set(gauge(limits.bytes_in_flight));
        Self(Arc::new(Priority::ALL.map(|of| Mutex::new(Ledger::new(Capacity::of(limits, of, at_once))))))
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
        let entered = self.lock(lane).enter(lane, &client, turn.arrived, turn.deadline);
        let ticket = entered.map_err(|none| no_room(none, lane))?;
        Metrics::get().requests_in_flight.with_label_values(&[lane.as_str()]).inc();
        let (bytes, arrived, answered) = (Mutex::new(0), AtomicBool::new(false), AtomicBool::new(false));
        Ok(Place { places: self.clone(), ticket, client, bytes, arrived, answered })
    }

    /// A stream's place.
    ///
    /// # Errors
    /// As [`Self::enter`].
    pub fn enter_stream(&self, turn: &Turn) -> Result<Place, Error> {
        let place = self.enter(turn)?;
        place.opened().map(|()| place)
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

/// Held from the door to the answer, and by what is changed beyond it.
#[derive(Debug)]
pub struct Place {
    places: Places,
    ticket: Ticket,
    client: Arc<ClientId>,
    bytes: Mutex<usize>,
    /// True once the whole message is there.
    arrived: AtomicBool,
    /// True once its work is done, and not refused.
    answered: AtomicBool,
}

impl Place {
    /// With this code: anything but OK says nothing of how fast the server is.
    pub fn answered(&self, code: Code) {
        self.answered.store(code == Code::Ok, Ordering::Relaxed);
    }

    /// The message is waited for: until it is there, the place may go to another.
    pub fn awaited(&self) -> Lost {
        self.places.lock(self.ticket.lane).awaited(self.ticket, &self.client)
    }

    /// The whole message is there: nobody takes the place any more.
    ///
    /// # Errors
    /// [`Error::NoRoom`] when somebody has.
    pub fn arrived(&self) -> Result<(), Error> {
        if !self.arrived.load(Ordering::Relaxed) {
            let arrived = self.places.lock(self.ticket.lane).arrived(self.ticket, &self.client, Instant::now());
            arrived.map_err(|none| no_room(none, self.ticket.lane))?;
            self.arrived.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The request is a stream, whose messages come as they come.
    ///
    /// # Errors
    /// [`Error::NoRoom`], which is counted, when there are streams enough.
    fn opened(&self) -> Result<(), Error> {
        let opened = self.places.lock(self.ticket.lane).opened(self.ticket, &self.client, Instant::now());
        opened.map_err(|none| no_room(none, self.ticket.lane))?;
        self.arrived.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Why a message is waited for no longer.
    pub fn lost(&self) -> Error {
        no_room(NoRoom::Unarrived, self.ticket.lane)
    }

    /// Holds more bytes of the message.
    ///
    /// # Errors
    /// [`Error::NoRoom`], which is counted.
    pub fn hold(&self, bytes: usize) -> Result<(), Error> {
        let mut held = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = self.ticket.lane;
        self.places.lock(lane).hold(&self.client, bytes).map_err(|none| no_room(none, lane))?;
        *held += bytes;
        Metrics::get().request_bytes.add(gauge(bytes));
        Ok(())
    }

    fn release(&self, bytes: usize) {
        let mut held = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        self.places.lock(self.ticket.lane).release(&self.client, bytes);
        *held = held.saturating_sub(bytes);
        Metrics::get().request_bytes.sub(gauge(bytes));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut().unwrap_or_else(PoisonError::into_inner);
        let end = match (self.arrived.load(Ordering::Relaxed), self.answered.load(Ordering::Relaxed)) {
            (false, _) => End::Unarrived,
            (true, false) => End::Unanswered,
            (true, true) => End::Answered,
        };
        self.places.lock(self.ticket.lane).leave(self.ticket, &self.client, bytes, end, Instant::now());
        Metrics::get().request_bytes.sub(gauge(bytes));
        Metrics::get().requests_in_flight.with_label_values(&[self.ticket.lane.as_str()]).dec();
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
