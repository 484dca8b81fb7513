//! A network on disk: a folder with `model.toml` (the contract) and `weights.safetensors` (tensors, and the graph in its
//! metadata). What opens was checked: digest, shapes, limits, finite values.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::Serialize;
use sha2::{Digest, Sha256};
use vultus_engine::{
    graph::{Graph, Shape},
    input::Input,
    precision::Precision,
    shapes::GraphError,
    weights::{MAX_ELEMENTS, Weights, WeightsError, element_count},
};

use super::{
    contract::{Contract, ContractError, MAX_CARD, Output, PrecisionClass},
    role::Role,
};

const CARD_FILE: &str = "model.toml";
const WEIGHTS_FILE: &str = "weights.safetensors";
/// Bytes of a weights file, at most: all elements and a generous header.
pub const MAX_FILE: u64 = 4 * MAX_ELEMENTS as u64 + (16 << 20);

/// Why a folder is not a bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is larger than {limit} bytes")]
    TooLarge { path: PathBuf, limit: u64 },
    #[error(transparent)]
    Contract(#[from] ContractError),
    #[error("weights.safetensors: {0}")]
    SafeTensors(#[from] safetensors::SafeTensorError),
    #[error("weights.safetensors: tensor {name} is not f32")]
    Dtype { name: String },
    #[error("weights.safetensors: its metadata has no graph that this program reads: {0}")]
    GraphText(String),
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error("the network takes {got}, the contract says {expected}")]
    Input { expected: Shape, got: Shape },
    #[error("the network gives {got} values, the contract says {expected}")]
    Output { expected: usize, got: usize },
    #[error("the digest is {got}, expected {expected}: these are not the weights, graph and contract of the card")]
    Digest { expected: String, got: String },
    #[error("model.toml has no digest")]
    NoDigest,
}

/// A checked network.
#[derive(Debug, Clone)]
pub struct Bundle {
    contract: Contract,
    graph: Graph,
    weights: Weights,
    digest: [u8; 32],
}

impl Bundle {
    /// Checks that the three fit together; a digest that the contract names must come out.
    pub fn new(mut contract: Contract, graph: Graph, weights: Weights) -> Result<Self, BundleError> {
        contract.check()?;
        let shapes = graph.shapes(&weights)?;
        let Input { width, height, .. } = contract.input;
        let expected = Shape::new(3, height as usize, width as usize);
        if graph.input != expected {
            return Err(BundleError::Input { expected, got: graph.input });
        }
        let got = shapes.get(graph.output).and_then(|shape| shape.elements()).unwrap_or(0);
        if got != contract.output.dimension {
            return Err(BundleError::Output { expected: contract.output.dimension, got });
        }
        let digest = digest(&contract, &graph, &weights);
        let got = hex::encode(digest);
        match contract.digest.take() {
            Some(expected) if expected != got => return Err(BundleError::Digest { expected, got }),
            _ => contract.digest = Some(got),
        }
        Ok(Self { contract, graph, weights, digest })
    }

    /// Reads and checks the bundle in `folder`.
    pub fn open(folder: &Path) -> Result<Self, BundleError> {
        let card = read(&folder.join(CARD_FILE), MAX_CARD)?;
        let contract = Contract::parse(&String::from_utf8_lossy(&card))?;
        if contract.digest.is_none() {
            return Err(BundleError::NoDigest);
        }
        let (graph, weights) = parse(&read(&folder.join(WEIGHTS_FILE), MAX_FILE)?)?;
        Self::new(contract, graph, weights)
    }

