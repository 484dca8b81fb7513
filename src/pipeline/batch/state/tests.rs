use std::{sync::Arc, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::domain::ClientId;

#[derive(Debug, Clone)]
struct Fake {
    id: u32,
    role: Role,
    turn: Turn,
    gone: bool,
}

impl Entry for Fake {
    fn role(&self) -> Role {
        self.role
    }
}

impl Waits for Fake {
    fn turn(&self) -> &Turn {
        &self.turn
    }
    fn gone(&self) -> bool {
        self.gone
    }
}

const LIMITS: BatchLimits = BatchLimits { queue_depth: 8, batch_images: 3, yield_every: 4 };

/// A job of a client; later ids arrived later.
fn fake(id: u32, role: Role, lane: Lane, client: &str) -> Fake {
    let now = Instant::now();
    let client = Some(Arc::new(ClientId::new(client).unwrap()));
    let arrived = now + Duration::from_millis(id.into());
    Fake { id, role, turn: Turn { lane, client, arrived, deadline: now + Duration::from_secs(60) }, gone: false }
}

fn state(limits: BatchLimits, jobs: impl IntoIterator<Item = Fake>) -> State<Fake> {
    let mut state = State::new(limits, 1);
    for job in jobs {
        state.push(job).unwrap();
    }
    state
}

/// For every role.
fn up_to(most: usize) -> [Batching; Role::ALL.len()] {
    Role::ALL.map(|_| Batching::up_to(most))
}

fn ids(batch: &[Fake]) -> Vec<u32> {
    batch.iter().map(|j| j.id).collect()
}

fn next(state: &mut State<Fake>) -> Vec<u32> {
    ids(&state.take(Instant::now(), 1, &up_to(64)).batch)
}

use Lane::{Enrolment as E, Identification as I, Verification as V};
use Role::{DetectSmall as First, Embed, Landmark};

#[test]
fn a_batch_is_of_one_role_and_no_longer_than_the_limit() {
    let jobs = [(1, Embed), (2, First), (3, Embed), (4, Embed), (5, Embed)];
    let mut state = state(LIMITS, jobs.map(|(id, role)| fake(id, role, V, "a")));
    assert_eq!(next(&mut state), [1, 3, 4]);
    assert_eq!(next(&mut state), [2]);
    assert_eq!(next(&mut state), [5]);
    assert!(next(&mut state).is_empty());
}

#[test]
fn a_batch_is_no_larger_than_is_gained_by_and_leaves_their_part_to_others() {
    let jobs = [(1, Embed), (2, First), (3, Embed), (4, Embed), (5, Embed), (6, Embed)];
    let limits = BatchLimits { batch_images: 8, ..LIMITS };
    let mut state = state(limits, jobs.map(|(id, role)| fake(id, role, V, "a")));
    let mut take = |takers, gains_up_to| {
        let taken = state.take(Instant::now(), takers, &up_to(gains_up_to));
        ids(&taken.batch)
    };
    assert_eq!(take(2, 8), [1, 3, 4], "of five");
    assert_eq!(take(4, 8), [5], "one for each of four");
    assert_eq!(take(1, 1), [6]);
    assert_eq!(take(9, 0), [2], "never none");
}

#[test]
fn a_request_keeps_its_place_from_network_to_network() {
    let mut state = state(LIMITS, [fake(2, First, V, "a"), fake(3, First, V, "a"), fake(1, Embed, V, "a")]);
    let mut alone = || ids(&state.take(Instant::now(), 1, &up_to(1)).batch);
    assert_eq!(alone(), [1], "the oldest request's embedding comes before younger ones' detection");
    assert_eq!((alone(), alone()), (vec![2], vec![3]));
}

#[test]
fn what_is_begun_ends_before_another_clients_turn() {
    let mut state = state(LIMITS, [fake(1, First, V, "a"), fake(2, Landmark, V, "b"), fake(0, Embed, V, "c")]);
    let mut alone = || ids(&state.take(Instant::now(), 1, &up_to(1)).batch);
    assert_eq!([alone(), alone(), alone()], [[2], [0], [1]]);
}

/// Where embedding gains by three, and detection by none.
fn gains() -> [Batching; Role::ALL.len()] {
    Role::ALL.map(|role| Batching::up_to(if role == Embed { 3 } else { 1 }))
}

#[test]
fn a_begun_one_waits_for_company_while_others_wait_to_begin() {
    let mut state = state(LIMITS, [fake(1, Embed, V, "a"), fake(2, First, V, "a"), fake(3, First, V, "b")]);
    let take = |state: &mut State<Fake>| ids(&state.take(Instant::now(), 1, &gains()).batch);
    assert_eq!(take(&mut state), [2], "the detection that may bring company");
    state.push(fake(2, Embed, V, "a")).unwrap();
    assert_eq!(take(&mut state), [1, 2], "company of two is enough where one waits to begin");
    assert_eq!(take(&mut state), [3]);
    state.push(fake(3, Embed, V, "b")).unwrap();
    assert_eq!(take(&mut state), [3], "nobody waits to begin");
}

#[test]
fn the_more_wait_to_begin_the_more_company_is_waited_for() {
    for (new, executors, company) in [(0, 1, 1), (1, 1, 2), (2, 1, 3), (6, 1, 3), (2, 2, 2), (3, 2, 3)] {
        let limits = BatchLimits { queue_depth: 99, ..LIMITS };
        for begun in 1..=3 {
            let mut state = State::new(limits, executors);
            (0..begun).for_each(|id| state.push(fake(id, Embed, V, "a")).unwrap());
            (0..new).for_each(|id| state.push(fake(50 + id, First, V, "a")).unwrap());
            let batch = state.take(Instant::now(), 1, &gains()).batch;
            let expected = if begun >= company { Embed } else { First };
            assert_eq!(batch[0].role, expected, "{begun} begun, {new} new, {executors} executors");
        }
    }
}

#[test]
fn company_is_not_waited_for_without_end() {
    let mut state = state(LIMITS, [fake(0, Embed, V, "a")]);
    for id in 1..=DEFERRALS as u32 {
        state.push(fake(id, First, V, "a")).unwrap();
        assert_eq!(ids(&state.take(Instant::now(), 1, &gains()).batch), [id]);
    }
    state.push(fake(99, First, V, "a")).unwrap();
    assert_eq!(ids(&state.take(Instant::now(), 1, &gains()).batch), [0]);
}

/// How many batches go before a lone embedding of `shop`, while clients without end begin requests that `becomes` the next job.
fn batches_before_a_lone_one(clients: &[&str], becomes: impl Fn(Role) -> Option<Role>) -> usize {
    let mut state = State::new(BatchLimits { queue_depth: 999, batch_images: 32, yield_every: 0 }, 1);
    for id in 0..400 {
        state.push(fake(id, First, V, clients[id as usize % clients.len()])).unwrap();
    }
    state.push(fake(500, Embed, V, "shop")).unwrap();
    for before in 0.. {
        let gains = [1, 1, 2, 5].map(Batching::up_to);
        let batch = state.take(Instant::now(), 1, &gains).batch;
        if batch.iter().any(|job| job.id == 500) {
            return before;
        }
        for job in batch {
            if let Some(role) = becomes(job.role) {
                state.push(Fake { role, ..job }).unwrap();
            }
        }
    }
    unreachable!()
}

#[test]
fn nobody_waits_for_the_sake_of_one_who_floods() {
    let assess = |role| (role == First).then_some(Landmark);
    let verify = |role| [Some(Landmark), Some(Landmark), Some(Embed), None][role as usize];
    let many: Vec<String> = (0..20).map(|i| format!("flood-{i}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for becomes in [&|_| None as Option<Role>, &assess as &dyn Fn(Role) -> Option<Role>, &verify] {
        assert_eq!(batches_before_a_lone_one(&["flood"], becomes), 0);
        assert!(batches_before_a_lone_one(&many[..2], becomes) <= 1);
        assert!(batches_before_a_lone_one(&many, becomes) <= DEFERRALS);
    }
}

#[test]
fn verification_overtakes_the_other_lanes_but_never_for_ever() {
    let limits = BatchLimits { batch_images: 1, ..LIMITS };
    let mut state = state(limits, [fake(100, Embed, E, "a"), fake(200, Embed, I, "a")]);
    let mut order = Vec::new();
    for id in 0..10 {
        state.push(fake(id, Embed, V, "a")).unwrap();
        order.extend(next(&mut state));
    }
    assert_eq!(order, [0, 1, 2, 200, 3, 4, 5, 100, 6, 7]);
}

#[test]
fn other_lanes_run_one_at_a_time_while_verifications_come() {
    let enrolments = (10..13).map(|id| fake(id, Embed, E, "a"));
    let mut state = state(LIMITS, enrolments.chain([fake(1, First, V, "a")]));
    assert_eq!(next(&mut state), [1]);
    assert_eq!(next(&mut state), [10]);
    let later = Instant::now() + EXPECTED + Duration::from_secs(1);
    assert_eq!(ids(&state.take(later, 1, &up_to(64)).batch), [11, 12]);
}

#[test]
fn a_turn_of_an_empty_lane_goes_to_the_next() {
    let limits = BatchLimits { batch_images: 1, yield_every: 2, ..LIMITS };
    let mut state = state(limits, [fake(0, Embed, V, "a"), fake(1, Embed, V, "a"), fake(2, Embed, E, "a")]);
    assert_eq!([next(&mut state), next(&mut state), next(&mut state)], [[0], [2], [1]]);
}

#[test]
fn clients_of_a_lane_take_turns() {
    let flood = (0..6).map(|id| fake(id, Embed, V, "flood"));
    let mut state = state(LIMITS, flood.chain([fake(50, Embed, V, "shop")]));
    assert_eq!(next(&mut state), [0, 50, 1]);
    state.push(fake(51, First, V, "shop")).unwrap();
    // The flood's own turn comes first, then the shop's, whatever the network it is at.
    assert_eq!(next(&mut state), [2, 3, 4]);
    assert_eq!(next(&mut state), [5], "begun, and no company of its own to wait for");
    assert_eq!(next(&mut state), [51]);
}

#[test]
fn what_a_lane_leaves_of_a_batch_goes_to_the_next() {
    let mut state = state(LIMITS, [fake(1, Embed, E, "a"), fake(2, First, E, "a"), fake(3, Embed, V, "a")]);
    assert_eq!(next(&mut state), [3, 1]);
}

#[test]
fn a_full_queue_gives_the_job_back() {
    let mut state = state(LIMITS, (0..8).map(|id| fake(id, Embed, V, "a")));
    assert_eq!(state.push(fake(9, Embed, E, "b")).unwrap_err().id, 9);
}

#[test]
fn a_queue_that_is_full_of_the_gone_has_room_once_it_is_swept() {
    let gone = (0..8).map(|id| Fake { gone: true, ..fake(id, Embed, V, "a") });
    let mut state = state(LIMITS, gone);
    let job = state.push(fake(9, Embed, V, "b")).unwrap_err();
    assert_eq!(state.sweep(Instant::now()).gone.len(), 8);
    assert!(state.push(job).is_ok());
}

#[test]
fn the_late_and_the_gone_leave_without_work() {
    let now = Instant::now();
    let mut late = fake(1, Embed, V, "a");
    late.turn.deadline = now;
    let mut gone = fake(2, Embed, E, "b");
    gone.gone = true;
    let mut state = state(LIMITS, [late, gone, fake(3, Embed, V, "a")]);
    let taken = state.take(now, 1, &up_to(64));
    assert_eq!((ids(&taken.batch), ids(&taken.late), ids(&taken.gone)), (vec![3], vec![1], vec![2]));
    assert_eq!(state.len(), 0);
}

proptest! {
    /// Whatever comes, nothing is lost or doubled, and whoever waits is served within as many batches as there are jobs
    /// and turns.
    #[test]
    fn every_job_leaves_once(
        jobs in proptest::collection::vec((0usize..Role::ALL.len(), 0usize..3, 0u8..4, any::<bool>()), 0..40),
        batch_images in 1usize..8,
        yield_every in 0u32..4,
        takers in 0usize..4,
        gains_up_to in 0usize..8,
    ) {
        let limits = BatchLimits { queue_depth: 64, batch_images, yield_every };
        let make = |(id, (role, lane, client, gone)): (usize, (usize, usize, u8, bool))| {
            let made = fake(id as u32, Role::ALL[role], Lane::ALL[lane], &format!("c{client}"));
            Fake { gone, ..made }
        };
        let count = jobs.len();
        let mut state = state(limits, jobs.into_iter().enumerate().map(make));
        let (mut left, mut batches) = (Vec::new(), 0);
        while state.len() > 0 {
            let taken = state.take(Instant::now(), takers, &up_to(gains_up_to));
            prop_assert!(taken.batch.len() <= batch_images.min(gains_up_to.max(1)));
            prop_assert!(taken.batch.iter().all(|job| job.role == taken.batch[0].role && !job.gone));
            prop_assert!(taken.batch.len() + taken.gone.len() > 0, "a batch without progress");
            left.extend(ids(&taken.batch));
            left.extend(ids(&taken.gone));
            batches += 1;
            prop_assert!(batches <= count);
        }
        left.sort_unstable();
        prop_assert!(left == (0..count as u32).collect::<Vec<_>>());
    }
}
