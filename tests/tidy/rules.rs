//! Rules that need one text at a time.

use crate::{Finding, source::Source};

const MOST_LINES: usize = 400;

/// Files that may be longer, each with the reason why splitting it would make it harder to read.
const LONG_FOR_A_REASON: [(&str, &str); 0] = [];

pub fn length(name: &str, text: &str) -> Option<Finding> {
    let lines = text.lines().count();
    let allowed = LONG_FOR_A_REASON.iter().any(|(long, _)| *long == name);
    (lines > MOST_LINES && !allowed)
        .then(|| format!("{name}: {lines} lines; at most {MOST_LINES} are readable: split it"))
}

/// Files that may panic, each with the reason why no client, file or device can make them.
const PANICS_FOR_A_REASON: [(&str, &str); 3] = [
    ("src/telemetry.rs", "registers metrics whose names are constants; the first test to run would show a fault"),
    ("crates/cuda/src/driver/fake/mod.rs", "built for tests alone; one that misuses it fails there"),
    ("crates/cuda/src/driver/fake/calls.rs", "the same"),
];

/// Clippy refuses these too; this rule cannot be switched off by an attribute in the file.
pub fn panics(source: &Source) -> Vec<Finding> {
    const WORDS: [&str; 5] = [".unwrap()", ".expect(", "panic!(", "todo!(", "unimplemented!("];
    if PANICS_FOR_A_REASON.iter().any(|(file, _)| *file == source.name) {
        return Vec::new();
    }
    let code = &source.code;
    let found = WORDS.iter().flat_map(|word| code.match_indices(word));
    found
        .map(|(at, word)| format!("{}:{}: `{word}` outside tests: return an error", source.name, source.line(at)))
        .collect()
}

/// What is named in one place alone, and that place: another implementation, or a test, can then stand in its place.
const IN_ONE_PLACE: [(&str, &str); 4] = [
    ("rusqlite", "src/gallery/sqlite/"),
    ("getrandom", "src/seal.rs"),
    ("SystemTime::now", "src/gallery/clock.rs"),
    ("cudarc", "crates/cuda/src/driver/"),
];

/// Chooses its own seed.
const CHOOSES_A_SEED: &str = "src/pipeline/decode/fuzz.rs";

pub fn in_one_place(source: &Source) -> Vec<Finding> {
    // A load generator may look at the clock; a fuzzer says which seed it took.
    let free = source.home().starts_with("benches/") || source.name == CHOOSES_A_SEED;
    let found = IN_ONE_PLACE.iter().filter(|(_, place)| !free && !source.name.starts_with(place));
    found
        .flat_map(|(word, place)| source.code.match_indices(word).map(move |(at, _)| (at, word, place)))
        .map(|(at, word, place)| format!("{}:{}: `{word}` is named in {place} alone", source.name, source.line(at)))
        .collect()
}

pub fn unsafe_denied(name: &str, lib: &str, manifest: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !lib.contains("#![deny(unsafe_code)]") && !lib.contains("#![forbid(unsafe_code)]") {
        findings.push(format!("{name}: does not deny unsafe_code"));
    }
    if !manifest.lines().any(|line| matches!(line.trim(), "unsafe_code = \"deny\"" | "unsafe_code = \"forbid\"")) {
        findings.push("Cargo.toml: [workspace.lints.rust] does not deny unsafe_code".to_owned());
    }
    findings
}

const MOST_BYTES: u64 = 200 * 1024;

/// Weights are fetched and digest-checked, photos stay where they are.
pub fn weight(name: &str, bytes: u64) -> Option<Finding> {
    const WEIGHTS: [&str; 9] = ["bin", "safetensors", "onnx", "pt", "pth", "npz", "npy", "tgz", "gz"];
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    if WEIGHTS.contains(&extension.to_ascii_lowercase().as_str()) {
        return Some(format!("{name}: weights are fetched at set-up, never committed"));
    }
    (bytes > MOST_BYTES).then(|| format!("{name}: {bytes} bytes; at most {MOST_BYTES} belong in git"))
}

