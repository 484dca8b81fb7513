//! Learns the weights of `face_occlusion_prevention` and writes src/pipeline/quality/cover_weights.rs anew:
//! `cargo test --release --test intake learn -- --ignored --nocapture`; in place with `VULTUS_WRITE=1`, else into the temporary folder.
//!
//! From the people on whom limits are tuned and the faces of the package's photos; nothing of the people who are reported on is seen.

use std::{fmt::Write, sync::Arc};

use vultus::{
    domain::{Assessment, MeasureName},
    pipeline::quality::edges,
};
use vultus_engine::view::Image;

use super::{
    Face, TUNED, crops, decode, here, input, pipeline,
    random::{Dice, Others, covered, lit, moved},
    turn,
};

/// Of each face, the unchanged one among the uncovered.
const UNCOVERED: usize = 60;
const COVERED: usize = 150;
/// How much the squares of the weights count against the mean of the errors.
const STRENGTH: f32 = 0.002;
const STEPS: usize = 300;
const RATE: f32 = 0.3;
const MOMENTUM: f32 = 0.95;
/// Parts of the people, each left out once.
const PARTS: usize = 5;

const DIRECTIONS: usize = 8;
type Edges = Vec<[f32; DIRECTIONS]>;

struct Sample {
    /// Of the face in the order of all.
    face: usize,
    changed: bool,
    covered: bool,
    /// Every other measure accepts it.
    passes: bool,
    edges: Edges,
}

struct Model {
    weights: Edges,
    bias: f32,
}

