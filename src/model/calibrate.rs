//! How far a reduced precision of a face network agrees with the reference, measured on faces; and, for int8, between
//! which values activations lie on them. Agreement on faces that set the ranges says little of those to come: so it is
//! measured on faces held out, in folds.

use std::num::NonZeroUsize;

use vultus_engine::{
    candle,
    cpu::{CpuNetwork, calibrate},
    executor::{ExecuteError, LoadError},
    image::Pixels,
    parity::cosine,
    plan::{ActivationRange, Plan, union},
    precision::Precision,
};

use super::{bundle::Bundle, contract::PrecisionClass};

/// The floor of a class whose card names none: a cosine that moves the default model's descriptors by a tenth of their
/// length.
pub const FLOOR: f32 = 0.995;
/// Fewer faces say next to nothing: the photos of the default model's package show 21.
const LEAST_FACES: usize = 20;
/// Faces that run together.
const BATCH: usize = 8;
/// Parts of the faces that are held out in turn. They are runs of neighbours, as faces of one photo, and photos of one
/// person by their files' names, mostly stand beside each other: held out, they should be strangers to the rest.
const FOLDS: usize = 3;

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    #[error("expected {LEAST_FACES} faces or more to measure on, found {0}")]
    Faces(usize),
    #[error("the network {0}")]
    Load(#[from] LoadError),
    #[error(transparent)]
    Execute(#[from] ExecuteError),
}

/// Faces, and what the reference gives for them.
#[derive(Debug)]
pub struct Faces<'a> {
    images: Vec<&'a Pixels>,
    expected: Vec<Vec<f32>>,
    /// What they are, in words.
    source: String,
}

impl<'a> Faces<'a> {
    /// `images` are aligned, of the network's size. Runs the reference over them, which takes a while.
    pub fn new(bundle: &Bundle, images: Vec<&'a Pixels>, source: String) -> Result<Self, CalibrateError> {
        if images.len() < LEAST_FACES {
            return Err(CalibrateError::Faces(images.len()));
        }
        let expected = candle::reference(bundle.graph(), bundle.weights(), &bundle.contract().input, &images)?;
        Ok(Self { images, expected, source })
    }

    pub fn count(&self) -> usize {
        self.images.len()
    }
}

/// The class of `precision` with what was measured: the least cosine to the reference, and for int8 the ranges, which
/// are of all faces. Its cosine is the least of those that each fold has with the ranges of the others, and all have
/// with the ranges of all. The class serves where the cosine reaches `floor`.
pub fn measure(
    bundle: &Bundle,
    precision: Precision,
    floor: f32,
    faces: &Faces<'_>,
    threads: NonZeroUsize,
) -> Result<PrecisionClass, CalibrateError> {
    let network = Network { bundle, precision, threads };
    let (images, expected) = (&faces.images, &faces.expected);
    let (mut least, mut ranges) = (1.0_f64, vec![]);
    if precision == Precision::Int8 {
        let fold = images.len().div_ceil(FOLDS);
        let seen = images.chunks(fold).map(|images| network.ranges(images)).collect::<Result<Vec<_>, _>>()?;
        for (held_out, (images, expected)) in images.chunks(fold).zip(expected.chunks(fold)).enumerate() {
            let others = seen.iter().enumerate().filter(|(fold, _)| *fold != held_out);
            let ranges = union(others.map(|(_, ranges)| ranges.as_slice()));
            least = least.min(network.least_cosine(&ranges, images, expected)?);
        }
        ranges = union(seen.iter().map(Vec::as_slice));
    }
    least = least.min(network.least_cosine(&ranges, images, expected)?);
    // Not rounded up to a floor that it misses; five digits say enough.
    let agreement = (least * 1e5).floor() as f32 / 1e5;
    let held_out = if precision == Precision::Int8 { "; each third held against the ranges of the others" } else { "" };
    let (images, source) = (images.len() as u64, format!("{}{held_out}", faces.source));
    let class = PrecisionClass { precision, floor, agreement: Some(agreement), images, source, ranges, measured: None };
    Ok(class.measured_on(&hex::encode(bundle.digest())))
}

struct Network<'a> {
    bundle: &'a Bundle,
    precision: Precision,
    threads: NonZeroUsize,
}

