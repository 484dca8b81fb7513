//! The ledger, by the clock of its tests.

use std::{collections::VecDeque, time::Duration};

use super::*;
use Lane::{Enrolment as E, Identification as I, Verification as V};

const CAPACITY: Capacity = Capacity { by_lane: [4, 4, 1], by_client: 3, at_once: 1, bytes: 100, client_bytes: 60 };

fn client(name: &str) -> ClientId {
    ClientId::new(name).unwrap()
}

impl Ledger {
    /// Someone who has time.
    fn enters(&mut self, lane: Lane, client: &ClientId) -> Result<Ticket, NoRoom> {
        let now = Instant::now();
        self.enter(lane, client, now, now + Duration::from_secs(3600))
    }

    /// Its message does not come.
    fn waits(&mut self, lane: Lane, client: &ClientId) -> Result<(Ticket, Lost), NoRoom> {
        let ticket = self.enters(lane, client)?;
        Ok((ticket, self.awaited(ticket, client)))
    }

    /// With its message.
    fn works(&mut self, lane: Lane, client: &ClientId) -> Result<Ticket, NoRoom> {
        let ticket = self.enters(lane, client)?;
        self.arrived(ticket, client, Instant::now()).map(|()| ticket)
    }

    /// The oldest of a client's whose message is not there.
    fn leaves(&mut self, lane: Lane, client: &ClientId, bytes: usize) {
        let number = *self.clients[client].unarrived[lane as usize].first().unwrap();
        self.leave(Ticket { lane, number }, client, bytes, End::Unarrived, Instant::now());
    }

    /// Whether there is room for one who has until then.
    fn is_let_in(&mut self, lane: Lane, client: &ClientId, now: Instant, deadline: Instant) -> Result<(), NoRoom> {
        self.enter(lane, client, now, deadline).map(|_| ())
    }
}

