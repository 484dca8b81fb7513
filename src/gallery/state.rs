//! What a gallery keeps in memory to answer from: one state of it, published whole, never changed.
//!
//! Readers take no lock. A search may run on a thread that the system lets run when a core is idle; were it to hold a
//! lock, the writer would wait for it, and verifications for the writer. The maps are persistent: the writer, alone,
//! makes the next state from parts of the last one and publishes it with one pointer, beside a snapshot of the index,
//! which brings the vectors that go with it. So whoever holds a state sees a gallery as it was after one commit, and
//! nothing of another.
//!
//! Which index it is, and where that keeps vectors, is its own affair. What cannot be read is an error, never a row
//! that is not there.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use imbl::{HashMap, OrdMap};
use vultus_index::{Index, IndexError, Snapshot};

use crate::domain::{ExtractionVersion, ModelDigest, Reference, ReferenceId, SubjectId, Template};

pub(super) struct State {
    published: ArcSwap<Published>,
    /// Of whoever follows the store.
    index: Mutex<Box<dyn Index>>,
}

/// One state. Rows go by `seq`, the store's number.
pub(super) struct Published {
    /// What is searched, and where its templates are kept.
    pub index: Arc<dyn Snapshot>,
    rows: OrdMap<i64, Arc<Row>>,
    /// The rows of each subject, in the order of enrolment.
    subjects: HashMap<SubjectId, Arc<[i64]>>,
    /// References by how their faces were found.
    extractions: OrdMap<ExtractionVersion, usize>,
    pub epoch: u64,
}

#[derive(Debug)]
pub(super) struct Row {
    pub id: ReferenceId,
    pub subject: SubjectId,
    pub enrolled_at: SystemTime,
    pub extraction: ExtractionVersion,
}

/// What a commit made true in the store.
pub(super) enum Change {
    Enrolled { seq: i64, row: Row, template: Template },
    Erased(Vec<i64>),
}

impl State {
    /// Of an index with nothing in it.
    pub(super) fn new(index: Box<dyn Index>, epoch: u64) -> Self {
        let (rows, subjects, extractions) = (OrdMap::new(), HashMap::new(), OrdMap::new());
        let empty = Published { index: index.snapshot(), rows, subjects, extractions, epoch };
        Self { published: ArcSwap::from_pointee(empty), index: Mutex::new(index) }
    }

    /// Follows the store, in the order in which that was changed; the follower's alone. After an error the two no longer agree.
    pub(super) fn apply(&self, changes: Vec<Change>, epoch: u64) -> Result<(), IndexError> {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let last = self.published();
        let (mut rows, mut subjects, mut fresh) = (last.rows.clone(), last.subjects.clone(), Vec::new());
        let mut extractions = last.extractions.clone();
        for change in changes {
            match change {
                Change::Enrolled { seq, row, template } => {
                    let before = subjects.get(&row.subject).map_or(&[][..], |own| own);
                    let own = before.iter().copied().chain([seq]).collect();
                    subjects.insert(row.subject.clone(), own);
                    *extractions.entry(row.extraction).or_default() += 1;
                    rows.insert(seq, Arc::new(row));
                    fresh.push((seq, template));
                }
                Change::Erased(doomed) => {
                    insert(&mut **index, &mut fresh)?;
                    index.remove(&doomed)?;
                    for seq in doomed {
                        let Some(row) = rows.remove(&seq) else { continue };
                        if let Some(count) = extractions.get_mut(&row.extraction) {
                            *count -= 1;
                        }
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
        insert(&mut **index, &mut fresh)?;
        self.published.store(Arc::new(Published { index: index.snapshot(), rows, subjects, extractions, epoch }));
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
    pub(super) fn row(&self, seq: i64) -> Option<&Arc<Row>> {
        self.rows.get(&seq)
    }

    /// A row that was found, with its template.
    pub(super) fn found(&self, seq: i64, model: ModelDigest) -> Result<(&Arc<Row>, Template), IndexError> {
        let unreadable = |why: &str| IndexError::Unreadable { id: seq, why: why.into() };
        let row = self.row(seq).ok_or_else(|| unreadable("the gallery has no such row"))?;
        let values = self.index.vectors().vector(seq)?.ok_or_else(|| unreadable("it is not there"))?;
        let template = Template::new(model, values.into_owned()).map_err(|_| unreadable("it is no template"))?;
        Ok((row, template))
    }

    /// The subject's references in the order of enrolment: all of them.
    pub(super) fn references_of(&self, subject: &SubjectId, model: ModelDigest) -> Result<Vec<Reference>, IndexError> {
        let reference = |seq: &i64| {
            let (row, template) = self.found(*seq, model)?;
            Ok(Reference { id: row.id, subject: row.subject.clone(), template, enrolled_at: row.enrolled_at })
        };
        self.own(subject).iter().map(reference).collect()
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

    /// How the faces of references were found, and of how many each.
    pub(super) fn extractions(&self) -> Vec<(ExtractionVersion, usize)> {
        let counts = self.extractions.iter().map(|(version, count)| (*version, *count));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// Rows that have a name: as many as the index has.
    pub(super) fn references(&self) -> usize {
        self.rows.len()
    }
}

#[cfg(test)]
mod tests;
