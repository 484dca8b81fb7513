//! Faces that must not be accepted: turned, mirrored and partly covered. The tables of docs/accuracy.md:
//! `cargo test --release --test intake -- --nocapture`. They need the 40 crops, and say so where those are not at hand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

mod covers;
mod learn;
mod random;
mod shown;
mod two;
mod views;

use vultus::{
    config::Config,
    domain::{FiveLandmarks, Fmr, Lane, Tail, Template, Threshold, Turn, compare},
    model::ModelSet,
    pipeline::{DecodeLimits, FaceInput, ImageInput, Pipeline, Settings, decode},
    seal::RootKey,
};
use vultus_engine::{
    device::DeviceChoice,
    image::{Pixels, Region, Similarity},
    precision::Precision,
};

use covers::{COVERS, Texture};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn pipeline() -> (Pipeline, Threshold) {
    pipeline_in(Precision::F32)
}

fn pipeline_in(precision: Precision) -> (Pipeline, Threshold) {
    let set = ModelSet::open(&here("data/models"), "default").expect("run `make model`");
    let set = set.with_precision(precision).unwrap();
    let Config { decode, batch, rates, pixel_bytes, .. } = Config::load(None).unwrap();
    let settings = Settings { decode, batch, rates, decoders: NonZeroUsize::MIN, pixel_bytes, replacement: None };
    let executor = set.executor(DeviceChoice::Cpu, NonZeroUsize::MIN).unwrap();
    let threshold = set.card().calibration.at_fmr(Fmr::new(0.01).unwrap(), Tail::Measured).unwrap().threshold;
    (Pipeline::start(&set, vec![executor], settings, &RootKey::from_bytes([7; 32])).unwrap(), threshold)
}

fn input(image: &Pixels) -> FaceInput {
    let rgb8 = image.rgb8().to_vec().into();
    FaceInput { image: ImageInput::Rgb8 { rgb8, width: image.width(), height: image.height() }, landmarks: None }
}

fn turn() -> Turn {
    Turn::own(Lane::Enrolment, Instant::now() + Duration::from_secs(600))
}

fn turned(image: &Pixels, degrees: u16) -> Pixels {
    let (sin, cos) = f32::from(degrees).to_radians().sin_cos();
    let (x, y) = (image.width() as f32 / 2.0, image.height() as f32 / 2.0);
    let place = Similarity { a: cos, b: -sin, dx: x - cos * x - sin * y, dy: y + sin * x - cos * y };
    image.warped(image.width(), image.height(), &place)
}

/// Top and bottom swapped.
fn mirrored(image: &Pixels) -> Pixels {
    let rows = image.rgb8().chunks(image.width() as usize * 3).rev().flatten().copied().collect();
    Pixels::new(image.width(), image.height(), rows).unwrap()
}

/// In the middle of a grey image of twice the side, then turned: nothing black around tells that it was.
fn turned_with_a_border(image: &Pixels, degrees: u16) -> Pixels {
    let (width, height) = (image.width(), image.height());
    let mut rows = Pixels::flat(3 * width, 3 * height, [90; 3]).rgb8().to_vec();
    for (y, row) in image.rgb8().chunks(width as usize * 3).enumerate() {
        let start = ((height as usize + y) * 3 * width as usize + width as usize) * 3;
        rows[start..start + row.len()].copy_from_slice(row);
    }
    let all = turned(&Pixels::new(3 * width, 3 * height, rows).unwrap(), degrees);
    all.cut(Region { x: width as i32 / 2, y: height as i32 / 2, width: 2 * width, height: 2 * height })
}

struct Face {
    person: String,
    image: Pixels,
    five: FiveLandmarks,
}

/// On whom limits were chosen and weights learned.
const TUNED: [&str; 4] = ["amy", "bernadette", "howard", "leonard"];

/// Of everybody, by name. `None` where they are not at hand.
async fn crops(pipeline: &Pipeline) -> Option<Vec<Face>> {
    let folder = here("../shared/faces/crops");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("skipped: no crops at {}", folder.display());
        return None;
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut faces = Vec::new();
    for path in paths {
        let file = std::fs::read(&path).unwrap();
        let image = decode::decode(decode::Source::Encoded(&file), &DecodeLimits::default()).unwrap();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let (assessment, _) = pipeline.assess(input(&image), &turn()).await.unwrap();
        let person = stem.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
        faces.push(Face { person, image, five: assessment.face.unwrap().1 });
    }
    Some(faces)
}

/// One kind of image of several people: how many of all were accepted, and whose faces and which template each of those has.
struct Kind {
    all: usize,
    accepted: Vec<(Vec<String>, Template)>,
}