    /// Writes the bundle as `models_dir/NAME`, all or nothing; one that is there is replaced. A crash in the moment between two
    /// renames leaves the old one beside it, as `.NAME.PID.old`.
    pub fn write(&self, models_dir: &Path) -> Result<PathBuf, BundleError> {
        let folder = models_dir.join(&self.contract.name);
        let staging = models_dir.join(format!(".{}.{}.new", self.contract.name, std::process::id()));
        let old = models_dir.join(format!(".{}.{}.old", self.contract.name, std::process::id()));
        let card = self.contract.to_toml()?;
        let weights = self.safetensors()?;
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |source| BundleError::Io { path, source }
        };
        fs::create_dir_all(&staging).map_err(io(&staging))?;
        let written = write_durably(&staging.join(CARD_FILE), card.as_bytes())
            .and_then(|()| write_durably(&staging.join(WEIGHTS_FILE), &weights))
            .and_then(|()| if folder.exists() { fs::rename(&folder, &old) } else { Ok(()) })
            .and_then(|()| {
                let replaced = fs::rename(&staging, &folder);
                if replaced.is_err() && old.exists() {
                    fs::rename(&old, &folder)?;
                }
                replaced
            })
            .and_then(|()| File::open(models_dir)?.sync_all());
        // What is left behind is litter; the error is what matters. The old bundle is litter once there is one in its place.
        let _ = fs::remove_dir_all(&staging);
        if folder.exists() {
            let _ = fs::remove_dir_all(&old); // as above
        }
        written.map_err(io(&folder))?;
        Ok(folder)
    }

    /// Writes the contract of a bundle that lies in `models_dir` already, weights and graph as they are: all or nothing.
    pub fn write_card(&self, models_dir: &Path) -> Result<PathBuf, BundleError> {
        let folder = models_dir.join(&self.contract.name);
        let (card, staging) = (folder.join(CARD_FILE), folder.join(format!(".{CARD_FILE}.{}.new", std::process::id())));
        let text = self.contract.to_toml()?;
        let written = write_durably(&staging, text.as_bytes())
            .and_then(|()| fs::rename(&staging, &card))
            .and_then(|()| File::open(&folder)?.sync_all());
        if let Err(source) = written {
            let _ = fs::remove_file(&staging); // litter
            return Err(BundleError::Io { path: card, source });
        }
        Ok(folder)
    }

    /// The same with another class of precision in its contract, in the place of one of the same precision. The digest is of
    /// what it serves in at first, and stays.
    pub fn with_class(mut self, class: PrecisionClass) -> Result<Self, ContractError> {
        // Other ranges give other templates: thresholds of before say nothing of them.
        let other_ranges = self.contract.class(class.precision).is_some_and(|before| before.ranges != class.ranges);
        if let Some(face) = self.contract.face.as_mut().filter(|_| other_ranges) {
            face.calibration.retain(|table| table.precision != Some(class.precision));
        }
        self.contract.precisions.retain(|other| other.precision != class.precision);
        self.contract.precisions.push(class);
        self.contract.check()?;
        Ok(self)
    }

    /// The same network for square images of another side, of which it gives so many values: another network, with a digest of its own.
    ///
    /// # Errors
    /// Where it takes no such images, or gives another number of values.
    pub fn resized(&self, side: u32, outputs: usize) -> Result<Self, BundleError> {
        let (mut contract, mut graph) = (self.contract.clone(), self.graph.clone());
        (contract.input.width, contract.input.height) = (side, side);
        (contract.output.dimension, contract.digest) = (outputs, None);
        (graph.input.width, graph.input.height) = (side as usize, side as usize);
        Self::new(contract, graph, self.weights.clone())
    }

    /// Whether a class was measured on this very bundle, and is as it was then.
    pub fn measured(&self, class: &PrecisionClass) -> bool {
        class.is_of(&hex::encode(self.digest))
    }

    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// SHA-256 over weights, graph and what of the contract changes outputs.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    fn safetensors(&self) -> Result<Vec<u8>, BundleError> {
        let bytes: Vec<_> = self.weights.iter().map(|(name, w)| (name, w.shape(), to_le(w.values()))).collect();
        let views = (bytes.iter())
            .map(|(name, shape, bytes)| Ok((*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes)?)))
            .collect::<Result<Vec<_>, BundleError>>()?;
        let graph = serde_json::to_string(&self.graph).map_err(|e| BundleError::GraphText(e.to_string()))?;
        Ok(safetensors::serialize(views, Some(HashMap::from([("graph".to_string(), graph)])))?)
    }
}

/// Graph and weights from the bytes of a weights file. Anything may be in them.
pub fn parse(bytes: &[u8]) -> Result<(Graph, Weights), BundleError> {
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let text = header.metadata().as_ref().and_then(|m| m.get("graph"));
    let text = text.ok_or_else(|| BundleError::GraphText("there is none".into()))?;
    let graph = serde_json::from_str(text).map_err(|e| BundleError::GraphText(e.to_string()))?;
    let mut weights = Weights::new();
    for (name, view) in SafeTensors::deserialize(bytes)?.iter() {
        let expected = element_count(name, view.shape())?;
        if view.dtype() != Dtype::F32 {
            return Err(BundleError::Dtype { name: name.into() });
        }
        let (chunks, rest) = view.data().as_chunks::<4>();
        if chunks.len() != expected || !rest.is_empty() {
            return Err(WeightsError::Length { name: name.into(), expected, got: chunks.len() }.into());
        }
        weights.insert(name, view.shape().to_vec(), chunks.iter().map(|b| f32::from_le_bytes(*b)).collect())?;
    }
    Ok((graph, weights))
}

/// What of a contract changes outputs. Its JSON is hashed: the order of the fields and the names of the enums are fixed.
#[derive(Serialize)]
struct Comparable<'a> {
    role: Role,
    precision: Precision,
    input: &'a Input,
    output: &'a Output,
}

/// Every part stands behind its length, so that no two bundles have one encoding.
fn digest(contract: &Contract, graph: &Graph, weights: &Weights) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    let Contract { role, precision, input, output, .. } = contract;
    let comparable = Comparable { role: *role, precision: *precision, input, output };
    part(b"vultus bundle v1");
    // Plain data: serialising it cannot fail, and an empty text would only fail the comparison.
    part(&serde_json::to_vec(&comparable).unwrap_or_default());
    part(&serde_json::to_vec(graph).unwrap_or_default());
    for (name, weight) in weights.iter() {
        part(name.as_bytes());
        part(&weight.shape().iter().flat_map(|&d| (d as u64).to_le_bytes()).collect::<Vec<_>>());
        part(&to_le(weight.values()));
    }
    hash.finalize().into()
}

fn to_le(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A regular file's bytes, of at most `limit`.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, BundleError> {
    let io = |source| BundleError::Io { path: path.into(), source };
    let mut bytes = Vec::new();
    if !path.metadata().map_err(io)?.is_file() {
        return Err(io(io::Error::new(io::ErrorKind::InvalidInput, "expected a regular file"))); // a pipe would be waited for
    }
    File::open(path).map_err(io)?.take(limit + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > limit {
        return Err(BundleError::TooLarge { path: path.into(), limit });
    }
    Ok(bytes)
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
