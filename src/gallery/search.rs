//! Searches that wait together share one pass over the index: the rows are read from memory once for all of them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::oneshot;

use super::{Gallery, SearchError};
use crate::{
    domain::{CandidateList, InTurn, ModelMismatch, ReferenceId, SubjectId, Template, Turn, Waits, compare},
    index::{IndexError, Neighbour},
    telemetry::Metrics,
};

/// Probes in one pass at most. Below the number from which Faiss multiplies matrices: its teams of threads spin, and would take the
/// cores from verifications.
const PASS_PROBES: usize = 16;

/// Neighbours beyond those needed: room for the index's rounding at the cut, and for rows erased meanwhile.
const SPARE_NEIGHBOURS: usize = 8;

/// Candidates, and the epoch of the state that was searched.
type Found = Result<(CandidateList, u64), SearchError>;

/// What waits to be searched, and how many passes run.
pub(super) struct Searches {
    queue: Mutex<Queue>,
    /// Passes at a time.
    max_passes: usize,
}

struct Queue {
    asks: InTurn<Ask>,
    passes: usize,
}

struct Ask {
    probe: Template,
    exclude: SubjectId,
    most: usize,
    turn: Turn,
    queued_at: Instant,
    answer: oneshot::Sender<Found>,
}

impl Waits for Ask {
    fn turn(&self) -> &Turn {
        &self.turn
    }
    fn gone(&self) -> bool {
        self.answer.is_closed()
    }
}

impl Searches {
    pub(super) fn new(max_passes: usize) -> Self {
        Self { queue: Mutex::new(Queue { asks: InTurn::default(), passes: 0 }), max_passes: max_passes.max(1) }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues; the place of a new pass, where there is one.
    fn push(self: &Arc<Self>, ask: Ask) -> Option<Pass> {
        let mut queue = self.lock();
        // Who has left during a long pass is forgotten here: those who wait are never more than the requests that are let in.
        queue.sweep(Instant::now());
        queue.asks.push(ask);
        Metrics::get().search_queue_depth.inc();
        if queue.passes >= self.max_passes {
            return None; // a pass that runs will take it
        }
        queue.passes += 1;
        Some(Pass { searches: Arc::clone(self), held: true })
    }
}

impl Queue {
    /// Drops the late, who are told, and the gone.
    fn sweep(&mut self, now: Instant) {
        let (mut late, mut gone) = (Vec::new(), Vec::new());
        self.asks.sweep(now, &mut late, &mut gone);
        note_left(late.len() + gone.len());
        gone.iter().for_each(|ask| Metrics::get().dropped("gone", "search", ask.turn.lane.as_str()));
        for ask in late {
            Metrics::get().dropped("late", "search", ask.turn.lane.as_str());
            let _ = ask.answer.send(Err(SearchError::Late)); // who has left meanwhile wants no answer
        }
    }
}

/// So many wait no more; the gauge is of all galleries.
fn note_left(asks: usize) {
    Metrics::get().search_queue_depth.sub(i64::try_from(asks).unwrap_or(0));
}

/// A place among the passes, held by the thread that searches.
struct Pass {
    searches: Arc<Searches>,
    /// False once the place was given back.
    held: bool,
}

impl Pass {
    /// What is to be searched together now; gives the place back, under the queue's lock, when there is nothing.
    fn next(&mut self) -> Option<Vec<Ask>> {
        let (mut queue, now) = (self.searches.lock(), Instant::now());
        queue.sweep(now);
        let asks = queue.asks.take(PASS_PROBES, |_| true);
        note_left(asks.len());
        if asks.is_empty() {
            queue.passes -= usize::from(self.held);
            self.held = false;
            return None;
        }
        drop(queue);
        for ask in &asks {
            Metrics::get().queued("search", ask.turn.lane.as_str(), now.saturating_duration_since(ask.queued_at));
        }
        Some(asks)
    }
}

impl Drop for Pass {
    /// After a panic: the place is not lost, and what waits is taken by the next search's pass.
    fn drop(&mut self) {
        self.searches.lock().passes -= usize::from(self.held);
    }
}

impl Gallery {
    /// The best `most` references of other subjects than `exclude`, scored by `domain::compare`, and the epoch of the
    /// state that was searched. Shares a pass with those who wait for one.
    pub async fn search(
        self: &Arc<Self>,
        probe: &Template,
        exclude: &SubjectId,
        most: usize,
        turn: &Turn,
    ) -> Result<(CandidateList, u64), SearchError> {
        if probe.model() != self.model || probe.dimension() != self.dimension {
            return Err(ModelMismatch { probe: probe.model(), reference: self.model }.into());
        }
        let (answer, found) = oneshot::channel();
        let ask = Ask {
            probe: probe.clone(),
            exclude: exclude.clone(),
            most,
            turn: turn.clone(),
            queued_at: Instant::now(),
            answer,
        };
        if let Some(pass) = self.searches.push(ask) {
            let gallery = Arc::clone(self);
            // Goes on for those who wait, also if this caller leaves.
            tokio::task::spawn_blocking(move || gallery.run(pass));
        }
        found.await.map_err(|_| SearchError::Stopped)?
    }