#[test]
fn a_lane_and_a_client_have_their_limits() {
    let (mut ledger, a, b) = (Ledger::new(Capacity { by_lane: [4, 2, 1], ..CAPACITY }), client("a"), client("b"));
    let first = ledger.works(I, &a).unwrap();
    ledger.works(I, &b).unwrap();
    assert_eq!(ledger.works(I, &b), Err(NoRoom::Lane), "a flood of identifications leaves room for the rest");
    ledger.works(V, &a).unwrap();
    ledger.works(E, &a).unwrap();
    assert_eq!(ledger.works(V, &a), Err(NoRoom::Client));
    ledger.leave(first, &a, 0, End::Unanswered, Instant::now());
    ledger.works(V, &a).unwrap();
    assert_eq!(ledger.by_lane, [2, 1, 1]);
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
fn streams_leave_half_of_their_lane_to_calls() {
    let mut ledger = Ledger::new(Capacity { by_lane: [0, 0, 8], by_client: 8, ..CAPACITY });
    let [a, b, c] = ["a", "b", "c"].map(client);
    let mut opens = |client: &ClientId| {
        let ticket = ledger.enters(E, client)?;
        let opened = ledger.opened(ticket, client, Instant::now());
        // As its place does, that is let go.
        opened.inspect_err(|_| ledger.leave(ticket, client, 0, End::Unarrived, Instant::now())).map(|()| ticket)
    };
    let first = opens(&a).unwrap();
    opens(&a).unwrap();
    assert_eq!(opens(&a), Err(NoRoom::Client), "half of the streams");
    opens(&b).unwrap();
    opens(&b).unwrap();
    assert_eq!(opens(&c), Err(NoRoom::Streams));
    ledger.leave(first, &a, 0, End::Answered, Instant::now());
    let again = ledger.enters(E, &c).unwrap();
    ledger.opened(again, &c, Instant::now()).unwrap();
    for _ in 0..4 {
        ledger.works(E, &c).or_else(|_| ledger.works(E, &a)).unwrap();
    }
    assert_eq!(ledger.requests_of(E), 8);
}

#[test]
fn a_message_that_never_comes_says_nothing_of_the_pace() {
    let capacity = Capacity { by_lane: [100; 3], by_client: 100, ..CAPACITY };
    let (mut ledger, hung, shop, start) = (Ledger::new(capacity), client("hung"), client("shop"), Instant::now());
    let second = Duration::from_secs(1);
    for _ in 0..20 {
        ledger.enters(V, &hung).unwrap();
    }
    for i in 0..18u32 {
        let now = start + i * second;
        let ticket = ledger.enter(V, &shop, now, now + second).unwrap();
        ledger.arrived(ticket, &shop, now).unwrap();
        ledger.leave(ticket, &shop, 0, End::Answered, now + second / 100);
    }
    let now = start + 20 * second;
    (0..16).for_each(|i| assert_eq!(ledger.is_let_in(V, &shop, now, now + second), Ok(()), "{i}"));
}

#[test]
fn a_slow_hour_is_forgotten() {
    let capacity = Capacity { by_lane: [100; 3], by_client: 100, at_once: 2, ..CAPACITY };
    let (mut ledger, slow, shop, start) = (Ledger::new(capacity), client("slow"), client("shop"), Instant::now());
    let second = Duration::from_secs(1);
    let come = |ledger: &mut Ledger, client: &ClientId, now, patience| {
        let ticket = ledger.enter(V, client, now, now + patience)?;
        ledger.arrived(ticket, client, now).map(|()| ticket)
    };
    let mut waiting: VecDeque<_> = (0..3).map(|_| come(&mut ledger, &slow, start, 60 * second).unwrap()).collect();
    for i in 1..=20 {
        ledger.leave(waiting.pop_front().unwrap(), &slow, 0, End::Answered, start + i * second);
        waiting.push_back(come(&mut ledger, &slow, start + i * second, 60 * second).unwrap());
    }
    let mut now = start + 20 * second;
    assert_eq!(come(&mut ledger, &shop, now, second / 5).map(|_| ()), Ok(()), "one may always try");
    assert_eq!(come(&mut ledger, &shop, now, second / 5), Err(NoRoom::Time), "a second each");
    waiting.into_iter().for_each(|ticket| ledger.leave(ticket, &slow, 0, End::Answered, now));
    let first = Ticket { lane: V, number: 23 };
    ledger.leave(first, &shop, 0, End::Answered, now);
    // Three at a time, 10 ms each, at once after it.
    let mut refused = Vec::new();
    for _ in 0..100 {
        let came: Vec<_> = (0..3).map(|_| come(&mut ledger, &shop, now, second / 5)).collect();
        refused.push(came.iter().filter(|came| came.is_err()).count());
        for ticket in came.into_iter().flatten() {
            now += second / 100;
            ledger.leave(ticket, &shop, 0, End::Answered, now);
        }
        now += second / 20;
    }
    assert_eq!((refused[0], &refused[60..]), (1, &[0; 40][..]), "two at once need no turn; then the door has seen it");
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
    assert_eq!((ledger.bytes(), ledger.requests_of(V), ledger.clients.len()), (0, 0, 0));
}

#[test]
fn who_would_wait_beyond_the_deadline_is_refused_at_once() {
    let capacity = Capacity { by_lane: [1000; 3], by_client: 1000, ..CAPACITY };
    let (mut ledger, flood, shop, start) = (Ledger::new(capacity), client("flood"), client("shop"), Instant::now());
    let second = Duration::from_secs(1);
    let come = |ledger: &mut Ledger, now| {
        let ticket = ledger.enter(V, &flood, now, now + 60 * second).unwrap();
        ledger.arrived(ticket, &flood, now).unwrap();
        ticket
    };
    // One answer every 10 ms, and 100 more come than go.
    let mut waiting: VecDeque<_> = (0..100).map(|_| come(&mut ledger, start)).collect();
    for i in 1..=100 {
        let now = start + Duration::from_millis(10 * i);
        ledger.leave(waiting.pop_front().unwrap(), &flood, 0, End::Answered, now);
        waiting.push_back(come(&mut ledger, now));
    }
    let now = start + second;
    assert_eq!(ledger.is_let_in(V, &flood, now, now + second / 2), Err(NoRoom::Time));
    assert_eq!(ledger.is_let_in(V, &flood, now, now + 2 * second), Ok(()));
    // Clients take turns: the flood is not before the shop.
    (0..20).for_each(|i| assert_eq!(ledger.is_let_in(V, &shop, now, now + second / 2), Ok(()), "{i}"));
    assert_eq!(ledger.is_let_in(E, &flood, now, now + second / 2), Ok(()), "the back office has no pace");
    (0..20).for_each(|_| ledger.leaves(V, &shop, 0));
    assert_eq!(ledger.is_let_in(V, &shop, now, now), Ok(()), "one may always try");
    assert_eq!(ledger.is_let_in(V, &shop, now, now), Err(NoRoom::Time));
}

#[test]
fn a_refusal_costs_less_than_microseconds() {
    let (mut ledger, a) = (Ledger::new(CAPACITY), client("a"));
    for _ in 0..2 {
        ledger.enters(V, &a).unwrap();
    }
    let started = std::time::Instant::now();
    let refused = (0..100_000).filter(|_| ledger.enters(V, &a) == Err(NoRoom::Client)).count();
    assert_eq!(refused, 100_000);
    assert!(started.elapsed().as_millis() < 1000, "{:?} for 100000 refusals", started.elapsed());
}

#[test]
fn messages_that_never_come_keep_nobody_out() {
    let mut ledger = Ledger::new(Capacity { by_lane: [8; 3], by_client: 8, ..CAPACITY });
    let (a, b, shop) = (client("a"), client("b"), client("shop"));
    let mut silent: Vec<_> = (0..8).map(|i| ledger.waits(V, [&a, &b][i % 2]).unwrap()).collect();
    let is_lost = |(_, lost): &mut (Ticket, Lost)| lost.try_recv().is_ok();
    for answered in 0..3 {
        ledger.works(V, &shop).unwrap();
        assert_eq!(
            (ledger.requests_of(V), silent.iter_mut().map(is_lost).filter(|lost| *lost).count()),
            (8, 1),
            "{answered}"
        );
    }
    // The two have 5 of 8 now. Who has as many as others have drives nobody out.
    assert_eq!((ledger.enters(V, &a), ledger.enters(V, &b)), (Err(NoRoom::Lane), Err(NoRoom::Lane)));
    // Nor do messages that are on their way, where they are as many.
    let burst = (0..4).filter(|_| ledger.enters(V, &client("kiosk")).is_ok()).count();
    assert_eq!((burst, ledger.requests_of(V)), (1, 8), "then 2, 2 and 1 have not arrived");
}

#[test]
fn who_lost_its_place_has_nothing_to_give_back_but_bytes() {
    let (a, kiosk, shop, now) = (client("a"), client("kiosk"), client("shop"), Instant::now());
    let mut ledger = Ledger::new(CAPACITY);
    let [(first, _), (second, _)] = [(); 2].map(|()| ledger.waits(V, &a).unwrap());
    let others = [(); 2].map(|()| ledger.works(V, &kiosk).unwrap());
    ledger.hold(&a, 50).unwrap();
    let own = ledger.works(V, &shop).unwrap();
    assert_eq!(ledger.arrived(first, &a, now), Err(NoRoom::Unarrived));
    ledger.leave(first, &a, 50, End::Unarrived, Instant::now());
    assert_eq!((ledger.requests_of(V), ledger.bytes()), (4, 0));
    ledger.leave(second, &a, 0, End::Unarrived, Instant::now());
    ledger.leave(own, &shop, 0, End::Unanswered, Instant::now());
    others.into_iter().for_each(|ticket| ledger.leave(ticket, &kiosk, 0, End::Unanswered, Instant::now()));
    assert_eq!((ledger.by_lane, ledger.clients.len()), ([0; 3], 0));
}

#[test]
fn a_message_that_has_not_been_looked_for_keeps_its_place() {
    let mut ledger = Ledger::new(Capacity { by_lane: [4; 3], by_client: 4, ..CAPACITY });
    let (a, b, shop, now) = (client("a"), client("b"), client("shop"), Instant::now());
    let came: Vec<_> = (0..4).map(|i| ledger.enters(I, [&a, &b][i % 2]).unwrap()).collect();
    assert_eq!(ledger.enters(I, &shop), Err(NoRoom::Lane));
    let _waits = [ledger.awaited(came[0], &a), ledger.awaited(came[2], &a)];
    ledger.works(I, &shop).unwrap();
    assert_eq!(ledger.arrived(came[0], &a, now), Err(NoRoom::Unarrived));
    for (ticket, of) in [(came[1], &b), (came[2], &a), (came[3], &b)] {
        ledger.arrived(ticket, of, now).unwrap();
    }
}
