//! What lies in a models directory, and whether it is good.

use std::{fs, io, path::Path};

use serde::Serialize;

use super::{Bundle, Role, contract::is_name};

/// Folders that are looked at, at most.
const MAX_BUNDLES: usize = 1000;

/// One bundle, opened and checked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listed {
    pub name: String,
    /// What is wrong with it; the rest is then empty.
    pub fault: Option<String>,
    pub role: Option<Role>,
    pub version: String,
    pub licence: String,
    /// Hexadecimal.
    pub digest: String,
    pub parameters: usize,
    pub source: String,
}

/// Every bundle in `models_dir`, by name; each is read whole and checked.
pub fn list(models_dir: &Path) -> io::Result<Vec<Listed>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(models_dir)?.take(MAX_BUNDLES) {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_name(&name) && entry.path().is_dir() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names.iter().map(|name| check(models_dir, name)).collect())
}

/// One bundle by its name.
pub fn check(models_dir: &Path, name: &str) -> Listed {
    let mut listed = Listed {
        name: name.into(),
        fault: None,
        role: None,
        version: String::new(),
        licence: String::new(),
        digest: String::new(),
        parameters: 0,
        source: String::new(),
    };
    if !is_name(name) {
        listed.fault = Some("expected 1 to 64 characters of a-z 0-9 - _".into());
        return listed;
    }
    match Bundle::open(&models_dir.join(name)) {
        Err(fault) => listed.fault = Some(fault.to_string()),
        Ok(bundle) => {
            let contract = bundle.contract();
            listed.role = Some(contract.role);
            listed.version.clone_from(&contract.version);
            listed.licence.clone_from(&contract.licence.spdx);
            listed.digest = hex::encode(bundle.digest());
            listed.parameters = bundle.weights().iter().map(|(_, w)| w.values().len()).sum();
            listed.source = format!("{} {}", contract.source.package, contract.source.file);
        }
    }
    listed
}
