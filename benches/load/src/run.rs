//! A run, from its server to its report.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::{
    signal::{
        ctrl_c,
        unix::{SignalKind, signal},
    },
    task::spawn_blocking,
};
use vultus::{
    cli::{Failure, Outcome, Shared, demo::faces, input, scratch::Scratch},
    model::fetch,
    seal::RootKey,
};

use crate::{
    bare, clients,
    cores::ServerCores,
    flood::{self, Issuer},
    ideal::Ideal,
    options::Options,
    peak::{self, Peak},
    report::Report,
    requests::{self, Load, Prepared},
    target::Target,
    window::Windows,
};

/// Bytes of a made-up image: a crop's as counters send it.
const NOISE_BYTES: usize = 20_000;

pub fn run(options: &Options, shared: &Shared) -> Result<Outcome, Failure> {
    // Before there is any other thread.
    let cores = if options.apart { ServerCores::apart()? } else { ServerCores::default() };
    vultus::cli::runtime()?.block_on(async {
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
        machine_cores: vultus::cli::open::cores().get() * if cores.are_apart() { 2 } else { 1 },
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
    let own = std::env::current_exe()?;
    let (program, command) = match (options.null_model, &options.vultus) {
        (true, _) => (own, "null-server"),
        (false, Some(vultus)) => (vultus.clone(), "serve"),
        (false, None) => (own.with_file_name("vultus"), "serve"),
    };
    Ok((Target::start(&program, command, home, options.connections.get(), cores, shared).await?, issuer))
}

/// Connects, enrols and asks everything once.
async fn load(options: &Options, people: &[faces::Person], target: &Target) -> Result<Load, Failure> {
    let named = |connection: usize| match &options.target {
        Some(_) => options.client.get(connection % options.client.len().max(1)).cloned().unwrap_or_default(),
        None => clients::counter(connection),
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
