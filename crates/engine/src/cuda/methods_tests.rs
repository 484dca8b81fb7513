//! Every way to compute a convolution, held against the oracle over shapes that are drawn.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::{
    layout::Constants,
    place::Card,
    program::DeviceProgram,
    tests::{assert_same, emulated, sights, tuned},
    tuning::Tuning,
};
use crate::{
    executor::NetworkId,
    graph::{Edges, Window},
    image::Pixels,
    int8::drawn_tests::{Draw, Sketch, image},
};

/// How often each kind of method was tried.
static TRIED: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

/// A convolution, and one of its result with a residual, on a card of so many multiprocessors.
struct Case {
    size: [usize; 2],
    channels: [usize; 2],
    window: Window,
    padding: Edges,
    images: usize,
    multiprocessors: usize,
    seed: u64,
}

/// By every method whose name has that word.
fn check(case: &Case, word: &str) {
    let &Case { size: [height, width], channels: [ins, outs], window, padding, multiprocessors, seed, .. } = case;
    let mut sketch = Sketch::new(height, width, seed);
    let value = sketch.stem_of(ins, Window::square(1, 1), Edges::NONE);
    let value = sketch.convolve_of(value, outs, 1, window, padding);
    // Once more, with the first one's result as residual.
    sketch.convolve_of(value, outs, 1, Window::square(1, 1), Edges::NONE);
    let program = sketch.finish();
    let mut draw = Draw::new(seed);
    let images: Vec<Pixels> = (0..case.images).map(|_| image(&program.input, &mut draw)).collect();
    let expected: Vec<f32> = images.iter().flat_map(|image| program.run_oracle(image).unwrap()).collect();
    let of = DeviceProgram::new(&program, &mut Constants::default()).unwrap();
    let none = Tuning::default();
    let card = Card { multiprocessors, hopper: true, tuning: &none };
    for convolution in of.convolutions() {
        // That of the batch which holds the images.
        let size = if images.len() == 1 { 1 } else { 8 };
        for method in convolution.methods(size, &card) {
            let name = method.name();
            if !name.contains(word) {
                continue;
            }
            let kind = match &name {
                name if name.contains("hopper") => 0,
                name if name.ends_with("/1") => 1,
                _ => 2,
            };
            TRIED[kind].fetch_add(1, Ordering::Relaxed);
            let mut tuning = Tuning::default();
            tuning.set(convolution.key(size), name.clone());
            assert_eq!(convolution.choose(size, &Card { tuning: &tuning, ..card }), method);
            let mut worker = tuned(&emulated(multiprocessors as i32, seed as u32), &[&program], &tuning);
            // Again, where something of the first run stays.
            for _ in 0..if kind == 2 { 2 } else { 1 } {
                worker.submit(NetworkId(0), &sights(&images)).unwrap();
                assert_same(&worker.complete().unwrap().1, &expected, &name);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]

    #[test]
    fn every_method_has_the_bits_of_the_oracle(
        size in [3..13usize, 3..13usize],
        (ins, outs) in (prop_oneof![1..40usize, Just(64), Just(128), Just(192)], 1..290usize),
        (height, width, stride) in (1..4usize, 1..4usize, 1..4usize),
        [top, left, bottom, right] in [0..3usize, 0..3usize, 0..3usize, 0..3usize],
        images in prop_oneof![3 => Just(1usize), 1 => Just(2)],
        multiprocessors in prop_oneof![Just(1), Just(3), Just(40)],
        seed in any::<u64>(),
    ) {
        let (window, padding) = (Window { height, width, stride }, Edges { top, left, bottom, right });
        check(&Case { size, channels: [ins, outs], window, padding, images, multiprocessors, seed }, "");
        println!("{TRIED:?} methods of Hopper, alone and with shared tiles");
    }
}

/// Blocks that compute several tiles of more steps than their ring has places: in turns, and together.
#[test]
fn rings_of_hopper_go_round() {
    for (seed, (ins, outs, side)) in
        [(64, 70, 3), (128, 200, 3), (128, 64, 2), (192, 300, 1), (256, 40, 3)].into_iter().enumerate()
    {
        for multiprocessors in [1, 2] {
            let (window, padding) = (Window::square(side, 1), Edges::all(side / 2));
            let (size, seed) = ([15, 14], seed as u64);
            check(&Case { size, channels: [ins, outs], window, padding, images: 1, multiprocessors, seed }, "hopper");
        }
    }
}
