//! What a folder of images, or a list, says: which image is a reference of which subject.

mod rules;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use serde::Serialize;
use sha2::{Digest, Sha256};

pub use self::rules::subject_of;
use crate::{
    cli::{Failure, input::is_image, report::Refused},
    domain::{GalleryName, ReferenceId, SubjectId},
};

/// Where a subject's id comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SubjectFrom {
    /// From the file's name without its number: `SUBJECT_1.png`, `SUBJECT1.png` or `SUBJECT.png`.
    Name,
    /// From the file's name as it stands: `SUBJECT.png`, digits at its end included.
    Stem,
    /// From its folder: `SUBJECT/any.png`.
    Folder,
}

/// One image to enrol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub path: PathBuf,
    pub subject: SubjectId,
}

/// The images of a folder by name, and what in it is not enrolled.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub items: Vec<Item>,
    pub refused: Vec<Refused>,
    pub passed_over: PassedOver,
}

/// What was not looked at.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct PassedOver {
    /// Files by the extension that is none of an image that is read here, in lower case; without one: `none`.
    pub extensions: BTreeMap<String, usize>,
    /// Hidden files and folders, those that macOS lays beside others (`._NAME`) among them.
    pub hidden: usize,
    /// Links to what is enrolled all the same, lines of a list that say so twice, and folders in folders.
    pub elsewhere: usize,
}

/// More images than this are not enrolled in one go.
const MAX_ITEMS: usize = 5_000_000;

impl Plan {
    /// Of a folder: the images directly in it, and those in its folders; no deeper. Of a file: a list in CSV with the columns `file` and
    /// `subject`, whose files are found from where it lies.
    ///
    /// # Errors
    /// When it cannot be read, holds more than 5 million images, has names whose digits may be a number or a part of the id while no rule
    /// was said, or when the rule that was said does not fit.
    pub fn of(place: &Path, from: Option<SubjectFrom>) -> Result<Self, Failure> {
        if place.is_file() {
            return Self::of_list(place, from);
        }
        let (mut plan, mut seen) = (Self::default(), HashSet::new());
        let mut unclear = Vec::new();
        seen.insert(place.canonicalize().map_err(|e| named(place, &e))?);
        for path in plan.entries(place)? {
            if path.is_dir() {
                // A link to what was enrolled already, or to the folder itself, is no further subject.
                if !path.canonicalize().is_ok_and(|real| seen.insert(real)) {
                    plan.passed_over.elsewhere += 1;
                    continue;
                }
                for inner in plan.entries(&path)? {
                    plan.add(inner, from.unwrap_or(SubjectFrom::Folder));
                }
            } else {
                if from.is_none() && is_image(&path) {
                    unclear.extend(rules::readings(&path));
                }
                plan.add(path, from.unwrap_or(SubjectFrom::Name));
            }
            if plan.items.len() > MAX_ITEMS {
                return Err(format!("more than {MAX_ITEMS} images").into());
            }
        }
        if !unclear.is_empty() {
            return Err(rules::ask(place, &unclear).into());
        }
        if let Some(misfit) = from.and_then(|from| rules::misfit(place, from, &plan.items)) {
            return Err(misfit.into());
        }
        plan.one_subject_for_each_photo();
        Ok(plan)
    }

    fn of_list(list: &Path, from: Option<SubjectFrom>) -> Result<Self, Failure> {
        if from.is_some() {
            return Err("--subject-from: a list says the subjects itself".into());
        }
        let at = |e: csv::Error| format!("{}: {e}; expected CSV with the columns file,subject", list.display());
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(list).map_err(at)?;
        if reader.headers().map_err(at)? != vec!["file", "subject"] {
            return Err(
                format!("{}: expected CSV with the columns file,subject in its first line", list.display()).into()
            );
        }
        let (folder, mut plan) = (list.parent().unwrap_or(Path::new("")), Self::default());
        for record in reader.into_deserialize::<(String, String)>() {
            let (file, subject) = record.map_err(at)?;
            let path = folder.join(file);
            match SubjectId::new(&subject) {
                _ if !path.is_file() => plan.refuse(&path, "there is no such file".into()),
                Ok(subject) => plan.items.push(Item { path, subject }),
                Err(error) => plan.refuse(&path, error.to_string()),
            }
            if plan.items.len() > MAX_ITEMS {
                return Err(format!("more than {MAX_ITEMS} images").into());
            }
        }
        plan.one_subject_for_each_photo();
        Ok(plan)
    }

