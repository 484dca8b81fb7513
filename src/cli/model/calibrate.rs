//! `vultus model calibrate`: measures reduced precisions on faces and writes what it found into the bundle's card.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::json;
use vultus_engine::{executor::LoadError, image::Pixels, precision::Precision, view::Image};

use super::super::{Failure, Outcome, Shared, input, open::cores, runtime};
use crate::{
    model::{
        Role,
        calibrate::{CalibrateError, FLOOR, Faces, measure},
        contract::{LEAST_FLOOR, PrecisionClass},
    },
    pipeline::decode::{Source, decode},
    seal::RootKey,
};

#[derive(Debug, clap::Args)]
pub struct CalibrateOptions {
    /// Photos or crops of faces; by default the photos beside the models directory that `model fetch --photos` puts
    /// there.
    #[arg(long)]
    faces: Option<PathBuf>,
    /// The least cosine to the reference that may serve; by default what the card says, else 0.995.
    #[arg(long)]
    floor: Option<f32>,
}

/// Measures `--precision`, or both that are reduced.
pub fn run(options: &CalibrateOptions, shared: &Shared) -> Result<Outcome, Failure> {
    let wanted = match shared.precision {
        Some(Precision::F32) => return Err("--precision f32: that is the reference; expected bf16 or int8".into()),
        Some(precision) => vec![precision],
        None => vec![Precision::Bf16, Precision::Int8],
    };
    if let Some(floor) = options.floor.filter(|floor| !(LEAST_FLOOR..=1.0).contains(floor)) {
        return Err(format!("--floor {floor}: expected {LEAST_FLOOR} to 1").into());
    }
    let models = shared.carded_model_set()?;
    let folder = options.faces.clone().unwrap_or_else(|| beside(&shared.models_dir()));
    let images = aligned(shared, &folder)?;
    let mut bundle = models.bundle(Role::Embed).clone();
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let faces = Faces::new(&bundle, images.iter().collect(), format!("`vultus model calibrate`, faces in {name}"))
        .map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut classes = Vec::new();
    for precision in wanted {
        let known = bundle.contract().class(precision);
        let floor = options.floor.or(known.map(|class| class.floor)).unwrap_or(FLOOR);
        if let Some(known) = known.filter(|known| known.images > faces.count() as u64) {
            let (precision, before, now) = (precision.as_str(), known.images, faces.count());
            eprintln!("{precision}: what was measured on {before} faces is replaced by what is measured on {now}");
        }
        let class = match measure(&bundle, precision, floor, &faces, cores()) {
            Ok(class) => class,
            // Not asked for by name: what this machine, or this network, cannot do is left as it is.
            Err(CalibrateError::Load(e @ (LoadError::Unsupported(_) | LoadError::Ranges(_))))
                if shared.precision.is_none() =>
            {
                eprintln!("{}: not measured: the network {e}", precision.as_str());
                continue;
            }
            Err(e) => return Err(format!("{}: {e}", precision.as_str()).into()),
        };
        bundle = bundle.with_class(class.clone())?;
        classes.push(class);
    }
    let written = bundle.write_card(&shared.model_place().0)?;
    if shared.json {
        println!("{}", json!({ "model": shared.model, "precisions": classes }));
    } else {
        classes.iter().for_each(print);
        println!("{}: written", written.display());
    }
    Ok(if classes.iter().all(PrecisionClass::serves) { Outcome::Good } else { Outcome::Negative })
}

fn beside(models: &Path) -> PathBuf {
    models.parent().unwrap_or(Path::new(".")).join("photos")
}

fn print(class: &PrecisionClass) {
    let agreement = class.agreement.unwrap_or_default();
    let word = if class.serves() { "may serve" } else { "DOES NOT SERVE" };
    let (precision, floor, images) = (class.precision.as_str(), class.floor, class.images);
    let held_out = if class.ranges.is_empty() { "" } else { " held out of the ranges in turn" };
    println!(
        "{precision}: least cosine to the reference {agreement:.5} over {images} faces{held_out}, floor {floor}: {word}"
    );
}

/// Every face in the folder's images, as the network takes it.
fn aligned(shared: &Shared, folder: &Path) -> Result<Vec<Pixels>, Failure> {
    let named = |e| format!("{}: {e}", folder.display());
    let mut files: Vec<PathBuf> = (std::fs::read_dir(folder).map_err(named)?)
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(named)?;
    files.retain(|path| input::is_image(path));
    files.sort();
    let faces_alone = Shared { precision: None, ..shared.clone() };
    let pipeline = faces_alone.pipeline(&RootKey::random()?, &input::config(input::ONE_FILE)?)?;
    runtime()?.block_on(async {
        let mut faces = Vec::new();
        for path in files {
            let named = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
            let file = input::read(&path, input::ONE_FILE.max_bytes).map_err(|e| named(&e))?;
            let photo = decode(Source::Encoded(&file), &input::ONE_FILE).map_err(|e| named(&e))?;
            let photo = Arc::new(Image::new(photo, ()));
            faces.extend(pipeline.aligned_faces(&photo, input::deadline()).await?);
        }
        Ok(faces)
    })
}
