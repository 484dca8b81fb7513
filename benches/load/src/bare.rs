//! What the networks do without a server around them, measured in turn with the server: what else goes on at the machine then meets both.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::Serialize;
use vultus_engine::{executor::Executor, input::InputSize};

use crate::{
    batches::Batches,
    cores::ServerCores,
    drive::Sender,
    peak::{self, median},
    target::Target,
    usage::Used,
};
use vultus::{
    cli::{Failure, Shared, demo::faces::Person},
    model::{Role, bench::BareLoop},
    pipeline::locate::{self, Framing},
};

/// How long each is measured at a time.
const WINDOW: Duration = Duration::from_secs(2);

/// Faces a second of the bare networks and of the saturated server; medians of the rounds.
#[derive(Debug, Clone, Serialize)]
pub struct Bare {
    /// Each face through the detector's small view, landmark and face network, in batches as large as the server's.
    pub bare_faces_per_s: f64,
    /// Images a second through each of the networks alone.
    pub bare_by_network: BTreeMap<&'static str, f64>,
    pub server_faces_per_s: f64,
    /// The server's faces over the bare loop's, each round's two for themselves: they share the machine's slow seconds.
    pub ratio: f64,
    pub bare_rounds: Vec<f64>,
    pub server_rounds: Vec<f64>,
    /// Images of the saturated server's batches in the mean, by network; where its metrics are known.
    pub images_in_a_batch: BTreeMap<String, f64>,
    /// While the server was saturated; means of the rounds.
    #[serde(flatten)]
    pub used: Used,
}

/// What a face passes that is found at first sight.
const PASSED: [Role; 3] = [Role::DetectSmall, Role::Landmark, Role::Embed];

/// Images of a batch of the bare loop: where it is at its best, whatever the server's batches are.
const BATCH: usize = 16;

/// Measures the bare loop and the server, which `callers` saturate, in turn. A request is taken for one face: a probe against an
/// enrolled subject.
pub async fn compare<S: Sender>(
    sender: &Arc<S>,
    target: &Target,
    callers: usize,
    rounds: usize,
    people: &[Person],
    cores: &ServerCores,
    shared: &Shared,
) -> Result<Bare, Failure> {
    let (set, device) = (shared.model_set()?, shared.device_choice()?);
    let mut bare = cores.run(|| Ok::<_, Failure>(on_faces(set.executors(device, cores.count())?, people)))??;
    let (mut bares, mut alone, mut servers) = (Vec::new(), BTreeMap::<_, Vec<f64>>::new(), Vec::new());
    let (mut used, mut batches) = (Vec::new(), Batches::default());
    for _ in 0..rounds {
        let (ran, faces_per_s, each) = tokio::task::spawn_blocking(move || {
            let faces = bare.faces_per_s(&PASSED, WINDOW)?;
            let mut each = Vec::new();
            for role in Role::ALL {
                each.push((role.as_str(), bare.faces_per_s(&[role], WINDOW / 4)?));
            }
            Ok::<_, Failure>((bare, faces, each))
        })
        .await??;
        bare = ran;
        bares.push(faces_per_s);
        each.into_iter().for_each(|(role, rate)| alone.entry(role).or_default().push(rate));
        let before = target.batches().await?;
        let served = peak::at(sender, target, callers, 1, WINDOW).await?;
        batches.add(&before, &target.batches().await?);
        servers.push(served.answers_per_s);
        used.push(served.used);
    }
    let (bare_faces_per_s, server_faces_per_s) = (median(&bares), median(&servers));
    let ratios: Vec<f64> = servers.iter().zip(&bares).map(|(served, bare)| served / bare).collect();
    Ok(Bare {
        bare_faces_per_s,
        bare_by_network: alone.into_iter().map(|(role, rates)| (role, median(&rates))).collect(),
        server_faces_per_s,
        ratio: median(&ratios),
        bare_rounds: bares,
        server_rounds: servers,
        images_in_a_batch: batches.means(),
        used: Used::mean(&used),
    })
}

/// The loop over the faces that the server is sent, framed as its stages frame them, of as many executors as the server has. How fast
/// a network is may depend on what it sees: noise is none of it.
fn on_faces(executors: Vec<Box<dyn Executor>>, people: &[Person]) -> BareLoop {
    let sizes = executors.first().map(|executor| Role::ALL.map(|role| executor.input_size(role.network())));
    let images = Role::ALL.map(|role| {
        let Some(InputSize { width, height }) = sizes.map(|sizes| sizes[role as usize]) else { return Vec::new() };
        let framed = |person: &Person| match role {
            Role::DetectSmall | Role::Detect => {
                let size = (person.reference.width(), person.reference.height());
                let framing = if role == Role::Detect { Framing::CROP } else { Framing::SMALL };
                locate::view(size, framing, width).0.of(&person.reference)
            }
            Role::Landmark | Role::Embed => person.reference.resized(width, height),
        };
        people.iter().cycle().take(BATCH).map(framed).collect()
    });
    BareLoop::new(executors, images)
}
