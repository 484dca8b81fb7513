use std::sync::atomic::{AtomicUsize, Ordering};

use vultus_engine::{
    executor::{NetworkId, Outputs},
    image::Pixels,
};

use super::*;

/// An image of this value keeps the device busy for long.
const SLOW: u8 = 99;

/// Answers with the first pixel; fails for 13, panics for 66. Has two batches under way.
struct Echo {
    runs: Arc<AtomicUsize>,
    begun: VecDeque<Vec<Arc<Sight>>>,
    outputs: Vec<f32>,
}

fn value(sight: &Sight) -> u8 {
    sight.pixels(0, InputSize { width: 1, height: 1 }).unwrap().rgb8()[0]
}

impl Executor for Echo {
    fn input_size(&self, _: NetworkId) -> InputSize {
        InputSize { width: 1, height: 1 }
    }

    fn batching(&self, _: NetworkId) -> Batching {
        Batching { in_flight: 2, ..Batching::up_to(64) }
    }

    fn submit(&mut self, _: NetworkId, sights: &[Arc<Sight>]) -> Result<(), ExecuteError> {
        self.begun.push_back(sights.to_vec());
        assert!(self.begun.len() <= 2, "more under way than it takes");
        Ok(())
    }

    fn complete(&mut self) -> Result<Outputs<'_>, ExecuteError> {
        let sights = self.begun.pop_front().ok_or_else(|| ExecuteError::Device("no batch is begun".into()))?;
        self.runs.fetch_add(1, Ordering::SeqCst);
        let values: Vec<u8> = sights.iter().map(|sight| value(sight)).collect();
        thread::sleep(Duration::from_millis(if values.contains(&SLOW) { 300 } else { 2 }));
        assert!(!values.contains(&66), "asked to panic");
        self.outputs = values.iter().map(|value| if *value == 13 { f32::NAN } else { f32::from(*value) }).collect();
        Outputs::new(&self.outputs, 1)
    }
}

fn pixel(value: u8) -> Sight {
    Sight::Made(Pixels::new(1, 1, vec![value; 3]).unwrap())
}

fn echo() -> (Arc<Device>, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let executor = Echo { runs: Arc::clone(&runs), begun: VecDeque::new(), outputs: Vec::new() };
    (Arc::new(Device::start(vec![Box::new(executor)], BatchLimits::default()).unwrap()), runs)
}

fn until(deadline: Instant) -> Turn {
    Turn::own(Lane::Verification, deadline)
}

fn soon() -> Turn {
    until(Instant::now() + Duration::from_secs(10))
}

#[tokio::test]
async fn each_image_gets_its_own_outputs_and_a_bad_one_fails_alone() {
    let (device, runs) = echo();
    let jobs: Vec<_> = (0..60)
        .map(|value| {
            let device = Arc::clone(&device);
            tokio::spawn(async move { device.run(Role::Embed, pixel(value), &soon()).await })
        })
        .collect();
    for (value, job) in (0u8..).zip(jobs) {
        match job.await.unwrap() {
            Ok(output) => assert_eq!(output.values, [f32::from(value)]),
            Err(error) => assert!(value == 13 && matches!(error, DeviceError::Failed(_)), "{value}: {error}"),
        }
    }
    assert!(runs.load(Ordering::SeqCst) < 60, "nothing was batched");
}

#[tokio::test]
async fn a_panic_of_the_device_is_an_error_for_everyone_and_the_end_of_none() {
    let (device, _) = echo();
    let error = device.run(Role::Embed, pixel(66), &soon()).await.unwrap_err();
    assert_eq!(error, DeviceError::Stopped);
    while device.is_running() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let error = device.run(Role::Embed, pixel(1), &soon()).await.unwrap_err();
    assert_eq!(error, DeviceError::Stopped);
}

#[tokio::test]
async fn nor_is_any_done_twice_for_those_whose_batch_failed() {
    let (device, runs) = echo();
    let run = |value, turn: Turn| {
        let device = Arc::clone(&device);
        tokio::spawn(async move { device.run(Role::Embed, pixel(value), &turn).await })
    };
    let busy = run(SLOW, soon());
    while runs.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    // They run together once it ends, take as long, and fail; the second takes as long again, alone.
    let late = Instant::now() + Duration::from_millis(450);
    let (bad, slow, last, left) = (run(13, soon()), run(SLOW, soon()), run(1, until(late)), run(2, soon()));
    busy.await.unwrap().unwrap();
    while runs.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    left.abort();
    assert!(matches!(bad.await.unwrap(), Err(DeviceError::Failed(_))));
    assert_eq!(slow.await.unwrap().unwrap().values, [f32::from(SLOW)]);
    assert_eq!(last.await.unwrap(), Err(DeviceError::Late));
    drop(device);
    assert_eq!(runs.load(Ordering::SeqCst), 4, "the batch, and the first two of it alone");
}

#[tokio::test]
async fn no_work_is_done_for_the_late_or_the_gone() {
    let (device, runs) = echo();
    let past = until(Instant::now());
    assert_eq!(device.run(Role::Embed, pixel(1), &past).await, Err(DeviceError::Late));
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    let busy = tokio::spawn({
        let device = Arc::clone(&device);
        async move { device.run(Role::Embed, pixel(SLOW), &soon()).await }
    });
    tokio::task::yield_now().await;
    while runs.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let turn = soon();
    let left = device.run(Role::Embed, pixel(3), &turn);
    assert!(tokio::time::timeout(Duration::ZERO, left).await.is_err());
    busy.await.unwrap().unwrap();
    device.run(Role::Embed, pixel(4), &soon()).await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 2, "the job of a caller that had left was run");
}
