//! Health is earned, and lost again: a device that begins to answer wrongly is found by the canary.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tonic::transport::Endpoint;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use vultus::{
    access::Access,
    audit::Log,
    config::Config,
    gallery::Galleries,
    model::ModelSet,
    pipeline::{CanaryError, Pipeline, Settings},
    rpc::{Core, TakenAtItsWord, bind},
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
        let mut images: Vec<Vec<f32>> = self.inner.complete()?.iter().map(<[f32]>::to_vec).collect();
        if self.wrong.load(Ordering::SeqCst) {
            images.iter_mut().for_each(|values| values.rotate_right(1));
        }
        self.outputs = images.concat();
        Outputs::new(&self.outputs, self.outputs.len() / images.len().max(1))
    }
}

fn pipeline(config: &Config) -> (Pipeline, Arc<AtomicBool>, Arc<AtomicBool>) {
    let set = ModelSet::open(&models(), "default").unwrap();
    let [wrong, hangs] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let inner = set.executor(DeviceChoice::Cpu, NonZeroUsize::MIN).unwrap();
    let executor: Box<dyn Executor> =
        Box::new(Swaps { inner, wrong: Arc::clone(&wrong), hangs: Arc::clone(&hangs), outputs: vec![] });
    let settings = Settings {
        decode: config.decode,
        batch: config.batch,
        rates: config.rates,
        decoders: NonZeroUsize::MIN,
        pixel_bytes: config.pixel_bytes,
    };
    let pipeline = Pipeline::start(&set, vec![executor], settings, &RootKey::from_bytes([7; 32])).unwrap();
    (pipeline.with_golden(&set).unwrap(), wrong, hangs)
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

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_answer_turns_health_off() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::parse("[limits]\ncanary_interval_s = 1").unwrap();
    let (pipeline, wrong, _) = pipeline(&config);
    let root = RootKey::from_bytes([7; 32]);
    let galleries = Arc::new(Galleries::open(dir.path(), &root, config.galleries.clone()).unwrap());
    let access = Access::new(config.clients.clone(), Arc::clone(&galleries));
    let (route, limits) = (config.alternative_route.clone(), config.limits.clone());
    let core = Core::new(access, pipeline, Arc::new(Log), route, limits).unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let serving = bind(core, Arc::new(TakenAtItsWord), any, any, false).await.unwrap();
    let address = format!("http://{}", serving.address().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serving.until(async {
        let _ = stopped.await;
    }));
    let mut health = HealthClient::new(Endpoint::from_shared(address).unwrap().connect().await.unwrap());
    let mut said = async |expected: &str| {
        for _ in 0..200 {
            let request = HealthCheckRequest { service: "vultus.v1.MatchService".into() };
            let status = health.check(request).await.unwrap().into_inner().status();
            if status.as_str_name() == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("health never said {expected}");
    };
    said("SERVING").await;
    wrong.store(true, Ordering::SeqCst);
    said("NOT_SERVING").await;
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
    galleries.close().await;
}
