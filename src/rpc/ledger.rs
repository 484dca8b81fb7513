//! Who holds how much of the server: requests being answered and bytes held, in all, by lane and by client. Pure; a call takes a
//! microsecond or two, so that a refusal costs next to nothing.

use std::{collections::HashMap, time::Instant};

use super::pace::Pace;
use crate::domain::{ClientId, Lane};

/// What may be held at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Requests, all lanes together.
    pub requests: usize,
    /// Requests of each lane, in [`Lane::ALL`]'s order.
    pub by_lane: [usize; Lane::ALL.len()],
    /// Of all, what each lane keeps for itself: no others, together, take it.
    pub kept: usize,
    /// Requests of one client.
    pub by_client: usize,
    /// Bytes of requests.
    pub bytes: usize,
    /// Bytes of one client's requests.
    pub client_bytes: usize,
}

impl Capacity {
    /// Requests that a lane may have, where the others have none.
    pub fn most(&self, lane: Lane) -> usize {
        let others: usize = Lane::ALL.iter().filter(|other| **other != lane).map(|other| self.kept_for(*other)).sum();
        self.by_lane[lane as usize].min(self.requests.saturating_sub(others))
    }

    fn kept_for(&self, lane: Lane) -> usize {
        self.kept.min(self.by_lane[lane as usize])
    }
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
    #[error("its deadline would pass before its turn comes")]
    Time,
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
            Self::Time => "time",
            Self::Bytes => "bytes",
            Self::ClientBytes => "client_bytes",
        }
    }

    /// Whether the limit is the client's own, and not the server's.
    pub const fn is_the_clients(self) -> bool {
        matches!(self, Self::Client | Self::ClientBytes)
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Before its message was there.
    Unarrived,
    /// Refused, or left.
    Unanswered,
    /// Its work was done then.
    Answered(Instant),
}

/// What is held now.
#[derive(Debug)]
pub struct Ledger {
    capacity: Capacity,
    requests: usize,
    by_lane: [usize; Lane::ALL.len()],
    /// Of these, whose message is there whole: the server has work.
    working: [usize; Lane::ALL.len()],
    pace: [Pace; Lane::ALL.len()],
    bytes: usize,
    /// Only clients that hold something, which the policy all knows.
    clients: HashMap<ClientId, Held>,
}

#[derive(Debug, Default)]
struct Held {
    by_lane: [usize; Lane::ALL.len()],
    working: [usize; Lane::ALL.len()],
    bytes: usize,
}

impl Held {
    fn requests(&self) -> usize {
        self.by_lane.iter().sum()
    }
}

impl Ledger {
    pub fn new(capacity: Capacity) -> Self {
        let none = [0; Lane::ALL.len()];
        let (pace, clients) = (Default::default(), HashMap::new());
        Self { capacity, requests: 0, by_lane: none, working: none, pace, bytes: 0, clients }
    }

    /// Takes a place for a request that came `now`; [`Self::leave`] gives it back.
    pub fn enter(&mut self, lane: Lane, client: &ClientId, now: Instant, deadline: Instant) -> Result<(), NoRoom> {
        let at = lane as usize;
        let (held, in_lane) = self.clients.get(client).map_or((0, 0), |held| (held.requests(), held.by_lane[at]));
        match () {
            () if held >= self.capacity.by_client => return Err(NoRoom::Client),
            () if self.by_lane[at] >= self.capacity.by_lane[at] => return Err(NoRoom::Lane),
            () if self.requests + self.kept_from(lane) >= self.capacity.requests => return Err(NoRoom::Requests),
            // One client alone never fills a lane.
            () if in_lane >= self.capacity.by_lane[at].div_ceil(2) => return Err(NoRoom::Client),
            () if !self.is_in_time(lane, client, now, deadline) => return Err(NoRoom::Time),
            () => {}
        }
        self.requests += 1;
        self.by_lane[at] += 1;
        self.clients.entry(client.clone()).or_default().by_lane[at] += 1;
        Ok(())
    }

    /// Places that are free and kept for other lanes.
    fn kept_from(&self, lane: Lane) -> usize {
        let others = Lane::ALL.into_iter().filter(|other| *other != lane);
        others.map(|other| self.capacity.kept_for(other).saturating_sub(self.by_lane[other as usize])).sum()
    }