struct Seen {
    faces: Vec<Face>,
    photos: Vec<super::Pixels>,
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes the weights anew: many minutes"]
async fn learn_covers() {
    let seen = Arc::new(seen().await);
    let lanes = std::thread::available_parallelism().unwrap().get();
    let drawn: Vec<_> = (0..lanes).map(|lane| tokio::spawn(drawn(Arc::clone(&seen), lane, lanes))).collect();
    let mut samples = Vec::new();
    for lane in drawn {
        samples.extend(lane.await.unwrap());
    }
    samples.sort_by_key(|sample| sample.face);
    let mut dump = Vec::new();
    for s in &samples {
        dump.extend([
            s.face as f32,
            f32::from(u8::from(s.changed)),
            f32::from(u8::from(s.covered)),
            f32::from(u8::from(s.passes)),
        ]);
        dump.extend(s.edges.iter().flatten());
    }
    std::fs::write("/tmp/c15/feat.bin", dump.iter().flat_map(|v: &f32| v.to_le_bytes()).collect::<Vec<_>>()).unwrap();
    let covers = samples.iter().filter(|sample| sample.covered).count();
    println!("{} faces: {} images without a cover, {covers} with", seen.faces.len(), samples.len() - covers);

    // Those who are left out are judged by what the others taught.
    let mut people: Vec<&str> = seen.faces.iter().map(|face| face.person.as_str()).collect();
    people.dedup();
    let part = |sample: &Sample| people.iter().position(|who| *who == seen.faces[sample.face].person).unwrap() % PARTS;
    let mut judged = Vec::new();
    for left_out in 0..PARTS {
        let (others, out): (Vec<_>, Vec<_>) = samples.iter().partition(|sample| part(sample) != left_out);
        let model = Model::fit(&others);
        judged.extend(out.into_iter().map(|sample| (sample, model.covered(&sample.edges))));
    }
    let area = |of: &dyn Fn(&Sample) -> bool| {
        area_under_the_curve(judged.iter().filter(|(sample, _)| of(sample)).map(|(sample, v)| (sample.covered, *v)))
    };
    println!("people left out in turn, area under the curve: {:.3}", area(&|_| true));
    println!("of those that every other measure accepts: {:.3}", area(&|sample| sample.passes));

    let model = Model::fit(&samples.iter().collect::<Vec<_>>());
    let (text, model) = model.rounded();
    // What a limit refuses, of the faces as they are.
    for (how, value) in [
        ("of the weights", &(|sample: &Sample, _| model.covered(&sample.edges)) as &dyn Fn(&Sample, f32) -> f32),
        ("of weights learned without the person", &|_, left_out| left_out),
    ] {
        for crop in [true, false] {
            let plain = judged.iter().filter(|(s, _)| !s.changed && s.passes);
            let of = plain.filter(|(s, _)| TUNED.contains(&seen.faces[s.face].person.as_str()) == crop);
            let mut values: Vec<u8> = of.map(|(s, v)| (100.0 / (1.0 + value(s, *v).exp())).round() as u8).collect();
            values.sort_unstable();
            println!("{how}, the measure of {}: {values:?}", if crop { "crops" } else { "faces of photos" });
        }
    }
    let path = match std::env::var_os("VULTUS_WRITE") {
        Some(_) => here("src/pipeline/quality/cover_weights.rs"),
        None => std::env::temp_dir().join("cover_weights.rs"),
    };
    std::fs::write(&path, text).unwrap();
    println!("written: {}", path.display());
}

/// Whom it learns from.
async fn seen() -> Seen {
    let pipeline = pipeline().0.ignoring_quality();
    let mut faces = crops(&pipeline).await.expect("needs the crops");
    faces.retain(|face| TUNED.contains(&face.person.as_str()));
    let large = decode::DecodeLimits { max_bytes: 64 << 20, max_pixels: 1 << 26, ..decode::DecodeLimits::default() };
    let mut photos = Vec::new();
    for number in 1..=6 {
        let name = format!("sample{number}.jpg");
        let file = std::fs::read(here("data/photos").join(&name)).expect("the photos: run `make model`");
        let photo = decode::decode(decode::Source::Encoded(&file), &large).unwrap();
        photos.push(photo.clone());
        for found in pipeline.faces_in_photo(&Arc::new(Image::new(photo, ())), turn().deadline).await.unwrap() {
            let (width, height) = (found.crop.width(), found.crop.height());
            let scale = (150.0 / width.max(height) as f32).min(1.0);
            let image = found.crop.whole().resized((width as f32 * scale) as u32, (height as f32 * scale) as u32);
            let (assessment, _) = pipeline.assess(input(&image), &turn()).await.unwrap();
            faces.extend(assessment.face.map(|(_, five)| Face { person: name.clone(), image, five }));
        }
    }
    Seen { faces, photos }
}

/// The samples of every `lanes`-th face.
async fn drawn(seen: Arc<Seen>, lane: usize, lanes: usize) -> Vec<Sample> {
    let (pipeline, _) = pipeline();
    let faces: Vec<_> = seen.faces.iter().map(|face| (&face.image, face.five)).collect();
    let mut samples = Vec::new();
    for (at, face) in seen.faces.iter().enumerate().skip(lane).step_by(lanes) {
        let mut dice = Dice(at as u64);
        for turns in 0..UNCOVERED + COVERED {
            let (mut image, hides) = (face.image.clone(), turns >= UNCOVERED);
            if hides {
                image = covered(&mut dice, &image, &face.five, &Others { faces: &faces, photos: &seen.photos });
            }
            if (hides && turns % 3 == 0) || (!hides && turns > 0) {
                image = moved(&mut dice, &image);
            }
            if (hides && turns % 2 == 0) || (!hides && turns > 0) {
                image = lit(&mut dice, image);
            }
            let (assessment, _) = pipeline.assess(input(&image), &turn()).await.unwrap();
            let Some(edges) = edges_of(&image, &assessment) else { continue };
            let other = |name| name != MeasureName::FaceOcclusionPrevention;
            let passes = assessment.measures.iter().all(|measure| measure.accepted() || !other(measure.name));
            samples.push(Sample { face: at, changed: turns > 0, covered: hides, passes, edges });
        }
    }
    samples
}

fn edges_of(image: &super::Pixels, assessment: &Assessment) -> Option<Edges> {
    edges(image, &assessment.face?.1.upright()?)
}

impl Model {
    /// A logistic regression in which both kinds count the same: gradient descent with momentum.
    fn fit(samples: &[&Sample]) -> Self {
        let covers = samples.iter().filter(|sample| sample.covered).count();
        let count = |covered| if covered { covers } else { samples.len() - covers } as f32;
        let cells = samples[0].edges.len();
        let zero = || vec![[0.0; DIRECTIONS]; cells];
        let mut mean = zero();
        samples.iter().for_each(|sample| add(&mut mean, 1.0 / samples.len() as f32, &sample.edges));
        // About the mean, which makes it faster.
        let (mut model, mut bias) = (Self { weights: zero(), bias: 0.0 }, 0.0);
        let (mut speed, mut bias_speed, mut steepest) = (zero(), 0.0, 0.0);
        for _ in 0..STEPS {
            model.bias = bias - dot(&model.weights, &mean);
            let (mut slope, mut bias_slope) = (zero(), 0.0);
            add(&mut slope, STRENGTH, &model.weights);
            for sample in samples {
                let likely = 1.0 / (1.0 + (-model.covered(&sample.edges)).exp());
                let error = (likely - f32::from(u8::from(sample.covered))) / (2.0 * count(sample.covered));
                add(&mut slope, error, &sample.edges);
                bias_slope += error;
            }
            add(&mut slope, -bias_slope, &mean);
            speed.iter_mut().flatten().for_each(|v| *v *= MOMENTUM);
            add(&mut speed, -RATE, &slope);
            add(&mut model.weights, 1.0, &speed);
            bias_speed = MOMENTUM * bias_speed - RATE * bias_slope;
            bias += bias_speed;
            steepest = dot(&slope, &slope).sqrt();
        }
        assert!(steepest < 2e-3, "still falling: {steepest}");
        model.bias = bias - dot(&model.weights, &mean);
        model
    }

