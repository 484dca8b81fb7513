//! Who takes part: faces of the package's six photos, or of a folder of crops.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use vultus_engine::{
    image::{Pixels, Rect},
    view::Image,
};

use crate::{
    cli::{Failure, enrol::subject_of, input},
    pipeline::{
        Pipeline,
        decode::{Source, decode},
    },
};

/// One person: a photo to enrol, and others to verify.
#[derive(Debug)]
pub struct Person {
    pub subject: String,
    /// Where the reference comes from.
    pub source: String,
    pub reference: Pixels,
    /// At least one.
    pub probes: Vec<Probe>,
}

#[derive(Debug)]
pub struct Probe {
    /// What it is, for the table.
    pub what: String,
    pub image: Pixels,
}

/// People at most: the search's threshold follows the gallery's size, and the model's calibration does not reach far.
const MOST_PEOPLE: usize = 40;
/// A longer side is scaled down to this: a raw image must fit in a message.
const LONGEST_SIDE: u32 = 640;

/// Every face of the photos is a person. There is one photo of each, so probes are the same face, changed: framed anew, moved, in other light,
/// with fewer colours.
pub async fn of_photos(pipeline: &Pipeline, photos: &[PathBuf]) -> Result<Vec<Person>, Failure> {
    let mut people = Vec::new();
    for path in photos {
        let photo = Arc::new(Image::new(open(path)?, ()));
        for face in pipeline.faces_in_photo(&photo, input::deadline()).await? {
            let again = |what: &str, room, shift, light| {
                Some(Probe { what: what.into(), image: reframed(photo.pixels(), face.rect, room, shift, light)? })
            };
            let probes =
                [again("framed wider, dimmed", 1.6, 0.03, 0.8), again("framed closer, brighter", 1.25, -0.02, 1.15)];
            people.push(Person {
                subject: format!("person-{:02}", people.len() + 1),
                source: file_name(path),
                reference: fitted(&face.crop),
                probes: probes.into_iter().flatten().collect(),
            });
        }
    }
    people.retain(|person| !person.probes.is_empty());
    people.truncate(MOST_PEOPLE);
    Ok(people)
}

/// `NAME_K.png`: the first image of each name is enrolled, the others are probes.
pub fn of_folder(folder: &Path) -> Result<Vec<Person>, Failure> {
    let named = |e| format!("{}: {e}", folder.display());
    let entries = std::fs::read_dir(folder).map_err(named)?;
    let mut by_name: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(named)?.path();
        if let Some(stem) = path.file_stem().and_then(|s| s.to_str()).filter(|_| input::is_image(&path)) {
            by_name.entry(subject_of(stem).into()).or_default().push(path);
        }
    }
    let mut people = Vec::new();
    for (subject, mut files) in by_name {
        files.sort();
        let [reference, probes @ ..] = files.as_slice() else { continue };
        let probe = |path: &PathBuf| Ok(Probe { what: file_name(path), image: fitted(&open(path)?) });
        let probes = probes.iter().map(probe).collect::<Result<Vec<_>, Failure>>()?;
        if !probes.is_empty() && people.len() < MOST_PEOPLE {
            let (source, reference) = (file_name(reference), fitted(&open(reference)?));
            people.push(Person { subject, source, reference, probes });
        }
    }
    Ok(people)
}

fn open(path: &Path) -> Result<Pixels, Failure> {
    let file = input::read(path, input::ONE_FILE.max_bytes).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(decode(Source::Encoded(&file), &input::ONE_FILE).map_err(|e| format!("{}: {e}", path.display()))?)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn fitted(pixels: &Pixels) -> Pixels {
    let longer = pixels.width().max(pixels.height());
    if longer <= LONGEST_SIDE {
        return pixels.clone();
    }
    let scaled = |side: u32| (u64::from(side) * u64::from(LONGEST_SIDE) / u64::from(longer)) as u32;
    pixels.resized(scaled(pixels.width()), scaled(pixels.height()))
}

/// A square of `room` times the face's longer side, moved right by `shift` of itself, its light multiplied, with 5 bits a channel.
fn reframed(photo: &Pixels, face: Rect, room: f32, shift: f32, light: f32) -> Option<Pixels> {
    let side = room * face.width.max(face.height);
    let centre = face.centre();
    let square = Rect { x: centre.x - side / 2.0 + shift * side, y: centre.y - side / 2.0, width: side, height: side };
    let crop = fitted(&photo.cut(square.clipped(photo.width(), photo.height())?));
    let changed = crop.rgb8().iter().map(|v| (f32::from(*v) * light).min(255.0) as u8 & 0xf8);
    Pixels::new(crop.width(), crop.height(), changed.collect()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_another_image_of_the_same_place() {
        let photo = Pixels::flat(100, 80, [100; 3]);
        let face = Rect { x: 40.0, y: 30.0, width: 20.0, height: 20.0 };
        let probe = reframed(&photo, face, 1.5, 0.1, 0.5).unwrap();
        assert_eq!((probe.width(), probe.height()), (30, 30));
        assert!(probe.rgb8().iter().all(|v| *v == 48));
        let outside = Rect { x: 400.0, ..face };
        assert!(reframed(&photo, outside, 1.5, 0.0, 1.0).is_none());
    }

    #[test]
    fn a_large_crop_fits_in_a_message() {
        let small = fitted(&Pixels::flat(2000, 1000, [9; 3]));
        assert_eq!((small.width(), small.height()), (640, 320));
    }
}
