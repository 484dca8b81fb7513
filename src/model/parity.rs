//! How far executors agree with the reference on a network that has a card.

use std::num::NonZeroUsize;

use vultus_engine::parity::{Agreement, Opened, ParityError, Shown};

use super::{
    bundle::Bundle,
    contract::PrecisionClass,
    golden::{Golden, Held},
};

/// Runs the golden faces of a face network in a reduced precision of its card, on every instruction set of this machine that computes
/// in it: the cosine must reach the card's floor, and no value may differ by more than makes an executor unfit to serve.
///
/// # Errors
/// [`LoadError::Unsupported`] where there is no such instruction set.
pub fn parity_of_class(
    bundle: &Bundle,
    class: &PrecisionClass,
    threads: NonZeroUsize,
) -> Result<Vec<Agreement>, ParityError> {
    let (precision, floor) = (class.precision, f64::from(class.floor));
    let golden = Golden::of_network(bundle, precision)?;
    let (graph, weights, input) = (bundle.graph(), bundle.weights(), &bundle.contract().input);
    let opened = Opened { graph, weights, input, precision, ranges: &class.ranges, threads };
    opened.on_every_level(|executor, network| {
        let held = Held::of(&golden, |image| network.run(&[image]))?;
        Ok(Agreement {
            executor,
            precision,
            images: held.faces,
            shown: Shown::GoldenFaces,
            one_minus_cosine: 1.0 - held.least_cosine,
            allowed: 1.0 - floor,
            tolerances: Some(held.tolerances),
            good: held.least_cosine >= floor && held.tolerances <= 1.0,
        })
    })
}
