//! ReviewService: ListCases, GetCase, RecordVerdict.

use tonic::{Request, Response, Status, async_trait};

use super::{Service, error::Error, pb, receive, respond};
use crate::{
    access::{Pass, Right},
    audit::{Decided, DecisionEvent},
    domain::{CaseId, GalleryName, Judgement, RequestContext, ReviewerId, Turn},
    gallery::{Lease, carried},
    telemetry::Metrics,
};

#[async_trait]
impl pb::review_service_server::ReviewService for Service {
    async fn list_cases(
        &self,
        request: Request<pb::ListCasesRequest>,
    ) -> Result<Response<pb::ListCasesResponse>, Status> {
        let turn = receive::turn(request.extensions());
        self.answer("ListCases", turn, |turn| self.list_open_cases(turn, request.into_inner())).await
    }

    async fn get_case(&self, request: Request<pb::GetCaseRequest>) -> Result<Response<pb::GetCaseResponse>, Status> {
        let turn = receive::turn(request.extensions());
        self.answer("GetCase", turn, |turn| self.show_case(turn, request.into_inner())).await
    }

    async fn record_verdict(
        &self,
        request: Request<pb::RecordVerdictRequest>,
    ) -> Result<Response<pb::RecordVerdictResponse>, Status> {
        let (turn, lease) = (receive::turn(request.extensions()), receive::lease(request.extensions()));
        let judge = |turn| async { self.judge_case(turn, lease?, request.into_inner()).await };
        self.answer("RecordVerdict", turn, judge).await
    }
}

/// What a caller learns of a case that is not there, or not theirs to see.
const NO_CASE: Error = Error::Unknown("there is no case of this id");

impl Service {
    async fn list_open_cases(&self, turn: Turn, request: pb::ListCasesRequest) -> Result<pb::ListCasesResponse, Error> {
        let (pass, context) = self.enter(receive::client_of(&turn)?, request.context, &[Right::Review])?;
        let name = receive::id("gallery", GalleryName::new(&request.gallery))?;
        let page_size = receive::page_size(request.page_size)?;
        let after = receive::page_token(&request.page_token)?;
        let reviewer = receive::reviewer(&request.reviewer)?;
        let gallery = pass.gallery(&name)?.ok_or(Error::Unknown("there is no gallery of this name"))?;
        // One more than the page: whether there is another.
        let mut found = gallery.open_cases(after, page_size + 1).await?;
        let more = found.len() > page_size;
        found.truncate(page_size);
        let last = found.last().filter(|_| more).map(|case| case.id.to_string());
        looked(&pass, &reviewer, "list");
        self.told(&pass, &context, name, Decided::CasesListed { cases: found.len(), reviewer }).await?;
        Ok(pb::ListCasesResponse {
            cases: found.into_iter().map(respond::summary).collect(),
            next_page_token: last.unwrap_or_default(),
            transaction_id: context.transaction_id.to_string(),
        })
    }

    async fn show_case(&self, turn: Turn, request: pb::GetCaseRequest) -> Result<pb::GetCaseResponse, Error> {
        let (pass, context) = self.enter(receive::client_of(&turn)?, request.context, &[Right::Review])?;
        let id = receive::id("case_id", CaseId::parse(&request.case_id))?;
        let reviewer = receive::reviewer(&request.reviewer)?;
        let case = pass.case(id).await?.ok_or(NO_CASE)?;
        let shown = |candidate| respond::candidate(candidate, pass.shows_scores());
        looked(&pass, &reviewer, "case");
        self.told(&pass, &context, case.gallery.clone(), Decided::CaseShown { case: case.id, reviewer }).await?;
        let mut judgements: Vec<_> = case.judgements.iter().map(respond::judgement).collect();
        let standing = judgements.pop().unwrap_or_default();
        Ok(pb::GetCaseResponse {
            case_id: case.id.to_string(),
            gallery: case.gallery.to_string(),
            claimed_subject_id: case.claimed.map(|s| s.to_string()).unwrap_or_default(),
            opened_at: Some(respond::timestamp(case.opened_at)),
            opened_by_transaction_id: case.opened_by.to_string(),
            opened_for: respond::purpose(case.opened_for).into(),
            candidates: case.candidates.as_slice().iter().map(shown).collect(),
            model_digest: case.model.to_string(),
            transaction_id: context.transaction_id.to_string(),
            verdict: standing.verdict,
            judged_by_client: standing.client,
            judged_by: standing.reviewer,
            judged_at: standing.judged_at,
            earlier_judgements: judgements,
        })
    }

    async fn judge_case(
        &self,
        turn: Turn,
        lease: Lease,
        request: pb::RecordVerdictRequest,
    ) -> Result<pb::RecordVerdictResponse, Error> {
        let client = receive::client_of(&turn)?;
        let (pass, context) = self.enter(client, request.context, &[Right::Review])?;
        let id = receive::id("case_id", CaseId::parse(&request.case_id))?;
        let verdict = receive::verdict(request.verdict)?;
        let reviewer = receive::reviewer(&request.reviewer)?;
        let case = pass.case(id).await?.ok_or(NO_CASE)?;
        let gallery = pass.gallery(&case.gallery)?.ok_or(NO_CASE)?;
        let at = gallery.clock().wall();
        let judged = Judgement { verdict, client: client.clone(), reviewer: reviewer.clone(), at };
        let (service, transaction_id) = (self.clone(), context.transaction_id.to_string());
        let change = async move {
            if !gallery.judge(id, judged).await? {
                return Err(NO_CASE); // its retention ended in between
            }
            service.told(&pass, &context, case.gallery, Decided::CaseJudged { case: id, verdict, reviewer }).await
        };
        carried(lease, change).await??;
        Ok(pb::RecordVerdictResponse {
            case_id: id.to_string(),
            verdict: respond::verdict(verdict).into(),
            judged_at: Some(respond::timestamp(at)),
            transaction_id,
        })
    }

    /// Tells what was shown or judged.
    async fn told(
        &self,
        pass: &Pass,
        context: &RequestContext,
        gallery: GalleryName,
        decided: Decided,
    ) -> Result<(), Error> {
        let event = DecisionEvent { gallery: Some(gallery), ..DecisionEvent::new(pass.client(), context, decided) };
        self.0.decided(event).await
    }
}

fn looked(pass: &Pass, reviewer: &ReviewerId, what: &str) {
    Metrics::get().looked(pass.client().as_str(), reviewer.as_str(), what);
}
