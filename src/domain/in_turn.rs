//! A queue in which clients take turns.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use super::{ClientId, Turn};

/// What a queue needs to know of what waits in it.
pub trait Waits {
    fn turn(&self) -> &Turn;
    /// True if nobody waits for the answer any more.
    fn gone(&self) -> bool;
}

/// Clients in the order of their turns, each with what waits for it, oldest request first. No client is without anything.
#[derive(Debug)]
pub struct InTurn<J>(VecDeque<(Option<Arc<ClientId>>, VecDeque<J>)>);

impl<J> Default for InTurn<J> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<J: Waits> InTurn<J> {
    pub fn len(&self) -> usize {
        self.0.iter().map(|(_, jobs)| jobs.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &J> {
        self.0.iter().flat_map(|(_, jobs)| jobs)
    }

    /// Each client's, in turn; the oldest first.
    pub fn by_client(&self) -> impl Iterator<Item = &VecDeque<J>> {
        self.0.iter().map(|(_, jobs)| jobs)
    }

    /// A request that comes back for its next stage stands before younger ones of its client.
    pub fn push(&mut self, job: J) {
        let Turn { client, arrived, .. } = job.turn();
        match self.0.iter_mut().find(|(waiting, _)| waiting == client) {
            Some((_, jobs)) => {
                let at = jobs.partition_point(|other| other.turn().arrived <= *arrived);
                jobs.insert(at, job);
            }
            None => self.0.push_back((client.clone(), VecDeque::from([job]))),
        }
    }

    /// Takes out what is of no use any more: whose deadline has passed, and for whom nobody waits.
    pub fn sweep(&mut self, now: Instant, late: &mut Vec<J>, gone: &mut Vec<J>) {
        for (_, jobs) in &mut self.0 {
            for job in std::mem::take(jobs) {
                match () {
                    () if job.gone() => gone.push(job),
                    () if job.turn().deadline <= now => late.push(job),
                    () => jobs.push_back(job),
                }
            }
        }
        self.0.retain(|(_, jobs)| !jobs.is_empty());
    }

    /// The oldest request of the client whose turn it is.
    pub fn first(&self) -> Option<&J> {
        self.0.front().and_then(|(_, jobs)| jobs.front())
    }

    /// Takes one that is `wanted` from each client in turn, and again, until there are `most` or no more. Who was served stands
    /// behind who was not the next time.
    pub fn take(&mut self, most: usize, wanted: impl Fn(&J) -> bool) -> Vec<J> {
        let mut taken = Vec::new();
        let mut round: VecDeque<usize> = (0..self.0.len()).collect();
        let mut served = vec![false; self.0.len()];
        while taken.len() < most
            && let Some(at) = round.pop_front()
        {
            let jobs = &mut self.0[at].1;
            if let Some(job) = jobs.iter().position(&wanted).and_then(|i| jobs.remove(i)) {
                taken.push(job);
                served[at] = true;
                round.push_back(at);
            }
        }
        let (served, waiting): (Vec<_>, Vec<_>) = self.0.drain(..).zip(served).partition(|(_, served)| *served);
        let in_turn = waiting.into_iter().chain(served).map(|(client, _)| client);
        self.0 = in_turn.filter(|(_, jobs)| !jobs.is_empty()).collect();
        taken
    }

    /// All that waits.
    pub fn into_jobs(self) -> impl Iterator<Item = J> {
        self.0.into_iter().flat_map(|(_, jobs)| jobs)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::Lane;

    struct Job(u64, Turn, bool);

    impl Waits for Job {
        fn turn(&self) -> &Turn {
            &self.1
        }
        fn gone(&self) -> bool {
            self.2
        }
    }

    fn job(client: &str, id: u64) -> Job {
        let now = Instant::now();
        let mut turn = Turn::of(&ClientId::new(client).unwrap(), Lane::Verification, now + Duration::from_secs(60));
        turn.arrived = now + Duration::from_millis(id);
        Job(id, turn, false)
    }

    fn queue(jobs: impl IntoIterator<Item = Job>) -> InTurn<Job> {
        let mut queue = InTurn::default();
        jobs.into_iter().for_each(|job| queue.push(job));
        queue
    }

    fn take(queue: &mut InTurn<Job>, most: usize) -> Vec<u64> {
        queue.take(most, |_| true).iter().map(|job| job.0).collect()
    }

    #[test]
    fn clients_take_turns_each_with_its_oldest() {
        let mut queue = queue([job("flood", 3), job("flood", 1), job("shop", 9), job("flood", 2)]);
        assert_eq!(take(&mut queue, 1), [1]);
        assert_eq!(take(&mut queue, 1), [9], "who was served stands behind");
        assert_eq!((queue.len(), queue.first().map(|job| job.0)), (2, Some(2)));
        assert_eq!(take(&mut queue, 5), [2, 3]);
        assert!(queue.is_empty() && take(&mut queue, 1).is_empty());
    }

    #[test]
    fn only_the_wanted_are_taken() {
        let mut queue = queue([job("a", 1), job("a", 2), job("b", 3)]);
        assert_eq!(queue.take(9, |job| job.0 > 1).iter().map(|job| job.0).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(take(&mut queue, 9), [1]);
    }

    #[test]
    fn the_late_and_the_gone_are_swept() {
        let (mut late, mut gone) = (job("a", 1), job("b", 2));
        late.1.deadline = Instant::now();
        gone.2 = true;
        let mut queue = queue([late, gone, job("a", 3)]);
        let (mut late, mut gone) = (Vec::new(), Vec::new());
        queue.sweep(Instant::now(), &mut late, &mut gone);
        assert_eq!((late[0].0, gone[0].0, late.len(), gone.len(), queue.len()), (1, 2, 1, 1, 1));
        assert_eq!(queue.into_jobs().map(|job| job.0).collect::<Vec<_>>(), [3]);
    }
}
