//! `vultus model inspect`: the plan of a network as a table.

use std::path::Path;

use serde::Serialize;
use serde_json::json;
use vultus_engine::{
    cpu::{held, methods},
    input::Input,
    plan::{ActivationRange, Arena, Plan, StepLine},
    precision::Precision,
};

use super::super::{Failure, Outcome, Shared};
use crate::model::{Bundle, bare::Bare, contract::is_name};

/// A step and how this machine computes it in `--precision`; of dense convolutions alone.
#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    step: StepLine,
    method: &'static str,
}

/// Of all steps, for one image.
#[derive(Debug, Serialize)]
struct Total {
    steps: usize,
    flops: u64,
    weight_bytes: u64,
    /// Of the operations, those on bytes.
    int8_share: f64,
    /// What all values take that are there at the same time, f32.
    arena_bytes: u64,
    /// What it holds when it runs on this machine in `--precision`: weights as kernels read them, once; activations in
    /// lines and scratch, for each thread.
    packed_bytes: u64,
    thread_bytes: u64,
}

pub fn run(shared: &Shared, output: Option<&str>) -> Result<Outcome, Failure> {
    let (head, mut plan, input) = match shared.onnx_file_for(output)? {
        Some(file) => of_file(file, output)?,
        None => of_bundle(shared)?,
    };
    let precision = shared.precision.unwrap_or(Precision::F32);
    if precision == Precision::Int8 {
        // What it holds does not depend on where the ranges end.
        let range = |value| ActivationRange { value, low: -1.0, high: 1.0 };
        let ranges: Vec<_> = plan.code_values().into_iter().map(range).collect();
        plan = plan.with_ranges(&ranges)?;
    }
    let (methods, held) = (methods(&plan, precision), held(&plan, &input, precision)?);
    let lines: Vec<Line> = (plan.lines().into_iter().zip(methods))
        .map(|(step, method)| Line { step, method: method.unwrap_or_default() })
        .collect();
    let bytes: u64 = lines.iter().filter(|line| line.method == "int8").map(|line| line.step.flops).sum();
    let total = Total {
        steps: lines.len(),
        flops: plan.flops(),
        weight_bytes: lines.iter().map(|line| line.step.weight_bytes).sum(),
        int8_share: bytes as f64 / plan.flops().max(1) as f64,
        arena_bytes: 4 * Arena::of(&plan).elements(1) as u64,
        packed_bytes: held.packed,
        thread_bytes: held.workspace,
    };
    if shared.json {
        println!("{}", json!({ "model": shared.model, "network": head, "plan": lines, "total": total }));
    } else {
        println!("{head}");
        table(&lines);
        if bytes > 0 {
            println!("int8 computes {:.0} % of the operations in whole numbers", 100.0 * total.int8_share);
        }
        println!(
            "{} steps, {:.3} GFLOP, {:.1} MB of weights, {:.1} MB of activations at a time, for one image",
            total.steps,
            total.flops as f64 / 1e9,
            total.weight_bytes as f64 / 1e6,
            total.arena_bytes as f64 / 1e6
        );
        println!(
            "on this machine it holds {:.1} MB of packed weights, and {:.1} MB of activations and scratch for each thread",
            total.packed_bytes as f64 / 1e6,
            total.thread_bytes as f64 / 1e6
        );
    }
    Ok(Outcome::Good)
}

fn of_file(file: &Path, output: Option<&str>) -> Result<(String, Plan, Input), Failure> {
    let opened = Bare::open(file, output).map_err(|e| format!("{}: {e}", file.display()));
    let Bare { graph, weights, sha256, input } = opened?;
    let plan = Plan::of(&graph, weights)?;
    Ok((format!("{}, SHA-256 {}, takes {}", file.display(), hex::encode(sha256), graph.input), plan, input))
}

fn of_bundle(shared: &Shared) -> Result<(String, Plan, Input), Failure> {
    let (dir, name) = shared.model_place();
    if !is_name(name) {
        let expected =
            "a bundle's name or folder, or an ONNX file; what lies in a safetensors file is seen once it is imported";
        return Err(format!("--model {}: expected {expected}", shared.model).into());
    }
    let bundle = Bundle::open(&dir.join(name))?;
    let (contract, input) = (bundle.contract(), bundle.graph().input);
    let head =
        format!("{} {}, digest {}, takes {input}", contract.name, contract.version, hex::encode(bundle.digest()));
    Ok((head, Plan::new(bundle.graph(), bundle.weights())?, contract.input.clone()))
}

fn table(lines: &[Line]) {
    let width = lines.iter().map(|line| line.step.action.len()).max().unwrap_or(0).max(6);
    println!(
        "{:>4}  {:width$}  {:>12}  {:>12}  {:>9}  {:>10}  {:>10}  {:14}  parts",
        "step", "action", "in", "out", "MFLOP", "weights kB", "values kB", "method"
    );
    for Line { step: line, method } in lines {
        let StepLine { step, action, input, output, flops, weight_bytes, activation_bytes, parts } = line;
        println!(
            "{step:>4}  {action:width$}  {input:>12}  {output:>12}  {:>9.2}  {:>10.1}  {:>10.1}  {method:14}  {}",
            *flops as f64 / 1e6,
            *weight_bytes as f64 / 1e3,
            *activation_bytes as f64 / 1e3,
            parts.join(" + ")
        );
    }
}
