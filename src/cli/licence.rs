//! The gate of licences: weights for research alone answer about nobody, and store nobody, unless the operator says so.

use super::{Failure, Shared};
use crate::model::ModelSet;

/// Says so where there is no configuration.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Research {
    /// Uses weights whose card says that they are for research alone; the log keeps it.
    #[arg(long = "research-only-models")]
    pub allowed: bool,
}

impl Shared {
    /// [`Self::model_set`] for a command that answers about people or stores them.
    pub fn licensed_model_set(&self, research: Research) -> Result<ModelSet, Failure> {
        let models = self.model_set()?;
        check(&models, research.allowed, "--research-only-models")?;
        Ok(models)
    }
}

/// Of the three networks none may be for research alone, unless that is `allowed`; `setting` is what would allow it.
pub fn check(models: &ModelSet, allowed: bool, setting: &str) -> Result<(), Failure> {
    for contract in models.research_only() {
        let (name, role, licence) = (&contract.name, contract.role.as_str(), &contract.licence.spdx);
        if !allowed {
            return Err(format!(
                "the model {name:?} ({role}) is licensed for research alone ({licence}): expected {setting}, or another model"
            )
            .into());
        }
        tracing::warn!(model = %name, role, %licence, "using weights that are licensed for research alone: the operator says so");
    }
    Ok(())
}
