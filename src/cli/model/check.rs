//! `vultus model check`: every network of a model opens, agrees with the reference executor in every precision that its card lets it serve in,
//! and the chosen model runs.

use std::{num::NonZeroUsize, path::Path};

use serde::Serialize;
use serde_json::json;
use vultus_engine::{
    executor::LoadError,
    parity::{Agreement, ParityError, Shown, parity},
    precision::Precision,
};

use super::{
    super::{Failure, Outcome, Shared, input, open::cores, runtime},
    Line, line, print,
};
use crate::{
    model::{
        Bundle, Contract, OpenError, Role, bare::Bare, contract::PrecisionClass, detector, list,
        parity::parity_of_class,
    },
    seal::RootKey,
};

/// What one network's executors give.
#[derive(Debug, Default, Serialize)]
struct Compared {
    model: String,
    /// What kept the network, or a precision of its card, from being compared.
    fault: Option<String>,
    agreements: Vec<Agreement>,
    /// Precisions of its card that do not serve here, and why: no faults.
    left_out: Vec<String>,
}

impl Compared {
    fn new(model: String, agreements: Result<Vec<Agreement>, Failure>) -> Self {
        let (agreements, fault) = match agreements {
            Ok(agreements) => (agreements, None),
            Err(fault) => (vec![], Some(fault.to_string())),
        };
        Self { model, fault, agreements, left_out: vec![] }
    }

    /// A bundle in the precision of its contract, and in those that its card lets it serve in besides.
    fn of_bundle(folder: &Path, model: String, images: NonZeroUsize) -> Self {
        let bundle = match Bundle::open(folder) {
            Ok(bundle) => bundle,
            Err(fault) => return Self::new(model, Err(fault.into())),
        };
        let contract = bundle.contract();
        let of_noise = parity(bundle.graph(), bundle.weights(), &contract.input, contract.precision, images, cores());
        let mut compared = Self::new(model, of_noise.map_err(Into::into));
        for class in contract.precisions.iter().filter(|_| contract.role == Role::Embed) {
            compared.hold(&bundle, class);
        }
        if contract.role == Role::Detect {
            compared.hold_small(&bundle, images);
        }
        compared
    }

    /// The detector as images are first shown to it.
    fn hold_small(&mut self, bundle: &Bundle, images: NonZeroUsize) {
        let small = bundle.resized(detector::SMALL_SIDE, detector::outputs(detector::SMALL_SIDE));
        let agreements = small.map_err(Failure::from).and_then(|small| {
            let Contract { input, precision, .. } = small.contract();
            Ok(parity(small.graph(), small.weights(), input, *precision, images, cores())?)
        });
        match agreements {
            Ok(agreements) => self.agreements.extend(agreements),
            Err(fault) => self.fail(&format!("in the small view: {fault}")),
        }
    }

    fn hold(&mut self, bundle: &Bundle, class: &PrecisionClass) {
        let precision = class.precision.as_str();
        if !class.serves() {
            self.left_out.push(format!("{precision}: no measured agreement that reaches the floor"));
            return;
        }
        if !bundle.measured(class) {
            return self.fail(&OpenError::NotMeasured(class.precision).to_string());
        }
        match parity_of_class(bundle, class, cores()) {
            Ok(agreements) => self.agreements.extend(agreements),
            Err(ParityError::Load(lacks @ LoadError::Unsupported(_))) => {
                self.left_out.push(format!("{precision}: the network {lacks}"));
            }
            Err(fault) => self.fail(&format!("{precision}: {fault}")),
        }
    }

    fn fail(&mut self, fault: &str) {
        let before = self.fault.take().map_or(String::new(), |before| before + "; ");
        self.fault = Some(before + fault);
    }

    fn good(&self) -> bool {
        self.fault.is_none() && self.agreements.iter().all(|agreement| agreement.good)
    }

    fn print(&self) {
        if let Some(fault) = &self.fault {
            println!("{}: not compared: {fault}", self.model);
        }
        for left_out in &self.left_out {
            println!("{}: does not serve here in {left_out}", self.model);
        }
        for Agreement { executor, precision, images, shown, one_minus_cosine, allowed, tolerances, good } in
            &self.agreements
        {
            let word = if *good { "agrees" } else { "DISAGREES" };
            let shown = if *shown == Shown::Noise { "images" } else { "golden faces" };
            let tolerances = tolerances.map_or(String::new(), |tolerances| {
                format!(", a value differs by {tolerances:.2} of what the card's agreement explains")
            });
            println!(
                "{}: {executor}, {}: {word} with the reference, 1 - cosine at most {one_minus_cosine:.1e} over {images} {shown} \
                 ({allowed:.1e} allowed){tolerances}",
                self.model,
                precision.as_str()
            );
        }
    }
}

pub fn run(shared: &Shared, images: NonZeroUsize, output: Option<&str>) -> Result<Outcome, Failure> {
    match shared.onnx_file_for(output)? {
        Some(file) => check_file(shared, file, output, images),
        None => check_bundles(shared, images),
    }
}

fn check_file(shared: &Shared, file: &Path, output: Option<&str>, images: NonZeroUsize) -> Result<Outcome, Failure> {
    let opened = Bare::open(file, output).map_err(|e| format!("{}: {e}", file.display()));
    let Bare { input, graph, weights, .. } = opened?;
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
    let (dir, name) = shared.model_place();
    let lines: Vec<Line> = served_with(&dir, name).iter().map(|name| line(&dir, list::check(&dir, name))).collect();
    let faults = lines.iter().filter(|line| line.listed.fault.is_some()).count();
    let compared: Vec<Compared> = (lines.iter().filter(|line| line.listed.fault.is_none()))
        .map(|line| Compared::of_bundle(&dir.join(&line.listed.name), line.listed.name.clone(), images))
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

/// The model and those that it is served with, as far as it says.
fn served_with(dir: &Path, name: &str) -> Vec<String> {
    let face = Bundle::open(&dir.join(name)).ok().and_then(|bundle| bundle.contract().face.clone());
    [Some(name.into()), face.as_ref().map(|f| f.landmarks.clone()), face.map(|f| f.detector)]
        .into_iter()
        .flatten()
        .collect()
}

fn self_test(shared: &Shared) -> Result<(), Failure> {
    let (models, config) = (shared.measurable_model_set()?, input::config(input::ONE_FILE)?);
    let pipeline = shared.tested(&models, &RootKey::random()?, &config)?;
    Ok(runtime()?.block_on(pipeline.run_canary())?)
}
