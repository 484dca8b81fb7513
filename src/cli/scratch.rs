//! A folder that goes when it is dropped.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use crate::seal::random;

/// A new folder of this process, readable by its owner alone.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// In `parent`, which is made if need be.
    pub fn new_in(parent: &Path) -> io::Result<Self> {
        fs::create_dir_all(parent)?;
        let path = parent.join(format!("vultus-{}", hex::encode(random::<8>().map_err(io::Error::other)?)));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // what stays is litter
    }
}
