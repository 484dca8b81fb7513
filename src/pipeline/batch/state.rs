//! The brain of the queue: what waits, what the next batch is, who has left and who is late. No threads, no clock.

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use vultus_engine::executor::Batching;

use super::BatchLimits;
use crate::{
    domain::{InTurn, Lane, Turn, Waits},
    model::Role,
};

/// A verification has images for one network after the other. For so long after it came its next ones are expected, which would have
/// to wait for a batch that runs: other lanes' batches are of one image meanwhile.
const EXPECTED: Duration = Duration::from_secs(1);

/// Batches that may go before what is begun and waits for company, at most.
const DEFERRALS: usize = 6;

/// What the state needs to know of a job.
pub trait Entry: Waits {
    fn role(&self) -> Role;
}

/// Which jobs wait, and which of them are the next batch.
pub struct State<J> {
    lanes: [InTurn<J>; Lane::ALL.len()],
    limits: BatchLimits,
    executors: usize,
    batches: u32,
    /// Of each lane and role: batches in a row that went before what is begun.
    deferred: [[usize; Role::ALL.len()]; Lane::ALL.len()],
    /// When the last verification that was here came.
    verification: Option<Instant>,
}

/// What [`State::take`] took.
pub struct Taken<J> {
    pub batch: Vec<J>,
    /// Left without work: their deadline had passed.
    pub late: Vec<J>,
    /// Left without work: nobody waits for them any more.
    pub gone: Vec<J>,
}

impl<J> State<J> {
    pub fn executors(&self) -> usize {
        self.executors
    }

    /// So many take batches from now on.
    pub fn set_executors(&mut self, executors: usize) {
        self.executors = executors;
    }
}

impl<J: Entry> State<J> {
    pub fn new(limits: BatchLimits, executors: usize) -> Self {
        let lanes = std::array::from_fn(|_| InTurn::default());
        Self { lanes, limits, executors, batches: 0, deferred: Default::default(), verification: None }
    }

    /// Jobs that wait, all lanes together.
    pub fn len(&self) -> usize {
        self.depths().iter().sum()
    }

    /// Jobs that wait, lane by lane.
    pub fn depths(&self) -> [usize; Lane::ALL.len()] {
        self.lanes.each_ref().map(InTurn::len)
    }

    /// Gives the job back when the queue is full.
    pub fn push(&mut self, job: J) -> Result<(), J> {
        if self.len() >= self.limits.queue_depth {
            return Err(job);
        }
        let Turn { lane, arrived, .. } = *job.turn();
        if lane == Lane::Verification {
            self.verification = self.verification.max(Some(arrived));
        }
        self.lanes[lane as usize].push(job);
        Ok(())
    }

    /// No batch, but the late and the gone: room for others where the queue was full of them.
    pub fn sweep(&mut self, now: Instant) -> Taken<J> {
        let mut taken = Taken { batch: Vec::new(), late: Vec::new(), gone: Vec::new() };
        for lane in &mut self.lanes {
            lane.sweep(now, &mut taken.late, &mut taken.gone);
        }
        taken
    }

    /// The next batch: jobs of one role. Lanes in their order; in a lane that of [`Self::next_role`], clients in turn, a client's oldest
    /// request first. Places that the first lane leaves go to the lanes after it.
    ///
    /// As many as the executor wants of them together, and no more than its part where `takers` executors are free, it included. One
    /// alone of the other lanes, while verifications come.
    pub fn take(&mut self, now: Instant, takers: usize, wants: &[Batching; Role::ALL.len()]) -> Taken<J> {
        let mut taken = self.sweep(now);
        let first = self.first_lane();
        let mut order: [usize; Lane::ALL.len()] = std::array::from_fn(|lane| lane);
        order[..=first].rotate_right(1);
        let Some(next) = order.into_iter().find(|&lane| !self.lanes[lane].is_empty()) else { return taken };
        let is_urgent = next == Lane::Verification as usize;
        let alone = !is_urgent && self.verification.is_some_and(|came| now < came + EXPECTED);
        let limit = if alone { 1 } else { self.limits.batch_images };
        let waiting = Role::ALL.map(|role| self.lanes.iter().map(|lane| count(lane, role)).sum::<usize>());
        let most = Role::ALL.map(|role| wants[role as usize].take(limit, limit));
        let role = self.next_role(next, waiting, most);
        let most = wants[role as usize].take(waiting[role as usize].div_ceil(takers.max(1)), limit);
        for lane in order {
            let room = most - taken.batch.len();
            taken.batch.extend(self.lanes[lane].take(room, |job| job.role() == role));
        }
        self.batches = self.batches.wrapping_add(1);
        taken
    }

