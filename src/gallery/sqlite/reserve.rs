//! Room that is kept on the disk for erasing: a file of zeros, given up when the disk is full.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

const FILE: &str = "reserve";
const CHUNK: usize = 1 << 16;

pub(super) struct Reserve {
    path: PathBuf,
    bytes: u64,
}

impl Reserve {
    pub(super) fn new(dir: &Path, bytes: u64) -> Self {
        Self { path: dir.join(FILE), bytes }
    }

    /// Sets the room aside, if it is not and there is as much. Without it everything works, but erasing on a full disk.
    pub(super) fn keep(&self) {
        if !self.is_kept() && self.fill().is_err() {
            self.give_up(); // a part of it would help nobody
        }
    }

    pub(super) fn is_kept(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| found.len() == self.bytes)
    }

    /// Frees the room; false if none was set aside.
    pub(super) fn give_up(&self) -> bool {
        fs::remove_file(&self.path).is_ok()
    }

    /// Zeros are written: a hole in a file sets nothing aside.
    fn fill(&self) -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&self.path)?;
        let mut left = self.bytes;
        while left > 0 {
            let part = left.min(CHUNK as u64);
            file.write_all([0; CHUNK].get(..part as usize).unwrap_or_default())?;
            left -= part;
        }
        file.sync_all() // some file systems find out no earlier that there is no room
    }
}