    /// Of a photo that was named for two people, by links or by lines of a list, neither is enrolled: one of them is wrong, and nobody here
    /// knows which. What was named twice for one is enrolled once.
    fn one_subject_for_each_photo(&mut self) {
        let identity = |path: &Path| path.metadata().ok().map(|file| (file.dev(), file.ino()));
        let items: Vec<_> =
            std::mem::take(&mut self.items).into_iter().map(|item| (identity(&item.path), item)).collect();
        let (mut first, mut other) = (HashMap::new(), HashMap::new());
        for (file, item) in items.iter().filter_map(|(file, item)| file.map(|file| (file, item))) {
            let before: &mut &Item = first.entry(file).or_insert(item);
            if before.subject != item.subject {
                other.entry(file).or_insert(item);
            }
        }
        let said = |item: &Item| format!("{} ({})", item.subject, item.path.display());
        let mut kept = vec![false; items.len()];
        for (kept, (file, item)) in kept.iter_mut().zip(&items) {
            let Some((before, file)) = file.as_ref().and_then(|file| first.get(file).map(|before| (*before, file)))
            else {
                *kept = true; // it cannot be looked at, which its turn will say
                continue;
            };
            if let Some(other) = other.get(file) {
                let reason = format!("one photo of two subjects, {} and {}: expected one", said(before), said(other));
                self.refuse(&item.path, reason);
            } else if std::ptr::eq(before, item) {
                *kept = true;
            } else {
                self.passed_over.elsewhere += 1;
            }
        }
        self.items = items.into_iter().zip(kept).filter_map(|((_, item), kept)| kept.then_some(item)).collect();
    }

    /// In the order of their names, so that two runs do the same; links after all else. Without the hidden.
    fn entries(&mut self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = fs::read_dir(folder)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>())
            .map_err(|e| named(folder, &e))?;
        let is_hidden = |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let all = paths.len();
        paths.retain(|path| !is_hidden(path));
        self.passed_over.hidden += all - paths.len();
        paths.sort_by_cached_key(|path| (path.is_symlink(), path.clone()));
        Ok(paths)
    }

    fn add(&mut self, path: PathBuf, from: SubjectFrom) {
        if path.is_dir() {
            self.passed_over.elsewhere += 1;
            return;
        }
        if !is_image(&path) {
            let extension = path.extension().map_or("none".into(), |e| e.to_string_lossy().to_ascii_lowercase());
            *self.passed_over.extensions.entry(extension).or_default() += 1;
            return;
        }
        if !path.is_file() {
            self.refuse(&path, "expected a file: it is a link that leads nowhere, a pipe or a device".to_owned());
            return;
        }
        let stem = path.file_stem().and_then(|s| s.to_str());
        let subject = match from {
            SubjectFrom::Name => stem.map(subject_of),
            SubjectFrom::Stem => stem,
            SubjectFrom::Folder => path.parent().and_then(|p| p.file_name()).and_then(|s| s.to_str()),
        };
        match subject.map(SubjectId::new) {
            Some(Ok(subject)) => self.items.push(Item { path, subject }),
            Some(Err(error)) => self.refuse(&path, error.to_string()),
            None => self.refuse(&path, "its name is not UTF-8".into()),
        }
    }

    fn refuse(&mut self, path: &Path, reason: String) {
        self.refused.push(Refused { path: path.display().to_string(), reason });
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
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
mod tests;
