//! `vultus enrol`: a folder of images into a gallery of the data directory, in this process. Run again, it goes on where it stopped.

mod plan;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;

pub(super) use self::plan::subject_of;
use self::plan::{Item, PassedOver, Plan, SubjectFrom};
use super::{
    Failure, Outcome, Shared, input,
    licence::Research,
    report::{Refused, in_words, printable},
};
use crate::{
    domain::{GalleryName, Lane},
    gallery::{EnrolError, Gallery, StoreError},
    pipeline::{ExtractReferenceError, FaceInput, ImageInput, Pipeline},
};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// A folder: images in it are named `SUBJECT.png`, or `SUBJECT_1.png` to `SUBJECT_9.png`, those in folders `SUBJECT/any.png`. Or a list
    /// in CSV with the columns `file,subject`.
    folder: PathBuf,
    /// The gallery, made if there is none of this name.
    #[arg(long)]
    gallery: String,
    /// Takes all subjects from the files' names without their numbers, from the names as they stand, or from the folders.
    #[arg(long, value_enum)]
    subject_from: Option<SubjectFrom>,
    /// Prints which image would become a reference of whom, and enrols nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    research: Research,
}

/// What an enrolment did.
#[derive(Debug, Serialize)]
struct Report {
    gallery: String,
    /// References that are new.
    enrolled: usize,
    /// Those that were there already.
    repeated: usize,
    refused: Vec<Refused>,
    passed_over: PassedOver,
    /// Among all images of the folder.
    subjects: usize,
    /// Images that were not looked at, for the work was interrupted.
    not_reached: usize,
    seconds: f64,
}

/// What became of an image.
enum Enrolment {
    New,
    Repeated,
    Refused(Refused),
    /// The gallery takes no more, whatever the image.
    Broken(String),
}

pub fn run(options: &Options, shared: &Shared) -> Result<Outcome, Failure> {
    let name = GalleryName::new(&options.gallery).map_err(|e| format!("--gallery {:?}: {e}", options.gallery))?;
    let plan = Plan::of(&options.folder, options.subject_from)?;
    if plan.items.is_empty() {
        return Err(nothing_to_enrol(&options.folder, &plan).into()); // before a gallery is made for it
    }
    if options.dry_run {
        return show(&plan, shared);
    }
    super::runtime()?.block_on(enrol(&name, plan, options.research, shared))
}

/// The plan, as it would be carried out.
fn show(plan: &Plan, shared: &Shared) -> Result<Outcome, Failure> {
    if shared.json {
        let items: Vec<_> = (plan.items.iter())
            .map(|item| json!({ "file": item.path.display().to_string(), "subject": item.subject.as_str() }))
            .collect();
        println!("{}", json!({ "items": items, "refused": plan.refused, "passed_over": plan.passed_over }));
    } else {
        plan.items
            .iter()
            .for_each(|item| println!("{}  {}", item.subject, printable(&item.path.display().to_string())));
        plan.refused.iter().for_each(|refused| println!("refused  {refused}"));
        println!(
            "{} images of {} subjects would be enrolled{}",
            plan.items.len(),
            subjects(plan),
            in_words_of(&plan.passed_over)
        );
    }
    Ok(if plan.refused.is_empty() { Outcome::Good } else { Outcome::Negative })
}

fn subjects(plan: &Plan) -> usize {
    plan.items.iter().map(|item| &item.subject).collect::<BTreeSet<_>>().len()
}

