//! Gets the default model: one package from the npm registry, checked by its digest, three networks imported from it.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    process::Command,
};

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};
use vultus_engine::{
    architectures::{self, ArchitectureError},
    graph::Graph,
    tfjs::{self, TfjsError},
    weights::Weights,
};

use super::{
    bundle::{self, Bundle, BundleError},
    contract::{Contract, ContractError},
};

/// What `npm pack` is asked for.
pub const PACKAGE: &str = "@vladmandic/face-api@1.7.15";
/// The package's SHA-256, hexadecimal.
pub const PACKAGE_SHA256: &str = "0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031";
/// The name of the default face model.
pub const DEFAULT_MODEL: &str = "default";

/// Bytes of the package, of one file in it, and of all that it unpacks to, at most.
const MAX_PACKAGE: u64 = 64 << 20;
const MAX_ENTRY: u64 = 32 << 20;
const MAX_UNPACKED: u64 = 256 << 20;

/// A network of the package: its card, its files' common name, and how it is wired.
struct Recipe {
    card: &'static str,
    stem: &'static str,
    wire: fn(&Weights) -> Result<(Graph, Weights), ArchitectureError>,
}

const RECIPES: [Recipe; 3] = [
    Recipe {
        card: include_str!("../../models/tiny-face-detector.toml"),
        stem: "tiny_face_detector_model",
        wire: architectures::tiny_face_detector,
    },
    Recipe {
        card: include_str!("../../models/face-landmark-68.toml"),
        stem: "face_landmark_68_model",
        wire: architectures::face_landmark_68,
    },
    Recipe {
        card: include_str!("../../models/default.toml"),
        stem: "face_recognition_model",
        wire: architectures::face_recognition,
    },
];

/// The demonstration's photos in the package.
const PHOTOS: [&str; 6] = ["sample1.jpg", "sample2.jpg", "sample3.jpg", "sample4.jpg", "sample5.jpg", "sample6.jpg"];

