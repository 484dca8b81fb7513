//! The executor as who owns it sees it: a thread that has the device, and its loss.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::{num::NonZeroUsize, thread, time::Duration};

use vultus_cuda::{Driver, Limits, Status, fake::Fault};

use super::{
    CudaExecutor, CudaSettings, DividedExecutor, OpenDriver, Tuning,
    tests::{LIMITS, assert_same, emulated, sights},
};
use crate::{
    cpu::CpuExecutor,
    executor::{ExecuteError, Executor, LoadError, NetworkId, Planned, run},
    graph::Shape,
    image::Pixels,
    int8::tests::{Sketch, image, input, observed},
    plan::Plan,
    precision::Precision,
};

/// Two convolutions and what comes between them, in a precision.
fn planned(precision: Precision, side: usize) -> (Planned, Vec<Pixels>) {
    let mut sketch = Sketch::new(Shape::new(3, side, side), 5);
    let x = sketch.convolve(0, 20, 3, 1, 1);
    let x = sketch.prelu(x);
    sketch.convolve(x, 9, 3, 2, 1);
    let input = input(side, side);
    let images: Vec<Pixels> = (0..3).map(|seed| image(&input, seed)).collect();
    let (_, ranges) = observed(&sketch.graph, &sketch.weights, &input, &images);
    let plan = Plan::new(&sketch.graph, &sketch.weights).unwrap();
    let plan = if precision == Precision::Int8 { plan.with_ranges(&ranges).unwrap() } else { plan };
    (Planned { plan, input, precision }, images)
}

pub fn settings(limits: Limits) -> CudaSettings {
    CudaSettings { ordinal: 0, limits, images: &[b"90"], tuning: Some(Tuning::default()) }
}

pub fn driver(fault: Option<(usize, Fault)>) -> OpenDriver {
    Box::new(move || {
        let fake = emulated(4, 9);
        let driver: Box<dyn Driver> = Box::new(match fault {
            Some((at, fault)) => fake.fault(at, fault),
            None => fake,
        });
        Ok(driver)
    })
}

fn on_cpu(precision: Precision, side: usize) -> Vec<f32> {
    let (planned, images) = planned(precision, side);
    let mut cpu = CpuExecutor::new(vec![planned], NonZeroUsize::MIN).unwrap();
    run(&mut cpu, NetworkId(0), &images.iter().collect::<Vec<_>>()).unwrap().concat()
}

#[test]
fn a_device_has_the_cpus_bits() {
    let (network, images) = planned(Precision::Int8, 11);
    let mut executor = CudaExecutor::new(vec![network], driver(None), settings(LIMITS)).unwrap();
    let batching = executor.batching(NetworkId(0));
    assert_eq!((batching.sizes, batching.in_flight), (vec![1, 8, 32, 128, 256], 2));
    let images: Vec<&Pixels> = images.iter().collect();
    let outputs = run(&mut executor, NetworkId(0), &images).unwrap();
    assert_same(&outputs.concat(), &on_cpu(Precision::Int8, 11), "outputs");
    let wrong = Pixels::flat(4, 4, [0; 3]);
    assert!(matches!(run(&mut executor, NetworkId(0), &[&wrong]), Err(ExecuteError::Size { index: 0, .. })));
    assert!(run(&mut executor, NetworkId(1), &images).is_err() && executor.complete().is_err());
    assert_eq!(run(&mut executor, NetworkId(0), &images).unwrap(), outputs, "errors cost nothing");
}

#[test]
fn other_precisions_run_beside_it() {
    let of = |precision, side| planned(precision, side).0;
    let networks = || vec![of(Precision::F32, 8), of(Precision::Int8, 11), of(Precision::F32, 9)];
    let mut executor = DividedExecutor::new(networks(), NonZeroUsize::MIN, driver(None), settings(LIMITS)).unwrap();
    let kinds = [(Precision::F32, 8), (Precision::Int8, 11), (Precision::F32, 9)];
    // All begun before the first is complete.
    for (at, (precision, side)) in kinds.into_iter().enumerate() {
        assert_eq!(executor.input_size(NetworkId(at)).width, side as u32);
        assert_eq!(executor.batching(NetworkId(at)).in_flight, 2);
        executor.submit(NetworkId(at), &sights(&planned(precision, side).1)).unwrap();
    }
    for (precision, side) in kinds {
        let outputs: Vec<f32> = executor.complete().unwrap().iter().flatten().copied().collect();
        assert_same(&outputs, &on_cpu(precision, side), &format!("{precision:?} {side}"));
    }
    assert!(executor.complete().is_err() && executor.submit(NetworkId(3), &[]).is_err());
    let refused = CudaExecutor::new(networks(), driver(None), settings(LIMITS)).unwrap_err();
    assert!(matches!(refused, (NetworkId(0), LoadError::Unsupported(_))), "{refused:?}");
}

#[test]
fn a_lost_device_is_lost_for_all_that_comes() {
    let (network, images) = planned(Precision::Int8, 11);
    let images: Vec<&Pixels> = images.iter().collect();
    let mut start = CudaExecutor::new(vec![network], driver(Some((40, Fault::Gives(Status(700))))), settings(LIMITS));
    assert!(matches!(start.as_mut().unwrap_err(), (NetworkId(0), LoadError::Device(_))));
    // Work that hangs, from a call on that comes after the start.
    let limits = Limits { patience: Duration::from_millis(50), ..LIMITS };
    let mut lost = 0;
    for at in (300..700).step_by(100) {
        let (network, _) = planned(Precision::Int8, 11);
        let hangs = driver(Some((at, Fault::Hangs)));
        let Ok(mut executor) = CudaExecutor::new(vec![network], hangs, settings(limits)) else { continue };
        while run(&mut executor, NetworkId(0), &images).is_ok() {}
        let again = run(&mut executor, NetworkId(0), &images);
        assert!(matches!(again, Err(ExecuteError::Lost(_))), "{again:?}");
        lost += 1;
    }
    assert!(lost > 0);
}

/// A driver that does not return from a call.
#[test]
fn a_driver_that_does_not_return_holds_nobody_up() {
    let (network, images) = planned(Precision::Int8, 11);
    let images: Vec<&Pixels> = images.iter().collect();
    let limits = Limits { patience: Duration::from_millis(50), ..LIMITS };
    let asleep: OpenDriver = Box::new(|| {
        let kernels = emulated(4, 9);
        let convolve = vultus_emulate::kernels().into_iter().filter(|kernel| kernel.name.starts_with("convolve"));
        Ok(Box::new(convolve.fold(kernels, |fake, kernel| {
            fake.kernel(&kernel.name, &[kernel.arguments], |_, _, _| thread::sleep(Duration::from_secs(60)))
        })))
    });
    let mut executor = CudaExecutor::new(vec![network], asleep, settings(limits)).unwrap();
    let began = std::time::Instant::now();
    let lost = run(&mut executor, NetworkId(0), &images).unwrap_err();
    assert!(matches!(&lost, ExecuteError::Lost(why) if why.contains("did not return")), "{lost}");
    assert!(matches!(run(&mut executor, NetworkId(0), &images), Err(ExecuteError::Lost(_))));
    drop(executor);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
