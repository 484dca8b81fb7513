//! The default model against what face-api computes: needs the fetched bundles and `../shared/faces`, and says when it
//! is skipped.

use std::{fs, num::NonZeroUsize, path::PathBuf};

use vultus::{
    domain::Pixels,
    model::{DeviceChoice, Executor, ModelSet, Role},
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

fn pixels(image: image::RgbImage) -> Pixels {
    Pixels::new(image.width(), image.height(), image.into_raw()).unwrap()
}

fn floats(value: &serde_json::Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

/// Crops' names, pixels and face-api's descriptors of the whole crops.
fn crops(faces: &std::path::Path, reference: &serde_json::Value) -> Vec<(String, Pixels, Vec<f32>)> {
    (reference["crops"].as_object().unwrap().iter())
        .map(|(name, crop)| {
            let image = image::open(faces.join("crops").join(name)).unwrap().to_rgb8();
            (name.clone(), pixels(image), floats(&crop["descriptor_whole"]))
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
    let got = executor(&set).run(Role::Embed, &images).unwrap();
    let worst = got.iter().zip(&crops).map(|(got, crop)| distance(got, &crop.2)).fold(0.0, f32::max);
    println!("{} descriptors, largest distance to face-api's {worst:e}", got.len());
    assert_eq!(got.len(), 40);
    assert!(worst < 0.02, "{worst}");
}
