//! From a file and a card to a bundle.

use std::path::Path;

use sha2::{Digest, Sha256};
use vultus_engine::{
    onnx::{self, OnnxError},
    plan::Plan,
    precision::Precision,
};

use super::{
    bundle::{self, Bundle, BundleError},
    contract::{Contract, ContractError},
};

/// Why a file does not become a bundle.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("expected a file that ends in .onnx or .safetensors")]
    Kind,
    #[error(
        "the card does not say what the weights may be used for: expected terms = \"any\" or \"research_only\" under [licence]"
    )]
    Terms,
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(
        "the file's SHA-256 is {got}, the card's source.sha256 is {expected}: this is not the file that the card is of"
    )]
    Source { expected: String, got: String },
    #[error(
        "weights lie in other files, which source.sha256 does not cover: expected the bundle's digest in the card; if the files are \
         what they should be, it is digest = \"{got}\""
    )]
    External { got: String },
}

/// `imported` with what was measured of reduced precisions on the bundle of its name that lies in `models_dir`, as far as that is of
/// these very weights and the card brings no measurement of its own; and the precisions of which something was measured
/// on others.
pub fn with_measured(mut imported: Bundle, models_dir: &Path) -> Result<(Bundle, Vec<Precision>), ContractError> {
    let Ok(before) = Bundle::open(&models_dir.join(&imported.contract().name)) else { return Ok((imported, vec![])) };
    let mut lost = Vec::new();
    for class in before.contract().precisions.iter().filter(|class| before.measured(class)) {
        let known = imported.contract().class(class.precision).is_some_and(|ours| imported.measured(ours));
        if imported.measured(class) && !known {
            imported = imported.with_class(class.clone())?;
        } else if !known {
            lost.push(class.precision);
        }
    }
    Ok((imported, lost))
}

/// Reads the network in `file`: ONNX, or safetensors with a graph in its metadata. The card says the terms of use; its
/// `source.sha256` must be the file's, and `input` and `output` what the network takes and gives; a calibration is of
/// these very weights. Where weights lie in other files than `file`, the card's `digest` stands for them.
pub fn import(file: &Path, card: Contract) -> Result<Bundle, ImportError> {
    if card.licence.terms.is_none() {
        return Err(ImportError::Terms);
    }
    let is = |extension: &str| file.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension));
    let named = card.digest.is_some();
    let (graph, weights, sha256, external) = if is("onnx") {
        let size = (card.input.width, card.input.height);
        let imported = onnx::open(file, size, card.source.output.as_deref())?;
        (imported.graph, imported.weights, imported.sha256, imported.external)
    } else if is("safetensors") {
        let bytes = bundle::read(file, bundle::MAX_FILE)?;
        let (graph, weights) = bundle::parse(&bytes)?;
        (graph, weights, Sha256::digest(&bytes).into(), false)
    } else {
        return Err(ImportError::Kind);
    };
    let (expected, got) = (&card.source.sha256, hex::encode(sha256));
    if *expected != got {
        return Err(ImportError::Source { expected: expected.clone(), got });
    }
    let bundle = Bundle::new(card, graph, weights)?;
    Plan::new(bundle.graph(), bundle.weights()).map_err(BundleError::from)?;
    if external && !named {
        return Err(ImportError::External { got: hex::encode(bundle.digest()) });
    }
    if let Some(face) = &bundle.contract().face {
        face.calibrated_for(&hex::encode(bundle.digest())).map_err(BundleError::from)?;
    }
    Ok(bundle)
}
