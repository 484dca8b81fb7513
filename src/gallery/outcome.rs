//! What came of a search.

use crate::domain::CaseId;

/// What a receipt's search found. Recorded once, and answered to whoever holds the receipt, however often it is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// The case to review; `None` when there was no duplicate.
    pub case: Option<CaseId>,
    /// The state that was searched.
    pub epoch: u64,
    /// The expected FNIR of the search; `None` where the card does not know it.
    pub fnir: Option<f64>,
}
