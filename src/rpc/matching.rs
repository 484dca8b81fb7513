//! MatchService: Verify, Identify, Assess.

use std::{sync::Arc, time::Instant};

use tonic::{Request, Response, Status, async_trait};

use super::{Service, error::Error, pb, receive, respond};
use crate::{
    access::Right,
    audit::{Decided, DecisionEvent},
    domain::{ClientId, Decision, GalleryName, RequestContext, SubjectId, Turn},
    gallery::Lease,
    pipeline::{Bearer, Claim, Claimant, Search, Tell, Timings, Verified},
};

#[async_trait]
impl pb::match_service_server::MatchService for Service {
    async fn verify(&self, request: Request<pb::VerifyRequest>) -> Result<Response<pb::VerifyResponse>, Status> {
        let turn = receive::turn(request.extensions());
        self.answer("Verify", turn, |turn| self.verify_face(turn, request.into_inner())).await
    }

    async fn identify(&self, request: Request<pb::IdentifyRequest>) -> Result<Response<pb::IdentifyResponse>, Status> {
        let (turn, lease) = (receive::turn(request.extensions()), receive::lease(request.extensions()));
        let identify = |turn| async { self.identify_receipt(turn, lease?, request.into_inner()).await };
        self.answer("Identify", turn, identify).await
    }

    async fn assess(&self, request: Request<pb::AssessRequest>) -> Result<Response<pb::AssessResponse>, Status> {
        let turn = receive::turn(request.extensions());
        self.answer("Assess", turn, |turn| self.assess_face(turn, request.into_inner())).await
    }
}

impl Service {
    async fn verify_face(&self, turn: Turn, request: pb::VerifyRequest) -> Result<pb::VerifyResponse, Error> {
        let client = receive::client_of(&turn)?;
        let (pass, context) = self.enter(client, request.context, &[Right::Verify])?;
        let max_fmr = receive::max_fmr(request.max_fmr)?;
        let (verified, claimed, chip) = match request.claim {
            None => return Err(Error::field("claim", "claimed_subject or inline_reference")),
            Some(pb::verify_request::Claim::ClaimedSubject(claimed)) => {
                let name = receive::id("claimed_subject.gallery", GalleryName::new(&claimed.gallery))?;
                let subject = receive::id("claimed_subject.subject_id", SubjectId::new(&claimed.subject_id))?;
                let gallery = pass.gallery(&name)?;
                let bearer = Claimant { subject: &subject, client, gallery: &name, purpose: context.purpose };
                let claim = Claim::Subject { gallery: gallery.as_deref(), bearer };
                let probe = receive::probe(request.probe)?;
                let verified = self.0.pipeline.verify(probe, claim, max_fmr, &turn).await?;
                (verified, Some((name, subject)), None)
            }
            Some(pb::verify_request::Claim::InlineReference(image)) => {
                let probe = receive::probe(request.probe)?;
                let chip = receive::chip(Some(&image))?;
                let claim = Claim::Inline(receive::face("inline_reference", Some(image))?);
                (self.0.pipeline.verify(probe, claim, max_fmr, &turn).await?, None, chip)
            }
        };
        let decided = Decided::Verified {
            reason: verified.reason,
            receipt: verified.receipt.is_some(),
            chip: chip.as_ref().map(respond::told),
        };
        let position = claimed.as_ref().map(|_| verified.epoch);
        let (gallery, subject) = claimed.unzip();
        let event = DecisionEvent { gallery, position, subject, ..DecisionEvent::new(client, &context, decided) };
        self.0.decided(event).await?;
        let answer = self.verify_response(verified, context.transaction_id.to_string(), pass.shows_scores());
        Ok(pb::VerifyResponse { chip, ..answer })
    }

