//! The words of the field (ISO/IEC 2382-37), as types that cannot hold nonsense. Imports nothing of ours.
//!
//! | word | meaning |
//! | --- | --- |
//! | [`Template`] | extracted features of one face, stamped with the digest of the model that made it |
//! | probe, [`Reference`] | the sample that is compared, and the stored record it is compared with |
//! | [`Score`] | how alike: `1 - d²/2` for Euclidean distance d; higher is more alike; always finite |
//! | [`Threshold`] | `admits` a score or not: the only `>=` between the two |
//! | [`Decision`] | match, non-match, or undetermined |
//! | [`Candidate`] | one line of identification's answer, ranked from 1 |
//! | [`SubjectId`] | one person of the gallery, opaque; may have several references |
//! | mated, non-mated | truly of the same person, or not: known in evaluations only |
//! | FMR, FNMR | false match and false non-match rate of 1:1 comparisons |
//! | FPIR, FNIR | false positive and false negative identification rate of 1:N searches |

mod alignment;
mod calibration;
mod candidate;
mod case;
mod claim;
mod context;
mod decision;
mod face;
mod ids;
mod in_turn;
mod quality;
mod template;
mod turn;

pub use alignment::Alignment;
pub use calibration::{Calibration, CalibrationError, CalibrationPoint, Fmr, Fnir, Fpir, RateError, SearchRates, Tail};
pub use candidate::{Admitted, Candidate, CandidateList};
pub use case::{Case, CaseSummary, Judgement, Verdict};
pub use claim::compare_claim;
pub use context::{Purpose, RequestContext};
pub use decision::{Decision, Reason};
pub use face::{FiveLandmarks, Landmarks68, UprightFace};
pub use ids::{
    CaseId, ClientId, ConsentReference, GalleryName, IdError, ReferenceId, ReviewerId, Site, SubjectId, TransactionId,
};
pub use in_turn::{InTurn, Waits};
pub use quality::{Assessment, Measure, MeasureName, QualityThresholds};
pub use template::{
    ExtractionVersion, ModelDigest, ModelMismatch, Reference, Score, Template, TemplateError, Threshold, compare,
};
pub use turn::{Lane, Turn};
