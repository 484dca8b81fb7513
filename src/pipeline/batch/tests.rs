use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::model::ExecuteError;

/// An image of this value keeps the device busy for long.
const SLOW: u8 = 99;

/// Answers with the first pixel; fails for 13, panics for 66.
struct Echo(Arc<AtomicUsize>);

impl Executor for Echo {
    fn input_size(&self, _: Role) -> InputSize {
        InputSize { width: 1, height: 1 }
    }

    fn gains_up_to(&self, _: Role) -> usize {
        usize::MAX
    }

    fn run(&mut self, _: Role, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ExecuteError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let first = |p: &&Pixels| p.rgb8()[0];
        let slow = images.iter().any(|p| first(p) == SLOW);
        thread::sleep(Duration::from_millis(if slow { 300 } else { 2 }));
        assert!(images.iter().all(|p| first(p) != 66), "asked to panic");
        match images.iter().position(|p| first(p) == 13) {
            Some(index) => Err(ExecuteError::NotFinite { index }),
            None => Ok(images.iter().map(|p| vec![f32::from(first(p))]).collect()),
        }
    }
}

fn pixel(value: u8) -> Pixels {
    Pixels::new(1, 1, vec![value; 3]).unwrap()
}

fn echo() -> (Arc<Device>, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    (Arc::new(Device::start(vec![Box::new(Echo(Arc::clone(&runs)))], BatchLimits::default()).unwrap()), runs)
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