/// `change` makes the image, and says whose face is pasted into it.
async fn kind(pipeline: &Pipeline, faces: &[&Face], change: impl Fn(&Face) -> (Pixels, Option<String>)) -> Kind {
    let mut accepted = Vec::new();
    for face in faces {
        let (image, pasted) = change(face);
        if let Ok(template) = pipeline.extract(input(&image), &turn()).await.unwrap().outcome {
            accepted.push((std::iter::once(face.person.clone()).chain(pasted).collect(), template));
        }
    }
    Kind { all: faces.len(), accepted }
}

/// Pairs of accepted images of one kind, and of one of the kind and an upright one.
#[derive(Default)]
struct Pairs {
    strangers: usize,
    strangers_matched: usize,
    /// Of two people, one of whom is in both images: pasted.
    sharing: usize,
    sharing_matched: usize,
}

impl Pairs {
    fn of(kind: &Kind, upright: &Kind, threshold: Threshold) -> Self {
        let mut pairs = Self::default();
        for (at, (people, probe)) in kind.accepted.iter().enumerate() {
            for (others, reference) in kind.accepted.iter().skip(at + 1).chain(&upright.accepted) {
                let matched = usize::from(threshold.admits(compare(probe, reference).unwrap()));
                if !people.iter().any(|person| others.contains(person)) {
                    pairs.strangers += 1;
                    pairs.strangers_matched += matched;
                } else if people[0] != others[0] {
                    pairs.sharing += 1;
                    pairs.sharing_matched += matched;
                }
            }
        }
        pairs
    }
}

/// A table of kinds, and what they come to.
#[derive(Default)]
struct Table {
    accepted: usize,
    all: usize,
    matched: usize,
    strangers: usize,
}

impl Table {
    fn headed(what: &str) -> Self {
        println!("\n{what}:\n\n| image | accepted | strangers matched |\n| --- | --- | --- |");
        Self::default()
    }

    fn row(&mut self, what: &str, kind: &Kind, pairs: &Pairs) {
        let (accepted, all) = (kind.accepted.len(), kind.all);
        let shared = match pairs.sharing {
            0 => String::new(),
            n => format!("; {} of {n} who share a person", pairs.sharing_matched),
        };
        println!("| {what} | {accepted} of {all} | {} of {}{shared} |", pairs.strangers_matched, pairs.strangers);
        (self.accepted, self.all) = (self.accepted + accepted, self.all + all);
        (self.matched, self.strangers) = (self.matched + pairs.strangers_matched, self.strangers + pairs.strangers);
    }

    /// Twice the rate that is promised at most: 1 %.
    fn keeps_the_promise(&self, what: &str) {
        let Self { accepted, all, matched, strangers } = self;
        println!("| all | {accepted} of {all} | {matched} of {strangers} |");
        assert!(matched * 100 <= 2 * strangers, "{what}: {matched} of {strangers} strangers match");
    }
}

#[tokio::test]
async fn turned_and_covered_faces_break_no_promise() {
    break_no_promise(Precision::F32).await;
}

/// The summary of docs/accuracy.md.
#[tokio::test]
#[ignore = "as long as the one before: what is accepted is the same, templates are a little other"]
async fn turned_and_covered_faces_break_no_promise_in_int8() {
    break_no_promise(Precision::Int8).await;
}

