//! What a folder of images says: which image is a reference of which subject.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use sha2::{Digest, Sha256};

use crate::{
    cli::{input::is_image, report::Refused},
    domain::{GalleryName, ReferenceId, SubjectId},
};

/// Where a subject's id comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SubjectFrom {
    /// From the file's name: `SUBJECT_1.png`, `SUBJECT1.png` or `SUBJECT.png`.
    Name,
    /// From its folder: `SUBJECT/any.png`.
    Folder,
}

/// One image to enrol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub path: PathBuf,
    pub subject: SubjectId,
}

/// The images of a folder by name, and what in it cannot be enrolled.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub items: Vec<Item>,
    pub refused: Vec<Refused>,
}

/// More images than this are not enrolled in one go.
const MAX_ITEMS: usize = 5_000_000;

impl Plan {
    /// The images directly in `folder`, and those in its folders; no deeper. What is not named as an image is passed over.
    ///
    /// # Errors
    /// When a folder cannot be read, or holds more than 5 million images.
    pub fn of(folder: &Path, from: Option<SubjectFrom>) -> io::Result<Self> {
        let mut plan = Self::default();
        for path in entries(folder)? {
            if path.is_dir() {
                for inner in entries(&path)? {
                    plan.add(inner, from.unwrap_or(SubjectFrom::Folder));
                }
            } else {
                plan.add(path, from.unwrap_or(SubjectFrom::Name));
            }
            if plan.items.len() > MAX_ITEMS {
                return Err(io::Error::other(format!("more than {MAX_ITEMS} images")));
            }
        }
        Ok(plan)
    }

    fn add(&mut self, path: PathBuf, from: SubjectFrom) {
        if !is_image(&path) || !path.is_file() {
            return;
        }
        let named = match from {
            SubjectFrom::Name => path.file_stem().and_then(|s| s.to_str()).map(subject_of),
            SubjectFrom::Folder => path.parent().and_then(|p| p.file_name()).and_then(|s| s.to_str()),
        };
        match named.map(SubjectId::new) {
            Some(Ok(subject)) => self.items.push(Item { path, subject }),
            Some(Err(error)) => self.refuse(&path, error.to_string()),
            None => self.refuse(&path, "its name is not UTF-8".into()),
        }
    }

    fn refuse(&mut self, path: &Path, reason: String) {
        self.refused.push(Refused { path: path.display().to_string(), reason });
    }
}

/// In the order of their names, so that two runs do the same.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", folder.display()));
    let mut paths = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>())
        .map_err(named)?;
    paths.sort();
    Ok(paths)
}

/// A file's name without its number: up to the last `_` that only digits follow, or else without the digits at its end. What is
/// all number stays whole.
pub fn subject_of(stem: &str) -> &str {
    let unnumbered = stem.trim_end_matches(|c: char| c.is_ascii_digit());
    match unnumbered.strip_suffix('_') {
        Some(subject) if !subject.is_empty() && unnumbered.len() < stem.len() => subject,
        _ if unnumbered.is_empty() => stem,
        _ => unnumbered,
    }
}

/// The id that this image has as a reference of this subject, whenever it is enrolled: a second run finds what the first one did. A
/// UUID of version 8, from a SHA-256.
pub fn reference_id(gallery: &GalleryName, subject: &SubjectId, file: &[u8]) -> ReferenceId {
    let mut hash = Sha256::new_with_prefix(b"vultus enrolled file v1");
    for part in [gallery.as_str().as_bytes(), subject.as_str().as_bytes(), &Sha256::digest(file)] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut id = [0; 16];
    id.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
    id[6] = id[6] & 0x0f | 0x80; // version 8: the rest is ours
    id[8] = id[8] & 0x3f | 0x80; // variant of RFC 9562
    ReferenceId::from_bytes(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_its_number_is_the_subject() {
        for (stem, subject) in [
            ("anna_1", "anna"),
            ("anna_012", "anna"),
            ("anna7", "anna"),
            ("anna", "anna"),
            ("8842", "8842"),
            ("8842_1", "8842"),
            ("carrier-7_a_2", "carrier-7_a"),
            ("_1", "_"),
            ("anna_", "anna_"),
        ] {
            assert_eq!(subject_of(stem), subject, "{stem}");
        }
    }

    #[test]
    fn folders_and_names_are_subjects() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("bella/deeper")).unwrap();
        for name in ["anna_1.png", "anna_2.JPG", "notes.txt", "bella/x.png", "bella/deeper/y.png", "a b_1.png"] {
            fs::write(root.join(name), name).unwrap();
        }
        let found = |from| {
            let plan = Plan::of(root, from).unwrap();
            let of = |item: &Item| {
                (item.path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), item.subject.to_string())
            };
            (plan.items.iter().map(of).collect::<Vec<_>>(), plan.refused.len())
        };
        let expect =
            |list: &[(&str, &str)]| list.iter().map(|(p, s)| (p.to_string(), s.to_string())).collect::<Vec<_>>();
        let by_place = expect(&[("anna_1.png", "anna"), ("anna_2.JPG", "anna"), ("bella/x.png", "bella")]);
        assert_eq!(found(None), (by_place, 1));
        let by_name = expect(&[("anna_1.png", "anna"), ("anna_2.JPG", "anna"), ("bella/x.png", "x")]);
        assert_eq!(found(Some(SubjectFrom::Name)), (by_name, 1));
        assert!(Plan::of(&root.join("none"), None).unwrap_err().to_string().contains("none"));
    }

    #[test]
    fn a_reference_id_depends_on_all_and_on_nothing_else() {
        let (gallery, anna) = (GalleryName::new("g").unwrap(), SubjectId::new("anna").unwrap());
        let id = reference_id(&gallery, &anna, b"file");
        assert_eq!(id, reference_id(&gallery, &anna, b"file"));
        assert_ne!(id, reference_id(&gallery, &anna, b"filf"));
        assert_ne!(id, reference_id(&gallery, &SubjectId::new("ann").unwrap(), b"file"));
        assert_ne!(id, reference_id(&GalleryName::new("ga").unwrap(), &anna, b"file"));
        assert_eq!(&id.to_string()[14..15], "8");
    }
}
