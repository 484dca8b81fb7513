//! The null model: everything but the faces, so that what the transport costs can be measured alone.

use super::Core;
use crate::{
    domain::{Fmr, Turn},
    pipeline::{Claim, FaceInput, Verified, VerifyError},
};

impl Core {
    /// A core that verifies nobody: a verification is checked as any other, then answered with a non-match and without a receipt,
    /// its images not decoded. For the benchmark alone; no setting of a server leads here.
    pub fn with_null_model(self) -> Self {
        Self { null_model: true, ..self }
    }

    /// [`crate::pipeline::Pipeline::verify`], or the null model's answer.
    pub(super) async fn verify(
        &self,
        probe: FaceInput,
        claim: Claim<'_>,
        max_fmr: Option<Fmr>,
        turn: &Turn,
    ) -> Result<Verified, VerifyError> {
        if self.null_model {
            return Ok(self.pipeline.non_match(max_fmr)?);
        }
        self.pipeline.verify(probe, claim, max_fmr, turn).await
    }
}
