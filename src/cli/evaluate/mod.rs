//! `vultus evaluate`: how often is the model right on pairs whose truth is known?

mod claims;
mod groups;
mod pairs;
mod statistics;

use std::{path::PathBuf, sync::Arc};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use self::{
    claims::{ClaimsError, Line, Rule, Sample},
    groups::GroupLine,
    pairs::Pairs,
    statistics::{Best, Point, RankOne, Trial},
};
use super::{
    Failure, Outcome, Shared, input,
    report::{Refused, in_words, printable},
};
use crate::{
    domain::{Lane, compare},
    model::{Card, Role},
    pipeline::{FaceInput, ImageInput, Pipeline},
    seal::RootKey,
};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// The pairs: CSV with the header `a,b,mated`; a and b are images, relative to the file; mated is 1 or 0. A fourth column, `group`, is
    /// counted for itself.
    #[arg(long)]
    pairs: PathBuf,
    /// How faces are brought to the network.
    #[arg(long, value_enum, default_value_t)]
    alignment: Alignment,
    /// Refuses images whose quality is below the model's thresholds, as the service does, and says what the card's rates come to on those that
    /// are accepted, by group. Otherwise only a missing face is refused.
    #[arg(long)]
    quality: bool,
    /// Measures claims as well: probes against several references of a person, by number and by the rule that joins their scores. People are
    /// those whom mated pairs join.
    #[arg(long)]
    claims: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Alignment {
    /// As the service does: by landmarks.
    #[default]
    Landmarks,
    /// The whole image is the face.
    Whole,
}

/// The rates of a card's calibration table; those that the trials cannot show are left out.
const RATES: [f64; 7] = [0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001];

/// What an evaluation found.
#[derive(Debug, Serialize)]
struct Report {
    /// Pairs that were compared.
    pairs: usize,
    mated: usize,
    non_mated: usize,
    /// Images without a template.
    failures: Vec<Refused>,
    /// Pairs that were left out for them.
    pairs_left_out: usize,
    best_accuracy: Option<f64>,
    best_threshold: Option<f32>,
    rank1_correct: usize,
    rank1_total: usize,
    fnmr_at_fmr: Vec<Point>,
    /// Mean and standard deviation of non-mated scores; none with fewer than two.
    non_mated_mean: Option<f64>,
    non_mated_standard_deviation: Option<f64>,
    /// At the card's thresholds, over accepted images, where quality was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    accepted: Vec<GroupLine>,
    /// Claims, where they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    claims: Vec<Line>,
    /// The digest of templates, as answers carry it.
    model: String,
    /// The digest of the bundle: what `face.calibration.of` says of a table of these figures.
    of: String,
    /// What `face.calibration.precision` says.
    precision: &'static str,
    /// How faces were found: it stands beside references, and is not part of `model`.
    extraction: String,
}

pub fn run(options: &Options, shared: &Shared) -> Result<Outcome, Failure> {
    let pairs = Pairs::open(&options.pairs).map_err(|e| format!("{}: {e}", options.pairs.display()))?;
    // Whatever the licence: how often weights are right is research.
    let models = shared.measurable_model_set()?;
    let of = (hex::encode(models.bundle(Role::Embed).digest()), models.card().precision.as_str());
    let pipeline = shared.started(&models, &RootKey::random()?, &input::config(input::MANY_FILES)?)?;
    let pipeline = if options.quality { pipeline } else { pipeline.ignoring_quality() };
    let (model, extraction) = (pipeline.model().to_string(), pipeline.extraction_version().to_string());
    let samples = super::runtime()?.block_on(extract_all(Arc::new(pipeline), options, &pairs))?;
    let report = judge(&pairs, &samples, options, models.card(), (model, extraction), of)?;
    if shared.json {
        println!("{}", serde_json::to_string(&report)?)
    } else {
        print(&report, options.claims)
    }
    Ok(if report.failures.is_empty() { Outcome::Good } else { Outcome::Negative })
}

/// One for each image: its template, or why there is none.
type Samples = Vec<Result<Sample, String>>;

