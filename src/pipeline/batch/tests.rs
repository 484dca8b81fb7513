use std::sync::atomic::{AtomicUsize, Ordering};

use vultus_engine::{
    executor::{ExecuteError, NetworkId, Outputs},
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
    (Arc::new(Device::start(vec![Box::new(executor)], BatchLimits::default(), None).unwrap()), runs)
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

/// Loses its device at the batch of that number, counted over all that share the count.
struct Loses {
    inner: Echo,
    left: Arc<AtomicUsize>,
}

impl Executor for Loses {
    fn input_size(&self, network: NetworkId) -> InputSize {
        self.inner.input_size(network)
    }

    fn batching(&self, _: NetworkId) -> Batching {
        Batching { in_flight: 2, ..Batching::up_to(4) }
    }

    fn submit(&mut self, network: NetworkId, sights: &[Arc<Sight>]) -> Result<(), ExecuteError> {
        match self.left.load(Ordering::SeqCst) {
            0 => Err(ExecuteError::Lost("an ECC error".into())),
            _ => self.inner.submit(network, sights),
        }
    }

    fn complete(&mut self) -> Result<Outputs<'_>, ExecuteError> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_err() {
            return Err(ExecuteError::Lost("an ECC error".into()));
        }
        self.inner.complete()
    }
}

fn loses(executors: usize, after: usize, replacement: Option<Replacement>) -> Arc<Device> {
    let left = Arc::new(AtomicUsize::new(after));
    let one = || -> Box<dyn Executor> {
        let inner = Echo { runs: Arc::default(), begun: VecDeque::new(), outputs: Vec::new() };
        Box::new(Loses { inner, left: Arc::clone(&left) })
    };
    let executors = (0..executors).map(|_| one()).collect();
    Arc::new(Device::start(executors, BatchLimits::default(), replacement).unwrap())
}

/// Everyone's answer, of 100 who ask at once.
async fn crowd(device: &Arc<Device>) -> Vec<Result<Output, DeviceError>> {
    let jobs: Vec<_> = (0u8..100)
        .map(|number| {
            let device = Arc::clone(device);
            let value = if matches!(number, 13 | 66 | SLOW) { 1 } else { number };
            tokio::spawn(async move { (value, device.run(Role::Embed, pixel(value), &soon()).await) })
        })
        .collect();
    let mut answers = Vec::new();
    for job in jobs {
        let (value, answer) = job.await.unwrap();
        assert!(answer.as_ref().is_ok_and(|output| output.values == [f32::from(value)]) || answer.is_err());
        answers.push(answer);
    }
    answers
}

fn count(answers: &[Result<Output, DeviceError>], what: impl Fn(&DeviceError) -> bool) -> usize {
    answers.iter().filter(|answer| answer.as_ref().is_err_and(&what)).count()
}

#[tokio::test]
async fn of_a_lost_device_what_was_under_way_fails_and_the_rest_stops() {
    for (executors, after) in [(1, 0), (1, 3), (2, 0), (3, 5)] {
        let device = loses(executors, after, None);
        let answers = crowd(&device).await;
        let lost = count(&answers, |e| *e == DeviceError::Lost("an ECC error".into()));
        let stopped = count(&answers, |e| *e == DeviceError::Stopped);
        let done = answers.iter().filter(|answer| answer.is_ok()).count();
        assert!(lost >= 1 && lost <= executors * 8, "{executors}, {after}: {lost}");
        assert!(done <= after * 4 && lost + stopped + done == 100, "{executors}, {after}: {lost} {stopped} {done}");
        assert_eq!(*device.condition().borrow(), Condition::Lost("an ECC error".into()));
        assert!(!device.is_running());
    }
}

#[tokio::test]
async fn what_waits_goes_to_those_that_take_its_place() {
    for (executors, after) in [(1, 0), (1, 3), (2, 0), (3, 5)] {
        let replaced = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&replaced);
        let make = move || -> loss::Made {
            counted.fetch_add(1, Ordering::SeqCst);
            let echo = || Echo { runs: Arc::default(), begun: VecDeque::new(), outputs: Vec::new() };
            Ok(vec![Box::new(echo()), Box::new(echo())])
        };
        let device = loses(executors, after, Some(Replacement::new(make)));
        let mut condition = device.condition();
        let answers = crowd(&device).await;
        let lost = count(&answers, |e| *e == DeviceError::Lost("an ECC error".into()));
        let done = answers.iter().filter(|answer| answer.is_ok()).count();
        assert!(lost >= 1 && lost <= executors * 8 && lost + done == 100, "{executors}, {after}: {lost} {done}");
        assert_eq!(replaced.load(Ordering::SeqCst), 1, "once, whoever tells of the loss");
        condition.wait_for(|condition| *condition == Condition::Running).await.unwrap();
        assert!(device.is_running() && device.executors() == 2);
        assert_eq!(count(&crowd(&device).await, |_| true), 0);
    }
}

#[tokio::test]
async fn where_nothing_takes_its_place_it_is_lost() {
    let makes: [fn() -> loss::Made; 3] = [|| Err("no memory".into()), || Ok(vec![]), || panic!("asked to panic")];
    for make in makes {
        let device = loses(2, 1, Some(Replacement::new(make)));
        let answers = crowd(&device).await;
        assert!(answers.iter().any(Result::is_err));
        let mut condition = device.condition();
        condition.wait_for(|condition| matches!(condition, Condition::Lost(_))).await.unwrap();
        while device.is_running() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
