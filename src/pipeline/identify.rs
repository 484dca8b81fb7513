//! Identification, 1:N: is the face that was just verified already enrolled under another identity?

use std::{sync::Arc, time::Instant};

use tokio::sync::Semaphore;

use super::{
    Bearer, Pipeline, RatePolicy, ReceiptError, ThresholdError, Timings,
    decide::rates_1_to_n,
    receipt::{Now, Receipt, Receipts},
};
use crate::{
    domain::{Calibration, CandidateList, Case, CaseId, Fpir, ModelDigest, ModelMismatch, TransactionId, Turn},
    gallery::{CaseError, Finding, Found, Gallery, Outcome, SearchError, SpendError, StoreError},
    seal::{SealError, random},
    telemetry::Metrics,
};

/// Searches for one receipt at most, where people who are found are erased or enrolled anew before it is recorded.
const SEARCHES: usize = 8;

/// Findings that may be recorded at a time, whoever waits for them: a store that hangs is not piled upon.
const RECORDINGS: usize = 64;

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
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl From<SpendError> for IdentifyError {
    fn from(error: SpendError) -> Self {
        match error {
            SpendError::Expired => Self::Receipt(ReceiptError::Expired),
            SpendError::Moved => Self::Search(SearchError::Moved),
            SpendError::CaseExists { id } => Self::Case(CaseError::Damaged { id }),
            SpendError::Store(error) => Self::Store(error),
            SpendError::Seal(error) => Self::Seal(error),
        }
    }
}

impl Pipeline {
    /// See [`Identification::of`].
    pub async fn identify(
        &self,
        gallery: &Arc<Gallery>,
        search: Search<'_>,
        turn: &Turn,
    ) -> Result<Identified, IdentifyError> {
        self.identification.of(gallery, search, turn).await
    }
}

/// The line of identification. It needs no device: the probe is in the receipt.
#[derive(Debug)]
pub(super) struct Identification {
    receipts: Receipts,
    calibration: Arc<Calibration>,
    rates: RatePolicy,
    model: ModelDigest,
    /// Places for findings that are being recorded.
    recordings: Arc<Semaphore>,
}

impl Identification {
    pub(super) fn new(
        receipts: Receipts,
        calibration: Arc<Calibration>,
        rates: RatePolicy,
        model: ModelDigest,
    ) -> Self {
        Self { receipts, calibration, rates, model, recordings: Arc::new(Semaphore::new(RECORDINGS)) }
    }

    /// Searches the gallery for other subjects whose references reach the threshold, then spends the receipt and records what was found, in
    /// one change. A receipt that is sent again gets what was recorded, and searches nothing. What was found is recorded also if the
    /// caller has left meanwhile. What is recorded was true when it was: who is found and then erased, or enrolled anew, is searched for
    /// again.
    async fn of(&self, gallery: &Arc<Gallery>, search: Search<'_>, turn: &Turn) -> Result<Identified, IdentifyError> {
        let receipt = self.receipts.open(search.receipt, search.bearer)?;
        // What was recorded stands: also when the receipt has expired since, its subject was erased, or the model changed.
        if let Some(outcome) = gallery.outcome(receipt.nonce).await? {
            return Ok(Identified::new(outcome, true, Timings::default()));
        }
        receipt.may_be_spent(self.model, Now::by(gallery.clock()))?;
        if gallery.model() != self.model {
            return Err(SearchError::from(ModelMismatch { probe: self.model, reference: gallery.model() }).into());
        }
        let rates = rates_1_to_n(&self.calibration, &self.rates, search.max_fpir)?;
        let started = Instant::now();
        let mut searches = SEARCHES;
        let (outcome, repeated) = loop {
            // Who was erased since the verification is not searched for.
            if !gallery.knows(&receipt.subject) {
                return Err(ReceiptError::SubjectErased.into());
            }
            let found = gallery.search(&receipt.probe, &receipt.subject, search.max_candidates, &rates, turn).await?;
            searches -= 1;
            match self.record(gallery, &receipt, found, &search).await {
                Err(SpendError::Moved) if searches > 0 => {}
                recorded => break recorded?,
            }
        };
        let took = started.elapsed();
        Metrics::get().stage("search", took);
        if !repeated {
            let word = if outcome.case.is_some() { "review" } else { "no_duplicate" };
            Metrics::get().identifications_total.with_label_values(&[word]).inc();
        }
        Ok(Identified::new(outcome, repeated, Timings { compare: took, ..Timings::default() }))
    }

    /// Spends the receipt and records what was found.
    async fn record(
        &self,
        gallery: &Arc<Gallery>,
        receipt: &Receipt,
        found: Found,
        search: &Search<'_>,
    ) -> Result<(Outcome, bool), SpendError> {
        let (epoch, fnir) = (found.epoch, found.point.fnmr);
        let case = match found.candidates.is_empty() {
            true => None,
            false => Some(case_of(gallery, receipt, found.candidates, search)?),
        };
        let finding = Finding { case, epoch, fnir };
        // A task of its own: a caller whose deadline passes here does not take the finding with it. Who leaves while no task may begin
        // has not spent the receipt, and finds the same again.
        let place = Arc::clone(&self.recordings).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let (gallery, nonce, expires) = (Arc::clone(gallery), receipt.nonce, receipt.expires);
        let recorded = tokio::spawn(async move {
            let recorded = gallery.finish_identification(nonce, expires, finding).await;
            drop(place);
            recorded
        });
        recorded.await.map_err(|_| StoreError::Closed)?
    }
}

impl Identified {
    fn new(outcome: Outcome, repeated: bool, timings: Timings) -> Self {
        let Outcome { case, epoch, fnir } = outcome;
        Self { case, epoch, expected_fnir: fnir, repeated, timings }
    }
}

fn case_of(
    gallery: &Gallery,
    receipt: &Receipt,
    candidates: CandidateList,
    search: &Search<'_>,
) -> Result<Case, SealError> {
    Ok(Case {
        id: CaseId::from_random_bytes(random()?),
        gallery: gallery.name().clone(),
        claimed: Some(receipt.subject.clone()),
        opened_at: gallery.clock().wall(),
        opened_by: search.transaction.clone(),
        opened_for: search.bearer.purpose,
        model: gallery.model(),
        candidates,
        judgements: Vec::new(),
    })
}

#[cfg(test)]
mod tests;