/// A path that exists on one machine alone.
pub fn machine_paths(name: &str, text: &str) -> Vec<Finding> {
    const ROOTS: [&str; 3] = [concat!("/", "work/"), concat!("/", "root/"), concat!("/", "home/")];
    let lines = text.lines().zip(1..);
    let starts_path = |line: &str, root: &str| {
        line.match_indices(root)
            .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || ".}$_-~".contains(c)))
    };
    lines
        .flat_map(|(line, number)| {
            ROOTS.iter().filter(move |root| starts_path(line, root)).map(move |root| (number, root))
        })
        .map(|(number, root)| format!("{name}:{number}: `{root}` exists on one machine alone"))
        .collect()
}

/// What a merge left behind.
pub fn conflict_markers(name: &str, text: &str) -> Vec<Finding> {
    let markers = ["<".repeat(7), ">".repeat(7)];
    let marked = |line: &str| markers.iter().any(|m| line.strip_prefix(m.as_str()).is_some_and(|l| l.starts_with(' ')));
    let found = text.lines().zip(1..).filter(|(line, _)| marked(line));
    found.map(|(_, number)| format!("{name}:{number}: a merge's conflict")).collect()
}

pub fn readme(text: &str) -> Vec<Finding> {
    ["make demo", "make test"]
        .into_iter()
        .filter(|command| !text.contains(command))
        .map(|command| format!("README.md: does not say `{command}`"))
        .collect()
}

#[test]
fn a_long_file_is_found() {
    assert!(length("src/a.rs", &"\n".repeat(MOST_LINES)).is_none());
    assert!(length("src/a.rs", &"\n".repeat(MOST_LINES + 1)).unwrap().starts_with("src/a.rs: 401 lines"));
}

#[test]
fn a_panic_is_found_where_it_ships() {
    let text = "fn f() {\n    x.unwrap();\n    y.unwrap_or(0);\n    z\n        .expect(\"z\")\n}\n// x.unwrap()\n#[cfg(test)]\nmod tests { x.unwrap() }";
    let found = panics(&Source::new("src/a.rs", text));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].starts_with("src/a.rs:2: `.unwrap()`") && found[1].starts_with("src/a.rs:5: `.expect(`"),
        "{found:?}"
    );
}

#[test]
fn what_is_named_elsewhere_is_found() {
    let found = |name: &str| in_one_place(&Source::new(name, "use rusqlite::Row;\nfn f() { SystemTime::now() }"));
    assert_eq!((found("src/gallery/store.rs").len(), found("src/gallery/sqlite/file.rs").len()), (2, 1));
    assert!(found("src/gallery/clock.rs")[0].starts_with("src/gallery/clock.rs:1: `rusqlite`"));
}

#[test]
fn undenied_unsafe_code_is_found() {
    assert_eq!(unsafe_denied("src/lib.rs", "#![deny(unsafe_code)]", "unsafe_code = \"deny\""), Vec::<Finding>::new());
    assert_eq!(unsafe_denied("src/lib.rs", "#![warn(unsafe_code)]", "unsafe_code = \"warn\"").len(), 2);
}

#[test]
fn weights_are_found_by_name_or_size() {
    assert!(weight("models/a.toml", 2048).is_none());
    for (name, bytes) in [("models/a.safetensors", 1), ("a/B.ONNX", 1), ("tests/data/photo.jpg", MOST_BYTES + 1)] {
        assert!(weight(name, bytes).is_some(), "{name}");
    }
}

#[test]
fn a_machine_path_is_found() {
    let bad = concat!("one\nsee /", "work/notes and `/", "root/.cargo`");
    assert_eq!(machine_paths("a.md", bad).len(), 2);
    assert_eq!(
        machine_paths("a.md", concat!("https://example.org/frame", "work/x src/home", "/x")),
        Vec::<Finding>::new()
    );
}

#[test]
fn a_conflict_is_found() {
    let marked = format!("a\n{} HEAD\nb\n=======\nc\n{} image\n", "<".repeat(7), ">".repeat(7));
    assert_eq!(conflict_markers("src/a.rs", &marked).len(), 2);
    assert_eq!(conflict_markers("a.md", "Title\n=======\n"), Vec::<Finding>::new());
}

#[test]
fn a_readme_without_its_commands_is_found() {
    assert_eq!(readme("make demo").len(), 1);
}
