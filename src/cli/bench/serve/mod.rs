//! `vultus bench serve`: what a server answers, and how long that takes, under a load that does not wait for it.

mod arrivals;
mod bare;
mod batches;
mod codec;
mod cores;
mod drive;
mod flood;
mod ideal;
pub mod null;
mod peak;
mod rate;
mod report;
mod requests;
mod table;
mod tally;
mod target;
mod usage;
mod window;

use std::{num::NonZeroUsize, path::Path, sync::Arc, time::Duration};

use tokio::{
    signal::{
        ctrl_c,
        unix::{SignalKind, signal},
    },
    task::spawn_blocking,
};

use self::{
    cores::ServerCores,
    flood::Issuer,
    ideal::Ideal,
    peak::Peak,
    rate::Rate,
    report::Report,
    requests::{Load, Prepared},
    target::{GALLERY, Target},
    window::Windows,
};
use super::{Failure, Outcome, Shared};
use crate::{
    cli::{demo::faces, input, scratch::Scratch},
    model::fetch,
    seal::RootKey,
};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Requests a second, or a share of the peak, which is then found first: 40, or 80%. One window for each.
    #[arg(long, value_delimiter = ',', default_value = "50%,80%,100%,1000%")]
    rate: Vec<Rate>,
    /// How long each window is.
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Of the moments at which requests are sent: the same number gives the same moments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Connections, each of a client of its own.
    #[arg(long, default_value = "8")]
    connections: NonZeroUsize,
    /// Each request's.
    #[arg(long, default_value_t = 10_000)]
    deadline_ms: u64,
    /// A server that runs, HOST:PORT, instead of one that is started for the benchmark. Faces are enrolled in it.
    #[arg(long)]
    target: Option<String>,
    /// The running server's process, where it is on this machine: its time and memory are then shown.
    #[arg(long, requires = "target")]
    pid: Option<u32>,
    /// The clients to call the running server as, with the rights to verify and enrol.
    #[arg(long, requires = "target", value_delimiter = ',', default_value = "shop")]
    client: Vec<String>,
    /// The gallery of the running server.
    #[arg(long, requires = "target", default_value = GALLERY)]
    gallery: String,
    /// Starts a server that answers NON_MATCH and looks at no face, and sends it 20 KB of noise: what is left is the transport. With
    /// `--target`, sends noise to a server that does the same.
    #[arg(long)]
    null_model: bool,
    /// Gives the server the first half of the cores, and the generator the others. By default they share all.
    #[arg(long, conflicts_with = "target")]
    apart: bool,
    /// Takes the peak with so many callers that wait for their answers; by default 8 to 128, of which the fewest that bring within 2 % of
    /// the most.
    #[arg(long)]
    callers: Option<NonZeroUsize>,
    /// How often the saturated server and the bare networks are measured in turn; 0 leaves it out.
    #[arg(long, default_value_t = 0)]
    rounds: usize,
    /// Runs every window twice: as it is, and with so many callers beside that identify without a rest.
    #[arg(long, default_value_t = 0, conflicts_with_all = ["target", "null_model"])]
    flood: usize,
    /// Made-up references in the flood's gallery.
    #[arg(long, default_value_t = 20_000, requires = "flood")]
    references: usize,
}

/// Bytes of a made-up image: a crop's as counters send it.
const NOISE_BYTES: usize = 20_000;

/// The hidden subcommand that is the null model's server.
const NULL_SERVER: [&str; 2] = ["bench", "null-server"];

pub fn run(options: &Options, shared: &Shared) -> Result<Outcome, Failure> {
    // Before there is any other thread.
    let cores = if options.apart { ServerCores::apart()? } else { ServerCores::default() };
    crate::cli::runtime()?.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        let report = tokio::select! {
            report = measure(options, &cores, shared) => report?,
            // Ends the server and removes its folder.
            _ = ctrl_c() => return Err("interrupted".into()),
            _ = terminated.recv() => return Err("terminated".into()),
        };
        if shared.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            report.lines().iter().for_each(|line| println!("{line}"));
        }
        Ok(if report.is_sound() { Outcome::Good } else { Outcome::Negative })
    })
}

