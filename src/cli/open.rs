//! What most subcommands begin with: the model, the key, the galleries, the pipeline.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use vultus_engine::{cpu, device::DeviceChoice, precision::Precision};

use super::{Failure, Shared};
use crate::{
    config::{Config, OnLoss},
    domain::ModelDigest,
    gallery::{self, Galleries},
    model::{Golden, ModelSet},
    pipeline::{Pipeline, Replacement, Settings},
    seal::RootKey,
};

impl Shared {
    /// Where model bundles live.
    pub fn models_dir(&self) -> PathBuf {
        self.models.clone().unwrap_or_else(|| self.data.join("models"))
    }

    /// Where galleries live.
    pub fn galleries_dir(&self) -> PathBuf {
        self.data.join("gallery")
    }

    /// The secret that seals templates and receipts; made at its first use, which is before there are galleries.
    pub fn root_key(&self) -> Result<RootKey, Failure> {
        let path = self.data.join("keys").join("root.key");
        if !Galleries::were_made_in(&self.galleries_dir()) {
            return RootKey::load_or_create(&path).map_err(|e| format!("{}: {e}", path.display()).into());
        }
        let lost = |e| {
            let galleries = self.galleries_dir();
            format!("{}: {e}: expected the key that sealed the galleries in {}", path.display(), galleries.display())
        };
        Ok(RootKey::load(&path).map_err(lost)?)
    }

    /// The chosen model in the precision of its card: to measure others before they are in it.
    pub fn carded_model_set(&self) -> Result<ModelSet, Failure> {
        let (dir, name) = self.model_place();
        let set = ModelSet::open(&dir, name).map_err(|e| {
            format!("{e}\n  models are looked for in {}; `vultus model fetch` puts the default there", dir.display())
        })?;
        Ok(set.with_tunings(self.data.join("tunings")))
    }

    /// The chosen model in the chosen precision, which must be one that may serve on this machine.
    pub fn model_set(&self) -> Result<ModelSet, Failure> {
        let set = self.measurable_model_set()?;
        if set.card().precision == Precision::Bf16 && !cpu::multiplies_bf16() {
            return Err("bf16 on a processor without AVX512_BF16: expected one that has it, or int8; sums would be others, and so would scores and \
                        templates"
                .into());
        }
        Ok(set)
    }

    /// The same on any machine, where nothing is kept of what it gives.
    pub fn measurable_model_set(&self) -> Result<ModelSet, Failure> {
        let set = self.carded_model_set()?;
        match self.precision {
            Some(precision) => Ok(set.with_precision(precision).map_err(|e| format!("--precision {e}"))?),
            None => Ok(set),
        }
    }

    /// The models directory and the name in it that `--model` means.
    pub fn model_place(&self) -> (PathBuf, &str) {
        let path = Path::new(&self.model);
        match (path.parent(), path.file_name().and_then(|name| name.to_str())) {
            (Some(parent), Some(name)) if self.model.contains('/') => (parent.to_path_buf(), name),
            _ => (self.models_dir(), self.model.as_str()),
        }
    }

    /// The file that `--model` names, if it is an ONNX file and no bundle.
    pub fn onnx_file(&self) -> Option<&Path> {
        let path = Path::new(&self.model);
        path.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx")).then_some(path)
    }

    /// As [`Self::onnx_file`]; `output`, of `--output`, is a word about such a file alone.
    pub fn onnx_file_for(&self, output: Option<&str>) -> Result<Option<&Path>, Failure> {
        match self.onnx_file() {
            None if output.is_some() => Err("--output: expected with an ONNX file as --model".into()),
            file => Ok(file),
        }
    }

    pub fn device_choice(&self) -> Result<DeviceChoice, Failure> {
        let choice = DeviceChoice::parse(&self.device).map_err(|e| format!("--device {:?}: {e}", self.device))?;
        choice.check().map_err(|e| format!("--device {e}"))?;
        Ok(choice)
    }

    /// `renamed_model`: the digest that a model's templates had before, and the one that they have now.
    pub fn galleries(
        &self,
        root: &RootKey,
        config: &Config,
        renamed_model: Option<(ModelDigest, ModelDigest)>,
    ) -> Result<Arc<Galleries>, Failure> {
        let dir = self.galleries_dir();
        let opened = Galleries::open(&dir, root, gallery::Settings { renamed_model, ..config.galleries.clone() });
        Ok(Arc::new(opened.map_err(|e| format!("opening the galleries in {}: {e}", dir.display()))?))
    }

    /// The pipeline over the chosen model and device.
    pub fn pipeline(&self, root: &RootKey, config: &Config) -> Result<Pipeline, Failure> {
        self.started(&self.model_set()?, root, config)
    }

    /// The same, able to test itself against the reference executor.
    pub fn tested_pipeline(&self, root: &RootKey, config: &Config) -> Result<Pipeline, Failure> {
        self.tested(&self.model_set()?, root, config)
    }

    /// The same over a model that is open.
    pub fn tested(&self, models: &ModelSet, root: &RootKey, config: &Config) -> Result<Pipeline, Failure> {
        Ok(self.started(models, root, config)?.with_golden(models)?)
    }

    /// The same, without a test of itself but where a reduced precision computes.
    pub fn started(&self, models: &ModelSet, root: &RootKey, config: &Config) -> Result<Pipeline, Failure> {
        let mut executors = models.executors(self.device_choice()?, cores())?;
        // A card says of itself that a reduced precision agrees, and with which ranges: nothing is compared before that was seen.
        if let Some(executor) = executors.first_mut().filter(|_| models.card().precision != Precision::F32) {
            Golden::self_test(models, executor.as_mut())?;
        }
        // Executors of the CPU are never lost, and never replaced.
        let replacement =
            (config.on_loss == OnLoss::Cpu && self.device_choice()? != DeviceChoice::Cpu).then(|| on_the_cpu(models));
        let settings = Settings {
            replacement,
            decode: config.decode,
            batch: config.batch,
            rates: config.rates,
            decoders: cores(),
            pixel_bytes: config.pixel_bytes,
        };
        Ok(Pipeline::start(models, executors, settings, root)?)
    }
}

/// The same networks on the CPU. Weights are kept for it: what lies on the disk by then may be another model.
fn on_the_cpu(models: &ModelSet) -> Replacement {
    let models = models.clone();
    Replacement::new(move || models.executors(DeviceChoice::Cpu, cores()).map_err(|e| e.to_string()))
}

/// Cores that the process may use.
pub fn cores() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
