//! Who holds how much of the server: requests being answered and bytes held, in all, by lane and by client. Pure; a call takes a
//! microsecond or two, so that a refusal costs next to nothing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Instant,
};

use tokio::sync::oneshot;

use super::pace::Pace;
use crate::{
    domain::{ClientId, Lane},
    rpc::{Limits, connection::Priority, error::NoRoom},
};

/// What may be held at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Requests of each lane, in [`Lane::ALL`]'s order. No lane takes another's.
    pub by_lane: [usize; Lane::ALL.len()],
    /// Requests of one client.
    pub by_client: usize,
    /// Requests that a lane works on at a time, at least: so many never wait for their turn.
    pub at_once: usize,
    /// Bytes of requests.
    pub bytes: usize,
    /// Bytes of one client's requests.
    pub client_bytes: usize,
}

impl Capacity {
    /// What the door counts for the lanes of a priority. The two have room of their own: neither takes the other's, and no thread of
    /// the one waits for a lock of the other's.
    pub fn of(limits: &Limits, priority: Priority, at_once: usize) -> Self {
        let quarter = (limits.bytes_in_flight / 4).max(limits.message_bytes);
        let (by_lane, bytes) = match priority {
            Priority::Usual => ([limits.verifications_in_flight, 0, 0], limits.bytes_in_flight.saturating_sub(quarter)),
            Priority::WhenIdle => ([0, limits.identifications_in_flight, limits.back_office_in_flight], quarter),
        };
        let (by_client, client_bytes) = (limits.client_in_flight, limits.client_bytes_in_flight);
        Self { by_lane, by_client, at_once, bytes, client_bytes }
    }
}

/// A request that has a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    pub lane: Lane,
    /// In the order of their coming.
    number: u64,
}

/// Done when the place of a request whose message is awaited has gone to another.
pub type Lost = oneshot::Receiver<()>;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Before its message was there.
    Unarrived,
    /// Refused, or left.
    Unanswered,
    /// Its work was done.
    Answered,
}

/// What is held now.
#[derive(Debug)]
pub struct Ledger {
    capacity: Capacity,
    by_lane: [usize; Lane::ALL.len()],
    /// Of these, whose message is there whole: the server has work.
    working: [usize; Lane::ALL.len()],
    pace: [Pace; Lane::ALL.len()],
    bytes: usize,
    next_number: u64,
    /// Only clients that hold something, which the policy all knows.
    clients: HashMap<ClientId, Held>,
}

#[derive(Debug, Default)]
struct Held {
    by_lane: [usize; Lane::ALL.len()],
    /// Of these, whose message is not there whole, by number.
    unarrived: [BTreeSet<u64>; Lane::ALL.len()],
    /// Of these, for which the server waits; each can be told that its place is lost.
    awaited: [BTreeMap<u64, oneshot::Sender<()>>; Lane::ALL.len()],
    /// Those that are streams, of all lanes.
    streams: BTreeSet<u64>,
    bytes: usize,
}

impl Held {
    fn requests(&self) -> usize {
        self.by_lane.iter().sum()
    }

    fn working(&self, lane: Lane) -> usize {
        self.by_lane[lane as usize].saturating_sub(self.unarrived[lane as usize].len())
    }
}

impl Ledger {
    pub fn new(capacity: Capacity) -> Self {
        let none = [0; Lane::ALL.len()];
        let (pace, clients) = (Default::default(), HashMap::new());
        Self { capacity, by_lane: none, working: none, pace, bytes: 0, next_number: 0, clients }
    }

