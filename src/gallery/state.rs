//! What a gallery keeps in memory to answer from: the index, and whose its rows are.
//!
//! Readers take no lock. A search may run on a thread that the system lets run when a core is idle; were it to hold a lock, the writer
//! would wait for it, and verifications for the writer. The writer, alone, changes things in an order in which every reader
//! sees a gallery as it was before a change, or after it:
//!
//! 1. What is erased loses its name and its subject's claim at once. From here on nobody finds it.
//! 2. The index changes in a copy, however long that takes.
//! 3. What is enrolled gets its name and its subject's claim, and the index is published whole.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwap;

use crate::{
    domain::{ModelDigest, Reference, ReferenceId, SubjectId, Template},
    index::{FaissIndex, Index, IndexError},
};

/// Rows by `seq`, the store's number.
pub(super) struct State {
    published: ArcSwap<Published>,
    /// Of which no template is known here: it stands in the index.
    rows: papaya::HashMap<i64, Arc<Row>>,
    subjects: papaya::HashMap<SubjectId, Own>,
    /// The writer's.
    index: Mutex<Box<dyn Index>>,
}

/// The references of one subject, in the order of enrolment.
type Own = Arc<[(i64, Arc<Row>)]>;

/// One state of the index, and what it counts.
pub(super) struct Published {
    pub index: Arc<dyn Index>,
    pub epoch: u64,
    pub subjects: usize,
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
        let published = Published { index: index.snapshot(), epoch, subjects: 0 };
        Self {
            published: ArcSwap::from_pointee(published),
            rows: papaya::HashMap::new(),
            subjects: papaya::HashMap::new(),
            index: Mutex::new(Box::new(index)),
        }
    }

    /// Follows the store; the writer's alone. After an error the two no longer agree.
    pub(super) fn apply(&self, changes: Vec<Change>, epoch: u64) -> Result<(), IndexError> {
        let doomed: HashSet<i64> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Erased(doomed) => Some(doomed.iter().copied()),
                Change::Enrolled { .. } => None,
            })
            .flatten()
            .collect();
        doomed.iter().for_each(|seq| self.forget(*seq));
        let enrolled = self.change_index(changes)?;
        let snapshot = self.index.lock().unwrap_or_else(PoisonError::into_inner).snapshot();
        // Named before it can be found: what an epoch counts, its searches can name.
        enrolled.into_iter().filter(|(seq, _)| !doomed.contains(seq)).for_each(|(seq, row)| self.name(seq, row));
        self.published.store(Arc::new(Published { index: snapshot, epoch, subjects: self.subjects.len() }));
        Ok(())
    }

    /// In the order in which the store was changed; returns who came.
    fn change_index(&self, changes: Vec<Change>) -> Result<Vec<(i64, Row)>, IndexError> {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut named, mut fresh) = (Vec::new(), Vec::new());
        let insert = |index: &mut Box<dyn Index>, fresh: &mut Vec<(i64, Template)>| {
            let rows: Vec<_> = fresh.iter().map(|(seq, template)| (*seq, template.values())).collect();
            let inserted = index.insert(&rows);
            fresh.clear();
            inserted
        };
        for change in changes {
            match change {
                Change::Enrolled { seq, row, template } => {
                    named.push((seq, row));
                    fresh.push((seq, template));
                }
                Change::Erased(doomed) => {
                    insert(&mut index, &mut fresh)?;
                    index.remove(&doomed)?;
                }
            }
        }
        insert(&mut index, &mut fresh)?;
        Ok(named)
    }

    fn name(&self, seq: i64, row: Row) {
        let (row, rows, subjects) = (Arc::new(row), self.rows.pin(), self.subjects.pin());
        rows.insert(seq, Arc::clone(&row));
        let before = subjects.get(&row.subject).map_or(&[][..], |own| own);
        let own: Own = before.iter().cloned().chain([(seq, Arc::clone(&row))]).collect();
        subjects.insert(row.subject.clone(), own);
    }

    fn forget(&self, seq: i64) {
        let (rows, subjects) = (self.rows.pin(), self.subjects.pin());
        let Some(row) = rows.remove(&seq) else { return }; // enrolled and erased in one commit
        let left: Own = match subjects.get(&row.subject) {
            Some(own) => own.iter().filter(|(other, _)| *other != seq).cloned().collect(),
            None => return,
        };
        if left.is_empty() {
            subjects.remove(&row.subject);
        } else {
            subjects.insert(row.subject.clone(), left);
        }
    }

    /// The state to search in; what it finds is to be named by [`Self::row`].
    pub(super) fn published(&self) -> Arc<Published> {
        self.published.load_full()
    }

    /// `None` for what was erased since.
    pub(super) fn row(&self, seq: i64) -> Option<Arc<Row>> {
        self.rows.pin().get(&seq).map(Arc::clone)
    }

    /// The subject's references in the order of enrolment.
    pub(super) fn references_of(&self, subject: &SubjectId, model: ModelDigest) -> Vec<Reference> {
        loop {
            let (published, own) = (self.published(), self.own(subject));
            let reference = |(seq, row): &(i64, Arc<Row>)| {
                let template = published.template(*seq, model)?;
                Some(Reference { id: row.id, subject: row.subject.clone(), template, enrolled_at: row.enrolled_at })
            };
            let found: Vec<_> = own.iter().filter_map(reference).collect();
            // A claim of later than this state of the index: read again, once for each commit in between.
            if found.len() == own.len() || self.published().epoch == published.epoch {
                return found;
            }
        }
    }

    /// References of a subject that this state of the index holds.
    pub(super) fn count_in(&self, published: &Published, subject: &SubjectId) -> usize {
        self.own(subject).iter().filter(|(seq, _)| published.index.vector(*seq).is_some()).count()
    }

    pub(super) fn holds(&self, subject: &SubjectId, id: ReferenceId) -> bool {
        self.own(subject).iter().any(|(_, row)| row.id == id)
    }

    pub(super) fn count_of_subject(&self, subject: &SubjectId) -> usize {
        self.own(subject).len()
    }

    fn own(&self, subject: &SubjectId) -> Own {
        self.subjects.pin().get(subject).map_or_else(|| Own::from([]), Arc::clone)
    }

    /// Rows that have a name: as many as the index has.
    pub(super) fn references(&self) -> usize {
        self.rows.len()
    }
}