async fn extract_all(pipeline: Arc<Pipeline>, options: &Options, pairs: &Pairs) -> Result<Samples, Failure> {
    let bar = ProgressBar::new(pairs.images.len() as u64); // on stderr, and only if that is a terminal
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos} of {len} images, {eta} to go")?);
    let mut samples: Samples = vec![Err("not extracted".into()); pairs.images.len()];
    let (alignment, claims) = (options.alignment, options.claims);
    let work = |(number, image): (usize, &String)| {
        let (pipeline, path) = (Arc::clone(&pipeline), Pairs::path(&options.pairs, image));
        async move { (number, extract(&pipeline, path, alignment, claims).await) }
    };
    let done = |(number, sample): (usize, _)| {
        if let Some(place) = samples.get_mut(number) {
            *place = sample;
        }
        bar.inc(1);
    };
    input::in_flight(pairs.images.iter().enumerate(), work, done).await?;
    bar.finish_and_clear();
    Ok(samples)
}

async fn extract(pipeline: &Pipeline, path: PathBuf, alignment: Alignment, claims: bool) -> Result<Sample, String> {
    let read = tokio::task::spawn_blocking(move || input::read(&path, input::MANY_FILES.max_bytes));
    let file = read.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    let image = || ImageInput::Encoded(file.clone());
    let turn = || input::turn(Lane::Enrolment);
    let template = match alignment {
        Alignment::Whole => pipeline.extract_whole(image(), input::deadline()).await.map_err(|e| e.to_string())?,
        Alignment::Landmarks => {
            let face = FaceInput { image: image(), landmarks: None };
            let extraction = pipeline.extract(face, &turn()).await;
            extraction.map_err(|e| e.to_string())?.outcome.map_err(|assessment| in_words(&assessment))?
        }
    };
    let mut quality = 0;
    if claims {
        let face = FaceInput { image: image(), landmarks: None };
        let (assessment, _) = pipeline.assess(face, &turn()).await.map_err(|e| e.to_string())?;
        quality = assessment.measures.iter().map(|measure| measure.value).min().unwrap_or(0);
    }
    Ok(Sample { template, quality })
}

