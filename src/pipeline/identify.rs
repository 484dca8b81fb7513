//! Identification, 1:N: is the face that was just verified already enrolled under another identity?

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use super::{
    Bearer, Pipeline, ReceiptError, ThresholdError, Timings,
    decide::{decide, threshold_1_to_n},
};
use crate::{
    domain::{CandidateList, Case, CaseId, Decision, Fpir, TransactionId, Turn},
    gallery::{CaseError, Gallery, SearchError, SpendError, StoreError},
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
            SpendError::AlreadySpent => Self::Receipt(ReceiptError::Spent),
            SpendError::Expired => Self::Receipt(ReceiptError::Expired),
            SpendError::Store(error) => Self::Store(error),
        }
    }
}

impl Pipeline {
    /// Spends the receipt and searches the gallery for other subjects' references that reach the threshold. The receipt is spent,
    /// durably, before the search: a failure costs a verification, never a second use.
    pub async fn identify(
        &self,
        gallery: &Arc<Gallery>,
        search: Search<'_>,
        turn: &Turn,
    ) -> Result<Identified, IdentifyError> {
        let receipt = self.receipts.open(search.receipt, search.bearer, SystemTime::now())?;
        // Who was erased since the verification is not searched for.
        if gallery.references_of(&receipt.subject).is_empty() {
            return Err(ReceiptError::SubjectErased.into());
        }
        let size = gallery.describe().references as u64;
        let threshold = threshold_1_to_n(self.calibration(), &self.rates, search.max_fpir, size)?;
        gallery.spend_receipt(receipt.nonce, receipt.expires_at).await?;

        let started = Instant::now();
        let (found, epoch) = gallery.search(&receipt.probe, &receipt.subject, search.max_candidates, turn).await?;
        let took = started.elapsed();
        Metrics::get().stage("search", took);
        let timings = Timings { compare: took, ..Timings::default() };

        let duplicates = found.as_slice().iter().filter(|c| decide(c.score, threshold).decision() == Decision::Match);
        let candidates =
            CandidateList::new(duplicates.map(|c| (c.subject.clone(), c.reference, c.score)), search.max_candidates);
        let outcome = if candidates.is_empty() { "no_duplicate" } else { "review" };
        Metrics::get().identifications_total.with_label_values(&[outcome]).inc();
        if candidates.is_empty() {
            return Ok(Identified { case: None, epoch, timings });
        }
        let case = Case {
            id: CaseId::random(),
            gallery: gallery.name().clone(),
            claimed: Some(receipt.subject),
            opened_at: SystemTime::now(),
            opened_by: search.transaction.clone(),
            opened_for: search.bearer.purpose,
            model: gallery.model(),
            candidates,
        };
        let id = case.id;
        gallery.open_case(case).await?;
        Ok(Identified { case: Some(id), epoch, timings })
    }
}