async fn break_no_promise(precision: Precision) {
    let (pipeline, threshold) = pipeline_in(precision);
    let Some(faces) = crops(&pipeline).await else { return };
    // What is promised is counted on those on whom no limit was chosen.
    let mut reported: Vec<&str> = faces.iter().map(|face| face.person.as_str()).collect();
    reported.dedup();
    reported.retain(|person| !TUNED.contains(person));
    let mut upright_accepted = 0;
    for (name, people) in [("Tuned on", &TUNED[..]), ("Reported", &reported)] {
        let faces: Vec<&Face> = faces.iter().filter(|face| people.contains(&face.person.as_str())).collect();
        let name = format!("{name}: {}", people.join(", "));
        let upright = kind(&pipeline, &faces, |face| (face.image.clone(), None)).await;
        upright_accepted += upright.accepted.len();
        let mut table = Table::headed(&format!("{name}, as they are and mirrored"));
        table.row("as it is", &upright, &Pairs::of(&upright, &upright, threshold));
        let swapped = kind(&pipeline, &faces, |face| (turned(&mirrored(&face.image), 180), None)).await;
        table.row("left and right swapped", &swapped, &Pairs::of(&swapped, &upright, threshold));

        let mut table = Table::headed(&format!("{name}, turned"));
        for degrees in (15..360).step_by(15) {
            let kind = kind(&pipeline, &faces, |face| (turned(&face.image, degrees), None)).await;
            table.row(&format!("turned by {degrees} degrees"), &kind, &Pairs::of(&kind, &upright, threshold));
        }
        for degrees in (15..360).step_by(15) {
            let kind = kind(&pipeline, &faces, |face| (turned_with_a_border(&face.image, degrees), None)).await;
            let what = format!("with a grey border, turned by {degrees} degrees");
            table.row(&what, &kind, &Pairs::of(&kind, &upright, threshold));
        }
        for degrees in (0..360).step_by(45).filter(|degrees| *degrees != 180) {
            let kind = kind(&pipeline, &faces, |face| (turned(&mirrored(&face.image), degrees), None)).await;
            let what = format!("top and bottom swapped, turned by {degrees}");
            table.row(&what, &kind, &Pairs::of(&kind, &upright, threshold));
        }
        table.keeps_the_promise(&format!("{name}, turned"));

        let mut table = Table::headed(&format!("{name}, covered"));
        for cover in &COVERS {
            let kind = kind(&pipeline, &faces, |face| {
                let at = people.iter().position(|person| *person == face.person).unwrap();
                let other = faces.iter().find(|other| other.person == people[(at + 1) % people.len()]).unwrap();
                let pasted = matches!(cover.texture, Texture::Face).then(|| other.person.clone());
                (cover.over(&face.image, &face.five, (&other.image, &other.five)), pasted)
            })
            .await;
            table.row(cover.name, &kind, &Pairs::of(&kind, &upright, threshold));
        }
        table.keeps_the_promise(&format!("{name}, covered"));
    }
    assert!(upright_accepted >= 38, "{upright_accepted} of 40 upright faces are accepted");
}

/// What users of such software have met, as it says there under "right": read, or refused with words that docs/images.md has.
#[tokio::test]
async fn images_as_they_come_are_read_or_refused_by_name() {
    let folder = here("../shared/field/images");
    if !folder.is_dir() {
        return println!("skipped: no field images at {}", folder.display());
    }
    let (pipeline, threshold) = pipeline();
    let crop = |name: &str| std::fs::read(here("../shared/faces/crops").join(name)).unwrap();
    let extract = async |file: Vec<u8>| {
        let image = ImageInput::Encoded(file.into());
        pipeline.extract(FaceInput { image, landmarks: None }, &turn()).await
    };
    let mut seen = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let extracted = extract(std::fs::read(&path).unwrap()).await;
        let expected = match name.as_str() {
            "crlf_first.jpg" => Err("the bytes are no JPEG, PNG, WebP or JPEG 2000 file"),
            "stray_between_headers.jpg" => Err("the JPEG file is damaged"),
            "no_eoi.jpg" | "no_eoi_zeros.jpg" => Err("the JPEG file ends too early"),
            "iend_bad_checksum.png" => Err("the PNG file is damaged"),
            name if name.contains("upside_down") => Ok(None),
            name if name.starts_with("exif_") => Ok(Some("amy5.png")),
            _ => Ok(Some("amy1.png")),
        };
        match (extracted, expected) {
            (Err(error), Err(text)) => assert_eq!(error.to_string(), text, "{name}"),
            (Ok(extraction), Ok(None)) => {
                let refused = extraction.outcome.expect_err("it lies on its head");
                assert!(refused.refused().any(|measure| measure.advice.contains("upright")), "{name}: {refused:?}");
            }
            (Ok(extraction), Ok(Some(reference))) => {
                let probe = extraction.outcome.unwrap_or_else(|refused| panic!("{name}: {refused:?}"));
                let reference = extract(crop(reference)).await.unwrap().outcome.unwrap();
                assert!(threshold.admits(compare(&probe, &reference).unwrap()), "{name}");
            }
            (extracted, expected) => panic!("{name}: {extracted:?} instead of {expected:?}"),
        }
        seen += 1;
    }
    assert!(seen >= 18, "{seen} files");
}

/// A folder as it comes from phones and cameras.
#[test]
fn a_folder_as_it_comes_is_planned() {
    let folder = here("../shared/field/folder");
    if !folder.is_dir() {
        return println!("skipped: no field folder at {}", folder.display());
    }
    let ran = std::process::Command::new(env!("CARGO_BIN_EXE_vultus"))
        .args(["enrol", folder.to_str().unwrap(), "--gallery", "g", "--dry-run", "--json"])
        .output()
        .unwrap();
    let plan: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    let items = plan["items"].as_array().unwrap();
    let names: Vec<&str> = items.iter().map(|i| i["file"].as_str().unwrap().rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["amy_2.jfif", "amy_3.JPE", "amy_4.png"]);
    assert!(items.iter().all(|item| item["subject"] == "amy"), "{plan}");
    assert_eq!(plan["passed_over"]["extensions"]["heic"], 1, "{plan}");
}
