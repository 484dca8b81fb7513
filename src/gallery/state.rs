//! What a gallery keeps in memory to answer from: one state of it, published whole, never changed.
//!
//! Readers take no lock. A search may run on a thread that the system lets run when a core is idle; were it to hold a lock, the writer
//! would wait for it, and verifications for the writer. Index and maps are persistent: the writer, alone, makes the next state from
//! parts of the last one and publishes it with one pointer. So whoever holds a state sees a gallery as it was after one commit, and
//! nothing of another.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use imbl::{HashMap, OrdMap};
use vultus_index::{FaissIndex, Index, IndexError, Snapshot, Vectors};

use crate::domain::{ModelDigest, Reference, ReferenceId, SubjectId, Template};

pub(super) struct State {
    published: ArcSwap<Published>,
    /// Of whoever follows the store. It finds, and it keeps the templates: both are the same memory.
    index: Mutex<FaissIndex>,
}

/// One state. Rows go by `seq`, the store's number.
pub(super) struct Published {
    /// What is searched.
    pub index: Arc<dyn Snapshot>,
    /// Where templates are kept.
    templates: Arc<dyn Vectors>,
    rows: OrdMap<i64, Arc<Row>>,
    /// The rows of each subject, in the order of enrolment.
    subjects: HashMap<SubjectId, Arc<[i64]>>,
    pub epoch: u64,
}

#[derive(Debug)]
pub(super) struct Row {
    pub id: ReferenceId,
    pub subject: SubjectId,
    pub enrolled_at: SystemTime,
}

/// What a commit made true in the store.
pub(super) enum Change {
    Enrolled { seq: i64, row: Row, template: Template },
    Erased(Vec<i64>),
}

impl State {
    pub(super) fn new(dimension: usize, epoch: u64) -> Self {
        let index = FaissIndex::new(dimension);
        let empty = Published::new(&index, OrdMap::new(), HashMap::new(), epoch);
        Self { published: ArcSwap::from_pointee(empty), index: Mutex::new(index) }
    }

    /// Follows the store, in the order in which that was changed; the follower's alone. After an error the two no longer agree.
    pub(super) fn apply(&self, changes: Vec<Change>, epoch: u64) -> Result<(), IndexError> {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let last = self.published();
        let (mut rows, mut subjects, mut fresh) = (last.rows.clone(), last.subjects.clone(), Vec::new());
        for change in changes {
            match change {
                Change::Enrolled { seq, row, template } => {
                    let before = subjects.get(&row.subject).map_or(&[][..], |own| own);
                    let own = before.iter().copied().chain([seq]).collect();
                    subjects.insert(row.subject.clone(), own);
                    rows.insert(seq, Arc::new(row));
                    fresh.push((seq, template));
                }
                Change::Erased(doomed) => {
                    insert(&mut *index, &mut fresh)?;
                    index.remove(&doomed)?;
                    for seq in doomed {
                        let Some(row) = rows.remove(&seq) else { continue };
                        let Some(own) = subjects.get(&row.subject) else { continue };
                        let left: Arc<[i64]> = own.iter().copied().filter(|other| *other != seq).collect();
                        if left.is_empty() {
                            subjects.remove(&row.subject);
                        } else {
                            subjects.insert(row.subject.clone(), left);
                        }
                    }
                }
            }
        }
        insert(&mut *index, &mut fresh)?;
        self.published.store(Arc::new(Published::new(&index, rows, subjects, epoch)));
        Ok(())
    }

    pub(super) fn published(&self) -> Arc<Published> {
        self.published.load_full()
    }
}

/// Empties `fresh` into the index.
fn insert(index: &mut dyn Index, fresh: &mut Vec<(i64, Template)>) -> Result<(), IndexError> {
    let rows: Vec<_> = fresh.iter().map(|(seq, template)| (*seq, template.values())).collect();
    index.insert(&rows)?;
    fresh.clear();
    Ok(())
}

impl Published {
    fn new(
        index: &FaissIndex,
        rows: OrdMap<i64, Arc<Row>>,
        subjects: HashMap<SubjectId, Arc<[i64]>>,
        epoch: u64,
    ) -> Self {
        let now = Arc::new(index.clone());
        Self { index: Arc::clone(&now) as Arc<dyn Snapshot>, templates: now, rows, subjects, epoch }
    }

    pub(super) fn row(&self, seq: i64) -> Option<&Arc<Row>> {
        self.rows.get(&seq)
    }

    pub(super) fn template(&self, seq: i64, model: ModelDigest) -> Option<Template> {
        // Only values that were a template before are kept.
        Template::new(model, self.templates.vector(seq)?.to_vec()).ok()
    }

    /// The subject's references in the order of enrolment.
    pub(super) fn references_of(&self, subject: &SubjectId, model: ModelDigest) -> Vec<Reference> {
        let reference = |seq: &i64| {
            let (row, template) = (self.row(*seq)?, self.template(*seq, model)?);
            Some(Reference { id: row.id, subject: row.subject.clone(), template, enrolled_at: row.enrolled_at })
        };
        self.own(subject).iter().filter_map(reference).collect()
    }