    /// Logarithm of the odds that the face is covered.
    fn covered(&self, edges: &Edges) -> f32 {
        self.bias + dot(&self.weights, edges)
    }

    /// With the weights as the file has them, and the file.
    fn rounded(mut self) -> (String, Self) {
        let most = self.weights.iter().flatten().fold(0.0_f32, |most, v| most.max(v.abs()));
        let unit = most / 127.0;
        let mut rows = String::new();
        for cell in &mut self.weights {
            let row = cell.map(|v| (v / unit).round() as i8);
            *cell = row.map(|v| f32::from(v) * unit);
            writeln!(rows, "    {row:?},").unwrap();
        }
        let cells = self.weights.len().isqrt();
        let text = format!(
            "//! How much each edge speaks for a cover: a logistic regression on faces covered by program. Made by tests/intake/learn.rs, not \
             written.\n\n\
             /// Cells on each side.\npub(super) const CELLS: usize = {cells};\n\
             /// Directions of edges.\npub(super) const DIRECTIONS: usize = {DIRECTIONS};\n\n\
             pub(super) const BIAS: f32 = {:.4};\n\
             /// What a weight of 1 stands for.\npub(super) const WEIGHT_UNIT: f32 = {unit:.8};\n\
             /// Of each direction from upright on, for each cell row by row. Positive: speaks for a cover.\n#[rustfmt::skip]\n\
             pub(super) const WEIGHTS: [[i8; DIRECTIONS]; CELLS * CELLS] = [\n{rows}];\n",
            self.bias
        );
        (text, self)
    }
}

fn dot(a: &Edges, b: &Edges) -> f32 {
    let mut sums = [0.0; DIRECTIONS];
    for (a, b) in a.iter().zip(b) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    sums.iter().sum()
}

fn add(to: &mut Edges, times: f32, edges: &Edges) {
    for (to, edges) in to.iter_mut().zip(edges) {
        to.iter_mut().zip(edges).for_each(|(to, v)| *to += times * v);
    }
}

/// How often a cover has the higher value, of all pairs of a cover and none.
fn area_under_the_curve(values: impl Iterator<Item = (bool, f32)>) -> f64 {
    let mut values: Vec<(bool, f32)> = values.collect();
    values.sort_by(|a, b| a.1.total_cmp(&b.1));
    let (mut uncovered, mut pairs) = (0_u64, 0_u64);
    for (covered, _) in &values {
        if *covered {
            pairs += uncovered;
        } else {
            uncovered += 1;
        }
    }
    pairs as f64 / (uncovered * (values.len() as u64 - uncovered)) as f64
}
