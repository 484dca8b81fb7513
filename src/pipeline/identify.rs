//! Identification, 1:N: is the face that was just verified already enrolled under another identity?

use std::{pin::Pin, sync::Arc, time::Instant};

use super::{
    Bearer, Pipeline, RatePolicy, ReceiptError, ThresholdError, Timings,
    decide::rates_1_to_n,
    receipt::{Now, Receipt, Receipts},
};
use crate::{
    domain::{
        Calibration, CandidateList, Case, CaseId, Fpir, ModelDigest, ModelMismatch, SubjectId, TransactionId, Turn,
    },
    gallery::{CaseError, Finding, Found, Gallery, Lease, Outcome, SearchError, SpendError, StoreError, carried},
    seal::{SealError, random},
    telemetry::Metrics,
};

/// Searches for one receipt at most, where people who are found are erased or enrolled anew before it is recorded.
const SEARCHES: usize = 8;

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

/// Records the decision, of whose search it was, an outcome and whether it was recorded before, ahead of the caller's
/// answer. Called once for each.
pub type Tell<N> = Arc<dyn Fn(SubjectId, Outcome, bool) -> Telling<N> + Send + Sync>;
pub type Telling<N> = Pin<Box<dyn Future<Output = Result<(), N>> + Send>>;

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
    pub async fn identify<N: Send + 'static>(
        &self,
        gallery: &Arc<Gallery>,
        search: Search<'_>,
        turn: &Turn,
        lease: &Lease,
        tell: &Tell<N>,
    ) -> Result<Result<Identified, N>, IdentifyError> {
        self.identification.of(gallery, search, turn, lease, tell).await
    }
}

/// The line of identification. It needs no device: the probe is in the receipt.
#[derive(Debug)]
pub(super) struct Identification {
    receipts: Receipts,
    calibration: Arc<Calibration>,
    rates: RatePolicy,
    model: ModelDigest,
}

impl Identification {
    pub(super) fn new(
        receipts: Receipts,
        calibration: Arc<Calibration>,
        rates: RatePolicy,
        model: ModelDigest,
    ) -> Self {
        Self { receipts, calibration, rates, model }
    }

    /// Searches the gallery for other subjects whose references reach the threshold, then spends the receipt and
    /// records what was found, in one change. A receipt that is sent again gets what was recorded, and searches
    /// nothing. What was found is recorded and told also if the caller has left meanwhile, and `lease` kept until then.
    /// What is recorded was true when it was: who is found and then erased, or enrolled anew, is searched for again.
    /// Inside: whether it could be told.
    async fn of<N: Send + 'static>(
        &self,
        gallery: &Arc<Gallery>,
        search: Search<'_>,
        turn: &Turn,
        lease: &Lease,
        tell: &Tell<N>,
    ) -> Result<Result<Identified, N>, IdentifyError> {
        let receipt = self.receipts.open(search.receipt, search.bearer)?;
        // What was recorded stands: also when the receipt has expired since, its subject was erased, or the model changed.
        if let Some(outcome) = gallery.outcome(receipt.nonce).await? {
            let told = tell(receipt.subject, outcome, true).await;
            return Ok(told.map(|()| Identified::new(outcome, true, Timings::default())));
        }
        receipt.may_be_spent(self.model, Now::by(gallery.clock()))?;
        if gallery.model() != self.model {
            return Err(SearchError::from(ModelMismatch { probe: self.model, reference: gallery.model() }).into());
        }
        let rates = rates_1_to_n(&self.calibration, &self.rates, search.max_fpir)?;
        let started = Instant::now();
        let mut searches = SEARCHES;
        let recorded = loop {
            // Who was erased since the verification is not searched for.
            if !gallery.knows(&receipt.subject) {
                return Err(ReceiptError::SubjectErased.into());
            }
            let found = gallery.search(&receipt.probe, &receipt.subject, search.max_candidates, &rates, turn).await?;
            searches -= 1;
            match record(gallery, &receipt, found, &search, lease, tell).await {
                Err(SpendError::Moved) if searches > 0 => {}
                recorded => break recorded?,
            }
        };
        Ok(recorded.map(|(outcome, repeated, at)| {
            let took = at.saturating_duration_since(started);
            Metrics::get().stage("search", took);
            Identified::new(outcome, repeated, Timings { compare: took, ..Timings::default() })
        }))
    }
}

/// Spends the receipt, records what was found and tells it: a caller that leaves takes none of this with it. The
/// outcome, whether it was recorded before, and when it was there.
async fn record<N: Send + 'static>(
    gallery: &Arc<Gallery>,
    receipt: &Receipt,
    found: Found,
    search: &Search<'_>,
    lease: &Lease,
    tell: &Tell<N>,
) -> Result<Result<(Outcome, bool, Instant), N>, SpendError> {
    let (epoch, fnir) = (found.epoch, found.point.fnmr);
    let case = match found.candidates.is_empty() {
        true => None,
        false => Some(case_of(gallery, receipt, found.candidates, search)?),
    };
    let finding = Finding { case, epoch, fnir };
    let (gallery, nonce, expires) = (Arc::clone(gallery), receipt.nonce, receipt.expires);
    let (tell, subject) = (Arc::clone(tell), receipt.subject.clone());
    let change = async move {
        let (outcome, repeated) = gallery.finish_identification(nonce, expires, finding).await?;
        let at = Instant::now();
        if !repeated {
            let word = if outcome.case.is_some() { "review" } else { "no_duplicate" };
            Metrics::get().identifications_total.with_label_values(&[word]).inc();
        }
        Ok(tell(subject, outcome, repeated).await.map(|()| (outcome, repeated, at)))
    };
    carried(lease.clone(), change).await?
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
