//! Health is earned, and lost again: a device that begins to answer wrongly is found by the canary.

use std::{
    num::NonZeroUsize,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use vultus::{
    access::Access,
    audit::Log,
    config::Config,
    gallery::Galleries,
    model::ModelSet,
    pipeline::{CanaryError, Pipeline, Replacement, Settings},
    rpc::{Core, Ended, TakenAtItsWord, bind},
    seal::RootKey,
};
use vultus_engine::{
    device::DeviceChoice,
    executor::{Batching, ExecuteError, Executor, NetworkId, Outputs, Sight},
    input::InputSize,
};

use crate::server::models;

/// The real device, until it is told to give each image its neighbour's answer, or none for a while.
struct Swaps {
    inner: Box<dyn Executor>,
    wrong: Arc<AtomicBool>,
    hangs: Arc<AtomicBool>,
    lost: Arc<AtomicBool>,
    outputs: Vec<f32>,
}

impl Executor for Swaps {
    fn input_size(&self, network: NetworkId) -> InputSize {
        self.inner.input_size(network)
    }

    fn batching(&self, network: NetworkId) -> Batching {
        self.inner.batching(network)
    }

    fn submit(&mut self, network: NetworkId, sights: &[Arc<Sight>]) -> Result<(), ExecuteError> {
        self.inner.submit(network, sights)
    }

    fn complete(&mut self) -> Result<Outputs<'_>, ExecuteError> {
        while self.hangs.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
        if self.lost.load(Ordering::SeqCst) {
            return Err(ExecuteError::Lost("an illegal address".into()));
        }
        let mut images: Vec<Vec<f32>> = self.inner.complete()?.iter().map(<[f32]>::to_vec).collect();
        if self.wrong.load(Ordering::SeqCst) {
            images.iter_mut().for_each(|values| values.rotate_right(1));
        }
        self.outputs = images.concat();
        Outputs::new(&self.outputs, self.outputs.len() / images.len().max(1))
    }
}

fn pipeline(config: &Config) -> (Pipeline, Arc<AtomicBool>, Arc<AtomicBool>) {
    let (pipeline, [wrong, hangs, _]) = pipeline_with(config, None);
    (pipeline, wrong, hangs)
}

fn pipeline_with(config: &Config, replacement: Option<Replacement>) -> (Pipeline, [Arc<AtomicBool>; 3]) {
    let set = ModelSet::open(&models(), "default").unwrap();
    let [wrong, hangs, lost] = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
    let inner = set.executor(DeviceChoice::Cpu, NonZeroUsize::MIN).unwrap();
    let executor: Box<dyn Executor> = Box::new(Swaps {
        inner,
        wrong: Arc::clone(&wrong),
        hangs: Arc::clone(&hangs),
        lost: Arc::clone(&lost),
        outputs: vec![],
    });
    let settings = Settings {
        decode: config.decode,
        batch: config.batch,
        rates: config.rates,
        decoders: NonZeroUsize::MIN,
        pixel_bytes: config.pixel_bytes,
        replacement,
    };
    let pipeline = Pipeline::start(&set, vec![executor], settings, &RootKey::from_bytes([7; 32])).unwrap();
    (pipeline.with_golden(&set).unwrap(), [wrong, hangs, lost])
}

#[tokio::test]
async fn golden_faces_tell_a_right_device_from_a_wrong_one() {
    let (pipeline, wrong, _) = pipeline(&Config::load(None).unwrap());
    pipeline.run_canary().await.unwrap();
    wrong.store(true, Ordering::SeqCst);
    let error = pipeline.run_canary().await.unwrap_err();
    assert!(matches!(error, CanaryError::Wrong { tolerances, .. } if tolerances > 1.0), "{error}");
}

