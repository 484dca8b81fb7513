//! Whole programs, held against the oracle.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use proptest::prelude::*;

use super::network::{Network, Workspace};
use crate::{
    cpu::kernels::Level,
    image::Pixels,
    int8::{
        Program,
        drawn_tests::{Draw, Sketch, image},
    },
};

/// Runs the images on all levels, with one thread and with two, and compares the outputs' bits.
fn compare(program: &Program, images: &[Pixels], work: &mut Workspace) {
    let expected: Vec<f32> = images.iter().flat_map(|image| program.run_oracle(image).unwrap()).collect();
    let images: Vec<&Pixels> = images.iter().collect();
    for level in Level::tested() {
        let network = Network::new(program, level).unwrap();
        assert!(network.weights() <= Network::packed(program, level));
        for threads in [1, 2] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let each = network.output_values();
            let mut got = vec![f32::INFINITY; each * images.len()];
            assert_eq!(got.len(), expected.len());
            let parts = images.chunks(network.together).zip(got.chunks_mut(each * network.together));
            parts.for_each(|(images, got)| pool.install(|| network.run(work, threads, images, got)));
            for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
                // Of what is no number, neither sign nor payload is said.
                let same = got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
                assert!(same, "{level:?}, {threads} threads, at {at}: {got}, not {expected}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn programs_have_the_bits_of_the_oracle(
        size in (3..18usize, 3..18usize),
        stem in any::<bool>(),
        choices in proptest::collection::vec(0..25usize, 1..9),
        images in 1..4usize,
        seed in any::<u64>(),
    ) {
        let program = Sketch::drawn(size, stem, &choices, seed);
        let mut draw = Draw::new(seed);
        let images: Vec<Pixels> = (0..images).map(|_| image(&program.input, &mut draw)).collect();
        compare(&program, &images, &mut Workspace::default());
    }
}

#[test]
fn an_image_alone_and_among_32_others_gives_the_same() {
    let mut sketch = Sketch::new(12, 9, 77);
    sketch.stem();
    [5, 3, 0, 20, 6, 14, 2, 7].into_iter().for_each(|choice| sketch.step(choice));
    let program = sketch.finish();
    let mut draw = Draw::new(5);
    let images: Vec<Pixels> = (0..33).map(|_| image(&program.input, &mut draw)).collect();
    // Larger and smaller batches in the same memory.
    let mut work = Workspace::default();
    [2, 33, 1, 7].into_iter().for_each(|count| compare(&program, &images[..count], &mut work));
    let outputs = [0, 1].map(|at| program.run_oracle(&images[at]).unwrap());
    let apart = outputs[0].iter().zip(&outputs[1]).filter(|(a, b)| a.is_finite() && a != b).count();
    assert!(4 * apart > outputs[0].len(), "{apart} of {} tell the images apart", outputs[0].len());
}

/// Layer after layer that goes by Winograd's algorithm, in one memory.
#[test]
fn programs_of_tiles_have_the_bits_of_the_oracle() {
    let (mut tiled, mut work) = (0, Workspace::default());
    for seed in 0..200 {
        let mut sketch = Sketch::new(9 + seed as usize % 8, 12, seed);
        sketch.stem();
        (0..7).for_each(|_| sketch.step(4));
        let program = sketch.finish();
        for level in Level::available() {
            tiled += Network::new(&program, level).unwrap().tiled();
        }
        let mut draw = Draw::new(seed);
        let images: Vec<Pixels> = (0..3).map(|_| image(&program.input, &mut draw)).collect();
        compare(&program, &images, &mut work);
    }
    let takes_words = Level::available().iter().any(|level| !level.takes_bytes());
    println!("{tiled} convolutions in tiles");
    assert!(tiled >= 40 || !takes_words, "{tiled}");
}
