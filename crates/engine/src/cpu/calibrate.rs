//! Which values int8 must be able to say: the ranges that a network's activations take on given images, in f32.

use std::{collections::BTreeMap, num::NonZeroUsize};

use super::{Prepared, Share, Threads, kernels::Level};
use crate::{
    executor::LoadError,
    graph::ValueId,
    image::Pixels,
    input::Input,
    plan::{ActivationRange, Plan},
    precision::Precision,
};

/// The ranges of all values that the integer network codes, over `images` of the network's size; others are left out.
pub fn ranges(
    plan: Plan,
    input: &Input,
    images: &[&Pixels],
    threads: NonZeroUsize,
) -> Result<Vec<ActivationRange>, LoadError> {
    let values = plan.code_values();
    let prepared = Prepared::new(plan, input, Precision::F32, Level::of_machine())?; // whatever the environment names: one machine, one program
    let images: Vec<&Pixels> = (images.iter().copied())
        .filter(|image| (image.width(), image.height()) == (prepared.size.width, prepared.size.height))
        .collect();
    let mut threads = Share::of_all(Threads::of_one(threads)?);
    let mut seen: BTreeMap<ValueId, (f32, f32)> = values.iter().map(|&value| (value, (0.0, 0.0))).collect();
    threads.watch(&prepared, &images, |watched, x| {
        if let Some((low, high)) = seen.get_mut(&watched.value) {
            let ends = watched.ends(x);
            (*low, *high) = (low.min(ends.0), high.max(ends.1));
        }
    });
    Ok(seen
        .into_iter()
        .map(|(value, (low, high))| ActivationRange { value, low: away(low), high: away(high) })
        .collect())
}

/// Rounded away from zero to three digits, which say a range well enough and are short in a card.
fn away(end: f32) -> f32 {
    if end == 0.0 {
        return 0.0;
    }
    let unit = 10.0_f64.powi(f64::from(end).abs().log10().floor() as i32 - 2);
    // As a decimal number, so that the card has three digits.
    format!("{:e}", ((f64::from(end).abs() / unit).ceil() * unit * f64::from(end.signum())) as f32)
        .parse()
        .unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use super::away;

    #[test]
    fn ends_are_rounded_away_from_zero() {
        assert_eq!(
            [0.0, 1.0, 1.2341, -1.2341, 0.0056781, -98765.0].map(away),
            [0.0, 1.0, 1.24, -1.24, 0.00568, -98800.0]
        );
    }
}
