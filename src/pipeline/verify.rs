//! Verification, 1:1.

use std::time::{Duration, Instant, SystemTime};

use super::{
    Bearer, ExtractError, Extraction, FaceInput, Pipeline, ThresholdError, Timings,
    decide::{decide, threshold_1_to_1},
    decode,
    receipt::Now,
};
use crate::{
    domain::{
        Assessment, ClientId, Fmr, ModelMismatch, Purpose, Reason, Reference, Score, SubjectId, Template, Threshold,
        Turn, compare, compare_claim,
    },
    gallery::{Gallery, StoreError},
    seal::SealError,
    telemetry::Metrics,
};

/// What a probe is compared with.
#[derive(Debug)]
pub enum Claim<'a> {
    /// The references of an enrolled subject; without a gallery there are none.
    Subject { gallery: Option<&'a Gallery>, bearer: Claimant<'a> },
    /// A photo that came along.
    Inline(FaceInput),
}

/// Who claims to be whom, and where.
#[derive(Debug, Clone, Copy)]
pub struct Claimant<'a> {
    pub subject: &'a SubjectId,
    pub client: &'a ClientId,
    pub gallery: &'a crate::domain::GalleryName,
    pub purpose: Purpose,
}

/// The answer to a verification.
#[derive(Debug)]
pub struct Verified {
    pub reason: Reason,
    /// Sealed receipt and its end: only for a match with an enrolled subject.
    pub receipt: Option<(Vec<u8>, SystemTime)>,
    /// What was refused, when quality is the reason.
    pub refused: Option<Assessment>,
    /// The score of a match with a claimed subject, over all of its references, and of any comparison with a photo that came along.
    pub score: Option<Score>,
    pub threshold: Threshold,
    /// 0 without a gallery.
    pub epoch: u64,
    pub timings: Timings,
}

