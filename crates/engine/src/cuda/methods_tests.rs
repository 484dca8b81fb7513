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

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]

    #[test]
    fn every_method_has_the_bits_of_the_oracle(
        (height, width) in (3..13usize, 3..13usize),
        (ins, outs) in (prop_oneof![1..40usize, Just(64), Just(128), Just(192)], 1..290usize),
        (rows, columns, stride) in (1..4usize, 1..4usize, 1..4usize),
        edges in [0..3usize, 0..3usize, 0..3usize, 0..3usize],
        images in prop_oneof![3 => Just(1usize), 1 => Just(2)],
        multiprocessors in prop_oneof![Just(1), Just(3), Just(40)],
        seed in any::<u64>(),
    ) {
        let mut sketch = Sketch::new(height, width, seed);
        let value = sketch.stem_of(ins, Window::square(1, 1), Edges::NONE);
        let [top, left, bottom, right] = edges;
        let window = Window { height: rows, width: columns, stride };
        let value = sketch.convolve_of(value, outs, 1, window, Edges { top, left, bottom, right });
        // Once more, with the first one's result as residual.
        let pass = Window::square(1, 1);
        sketch.convolve_of(value, outs, 1, pass, Edges::NONE);
        let program = sketch.finish();
        let mut draw = Draw::new(seed);
        let images: Vec<Pixels> = (0..images).map(|_| image(&program.input, &mut draw)).collect();
        let expected: Vec<f32> = images.iter().flat_map(|image| program.run_oracle(image).unwrap()).collect();
        let of = DeviceProgram::new(&program, &mut Constants::default()).unwrap();
        let none = Tuning::default();
        let card = Card { multiprocessors, hopper: true, tuning: &none };
        for convolution in of.convolutions() {
            // That of the batch which holds the images.
            let size = if images.len() == 1 { 1 } else { 8 };
            for method in convolution.methods(size, &card) {
                let name = method.name();
                let kind = if name.contains("hopper") { 0 } else if name.ends_with("/1") { 1 } else { 2 };
                TRIED[kind].fetch_add(1, Ordering::Relaxed);
                let mut tuning = Tuning::default();
                tuning.set(convolution.key(size), name.clone());
                prop_assert_eq!(convolution.choose(size, &Card { tuning: &tuning, ..card }), method);
                let mut worker = tuned(&emulated(multiprocessors as i32, seed as u32), &[&program], &tuning);
                // Again, where something of the first run stays.
                for _ in 0..if kind == 2 { 2 } else { 1 } {
                    worker.submit(NetworkId(0), &sights(&images)).unwrap();
                    assert_same(&worker.complete().unwrap().1, &expected, &name);
                }
            }
        }
        println!("{TRIED:?} methods of Hopper, alone and with shared tiles");
    }
}