/// What was passed over, as the end of a sentence; nothing for nothing.
fn in_words_of(passed_over: &PassedOver) -> String {
    let PassedOver { extensions, hidden, elsewhere } = passed_over;
    let mut parts: Vec<String> =
        extensions.iter().map(|(extension, count)| format!("{count} .{}", printable(extension))).collect();
    for (count, what) in [(hidden, "hidden"), (elsewhere, "links or folders in folders")] {
        if *count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    if parts.is_empty() { String::new() } else { format!("; passed over: {}", parts.join(", ")) }
}

fn nothing_to_enrol(folder: &Path, plan: &Plan) -> String {
    let shown = plan.refused.iter().take(10).map(|refused| format!("\n  refused  {refused}"));
    format!(
        "{}: expected images (jpg, jpeg, jpe, jfif, png, webp, jp2, j2k), there are none to enrol{}{}",
        folder.display(),
        in_words_of(&plan.passed_over),
        shown.collect::<String>()
    )
}

async fn enrol(name: &GalleryName, plan: Plan, research: Research, shared: &Shared) -> Result<Outcome, Failure> {
    let config = input::config(input::MANY_FILES)?;
    let root = shared.root_key()?;
    let models = shared.licensed_model_set(research)?;
    let galleries = shared.galleries(&root, &config, Some(models.renamed()))?; // before the networks: another process may hold them
    let pipeline = Arc::new(shared.started(&models, &root, &config)?);
    let gallery = galleries.get_or_create(name, pipeline.model(), pipeline.dimension()).await?;

    let mut report = Report {
        gallery: name.to_string(),
        enrolled: 0,
        repeated: 0,
        subjects: subjects(&plan),
        refused: plan.refused,
        passed_over: plan.passed_over,
        not_reached: plan.items.len(),
        seconds: 0.0,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let listener = tokio::spawn(async move {
        // An error means that no signal can be heard: then nothing interrupts.
        if tokio::signal::ctrl_c().await.is_ok() {
            told.store(true, Relaxed);
        }
    });
    let bar = ProgressBar::new(plan.items.len() as u64); // on stderr, and only if that is a terminal
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos} of {len} images, {per_sec}, {eta} to go")?);
    let started = Instant::now();
    let mut broken = None;
    let work = |item: Item| {
        let (pipeline, gallery, stop) = (Arc::clone(&pipeline), Arc::clone(&gallery), Arc::clone(&stop));
        async move {
            let enrolment = enrol_one(&pipeline, &gallery, item).await;
            if matches!(enrolment, Enrolment::Broken(_)) {
                stop.store(true, Relaxed);
            }
            enrolment
        }
    };
    let done = |enrolment| {
        bar.inc(1);
        report.not_reached -= 1;
        match enrolment {
            Enrolment::New => report.enrolled += 1,
            Enrolment::Repeated => report.repeated += 1,
            Enrolment::Refused(refused) => report.refused.push(refused),
            Enrolment::Broken(why) => broken = Some(why),
        }
    };
    let items = plan.items.into_iter().take_while(|_| !stop.load(Relaxed));
    let finished = input::in_flight(items, work, done).await;
    listener.abort();
    galleries.close().await; // what was enrolled is durable already
    finished?;
    bar.finish_and_clear();
    report.seconds = started.elapsed().as_secs_f64();
    report.refused.sort();
    if shared.json {
        println!("{}", serde_json::to_string(&report)?)
    } else {
        print(&report)
    }
    match broken {
        Some(why) => Err(format!("{why}; what was enrolled stays").into()),
        None if report.not_reached > 0 => {
            Err("interrupted; what was enrolled is durable, run the same again to go on".into())
        }
        None if report.refused.is_empty() => Ok(Outcome::Good),
        None => Ok(Outcome::Negative),
    }
}

async fn enrol_one(pipeline: &Pipeline, gallery: &Gallery, item: Item) -> Enrolment {
    let shown = item.path.display().to_string();
    let refused = |reason: String| Enrolment::Refused(Refused { path: shown.clone(), reason });
    let Item { path, subject } = item;
    let read = tokio::task::spawn_blocking(move || input::read(&path, input::MANY_FILES.max_bytes)).await;
    let file = match read {
        Ok(Ok(file)) => file,
        Ok(Err(error)) => return refused(error.to_string()),
        Err(error) => return refused(error.to_string()),
    };
    let id = plan::reference_id(gallery.name(), &subject, &file);
    if gallery.holds(&subject, id) {
        return Enrolment::Repeated; // without another extraction
    }
    let image = FaceInput { image: ImageInput::Encoded(file), landmarks: None };
    let template = match pipeline.extract_reference(image, &input::turn(Lane::Enrolment)).await {
        Ok((template, _)) => template,
        Err(ExtractReferenceError::Refused(assessment)) => return refused(in_words(&assessment)),
        Err(error) => return refused(error.to_string()),
    };
    match pipeline.enrol(gallery, subject, Some(id), template).await {
        Ok(enrolled) if enrolled.repeated => Enrolment::Repeated, // a copy of the file was quicker
        Ok(_) => Enrolment::New,
        Err(error @ (EnrolError::Exists { .. } | EnrolError::TooManyForSubject { .. })) => refused(error.to_string()),
        Err(EnrolError::Store(StoreError::Closed)) => Enrolment::Broken("the gallery was closed".into()),
        Err(error) => Enrolment::Broken(error.to_string()),
    }
}

fn print(report: &Report) {
    report.refused.iter().for_each(|refused| println!("refused  {refused}"));
    let Report { gallery, enrolled, repeated, subjects, seconds, .. } = report;
    let refused = report.refused.len();
    let rate = if *seconds > 0.0 { *enrolled as f64 / seconds } else { 0.0 };
    let passed_over = in_words_of(&report.passed_over);
    println!(
        "{gallery}: {enrolled} enrolled, {repeated} were there already, {refused} refused; {subjects} subjects{passed_over}"
    );
    println!("{seconds:.1} s, {rate:.0} enrolments a second");
}