/// Why the model could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("npm is not installed: install Node.js with npm, or give the package's file with --from")]
    NoNpm,
    #[error("npm pack {PACKAGE} failed: {0}")]
    Npm(String),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("the package's SHA-256 is {got}, expected {PACKAGE_SHA256}: it is not used")]
    PackageDigest { got: String },
    #[error("the package is no good archive: {0}")]
    Archive(io::Error),
    #[error("the package, or a file in it, is larger than this program reads")]
    TooLarge,
    #[error("the package has no file {0}")]
    Missing(String),
    #[error("{network}: {source}")]
    Tfjs { network: String, source: TfjsError },
    #[error("{network}: {source}")]
    Architecture { network: String, source: ArchitectureError },
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("a card of this program: {0}")]
    Card(#[from] ContractError),
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Fetched {
    /// Names of the bundles that were written.
    pub written: Vec<String>,
    /// Names of those that were there and good.
    pub present: Vec<String>,
    pub photos: Vec<PathBuf>,
}

/// Puts the default model's bundles into `models_dir`, and the six photos into the folder `photos`. The package comes from
/// the file `from`, or else from the npm registry. Nothing is fetched when all is there and good.
pub fn fetch(models_dir: &Path, from: Option<&Path>, photos: Option<&Path>) -> Result<Fetched, FetchError> {
    let mut done = Fetched { written: vec![], present: vec![], photos: vec![] };
    let mut wanted = Vec::new();
    for recipe in &RECIPES {
        let card = Contract::parse(recipe.card)?;
        if refresh(models_dir, &card)? {
            done.present.push(card.name);
        } else {
            wanted.push((recipe, card));
        }
    }
    let photos_wanted = photos.is_some_and(|folder| PHOTOS.iter().any(|name| !folder.join(name).is_file()));
    if wanted.is_empty() && !photos_wanted {
        done.photos = photos.map(|folder| PHOTOS.iter().map(|name| folder.join(name)).collect()).unwrap_or_default();
        return Ok(done);
    }
    let package = match from {
        Some(file) => bundle::read(file, MAX_PACKAGE)?,
        None => npm_pack(models_dir)?,
    };
    let files = unpack(&package)?;
    for (recipe, card) in wanted {
        let name = card.name.clone();
        import(recipe, card, &files)?.write(models_dir)?;
        done.written.push(name);
    }
    if let Some(folder) = photos {
        let io = |source| FetchError::Io { path: folder.into(), source };
        fs::create_dir_all(folder).map_err(io)?;
        for name in PHOTOS {
            let path = folder.join(name);
            fs::write(&path, file(&files, &format!("demo/{name}"))?).map_err(io)?;
            done.photos.push(path);
        }
    }
    Ok(done)
}

/// Whether the bundle is there and good. One whose card alone is out of date (a new calibration, say) is written anew; what was
/// measured on this very bundle of a reduced precision stays, as it may have been here.
fn refresh(models_dir: &Path, card: &Contract) -> Result<bool, FetchError> {
    let Ok(bundle) = Bundle::open(&models_dir.join(&card.name)) else { return Ok(false) };
    let mut card = card.clone();
    for class in bundle.contract().precisions.iter().filter(|class| bundle.measured(class)) {
        match card.precisions.iter_mut().find(|ours| ours.precision == class.precision) {
            Some(ours) => ours.clone_from(class),
            None => card.precisions.push(class.clone()),
        }
    }
    if *bundle.contract() == card {
        return Ok(true);
    }
    match Bundle::new(card.clone(), bundle.graph().clone(), bundle.weights().clone()) {
        Ok(renewed) if card.digest.is_some() => renewed.write_card(models_dir).map(|_| true).map_err(Into::into),
        _ => Ok(false),
    }
}

fn import(recipe: &Recipe, card: Contract, files: &HashMap<String, Vec<u8>>) -> Result<Bundle, FetchError> {
    let network = || card.name.clone();
    let manifest = file(files, &format!("model/{}-weights_manifest.json", recipe.stem))?;
    let shard = |path: &str| files.get(&format!("model/{path}")).map(Vec::as_slice);
    let tensors = tfjs::import(manifest, shard).map_err(|source| FetchError::Tfjs { network: network(), source })?;
    let (graph, weights) =
        (recipe.wire)(&tensors).map_err(|source| FetchError::Architecture { network: network(), source })?;
    Ok(Bundle::new(card, graph, weights)?)
}

fn file<'a>(files: &'a HashMap<String, Vec<u8>>, name: &str) -> Result<&'a [u8], FetchError> {
    files.get(name).map(Vec::as_slice).ok_or_else(|| FetchError::Missing(name.into()))
}

/// Asks npm for the package, in a folder of its own.
fn npm_pack(models_dir: &Path) -> Result<Vec<u8>, FetchError> {
    let folder = models_dir.join(format!(".fetch.{}", std::process::id()));
    fs::create_dir_all(&folder).map_err(|source| FetchError::Io { path: folder.clone(), source })?;
    let packed = npm_pack_in(&folder);
    // What stays behind is litter; the package or the error is what matters.
    let _ = fs::remove_dir_all(&folder);
    packed
}

fn npm_pack_in(folder: &Path) -> Result<Vec<u8>, FetchError> {
    let npm = Command::new("npm").args(["pack", PACKAGE, "--silent"]).current_dir(folder).output();
    let output = npm.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => FetchError::NoNpm,
        _ => FetchError::Npm(e.to_string()),
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(FetchError::Npm(format!(
            "{}; {}",
            output.status,
            said.trim().chars().take(500).collect::<String>()
        )));
    }
    let io = |source| FetchError::Io { path: folder.into(), source };
    let entries = fs::read_dir(folder).map_err(io)?.collect::<Result<Vec<_>, _>>().map_err(io)?;
    let package = entries.iter().map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "tgz"));
    let package = package.ok_or_else(|| FetchError::Npm("it left no package behind".into()))?;
    Ok(bundle::read(&package, MAX_PACKAGE)?)
}

