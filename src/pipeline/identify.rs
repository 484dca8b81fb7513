//! Identification, 1:N: is the face that was just verified already enrolled under another identity?

use std::{sync::Arc, time::Instant};

use super::{
    Bearer, Pipeline, ReceiptError, ThresholdError, Timings,
    decide::rates_1_to_n,
    receipt::{Now, Receipt},
};
use crate::{
    domain::{CandidateList, Case, CaseId, Fpir, ModelMismatch, TransactionId, Turn},
    gallery::{CaseError, Finding, Gallery, Outcome, SearchError, SpendError, StoreError},
    telemetry::Metrics,
};

/// What a search is asked.
#[derive(Debug, Clone, Copy)]
pub struct Search<'a> {
    /// From the client, sealed.
    pub receipt: &'a [u8],
    pub bearer: Bearer<'a>,
    pub transaction: &'a TransactionId,
    pub max_candidates: usize,
    /// The policy's if `None`.
    pub max_fpir: Option<Fpir>,
}

/// The answer to an identification.
#[derive(Debug)]
pub struct Identified {
    /// The case to review; `None` when there is no duplicate.
    pub case: Option<CaseId>,
    pub epoch: u64,
    /// Share of duplicates that such a search is expected to miss; `None` where the card does not know.
    pub expected_fnir: Option<f64>,
    /// The receipt was spent before: this is what was found then, and nothing was searched now.
    pub repeated: bool,
    pub timings: Timings,
}

/// Why an identification has no answer.
#[derive(Debug, thiserror::Error)]
pub enum IdentifyError {
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    #[error(transparent)]
    Threshold(#[from] ThresholdError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Search(#[from] SearchError),
    #[error(transparent)]
    Case(#[from] CaseError),
}

impl From<SpendError> for IdentifyError {
    fn from(error: SpendError) -> Self {
        match error {
            SpendError::Expired => Self::Receipt(ReceiptError::Expired),
            SpendError::CaseExists { id } => Self::Case(CaseError::Damaged { id }),
            SpendError::Store(error) => Self::Store(error),
        }
    }
}

impl Pipeline {
    /// Searches the gallery for other subjects whose references reach the threshold, then spends the receipt and records what was found, in
    /// one change. A receipt that is sent again gets what was recorded, and searches nothing. What was found is recorded also if the
    /// caller has left meanwhile.
    pub async fn identify(
        &self,
        gallery: &Arc<Gallery>,
        search: Search<'_>,
        turn: &Turn,
    ) -> Result<Identified, IdentifyError> {
        let receipt = self.receipts.open(search.receipt, search.bearer, Now::by(gallery.clock()))?;
        if gallery.model() != self.model() {
            return Err(SearchError::from(ModelMismatch { probe: self.model(), reference: gallery.model() }).into());
        }
        if let Some(outcome) = gallery.outcome(receipt.nonce).await? {
            return Ok(Identified::new(outcome, true, Timings::default()));
        }
        // Who was erased since the verification is not searched for.
        if !gallery.knows(&receipt.subject) {
            return Err(ReceiptError::SubjectErased.into());
        }
        let rates = rates_1_to_n(self.calibration(), &self.rates, search.max_fpir)?;
        let started = Instant::now();
        let found = gallery.search(&receipt.probe, &receipt.subject, search.max_candidates, &rates, turn).await?;
        let took = started.elapsed();
        Metrics::get().stage("search", took);

        let fnir = found.point.fnmr;
        let (nonce, expires, epoch) = (receipt.nonce, receipt.expires, found.epoch);
        let case = (!found.candidates.is_empty()).then(|| case_of(gallery, receipt, found.candidates, &search));
        let recording = Arc::clone(gallery);
        // A task of its own: a caller whose deadline passes here does not take the finding with it.
        let recorded = tokio::spawn(async move {
            recording.finish_identification(nonce, expires, Finding { case, epoch, fnir }).await
        });
        let (outcome, repeated) = recorded.await.map_err(|_| StoreError::Closed)??;
        if !repeated {
            let word = if outcome.case.is_some() { "review" } else { "no_duplicate" };
            Metrics::get().identifications_total.with_label_values(&[word]).inc();
        }
        Ok(Identified::new(outcome, repeated, Timings { compare: took, ..Timings::default() }))
    }
}

impl Identified {
    fn new(outcome: Outcome, repeated: bool, timings: Timings) -> Self {
        let Outcome { case, epoch, fnir } = outcome;
        Self { case, epoch, expected_fnir: fnir, repeated, timings }
    }
}

fn case_of(gallery: &Gallery, receipt: Receipt, candidates: CandidateList, search: &Search<'_>) -> Case {
    Case {
        id: CaseId::random(),
        gallery: gallery.name().clone(),
        claimed: Some(receipt.subject),
        opened_at: gallery.clock().wall(),
        opened_by: search.transaction.clone(),
        opened_for: search.bearer.purpose,
        model: gallery.model(),
        candidates,
        judged: None,
    }
}
