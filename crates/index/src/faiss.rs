//! Faiss flat L2, in segments.
//!
//! Rows stand in segments of at most [`SEGMENT_BYTES`], ordered by id, each a Faiss flat index behind an `Arc`. A
//! snapshot is the list of them; whoever changes a segment that a snapshot still holds changes a copy. So a search never
//! makes a writer wait, nor the reverse, and a removal copies a segment instead of moving the whole gallery. New rows enter a short last
//! segment, which is cheap to copy; when it is no longer short it joins its neighbour.
//!
//! Threads. Faiss scans with OpenMP over *probes*: one probe is one thread, whatever the size of the gallery. Searches
//! are therefore spread over the segments here, on as many threads as the searches in flight leave free, and Faiss is
//! given one probe at a time, so that it starts no team of its own. Its own id map is not used: it wakes an OpenMP team
//! for every search.

use std::{
    borrow::Cow,
    fmt,
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use zeroize::Zeroizing;

use super::{
    Index, IndexError, Indexes, Neighbour, Snapshot, Vectors, Within, check_dimension, check_rows, keep_best,
    segment::Segment, with_room,
};

/// The most that changing one row copies, bytes.
const SEGMENT_BYTES: usize = 4 << 20;

/// Segments that a short last segment is a part of.
const SHORT: usize = 16;

/// Values that are worth a thread of their own: about 0.2 ms of scanning.
const VALUES_PER_THREAD: usize = 1 << 20;

/// Searches in flight, in the whole process: they share the cores.
static SCANS: AtomicUsize = AtomicUsize::new(0);

/// Serves galleries; exact up to the rounding of f32.
#[derive(Clone)]
pub struct FaissIndex {
    dimension: usize,
    segment_rows: usize,
    len: usize,
    /// By id; none is empty, but for the last after a failure of Faiss.
    segments: Vec<Arc<Segment>>,
}

/// A [`FaissIndex`] for every gallery.
#[derive(Debug, Clone, Copy, Default)]
pub struct FaissIndexes;

impl Indexes for FaissIndexes {
    fn make(&self, dimension: usize) -> Result<Box<dyn Index>, IndexError> {
        Ok(Box::new(FaissIndex::new(dimension)))
    }
}

impl fmt::Debug for FaissIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaissIndex").field("dimension", &self.dimension).field("len", &self.len).finish_non_exhaustive()
    }
}

impl FaissIndex {
    /// Vectors of `dimension` values, 1 to `Template::MAX_DIMENSION`.
    pub fn new(dimension: usize) -> Self {
        Self::with_segment_rows(dimension, (SEGMENT_BYTES / (4 * dimension.max(1))).max(1))
    }

    fn with_segment_rows(dimension: usize, segment_rows: usize) -> Self {
        Self { dimension, segment_rows, len: 0, segments: Vec::new() }
    }

    /// Joins the neighbours from `at` on that fit in one segment, so that erasures and short segments do not leave a gallery of crumbs.
    fn join(&mut self, mut at: usize) -> Result<(), IndexError> {
        while let [left, right, ..] = self.segments.get(at..).unwrap_or_default() {
            if left.ids.len() + right.ids.len() <= self.segment_rows {
                let mut both = left.copy(self.dimension)?;
                both.append(&right.ids, right.values())?;
                self.segments.splice(at..at + 2, [Arc::new(both)]);
            } else {
                at += 1;
            }
        }
        Ok(())
    }

    /// The last segment, with room for a row, and held by nobody else.
    fn tail(&mut self) -> Result<Option<&mut Segment>, IndexError> {
        let short = self.segment_rows.div_ceil(SHORT);
        let in_use = |tail: &mut Arc<Segment>| Arc::get_mut(tail).is_none();
        let is_full = |tail: &mut Arc<Segment>, most: usize| tail.ids.len() >= if in_use(tail) { short } else { most };
        if self.segments.last_mut().is_none_or(|tail| is_full(tail, self.segment_rows)) {
            self.join(self.segments.len().saturating_sub(2))?;
            self.segments.push(Arc::new(Segment::new(self.dimension)?));
        }
        let Some(tail) = self.segments.last_mut() else { return Ok(None) };
        if in_use(tail) {
            *tail = Arc::new(tail.copy(self.dimension)?);
        }
        Ok(Arc::get_mut(tail))
    }

