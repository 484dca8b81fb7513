//! What was decided, for whom, why, and on which state of the gallery: one event for each decision, told to a [`Sink`]
//! before the caller learns of it; one that changed something also if the caller never does. An event holds no image,
//! no template and no score.

mod log;

use std::{fmt, pin::Pin};

pub use log::Log;

use crate::domain::{
    CaseId, ClientId, GalleryName, Reason, ReferenceId, RequestContext, ReviewerId, SubjectId, Verdict,
};

/// A decision of one call.
#[derive(Debug, Clone)]
pub struct DecisionEvent {
    /// Who asked for it.
    pub client: ClientId,
    /// For which purpose, with whose consent, in which transaction, and from where.
    pub context: RequestContext,
    /// `None` where no gallery was asked.
    pub gallery: Option<GalleryName>,
    /// The gallery's epoch that was decided on, or that the change made; `None` where no gallery was asked, and for what is done with
    /// cases, which are no part of a gallery's changes; 0 where the gallery is not there.
    pub position: Option<u64>,
    /// Whom the caller named, or whose receipt it was. The log shows nobody.
    pub subject: Option<SubjectId>,
    pub decided: Decided,
}

impl DecisionEvent {
    /// Of no gallery and nobody in particular.
    pub fn new(client: &ClientId, context: &RequestContext, decided: Decided) -> Self {
        let (client, context) = (client.clone(), context.clone());
        Self { client, context, gallery: None, position: None, subject: None, decided }
    }
}

/// What was decided, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decided {
    Verified {
        /// Belongs to exactly one decision.
        reason: Reason,
        /// Whether a receipt was issued.
        receipt: bool,
        /// The front end's word on the signature of the chip that the reference came from.
        chip: Option<&'static str>,
    },
    Identified {
        /// To be reviewed; `None` where there is no duplicate.
        case: Option<CaseId>,
        /// The receipt was spent before.
        repeated: bool,
    },
    Enrolled {
        reference: ReferenceId,
        /// It was there already.
        repeated: bool,
        /// As in [`Self::Verified`].
        chip: Option<&'static str>,
    },
    Erased {
        /// The one that was named, where it was no subject.
        reference: Option<ReferenceId>,
        /// How many there were.
        references: usize,
    },
    CasesListed {
        cases: usize,
        reviewer: ReviewerId,
    },
    CaseShown {
        case: CaseId,
        reviewer: ReviewerId,
    },
    CaseJudged {
        case: CaseId,
        verdict: Verdict,
        reviewer: ReviewerId,
    },
}

/// Why an event was not recorded; its decision is then answered by nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the decision was not recorded: {0}")]
pub struct NotRecorded(pub String);

pub type Recording<'a> = Pin<Box<dyn Future<Output = Result<(), NotRecorded>> + Send + 'a>>;

/// Where decisions are recorded. A seam: today's is the [`Log`].
pub trait Sink: fmt::Debug + Send + Sync {
    /// The answer leaves once this is done, and not where it fails. Where something was changed, it is awaited to its
    /// end, also if the caller has left. The future of a decision that changed nothing is dropped when its caller's
    /// deadline passes: what has begun to become durable then goes on elsewhere.
    fn record(&self, event: DecisionEvent) -> Recording<'_>;
}
