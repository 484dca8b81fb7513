//! The networks that work together: found, aligned, embedded.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use vultus_engine::{
    candle::{CandleExecutor, Written},
    device::{DeviceChoice, DeviceError},
    executor::{ExecuteError, LoadError, Planned},
    int8,
    plan::Plan,
    precision::Precision,
};

use super::{
    bundle::{Bundle, BundleError},
    contract::{Contract, ContractError, FaceContract, Metric, Terms, is_name},
    detector, landmarks,
    role::Role,
    tunings::Tunings,
};
use crate::domain::{Alignment, Calibration, ModelDigest, QualityThresholds};

/// Why a model does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0:?} is no name of a model: expected 1 to 64 characters of a-z 0-9 - _")]
    Name(String),
    #[error("the {} bundle {name:?} does not open: {source}", role.as_str())]
    Bundle { role: Role, name: String, source: Box<BundleError> },
    #[error("the bundle {name:?} is for the role {}, expected {}", got.as_str(), expected.as_str())]
    Role { name: String, expected: Role, got: Role },
    #[error("the {} network gives {got} values, what reads them takes {expected}", role.as_str())]
    Output { role: Role, expected: usize, got: usize },
    #[error(
        "the detector {name:?} takes no images of {side} x {side} pixels ({source}): expected a network that slides over images of any size"
    )]
    Slides { name: String, side: u32, source: Box<BundleError> },
    #[error(transparent)]
    Contract(#[from] ContractError),
    #[error("the {} network {source}", role.as_str())]
    Network { role: Role, source: LoadError },
    #[error("{}: the card has no measured agreement with f32 that reaches a floor (`precisions` in model.toml)", .0.as_str())]
    Agreement(Precision),
    #[error(
        "{}: what the card says of it was not measured on these weights, or was changed since: run `vultus model calibrate`", .0.as_str()
    )]
    NotMeasured(Precision),
    #[error(transparent)]
    DeviceChoice(#[from] DeviceError),
    #[error(
        "{device} runs the face network in int8 alone, the model's card says {}: expected --precision int8, or --device cpu", precision.as_str()
    )]
    OnDevice { device: DeviceChoice, precision: Precision },
    #[error("the tuning that was kept cannot be removed: {source}")]
    Tuning { source: std::io::Error },
    #[error("{device} does not run golden faces: {source}")]
    SelfTest { device: DeviceChoice, source: ExecuteError },
    #[error("{device} does not give the CPU's bits for golden faces, and is not to be trusted")]
    Bits { device: DeviceChoice },
}

/// What the rest of the program knows of a model.
#[derive(Debug, Clone)]
pub struct Card {
    pub name: String,
    pub version: String,
    pub licence: String,
    /// Values of a template.
    pub dimension: usize,
    pub alignment: Alignment,
    pub precision: Precision,
    pub metric: Metric,
    pub calibration: Calibration,
    pub quality: QualityThresholds,
}

/// Detector, landmark and face bundle.
#[derive(Debug, Clone)]
pub struct ModelSet {
    /// The detector in a smaller view.
    small_detector: Bundle,
    detector: Bundle,
    landmark: Bundle,
    face: Bundle,
    card: Card,
    tunings: Tunings,
}

impl ModelSet {
    /// Opens the face bundle `models_dir/name` and the two that it names.
    pub fn open(models_dir: &Path, name: &str) -> Result<Self, OpenError> {
        let open = |role: Role, name: &str| {
            if !is_name(name) {
                return Err(OpenError::Name(name.chars().take(80).collect()));
            }
            let failed = |e| OpenError::Bundle { role, name: name.into(), source: Box::new(e) };
            Bundle::open(&models_dir.join(name)).map_err(failed)
        };
        let face = open(Role::Embed, name)?;
        // A bundle of another role has no such part, and is refused below.
        let (detects, places) =
            face.contract().face.as_ref().map_or(("", ""), |f| (f.detector.as_str(), f.landmarks.as_str()));
        let of_role = |role| OpenError::Role { name: name.into(), expected: Role::Embed, got: role };
        if face.contract().role != Role::Embed {
            return Err(of_role(face.contract().role));
        }
        let (detector, landmark) = (open(Role::Detect, detects)?, open(Role::Landmark, places)?);
        Self::new(detector, landmark, face)
    }

    /// Of bundles that are already open.
    pub fn new(detector: Bundle, landmark: Bundle, face: Bundle) -> Result<Self, OpenError> {
        for (bundle, expected) in [(&detector, Role::Detect), (&landmark, Role::Landmark), (&face, Role::Embed)] {
            let got = bundle.contract().role;
            if got != expected {
                return Err(OpenError::Role { name: bundle.contract().name.clone(), expected, got });
            }
        }
        for (bundle, expected) in
            [(&detector, detector::outputs(detector::INPUT_SIDE)), (&landmark, landmarks::OUTPUTS)]
        {
            let (role, got) = (bundle.contract().role, bundle.contract().output.dimension);
            if got != expected {
                return Err(OpenError::Output { role, expected, got });
            }
        }
        let small_detector = small(&detector)?;
        let contract = face.contract();
        let missing = ContractError::Value("face: expected for the role embed, and for no other");
        let promise: &FaceContract = contract.face.as_ref().ok_or(missing)?;
        promise.calibrated_for(&hex::encode(face.digest()))?;
        let card = Card {
            name: contract.name.clone(),
            version: contract.version.clone(),
            licence: contract.licence.spdx.clone(),
            dimension: contract.output.dimension,
            alignment: promise.alignment,
            precision: contract.precision,
            metric: promise.metric,
            calibration: promise.calibration(contract.precision)?,
            quality: promise.quality_thresholds()?,
        };
        Ok(Self { small_detector, detector, landmark, face, card, tunings: Tunings::default() })
    }

