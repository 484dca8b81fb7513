//! `vultus model check`: every network opens, agrees with the reference executor, and the chosen model runs.

use std::{num::NonZeroUsize, path::Path};

use serde::Serialize;
use serde_json::json;

use super::{
    super::{Failure, Outcome, Shared, input, open::cores, runtime},
    lines, print,
};
use crate::{
    model::{
        Bundle, Precision,
        bare::Bare,
        parity::{Agreement, parity},
    },
    seal::RootKey,
};

/// What one network's executors give.
#[derive(Debug, Serialize)]
struct Compared {
    model: String,
    /// What kept it from being compared.
    fault: Option<String>,
    agreements: Vec<Agreement>,
}

impl Compared {
    fn new(model: String, agreements: Result<Vec<Agreement>, Failure>) -> Self {
        match agreements {
            Ok(agreements) => Self { model, fault: None, agreements },
            Err(fault) => Self { model, fault: Some(fault.to_string()), agreements: vec![] },
        }
    }

    fn good(&self) -> bool {
        self.fault.is_none() && self.agreements.iter().all(|agreement| agreement.good)
    }

    fn print(&self) {
        if let Some(fault) = &self.fault {
            println!("{}: not compared: {fault}", self.model);
        }
        for Agreement { executor, precision, one_minus_cosine, images, good } in &self.agreements {
            let word = if *good { "agrees" } else { "DISAGREES" };
            println!(
                "{}: {executor}, {}: {word} with the reference, 1 - cosine at most {one_minus_cosine:.1e} over {images} images",
                self.model,
                precision.as_str()
            );
        }
    }
}

pub fn run(shared: &Shared, images: NonZeroUsize) -> Result<Outcome, Failure> {
    match shared.onnx_file() {
        Some(file) => check_file(shared, file, images),
        None => check_bundles(shared, images),
    }
}

fn check_file(shared: &Shared, file: &Path, images: NonZeroUsize) -> Result<Outcome, Failure> {
    let Bare { input, graph, weights, .. } = Bare::open(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let precision = shared.precision.unwrap_or(Precision::F32);
    let agreements = parity(&graph, &weights, &input, precision, images, cores()).map_err(Into::into);
    let compared = Compared::new(file.display().to_string(), agreements);
    if shared.json {
        println!("{}", json!({ "parity": [&compared] }));
    } else {
        compared.print();
    }
    Ok(if compared.good() { Outcome::Good } else { Outcome::Negative })
}

fn check_bundles(shared: &Shared, images: NonZeroUsize) -> Result<Outcome, Failure> {
    let dir = shared.models_dir();
    let lines = lines(&dir)?;
    let faults = lines.iter().filter(|line| line.listed.fault.is_some()).count();
    let compared: Vec<Compared> = (lines.iter().filter(|line| line.listed.fault.is_none()))
        .map(|line| Compared::new(line.listed.name.clone(), compare(&dir.join(&line.listed.name), images)))
        .collect();
    let tested = self_test(shared);
    if shared.json {
        let failed = tested.as_ref().err().map(ToString::to_string);
        println!(
            "{}",
            json!({ "models": lines, "parity": compared, "self_test": { "model": shared.model, "fault": failed } })
        );
    } else {
        lines.iter().for_each(print);
        compared.iter().for_each(Compared::print);
        match &tested {
            Ok(()) => println!("{}: every network runs", shared.model),
            Err(failure) => println!("{}: {failure}", shared.model),
        }
    }
    let good = faults == 0 && compared.iter().all(Compared::good) && tested.is_ok();
    Ok(if good { Outcome::Good } else { Outcome::Negative })
}

/// In the precision of its contract.
fn compare(folder: &Path, images: NonZeroUsize) -> Result<Vec<Agreement>, Failure> {
    let bundle = Bundle::open(folder)?;
    let contract = bundle.contract();
    Ok(parity(bundle.graph(), bundle.weights(), &contract.input, contract.precision, images, cores())?)
}

fn self_test(shared: &Shared) -> Result<(), Failure> {
    let pipeline = shared.tested_pipeline(&RootKey::random()?, &input::config(input::ONE_FILE)?)?;
    Ok(runtime()?.block_on(pipeline.run_canary())?)
}
