//! Searches that wait together share one pass over the index: the rows are read from memory once for all of them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::oneshot;
use vultus_index::{IndexError, Neighbour, Within};

use super::{Gallery, SearchError, state::Published};
use crate::{
    domain::{
        Admitted, CalibrationError, CalibrationPoint, CandidateList, InTurn, ModelMismatch, SearchRates, SubjectId,
        Template, Turn, Waits, compare,
    },
    telemetry::Metrics,
};

/// Probes in one pass at most: so long waits who comes just after one began.
const PASS_PROBES: usize = 16;

/// Neighbours beyond those needed: room for the index's rounding at the cut.
const SPARE_NEIGHBOURS: usize = 8;

/// What a search found, all of it from one state of the gallery.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Other subjects than the excluded one, of whom a reference reached the threshold.
    pub candidates: CandidateList,
    /// The state that was searched.
    pub epoch: u64,
    /// References that the probe was compared with: the size that the threshold follows from.
    pub size: usize,
    /// Where it was decided.
    pub point: CalibrationPoint,
}

type Answer = Result<Found, SearchError>;

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
    rates: SearchRates,
    turn: Turn,
    queued_at: Instant,
    answer: oneshot::Sender<Answer>,
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
    /// The best `most` subjects other than `exclude` whose references reach the threshold that `rates` ask for in a gallery of
    /// this size, scored by `domain::compare`. Shares a pass with those who wait for one.
    pub async fn search(
        self: &Arc<Self>,
        probe: &Template,
        exclude: &SubjectId,
        most: usize,
        rates: &SearchRates,
        turn: &Turn,
    ) -> Result<Found, SearchError> {
        if probe.model() != self.model || probe.dimension() != self.dimension {
            return Err(ModelMismatch { probe: probe.model(), reference: self.model }.into());
        }
        let (answer, found) = oneshot::channel();
        let ask = Ask {
            probe: probe.clone(),
            exclude: exclude.clone(),
            most,
            rates: rates.clone(),
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

    /// All of them in one state of the gallery. Who is refused is not searched for.
    fn search_together<'a>(&self, asks: &'a [Ask]) -> Result<Vec<Answer>, IndexError> {
        let state = self.state.published();
        let mut answers: Vec<Option<Answer>> = Vec::with_capacity(asks.len());
        let mut sought = Vec::with_capacity(asks.len());
        for ask in asks {
            match decides(&state, ask) {
                Ok(own) => {
                    sought.push((answers.len(), ask, own));
                    answers.push(None);
                }
                Err(refused) => answers.push(Some(Err(refused.into()))),
            }
        }
        // Enough where each person has one reference that is near; where a crowd of one person's stands before others, more are asked for.
        let mut wanted = sought.iter().map(|(_, _, own)| own.count + own.most + SPARE_NEIGHBOURS).max().unwrap_or(0);
        while !sought.is_empty() {
            wanted = wanted.min(state.index.len());
            let within = |ask: &'a Ask, own: &Decides| Within {
                probe: ask.probe.values(),
                squared_distance: own.reach(),
                most: wanted,
            };
            let asks: Vec<Within<'_>> = sought.iter().map(|(_, ask, own)| within(ask, own)).collect();
            let all = state.index.within(&asks)?;
            let mut lacking = Vec::new();
            for ((place, ask, own), near) in sought.into_iter().zip(all) {
                let answer = self.answer(&state, ask, &own, &near);
                let found = answer.as_ref().map_or(usize::MAX, |found| found.candidates.len());
                let lacks = found < own.most && near.len() >= wanted;
                if lacks && wanted < state.index.len() {
                    lacking.push((place, ask, own));
                } else if let Some(slot) = answers.get_mut(place) {
                    *slot = Some(answer);
                }
            }
            sought = lacking;
            wanted *= 4;
        }
        Ok(answers.into_iter().map(|answer| answer.unwrap_or(Err(SearchError::Stopped))).collect())
    }

    fn answer(&self, state: &Published, ask: &Ask, own: &Decides, near: &[Neighbour]) -> Answer {
        let mut admitted = Vec::new();
        for neighbour in near {
            // Nobody's own references are needed, read or not.
            if state.row(neighbour.id).is_some_and(|row| row.subject == ask.exclude) {
                continue;
            }
            let (row, template) = state.found(neighbour.id, self.model)?;
            let score = compare(&ask.probe, &template)?;
            if own.point.threshold.admits(score) {
                admitted.push(Admitted { subject: row.subject.clone(), reference: row.id, score });
            }
        }
        let candidates = CandidateList::new(admitted, ask.most);
        Ok(Found { candidates, epoch: state.epoch, size: own.size, point: own.point })
    }
}

/// Where a search decides, and how far it has to look.
struct Decides {
    point: CalibrationPoint,
    /// References of others.
    size: usize,
    /// References of the excluded subject.
    count: usize,
    most: usize,
}

fn decides(state: &Published, ask: &Ask) -> Result<Decides, CalibrationError> {
    let count = state.count_of(&ask.exclude);
    let size = state.index.len().saturating_sub(count);
    Ok(Decides { point: ask.rates.at(size as u64)?, size, count, most: ask.most })
}

impl Decides {
    /// The greatest squared distance of whoever reaches the threshold.
    fn reach(&self) -> f32 {
        2.0 * (1.0 - self.point.threshold.value())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::{Calibration, ClientId, Fnir, Fpir, Lane, ModelDigest, Tail};

    fn ask(client: &str, subject: &str) -> (Ask, oneshot::Receiver<Answer>) {
        let turn =
            Turn::of(&ClientId::new(client).unwrap(), Lane::Identification, Instant::now() + Duration::from_secs(9));
        let (answer, found) = oneshot::channel();
        let probe = Template::new(ModelDigest::new([1; 32]), vec![1.0, 0.0]).unwrap();
        let exclude = SubjectId::new(subject).unwrap();
        let calibration = Arc::new(Calibration::unmeasured());
        let rates = SearchRates { calibration, max_fpir: Fpir::ONE, max_fnir: Fnir::ONE, tail: Tail::Measured };
        (Ask { probe, exclude, most: 1, rates, turn, queued_at: Instant::now(), answer }, found)
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
