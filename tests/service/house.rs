//! A server in the test's own process, which the test sees from the inside, too.

use std::{
    num::NonZeroUsize,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    sync::{RwLock, oneshot},
    task::JoinHandle,
};
use tonic::transport::{Channel, Endpoint};
use vultus::{
    access::Access,
    audit::{DecisionEvent, NotRecorded, Recording, Sink},
    config::Config,
    domain::{Template, Turn},
    gallery::{Clocks, Galleries, MachineClocks},
    model::ModelSet,
    pipeline::{Extract, Extracting, Extraction, FaceInput, Pipeline, Settings, Timings},
    rpc::{
        Core, TakenAtItsWord, bind,
        pb::{
            self, gallery_service_client::GalleryServiceClient, match_service_client::MatchServiceClient,
            review_service_client::ReviewServiceClient,
        },
    },
    seal::RootKey,
};
use vultus_engine::device::DeviceChoice;
use vultus_index::{FaissIndexes, Indexes};

use crate::{
    requests::{enrol, of, raw},
    server::{CONFIG, models},
};

pub const GALLERY: &str = "subscribers";

/// Keeps what it is told, unless it fails; takes its time while the gate is closed.
#[derive(Debug, Default)]
pub struct Notes {
    pub told: Mutex<Vec<DecisionEvent>>,
    fails: AtomicBool,
    pub gate: RwLock<()>,
}

impl Sink for Notes {
    fn record(&self, event: DecisionEvent) -> Recording<'_> {
        Box::pin(async move {
            let _open = self.gate.read().await;
            if self.fails.load(Ordering::SeqCst) {
                return Err(NotRecorded("the disk of the audit is full".into()));
            }
            self.told.lock().unwrap().push(event);
            Ok(())
        })
    }
}

impl Notes {
    /// The one event since the last look.
    pub fn one(&self) -> DecisionEvent {
        let mut told = std::mem::take(&mut *self.told.lock().unwrap());
        assert_eq!(told.len(), 1, "{told:?}");
        told.remove(0)
    }

    pub fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }
}

/// Whose faces are all alike.
#[derive(Debug)]
struct Alike(Template);

impl Extract for Alike {
    fn extract<'a>(&'a self, _: FaceInput, _: &'a Turn) -> Extracting<'a> {
        Box::pin(async { Ok(Extraction { outcome: Ok(self.0.clone()), timings: Timings::default() }) })
    }
}

/// A server in this process.
pub struct House {
    pub notes: Arc<Notes>,
    pub galleries: Arc<Galleries>,
    channel: Channel,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl House {
    pub async fn open(dir: &Path) -> Self {
        Self::open_with(dir, CONFIG, Arc::new(MachineClocks), Arc::new(FaissIndexes)).await
    }

    pub async fn open_with(dir: &Path, config: &str, clocks: Arc<dyn Clocks>, indexes: Arc<dyn Indexes>) -> Self {
        let (config, root) = (Config::parse(config).unwrap(), RootKey::from_bytes([7; 32]));
        let set = ModelSet::open(&models(), "default").unwrap();
        let settings = Settings {
            decode: config.decode,
            batch: config.batch,
            rates: config.rates,
            decoders: NonZeroUsize::MIN,
            pixel_bytes: config.pixel_bytes,
            replacement: None,
        };
        let executor = set.executor(DeviceChoice::Cpu, NonZeroUsize::MIN).unwrap();
        let pipeline = Pipeline::start(&set, vec![executor], settings, &root).unwrap();
        let face = Template::new(pipeline.model(), vec![0.0; pipeline.dimension()]).unwrap();
        let limits = vultus::gallery::Settings { indexes, ..config.galleries.clone() };
        let galleries = Arc::new(Galleries::open_by(dir, &root, limits, clocks).unwrap());
        let access = Access::new(config.clients.clone(), Arc::clone(&galleries));
        let notes = Arc::new(Notes::default());
        let (pipeline, sink) = (pipeline.extracting_with(Arc::new(Alike(face))), Arc::clone(&notes));
        let core = Core::new(access, pipeline, sink, config.alternative_route, config.limits).unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let serving = bind(core, Arc::new(TakenAtItsWord), any, any, false).await.unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{}", serving.address().unwrap())).unwrap();
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(async move {
            let stopped = async { stopped.await.unwrap() };
            serving.until(stopped).await.unwrap();
        });
        Self { notes, galleries, channel: endpoint.connect().await.unwrap(), stop, server }
    }

    pub fn gallery(&self) -> GalleryServiceClient<Channel> {
        GalleryServiceClient::new(self.channel.clone())
    }

    pub fn matching(&self) -> MatchServiceClient<Channel> {
        MatchServiceClient::new(self.channel.clone())
    }

    pub fn review(&self) -> ReviewServiceClient<Channel> {
        ReviewServiceClient::new(self.channel.clone())
    }

    pub async fn enrol(&self, subject: &str) -> pb::EnrolResponse {
        self.gallery().enrol(of("shop", enrol(GALLERY, subject, face()))).await.unwrap().into_inner()
    }

    pub async fn close(self) {
        drop(self.channel);
        self.stop.send(()).unwrap();
        self.server.await.unwrap();
        self.galleries.close().await;
    }
}

pub fn face() -> Option<pb::FaceImage> {
    raw(64, 64, vec![128; 64 * 64 * 3])
}
