//! What a client may do.

use std::collections::BTreeSet;

use crate::domain::{GalleryName, Purpose};

/// Separate rights; none implies another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Right {
    /// Verify and Assess.
    Verify,
    /// Identify.
    Identify,
    /// ListCases, GetCase and RecordVerdict. Never beside Enrol or Identify: who could enrol a stranger's photo and read the case would have a
    /// name for a face.
    Review,
    /// Enrol and EnrolStream.
    Enrol,
    /// Erase.
    Erase,
    /// See raw scores.
    Scores,
    /// DescribeGallery, and the operator's calls.
    Admin,
}

impl Right {
    pub const ALL: [Self; 7] =
        [Self::Verify, Self::Identify, Self::Review, Self::Enrol, Self::Erase, Self::Scores, Self::Admin];

    /// The word for it in configuration and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Identify => "identify",
            Self::Review => "review",
            Self::Enrol => "enrol",
            Self::Erase => "erase",
            Self::Scores => "scores",
            Self::Admin => "admin",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == word)
    }

    /// Whether the right may be used for the purpose at all, whatever a client's policy says.
    pub const fn serves(self, purpose: Purpose) -> bool {
        match purpose {
            Purpose::SimActivation | Purpose::SimReplacement | Purpose::NumberPorting => {
                matches!(self, Self::Verify | Self::Identify | Self::Enrol)
            }
            Purpose::CaseReview => matches!(self, Self::Review),
            Purpose::DataSubjectRequest => matches!(self, Self::Erase),
            Purpose::Operations => matches!(self, Self::Enrol | Self::Erase | Self::Admin),
        }
    }
}

impl ClientPolicy {
    /// The rights that no client may hold together: the first is there beside the second.
    pub fn conflict(&self) -> Option<(Right, Right)> {
        let review = self.rights.contains(&Right::Review);
        let beside = [Right::Identify, Right::Enrol].into_iter().find(|right| self.rights.contains(right));
        beside.filter(|_| review).map(|right| (Right::Review, right))
    }
}

/// What one client may do, for which purposes, in which galleries. Empty sets allow nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientPolicy {
    pub rights: BTreeSet<Right>,
    pub purposes: BTreeSet<Purpose>,
    pub galleries: BTreeSet<GalleryName>,
}
