//! Programs on kernels that the CPU runs, held against the oracle.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use vultus_cuda::{
    Device, Limits, Status,
    fake::{Fake, Fault},
};

use super::{
    lane::failed,
    layout::Constants,
    program::DeviceProgram,
    tuning::Tuning,
    worker::{Programs, Worker},
};
use crate::{
    executor::{ExecuteError, NetworkId, Sight},
    image::Pixels,
    input::InputSize,
    int8::{
        Program,
        drawn_tests::{Draw, Sketch, image},
    },
};

pub const LIMITS: Limits = Limits { memory: 1 << 30, patience: Duration::from_secs(10) };

/// A card of so many multiprocessors with all kernels, in whose place the emulator's run.
#[allow(unsafe_code)]
pub fn emulated(multiprocessors: i32, seed: u32) -> Fake {
    vultus_emulate::kernels().into_iter().fold(Fake::default().multiprocessors(multiprocessors), |fake, kernel| {
        let name = kernel.name.clone();
        fake.kernel(&name, &[kernel.arguments], move |_, launch, arguments| {
            assert_eq!((launch.block, launch.grid[2]), (kernel.threads, 1), "{}", kernel.name);
            // SAFETY: the fake driver's memory is the machine's, guarded on both sides; this is its one thread.
            unsafe { kernel.run(&arguments[0], [launch.grid[0], launch.grid[1]], launch.shared, seed) }
        })
    })
}

pub fn worker(fake: &Fake, programs: &[&Program]) -> Worker {
    tuned(fake, programs, &Tuning::default())
}

pub fn tuned(fake: &Fake, programs: &[&Program], tuning: &Tuning) -> Worker {
    let mut constants = Constants::default();
    let of = |program: &&Program| {
        let size = InputSize { width: program.input.width, height: program.input.height };
        (DeviceProgram::new(program, &mut constants).unwrap(), size)
    };
    let programs = programs.iter().map(of).collect();
    let device = Device::open(Box::new(fake.clone()), 0, LIMITS).unwrap();
    Worker::new(device, &[b"90"], Programs { programs, constants }, Some(tuning.clone())).unwrap()
}

pub fn sights(images: &[Pixels]) -> Vec<Arc<Sight>> {
    images.iter().map(|image| Arc::new(Sight::Made(image.clone()))).collect()
}

pub fn assert_same(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (at, (got, expected)) in got.iter().zip(expected).enumerate() {
        // Of what is no number, neither sign nor payload is said.
        let same = got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
        assert!(same, "{what}, at {at}: {got}, not {expected}");
    }
}

