//! From image to template on real faces: needs the fetched bundles and `../shared/faces`, and says when it is skipped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::{fs, num::NonZeroUsize, path::PathBuf};

use vultus::{
    domain::{Alignment, Landmarks68, MeasureName, QualityThresholds},
    model::{Contract, ModelSet, Role, detector, landmarks},
    pipeline::{
        align::{self, Landmarks},
        decode::{DecodeLimits, Source, decode},
        locate::{self, Framing},
        quality,
    },
};
use vultus_engine::{
    device::DeviceChoice,
    executor::{Executor, run},
    image::Pixels,
    input::InputSize,
};

struct Setup {
    executor: Box<dyn Executor>,
    quality: QualityThresholds,
    /// The person's name, and the crop.
    crops: Vec<(String, Pixels)>,
}

fn setup() -> Option<Setup> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let models = std::env::var_os("VULTUS_MODELS").map_or_else(|| root.join("data/models"), PathBuf::from);
    let folder = root.join("../shared/faces/crops");
    for needed in [models.join("default/model.toml"), folder.clone()] {
        if !needed.exists() {
            println!("skipped: {} is not there", needed.display());
            return None;
        }
    }
    println!("uses {} and {}", models.display(), folder.display());
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let crop = |path: PathBuf| {
        let image = decode(Source::Encoded(&fs::read(&path).unwrap()), &DecodeLimits::default()).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().trim_end_matches(|c: char| c.is_ascii_digit()).into();
        (name, image)
    };
    let set = ModelSet::open(&models, "default").unwrap();
    let executor = set.executor(DeviceChoice::Cpu, NonZeroUsize::new(2).unwrap()).unwrap();
    // The card of the repository: a bundle that was fetched earlier may hold an older one.
    let card = Contract::parse(include_str!("../models/default.toml")).unwrap();
    let quality = card.face.unwrap().quality_thresholds().unwrap();
    Some(Setup { executor, quality, crops: paths.into_iter().map(crop).collect() })
}

fn locate(executor: &mut dyn Executor, image: &Pixels) -> Option<Landmarks68> {
    for framing in Framing::ALL {
        let side = executor.input_size(framing.role.network()).width;
        let (view, map) = locate::view((image.width(), image.height()), framing, side);
        let outputs = run(executor, framing.role.network(), &[&view.of(image)]).unwrap().remove(0);
        let found = detector::detections(&outputs, framing.least_score).into_iter().map(|d| (d.rect, d.score));
        if let Some(face) = locate::choose(&map.faces(found), image.width(), image.height()) {
            let region = locate::landmark_region(&face.rect, image.width(), image.height()).unwrap();
            let side = executor.input_size(Role::Landmark.network()).width;
            let seen = locate::landmark_view(region, side).of(image);
            let outputs = run(executor, Role::Landmark.network(), &[&seen]).unwrap().remove(0);
            let relative = landmarks::landmarks(&outputs, region.width as f32, region.height as f32).unwrap();
            let placed = locate::place_landmarks(&relative, region);
            if align::check_landmarks(&placed.five(), image.width(), image.height()).is_ok() {
                return Some(placed);
            }
        }
    }
    None
}

#[test]
fn every_face_that_fills_its_crop_is_found_good_and_told_from_the_others() {
    let Some(Setup { mut executor, quality: least, crops }) = setup() else { return };
    let faces: Vec<Landmarks68> = crops
        .iter()
        .map(|(name, image)| {
            locate(executor.as_mut(), image).unwrap_or_else(|| panic!("a face of {name} is not found"))
        })
        .collect();
    let mut seems_covered = vec![];
    for ((name, image), face) in crops.iter().zip(&faces) {
        for measure in quality::assess(image, &face.five(), false, &least).into_iter().filter(|m| !m.accepted()) {
            assert_eq!(measure.name, MeasureName::FaceOcclusionPrevention, "{name}: {measure:?}");
            seems_covered.push(name);
        }
    }
    assert!(seems_covered.len() <= 2, "{seems_covered:?}");
    for alignment in [Alignment::Whole, Alignment::DlibSquare, Alignment::DlibSquarePadded] {
        let aligned: Vec<Pixels> = crops
            .iter()
            .zip(&faces)
            .map(|((_, image), face)| {
                let (whole, size) = ((image.width(), image.height()), InputSize { width: 150, height: 150 });
                align::align(whole, Landmarks::SixtyEight(face), alignment, size).unwrap().of(image)
            })
            .collect();
        let templates = run(executor.as_mut(), Role::Embed.network(), &aligned.iter().collect::<Vec<_>>()).unwrap();
        let (accuracy, rank1) = accuracy(&crops, &templates);
        println!("{}: {accuracy:.4} of the pairs, rank 1 {rank1} of {}", alignment.as_str(), crops.len());
        assert!(accuracy >= 0.995 && rank1 == crops.len(), "{}", alignment.as_str());
    }
}