    /// Threads share the segments.
    fn scan(&self, probes: &[&[f32]], k: usize) -> Result<Vec<Vec<Neighbour>>, IndexError> {
        let scan = Scan::begin();
        let worth = self.len * self.dimension * probes.len() / VALUES_PER_THREAD + 1;
        let threads = scan.share_of_cores().min(worth).min(self.segments.len()).max(1);
        let share = |segments: &[Arc<Segment>]| -> Result<Vec<Vec<Neighbour>>, IndexError> {
            let mut found = vec![Vec::new(); probes.len()];
            for segment in segments {
                for (probe, found) in probes.iter().zip(&mut found) {
                    segment.search(probe, k, std::slice::from_mut(found))?;
                }
            }
            Ok(found)
        };
        let mut shares = self.segments.chunks(self.segments.len().div_ceil(threads).max(1));
        let own = shares.next().unwrap_or_default();
        thread::scope(|scope| {
            let others: Vec<_> = shares.map(|segments| scope.spawn(|| share(segments))).collect();
            let found = share(own);
            // All are joined, whatever the first of them says.
            let others: Vec<_> = others.into_iter().map(|other| other.join()).collect();
            let mut found = found?;
            for other in others {
                let more = other.map_err(|_| IndexError::Engine("a search thread died".into()))??;
                for (found, more) in found.iter_mut().zip(more) {
                    found.extend(more);
                    keep_best(found, k);
                }
            }
            found.iter_mut().for_each(|found| keep_best(found, k));
            Ok(found)
        })
    }

    /// Where the row of `id` is: segment and row.
    fn find(&self, id: i64) -> Option<(usize, usize)> {
        let at = self.segments.partition_point(|s| s.ids.last().is_some_and(|&last| last < id));
        let row = self.segments.get(at)?.ids.binary_search(&id).ok()?;
        Some((at, row))
    }
}

impl Index for FaissIndex {
    fn insert(&mut self, mut rows: &[(i64, &[f32])]) -> Result<(), IndexError> {
        let last = self.segments.last().and_then(|s| s.ids.last().copied());
        check_rows(self.dimension, last, rows)?;
        while !rows.is_empty() {
            let segment_rows = self.segment_rows;
            let Some(tail) = self.tail()? else { break };
            let (now, later) = rows.split_at(rows.len().min(segment_rows - tail.ids.len()));
            let (ids, vectors): (Vec<_>, Vec<_>) = now.iter().copied().unzip();
            tail.append(&ids, &Zeroizing::new(vectors.concat()))?;
            self.len += ids.len();
            rows = later;
        }
        Ok(())
    }

    fn remove(&mut self, ids: &[i64]) -> Result<usize, IndexError> {
        let mut doomed: Vec<_> = ids.iter().filter_map(|&id| self.find(id)).collect();
        doomed.sort_unstable();
        doomed.dedup();
        let mut segments = self.segments.clone();
        for group in doomed.chunk_by(|a, b| a.0 == b.0) {
            let Some(slot) = group.first().and_then(|&(at, _)| segments.get_mut(at)) else { continue };
            *slot = Arc::new(slot.without(group, self.dimension)?);
        }
        if !doomed.is_empty() {
            segments.retain(|segment| !segment.ids.is_empty());
            self.segments = segments;
            self.len -= doomed.len();
            self.join(0)?;
        }
        Ok(doomed.len())
    }

    fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::new(self.clone())
    }
}

impl Snapshot for FaissIndex {
    fn len(&self) -> usize {
        self.len
    }

