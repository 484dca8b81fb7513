//! The default model against what face-api computes: needs the fetched bundles and `../shared/faces`, and says when it
//! is skipped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::{fs, num::NonZeroUsize, path::PathBuf};

use vultus::{
    model::{Contract, Golden, ModelSet, Role, detector, landmarks},
    pipeline::decode::{DecodeLimits, Source, decode},
};
use vultus_engine::{
    cpu::{CpuNetwork, calibrate},
    device::DeviceChoice,
    executor::{Executor, run},
    image::{Pixels, Region},
    parity::cosine,
    plan::Plan,
    precision::Precision,
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The models and the faces' folder, or `None` with a line that says what is missing.
fn setup() -> Option<(ModelSet, PathBuf, serde_json::Value)> {
    let models = std::env::var_os("VULTUS_MODELS").map_or_else(|| root().join("data/models"), PathBuf::from);
    let faces = root().join("../shared/faces");
    for needed in [models.join("default/model.toml"), faces.join("reference.json")] {
        if !needed.exists() {
            println!("skipped: {} is not there", needed.display());
            return None;
        }
    }
    println!("uses {} and {}", models.display(), faces.display());
    let reference = serde_json::from_slice(&fs::read(faces.join("reference.json")).unwrap()).unwrap();
    Some((ModelSet::open(&models, "default").unwrap(), faces, reference))
}

fn executor(set: &ModelSet) -> Box<dyn Executor> {
    set.executor(DeviceChoice::Cpu, NonZeroUsize::new(2).unwrap()).unwrap()
}

fn floats(value: &serde_json::Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

/// Crops' names, pixels and face-api's descriptors of the whole crops.
fn crops(faces: &std::path::Path, reference: &serde_json::Value) -> Vec<(String, Pixels, Vec<f32>)> {
    (reference["crops"].as_object().unwrap().iter())
        .map(|(name, crop)| {
            let file = fs::read(faces.join("crops").join(name)).unwrap();
            let image = decode(Source::Encoded(&file), &DecodeLimits::default()).unwrap();
            (name.clone(), image, floats(&crop["descriptor_whole"]))
        })
        .collect()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
}

#[test]
fn descriptors_of_whole_crops_are_face_apis() {
    let Some((set, faces, reference)) = setup() else { return };
    let crops = crops(&faces, &reference);
    let images: Vec<&Pixels> = crops.iter().map(|c| &c.1).collect();
    let got = run(executor(&set).as_mut(), Role::Embed.network(), &images).unwrap();
    let worst = got.iter().zip(&crops).map(|(got, crop)| distance(got, &crop.2)).fold(0.0, f32::max);
    println!("{} descriptors, largest distance to face-api's {worst:e}", got.len());
    assert_eq!(got.len(), 40);
    assert!(worst < 0.02, "{worst}");
}

/// The model in a reduced precision, as this program's card lets it serve; `None` where this processor lacks instructions.
fn reduced(set: &ModelSet, precision: Precision) -> Option<(ModelSet, Box<dyn Executor>)> {
    let card = Contract::parse(include_str!("../models/default.toml")).unwrap();
    let class = card.precisions.into_iter().find(|class| class.precision == precision).unwrap();
    let [detector, landmark, face] = [Role::Detect, Role::Landmark, Role::Embed].map(|role| set.bundle(role).clone());
    let set = ModelSet::new(detector, landmark, face.with_class(class).unwrap()).unwrap();
    let set = set.with_precision(precision).unwrap();
    match set.executor(DeviceChoice::Cpu, NonZeroUsize::new(2).unwrap()) {
        Ok(executor) => Some((set, executor)),
        Err(e) if precision == Precision::Bf16 => {
            println!("skipped: {e}");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn reduced_precisions_stay_close_and_decide_the_same() {
    let Some((set, faces, reference)) = setup() else { return };
    let crops = crops(&faces, &reference);
    let images: Vec<&Pixels> = crops.iter().map(|c| &c.1).collect();
    let exact = run(executor(&set).as_mut(), Role::Embed.network(), &images).unwrap();
    for precision in [Precision::Bf16, Precision::Int8] {
        let Some((_, mut executor)) = reduced(&set, precision) else { continue };
        let name = precision.as_str();
        let got = run(executor.as_mut(), Role::Embed.network(), &images).unwrap();
        let worst = got.iter().zip(&exact).map(|(a, b)| distance(a, b)).fold(0.0, f32::max);
        let cosine = got.iter().zip(&exact).map(|(a, b)| cosine(a, b)).fold(1.0, f64::min);
        let share = got.iter().zip(&exact).map(|(a, b)| share(a, b)).fold(0.0, f32::max);
        let pairs = (0..images.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
        let distances = pairs.map(|(a, b)| (distance(&exact[a], &exact[b]), distance(&got[a], &got[b])));
        let flipped: Vec<_> = distances.filter(|(exact, got)| (*exact <= 0.6) != (*got <= 0.6)).collect();
        println!("{name}: pairs whose decision differs, with their distances in f32 and here: {flipped:?}");
        let flips = flipped.len();
        println!(
            "{name}: largest distance to f32 {worst:.4}, 1 - cosine {:.1e}, of the largest value {share:.4}; {flips} of 780 decisions differ",
            1.0 - cosine
        );
        assert!(worst <= 0.05, "{name}: {worst}");
        // A pair that lies on the limit may fall to either side.
        let near = flipped.iter().all(|(exact, _)| (exact - 0.6).abs() < 0.01);
        assert!(near && flips <= usize::from(precision == Precision::Int8), "{name}: {flipped:?}");
    }
}

/// Every network in int8, on the half of the crops that set no ranges: the table of docs/decisions/0009. Only the face network serves in it.
#[test]
fn int8_agrees_on_faces_that_set_no_ranges() {
    let Some((set, faces, reference)) = setup() else { return };
    let crops = crops(&faces, &reference);
    for role in [Role::Detect, Role::Landmark, Role::Embed] {
        let bundle = set.bundle(role);
        let (input, threads) = (&bundle.contract().input, NonZeroUsize::new(2).unwrap());
        let plan = || Plan::new(bundle.graph(), bundle.weights()).unwrap();
        let images: Vec<Pixels> = crops.iter().map(|crop| crop.1.resized(input.width, input.height)).collect();
        let images: Vec<&Pixels> = images.iter().collect();
        let exact = CpuNetwork::new(plan(), input, Precision::F32, threads).unwrap().run(&images).unwrap();
        let (first, second) = images.split_at(20);
        let held_out = |of: &[&Pixels], others: &[&Pixels]| {
            let ranges = calibrate::ranges(plan(), input, others, threads).unwrap();
            let plan = plan().with_ranges(&ranges).unwrap();
            CpuNetwork::new(plan, input, Precision::Int8, threads).unwrap().run(of).unwrap()
        };
        let got = [held_out(first, second), held_out(second, first)].concat();
        let apart = |of: fn(&[f32], &[f32]) -> f32| {
            let each = got.iter().zip(&exact).map(|(got, exact)| of(got, exact));
            each.fold(0.0, f32::max)
        };
        let (far, one_minus) = (apart(distance), apart(|a, b| (1.0 - cosine(a, b)) as f32));
        let pairs = (0..images.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
        let same = |of: &[Vec<f32>], (a, b): (usize, usize)| distance(&of[a], &of[b]) <= 0.6;
        let flips = pairs.filter(|pair| same(&exact, *pair) != same(&got, *pair)).count();
        println!(
            "{}: 1 - cosine {one_minus:.1e}, distance {far:.4}, of the largest value {:.4} at most",
            role.as_str(),
            apart(share)
        );
        if role == Role::Embed {
            println!("{flips} of 780 decisions differ");
            // What OpenVINO's int8 keeps on the same halves, and no decision.
            assert!(one_minus <= 0.002 && far <= 0.09 && flips == 0);
        }
    }
}

/// The greatest difference, of the largest value.
fn share(got: &[f32], exact: &[f32]) -> f32 {
    let largest = exact.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    got.iter().zip(exact).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

#[test]
fn golden_faces_are_within_their_tolerance_in_every_precision() {
    let Some((set, ..)) = setup() else { return };
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        let opened = match precision {
            Precision::F32 => None,
            _ => match reduced(&set, precision) {
                None => continue,
                opened => opened,
            },
        };
        let (golden, mut executor) = match opened {
            None => (Golden::of(&set).unwrap(), executor(&set)),
            Some((set, executor)) => (Golden::of(&set).unwrap(), executor),
        };
        let deviations = golden.into_iter().filter(|golden| golden.role == Role::Embed).map(|golden| {
            let outputs = run(executor.as_mut(), golden.role.network(), &[&golden.image]).unwrap();
            golden.deviation(&outputs[0])
        });
        let worst = deviations.fold(0.0, f32::max);
        println!("{}: golden faces differ by {worst:.3} tolerances", precision.as_str());
        assert!(worst <= 0.5, "{worst}: a tolerance leaves room for other faces");
    }
}

#[test]
fn a_face_alone_and_among_others_gives_the_same_bits() {
    let Some((set, faces, reference)) = setup() else { return };
    let crops = crops(&faces, &reference);
    let images: Vec<&Pixels> = crops.iter().map(|c| &c.1).collect();
    alone_equals_batched(executor(&set), &images);
    for precision in [Precision::Bf16, Precision::Int8] {
        if let Some((_, executor)) = reduced(&set, precision) {
            alone_equals_batched(executor, &images);
        }
    }
}

fn alone_equals_batched(mut executor: Box<dyn Executor>, images: &[&Pixels]) {
    let mut alone = Vec::new();
    for image in images {
        alone.extend(run(executor.as_mut(), Role::Embed.network(), &[image]).unwrap());
    }
    for batch in [2, 7, 32, 40] {
        let mut batched = Vec::new();
        for images in images.chunks(batch) {
            batched.extend(run(executor.as_mut(), Role::Embed.network(), images).unwrap());
        }
        assert!(alone == batched, "batches of {batch} differ");
    }
}

/// The photo as the reference scaled it: to fit 1024x1024.
fn photo(name: &str, reference: &serde_json::Value) -> Option<Pixels> {
    let folder = std::env::var_os("VULTUS_PHOTOS").map_or_else(|| root().join("data/photos"), PathBuf::from);
    let path = folder.join(name);
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    let large = DecodeLimits { max_bytes: 64 << 20, max_pixels: 1 << 26, ..DecodeLimits::default() };
    let image = decode(Source::Encoded(&fs::read(path).unwrap()), &large).unwrap();
    let size = |key: &str| reference["photos"][name][key].as_u64().unwrap() as u32;
    Some(image.resized(size("width"), size("height")))
}

/// Fits `image` into a black square of `side`, in its middle or at its top left, as face-api does with canvases.
fn fit(image: &Pixels, side: u32, centred: bool) -> Pixels {
    let scale = side as f32 / image.width().max(image.height()) as f32;
    let size = |side: u32| ((side as f32 * scale).round() as u32).max(1);
    let scaled = image.resized(size(image.width()), size(image.height()));
    let start = |length: u32| if centred { -(((side - length) / 2) as i32) } else { 0 };
    let (x, y) = (start(scaled.width()), start(scaled.height()));
    scaled.cut(Region { x, y, width: side, height: side })
}

#[test]
fn faces_in_photos_are_found() {
    let Some((set, _, reference)) = setup() else { return };
    let mut executor = executor(&set);
    let (mut faces, mut found, mut most) = (0, 0, 0);
    for (name, expected) in reference["photos"].as_object().unwrap() {
        let Some(photo) = photo(name, &reference) else { return };
        let outputs =
            run(executor.as_mut(), Role::Detect.network(), &[&fit(&photo, detector::INPUT_SIDE, false)]).unwrap();
        let side = photo.width().max(photo.height()) as f32;
        let detections = detector::detections(&outputs[0], 0.5);
        let boxes: Vec<_> =
            (detections.iter()).map(|d| [d.rect.x, d.rect.y, d.rect.width, d.rect.height].map(|v| v * side)).collect();
        for face in expected["faces"].as_array().unwrap() {
            let expected: [f32; 4] = floats(&face["box"]).try_into().unwrap();
            // The reference's boxes are another detector's (SSD MobileNet): narrower and higher than this one's.
            found += usize::from(boxes.iter().any(|found| overlap(*found, expected) > 0.4));
            faces += 1;
        }
        most += boxes.len();
    }
    println!("{found} of {faces} faces found, {most} detections");
    assert!(found >= 19 && most <= 20, "{found} of {faces} faces found, {most} detections");
}

fn overlap(a: [f32; 4], b: [f32; 4]) -> f32 {
    let width = (a[0] + a[2]).min(b[0] + b[2]) - a[0].max(b[0]);
    let height = (a[1] + a[3]).min(b[1] + b[3]) - a[1].max(b[1]);
    let shared = width.max(0.0) * height.max(0.0);
    shared / (a[2] * a[3] + b[2] * b[3] - shared)
}

#[test]
fn landmarks_are_face_apis() {
    let Some((set, _, reference)) = setup() else { return };
    let mut executor = executor(&set);
    let mut worst = 0.0f32;
    for (name, expected) in reference["photos"].as_object().unwrap() {
        let Some(photo) = photo(name, &reference) else { return };
        for face in expected["faces"].as_array().unwrap() {
            let b = floats(&face["box"]);
            let [x, y, width, height] = [b[0], b[1], b[2], b[3]].map(|v| v.floor() as u32);
            let crop = photo.cut(Region { x: x as i32, y: y as i32, width, height });
            let outputs =
                run(executor.as_mut(), Role::Landmark.network(), &[&fit(&crop, landmarks::INPUT_SIDE, true)]).unwrap();
            let points = landmarks::landmarks(&outputs[0], width as f32, height as f32).unwrap();
            let expected = face["landmarks"].as_array().unwrap().iter().map(floats);
            let mean = (points.0.iter().zip(expected))
                .map(|(p, e)| (p.x * width as f32 + x as f32 - e[0]).hypot(p.y * height as f32 + y as f32 - e[1]))
                .sum::<f32>()
                / 68.0;
            worst = worst.max(mean / width as f32);
        }
    }
    println!("largest mean distance, of the box's width: {worst}");
    // Another decoder of JPEG and other scalers than the reference's: half a pixel to two.
    assert!(worst < 0.04, "{worst}");
}

/// Scores of mated and non-mated pairs; crops are of one person when their names differ in the last digit alone.
fn pairs(crops: &[(String, Pixels, Vec<f32>)], templates: &[Vec<f32>]) -> (Vec<f32>, Vec<f32>) {
    let person = |name: &str| name.trim_end_matches(".png").trim_end_matches(|c: char| c.is_ascii_digit()).to_string();
    let (mut mated, mut non_mated) = (vec![], vec![]);
    for a in 0..crops.len() {
        for b in a + 1..crops.len() {
            let score = 1.0 - distance(&templates[a], &templates[b]).powi(2) / 2.0;
            if person(&crops[a].0) == person(&crops[b].0) { mated.push(score) } else { non_mated.push(score) }
        }
    }
    (mated, non_mated)
}

#[test]
fn whole_crops_are_told_apart() {
    let Some((set, faces, reference)) = setup() else { return };
    let crops = crops(&faces, &reference);
    let images: Vec<&Pixels> = crops.iter().map(|c| &c.1).collect();
    let whole = run(executor(&set).as_mut(), Role::Embed.network(), &images).unwrap();
    let (mated, non_mated) = pairs(&crops, &whole);
    assert_eq!((mated.len(), non_mated.len()), (80, 700));

    let right = |t: f32| mated.iter().filter(|&&s| s >= t).count() + non_mated.iter().filter(|&&s| s < t).count();
    let best = mated.iter().map(|&t| right(t)).max().unwrap() as f32 / 780.0;
    let nearest = |i: usize| {
        (0..40)
            .filter(|&j| j != i)
            .min_by(|&a, &b| distance(&whole[i], &whole[a]).total_cmp(&distance(&whole[i], &whole[b])))
    };
    let rank1 = (0..40).filter(|&i| crops[nearest(i).unwrap()].0[..3] == crops[i].0[..3]).count();
    println!("best accuracy {best}, rank 1 {rank1} of 40");
    assert!(best >= 0.995 && rank1 == 40);
}

#[test]
fn the_planned_networks_agree_with_the_oracle() {
    let Some((set, faces, reference)) = setup() else { return };
    let crop = crops(&faces, &reference).swap_remove(0).1;
    let (mut oracle, mut planned) = (set.reference_executor(), executor(&set));
    for role in Role::ALL {
        let side = oracle.input_size(role.network()).width;
        let image = fit(&crop, side, true);
        let (expected, got) = (
            run(&mut oracle, role.network(), &[&image]).unwrap(),
            run(planned.as_mut(), role.network(), &[&image]).unwrap(),
        );
        let worst = expected[0].iter().zip(&got[0]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let largest = expected[0].iter().fold(0.0f32, |m, v| m.max(v.abs()));
        println!("{}: differs by {worst:e} of {largest}", role.as_str());
        assert!(worst <= 1e-5 * largest);
    }
}
