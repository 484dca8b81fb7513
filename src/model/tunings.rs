//! Which kernels a card was measured to be fastest with, kept in a folder: a file for each card, driver, set of kernels and model.

use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
};

use vultus_engine::cuda::Tuning;

/// Bytes of a file, at most.
const MAX_BYTES: u64 = 1 << 20;

/// A folder of tunings, or none: then they are measured whenever they are needed.
#[derive(Debug, Clone, Default)]
pub struct Tunings(pub Option<PathBuf>);

impl Tunings {
    fn file(&self, name: &str) -> Option<PathBuf> {
        self.0.as_ref().map(|folder| folder.join(format!("{name}.json")))
    }

    /// What was kept under that name. A file that is none is reported, and counts as absent: kernels are checked whatever it says.
    pub fn read(&self, name: &str) -> Option<Tuning> {
        let path = self.file(name)?;
        let read = || -> io::Result<Tuning> {
            let mut text = Vec::new();
            fs::File::open(&path)?.take(MAX_BYTES).read_to_end(&mut text)?;
            Ok(serde_json::from_slice(&text)?)
        };
        match read() {
            Ok(tuning) => Some(tuning),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "no tuning: it is measured anew");
                None
            }
        }
    }

    /// Keeps it. Where that fails, it is measured again at the next start, and nothing else.
    pub fn write(&self, name: &str, tuning: &Tuning) {
        let Some(path) = self.file(name) else { return };
        let write = || -> io::Result<()> {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            let fresh = path.with_extension("new");
            fs::write(&fresh, serde_json::to_vec_pretty(tuning)?)?;
            fs::rename(&fresh, &path)
        };
        if let Err(error) = write() {
            tracing::warn!(file = %path.display(), %error, "the tuning is not kept");
        }
    }

    /// Forgets what was kept under that name.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match self.file(name).map(fs::remove_file) {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_and_what_is_broken_is_absent() {
        let folder = tempfile::tempdir().unwrap();
        let tunings = Tunings(Some(folder.path().join("tunings")));
        assert_eq!(tunings.read("card"), None);
        let mut tuning = Tuning::default();
        tuning.set("1 x 9 px".into(), "128x64/1".into());
        tunings.write("card", &tuning);
        assert_eq!((tunings.read("card"), tunings.read("other")), (Some(tuning.clone()), None));
        fs::write(folder.path().join("tunings/card.json"), "{\"a\": 1").unwrap();
        assert_eq!(tunings.read("card"), None);
        tunings.write("card", &tuning);
        tunings.remove("card").unwrap();
        tunings.remove("card").unwrap();
        assert_eq!(tunings.read("card"), None);
        let none = Tunings::default();
        none.write("card", &tuning);
        assert_eq!(none.read("card"), None);
    }
}