    fn within(&self, asks: &[Within<'_>]) -> Result<Vec<Vec<Neighbour>>, IndexError> {
        let probes: Vec<&[f32]> = asks.iter().map(|ask| ask.probe).collect();
        let mut all = self.nearest(&probes, asks.iter().map(|ask| ask.most).max().unwrap_or(0))?;
        for (found, ask) in all.iter_mut().zip(asks) {
            let reached = found.partition_point(|n| n.squared_distance <= with_room(ask.squared_distance));
            found.truncate(reached.min(ask.most));
        }
        Ok(all)
    }

    fn nearest(&self, probes: &[&[f32]], k: usize) -> Result<Vec<Vec<Neighbour>>, IndexError> {
        probes.iter().try_for_each(|probe| check_dimension(self.dimension, probe))?;
        if k == 0 { Ok(vec![Vec::new(); probes.len()]) } else { self.scan(probes, k) }
    }

    fn vectors(&self) -> &dyn Vectors {
        self
    }
}

impl Vectors for FaissIndex {
    fn vector(&self, id: i64) -> Result<Option<Cow<'_, [f32]>>, IndexError> {
        let Some((at, row)) = self.find(id) else { return Ok(None) };
        let values = self.segments.get(at).map_or(&[][..], |segment| segment.values());
        Ok(values.get(row * self.dimension..(row + 1) * self.dimension).map(Cow::Borrowed))
    }
}

/// A search in flight.
struct Scan(usize);

impl Scan {
    fn begin() -> Self {
        Self(SCANS.fetch_add(1, Relaxed) + 1)
    }

    fn share_of_cores(&self) -> usize {
        thread::available_parallelism().map_or(1, NonZero::get) / self.0
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        SCANS.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{ExactIndex, exact::squared_distance};

    const DIMENSION: usize = 12;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(Vec<Vec<f32>>),
        Remove(Vec<u16>),
        Search { probes: Vec<Vec<f32>>, k: usize },
    }

    fn vectors(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Vec<f32>>> {
        prop::collection::vec(prop::collection::vec(-1.0_f32..1.0, DIMENSION), count)
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => vectors(0..30).prop_map(Step::Insert),
            2 => prop::collection::vec(any::<u16>(), 0..12).prop_map(Step::Remove),
            1 => (vectors(1..40), 0_usize..60).prop_map(|(probes, k)| Step::Search { probes, k }),
        ]
    }

    /// The ids of the best `k`, distances taken anew.
    fn rescored(index: &dyn Vectors, probe: &[f32], found: &[Neighbour], k: usize) -> Vec<i64> {
        // As f32, in which the oracle orders them too: what is one distance there goes by id.
        let mut exact: Vec<_> = found
            .iter()
            .map(|n| (squared_distance(probe, &index.vector(n.id).unwrap().unwrap()) as f32, n.id))
            .collect();
        exact.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        exact.into_iter().map(|(_, id)| id).take(k).collect()
    }

