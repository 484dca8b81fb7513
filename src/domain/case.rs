//! A possible duplicate identity, from the search that found it to the verdict of a person.

use std::time::SystemTime;

use super::{CandidateList, CaseId, ClientId, GalleryName, ModelDigest, Purpose, ReviewerId, SubjectId, TransactionId};

/// A possible duplicate identity, kept for the person who reviews it.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    pub id: CaseId,
    pub gallery: GalleryName,
    /// Whose verification led here; `None` once that subject has no reference any more.
    pub claimed: Option<SubjectId>,
    /// Wall time, for people; nothing is decided by it.
    pub opened_at: SystemTime,
    pub opened_by: TransactionId,
    pub opened_for: Purpose,
    pub model: ModelDigest,
    pub candidates: CandidateList,
    /// Every verdict, in the order in which they came: the last one stands. None while the case is open.
    pub judgements: Vec<Judgement>,
}

/// What a reviewer found.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    pub verdict: Verdict,
    /// The reviewer's client.
    pub client: ClientId,
    pub reviewer: ReviewerId,
    /// Wall time, for people.
    pub at: SystemTime,
}

/// Whether a candidate of the case is the person that was claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// A duplicate identity: the search was right.
    SamePerson,
    /// A false positive of the search.
    OtherPerson,
    /// Nobody can tell.
    Unclear,
}

impl Verdict {
    pub const ALL: [Self; 3] = [Self::SamePerson, Self::OtherPerson, Self::Unclear];

    /// The word for it in the store, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SamePerson => "same_person",
            Self::OtherPerson => "other_person",
            Self::Unclear => "unclear",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.as_str() == word)
    }
}

/// An open case in the list of work: no names.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseSummary {
    pub id: CaseId,
    /// Wall time, for people.
    pub opened_at: SystemTime,
    pub opened_by: TransactionId,
    pub opened_for: Purpose,
    /// People in its candidate list.
    pub candidates: usize,
}