    /// The same, with a folder where it keeps what it measures of cards.
    #[must_use]
    pub fn with_tunings(mut self, folder: PathBuf) -> Self {
        self.tunings = Tunings(Some(folder));
        self
    }

    pub(super) fn tunings(&self) -> &Tunings {
        &self.tunings
    }

    /// The same in another precision, if its measured agreement with f32 lets it serve. Its templates are not compared
    /// with those of the first, nor are its scores with the first's thresholds.
    ///
    /// # Errors
    /// [`OpenError::Agreement`], [`OpenError::NotMeasured`].
    pub fn with_precision(mut self, precision: Precision) -> Result<Self, OpenError> {
        let contract = self.face.contract();
        if precision != contract.precision {
            match contract.class(precision).filter(|class| class.serves()) {
                None => return Err(OpenError::Agreement(precision)),
                Some(class) if !self.face.measured(class) => return Err(OpenError::NotMeasured(precision)),
                Some(_) => {}
            }
        }
        if let Some(face) = &contract.face {
            self.card.calibration = face.calibration(precision)?;
        }
        self.card.precision = precision;
        Ok(self)
    }

    pub fn bundle(&self, role: Role) -> &Bundle {
        match role {
            Role::DetectSmall => &self.small_detector,
            Role::Detect => &self.detector,
            Role::Landmark => &self.landmark,
            Role::Embed => &self.face,
        }
    }

    /// What is promised of those of the three that may serve only where the operator says so.
    pub fn research_only(&self) -> impl Iterator<Item = &Contract> {
        let contracts = [&self.face, &self.landmark, &self.detector].map(Bundle::contract).into_iter();
        contracts.filter(|contract| contract.licence.terms == Some(Terms::ResearchOnly))
    }

    pub fn card(&self) -> &Card {
        &self.card
    }

    /// Covers all that makes templates comparable: face bundle, alignment, precision class, metric. What finds the face and places its
    /// landmarks moves the crop a little and is not in it: [`Self::located_by`].
    pub fn template_digest(&self) -> ModelDigest {
        self.digest(b"vultus template v2", None)
    }

    /// The digest that these templates had when the landmark network was part of it, and the one that they have now.
    pub fn renamed(&self) -> (ModelDigest, ModelDigest) {
        (self.digest(b"vultus template v1", Some(&self.landmark)), self.template_digest())
    }

    /// A digest of what finds a face and places its landmarks: both networks, which run in f32.
    pub fn located_by(&self) -> [u8; 32] {
        digest_of(&[b"vultus located v1", self.detector.digest(), self.landmark.digest(), b"f32"]).finalize().into()
    }

    fn digest(&self, of: &[u8], landmark: Option<&Bundle>) -> ModelDigest {
        let Card { alignment, precision, metric, .. } = &self.card;
        let (alignment, precision_name) = (alignment.as_str().as_bytes(), precision.as_str().as_bytes());
        let mut hash = match landmark {
            None => digest_of(&[of, self.face.digest(), alignment, precision_name]),
            Some(landmark) => digest_of(&[of, self.face.digest(), landmark.digest(), alignment, precision_name]),
        };
        // Another arithmetic gives other bits, and other ranges round other values.
        if *precision == Precision::Int8 {
            hash.update(int8::VERSION);
            for range in self.face.contract().ranges() {
                hash.update((range.value as u64).to_le_bytes());
                hash.update(range.low.to_le_bytes());
                hash.update(range.high.to_le_bytes());
            }
        }
        // Named only where it is not the first there was, so that templates of before stay comparable.
        if *metric == Metric::Cosine {
            hash.update(b"cosine");
        }
        ModelDigest::new(hash.finalize().into())
    }

    /// The oracle: slow and plain.
    pub fn reference_executor(&self) -> CandleExecutor {
        let written = |role| {
            let bundle = self.bundle(role);
            let (graph, weights) = (bundle.graph().clone(), bundle.weights().clone());
            Written { graph, weights, input: bundle.contract().input.clone() }
        };
        CandleExecutor::new(Role::ALL.map(written).into())
    }

    /// What an executor takes, a network for each role. `precision` is the face network's.
    pub(super) fn networks(&self, precision: Precision) -> Result<Vec<Planned>, OpenError> {
        let planned = |role: Role| {
            let bundle = self.bundle(role);
            let contract = bundle.contract();
            // Boxes and landmarks stay exact: only templates are compared by precision class.
            let precision = if role == Role::Embed { precision } else { Precision::F32 };
            let plan = Plan::new(bundle.graph(), bundle.weights()).map_err(LoadError::from);
            let plan = plan.and_then(|plan| match precision {
                Precision::Int8 => Ok(plan.with_ranges(contract.ranges())?),
                Precision::F32 | Precision::Bf16 => Ok(plan),
            });
            let plan = plan.map_err(|source| OpenError::Network { role, source })?;
            Ok(Planned { plan, input: contract.input.clone(), precision })
        };
        Role::ALL.into_iter().map(planned).collect()
    }
}

/// The detector as it takes a smaller view: its weights slide over images of any size. It is made here and never written.
fn small(detector: &Bundle) -> Result<Bundle, OpenError> {
    let side = detector::SMALL_SIDE;
    let name = detector.contract().name.clone();
    detector.resized(side, detector::outputs(side)).map_err(|e| OpenError::Slides { name, side, source: Box::new(e) })
}

/// Over all parts, each with its length.
fn digest_of(parts: &[&[u8]]) -> Sha256 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash
}