impl Published {
    pub(super) fn template(&self, seq: i64, model: ModelDigest) -> Option<Template> {
        // Only values that were a template before are in the index.
        Template::new(model, self.index.vector(seq)?.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;

    fn enrolled(seq: i64, subject: &str) -> Change {
        let row = Row {
            id: ReferenceId::random(),
            subject: SubjectId::new(subject).unwrap(),
            enrolled_at: SystemTime::UNIX_EPOCH,
        };
        let template = Template::new(ModelDigest::new([1; 32]), vec![seq as f32; 4]).unwrap();
        Change::Enrolled { seq, row, template }
    }

    #[test]
    fn who_searches_keeps_neither_the_writer_nor_a_verification_waiting() {
        let (state, who) = (State::new(4, 0), SubjectId::new("a").unwrap());
        state.apply(vec![enrolled(1, "a"), enrolled(2, "b")], 2).unwrap();
        thread::scope(|scope| {
            let (done, ended) = mpsc::sync_channel(1);
            // Stops in the middle of a search, with everything in hand that one holds: the index, and names.
            let (published, rows) = (state.published(), state.rows.pin());
            assert!(rows.get(&1).is_some());
            let state = &state;
            scope.spawn(move || {
                let claims = || state.references_of(&who, ModelDigest::new([1; 32])).len();
                state.apply(vec![enrolled(3, "a"), Change::Erased(vec![1])], 4).unwrap();
                let two = claims();
                state.apply((4..3000).map(|seq| enrolled(seq, "c")).collect(), 5).unwrap();
                done.send((two, claims(), state.published().epoch)).unwrap();
            });
            assert_eq!(ended.recv_timeout(Duration::from_secs(20)), Ok((1, 1, 5)));
            assert!(state.row(1).is_none() && published.index.vector(1).is_some(), "found, but nameless");
        });
    }

    #[test]
    fn what_is_enrolled_and_erased_in_one_commit_is_nowhere() {
        let state = State::new(4, 0);
        state.apply(vec![enrolled(1, "a"), Change::Erased(vec![1]), enrolled(2, "a")], 3).unwrap();
        let published = state.published();
        assert_eq!((state.references(), published.index.len(), published.subjects, published.epoch), (1, 1, 1, 3));
        assert!(state.row(1).is_none());
    }
}