/// Why a verification has no answer.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Extract(#[from] ExtractError),
    #[error(transparent)]
    Threshold(#[from] ThresholdError),
    #[error(transparent)]
    Mismatch(#[from] ModelMismatch),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl Pipeline {
    /// Compares `probe` with what is claimed, at the threshold that keeps `max_fmr` (the policy's if `None`).
    pub async fn verify(
        &self,
        probe: FaceInput,
        claim: Claim<'_>,
        max_fmr: Option<Fmr>,
        turn: &Turn,
    ) -> Result<Verified, VerifyError> {
        // Before any work: a rate that cannot be kept costs nothing. Nor can a gallery of another model be asked, whoever is claimed.
        let threshold = threshold_1_to_1(self.calibration(), &self.rates, max_fmr)?;
        if let Claim::Subject { gallery: Some(gallery), .. } = &claim
            && gallery.model() != self.model()
        {
            return Err(ModelMismatch { probe: self.model(), reference: gallery.model() }.into());
        }
        // Nor does a reference that its headers refuse: a chip's record that holds no portrait is worth no look at the probe.
        if let Claim::Inline(reference) = &claim {
            decode::check(reference.image.source(), &self.decode).map_err(ExtractError::from)?;
        }
        let probe = self.extract(probe, turn).await?;
        let verified = match claim {
            Claim::Subject { gallery, bearer } => self.verify_subject(probe, gallery, bearer, threshold).await?,
            Claim::Inline(reference) => self.verify_inline(probe, reference, threshold, turn).await?,
        };
        let reason = verified.reason;
        Metrics::get().decisions_total.with_label_values(&[reason.decision().as_str(), reason.as_str()]).inc();
        Ok(verified)
    }

    async fn verify_subject(
        &self,
        probe: Extraction,
        gallery: Option<&Gallery>,
        claimant: Claimant<'_>,
        threshold: Threshold,
    ) -> Result<Verified, VerifyError> {
        let mut timings = probe.timings;
        let probe = match probe.outcome {
            Ok(template) => template,
            Err(assessment) => {
                let epoch = gallery.map_or(0, Gallery::epoch);
                return Ok(Verified::undetermined(assessment, Role::Probe, threshold, epoch, timings));
            }
        };
        let started = Instant::now();
        let claim = gallery.map(|gallery| gallery.claim(claimant.subject)).transpose()?;
        let (epoch, references) = claim.unwrap_or_default();
        let most = gallery.map_or(1, Gallery::max_references_per_subject);
        let claimed = claim_score(&probe, &references, most)?;
        let reason = claimed.map_or(Reason::ScoreBelowThreshold, |score| decide(score, threshold));
        let receipt = match reason {
            Reason::ScoreReachesThreshold => {
                let bearer = Bearer {
                    client: claimant.client,
                    gallery: claimant.gallery,
                    purpose: claimant.purpose,
                    model: self.model(),
                };
                // There is a match with references of a gallery alone.
                let issued = gallery
                    .map(|gallery| self.receipts.issue(&probe, claimant.subject, bearer, Now::by(gallery.clock())));
                issued.transpose()?
            }
            _ => None,
        };
        let took = started.elapsed();
        timings.compare = coarse(took);
        Metrics::get().stage("compare", took);
        // The score of a non-match would tell whether the subject is enrolled: whatever were made up in its place could be told apart.
        let score = claimed.filter(|_| reason == Reason::ScoreReachesThreshold);
        Ok(Verified { reason, receipt, refused: None, score, threshold, epoch, timings })
    }

    async fn verify_inline(
        &self,
        probe: Extraction,
        reference: FaceInput,
        threshold: Threshold,
        turn: &Turn,
    ) -> Result<Verified, VerifyError> {
        let mut timings = probe.timings;
        let probe = match probe.outcome {
            Ok(template) => template,
            Err(assessment) => return Ok(Verified::undetermined(assessment, Role::Probe, threshold, 0, timings)),
        };
        let reference = self.extract(reference, turn).await?;
        timings = timings + reference.timings;
        let reference = match reference.outcome {
            Ok(template) => template,
            Err(assessment) => return Ok(Verified::undetermined(assessment, Role::Reference, threshold, 0, timings)),
        };
        let started = Instant::now();
        let score = compare(&probe, &reference)?;
        let took = started.elapsed();
        timings.compare = coarse(took);
        Metrics::get().stage("compare", took);
        let reason = decide(score, threshold);
        Ok(Verified { reason, receipt: None, refused: None, score: Some(score), threshold, epoch: 0, timings })
    }
}

/// Which of the two images was refused.
#[derive(Clone, Copy)]
enum Role {
    Probe,
    Reference,
}

impl Verified {
    fn undetermined(assessment: Assessment, role: Role, threshold: Threshold, epoch: u64, timings: Timings) -> Self {
        let reason = match (role, assessment.face_found()) {
            (Role::Probe, true) => Reason::ProbeQuality,
            (Role::Probe, false) => Reason::ProbeWithoutFace,
            (Role::Reference, true) => Reason::ReferenceQuality,
            (Role::Reference, false) => Reason::ReferenceWithoutFace,
        };
        Self { reason, receipt: None, refused: Some(assessment), score: None, threshold, epoch, timings }
    }
}

/// The score of the claim; `None` without references. Compares as often for everyone: `most` times, or once per reference.
fn claim_score(probe: &Template, references: &[Reference], most: usize) -> Result<Option<Score>, ModelMismatch> {
    for _ in references.len()..most {
        std::hint::black_box(compare(probe, probe)?);
    }
    let templates: Vec<&Template> = references.iter().map(|reference| &reference.template).collect();
    compare_claim(probe, &templates)
}

/// Up to the next millisecond: finer, the time of a verification would tell how many references a subject has, and whether it has any.
fn coarse(took: Duration) -> Duration {
    Duration::from_millis(u64::try_from(took.as_micros().div_ceil(1000)).unwrap_or(u64::MAX))
}
