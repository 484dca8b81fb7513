//! `vultus model inspect`: the plan of a network as a table.

use std::path::Path;

use serde::Serialize;
use serde_json::json;

use super::super::{Failure, Outcome, Shared};
use crate::model::{
    Bundle,
    bare::Bare,
    bundle::hex,
    plan::{Arena, Plan, StepLine},
};

/// Of all steps, for one image.
#[derive(Debug, Serialize)]
struct Total {
    steps: usize,
    flops: u64,
    weight_bytes: u64,
    /// What all values take that are there at the same time, f32.
    arena_bytes: u64,
}

pub fn run(shared: &Shared) -> Result<Outcome, Failure> {
    let (head, plan) = match shared.onnx_file() {
        Some(file) => of_file(file)?,
        None => of_bundle(shared)?,
    };
    let lines = plan.lines();
    let total = Total {
        steps: lines.len(),
        flops: plan.flops(),
        weight_bytes: lines.iter().map(|line| line.weight_bytes).sum(),
        arena_bytes: 4 * Arena::of(&plan).elements(1) as u64,
    };
    if shared.json {
        println!("{}", json!({ "model": shared.model, "network": head, "plan": lines, "total": total }));
    } else {
        println!("{head}");
        table(&lines);
        println!(
            "{} steps, {:.3} GFLOP, {:.1} MB of weights, {:.1} MB of activations at a time, for one image",
            total.steps,
            total.flops as f64 / 1e9,
            total.weight_bytes as f64 / 1e6,
            total.arena_bytes as f64 / 1e6
        );
    }
    Ok(Outcome::Good)
}

fn of_file(file: &Path) -> Result<(String, Plan), Failure> {
    let Bare { graph, weights, sha256, .. } = Bare::open(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let plan = Plan::of(&graph, weights)?;
    Ok((format!("{}, SHA-256 {}, takes {}", file.display(), hex(&sha256), graph.input), plan))
}

fn of_bundle(shared: &Shared) -> Result<(String, Plan), Failure> {
    let (dir, name) = shared.model_place();
    let bundle = Bundle::open(&dir.join(name))?;
    let (contract, input) = (bundle.contract(), bundle.graph().input);
    let head = format!("{} {}, digest {}, takes {input}", contract.name, contract.version, hex(bundle.digest()));
    Ok((head, Plan::new(bundle.graph(), bundle.weights())?))
}

fn table(lines: &[StepLine]) {
    let width = lines.iter().map(|line| line.action.len()).max().unwrap_or(0).max(6);
    println!(
        "{:>4}  {:width$}  {:>12}  {:>12}  {:>9}  {:>10}  {:>10}  parts",
        "step", "action", "in", "out", "MFLOP", "weights kB", "values kB"
    );
    for StepLine { step, action, input, output, flops, weight_bytes, activation_bytes, parts } in lines {
        println!(
            "{step:>4}  {action:width$}  {input:>12}  {output:>12}  {:>9.2}  {:>10.1}  {:>10.1}  {}",
            *flops as f64 / 1e6,
            *weight_bytes as f64 / 1e3,
            *activation_bytes as f64 / 1e3,
            parts.join(" + ")
        );
    }
}
