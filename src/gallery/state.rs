//! What a gallery keeps in memory to answer from: the index, and whose its rows are.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::SystemTime,
};

use crate::{
    domain::{ModelDigest, Reference, ReferenceId, SubjectId, Template},
    index::{FaissIndex, Index, IndexError},
};

/// Rows by `seq`, the store's number, in three views that agree.
pub(super) struct State {
    index: Box<dyn Index>,
    rows: BTreeMap<i64, Row>,
    subjects: HashMap<SubjectId, Vec<i64>>,
    pub epoch: u64,
}

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
        Self { index: Box::new(FaissIndex::new(dimension)), rows: BTreeMap::new(), subjects: HashMap::new(), epoch }
    }

    /// Follows the store. After an error the two no longer agree.
    pub(super) fn apply(&mut self, changes: Vec<Change>, epoch: u64) -> Result<(), IndexError> {
        let mut enrolled = Vec::with_capacity(changes.len());
        for change in changes {
            match change {
                Change::Enrolled { seq, row, template } => enrolled.push((seq, row, template)),
                Change::Erased(doomed) => {
                    self.insert(std::mem::take(&mut enrolled))?;
                    self.remove(&doomed)?;
                }
            }
        }
        self.insert(enrolled)?;
        self.epoch = epoch;
        Ok(())
    }

    fn insert(&mut self, enrolled: Vec<(i64, Row, Template)>) -> Result<(), IndexError> {
        let rows: Vec<_> = enrolled.iter().map(|(seq, _, template)| (*seq, template.values())).collect();
        self.index.insert(&rows)?;
        for (seq, row, _) in enrolled {
            self.subjects.entry(row.subject.clone()).or_default().push(seq);
            self.rows.insert(seq, row);
        }
        Ok(())
    }

    fn remove(&mut self, doomed: &[i64]) -> Result<(), IndexError> {
        self.index.remove(doomed)?;
        for seq in doomed {
            let Some(row) = self.rows.remove(seq) else { continue };
            if let Some(own) = self.subjects.get_mut(&row.subject) {
                own.retain(|other| other != seq);
                if own.is_empty() {
                    self.subjects.remove(&row.subject);
                }
            }
        }
        Ok(())
    }

    pub(super) fn row(&self, seq: i64) -> Option<&Row> {
        self.rows.get(&seq)
    }

    pub(super) fn template(&self, seq: i64, model: ModelDigest) -> Option<Template> {
        // Only values that were a template before are in the index.
        Template::new(model, self.index.vector(seq)?.to_vec()).ok()
    }

    /// The subject's references in the order of enrolment.
    pub(super) fn references_of(&self, subject: &SubjectId, model: ModelDigest) -> Vec<Reference> {
        let reference = |&seq: &i64| {
            let row = self.row(seq)?;
            let template = self.template(seq, model)?;
            Some(Reference { id: row.id, subject: row.subject.clone(), template, enrolled_at: row.enrolled_at })
        };
        self.subjects.get(subject).into_iter().flatten().filter_map(reference).collect()
    }

    pub(super) fn holds(&self, subject: &SubjectId, id: ReferenceId) -> bool {
        let of_id = |seq| self.row(seq).is_some_and(|row| row.id == id);
        self.subjects.get(subject).is_some_and(|own| own.iter().any(|seq| of_id(*seq)))
    }

    pub(super) fn count_of_subject(&self, subject: &SubjectId) -> usize {
        self.subjects.get(subject).map_or(0, Vec::len)
    }

    pub(super) fn references(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn subjects(&self) -> usize {
        self.subjects.len()
    }

    /// Rows of the index: as many as [`Self::references`].
    pub(super) fn indexed(&self) -> usize {
        self.index.len()
    }

    pub(super) fn snapshot(&self) -> Arc<dyn Index> {
        self.index.snapshot()
    }
}
