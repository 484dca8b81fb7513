//! Plain Rust for machines without the others: bytes.

use super::{LINE, Panel, STEP};

pub fn sum(panel: &Panel, x: &[u8], places: &[usize], sums: &mut [i32]) {
    let footprint = &panel.footprint;
    for (place, sums) in places.iter().zip(sums.as_chunks_mut::<LINE>().0) {
        *sums = [0; LINE];
        let mut weights = panel.weights.iter();
        for run in &footprint.runs {
            let x = &x[place + run..][..footprint.steps * STEP];
            for (x, weights) in x.as_chunks::<STEP>().0.iter().zip(&mut weights) {
                let x = x.map(i32::from);
                for (sum, w) in sums.iter_mut().zip(weights.bytes().as_chunks::<STEP>().0) {
                    let w = w.map(i32::from);
                    *sum += x[0] * w[0] + x[1] * w[1] + x[2] * w[2] + x[3] * w[3];
                }
            }
        }
    }
}