fn judge(
    pairs: &Pairs,
    samples: &[Result<Sample, String>],
    options: &Options,
    card: &Card,
    (model, extraction): (String, String),
    (of, precision): (String, &'static str),
) -> Result<Report, Failure> {
    let template = |number: usize| samples.get(number).and_then(|s| s.as_ref().ok()).map(|s| &s.template);
    let mut trials = Vec::with_capacity(pairs.pairs.len());
    for pair in &pairs.pairs {
        if let (Some(a), Some(b)) = (template(pair.a), template(pair.b)) {
            trials.push(Trial { a: pair.a, b: pair.b, mated: pair.mated, score: compare(a, b)?.value() });
        }
    }
    let best = statistics::best_threshold(&trials);
    let RankOne { correct, total } = statistics::rank_one(&trials);
    let mated = trials.iter().filter(|t| t.mated).count();
    let spread = statistics::non_mated_spread(&trials);
    let failed =
        pairs.images.iter().zip(samples).filter_map(|(image, sample)| {
            Some(Refused { path: image.clone(), reason: sample.as_ref().err()?.clone() })
        });
    let accepted = if options.quality {
        let with_template: Vec<bool> = samples.iter().map(Result::is_ok).collect();
        groups::measure(pairs, &with_template, &trials, &card.calibration)
    } else {
        Vec::new()
    };
    let claims = if options.claims {
        let samples: Vec<_> = samples.iter().map(|sample| sample.as_ref().ok().cloned()).collect();
        claims::measure(&samples, &trials, &card.calibration, card.metric).map_err(|e| match e {
            ClaimsError::Contradiction { a, b } => {
                let image = |number: usize| pairs.images.get(number).map_or("", String::as_str);
                format!("{} and {}: a non-mated pair, and one person by other pairs", image(a), image(b)).into()
            }
            ClaimsError::Model(e) => Failure::from(e),
        })?
    } else {
        Vec::new()
    };
    Ok(Report {
        pairs: trials.len(),
        mated,
        non_mated: trials.len() - mated,
        failures: failed.collect(),
        pairs_left_out: pairs.pairs.len() - trials.len(),
        best_accuracy: best.map(|Best { accuracy, .. }| accuracy),
        best_threshold: best.map(|Best { threshold, .. }| threshold),
        rank1_correct: correct,
        rank1_total: total,
        fnmr_at_fmr: statistics::fnmr_at_fmr(&trials, &RATES),
        non_mated_mean: spread.map(|(mean, _)| mean),
        non_mated_standard_deviation: spread.map(|(_, deviation)| deviation),
        accepted,
        claims,
        model,
        of,
        precision,
        extraction,
    })
}

fn print(report: &Report, claims: bool) {
    let Report { pairs, mated, non_mated, pairs_left_out, rank1_correct, rank1_total, .. } = report;
    println!("{pairs} pairs: {mated} mated, {non_mated} non-mated; {pairs_left_out} left out");
    report.failures.iter().for_each(|refused| println!("  {refused}"));
    if let (Some(accuracy), Some(threshold)) = (report.best_accuracy, report.best_threshold) {
        println!("best accuracy  {:.2} % at threshold {threshold:.4}, chosen on these same pairs", 100.0 * accuracy);
    }
    println!("rank 1         {rank1_correct} of {rank1_total} images");
    for Point { fmr, threshold, fnmr, trials } in &report.fnmr_at_fmr {
        println!("FNMR at FMR {fmr:<8.5} {:6.2} %  threshold {threshold:.4}, {trials} non-mated trials", 100.0 * fnmr);
    }
    println!("of the model   {} (a card's face.calibration.of)", report.of);
    println!("in precision   {} (its face.calibration.precision)", report.precision);
    println!("faces found by {} (the extraction's version, beside references)", report.extraction);
    print_accepted(&report.accepted);
    if claims && report.claims.is_empty() {
        println!("\nclaims need four people of two images or more");
    }
    print_claims(&report.claims);
}

/// A row for each group and rate.
fn print_accepted(lines: &[GroupLine]) {
    if lines.is_empty() {
        return;
    }
    println!("\nat the card's thresholds, over accepted images");
    println!("group                 accepted      promised     FMR (matched)              FNMR (missed)");
    for line in lines {
        let GroupLine { group, images, accepted, non_mated, matched, mated, missed, .. } = line;
        let share = |rate: Option<f64>, part: &usize, of: &usize| {
            rate.map_or("-".to_owned(), |rate| format!("{:.2} % ({part} of {of})", 100.0 * rate))
        };
        println!(
            "{:<20}  {:>12}  {:>8.2} %  {:<25}  {}",
            if group.is_empty() { "(none)".to_owned() } else { printable(group) },
            format!("{accepted} of {images}"),
            100.0 * line.promised,
            share(line.fmr(), matched, non_mated),
            share(line.fnmr(), missed, mated)
        );
    }
}

/// A table for each promised rate: a row for each number of references, FMR and FNMR by rule.
fn print_claims(lines: &[Line]) {
    let same = |a: &Line, b: &Line| (a.tuned_on, a.promised) == (b.tuned_on, b.promised);
    for of_rate in lines.chunk_by(same) {
        let Some(Line { tuned_on, promised, splits, .. }) = of_rate.first() else { continue };
        let whose = match *tuned_on {
            "card" => "the card's threshold".to_owned(),
            _ => format!("other people's threshold ({splits} ways to halve them)"),
        };
        println!("\nclaims at {whose} for an FMR of {:.1} % of single comparisons: FMR / FNMR, %", 100.0 * promised);
        print!("references  non-mated  mated   kept within");
        Rule::ALL.iter().for_each(|rule| print!("  {:>15}", rule.as_str()));
        println!();
        for row in of_rate.chunk_by(|a, b| a.references == b.references) {
            let Some(Line { references, non_mated, mated, kept_within: (low, high), .. }) = row.first() else {
                continue;
            };
            print!("{references:>10}  {non_mated:>9}  {mated:>5}  {:>4.1} to {:>4.1}", 100.0 * low, 100.0 * high);
            let share = |share: f64| if share.is_nan() { "-".to_owned() } else { format!("{:.1}", 100.0 * share) };
            for rule in Rule::ALL {
                let line = row.iter().find(|line| line.rule == rule);
                // Too small a rate to be shown by so few pairs.
                let cell = line.map_or("-".to_owned(), |line| format!("{} / {}", share(line.fmr), share(line.fnmr)));
                print!("  {cell:>15}");
            }
            println!();
        }
    }
}