/// The best share of the pairs that one threshold gets right, and how many crops' nearest neighbour is of the same person.
fn accuracy(crops: &[(String, Pixels)], templates: &[Vec<f32>]) -> (f64, usize) {
    let distance =
        |a: usize, b: usize| templates[a].iter().zip(&templates[b]).map(|(x, y)| (x - y).powi(2)).sum::<f32>();
    let mated = |a: usize, b: usize| crops[a].0 == crops[b].0;
    let all = 0..crops.len();
    let mut pairs: Vec<(f32, bool)> =
        all.clone().flat_map(|a| (0..a).map(move |b| (a, b))).map(|(a, b)| (distance(a, b), mated(a, b))).collect();
    pairs.sort_by(|x, y| x.0.total_cmp(&y.0));
    let mut right = pairs.iter().filter(|p| !p.1).count();
    let mut best = right;
    for (_, mated) in &pairs {
        right = if *mated { right + 1 } else { right - 1 };
        best = best.max(right);
    }
    let nearest = |a: usize| all.clone().filter(|b| *b != a).min_by(|x, y| distance(a, *x).total_cmp(&distance(a, *y)));
    let rank1 = all.clone().filter(|a| nearest(*a).is_some_and(|b| mated(*a, b))).count();
    (best as f64 / pairs.len() as f64, rank1)
}

#[test]
fn what_spoils_a_face_is_called_by_its_name() {
    let Some(Setup { mut executor, quality: least, crops }) = setup() else { return };
    let map = |image: &Pixels, f: &dyn Fn(f32) -> f32| {
        let rgb8 = image.rgb8().iter().map(|v| f(f32::from(*v)).clamp(0.0, 255.0) as u8).collect();
        Pixels::new(image.width(), image.height(), rgb8).unwrap()
    };
    for (name, image) in &crops {
        let five = locate(executor.as_mut(), image).unwrap().five();
        let refused = |image: &Pixels, measure: MeasureName| {
            quality::assess(image, &five, false, &least).iter().any(|m| m.name == measure && !m.accepted())
        };
        assert!(refused(&map(image, &|v| v * 0.15), MeasureName::LuminanceMean), "{name}, dark");
        // Shrunk and enlarged again: a blur of about 4 pixels.
        let blurred = image.resized(12, 12).resized(image.width(), image.height());
        assert!(refused(&blurred, MeasureName::Sharpness), "{name}, blurred");
        let white = map(image, &|v| v * 2.0 + 120.0);
        assert!(refused(&white, MeasureName::OverExposurePrevention), "{name}, bright");
        let small = image.resized(24, 24);
        if let Some(face) = locate(executor.as_mut(), &small) {
            let measures = quality::assess(&small, &face.five(), false, &least);
            assert!(!measures[0].accepted(), "{name}, small");
        }
    }
}

#[test]
fn what_is_no_face_is_not_found() {
    let Some(Setup { mut executor, .. }) = setup() else { return };
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let draw = |pixel: &mut dyn FnMut(u32, u32) -> [u8; 3]| {
        Pixels::new(150, 150, (0..150 * 150).flat_map(|i| pixel(i % 150, i / 150)).collect()).unwrap()
    };
    let images = [
        ("black", Pixels::flat(150, 150, [0; 3])),
        ("skin", Pixels::flat(150, 150, [200, 160, 140])),
        ("a gradient", draw(&mut |x, y| [x as u8, y as u8, 90])),
        ("noise", draw(&mut |_, _| [noise(), noise(), noise()])),
        ("stripes", draw(&mut |x, y| [if (x + 2 * y) % 17 < 8 { 220 } else { 60 }; 3])),
        ("a chessboard", draw(&mut |x, y| [if (x / 10 + y / 10) % 2 == 0 { 255 } else { 0 }; 3])),
        ("a disc", draw(&mut |x, y| [if x.abs_diff(75).pow(2) + y.abs_diff(75).pow(2) < 3000 { 210 } else { 40 }; 3])),
        ("mock text", draw(&mut |x, y| [if y % 12 < 7 && (x * 7 + y / 12 * 31) % 11 < 5 { 20 } else { 245 }; 3])),
    ];
    for (what, image) in &images {
        assert!(locate(executor.as_mut(), image).is_none(), "{what}");
    }
}