    fn run(&self, mut pass: Pass) {
        while let Some(asks) = pass.next() {
            Metrics::get().batch_images.with_label_values(&["search"]).observe(asks.len() as f64);
            match self.search_together(&asks) {
                Ok(all) => {
                    for (ask, found) in asks.into_iter().zip(all) {
                        let _ = ask.answer.send(found); // as above
                    }
                }
                Err(error) => {
                    for ask in asks {
                        let _ = ask.answer.send(Err(error.clone().into())); // as above
                    }
                }
            }
        }
    }

    fn search_together(&self, asks: &[Ask]) -> Result<Vec<Found>, IndexError> {
        let (index, own, epoch) = {
            let state = self.state();
            let own = asks.iter().map(|ask| state.count_of_subject(&ask.exclude).saturating_add(ask.most)).max();
            (state.snapshot(), own.unwrap_or(0), state.epoch)
        };
        // Of so many neighbours enough are other subjects', if there are so many.
        let wanted = own.saturating_add(SPARE_NEIGHBOURS).min(index.len());
        let probes: Vec<&[f32]> = asks.iter().map(|ask| ask.probe.values()).collect();
        let neighbours = index.search(&probes, wanted)?;
        let found: Vec<Vec<Candidate>> = neighbours.into_iter().map(|near| self.named(&near)).collect();
        let candidates = |(ask, found): (&Ask, Vec<Candidate>)| {
            let others = found.into_iter().filter(|(subject, _, _)| *subject != ask.exclude);
            let compared = others.map(|(subject, id, template)| Ok((subject, id, compare(&ask.probe, &template)?)));
            let candidates = compared.collect::<Result<Vec<_>, SearchError>>()?;
            Ok((CandidateList::new(candidates, ask.most), epoch))
        };
        Ok(asks.iter().zip(found).map(candidates).collect())
    }

    /// Names come from the state of now: what was erased since the snapshot has none. Copied, so that nothing is compared while a
    /// writer waits.
    fn named(&self, neighbours: &[Neighbour]) -> Vec<Candidate> {
        let state = self.state();
        let named = |near: &Neighbour| {
            let (row, template) = (state.row(near.id)?, state.template(near.id, self.model)?);
            Some((row.subject.clone(), row.id, template))
        };
        neighbours.iter().filter_map(named).collect()
    }
}

/// A reference that may be alike, and whose it is.
type Candidate = (SubjectId, ReferenceId, Template);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::{ClientId, Lane, ModelDigest};

    fn ask(client: &str, subject: &str) -> (Ask, oneshot::Receiver<Found>) {
        let turn =
            Turn::of(&ClientId::new(client).unwrap(), Lane::Identification, Instant::now() + Duration::from_secs(9));
        let (answer, found) = oneshot::channel();
        let probe = Template::new(ModelDigest::new([1; 32]), vec![1.0, 0.0]).unwrap();
        (
            Ask { probe, exclude: SubjectId::new(subject).unwrap(), most: 1, turn, queued_at: Instant::now(), answer },
            found,
        )
    }

    #[test]
    fn the_dead_are_not_searched_for() {
        let searches = Arc::new(Searches::new(1));
        let (gone, _) = ask("a", "gone");
        let (mut late, mut found) = ask("a", "late");
        late.turn.deadline = Instant::now();
        let (good, _waits) = ask("a", "good");
        let mut pass = searches.push(gone).unwrap();
        assert!(searches.push(late).is_none() && searches.push(good).is_none());
        assert_eq!(searches.lock().asks.len(), 1, "whoever is dead is forgotten when others come");
        let alive = pass.next().unwrap();
        assert_eq!(alive.iter().map(|a| a.exclude.as_str()).collect::<Vec<_>>(), ["good"]);
        assert!(matches!(found.try_recv().unwrap(), Err(SearchError::Late)));
    }

    #[test]
    fn as_many_passes_as_are_allowed_and_none_is_lost() {
        let searches = Arc::new(Searches::new(1));
        let (first, _a) = ask("a", "1");
        let (second, _b) = ask("a", "2");
        let mut pass = searches.push(first).unwrap();
        assert!(searches.push(second).is_none(), "the pass that runs takes it");
        assert_eq!(pass.next().unwrap().len(), 2);
        assert!(pass.next().is_none());
        let (third, _c) = ask("a", "3");
        let pass = searches.push(third);
        assert!(pass.is_some(), "the place was given back");
        drop(pass); // as a panic would
        let (fourth, _d) = ask("a", "4");
        assert_eq!(
            searches.push(fourth).unwrap().next().unwrap().len(),
            2,
            "what the lost pass left is taken by the next"
        );
    }
}