    fn verify_response(&self, verified: Verified, transaction_id: String, shows_scores: bool) -> pb::VerifyResponse {
        let decision = verified.reason.decision();
        let (receipt, expires_at) = verified.receipt.unzip();
        let refused = verified.refused.as_ref();
        pb::VerifyResponse {
            decision: respond::decision(decision).into(),
            reason: respond::reason(verified.reason).into(),
            receipt: receipt.unwrap_or_default().into(),
            receipt_expires_at: expires_at.map(respond::timestamp),
            alternative_route: match decision {
                Decision::Match => String::new(),
                Decision::NonMatch | Decision::Undetermined => self.0.alternative_route.clone(),
            },
            refused_measures: refused.into_iter().flat_map(|a| a.refused().map(respond::measure)).collect(),
            model_digest: self.0.pipeline.model().to_string(),
            gallery_epoch: verified.epoch,
            transaction_id,
            timings: Some(respond::timings(verified.timings, verified.timings.sum())),
            score: verified.score.filter(|_| shows_scores).map(|s| s.value()),
            threshold: shows_scores.then(|| verified.threshold.value()),
            chip: None,
        }
    }

    async fn identify_receipt(
        &self,
        turn: Turn,
        lease: Lease,
        request: pb::IdentifyRequest,
    ) -> Result<pb::IdentifyResponse, Error> {
        let started = Instant::now();
        let client = receive::client_of(&turn)?;
        let (pass, context) = self.enter(client, request.context, &[Right::Identify])?;
        let name = receive::id("gallery", GalleryName::new(&request.gallery))?;
        let receipt = receive::receipt(&request.receipt)?;
        let max_candidates = receive::max_candidates(request.max_candidates)?;
        let max_fpir = receive::max_fpir(request.max_fpir)?;
        let gallery = pass.gallery(&name)?.ok_or(Error::Unknown("there is no gallery of this name"))?;
        let model = self.0.pipeline.model();
        let bearer = Bearer { client, gallery: &name, purpose: context.purpose, model };
        let transaction = &context.transaction_id;
        let search = Search { receipt, bearer, transaction, max_candidates, max_fpir };
        let tell = self.tell_identified(client, &context, &name);
        let identified = self.0.pipeline.identify(&gallery, search, &turn, &lease, &tell).await??;
        let review = identified.case.is_some();
        let outcome = if review { pb::IdentifyOutcome::Review } else { pb::IdentifyOutcome::NoDuplicate };
        Ok(pb::IdentifyResponse {
            outcome: outcome.into(),
            case_id: identified.case.map(|id| id.to_string()).unwrap_or_default(),
            alternative_route: if review { self.0.alternative_route.clone() } else { String::new() },
            model_digest: model.to_string(),
            gallery_epoch: identified.epoch,
            transaction_id: context.transaction_id.to_string(),
            timings: Some(respond::timings(identified.timings, started.elapsed())),
            expected_fnir: identified.expected_fnir,
            repeated: identified.repeated,
        })
    }

    /// Tells of an outcome in the caller's name, also once it has left.
    fn tell_identified(&self, client: &ClientId, context: &RequestContext, name: &GalleryName) -> Tell<Error> {
        let (core, client, context, name) = (Arc::clone(&self.0), client.clone(), context.clone(), name.clone());
        Arc::new(move |subject, outcome, repeated| {
            let decided = Decided::Identified { case: outcome.case, repeated };
            let (gallery, position) = (Some(name.clone()), Some(outcome.epoch));
            let subject = Some(subject);
            let event = DecisionEvent { gallery, position, subject, ..DecisionEvent::new(&client, &context, decided) };
            let core = Arc::clone(&core);
            Box::pin(async move { core.decided(event).await })
        })
    }

    async fn assess_face(&self, turn: Turn, request: pb::AssessRequest) -> Result<pb::AssessResponse, Error> {
        let started = Instant::now();
        let client = receive::client_of(&turn)?;
        let (_, context) = self.enter(client, request.context, &[Right::Verify])?;
        let chip = receive::chip(request.image.as_ref())?;
        let image = receive::face("image", request.image)?;
        let (assessment, timings): (_, Timings) = self.0.pipeline.assess(image, &turn).await?;
        tracing::info!(acceptable = assessment.acceptable(), "assessed");
        Ok(pb::AssessResponse {
            acceptable: assessment.acceptable(),
            measures: assessment.measures.iter().map(respond::measure).collect(),
            landmarks: assessment.face.as_ref().map(|(_, five)| respond::landmarks(five)),
            model_digest: self.0.pipeline.model().to_string(),
            transaction_id: context.transaction_id.to_string(),
            timings: Some(respond::timings(timings, started.elapsed())),
            chip,
        })
    }
}
