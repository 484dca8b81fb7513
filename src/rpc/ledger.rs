//! Who holds how much of the server: requests being answered and bytes held, in all, by lane and by client. Pure; every call takes
//! well under a microsecond, so that a refusal costs next to nothing.

use std::collections::HashMap;

use crate::domain::{ClientId, Lane};

/// What may be held at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Requests, all lanes together.
    pub requests: usize,
    /// Requests of each lane, in [`Lane::ALL`]'s order.
    pub by_lane: [usize; Lane::ALL.len()],
    /// Requests of one client.
    pub by_client: usize,
    /// Bytes of requests.
    pub bytes: usize,
    /// Bytes of one client's requests.
    pub client_bytes: usize,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    #[error("as many requests as are allowed are being answered")]
    Requests,
    #[error("as many requests of the lane as are allowed are being answered")]
    Lane,
    #[error("as many requests of the client as are allowed are being answered")]
    Client,
    #[error("as many bytes of requests as are allowed are held")]
    Bytes,
    #[error("as many bytes of the client's requests as are allowed are held")]
    ClientBytes,
}

impl NoRoom {
    /// The word for it in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Lane => "lane",
            Self::Client => "client",
            Self::Bytes => "bytes",
            Self::ClientBytes => "client_bytes",
        }
    }

    /// Whether the limit is the client's own, and not the server's.
    pub const fn is_the_clients(self) -> bool {
        matches!(self, Self::Client | Self::ClientBytes)
    }
}

/// What is held now.
#[derive(Debug)]
pub struct Ledger {
    capacity: Capacity,
    requests: usize,
    by_lane: [usize; Lane::ALL.len()],
    bytes: usize,
    /// Only clients that hold something, which the policy all knows.
    clients: HashMap<ClientId, Held>,
}

#[derive(Debug, Default)]
struct Held {
    requests: usize,
    bytes: usize,
}

impl Ledger {
    pub fn new(capacity: Capacity) -> Self {
        Self { capacity, requests: 0, by_lane: [0; Lane::ALL.len()], bytes: 0, clients: HashMap::new() }
    }

    /// Takes a place for a request; [`Self::leave`] gives it back.
    pub fn enter(&mut self, lane: Lane, client: &ClientId) -> Result<(), NoRoom> {
        let held = self.clients.get(client).map_or(0, |held| held.requests);
        match () {
            () if held >= self.capacity.by_client => return Err(NoRoom::Client),
            () if self.by_lane[lane as usize] >= self.capacity.by_lane[lane as usize] => return Err(NoRoom::Lane),
            () if self.requests >= self.capacity.requests => return Err(NoRoom::Requests),
            () => {}
        }
        self.requests += 1;
        self.by_lane[lane as usize] += 1;
        self.clients.entry(client.clone()).or_default().requests += 1;
        Ok(())
    }

    /// Holds more bytes for a request that has a place.
    pub fn hold(&mut self, client: &ClientId, bytes: usize) -> Result<(), NoRoom> {
        let Some(held) = self.clients.get_mut(client) else { return Err(NoRoom::Client) };
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

    /// Gives back a place and all bytes that were held for it.
    pub fn leave(&mut self, lane: Lane, client: &ClientId, bytes: usize) {
        self.requests = self.requests.saturating_sub(1);
        self.by_lane[lane as usize] = self.by_lane[lane as usize].saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some(held) = self.clients.get_mut(client) {
            held.requests = held.requests.saturating_sub(1);
            held.bytes = held.bytes.saturating_sub(bytes);
            if held.requests == 0 {
                self.clients.remove(client);
            }
        }
    }

    /// Requests being answered.
    pub fn requests(&self) -> usize {
        self.requests
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Lane::{Enrolment as E, Identification as I, Verification as V};

    const CAPACITY: Capacity = Capacity { requests: 4, by_lane: [4, 2, 1], by_client: 3, bytes: 100, client_bytes: 60 };

    fn client(name: &str) -> ClientId {
        ClientId::new(name).unwrap()
    }

    #[test]
    fn a_lane_a_client_and_all_together_have_their_limits() {
        let (mut ledger, a, b) = (Ledger::new(CAPACITY), client("a"), client("b"));
        ledger.enter(I, &a).unwrap();
        ledger.enter(I, &a).unwrap();
        assert_eq!(ledger.enter(I, &b), Err(NoRoom::Lane), "a flood of identifications leaves room for the rest");
        ledger.enter(V, &a).unwrap();
        assert_eq!(ledger.enter(V, &a), Err(NoRoom::Client));
        ledger.enter(E, &b).unwrap();
        assert_eq!(ledger.enter(V, &b), Err(NoRoom::Requests));
        ledger.leave(I, &a, 0);
        ledger.enter(V, &b).unwrap();
        assert_eq!(ledger.requests(), 4);
    }

    #[test]
    fn bytes_are_bounded_and_come_back() {
        let (mut ledger, a, b) = (Ledger::new(CAPACITY), client("a"), client("b"));
        ledger.enter(V, &a).unwrap();
        ledger.enter(V, &b).unwrap();
        ledger.hold(&a, 60).unwrap();
        assert_eq!(ledger.hold(&a, 1), Err(NoRoom::ClientBytes));
        ledger.hold(&b, 40).unwrap();
        assert_eq!(ledger.hold(&b, 1), Err(NoRoom::Bytes));
        assert_eq!(ledger.hold(&b, usize::MAX), Err(NoRoom::ClientBytes));
        ledger.leave(V, &a, 60);
        ledger.hold(&b, 20).unwrap();
        ledger.leave(V, &b, 60);
        assert_eq!((ledger.bytes(), ledger.requests(), ledger.clients.len()), (0, 0, 0));
    }

    #[test]
    fn a_refusal_costs_less_than_microseconds() {
        let (mut ledger, a) = (Ledger::new(CAPACITY), client("a"));
        (0..3).for_each(|_| ledger.enter(V, &a).unwrap());
        let started = std::time::Instant::now();
        let refused = (0..100_000).filter(|_| ledger.enter(V, &a) == Err(NoRoom::Client)).count();
        assert_eq!(refused, 100_000);
        assert!(started.elapsed().as_millis() < 1000, "{:?} for 100000 refusals", started.elapsed());
    }
}