async fn measure(options: &Options, cores: &ServerCores, shared: &Shared) -> Result<Report, Failure> {
    let seconds = Duration::try_from_secs_f64(options.seconds).map_err(|e| format!("--seconds: {e}"))?;
    if seconds.is_zero() {
        return Err("--seconds: expected more than 0".into());
    }
    let people = if options.null_model { Vec::new() } else { people(shared).await? };
    let (target, issuer) = target(options, cores, shared).await?;
    let load = Arc::new(load(options, &people, &target).await?);
    let found = options.rate.iter().any(|rate| rate.is_of_peak()) || options.rounds > 0;
    let peak = if found { Some(peak::find(&load, &target, options.callers).await?) } else { None };
    let callers = peak.as_ref().map_or(0, |peak: &Peak| peak.callers);
    let bare = match options.rounds {
        0 => None,
        _ if options.null_model => return Err("--rounds: the null model has no networks to compare with".into()),
        rounds => Some(bare::compare(&load, &target, callers, rounds, &people, cores, shared).await?),
    };
    let ideal = peak.as_ref().map(|peak| Ideal { cores: cores.count(), peak_per_s: peak.answers_per_s });
    let windows = Windows { sender: &load, target: &target, seconds, seed: options.seed, ideal };
    let mut rows = Vec::new();
    for (number, rate) in (0..).zip(&options.rate) {
        let per_s = rate.per_s(peak.as_ref().map(|peak| peak.answers_per_s));
        rows.push(windows.run(rate.to_string(), per_s, number).await?);
        if let Some(issuer) = &issuer {
            let flood = flood::Flood::start(issuer, &target, options.flood).await?;
            let mut row = windows.run(format!("{rate}+1:N"), per_s, number).await?;
            row.flood = Some(flood.stop().await?);
            rows.push(row);
        }
    }
    let (requests, mated, message_bytes) = load.describe();
    Ok(Report {
        machine_cores: crate::cli::open::cores().get() * if cores.are_apart() { 2 } else { 1 },
        server_may_use_cores: cores.count().get(),
        apart: cores.are_apart(),
        null_model: options.null_model,
        seconds: options.seconds,
        seed: options.seed,
        connections: options.connections.get(),
        requests,
        mated,
        message_bytes,
        peak,
        bare,
        rows,
    })
}

/// The faces of the default model's package, looked for with the model in hand.
async fn people(shared: &Shared) -> Result<Vec<faces::Person>, Failure> {
    let models = shared.models_dir();
    let photos = models.parent().unwrap_or(Path::new(".")).join("photos");
    let fetched = spawn_blocking(move || fetch::fetch(&models, None, Some(&photos))).await??;
    let pipeline = shared.pipeline(&RootKey::random()?, &input::config(input::ONE_FILE)?)?;
    faces::of_photos(&pipeline, &fetched.photos).await
}

/// The server that is loaded; and who makes receipts for it, where it is to be flooded.
async fn target(
    options: &Options,
    cores: &ServerCores,
    shared: &Shared,
) -> Result<(Target, Option<Arc<Issuer>>), Failure> {
    if let Some(address) = &options.target {
        return Ok((Target::running(address.clone(), options.pid), None));
    }
    let home = Scratch::new_in(&std::env::temp_dir())?;
    let issuer = match options.flood {
        0 => None,
        _ => Some(Arc::new(Issuer::fill(home.path(), options.references, shared).await?)),
    };
    let command: &[&str] = if options.null_model { &NULL_SERVER } else { &["serve"] };
    Ok((Target::start(command, home, options.connections.get(), cores, shared).await?, issuer))
}

/// Connects, enrols and asks everything once.
async fn load(options: &Options, people: &[faces::Person], target: &Target) -> Result<Load, Failure> {
    let named = |connection: usize| match &options.target {
        Some(_) => options.client.get(connection % options.client.len().max(1)).cloned().unwrap_or_default(),
        None => target::client(connection),
    };
    let mut connections = Vec::new();
    for connection in 0..options.connections.get() {
        connections.push((target.connect().await?, named(connection)));
    }
    let requests: Vec<Prepared> = match connections.first() {
        Some((channel, client)) if !options.null_model => {
            requests::of_people(people, &options.gallery, channel, client).await?
        }
        _ => requests::of_noise(&options.gallery, NOISE_BYTES, options.seed),
    };
    Load::new(connections, requests, Duration::from_millis(options.deadline_ms))?.settle().await
}
