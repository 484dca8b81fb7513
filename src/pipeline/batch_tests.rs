use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::model::ExecuteError;

#[derive(Debug, Clone, PartialEq)]
struct Fake {
    id: u32,
    role: Role,
    lane: Lane,
    deadline: Instant,
    gone: bool,
}

impl Entry for Fake {
    fn role(&self) -> Role {
        self.role
    }
    fn lane(&self) -> Lane {
        self.lane
    }
    fn deadline(&self) -> Instant {
        self.deadline
    }
    fn gone(&self) -> bool {
        self.gone
    }
}

fn fake(id: u32, role: Role, lane: Lane) -> Fake {
    Fake { id, role, lane, deadline: Instant::now() + Duration::from_secs(60), gone: false }
}

fn state(limits: BatchLimits, jobs: impl IntoIterator<Item = Fake>) -> State<Fake> {
    let mut state = State::new(limits);
    for job in jobs {
        state.push(job).unwrap();
    }
    state
}

fn ids(batch: &[Fake]) -> Vec<u32> {
    batch.iter().map(|j| j.id).collect()
}

const LIMITS: BatchLimits = BatchLimits { queue_depth: 8, batch_images: 3, yield_every: 4 };

#[test]
fn a_batch_is_of_one_role_and_no_longer_than_the_limit() {
    use {Lane::Verification as V, Role::*};
    let jobs = [(1, Embed), (2, Detect), (3, Embed), (4, Embed), (5, Embed)].map(|(id, role)| fake(id, role, V));
    let mut state = state(LIMITS, jobs);
    let now = Instant::now();
    assert_eq!(ids(&state.take(now).batch), [1, 3, 4]);
    assert_eq!(ids(&state.take(now).batch), [2]);
    assert_eq!(ids(&state.take(now).batch), [5]);
    assert!(state.take(now).batch.is_empty());
}

#[test]
fn verification_overtakes_enrolment_but_never_for_ever() {
    use Lane::{Enrolment as E, Verification as V};
    let limits = BatchLimits { batch_images: 1, ..LIMITS };
    let mut state = state(limits, [fake(100, Role::Embed, E)]);
    let mut order = Vec::new();
    for id in 0..6 {
        state.push(fake(id, Role::Embed, V)).unwrap();
        order.extend(ids(&state.take(Instant::now()).batch));
    }
    assert_eq!(order, [0, 1, 2, 100, 3, 4]);
}

#[test]
fn a_full_queue_gives_the_job_back() {
    let mut state = state(LIMITS, (0..8).map(|id| fake(id, Role::Embed, Lane::Verification)));
    assert_eq!(state.push(fake(9, Role::Embed, Lane::Enrolment)).unwrap_err().id, 9);
}

#[test]
fn the_late_and_the_gone_leave_without_work() {
    let now = Instant::now();
    let mut late = fake(1, Role::Embed, Lane::Verification);
    late.deadline = now;
    let mut gone = fake(2, Role::Embed, Lane::Enrolment);
    gone.gone = true;
    let mut state = state(LIMITS, [late, gone, fake(3, Role::Embed, Lane::Verification)]);
    let taken = state.take(now);
    assert_eq!((ids(&taken.batch), ids(&taken.late), taken.gone), (vec![3], vec![1], 1));
    assert_eq!(state.len(), 0);
}

/// An image of this value keeps the device busy for long.
const SLOW: u8 = 99;

/// Answers with the first pixel; fails for 13, panics for 66.
struct Echo(Arc<AtomicUsize>);

impl Executor for Echo {
    fn input_size(&self, _: Role) -> InputSize {
        InputSize { width: 1, height: 1 }
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
    (Arc::new(Device::start(Box::new(Echo(Arc::clone(&runs))), BatchLimits::default()).unwrap()), runs)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

#[tokio::test]
async fn each_image_gets_its_own_outputs_and_a_bad_one_fails_alone() {
    let (device, runs) = echo();
    let jobs: Vec<_> = (0..60)
        .map(|value| {
            let device = Arc::clone(&device);
            tokio::spawn(async move { device.run(Role::Embed, pixel(value), Lane::Verification, soon()).await })
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
    let error = device.run(Role::Embed, pixel(66), Lane::Verification, soon()).await.unwrap_err();
    assert_eq!(error, DeviceError::Stopped);
    while device.is_running() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let error = device.run(Role::Embed, pixel(1), Lane::Verification, soon()).await.unwrap_err();
    assert_eq!(error, DeviceError::Stopped);
}

#[tokio::test]
async fn no_work_is_done_for_the_late_or_the_gone() {
    let (device, runs) = echo();
    let past = Instant::now();
    assert_eq!(device.run(Role::Embed, pixel(1), Lane::Verification, past).await, Err(DeviceError::Late));
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    let busy = tokio::spawn({
        let device = Arc::clone(&device);
        async move { device.run(Role::Embed, pixel(SLOW), Lane::Verification, soon()).await }
    });
    tokio::task::yield_now().await;
    while runs.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let left = device.run(Role::Embed, pixel(3), Lane::Verification, soon());
    assert!(tokio::time::timeout(Duration::ZERO, left).await.is_err());
    busy.await.unwrap().unwrap();
    device.run(Role::Embed, pixel(4), Lane::Verification, soon()).await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 2, "the job of a caller that had left was run");
}
