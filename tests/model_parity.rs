//! The default model against what face-api computes: needs the fetched bundles and `../shared/faces`, and says when it
//! is skipped.

use std::{fs, num::NonZeroUsize, path::PathBuf};

use vultus::{
    domain::{Pixels, Region},
    model::{DeviceChoice, Executor, ModelSet, Role, detector, landmarks},
    pipeline::decode::{DecodeLimits, Source, decode},
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

fn load(path: PathBuf) -> Pixels {
    decode(Source::Encoded(&fs::read(path).unwrap()), &DecodeLimits::default()).unwrap()
}

fn floats(value: &serde_json::Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

/// Crops' names, pixels and face-api's descriptors of the whole crops.
fn crops(faces: &std::path::Path, reference: &serde_json::Value) -> Vec<(String, Pixels, Vec<f32>)> {
    (reference["crops"].as_object().unwrap().iter())
        .map(|(name, crop)| (name.clone(), load(faces.join("crops").join(name)), floats(&crop["descriptor_whole"])))
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
    let got = executor(&set).run(Role::Embed, &images).unwrap();
    let worst = got.iter().zip(&crops).map(|(got, crop)| distance(got, &crop.2)).fold(0.0, f32::max);
    println!("{} descriptors, largest distance to face-api's {worst:e}", got.len());
    assert_eq!(got.len(), 40);
    assert!(worst < 0.02, "{worst}");
}

#[test]
fn a_face_alone_and_among_others_gives_the_same_bits() {
    let Some((set, faces, reference)) = setup() else { return };
    let crops = crops(&faces, &reference);
    let images: Vec<&Pixels> = crops.iter().map(|c| &c.1).collect();
    let mut executor = executor(&set);
    let mut alone = Vec::new();
    for image in &images {
        alone.extend(executor.run(Role::Embed, &[image]).unwrap());
    }
    for batch in [2, 7, 32, 40] {
        let mut batched = Vec::new();
        for images in images.chunks(batch) {
            batched.extend(executor.run(Role::Embed, images).unwrap());
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
    let size = |key: &str| reference["photos"][name][key].as_u64().unwrap() as u32;
    Some(load(path).resized(size("width"), size("height")))
}

/// Fits `image` into a black square of `side`, in its middle or at its top left, as face-api does with canvases.
fn fit(image: &Pixels, side: u32, centred: bool) -> Pixels {
    let scale = side as f32 / image.width().max(image.height()) as f32;
    let size = |side: u32| ((side as f32 * scale).round() as u32).max(1);
    let (width, height) = (size(image.width()), size(image.height()));
    let (x, y) = if centred { ((side - width) / 2, (side - height) / 2) } else { (0, 0) };
    let square = Region { x: -(x as i32), y: -(y as i32), width: side, height: side };
    image.resized(width, height).cut(square)
}

#[test]
fn faces_in_photos_are_where_face_api_finds_them() {
    let Some((set, _, reference)) = setup() else { return };
    let mut executor = executor(&set);
    let (mut faces, mut found_in_all, mut worst_overlap) = (0, 0, 1.0f32);
    for (name, expected) in reference["photos"].as_object().unwrap() {
        let Some(photo) = photo(name, &reference) else { return };
        let outputs = executor.run(Role::Detect, &[&fit(&photo, detector::INPUT_SIDE, false)]).unwrap();
        let side = photo.width().max(photo.height()) as f32;
        let found = detector::detections(&outputs[0], 0.5);
        found_in_all += found.len();
        for face in expected["faces"].as_array().unwrap() {
            let b = floats(&face["box"]);
            let best = (found.iter())
                .map(|f| {
                    overlap(
                        [f.rect.x * side, f.rect.y * side, f.rect.width * side, f.rect.height * side],
                        [b[0], b[1], b[2], b[3]],
                    )
                })
                .fold(0.0, f32::max);
            println!("{name} {b:?} best overlap {best}");
            worst_overlap = worst_overlap.min(best);
            faces += 1;
        }
        println!("{name}: found {}: {found:?}", found.len());
    }
    println!("{faces} faces, found {found_in_all}, worst overlap {worst_overlap}");
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
            let outputs = executor.run(Role::Landmark, &[&fit(&crop, landmarks::INPUT_SIDE, true)]).unwrap();
            let points = landmarks::landmarks(&outputs[0], width as f32, height as f32).unwrap();
            let expected = face["landmarks"].as_array().unwrap().iter().map(floats);
            let mean = (points.0.iter().zip(expected))
                .map(|(p, e)| (p.x * width as f32 + x as f32 - e[0]).hypot(p.y * height as f32 + y as f32 - e[1]))
                .sum::<f32>()
                / 68.0;
            println!("{name} {b:?}: mean distance {mean} pixels");
            worst = worst.max(mean / width as f32);
        }
    }
    println!("largest mean distance, of the box's width: {worst}");
}