    pub(super) fn holds(&self, subject: &SubjectId, id: ReferenceId) -> bool {
        self.own(subject).iter().any(|seq| self.row(*seq).is_some_and(|row| row.id == id))
    }

    /// References of the subject.
    pub(super) fn count_of(&self, subject: &SubjectId) -> usize {
        self.own(subject).len()
    }

    fn own(&self, subject: &SubjectId) -> &[i64] {
        self.subjects.get(subject).map_or(&[], |own| own)
    }

    pub(super) fn subjects(&self) -> usize {
        self.subjects.len()
    }

    /// Rows that have a name: as many as the index has.
    pub(super) fn references(&self) -> usize {
        self.rows.len()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
            mpsc,
        },
        thread,
        time::Duration,
    };

    use super::*;

    const MODEL: ModelDigest = ModelDigest::new([1; 32]);

    fn who(subject: &str) -> SubjectId {
        SubjectId::new(subject).unwrap()
    }

    fn enrolled(seq: i64, subject: &str) -> Change {
        let row = Row {
            id: ReferenceId::from_bytes([seq as u8; 16]),
            subject: who(subject),
            enrolled_at: SystemTime::UNIX_EPOCH,
        };
        let template = Template::new(MODEL, vec![seq as f32; 4]).unwrap();
        Change::Enrolled { seq, row, template }
    }

    #[test]
    fn who_searches_keeps_neither_the_writer_nor_a_verification_waiting() {
        let state = State::new(4, 0);
        state.apply(vec![enrolled(1, "a"), enrolled(2, "b")], 2).unwrap();
        thread::scope(|scope| {
            let (done, ended) = mpsc::sync_channel(1);
            // Stops in the middle of a search, with everything in hand that one holds.
            let published = state.published();
            let row = published.row(1).unwrap();
            let state = &state;
            scope.spawn(move || {
                let claims = || state.published().references_of(&who("a"), MODEL).len();
                state.apply(vec![enrolled(3, "a"), Change::Erased(vec![1])], 4).unwrap();
                let one = claims();
                state.apply((4..3000).map(|seq| enrolled(seq, "c")).collect(), 5).unwrap();
                done.send((one, claims(), state.published().epoch)).unwrap();
            });
            assert_eq!(ended.recv_timeout(Duration::from_secs(20)), Ok((1, 1, 5)));
            assert_eq!((row.subject.as_str(), published.index.len(), published.epoch), ("a", 2, 2));
        });
    }

    #[test]
    fn a_writer_in_the_middle_of_a_change_keeps_no_reader_waiting() {
        let state = State::new(4, 0);
        state.apply(vec![enrolled(1, "a"), enrolled(2, "b")], 2).unwrap();
        // As while it copies a segment of the index, however long that takes.
        let changing = state.index.lock().unwrap();
        thread::scope(|scope| {
            let (done, ended) = mpsc::sync_channel(1);
            let state = &state;
            scope.spawn(move || {
                let published = state.published();
                let found = published.index.nearest(&[&[2.0; 4]], 1).unwrap()[0][0].id;
                let name = published.row(found).unwrap().subject.to_string();
                done.send((published.references_of(&who("a"), MODEL).len(), name)).unwrap();
            });
            let answered = ended.recv_timeout(Duration::from_secs(20));
            drop(changing); // or a reader that waits would keep this test from ending
            assert_eq!(answered, Ok((1, "b".to_owned())));
        });
    }

    #[test]
    fn a_state_is_one_commit_and_nothing_of_another() {
        let state = State::new(4, 0);
        state.apply(vec![enrolled(1, "a"), enrolled(2, "a")], 2).unwrap();
        let (ended, seen) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Relaxed) {
                    let published = state.published();
                    let own = published.references_of(&who("a"), MODEL);
                    // Each commit replaces both references of the one subject, and adds one to the epoch.
                    let first = published.epoch as i64 * 2 - 3;
                    let held = own.iter().map(|r| r.template.values()[0]).collect::<Vec<_>>();
                    assert_eq!(held, [first as f32, (first + 1) as f32]);
                    assert_eq!((published.count_of(&who("a")), published.index.len()), (2, 2));
                    assert_eq!(published.references(), 2);
                    seen.fetch_add(1, Relaxed);
                }
            });
            // As long as it takes for the reader to have seen many.
            for epoch in (3_i64..).take_while(|epoch| *epoch < 500 || seen.load(Relaxed) < 500) {
                let next = epoch * 2 - 3;
                let changes =
                    vec![enrolled(next, "a"), enrolled(next + 1, "a"), Change::Erased(vec![next - 2, next - 1])];
                state.apply(changes, epoch as u64).unwrap();
            }
            ended.store(true, Relaxed);
        });
    }

    #[test]
    fn what_is_enrolled_and_erased_in_one_commit_is_nowhere() {
        let state = State::new(4, 0);
        state.apply(vec![enrolled(1, "a"), Change::Erased(vec![1]), enrolled(2, "a")], 3).unwrap();
        let published = state.published();
        assert_eq!((published.references(), published.index.len(), published.subjects()), (1, 1, 1));
        assert!(published.row(1).is_none() && published.row(2).is_some());
    }
}
