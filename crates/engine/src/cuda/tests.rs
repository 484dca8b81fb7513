//! Programs on kernels that the CPU runs, held against the oracle.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use vultus_cuda::{Device, Limits, fake::Fake};

use super::{
    layout::Constants,
    program::DeviceProgram,
    worker::{Programs, Worker},
};
use crate::{
    executor::{NetworkId, Sight},
    graph::Shape,
    image::Pixels,
    input::InputSize,
    int8::{
        Op, Program,
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
    let mut constants = Constants::default();
    let of = |program: &&Program| {
        let size = InputSize { width: program.input.width, height: program.input.height };
        (DeviceProgram::new(program, &mut constants).unwrap(), size)
    };
    let programs = programs.iter().map(of).collect();
    let device = Device::open(Box::new(fake.clone()), 0, LIMITS).unwrap();
    Worker::new(device, &[b"90"], Programs { programs, constants }).unwrap()
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
        let mut sketch = Sketch::new(size.0, size.1, seed);
        if stem {
            sketch.stem();
        } else {
            sketch.push(Op::Normalise, vec![0], Shape::new(3, size.0, size.1));
        }
        choices.into_iter().for_each(|choice| sketch.step(choice));
        let program = sketch.finish();
        prop_assume!(program.steps.iter().all(|step| step.emits.len() <= super::arguments::MAX_EMITS));
        let mut draw = Draw::new(seed);
        let images: Vec<Pixels> = (0..images).map(|_| image(&program.input, &mut draw)).collect();
        compare(&program, &images, seed);
    }
}