#[tokio::test]
async fn a_device_that_hangs_is_found_out() {
    let (pipeline, _, hangs) = pipeline(&Config::load(None).unwrap());
    hangs.store(true, Ordering::SeqCst);
    let hung = tokio::time::timeout(Duration::from_secs(20), pipeline.run_canary_within(Duration::from_millis(100)));
    let error = hung.await.expect("nobody waits for ever").unwrap_err();
    hangs.store(false, Ordering::SeqCst);
    assert!(matches!(error, CanaryError::Hung { .. }), "{error}");
    pipeline.run_canary().await.unwrap();
}

/// A server over that pipeline, and its health.
struct Served {
    health: HealthClient<Channel>,
    stop: tokio::sync::oneshot::Sender<()>,
    server: tokio::task::JoinHandle<Ended>,
    galleries: Arc<Galleries>,
}

impl Served {
    async fn new(dir: &Path, config: &Config, pipeline: Pipeline) -> Self {
        let root = RootKey::from_bytes([7; 32]);
        let galleries = Arc::new(Galleries::open(dir, &root, config.galleries.clone()).unwrap());
        let access = Access::new(config.clients.clone(), Arc::clone(&galleries));
        let (route, limits) = (config.alternative_route.clone(), config.limits.clone());
        let core = Core::new(access, pipeline, Arc::new(Log), route, limits).unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let serving = bind(core, Arc::new(TakenAtItsWord), any, any, false).await.unwrap();
        let address = format!("http://{}", serving.address().unwrap());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = tokio::spawn(async { serving.until(async { stopped.await.unwrap() }).await.unwrap() });
        let health = HealthClient::new(Endpoint::from_shared(address).unwrap().connect().await.unwrap());
        Self { health, stop, server, galleries }
    }

    async fn says(&mut self, expected: &str) {
        for _ in 0..200 {
            let request = HealthCheckRequest { service: "vultus.v1.MatchService".into() };
            let status = self.health.check(request).await.unwrap().into_inner().status();
            if status.as_str_name() == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("health never said {expected}");
    }

    async fn stop(self) -> Ended {
        self.stop.send(()).unwrap();
        let ended = self.server.await.unwrap();
        self.galleries.close().await;
        ended
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_answer_turns_health_off() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::parse("[limits]\ncanary_interval_s = 1").unwrap();
    let (pipeline, wrong, _) = pipeline(&config);
    let mut served = Served::new(dir.path(), &config, pipeline).await;
    served.says("SERVING").await;
    wrong.store(true, Ordering::SeqCst);
    served.says("NOT_SERVING").await;
    assert_eq!(served.stop().await, Ended::Drained);
}

/// The next canary finds a device that is lost, as any request would; what takes its place serves once it has passed the self-test.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_device_is_replaced_or_ends_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::parse("[limits]\ncanary_interval_s = 1").unwrap();
    let (may_go_on, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (waits, makes) = (Arc::clone(&may_go_on), Arc::clone(&made));
    let replacement = Replacement::new(move || {
        while !waits.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
        makes.store(true, Ordering::SeqCst);
        let set = ModelSet::open(&models(), "default").map_err(|e| e.to_string())?;
        set.executors(DeviceChoice::Cpu, NonZeroUsize::MIN).map_err(|e| e.to_string())
    });
    let (pipeline, [_, _, lost]) = pipeline_with(&config, Some(replacement));
    let mut served = Served::new(dir.path(), &config, pipeline).await;
    served.says("SERVING").await;
    lost.store(true, Ordering::SeqCst);
    served.says("NOT_SERVING").await;
    may_go_on.store(true, Ordering::SeqCst);
    served.says("SERVING").await;
    assert!(made.load(Ordering::SeqCst));
    assert_eq!(served.stop().await, Ended::Drained);

    let dir = tempfile::tempdir().unwrap();
    let (pipeline, [_, _, lost]) = pipeline_with(&config, None);
    let mut served = Served::new(dir.path(), &config, pipeline).await;
    served.says("SERVING").await;
    lost.store(true, Ordering::SeqCst);
    let ended = tokio::time::timeout(Duration::from_secs(20), served.server).await.expect("it ends by itself");
    assert_eq!(ended.unwrap(), Ended::DeviceLost);
    served.galleries.close().await;
}
