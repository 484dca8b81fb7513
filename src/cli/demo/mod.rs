//! `vultus demo`: the whole story on real faces. A server in this process, on loopback, over a data directory that goes afterwards; two clients
//! that call it over the wire.

mod client;
mod faces;
mod story;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use tokio::{signal::ctrl_c, sync::oneshot};

use self::{
    client::{BACK_OFFICE, CONFIG, Client, FRONT_END},
    faces::Person,
    story::{Story, Teller},
};
use super::{Failure, Outcome, Shared, input, scratch::Scratch, serve};
use crate::{config::Config, model::fetch, seal::RootKey};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Where the package's six photos are, or come to; by default `photos` beside the models.
    #[arg(long)]
    photos: Option<PathBuf>,
    /// A folder of face crops instead, `NAME_K.png`: the first of each name is enrolled, the others are probes.
    #[arg(long)]
    faces: Option<PathBuf>,
    /// Goes on serving until it is told to stop, so that the metrics can be looked at.
    #[arg(long)]
    stay: bool,
}

/// Says what goes on, unless the output is for a program.
#[derive(Debug, Clone, Copy)]
pub struct Narrator {
    silent: bool,
}

impl Narrator {
    fn say(self, text: &str) {
        if !self.silent {
            println!("{text}");
        }
    }
}

pub fn run(options: &Options, shared: &Shared) -> Result<Outcome, Failure> {
    super::runtime()?.block_on(async {
        tokio::select! {
            told = tell(options, shared) => told,
            // Ends the server and removes its folder.
            _ = ctrl_c(), if !options.stay => Err("interrupted".into()),
        }
    })
}

async fn tell(options: &Options, shared: &Shared) -> Result<Outcome, Failure> {
    let narrator = Narrator { silent: shared.json };
    let started = Instant::now();
    let people = people(options, shared, narrator).await?;

    let home = Scratch::new_in(&std::env::temp_dir())?;
    let own = Shared { data: home.path().into(), models: Some(shared.models_dir()), ..shared.clone() };
    let (serving, galleries) = serve::open(&Config::parse(CONFIG)?, &own).await?;
    let (address, metrics) = (serving.address()?, serving.metrics_address()?);
    narrator.say(&format!("Serving gRPC on {address}, metrics on http://{metrics}/metrics"));
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serving.until(async {
        let _ = stopped.await; // dropping the sender tells as well
    }));

    let (front_end, back_office) =
        (Client::connect(FRONT_END, address).await?, Client::connect(BACK_OFFICE, address).await?);
    let story = Teller::new(&front_end, &back_office, narrator).tell(&people).await?;
    if shared.json {
        println!("{}", serde_json::to_string(&story)?);
    } else {
        print(&story, options.faces.is_some(), started.elapsed().as_secs_f64());
    }
    if options.stay {
        narrator.say(&format!("Still serving: look at http://{metrics}/metrics; Ctrl-C ends it."));
        ctrl_c().await?;
    }
    drop((stop, front_end, back_office));
    server.await??;
    galleries.close().await;
    Ok(if story.ok { Outcome::Good } else { Outcome::Negative })
}

async fn people(options: &Options, shared: &Shared, narrator: Narrator) -> Result<Vec<Person>, Failure> {
    let models = shared.models_dir();
    let photos = options.photos.clone().unwrap_or_else(|| models.parent().unwrap_or(Path::new(".")).join("photos"));
    let wanted = options.faces.is_none().then_some(photos);
    let fetching = models.clone();
    let fetched = tokio::task::spawn_blocking(move || fetch::fetch(&fetching, None, wanted.as_deref())).await??;
    narrator.say(&format!("The model is in {}, checked against its digest.", models.display()));
    if let Some(folder) = &options.faces {
        let people = faces::of_folder(folder)?;
        narrator.say(&format!("{} has {} people with two images or more.", folder.display(), people.len()));
        return Ok(people);
    }
    narrator.say("Looking for faces in the package's six photos ...");
    let pipeline = shared.pipeline(&RootKey::random()?, &input::config(input::ONE_FILE)?)?;
    let people = faces::of_photos(&pipeline, &fetched.photos).await?;
    narrator
        .say(&format!("  {} faces. There is one photo of each person: mated probes are the same face,", people.len()));
    narrator.say("  framed anew, in other light and with fewer colours. Two real photos differ more; see --faces.");
    Ok(people)
}

fn print(story: &Story, real_pairs: bool, seconds: f64) {
    println!("\n{:<20} {:<28} {:<13} {:>7} {:>8}", "claimed subject", "probe", "decision", "score", "ms");
    for v in &story.verifications {
        let score = v.score.map_or_else(String::new, |score| format!("{score:.4}"));
        let odd = if v.mated == (v.decision == "MATCH") { "" } else { "  <- wrong" };
        println!("{:<20} {:<28} {:<13} {score:>7} {:>8.1}{odd}", v.subject, v.probe, v.decision, v.ms);
    }
    let Story { people, enrolled, mated, non_mated, no_duplicate, .. } = story;
    let changed = if real_pairs { "" } else { " (the same photo, changed)" };
    println!("\n{enrolled} of {people} people enrolled, {} refused for their image's quality", story.refused.len());
    println!("{} of {} mated probes{changed} matched", mated.right, mated.trials);
    println!("{} of {} non-mated probes were refused", non_mated.right, non_mated.trials);
    println!(
        "{} of {} searches after a match found no duplicate, as there was none",
        no_duplicate.right, no_duplicate.trials
    );
    if let Some(d) = &story.duplicate {
        println!("{} came back as {}: {}", d.person, d.second_identity, d.outcome);
        println!("  case {}; the front end that asks for it is told {}", d.case_id, d.front_end_is_told);
        for (rank, (subject, score)) in (1..).zip(&d.candidates) {
            let score = score.map_or_else(String::new, |score| format!(", score {score:.4}"));
            println!("  the back office sees candidate {rank}: {subject}{score}");
        }
    }
    let stages: Vec<_> = ["decode", "align", "queue", "extract", "compare", "total"].into_iter().collect();
    let stage = |name: &&str| format!("{name} {:.1}", *story.stage_p50_us.get(*name).unwrap_or(&0) as f64 / 1000.0);
    println!("medians of the stages, ms: {}", stages.iter().map(stage).collect::<Vec<_>>().join(", "));
    println!("{} in {seconds:.1} s", if story.ok { "All went as it should," } else { "SOMETHING WENT WRONG," });
}
