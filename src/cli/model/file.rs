//! `vultus model run`, `vultus model import FILE --card CARD`: networks from files.

use std::{
    fs,
    io::{BufWriter, Write},
    num::NonZeroUsize,
    path::Path,
};

use serde_json::json;
use vultus_engine::{
    cpu::instructions,
    executor::{self, NetworkId},
    image::Pixels,
    precision::Precision,
};

use super::super::{Failure, Outcome, Shared, open::cores};
use crate::model::{
    Bundle, BundleError, Contract,
    bare::Bare,
    bundle::read,
    contract::MAX_CARD,
    import::{self, ImportError},
};

/// Bytes of raw images, at most.
const MAX_IMAGES: u64 = 1 << 30;

/// Images in, outputs out, as other engines can read and write them.
#[derive(Debug, clap::Args)]
pub struct RunOptions {
    /// Raw images of the network's size, one after the other: rows of R G B bytes.
    #[arg(long)]
    images: std::path::PathBuf,
    /// More of them, from which int8 takes the activation ranges. Without it: from those that are run.
    #[arg(long)]
    ranges_from: Option<std::path::PathBuf>,
    /// Written anew: each image's outputs, 32-bit floats, little-endian.
    #[arg(long)]
    outputs: std::path::PathBuf,
    /// Of a file with several outputs: the name of the one to take.
    #[arg(long)]
    output: Option<String>,
    /// Images that run together.
    #[arg(long, default_value = "8")]
    batch: NonZeroUsize,
    /// Uses the reference executor, which is slow.
    #[arg(long)]
    reference: bool,
}

pub fn run(options: &RunOptions, shared: &Shared) -> Result<Outcome, Failure> {
    let file = shared.onnx_file().ok_or("--model: expected an ONNX file")?;
    let bare = Bare::open(file, options.output.as_deref()).map_err(|e| format!("{}: {e}", file.display()))?;
    let images = raw_images("--images", &options.images, &bare)?;
    let seen = options.ranges_from.as_ref().map(|path| raw_images("--ranges-from", path, &bare)).transpose()?;
    let images: Vec<&Pixels> = images.iter().collect();
    let seen = seen.as_ref().map_or(images.clone(), |seen| seen.iter().collect());
    let mut out = BufWriter::new(
        fs::File::create(&options.outputs).map_err(|e| format!("--outputs {}: {e}", options.outputs.display()))?,
    );
    let mut keep = |outputs: Vec<Vec<f32>>| -> Result<usize, Failure> {
        for value in outputs.iter().flatten() {
            out.write_all(&value.to_le_bytes())?;
        }
        Ok(outputs.first().map_or(0, Vec::len))
    };
    let mut dimension = 0;
    if options.reference {
        for images in images.chunks(options.batch.get()) {
            dimension = keep(bare.reference(images)?)?;
        }
    } else {
        let precision = shared.precision.unwrap_or(Precision::F32);
        let (mut executor, _) = bare.into_executor(precision, shared.device_choice()?, cores(), &seen)?;
        let most = executor.batching(NetworkId(0)).sizes.last().copied().unwrap_or(1);
        for images in images.chunks(options.batch.get().min(most)) {
            dimension = keep(executor::run(executor.as_mut(), NetworkId(0), images)?)?;
        }
    }
    out.flush()?;
    let isa = if options.reference { "reference" } else { instructions() };
    if shared.json {
        println!("{}", json!({ "images": images.len(), "dimension": dimension, "isa": isa }));
    } else {
        println!("{}: {} images, {dimension} values each", options.outputs.display(), images.len());
    }
    Ok(Outcome::Good)
}

fn raw_images(option: &str, path: &Path, bare: &Bare) -> Result<Vec<Pixels>, Failure> {
    let (width, height) = (bare.input.width, bare.input.height);
    let bytes = read(path, MAX_IMAGES)?;
    let each = width as usize * height as usize * 3;
    if bytes.is_empty() || bytes.len() % each != 0 {
        let got = bytes.len();
        return Err(format!("{option}: expected images of {width}x{height}, {each} bytes each, got {got} bytes").into());
    }
    Ok(bytes.chunks_exact(each).map(|rgb| Pixels::new(width, height, rgb.to_vec())).collect::<Result<_, _>>()?)
}

/// A file and its card become a bundle; `output` is what the card says in `source.output`.
pub fn import_with_card(file: &Path, card: &Path, output: Option<&str>, shared: &Shared) -> Result<Outcome, Failure> {
    let text = read(card, MAX_CARD)?;
    let name = card.display();
    let mut card = Contract::parse(&String::from_utf8_lossy(&text)).map_err(|e| format!("{name}: {e}"))?;
    if let Some(output) = output {
        if !file.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx")) {
            return Err("--output: expected with an ONNX file, which alone can have several".into());
        }
        if let Some(other) = card.source.output.as_deref().filter(|other| *other != output) {
            return Err(format!("--output {output}: {name} says {other:?} in source.output").into());
        }
        card.source.output = Some(output.into());
    }
    let imported = import::import(file, card).map_err(|e| match e {
        // These name the file themselves.
        ImportError::Bundle(e @ (BundleError::Io { .. } | BundleError::TooLarge { .. })) => e.to_string(),
        e => format!("{}: {e}", file.display()),
    })?;
    let models = shared.models_dir();
    let (imported, lost) = import::with_measured(imported, &models)?;
    for precision in lost {
        eprintln!(
            "{}: what was measured of it on other weights is dropped: `vultus model calibrate`",
            precision.as_str()
        );
    }
    let folder = imported.write(&models)?;
    report(&imported, &folder, shared);
    Ok(Outcome::Good)
}

fn report(bundle: &Bundle, folder: &Path, shared: &Shared) {
    let (contract, digest) = (bundle.contract(), hex::encode(bundle.digest()));
    if shared.json {
        println!("{}", json!({ "written": [&contract.name], "digest": digest }));
    } else {
        println!("{}: written\n  digest {digest}", folder.display());
    }
}
