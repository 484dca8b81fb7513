//! A flood of identifications beside the verifications: callers that never rest, each search with a receipt of its own.
//!
//! The receipts are sealed here, under the key of the server that was started for the benchmark: no verification has to be made for
//! each. The callers' threads have the lowest priority, as they stand for other machines.

use std::{
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Instant, SystemTime},
};

use serde::Serialize;
use tokio::{runtime::Runtime, task::JoinSet};
use tonic::{Code, Request};

use crate::{
    clients,
    requests::context,
    target::{GALLERY, Target},
};
use vultus::{
    cli::{Failure, Shared},
    config::Config,
    domain::{ClientId, GalleryName, ModelDigest, Purpose, SubjectId, Template},
    gallery::ServiceTime,
    gallery::bench_enrol,
    pipeline::{Bearer, Now, Receipts},
    priority::run_when_idle,
    rpc::pb::{self, match_service_client::MatchServiceClient},
};

/// Of the gallery's filling.
const ENROLLERS: usize = 256;

/// Makes receipts for a gallery that was filled.
#[derive(Debug)]
pub struct Issuer {
    receipts: Receipts,
    model: ModelDigest,
    gallery: GalleryName,
    subject: SubjectId,
    probe: Template,
}

/// What became of a flood.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Flooded {
    pub callers: usize,
    pub searched_per_s: f64,
    pub refused_per_s: f64,
    pub failed: u64,
    /// What one failure was, for a person to start from.
    pub failure: Option<String>,
}

impl Issuer {
    /// Fills the benchmark's gallery under `home` with made-up references, before a server opens it.
    pub async fn fill(home: &Path, references: usize, shared: &Shared) -> Result<Self, Failure> {
        let own = Shared { data: home.into(), models: Some(shared.models_dir()), ..shared.clone() };
        let (set, root) = (own.model_set()?, own.root_key()?);
        let (model, dimension) = (set.template_digest(), set.card().dimension);
        let name = GalleryName::new(GALLERY)?;
        let galleries = own.galleries(&root, &Config::load(None)?, None)?;
        let gallery = galleries.get_or_create(&name, model, dimension).await?;
        bench_enrol(&gallery, references.max(1), ENROLLERS).await?;
        galleries.close().await;
        let subject = SubjectId::new("bench-0")?;
        let probe = Template::new(model, (0..dimension).map(|i| if i % 2 == 0 { 0.1 } else { -0.1 }).collect())?;
        Ok(Self { receipts: Receipts::new(&root), model, gallery: name, subject, probe })
    }

    fn request(&self, client: &str) -> Result<Request<pb::IdentifyRequest>, Failure> {
        let id = ClientId::new(client)?;
        let bearer = Bearer { client: &id, gallery: &self.gallery, purpose: Purpose::SimActivation, model: self.model };
        // The server's service time is its own to know: these receipts end by the wall.
        let now = Now { service: ServiceTime::from_micros(1 << 60), wall: SystemTime::now() };
        let (receipt, _) = self.receipts.issue(&self.probe, &self.subject, bearer, now)?;
        let mut request = Request::new(pb::IdentifyRequest {
            context: context(),
            receipt: receipt.into(),
            gallery: GALLERY.into(),
            max_candidates: 0,
            max_fpir: 0.0,
        });
        request.metadata_mut().insert("vultus-client", client.parse()?);
        Ok(request)
    }
}

/// A flood that goes on until it is stopped.
pub struct Flood {
    runtime: Runtime,
    callers: JoinSet<Result<(), Failure>>,
    counts: Arc<Counts>,
    started: Instant,
}

#[derive(Default)]
struct Counts {
    over: AtomicBool,
    searched: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    failure: OnceLock<String>,
}

impl Flood {
    pub async fn start(issuer: &Arc<Issuer>, target: &Target, callers: usize) -> Result<Self, Failure> {
        let lower = || {
            let _ = run_when_idle(); // the flood is then as urgent as the rest
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .on_thread_start(lower)
            .thread_name("flood")
            .enable_all()
            .build()?;
        let (counts, mut tasks) = (Arc::new(Counts::default()), JoinSet::new());
        let mut channels = Vec::new();
        for _ in 0..clients::OF_FLOOD {
            // Connected there, so that the connection's own task is there, too.
            let address = target.address.clone();
            channels.push(runtime.spawn(async move { Target::running(address, None).connect().await }).await??);
        }
        for (caller, channel) in (0..callers).zip(channels.iter().cycle().cloned()) {
            let (issuer, counts) = (Arc::clone(issuer), Arc::clone(&counts));
            let calls = async move {
                let (client, mut service) = (clients::flooder(caller), MatchServiceClient::new(channel));
                while !counts.over.load(Relaxed) {
                    let counter = match service.identify(issuer.request(&client)?).await {
                        Ok(_) => &counts.searched,
                        Err(status) if status.code() == Code::ResourceExhausted => &counts.refused,
                        Err(status) => {
                            counts.failure.get_or_init(|| format!("{:?}: {status}", status.code()));
                            &counts.failed
                        }
                    };
                    counter.fetch_add(1, Relaxed);
                }
                Ok(())
            };
            tasks.spawn_on(calls, runtime.handle());
        }
        Ok(Self { runtime, callers: tasks, counts, started: Instant::now() })
    }

    pub async fn stop(mut self) -> Result<Flooded, Failure> {
        let (seconds, callers) = (self.started.elapsed().as_secs_f64(), self.callers.len());
        let rate = |counter: &AtomicU64| counter.load(Relaxed) as f64 / seconds;
        let (searched_per_s, refused_per_s) = (rate(&self.counts.searched), rate(&self.counts.refused));
        self.counts.over.store(true, Relaxed);
        while let Some(ended) = self.callers.join_next().await {
            ended??;
        }
        self.runtime.shutdown_background();
        let (failed, failure) = (self.counts.failed.load(Relaxed), self.counts.failure.get().cloned());
        Ok(Flooded { callers, searched_per_s, refused_per_s, failed, failure })
    }
}
