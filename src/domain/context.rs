//! Why a call is made.

use super::{ConsentReference, Site, TransactionId};

/// The closed list of purposes; see `Purpose` in the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    SimActivation,
    SimReplacement,
    NumberPorting,
    CaseReview,
    DataSubjectRequest,
    Operations,
}

impl Purpose {
    pub const ALL: [Self; 6] = [
        Self::SimActivation,
        Self::SimReplacement,
        Self::NumberPorting,
        Self::CaseReview,
        Self::DataSubjectRequest,
        Self::Operations,
    ];

    /// The word for it in configuration, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SimActivation => "sim_activation",
            Self::SimReplacement => "sim_replacement",
            Self::NumberPorting => "number_porting",
            Self::CaseReview => "case_review",
            Self::DataSubjectRequest => "data_subject_request",
            Self::Operations => "operations",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.as_str() == word)
    }
}

/// Stands in every request; checked before any image byte is decoded.
#[derive(Debug, Clone)]
pub struct RequestContext {
    pub purpose: Purpose,
    pub consent_reference: ConsentReference,
    pub transaction_id: TransactionId,
    pub site: Site,
}