    /// Takes a place for a request that came `now`; [`Self::leave`] gives it back. Where all are taken, it is one whose message is
    /// awaited, of the client that has most of these, if that has more of them than this client then has.
    pub fn enter(&mut self, lane: Lane, client: &ClientId, now: Instant, deadline: Instant) -> Result<Ticket, NoRoom> {
        let at = lane as usize;
        let (held, in_lane) = self.clients.get(client).map_or((0, 0), |held| (held.requests(), held.by_lane[at]));
        if held >= self.capacity.by_client {
            return Err(NoRoom::Client);
        }
        let is_full = self.by_lane[at] >= self.capacity.by_lane[at];
        let gives_way = if is_full { Some(self.gives_way(lane, client).ok_or(NoRoom::Lane)?) } else { None };
        // One client alone never fills a lane.
        if in_lane >= self.capacity.by_lane[at].div_ceil(2) {
            return Err(NoRoom::Client);
        }
        if !self.is_in_time(lane, client, now, deadline) {
            return Err(NoRoom::Time);
        }
        if let Some((other, ticket)) = gives_way {
            self.vacate(ticket, &other);
        }
        let ticket = Ticket { lane, number: self.next_number };
        self.next_number += 1;
        self.by_lane[at] += 1;
        let held = self.clients.entry(client.clone()).or_default();
        held.by_lane[at] += 1;
        held.unarrived[at].insert(ticket.number);
        Ok(ticket)
    }

    /// Whose place `client` may have in a lane that is full: the oldest, among those whose message is awaited, of the client that has
    /// most of these. Nobody's, if the client would then have as many such requests as the other: a burst drives nobody out.
    fn gives_way(&self, lane: Lane, client: &ClientId) -> Option<(ClientId, Ticket)> {
        let at = lane as usize;
        let (other, held) = self.clients.iter().max_by_key(|(_, held)| held.awaited[at].len())?;
        if held.awaited[at].len() < self.clients.get(client).map_or(0, |own| own.unarrived[at].len()) + 2 {
            return None;
        }
        let number = *held.awaited[at].keys().next()?;
        Some((other.clone(), Ticket { lane, number }))
    }

    /// The message of a request is not there, and is waited for. What has yet to be looked at may be there: it keeps its place.
    pub fn awaited(&mut self, ticket: Ticket, client: &ClientId) -> Lost {
        let (sender, lost) = oneshot::channel();
        let at = ticket.lane as usize;
        if let Some(held) = self.clients.get_mut(client).filter(|held| held.unarrived[at].contains(&ticket.number)) {
            held.awaited[at].insert(ticket.number, sender);
        }
        lost
    }

    /// The message of a request is there: from `now` it is work.
    ///
    /// # Errors
    /// [`NoRoom::Unarrived`] when its place has gone to another.
    pub fn arrived(&mut self, ticket: Ticket, client: &ClientId, now: Instant) -> Result<(), NoRoom> {
        let at = ticket.lane as usize;
        let held = self.clients.get_mut(client).ok_or(NoRoom::Unarrived)?;
        if !held.unarrived[at].remove(&ticket.number) {
            return Err(NoRoom::Unarrived);
        }
        held.awaited[at].remove(&ticket.number);
        self.working[at] += 1;
        if self.working[at] == self.capacity.at_once {
            self.pace[at].begin(now);
        }
        Ok(())
    }

    /// The request is a stream: there is no end of its message to wait for, and it keeps its place also while its sender is silent.
    /// So half of a lane's places are for streams, and half of these for one client's.
    ///
    /// # Errors
    /// When these are taken.
    pub fn opened(&mut self, ticket: Ticket, client: &ClientId, now: Instant) -> Result<(), NoRoom> {
        let most = self.capacity.by_lane[ticket.lane as usize].div_ceil(2);
        if self.clients.get(client).is_some_and(|held| held.streams.len() >= most.div_ceil(2)) {
            return Err(NoRoom::Client);
        }
        if self.clients.values().map(|held| held.streams.len()).sum::<usize>() >= most {
            return Err(NoRoom::Streams);
        }
        self.arrived(ticket, client, now)?;
        if let Some(held) = self.clients.get_mut(client) {
            held.streams.insert(ticket.number);
        }
        Ok(())
    }

