//! ReviewService: GetCase.

use tonic::{Request, Response, Status, async_trait};

use super::{Service, error::Error, pb, receive, respond};
use crate::{
    access::Right,
    domain::{CaseId, Turn},
};

#[async_trait]
impl pb::review_service_server::ReviewService for Service {
    async fn get_case(&self, request: Request<pb::GetCaseRequest>) -> Result<Response<pb::GetCaseResponse>, Status> {
        let turn = receive::turn(request.extensions());
        self.answer("GetCase", turn, |turn| self.show_case(turn, request.into_inner())).await
    }
}

impl Service {
    async fn show_case(&self, turn: Turn, request: pb::GetCaseRequest) -> Result<pb::GetCaseResponse, Error> {
        let (pass, context) = self.enter(receive::client_of(&turn)?, request.context, &[Right::Review])?;
        let id = receive::id("case_id", CaseId::parse(&request.case_id))?;
        let case = pass.case(id).await?.ok_or(Error::Unknown("there is no case of this id"))?;
        let shown = |candidate| respond::candidate(candidate, pass.shows_scores());
        tracing::info!(case_id = %case.id, "case shown");
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
        })
    }
}
