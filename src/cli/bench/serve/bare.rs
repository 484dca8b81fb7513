//! What the networks do without a server around them, measured in turn with the server: what else goes on at the machine then meets both.

use std::{sync::Arc, time::Duration};

use serde::Serialize;

use super::{
    cores::ServerCores,
    drive::Sender,
    peak::{self, median},
    target::Target,
};
use crate::{
    cli::{Failure, Shared},
    model::{Role, bench::BareLoop},
    pipeline::BatchLimits,
};

/// How long each is measured at a time.
const WINDOW: Duration = Duration::from_secs(2);

/// Faces a second of the bare networks and of the saturated server; medians of the rounds.
#[derive(Debug, Clone, Serialize)]
pub struct Bare {
    /// Each face through detector, landmark and face network, in batches as large as the server's.
    pub bare_faces_per_s: f64,
    /// Through the face network alone.
    pub bare_embeddings_per_s: f64,
    pub server_faces_per_s: f64,
    /// The server's faces over the bare loop's.
    pub ratio: f64,
    pub bare_rounds: Vec<f64>,
    pub server_rounds: Vec<f64>,
    /// Cores that the saturated server used, and the generator beside it.
    pub server_cores: Option<f64>,
    pub generator_cores: Option<f64>,
}

/// Measures the bare loop and the server, which `callers` saturate, in turn. A request is taken for one face: a probe against an
/// enrolled subject.
pub async fn compare<S: Sender>(
    sender: &Arc<S>,
    target: &Target,
    callers: usize,
    rounds: usize,
    cores: &ServerCores,
    shared: &Shared,
) -> Result<Bare, Failure> {
    let (set, device) = (shared.model_set()?, shared.device_choice()?);
    let batch = BatchLimits::default().batch_images.try_into()?;
    let mut bare = cores.run(|| BareLoop::new(&set, device, batch, cores.count()))??;
    let (mut bares, mut embeddings, mut servers) = (Vec::new(), Vec::new(), Vec::new());
    let (mut server_cores, mut generator_cores) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (ran, faces_per_s, embeddings_per_s) = tokio::task::spawn_blocking(move || {
            let faces = bare.faces_per_s(&Role::ALL, WINDOW)?;
            let embedded = bare.faces_per_s(&[Role::Embed], WINDOW / 4)?;
            Ok::<_, Failure>((bare, faces, embedded))
        })
        .await??;
        bare = ran;
        bares.push(faces_per_s);
        embeddings.push(embeddings_per_s);
        let served = peak::at(sender, target, callers, 1, WINDOW).await?;
        servers.push(served.answers_per_s);
        server_cores.extend(served.server_cores);
        generator_cores.extend(served.generator_cores);
    }
    let some_median = |values: &[f64]| (!values.is_empty()).then(|| median(values));
    let (bare_faces_per_s, server_faces_per_s) = (median(&bares), median(&servers));
    Ok(Bare {
        bare_faces_per_s,
        bare_embeddings_per_s: median(&embeddings),
        server_faces_per_s,
        ratio: server_faces_per_s / bare_faces_per_s,
        bare_rounds: bares,
        server_rounds: servers,
        server_cores: some_median(&server_cores),
        generator_cores: some_median(&generator_cores),
    })
}