    /// Whether the request's turn comes before its deadline, as fast as the lane answers. A client's only request always may try:
    /// so a lane that has become fast is found out.
    fn is_in_time(&self, lane: Lane, client: &ClientId, now: Instant, deadline: Instant) -> bool {
        // The back office is in no hurry, and its calls are too different for one pace.
        if lane == Lane::Enrolment {
            return true;
        }
        let at = lane as usize;
        let own = self.clients.get(client).map_or(0, |held| held.by_lane[at]);
        // Clients take turns: nobody's backlog beyond as many as its own goes before it. Whose message is still on its way goes
        // before nobody.
        let others = self.clients.iter().filter(|(other, _)| *other != client);
        let until_own = own + others.map(|(_, held)| held.working(lane).min(own + 1)).sum::<usize>();
        own == 0 || until_own < self.capacity.at_once || now + self.pace[at].time_for(until_own, now) <= deadline
    }

    /// Holds more bytes for a request that has a place.
    pub fn hold(&mut self, client: &ClientId, bytes: usize) -> Result<(), NoRoom> {
        let Some(held) = self.clients.get_mut(client) else { return Err(NoRoom::Unarrived) };
        if self.capacity.client_bytes.saturating_sub(held.bytes) < bytes {
            return Err(NoRoom::ClientBytes);
        }
        if self.capacity.bytes.saturating_sub(self.bytes) < bytes {
            return Err(NoRoom::Bytes);
        }
        held.bytes += bytes;
        self.bytes += bytes;
        Ok(())
    }

    /// Gives back bytes that were held.
    pub fn release(&mut self, client: &ClientId, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some(held) = self.clients.get_mut(client) {
            held.bytes = held.bytes.saturating_sub(bytes);
        }
        self.forget(client);
    }

    /// Gives back all bytes that were held for a request that ended `now`, and its place, if it still has one.
    pub fn leave(&mut self, ticket: Ticket, client: &ClientId, bytes: usize, end: End, now: Instant) {
        let at = ticket.lane as usize;
        if end == End::Unarrived {
            self.vacate(ticket, client);
            return self.release(client, bytes);
        }
        self.give_back(ticket.lane, client);
        if let Some(held) = self.clients.get_mut(client) {
            held.streams.remove(&ticket.number);
        }
        if end == End::Answered {
            self.pace[at].answered(now);
        }
        if self.working[at] == self.capacity.at_once {
            self.pace[at].end(now);
        }
        self.working[at] = self.working[at].saturating_sub(1);
        self.release(client, bytes);
    }

    /// Takes a place back from a request whose message is not there, and tells it. Nothing, if it has lost it before.
    fn vacate(&mut self, ticket: Ticket, client: &ClientId) {
        let at = ticket.lane as usize;
        let Some(held) = self.clients.get_mut(client).filter(|held| held.unarrived[at].contains(&ticket.number)) else {
            return;
        };
        held.unarrived[at].remove(&ticket.number);
        if let Some(lost) = held.awaited[at].remove(&ticket.number) {
            let _ = lost.send(()); // nobody listens where it leaves by itself
        }
        self.give_back(ticket.lane, client);
        self.forget(client);
    }

    fn give_back(&mut self, lane: Lane, client: &ClientId) {
        let at = lane as usize;
        self.by_lane[at] = self.by_lane[at].saturating_sub(1);
        if let Some(held) = self.clients.get_mut(client) {
            held.by_lane[at] = held.by_lane[at].saturating_sub(1);
        }
    }

    fn forget(&mut self, client: &ClientId) {
        if self.clients.get(client).is_some_and(|held| held.requests() == 0 && held.bytes == 0) {
            self.clients.remove(client);
        }
    }

    /// Requests of the lane being answered.
    pub fn requests_of(&self, lane: Lane) -> usize {
        self.by_lane[lane as usize]
    }

    /// Bytes held.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests;
