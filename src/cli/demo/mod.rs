//! `vultus demo`: the whole story on real faces. A server in this process, on loopback, over a data directory that goes afterwards; two clients
//! that call it over the wire.

mod client;
pub mod faces;
mod story;
mod table;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use tokio::{signal::ctrl_c, sync::oneshot};

use self::{
    client::{BACK_OFFICE, Client, FRONT_END},
    faces::Person,
    story::{Story, Teller},
};
use super::{Failure, Outcome, Shared, input, licence::Research, scratch::Scratch, serve};
use crate::{config::Config, model::fetch, rpc::TakenAtItsWord, seal::RootKey};

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
    #[command(flatten)]
    research: Research,
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
    shared.licensed_model_set(options.research)?; // nobody sees this server's configuration
    let config = Config { research_only_models: options.research.allowed, ..client::config(options.faces.is_some())? };
    let (serving, galleries) = serve::open(&config, &own, Arc::new(TakenAtItsWord)).await?;
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
        table::print(&story, options.faces.is_some());
        if options.faces.is_none() {
            admit(&story);
        }
        let seconds = started.elapsed().as_secs_f64();
        println!("{} in {seconds:.1} s", if story.ok { "All went as it should," } else { "SOMETHING WENT WRONG," });
    }
    if !options.stay {
        narrator.say("With --stay it goes on serving, so that the metrics can be looked at.");
    } else {
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

/// The default model is for a start: which rates were promised, and what they come to.
fn admit(story: &Story) {
    println!(
        "The policy here keeps to rates that the model's card has measured: 2 false matches in 1000, 1 false alarm in 10 searches."
    );
    let (searches, quiet) = (story.no_duplicate.trials, story.no_duplicate.right);
    let alarms = searches - quiet;
    // One in ten is what the demonstration's policy asks for.
    let word = if alarms * 10 > searches {
        "more than promised, which holds for people as those of the card"
    } else {
        "as promised"
    };
    println!("{alarms} of {searches} searches raised a false alarm: {word}.");
    println!("It was measured on few other people: calibrate on your own faces before a decision rests on it.");
}
