//! From bytes to decisions: straight lines over stages. Stages are pure where they can be and never import each other.
//!
//! | lines | stages |
//! | --- | --- |
//! | `extract`, `assess` | `decode`, `locate`, `quality`, `align`, `shares`, `batch` |
//! | `photo` | `locate`, once for every face of a photo; and an image that is all face |
//! | `verify` | `extract`, then `decide` and `receipt` |
//! | `identify` | `receipt` and `decide`, around a search of the gallery |
//! | `canary` | `batch`, with golden faces |
//! | `enrol` | `extract`, then a commit to the gallery |

pub mod align;
mod assess;
mod batch;
mod canary;
mod decide;
pub mod decode;
mod enrol;
mod extract;
mod identify;
pub mod locate;
mod photo;
pub mod quality;
mod receipt;
mod shares;
mod verify;

use std::{io, num::NonZeroUsize, sync::Arc};

pub use align::ImplausibleLandmarks;
pub use batch::{BatchLimits, Condition, DeviceError, Replacement};
pub use canary::CanaryError;
pub use decide::{RatePolicy, ThresholdError};
pub use decode::{DecodeError, DecodeLimits};
pub use enrol::ExtractReferenceError;
pub use extract::{Extract, ExtractError, Extracting, Extraction, FaceInput, ImageInput, Timings};
pub use identify::{Identified, IdentifyError, Search, Tell, Telling};
pub use photo::PhotoFace;
pub use receipt::{Bearer, MAX_RECEIPT_BYTES, Now, RECEIPT_LIFETIME, ReceiptError, Receipts};
pub use verify::{Claim, Claimant, Verified, VerifyError};

use sha2::{Digest, Sha256};
use tokio::sync::watch;
use vultus_engine::executor::Executor;

use crate::{
    domain::{Calibration, ExtractionVersion, ModelDigest},
    model::{Card, Golden, ModelSet},
    seal::RootKey,
};
use batch::Device;
use identify::Identification;
use shares::Shares;

/// What the operator sets.
#[derive(Debug, Clone)]
pub struct Settings {
    pub decode: DecodeLimits,
    pub batch: BatchLimits,
    pub rates: RatePolicy,
    /// Images decoded, judged or aligned at a time: each takes a core.
    pub decoders: NonZeroUsize,
    /// Bytes of decoded images held at a time, a quarter of them enrolments'; more wait.
    pub pixel_bytes: usize,
    /// What computes once the device is lost; without it nothing does.
    pub replacement: Option<Replacement>,
}

/// One model on one device, and the lines that lead to it.
#[derive(Debug)]
pub struct Pipeline {
    card: Card,
    calibration: Arc<Calibration>,
    model: ModelDigest,
    renamed_model: (ModelDigest, ModelDigest),
    extraction: ExtractionVersion,
    device: Arc<Device>,
    decode: DecodeLimits,
    rates: RatePolicy,
    shared: Shared,
    shared_by_enrolments: Shared,
    receipts: Receipts,
    identification: Identification,
    /// Empty until [`Self::with_golden`].
    golden: Vec<Golden>,
    /// In place of this pipeline's own stages.
    extractor: Option<Arc<dyn Extract>>,
}

/// What the requests of some lanes share.
#[derive(Debug)]
struct Shared {
    /// Threads for work on pixels.
    cores: Shares,
    /// Room for decoded images, KiB.
    pixels: Shares,
}

impl Shared {
    fn new(cores: usize, pixel_kib: usize) -> Self {
        Self { cores: Shares::new("core", cores), pixels: Shares::new("pixels", pixel_kib.max(1)) }
    }
}

impl Pipeline {
    /// Starts the device's threads, one for each executor: those of one device, all alike.
    ///
    /// # Errors
    /// When there is no executor, or the system gives no thread.
    pub fn start(
        models: &ModelSet,
        executors: Vec<Box<dyn Executor>>,
        settings: Settings,
        root: &RootKey,
    ) -> io::Result<Self> {
        let pixel_room = settings.pixel_bytes >> 10;
        let (calibration, model) = (Arc::new(models.card().calibration.clone()), models.template_digest());
        let receipts = Receipts::new(root);
        Ok(Self {
            card: models.card().clone(),
            identification: Identification::new(receipts.clone(), Arc::clone(&calibration), settings.rates, model),
            calibration,
            model,
            renamed_model: models.renamed(),
            extraction: extraction_version(models),
            device: Arc::new(Device::start(executors, settings.batch, settings.replacement)?),
            decode: settings.decode,
            rates: settings.rates,
            shared: Shared::new(settings.decoders.get(), pixel_room - pixel_room / 4),
            shared_by_enrolments: Shared::new(settings.decoders.get().div_ceil(2), pixel_room / 4),
            receipts,
            golden: Vec::new(),
            extractor: None,
        })
    }

    /// The same, with templates made by another: to measure what is around them. Faces are then looked for in `assess` alone.
    pub fn extracting_with(self, extractor: Arc<dyn Extract>) -> Self {
        Self { extractor: Some(extractor), ..self }
    }

    /// The digest that stands on every template.
    pub fn model(&self) -> ModelDigest {
        self.model
    }

    /// The digest that stood on these templates before, and [`Self::model`].
    pub fn renamed_model(&self) -> (ModelDigest, ModelDigest) {
        self.renamed_model
    }

    /// What stands beside each reference: how its face was found.
    pub fn extraction_version(&self) -> ExtractionVersion {
        self.extraction
    }

    /// Values of a template.
    pub fn dimension(&self) -> usize {
        self.card.dimension
    }

    pub fn calibration(&self) -> &Arc<Calibration> {
        &self.calibration
    }

    /// Batches that run at a time.
    pub fn executors(&self) -> usize {
        self.device.executors()
    }

    /// What the device is fit for, and every change of it.
    pub fn condition(&self) -> watch::Receiver<Condition> {
        self.device.condition()
    }

    /// False once the device has failed.
    pub fn is_running(&self) -> bool {
        self.device.is_running()
    }
}

/// Of both networks that find a face, and of what is made of their answers.
fn extraction_version(models: &ModelSet) -> ExtractionVersion {
    let all = Sha256::new().chain_update(models.located_by()).chain_update(locate::VERSION).finalize();
    ExtractionVersion::new(std::array::from_fn(|at| all[at]))
}
