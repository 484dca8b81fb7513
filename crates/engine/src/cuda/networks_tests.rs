//! Whole networks on the emulated card, with the CPU's bits.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::{num::NonZeroUsize, time::Instant};

use super::{
    CudaExecutor,
    executor_tests::{driver, settings},
    tests::{LIMITS, assert_same},
};
use crate::{
    cpu::CpuExecutor,
    executor::{NetworkId, Planned, run},
    graph::Graph,
    image::Pixels,
    input::Input,
    int8::tests::{
        input,
        networks_tests::{bundle, iresnet, mobilefacenet},
        observed, slopes,
    },
    plan::Plan,
    precision::Precision,
    weights::Weights,
};

fn check(name: &str, graph: &Graph, weights: &Weights, input: &Input) {
    let image = slopes(input, 4);
    let images: [&Pixels; 1] = [&image];
    let (_, ranges) = observed(graph, weights, input, &[slopes(input, 1)]);
    let planned = || {
        let plan = Plan::new(graph, weights).unwrap().with_ranges(&ranges).unwrap();
        vec![Planned { plan, input: input.clone(), precision: Precision::Int8 }]
    };
    let expected = run(&mut CpuExecutor::new(planned(), NonZeroUsize::MIN).unwrap(), NetworkId(0), &images).unwrap();
    let mut executor = CudaExecutor::new(planned(), driver(None), settings(LIMITS)).unwrap();
    let began = Instant::now();
    let outputs = run(&mut executor, NetworkId(0), &images).unwrap();
    println!("{name}: {} values in {:.1} s", outputs[0].len(), began.elapsed().as_secs_f64());
    assert_same(&outputs.concat(), &expected.concat(), name);
}

#[test]
fn families_of_networks_have_the_cpus_bits() {
    for (name, sketch) in [("iresnet", iresnet(16, [1, 2, 2, 1], 48)), ("mobilefacenet", mobilefacenet(48))] {
        check(name, &sketch.graph, &sketch.weights, &input(48, 48));
    }
}

/// Those that find faces and place landmarks as well.
#[test]
fn the_default_models_have_the_cpus_bits() {
    for name in ["default", "face-landmark-68", "tiny-face-detector"] {
        let Some((graph, weights)) = bundle(name) else { continue };
        check(name, &graph, &weights, &input(graph.input.height, graph.input.width));
    }
}
