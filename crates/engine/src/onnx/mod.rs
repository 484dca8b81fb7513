//! Reads ONNX: the operations that face networks use, opset 8 and later. What is not known is refused with the node's
//! name, its operation and the reason; nothing is approximated. Anything may be in a file: every size is bounded before
//! it is allocated.

mod arithmetic;
mod attributes;
mod census;
mod constant;
mod ends;
mod operators;
mod reduce;
mod shapes;
#[cfg(test)]
mod tests;
mod wire;
mod wiring;

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use prost::{Message, bytes::Bytes};
use sha2::{Digest, Sha256};

use super::{
    graph::Graph,
    weights::{MAX_ELEMENTS, Weights},
};
use proto::ModelProto;

/// What `proto/onnx/onnx.proto` says.
#[allow(missing_docs, clippy::all)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}

/// Bytes of a file, at most: all elements as f32 and a generous description.
pub const MAX_FILE: u64 = 4 * MAX_ELEMENTS as u64 + (16 << 20);
/// The first opset that is read; later ones are read as far as their operators are known.
pub const MIN_OPSET: i64 = 8;

/// Why a file is no network that this program reads.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("more {what} than this program reads, {limit}")]
    TooLarge { what: &'static str, limit: u64 },
    #[error("the file ends in the middle of something: it is truncated, or no ONNX file")]
    Truncated,
    #[error("this is no ONNX file")]
    Wire,
    #[error("this is no ONNX file: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error("{0}")]
    Model(String),
    #[error("tensor {name:?}: {reason}")]
    Tensor { name: String, reason: String },
    #[error("node {node:?} ({op}): {reason}")]
    Node { node: String, op: String, reason: String },
}

/// A network as it stands in a file.
#[derive(Debug)]
pub struct Imported {
    pub graph: Graph,
    pub weights: Weights,
    /// Of the file itself.
    pub sha256: [u8; 32],
    /// Whether weights lie in other files, of which `sha256` says nothing.
    pub external: bool,
}

/// Reads the network in the file `path`. `size`, width and height, is what a file whose input has no fixed size gets;
/// `output` names the output to take, where there are several. What others alone need is not read.
///
/// # Errors
/// See [`OnnxError`], whose words do not name the file; never a panic.
pub fn open(path: &Path, size: (u32, u32), output: Option<&str>) -> Result<Imported, OnnxError> {
    // Before it is opened: opening a pipe would wait for its other end.
    let metadata = path.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "expected a regular file").into());
    }
    let (file, length) = (File::open(path)?, metadata.len());
    if length > MAX_FILE {
        return Err(OnnxError::TooLarge { what: "bytes in the file", limit: MAX_FILE });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0).saturating_add(1));
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(OnnxError::TooLarge { what: "bytes in the file", limit: MAX_FILE });
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    parse(bytes.into(), folder, size, output)
}

/// Reads a network from a file's bytes; `folder` is where its external data may lie.
pub fn parse(file: Bytes, folder: &Path, size: (u32, u32), output: Option<&str>) -> Result<Imported, OnnxError> {
    census::check(&file)?;
    let sha256 = Sha256::digest(&file).into();
    // The tensors are slices of the file from here on.
    let model = ModelProto::decode(file)?;
    let (graph, weights, external) = wire::wire(model, folder, size, output)?;
    Ok(Imported { graph, weights, sha256, external })
}

/// A name from a file, for an error's text.
fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}
