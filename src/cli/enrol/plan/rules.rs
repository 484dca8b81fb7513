//! Whose photo a file's name says that it is, what no name says, and where a rule that was said does not fit.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use super::{Item, SubjectFrom};
use crate::{cli::report::printable, domain::SubjectId};

/// Names that an error shows.
const SHOWN: usize = 5;

/// What cameras, scanners and lists put before a number: it names nobody, in whatever case. (Sam is somebody.)
const OF_NOBODY: [&str; 30] = [
    "cam",
    "capture",
    "client",
    "customer",
    "dcim",
    "dsc",
    "dscf",
    "dscn",
    "emp",
    "employee",
    "face",
    "frame",
    "id",
    "image",
    "img",
    "mvi",
    "p",
    "person",
    "photo",
    "pic",
    "picture",
    "portrait",
    "pxl",
    "scan",
    "screenshot",
    "snap",
    "staff",
    "subject",
    "user",
    "webcam",
];

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

/// What may be meant by a file's name, in words, where it does not tell: the digits at its end may number its subject's photos, or belong
/// to the id. `SUBJECT_1` to `SUBJECT_9` alone says the first, with a name for somebody before it.
pub fn readings(path: &Path) -> Option<String> {
    let stem = path.file_stem()?.to_str()?;
    let subject = subject_of(stem);
    let number = stem.strip_prefix(subject)?;
    let whole = !stem.is_empty() && stem.bytes().all(|byte| byte.is_ascii_digit());
    if number.is_empty() && !whole {
        return None;
    }
    let names_somebody = !OF_NOBODY.contains(&subject.to_ascii_lowercase().as_str());
    if matches!(number.as_bytes(), [b'_', b'1'..=b'9']) && names_somebody {
        return None;
    }
    let file = name_of(path);
    let (subject, stem) = (printable(subject), printable(stem));
    Some(if whole {
        format!(
            "{file}: subject {stem} with --subject-from stem, or a photo of whom a folder has to name: SUBJECT/{file}"
        )
    } else {
        format!("{file}: subject {subject} with --subject-from name, {stem} with --subject-from stem")
    })
}

/// Which rule is meant nobody can guess: a wrong one makes one subject of many people.
pub fn ask(folder: &Path, unclear: &[String]) -> String {
    format!(
        "{}: the names end in digits, which may number a subject's photos or belong to its id (SUBJECT_1 to SUBJECT_9 alone number photos, \
         of a SUBJECT that names somebody); expected --subject-from, a folder for each subject, or a list in CSV with the columns \
         file,subject{}",
        shown(folder),
        some(unclear.iter().cloned())
    )
}

/// Where the rule that was said makes one subject of files that have little to do with each other.
pub fn misfit(place: &Path, from: SubjectFrom, items: &[Item]) -> Option<String> {
    let mut wrong = Vec::new();
    if from == SubjectFrom::Folder {
        wrong.extend(items.iter().filter(|item| item.path.parent() == Some(place)).map(|item| name_of(&item.path)));
        let rest = "expected SUBJECT/any.png, or --subject-from name or stem";
        let what = "--subject-from folder makes one subject of all images that lie in this folder itself";
        return (!wrong.is_empty()).then(|| format!("{}: {what}; {rest}{}", shown(place), some(wrong)));
    }
    let mut first: HashMap<&SubjectId, &PathBuf> = HashMap::new();
    for Item { path, subject } in items {
        let other = *first.entry(subject).or_insert(path);
        if other.parent() != path.parent() {
            wrong.push(format!("{subject}: {} and {}", shown(other), shown(path)));
        }
    }
    let what = "this --subject-from makes one subject of images in different folders";
    let rest = "expected --subject-from folder, names that differ, or a list in CSV with the columns file,subject";
    (!wrong.is_empty()).then(|| format!("{}: {what}; {rest}{}", shown(place), some(wrong)))
}

fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or(String::new(), |name| printable(&name.to_string_lossy()))
}

/// The first of them, a line each.
fn some(all: impl IntoIterator<Item = String, IntoIter: ExactSizeIterator>) -> String {
    let mut all = all.into_iter();
    let more = all.len().saturating_sub(SHOWN);
    let lines: String = all.by_ref().take(SHOWN).map(|line| format!("\n  {line}")).collect();
    if more > 0 { format!("{lines}\n  and {more} more") } else { lines }
}
