//! Whether the device still answers rightly: golden faces in ordinary batches, held against the reference executor's answers.

use std::time::{Duration, Instant};

use vultus_engine::executor::{ExecuteError, Sight};

use super::{Pipeline, batch::DeviceError};
use crate::{
    domain::{Lane, Score, Template, Turn, compare},
    model::{Golden, ModelSet, Role},
};

/// The house's own work takes turns with the clients'; a device that takes longer is not fit to serve.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a canary was not answered rightly.
#[derive(Debug, thiserror::Error)]
pub enum CanaryError {
    #[error("the canary was not run: {0}")]
    NotRun(#[from] DeviceError),
    #[error("the device has not answered in {} s", waited.as_secs())]
    Hung { waited: Duration },
    #[error("the {} network differs from the reference by {tolerances} tolerances", role.as_str())]
    Wrong { role: Role, tolerances: f32 },
    #[error("a golden face resembles another more than itself")]
    Pair,
}

impl Pipeline {
    /// Draws the golden faces and asks the reference executor about them: what [`Self::run_canary`] expects.
    ///
    /// # Errors
    /// When the reference executor does not run.
    pub fn with_golden(mut self, models: &ModelSet) -> Result<Self, ExecuteError> {
        self.golden = Golden::of(models)?;
        Ok(self)
    }

    /// Every golden face through the device, among whatever else is in its batches; each answer must be the reference's, and the
    /// pair of one face must be more alike than the pair of two.
    ///
    /// # Errors
    /// [`CanaryError::NotRun`] says nothing of the answers, [`CanaryError::Hung`] that there are none; the others are wrong ones.
    pub async fn run_canary(&self) -> Result<(), CanaryError> {
        self.run_canary_within(PATIENCE).await
    }

    /// The same, of a device that is to answer within `patience`.
    ///
    /// # Errors
    /// As [`Self::run_canary`].
    pub async fn run_canary_within(&self, patience: Duration) -> Result<(), CanaryError> {
        // Work that waits too long is told so when an executor takes it. A second later none has.
        let waited = patience + Duration::from_secs(1);
        let ran = tokio::time::timeout(waited, self.run_golden(Instant::now() + patience)).await;
        ran.unwrap_or(Err(CanaryError::Hung { waited }))
    }

    async fn run_golden(&self, deadline: Instant) -> Result<(), CanaryError> {
        let turn = Turn::own(Lane::Verification, deadline);
        let mut templates = Vec::new();
        for golden in &self.golden {
            let output = self.device.run(golden.role, Sight::Made(golden.image.clone()), &turn).await?;
            let tolerances = golden.deviation(&output.values);
            if tolerances > 1.0 {
                return Err(CanaryError::Wrong { role: golden.role, tolerances });
            }
            if golden.role == Role::Embed {
                templates.push(
                    Template::new(self.model, self.card.metric.features(output.values))
                        .map_err(|_| CanaryError::Pair)?,
                );
            }
        }
        let score = |a: &Template, b: &Template| compare(a, b).map(Score::value).map_err(|_| CanaryError::Pair);
        match templates.as_slice() {
            [one, dimmed, another] if score(one, dimmed)? <= score(one, another)? => Err(CanaryError::Pair),
            _ => Ok(()),
        }
    }
}
