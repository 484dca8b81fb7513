//! Identification's answer.

use std::time::SystemTime;

use super::{CaseId, GalleryName, ModelDigest, Purpose, ReferenceId, Score, SubjectId, TransactionId};

/// One line of a candidate list.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// From 1.
    pub rank: u32,
    pub subject: SubjectId,
    pub reference: ReferenceId,
    pub score: Score,
}

/// Candidates by descending score, ties by reference id; ranks follow the order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CandidateList(Vec<Candidate>);

impl CandidateList {
    /// Orders, keeps the best `most`, and ranks from 1.
    pub fn new(found: impl IntoIterator<Item = (SubjectId, ReferenceId, Score)>, most: usize) -> Self {
        let mut list: Vec<_> = found
            .into_iter()
            .map(|(subject, reference, score)| Candidate { rank: 0, subject, reference, score })
            .collect();
        list.sort_by(|a, b| b.score.total_cmp(a.score).then_with(|| a.reference.cmp(&b.reference)));
        list.truncate(most);
        for (rank, candidate) in (1..).zip(&mut list) {
            candidate.rank = rank;
        }
        Self(list)
    }

    pub fn as_slice(&self) -> &[Candidate] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// A possible duplicate identity, kept for the person who reviews it.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    pub id: CaseId,
    pub gallery: GalleryName,
    /// Whose verification led here; `None` once that subject has no reference any more.
    pub claimed: Option<SubjectId>,
    pub opened_at: SystemTime,
    pub opened_by: TransactionId,
    pub opened_for: Purpose,
    pub model: ModelDigest,
    pub candidates: CandidateList,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_follow_scores_and_ties_follow_ids() {
        let subject = SubjectId::new("s").unwrap();
        let (a, b) = (ReferenceId::from_bytes([1; 16]), ReferenceId::from_bytes([2; 16]));
        let c = ReferenceId::from_bytes([3; 16]);
        let score = |v| Score::new(v).unwrap();
        let found = [(subject.clone(), b, score(0.5)), (subject.clone(), a, score(0.5)), (subject, c, score(0.9))];
        let list = CandidateList::new(found.clone(), 10);
        let order: Vec<_> = list.as_slice().iter().map(|c| (c.rank, c.reference)).collect();
        assert_eq!(order, [(1, c), (2, a), (3, b)]);
        assert_eq!(CandidateList::new(found, 1).len(), 1);
    }
}