impl Network<'_> {
    fn plan(&self) -> Result<Plan, LoadError> {
        let plan = Plan::new(self.bundle.graph(), self.bundle.weights());
        plan.map_err(LoadError::from)
    }

    fn ranges(&self, images: &[&Pixels]) -> Result<Vec<ActivationRange>, CalibrateError> {
        Ok(calibrate::ranges(self.plan()?, &self.bundle.contract().input, images, self.threads)?)
    }

    /// Over all images, with what the reference gives for each.
    fn least_cosine(
        &self,
        ranges: &[ActivationRange],
        images: &[&Pixels],
        expected: &[Vec<f32>],
    ) -> Result<f64, CalibrateError> {
        let mut plan = self.plan()?;
        if self.precision == Precision::Int8 {
            plan = plan.with_ranges(ranges).map_err(LoadError::from)?;
        }
        let mut network = CpuNetwork::new(plan, &self.bundle.contract().input, self.precision, self.threads)?;
        let mut least = 1.0_f64;
        for (images, expected) in images.chunks(BATCH).zip(expected.chunks(BATCH)) {
            let got = network.run(images)?;
            least = got.iter().zip(expected).map(|(got, expected)| cosine(got, expected)).fold(least, f64::min);
        }
        Ok(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Contract;
    use vultus_engine::{
        graph::{Edges, Graph, Node, Op, Shape, Window},
        weights::Weights,
    };

    /// Two convolutions, of a pixel each; the second reads 32 channels, and is of bytes.
    fn bundle() -> Bundle {
        let mut card = Contract::parse(include_str!("../../models/default.toml")).unwrap();
        card.digest = None;
        card.precisions.clear();
        (card.input.width, card.input.height) = (4, 4);
        (card.input.mean, card.input.scale, card.output.dimension) = ([0.0; 3], 1.0 / 255.0, 256);
        let mut weights = Weights::new();
        let mut random = (0u32..).map(|at| (at.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0);
        weights.insert("a", vec![32, 3, 1, 1], random.by_ref().take(96).collect()).unwrap();
        weights.insert("b", vec![16, 32, 1, 1], random.take(512).collect()).unwrap();
        let convolution = |weight: &str, input| {
            let window = Window::square(1, 1);
            let op = Op::Convolution { weight: weight.into(), bias: None, window, padding: Edges::NONE, groups: 1 };
            Node { op, inputs: vec![input] }
        };
        let graph =
            Graph { input: Shape::new(3, 4, 4), nodes: vec![convolution("a", 0), convolution("b", 1)], output: 2 };
        Bundle::new(card, graph, weights).unwrap()
    }

    #[test]
    fn agreement_is_of_faces_that_did_not_set_the_ranges() {
        let bundle = bundle();
        let face = |light: u8, seed: usize| {
            let rgb8 =
                (0..48).map(|at| light / 2 + ((at + seed) * 89 % 128 * usize::from(light) / 255) as u8).collect();
            Pixels::new(4, 4, rgb8).unwrap()
        };
        let measured = |lights: [u8; 3]| {
            let images: Vec<Pixels> = (0..24).map(|at| face(lights[at / 8], at)).collect();
            let faces = Faces::new(&bundle, images.iter().collect(), "drawn".into()).unwrap();
            let network = Network { bundle: &bundle, precision: Precision::Int8, threads: NonZeroUsize::MIN };
            let ranges = network.ranges(&faces.images).unwrap();
            let of_all = network.least_cosine(&ranges, &faces.images, &faces.expected).unwrap();
            let class = measure(&bundle, Precision::Int8, FLOOR, &faces, NonZeroUsize::MIN).unwrap();
            assert_eq!((class.images, &class.ranges), (24, &ranges), "what serves is of all faces");
            (class, of_all as f32)
        };
        let (alike, of_all) = measured([200, 200, 200]);
        assert!(alike.serves() && of_all > 0.999, "{alike:?}, {of_all}");
        // A third that is five times as bright as the others: they set no ranges for it.
        for bright in 0..3 {
            let mut lights = [50; 3];
            lights[bright] = 250;
            let (class, of_all) = measured(lights);
            assert!(of_all > 0.999, "{of_all}");
            assert!(!class.serves() && class.agreement.unwrap() < 0.99, "{class:?}");
        }
        // Of bf16 there are no ranges to hold out.
        let images: Vec<Pixels> = (0..24).map(|at| face(if at < 8 { 250 } else { 50 }, at)).collect();
        let faces = Faces::new(&bundle, images.iter().collect(), "drawn".into()).unwrap();
        match measure(&bundle, Precision::Bf16, FLOOR, &faces, NonZeroUsize::MIN) {
            Ok(class) => assert!(class.serves() && class.ranges.is_empty(), "{class:?}"),
            Err(e) => assert!(matches!(e, CalibrateError::Load(LoadError::Unsupported(_))), "{e}"),
        }
    }

    #[test]
    fn few_faces_are_no_measurement() {
        let images: Vec<Pixels> = (0..19).map(|_| Pixels::flat(4, 4, [90; 3])).collect();
        let refused = Faces::new(&bundle(), images.iter().collect(), "drawn".into()).unwrap_err();
        assert!(matches!(refused, CalibrateError::Faces(19)), "{refused}");
    }
}