/// Runs the images on cards of one multiprocessor and of many, which take other tiles, alone and with others, and compares the outputs' bits.
pub fn compare(program: &Program, images: &[Pixels], seed: u64) {
    let expected: Vec<Vec<f32>> = images.iter().map(|image| program.run_oracle(image).unwrap()).collect();
    for multiprocessors in [1, 6, 132] {
        let fake = emulated(multiprocessors, seed as u32);
        let mut worker = worker(&fake, &[program]);
        let steps: Vec<_> = program.steps.iter().map(|step| format!("{:.40?}", step.op)).collect();
        let what = format!("{multiprocessors} multiprocessors, {steps:?}");
        // Two batches at a time, again and again on the same memory.
        for _ in 0..2 {
            worker.submit(NetworkId(0), &sights(images)).unwrap();
            worker.submit(NetworkId(0), &sights(&images[..1])).unwrap();
            let (_, all) = worker.complete().unwrap();
            let (_, first) = worker.complete().unwrap();
            assert_same(&all, &expected.concat(), &what);
            assert_same(&first, &expected[0], &what);
        }
        drop(worker);
        assert!(fake.left().is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn programs_have_the_bits_of_the_oracle(
        size in (3..18usize, 3..18usize),
        stem in any::<bool>(),
        choices in proptest::collection::vec(0..25usize, 1..9),
        images in 1..4usize,
        seed in any::<u64>(),
    ) {
        let program = Sketch::drawn(size, stem, &choices, seed);
        prop_assume!(program.steps.iter().all(|step| step.emits.len() <= super::arguments::MAX_EMITS));
        let mut draw = Draw::new(seed);
        let images: Vec<Pixels> = (0..images).map(|_| image(&program.input, &mut draw)).collect();
        compare(&program, &images, seed);
    }
}

/// The fastest is taken, unless it does not have the bits of others; and batches have the oracle's.
#[test]
fn tuning_takes_the_fastest_of_those_that_are_right() {
    let (program, images, expected) = small();
    let tune = |fake: &Fake| {
        let device = Device::open(Box::new(fake.clone()), 0, LIMITS).unwrap();
        Worker::new(device, &[b"90"], programs(&program), None).unwrap()
    };
    let fast = ["convolve_u8_128x64", "convolve_s8_128x64"];
    let fake = fast.iter().fold(emulated(1, 1), |fake, name| fake.takes_ms(name, 0.1));
    let mut worker = tune(&fake);
    assert!(worker.differ.is_empty(), "{:?}", worker.differ);
    let written = serde_json::to_string(&worker.tuning).unwrap();
    assert_eq!(serde_json::from_str::<Tuning>(&written).unwrap(), worker.tuning);
    // One dense convolution, for each of five sizes.
    assert_eq!((worker.tuning.len(), written.matches("128x64/1").count()), (5, 5), "{written}");
    worker.submit(NetworkId(0), &sights(&images)).unwrap();
    assert_same(&worker.complete().unwrap().1, &expected, "tuned");
    drop(worker);
    assert!(fake.left().is_empty());
    let wrong = fast.iter().fold(fake, |fake, name| {
        let kernel = vultus_emulate::kernels().into_iter().find(|kernel| kernel.name == *name).unwrap();
        fake.kernel(name, &[kernel.arguments], |_, _, _| {})
    });
    let mut worker = tune(&wrong);
    assert_eq!(worker.differ.len(), 5, "{:?}", worker.differ);
    worker.submit(NetworkId(0), &sights(&images)).unwrap();
    assert_same(&worker.complete().unwrap().1, &expected, "without the wrong one");
}

/// A program of a few operations, two images, and what it gives for them.
fn small() -> (Program, Vec<Pixels>, Vec<f32>) {
    let mut sketch = Sketch::new(6, 5, 3);
    sketch.stem();
    [5, 0, 20].into_iter().for_each(|choice| sketch.step(choice));
    let program = sketch.finish();
    let mut draw = Draw::new(3);
    let images: Vec<Pixels> = (0..2).map(|_| image(&program.input, &mut draw)).collect();
    let expected = images.iter().flat_map(|image| program.run_oracle(image).unwrap()).collect();
    (program, images, expected)
}

fn programs(program: &Program) -> Programs {
    let mut constants = Constants::default();
    let size = InputSize { width: program.input.width, height: program.input.height };
    Programs { programs: vec![(DeviceProgram::new(program, &mut constants).unwrap(), size)], constants }
}

/// Opens the device, loads the program and runs a batch.
fn life(fake: &Fake, limits: Limits, program: &Program, images: &[Pixels]) -> Result<Vec<f32>, ExecuteError> {
    let device = Device::open(Box::new(fake.clone()), 0, limits).map_err(failed)?;
    let mut worker = Worker::new(device, &[b"90"], programs(program), Some(Tuning::default())).map_err(failed)?;
    worker.submit(NetworkId(0), &sights(images))?;
    Ok(worker.complete()?.1.to_vec())
}

/// Whatever the call: an error is a value, what lives is given back unless the device is lost, and no output is wrong.
#[test]
fn every_call_may_fail() {
    let (program, images, expected) = small();
    let healthy = emulated(4, 1);
    assert_same(&life(&healthy, LIMITS, &program, &images).unwrap(), &expected, "healthy");
    let calls = healthy.calls();
    assert!(calls > 100, "{calls}");
    let (mut failed, mut lost) = (0, 0);
    for at in 0..calls {
        for status in [2, 700, 999] {
            let fake = emulated(4, 1).fault(at, Fault::Gives(Status(status)));
            match life(&fake, LIMITS, &program, &images) {
                // What waits asks again, what goes has nobody to tell.
                Ok(outputs) => assert_same(&outputs, &expected, &format!("call {at} gave {status}")),
                Err(ExecuteError::Lost(_)) => lost += 1,
                Err(_) => {
                    failed += 1;
                    assert!(
                        at < 7 || status != 2 || fake.left().is_empty(),
                        "call {at} gave {status}: {:?}",
                        fake.left()
                    );
                }
            }
        }
    }
    assert!(failed > calls / 2 && lost > calls, "{failed} failed and {lost} lost of {calls} calls");
}

#[test]
fn memory_bounds_the_batches_and_too_little_is_said() {
    let (program, images, expected) = small();
    let sizes = |memory| {
        let limits = Limits { memory, ..LIMITS };
        let device = Device::open(Box::new(emulated(4, 1)), 0, limits).unwrap();
        Worker::new(device, &[b"90"], programs(&program), Some(Tuning::default())).map(|worker| worker.sizes())
    };
    assert_eq!(sizes(1 << 30).unwrap(), [[1, 8, 32, 128, 256]]);
    let Programs { programs: of, constants } = programs(&program);
    let for_some = constants.bytes().len() + 2 * of[0].0.bytes(32) * 5 / 4 + (64 << 10);
    assert_eq!(sizes(for_some as u64).unwrap(), [[1, 8, 32]]);
    let refused = sizes(1 << 10).unwrap_err().to_string();
    assert!(refused.contains("of which"), "{refused}");
    // More than the greatest size, and more batches than lanes.
    let mut worker = worker(&emulated(4, 1), &[&program]);
    let many: Vec<Pixels> = (0..257).map(|_| images[0].clone()).collect();
    assert!(worker.submit(NetworkId(0), &sights(&many)).is_err() && worker.submit(NetworkId(0), &[]).is_err());
    worker.submit(NetworkId(0), &sights(&images)).unwrap();
    worker.submit(NetworkId(0), &sights(&images)).unwrap();
    assert!(worker.submit(NetworkId(0), &sights(&images)).is_err());
    assert_same(&worker.complete().unwrap().1, &expected, "the first of two");
    // One of another size leaves the lanes as they were.
    let wrong = [Pixels::flat(3, 3, [1; 3])];
    assert!(matches!(worker.submit(NetworkId(0), &sights(&wrong)), Err(ExecuteError::Size { .. })));
    assert_same(&worker.complete().unwrap().1, &expected, "the second");
    assert!(worker.complete().is_err());
}