/// The files of a package that are wanted, by their path in it. Nothing is written; paths are compared, never followed.
fn unpack(package: &[u8]) -> Result<HashMap<String, Vec<u8>>, FetchError> {
    let got = hex::encode(Sha256::digest(package));
    if got != PACKAGE_SHA256 {
        return Err(FetchError::PackageDigest { got });
    }
    let wanted = |path: &str| {
        let model = |stem: &str| path.strip_prefix("model/").is_some_and(|rest| rest.starts_with(stem));
        RECIPES.iter().any(|r| model(r.stem)) || PHOTOS.iter().any(|p| path.strip_prefix("demo/") == Some(p))
    };
    entries(package, wanted)
}

/// The regular files of a gzipped tar whose path, less the first folder, is wanted.
fn entries(package: &[u8], wanted: impl Fn(&str) -> bool) -> Result<HashMap<String, Vec<u8>>, FetchError> {
    let mut archive = tar::Archive::new(GzDecoder::new(package).take(MAX_UNPACKED));
    let mut files = HashMap::new();
    for entry in archive.entries().map_err(FetchError::Archive)? {
        let entry = entry.map_err(FetchError::Archive)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let Some((_, path)) = path.split_once('/') else { continue };
        if !entry.header().entry_type().is_file() || !wanted(path) {
            continue;
        }
        if entry.size() > MAX_ENTRY {
            return Err(FetchError::TooLarge);
        }
        let mut bytes = Vec::new();
        entry.take(MAX_ENTRY).read_to_end(&mut bytes).map_err(FetchError::Archive)?;
        files.insert(path.to_string(), bytes);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn package(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            // Written as it is: the builder itself would refuse a path that leads elsewhere.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_size(bytes.len() as u64);
            header.set_entry_type(tar::EntryType::Regular);
            header.set_cksum();
            tar.append(&header, *bytes).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn only_wanted_files_are_read() {
        let package = package(&[("package/model/a.bin", b"a"), ("package/../../etc/passwd", b"b"), ("alone", b"c")]);
        let files = entries(&package, |path| path == "model/a.bin").unwrap();
        assert_eq!(files, HashMap::from([("model/a.bin".to_string(), b"a".to_vec())]));
    }

    #[test]
    fn a_damaged_archive_is_an_error() {
        let package = package(&[("package/model/a.bin", &[7; 5000])]);
        assert!(matches!(entries(&package[..package.len() / 2], |_| true), Err(FetchError::Archive(_))));
        assert!(matches!(entries(b"not an archive", |_| true), Err(FetchError::Archive(_))));
    }

    #[test]
    fn another_package_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("face-api.tgz");
        fs::write(&from, package(&[("package/model/a.bin", b"a")])).unwrap();
        let models = dir.path().join("models");
        assert!(matches!(fetch(&models, Some(&from), None), Err(FetchError::PackageDigest { .. })));
        assert!(!models.exists());
    }

    #[test]
    fn the_cards_are_contracts_with_digests() {
        for recipe in &RECIPES {
            let card = Contract::parse(recipe.card).unwrap();
            assert!(card.digest.is_some(), "{}", card.name);
            assert_eq!(card.source.sha256, PACKAGE_SHA256);
            assert_eq!(card.source.file, format!("model/{}.bin", recipe.stem));
            assert!(PACKAGE.ends_with(&card.version) && card.source.package == PACKAGE);
            if let Some(face) = &card.face {
                assert!(
                    face.calibration.iter().all(|table| table.of == card.digest),
                    "{}: not its calibration",
                    card.name
                );
            }
            for class in &card.precisions {
                let precision = class.precision.as_str();
                assert!(
                    class.is_of(card.digest.as_deref().unwrap()),
                    "{}: {precision} was not measured on it",
                    card.name
                );
            }
        }
    }
}
