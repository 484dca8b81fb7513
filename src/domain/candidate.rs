//! Identification's answer: people, ranked.

use std::collections::HashMap;

use super::{ReferenceId, Score, SubjectId};

/// A reference that reached the threshold.
#[derive(Debug, Clone, PartialEq)]
pub struct Admitted {
    pub subject: SubjectId,
    pub reference: ReferenceId,
    pub score: Score,
}

/// One person of a candidate list.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// From 1.
    pub rank: u32,
    pub subject: SubjectId,
    /// The subject's best reference, which decides the rank.
    pub reference: ReferenceId,
    pub score: Score,
    /// The subject's other references that reached the threshold, best first: one of them stands in where the best is erased.
    pub others: Vec<(ReferenceId, Score)>,
}

/// People by descending score of their best references, ties by reference id; ranks follow the order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CandidateList(Vec<Candidate>);

impl CandidateList {
    /// Orders, joins the references of each subject, keeps the best `most` subjects, and ranks from 1.
    pub fn new(found: impl IntoIterator<Item = Admitted>, most: usize) -> Self {
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_by(|a, b| b.score.total_cmp(a.score).then_with(|| a.reference.cmp(&b.reference)));
        let mut places = HashMap::new();
        let mut people: Vec<Candidate> = Vec::new();
        for (Admitted { subject, reference, score }, rank) in found.into_iter().zip(1..) {
            let place = *places.entry(subject.clone()).or_insert(people.len());
            match people.get_mut(place) {
                Some(person) => person.others.push((reference, score)),
                None => people.push(Candidate { rank, subject, reference, score, others: Vec::new() }),
            }
        }
        people.truncate(most);
        for (rank, candidate) in (1..).zip(&mut people) {
            candidate.rank = rank;
        }
        Self(people)
    }

    pub fn as_slice(&self) -> &[Candidate] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// People.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl Candidate {
    /// All that reached the threshold, best first.
    pub fn references(&self) -> impl Iterator<Item = (ReferenceId, Score)> {
        [(self.reference, self.score)].into_iter().chain(self.others.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(subject: &str, reference: u8, score: f32) -> Admitted {
        Admitted {
            subject: SubjectId::new(subject).unwrap(),
            reference: ReferenceId::from_bytes([reference; 16]),
            score: Score::new(score).unwrap(),
        }
    }

    fn order(list: &CandidateList) -> Vec<(u32, &str, u8)> {
        list.as_slice().iter().map(|c| (c.rank, c.subject.as_str(), c.reference.as_bytes()[0])).collect()
    }

    #[test]
    fn ranks_follow_scores_and_ties_follow_ids() {
        let found = [admitted("b", 2, 0.5), admitted("a", 1, 0.5), admitted("c", 3, 0.9)];
        assert_eq!(order(&CandidateList::new(found.clone(), 10)), [(1, "c", 3), (2, "a", 1), (3, "b", 2)]);
        assert_eq!(CandidateList::new(found, 1).len(), 1);
    }

    #[test]
    fn a_person_of_many_references_takes_one_place() {
        let crowd = (1..=12).map(|n| admitted("crowd", n, 0.9));
        let list = CandidateList::new(crowd.chain([admitted("second", 20, 0.8)]), 10);
        assert_eq!(order(&list), [(1, "crowd", 1), (2, "second", 20)]);
        assert_eq!(list.as_slice()[0].references().count(), 12);
        let again = list.as_slice().iter().flat_map(|person| {
            person.references().map(|(reference, score)| Admitted { subject: person.subject.clone(), reference, score })
        });
        assert_eq!(CandidateList::new(again, 10), list);
    }
}