    /// What a lane's next batch is of. What is begun comes first, so that it ends soon, of clients who begin nothing else; then clients
    /// in turn, each with what it has begun before what is new: who has many waiting does not go before others with all of them.
    ///
    /// What is begun, would run alone and gains by company, up to `most`, is passed over: the more wait to begin, the more company is
    /// worth waiting for. A client that has others to begin gains by them itself, and is passed over [`DEFERRALS`] times; any other at
    /// most as often as there are clients who begin, but one: who meets a single other client does not wait for that one's sake.
    fn next_role(&mut self, lane: usize, waiting: [usize; Role::ALL.len()], most: [usize; Role::ALL.len()]) -> Role {
        let (jobs, deferred) = (&self.lanes[lane], &mut self.deferred[lane]);
        let company = 1 + count(jobs, Role::FIRST).div_ceil(self.executors.max(1));
        let begins = |of: &&VecDeque<J>| of.iter().any(|job| job.role() == Role::FIRST);
        let (beginning, ending): (Vec<_>, Vec<_>) = jobs.by_client().partition(begins);
        let others = beginning.len().saturating_sub(1).min(DEFERRALS);
        let clients = ending.into_iter().map(|of| (of, others)).chain(beginning.into_iter().map(|of| (of, DEFERRALS)));
        let mut in_turn = clients.flat_map(|(of, patience)| roles(of).map(move |role| (role, patience)));
        let is_ready = |(role, patience): &(Role, usize)| {
            let (waiting, most, deferred) = (waiting[*role as usize], most[*role as usize], deferred[*role as usize]);
            *role == Role::FIRST || waiting >= most.min(company) || deferred >= *patience
        };
        let next = in_turn.find(is_ready).map_or(Role::FIRST, |(role, _)| role);
        for role in Role::ALL {
            let passed_over = role != next && role != Role::FIRST && count(jobs, role) > 0;
            deferred[role as usize] = if passed_over { deferred[role as usize] + 1 } else { 0 };
        }
        next
    }

    /// All that waits, when there will be no more batches.
    pub fn into_jobs(self) -> impl Iterator<Item = J> {
        self.lanes.into_iter().flat_map(InTurn::into_jobs)
    }

    /// The lane that goes first now: verification, but every `yield_every`th batch one of the others, in turn, so that none starves.
    fn first_lane(&self) -> usize {
        let every = self.limits.yield_every;
        if every == 0 || self.batches % every != every - 1 {
            return 0;
        }
        let lower = Lane::ALL.len() - 1;
        let preferred = (self.batches / every) as usize % lower + 1;
        // An empty lane has no use for its turn.
        let candidates = (0..lower).map(|i| (preferred - 1 + i) % lower + 1);
        candidates.into_iter().find(|&lane| !self.lanes[lane].is_empty()).unwrap_or(0)
    }
}

/// What a client's jobs are of: what is begun, the oldest first, then what is new.
fn roles<J: Entry>(jobs: &VecDeque<J>) -> impl Iterator<Item = Role> {
    let mut roles: Vec<Role> = Vec::with_capacity(Role::ALL.len());
    for role in jobs.iter().map(J::role) {
        if !roles.contains(&role) {
            roles.push(role);
        }
    }
    roles.sort_by_key(|role| *role == Role::FIRST);
    roles.into_iter()
}

/// How many wait for a network.
fn count<J: Entry>(jobs: &InTurn<J>, role: Role) -> usize {
    jobs.iter().filter(|job| job.role() == role).count()
}