    /// The message of a request that has a place is there: from `now` it is work. To be said once for each.
    pub fn arrived(&mut self, lane: Lane, client: &ClientId, now: Instant) {
        let at = lane as usize;
        let Some(held) = self.clients.get_mut(client) else { return };
        held.working[at] += 1;
        self.working[at] += 1;
        if self.working[at] == 1 {
            self.pace[at].begin(now);
        }
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
        let until_own = own + others.map(|(_, held)| held.working[at].min(own + 1)).sum::<usize>();
        own == 0 || now + self.pace[at].time_for(until_own) <= deadline
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

    /// Gives back bytes that were held, before the place.
    pub fn release(&mut self, client: &ClientId, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some(held) = self.clients.get_mut(client) {
            held.bytes = held.bytes.saturating_sub(bytes);
        }
    }

    /// Gives back a place and all bytes that were held for it.
    pub fn leave(&mut self, lane: Lane, client: &ClientId, bytes: usize, end: End) {
        let at = lane as usize;
        self.release(client, bytes);
        self.requests = self.requests.saturating_sub(1);
        self.by_lane[at] = self.by_lane[at].saturating_sub(1);
        if let End::Answered(now) = end {
            self.pace[at].answered(now);
        }
        let worked = usize::from(end != End::Unarrived);
        self.working[at] = self.working[at].saturating_sub(worked);
        if self.working[at] == 0 {
            self.pace[at].end();
        }
        if let Some(held) = self.clients.get_mut(client) {
            held.by_lane[at] = held.by_lane[at].saturating_sub(1);
            held.working[at] = held.working[at].saturating_sub(worked);
            if held.requests() == 0 {
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
    use std::time::Duration;

    use super::*;
    use Lane::{Enrolment as E, Identification as I, Verification as V};

    const CAPACITY: Capacity =
        Capacity { requests: 4, by_lane: [4, 4, 1], kept: 0, by_client: 3, bytes: 100, client_bytes: 60 };

    fn client(name: &str) -> ClientId {
        ClientId::new(name).unwrap()
    }

    impl Ledger {
        /// Someone who has time.
        fn enters(&mut self, lane: Lane, client: &ClientId) -> Result<(), NoRoom> {
            let now = Instant::now();
            self.enter(lane, client, now, now + Duration::from_secs(3600))
        }

        fn leaves(&mut self, lane: Lane, client: &ClientId, bytes: usize) {
            self.leave(lane, client, bytes, End::Unarrived);
        }
    }

    #[test]
    fn a_lane_a_client_and_all_together_have_their_limits() {
        let (mut ledger, a, b) = (Ledger::new(Capacity { by_lane: [4, 2, 1], ..CAPACITY }), client("a"), client("b"));
        ledger.enters(I, &a).unwrap();
        ledger.enters(I, &b).unwrap();
        assert_eq!(ledger.enters(I, &b), Err(NoRoom::Lane), "a flood of identifications leaves room for the rest");
        ledger.enters(V, &a).unwrap();
        ledger.enters(E, &a).unwrap();
        assert_eq!(ledger.enters(V, &a), Err(NoRoom::Client));
        assert_eq!(ledger.enters(V, &b), Err(NoRoom::Requests));
        ledger.leaves(I, &a, 0);
        ledger.enters(V, &b).unwrap();
        assert_eq!(ledger.requests(), 4);
    }

    #[test]
    fn one_client_never_fills_a_lane() {
        let (mut ledger, a, b) = (Ledger::new(CAPACITY), client("a"), client("b"));
        ledger.enters(I, &a).unwrap();
        ledger.enters(I, &a).unwrap();
        assert_eq!(ledger.enters(I, &a), Err(NoRoom::Client), "half of 4");
        ledger.enters(I, &b).unwrap();
        ledger.enters(E, &b).unwrap(); // half of 1 is 1
    }

    #[test]
    fn each_lane_keeps_some_places_for_itself() {
        let capacity = Capacity { requests: 10, by_lane: [10, 8, 1], kept: 2, by_client: 10, ..CAPACITY };
        assert_eq!(Lane::ALL.map(|lane| capacity.most(lane)), [7, 7, 1]);
        let (a, b) = (client("a"), client("b"));
        for (flood, kept) in [(V, [(I, 2), (E, 1)]), (I, [(V, 2), (E, 1)])] {
            let mut ledger = Ledger::new(capacity);
            // Both clients together have as many as the lane can, and no more.
            let entered = (0..20).filter(|i| ledger.enters(flood, [&a, &b][i % 2]).is_ok()).count();
            assert_eq!(entered, 7);
            assert_eq!(ledger.enters(flood, &b), Err(NoRoom::Requests));
            for (lane, places) in kept {
                (0..places).for_each(|_| ledger.enters(lane, &client("c")).unwrap());
            }
            assert_eq!(ledger.requests(), 10);
            // What a lane kept and gave back is still its own.
            ledger.leaves(E, &client("c"), 0);
            assert_eq!(ledger.enters(flood, &b), Err(NoRoom::Requests));
            ledger.enters(E, &b).unwrap();
        }
    }

    #[test]
    fn a_message_that_never_comes_says_nothing_of_the_pace() {
        let capacity = Capacity { requests: 100, by_lane: [100; 3], by_client: 100, ..CAPACITY };
        let (mut ledger, hung, shop, start) = (Ledger::new(capacity), client("hung"), client("shop"), Instant::now());
        let second = Duration::from_secs(1);
        (0..20).for_each(|_| ledger.enters(V, &hung).unwrap());
        for i in 0..18u32 {
            let now = start + i * second;
            ledger.enter(V, &shop, now, now + second).unwrap();
            ledger.arrived(V, &shop, now);
            ledger.leave(V, &shop, 0, End::Answered(now + second / 100));
        }
        let now = start + 20 * second;
        (0..16).for_each(|i| assert_eq!(ledger.enter(V, &shop, now, now + second), Ok(()), "{i}"));
    }

    #[test]
    fn bytes_are_bounded_and_come_back() {
        let (mut ledger, a, b) = (Ledger::new(CAPACITY), client("a"), client("b"));
        ledger.enters(V, &a).unwrap();
        ledger.enters(V, &b).unwrap();
        ledger.hold(&a, 60).unwrap();
        assert_eq!(ledger.hold(&a, 1), Err(NoRoom::ClientBytes));
        ledger.hold(&b, 40).unwrap();
        assert_eq!(ledger.hold(&b, 1), Err(NoRoom::Bytes));
        assert_eq!(ledger.hold(&b, usize::MAX), Err(NoRoom::ClientBytes));
        ledger.leaves(V, &a, 60);
        ledger.hold(&b, 20).unwrap();
        ledger.leaves(V, &b, 60);
        assert_eq!((ledger.bytes(), ledger.requests(), ledger.clients.len()), (0, 0, 0));
    }

    #[test]
    fn who_would_wait_beyond_the_deadline_is_refused_at_once() {
        let capacity = Capacity { requests: 1000, by_lane: [1000; 3], by_client: 1000, ..CAPACITY };
        let (mut ledger, flood, shop, start) = (Ledger::new(capacity), client("flood"), client("shop"), Instant::now());
        let second = Duration::from_secs(1);
        let come = |ledger: &mut Ledger, now| {
            ledger.enter(V, &flood, now, now + 60 * second).unwrap();
            ledger.arrived(V, &flood, now);
        };
        // One answer every 10 ms, and 100 more come than go.
        (0..100).for_each(|_| come(&mut ledger, start));
        for i in 1..=100 {
            let now = start + Duration::from_millis(10 * i);
            ledger.leave(V, &flood, 0, End::Answered(now));
            come(&mut ledger, now);
        }
        let now = start + second;
        assert_eq!(ledger.enter(V, &flood, now, now + second / 2), Err(NoRoom::Time));
        assert_eq!(ledger.enter(V, &flood, now, now + 2 * second), Ok(()));
        // Clients take turns: the flood is not before the shop.
        (0..20).for_each(|i| assert_eq!(ledger.enter(V, &shop, now, now + second / 2), Ok(()), "{i}"));
        assert_eq!(ledger.enter(E, &flood, now, now + second / 2), Ok(()), "the back office has no pace");
        (0..20).for_each(|_| ledger.leave(V, &shop, 0, End::Unarrived));
        assert_eq!(ledger.enter(V, &shop, now, now), Ok(()), "one may always try");
        assert_eq!(ledger.enter(V, &shop, now, now), Err(NoRoom::Time));
    }

    #[test]
    fn a_refusal_costs_less_than_microseconds() {
        let (mut ledger, a) = (Ledger::new(CAPACITY), client("a"));
        (0..2).for_each(|_| ledger.enters(V, &a).unwrap());
        let started = std::time::Instant::now();
        let refused = (0..100_000).filter(|_| ledger.enters(V, &a) == Err(NoRoom::Client)).count();
        assert_eq!(refused, 100_000);
        assert!(started.elapsed().as_millis() < 1000, "{:?} for 100000 refusals", started.elapsed());
    }
}