    proptest! {
        #[test]
        fn finds_what_the_oracle_finds(steps in prop::collection::vec(step(), 1..40)) {
            let (mut exact, mut faiss) = (ExactIndex::new(DIMENSION), FaissIndex::with_segment_rows(DIMENSION, 16));
            let mut next = 1;
            for step in steps {
                match step {
                    Step::Insert(vectors) => {
                        let rows: Vec<_> = (next..).zip(vectors.iter().map(Vec::as_slice)).collect();
                        next += 2 * rows.len() as i64;
                        exact.insert(&rows).unwrap();
                        faiss.insert(&rows).unwrap();
                    }
                    Step::Remove(picks) => {
                        let ids: Vec<_> = picks.iter().map(|&pick| i64::from(pick) % next).collect();
                        let before = (faiss.snapshot(), faiss.len());
                        prop_assert_eq!(faiss.remove(&ids), exact.remove(&ids));
                        prop_assert_eq!(before.0.len(), before.1, "a snapshot stays as it was");
                    }
                    Step::Search { probes, k } => {
                        let probes: Vec<_> = probes.iter().map(Vec::as_slice).collect();
                        // Spare places: at the cut the rounding of f32 may order two rows otherwise.
                        let found = faiss.nearest(&probes, k + 4).unwrap();
                        let reach = 2.0;
                        let asks: Vec<_> =
                            probes.iter().map(|probe| Within { probe, squared_distance: reach, most: k }).collect();
                        let within = faiss.within(&asks).unwrap();
                        for ((within, expected), probe) in within.iter().zip(exact.within(&asks).unwrap()).zip(&probes) {
                            // At the distance itself, and at the cut, rounding may choose others.
                            prop_assert!(within.len() <= k && within.is_sorted_by(|a, b| a.order(b).is_le()));
                            let sure = expected.iter().filter(|n| n.squared_distance <= reach - 1e-3).count();
                            prop_assert!(within.len() >= sure.min(k), "{probe:?}");
                            prop_assert!(within.iter().all(|n| n.squared_distance <= reach + 1e-3));
                        }
                        for ((probe, found), expected) in probes.iter().zip(&found).zip(exact.nearest(&probes, k).unwrap()) {
                            let ids: Vec<_> = expected.iter().map(|n| n.id).collect();
                            prop_assert_eq!(rescored(&faiss, probe, found, k), ids);
                        }
                    }
                }
                prop_assert_eq!(faiss.len(), exact.len());
                prop_assert!(faiss.segments.iter().all(|s| !s.ids.is_empty() && s.ids.len() <= 16));
                prop_assert!((0..next).all(|id| faiss.vector(id) == exact.vector(id)));
            }
        }
    }

    #[test]
    fn equal_rows_come_by_id() {
        let mut index = FaissIndex::with_segment_rows(2, 4);
        let rows: Vec<(i64, &[f32])> = (1..=50).map(|id| (id, [1.0, 0.0].as_slice())).collect();
        index.insert(&rows).unwrap();
        for probes in [1, 20] {
            let found = index.nearest(&vec![[1.0, 0.0].as_slice(); probes], 50).unwrap();
            assert!(found.iter().all(|list| list.iter().map(|n| n.id).eq(1..=50)), "{probes} probes");
        }
    }

    #[test]
    fn refuses_what_does_not_fit_and_stays_as_it_was() {
        let mut index = FaissIndex::new(2);
        let wrong = index.insert(&[(1, &[0.0, 0.0]), (2, &[0.0])]);
        assert_eq!(wrong, Err(IndexError::Dimension { expected: 2, found: 1 }));
        index.insert(&[(5, &[0.0, 0.0])]).unwrap();
        assert_eq!(index.insert(&[(5, &[0.0, 0.0])]), Err(IndexError::Order { id: 5, last: 5 }));
        assert_eq!(index.len(), 1);
        assert!(index.nearest(&[&[0.0]], 1).is_err());
        assert_eq!(index.nearest(&[&[0.0, 1.0]], 9).unwrap()[0].len(), 1);
    }

    #[test]
    fn many_threads_search_while_one_changes() {
        let mut index = FaissIndex::with_segment_rows(DIMENSION, 64);
        let row = |id: i64| [id as f32; DIMENSION];
        let insert = |index: &mut FaissIndex, ids: std::ops::Range<i64>| {
            let vectors: Vec<_> = ids.clone().map(row).collect();
            let rows: Vec<_> = ids.zip(vectors.iter().map(|v| v.as_slice())).collect();
            index.insert(&rows).unwrap();
        };
        insert(&mut index, 0..200);
        thread::scope(|scope| {
            for round in 1..20 {
                let snapshot = index.snapshot();
                scope.spawn(move || {
                    for id in 0..200 {
                        assert_eq!(snapshot.nearest(&[&row(id)], 1).unwrap()[0][0].id, id);
                    }
                    assert_eq!(snapshot.len() as i64, 200 + (round - 1) * 9);
                });
                insert(&mut index, 1000 * round..1000 * round + 10);
                assert_eq!(index.remove(&[1000 * round]), Ok(1));
            }
        });
    }
}
