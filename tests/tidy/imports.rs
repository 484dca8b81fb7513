//! Who may know whom: layers point down, stages do not know each other.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Finding, source::Source};

/// The layers, from the top. A layer may import those that stand after it.
const LAYERS: [&str; 12] = [
    "cli",
    "config",
    "rpc",
    "access",
    "audit",
    "pipeline",
    "gallery",
    "model",
    "seal",
    "domain",
    "telemetry",
    "priority",
];

/// The files of the pipeline that join stages. Every other file there is a stage.
const STRAIGHT_LINES: [&str; 7] = ["verify", "identify", "enrol", "assess", "extract", "photo", "canary"];

/// A path that a file names, and where. Segments start at the crate's root; a foreign crate's path stays as written.
pub struct Named {
    pub at: usize,
    pub path: Vec<String>,
    /// What the file calls it: the alias, or the last segment.
    pub known_as: String,
}

/// Imports of a layer above the file's own.
pub fn upward(source: &Source) -> Vec<Finding> {
    let own = source.module().first().and_then(|layer| depth(layer)).filter(|_| source.home().is_empty());
    let Some(own) = own else {
        return Vec::new(); // lib.rs and main.rs see everything; a crate below has no layers
    };
    let mut findings = Vec::new();
    for named in named_paths(source) {
        let layer = resolve(source, &named.path).and_then(|path| path.first().cloned());
        if let Some(above) = layer.filter(|layer| depth(layer).is_some_and(|depth| depth < own)) {
            let place = format!("{}:{}", source.name, source.line(named.at));
            findings.push(format!("{place}: `{}` points up: {} is below {above}", named.path.join("::"), LAYERS[own]));
        }
    }
    findings
}

/// Imports of one stage by another, directly, through a re-export of the pipeline, or of a straight line by a stage.
pub fn between_stages(sources: &[Source]) -> Vec<Finding> {
    let stages: BTreeSet<_> = sources.iter().filter_map(stage).collect();
    let mut owner: BTreeMap<String, String> = stages.iter().map(|s| ((*s).to_owned(), (*s).to_owned())).collect();
    owner.extend(STRAIGHT_LINES.map(|line| (line.to_owned(), line.to_owned())));
    for pipeline in sources.iter().filter(|s| s.name == "src/pipeline/mod.rs") {
        for named in named_paths(pipeline) {
            let path = resolve(pipeline, &named.path).unwrap_or_else(|| named.path.clone());
            let inside = path.strip_prefix(&["pipeline".to_owned()]).unwrap_or(&path);
            if let Some(stage) = inside.first().filter(|first| stages.contains(first.as_str())) {
                owner.insert(named.known_as, stage.clone());
            }
        }
    }
    let mut findings = Vec::new();
    for source in sources {
        let Some(own) = stage(source) else { continue };
        for named in named_paths(source) {
            let Some(path) = resolve(source, &named.path) else { continue };
            let [layer, name, ..] = path.as_slice() else { continue };
            let other = owner.get(name).filter(|other| layer == "pipeline" && *other != own);
            if let Some(other) = other {
                let place = format!("{}:{}", source.name, source.line(named.at));
                findings.push(format!("{place}: stage {own} imports {other}; only a straight line joins stages"));
            }
        }
    }
    findings
}

/// The crates, from the top: what each may know of the others.
const CRATES: [(&str, &[&str]); 7] = [
    ("benches/load/", &["vultus", "vultus_engine", "vultus_index"]),
    ("", &["vultus_engine", "vultus_index"]),
    ("crates/engine/", &["vultus_cuda", "vultus_emulate", "vultus_kernels"]),
    ("crates/cuda/", &[]),
    ("crates/index/", &[]),
    ("kernels/", &["vultus_kernels"]),
    ("kernels/emulate/", &[]),
];

/// Imports of a crate of ours by one that is not above it.
pub fn between_crates(source: &Source) -> Vec<Finding> {
    let Some((_, below)) = CRATES.iter().find(|(home, _)| *home == source.home()) else {
        return vec![format!("{}: its crate has no place in CRATES of tests/tidy", source.name)];
    };
    let ours = |name: &str| name == "vultus" || name.starts_with("vultus_");
    let known = |name: &str| below.contains(&name) || (source.name == "src/main.rs" && name == "vultus");
    let strange = named_paths(source)
        .into_iter()
        .filter(|named| named.path.first().is_some_and(|first| ours(first) && !known(first)));
    strange
        .map(|named| {
            let place = format!("{}:{}", source.name, source.line(named.at));
            format!("{place}: `{}` points up or aside: it may know {below:?}", named.path.join("::"))
        })
        .collect()
}

/// `src/lib.rs` as the map: every layer that exists, in order, and no other module.
pub fn map(sources: &[Source]) -> Vec<Finding> {
    let Some(lib) = sources.iter().find(|s| s.name == "src/lib.rs") else {
        return vec!["src/lib.rs: is missing".to_owned()];
    };
    let declared = |line: &str| {
        let item = line.strip_prefix("pub ").unwrap_or(line).strip_prefix("mod ")?;
        Some(item.trim_end_matches(|c: char| !c.is_alphanumeric()).to_owned())
    };
    let listed: Vec<_> = lib.code.lines().filter_map(declared).collect();
    let mut findings = Vec::new();
    for module in listed.iter().filter(|module| depth(module).is_none()) {
        findings.push(format!("src/lib.rs: `{module}` is no layer; give it a place in LAYERS of tests/tidy"));
    }
    let known: Vec<_> = listed.iter().filter_map(|module| depth(module)).collect();
    if !known.is_sorted() {
        findings.push(format!("src/lib.rs: modules stand in another order than {}", LAYERS.join(", ")));
    }
    let existing: BTreeSet<_> = (sources.iter().filter(|s| s.home().is_empty()))
        .filter_map(|s| s.module().first().map(|layer| (*layer).to_owned()))
        .collect();
    for module in existing.iter().filter(|module| *module != "main" && !listed.contains(module)) {
        findings.push(format!("src/lib.rs: does not list `{module}`"));
    }
    findings
}

/// 0 for the top layer.
fn depth(layer: &str) -> Option<usize> {
    LAYERS.iter().position(|known| *known == layer)
}

/// The stage that a file belongs to.
fn stage(source: &Source) -> Option<&str> {
    match source.module()[..] {
        ["pipeline", file, ..] if !STRAIGHT_LINES.contains(&file) => Some(file),
        _ => None,
    }
}

/// From the crate's root; `None` for a path that does not begin in this crate.
pub fn resolve(source: &Source, path: &[String]) -> Option<Vec<String>> {
    let mut base: Vec<String> = source.module().into_iter().map(str::to_owned).collect();
    let mut rest = path;
    match rest.first()?.as_str() {
        "crate" => base.clear(),
        "self" => {}
        "super" => {
            while rest.first().is_some_and(|s| s == "super") {
                base.pop();
                rest = &rest[1..];
            }
            base.extend_from_slice(rest);
            return Some(base);
        }
        _ => return None,
    }
    base.extend_from_slice(&rest[1..]);
    Some(base)
}

/// Every path in a `use`, and every path elsewhere that begins with `crate`, `self` or `super`.
pub fn named_paths(source: &Source) -> Vec<Named> {
    let code = source.code.as_str();
    let mut found = Vec::new();
    let mut at = 0;
    while at < code.len() {
        let word = word_at(code, at);
        let next = at + word.len().max(code[at..].chars().next().map_or(1, char::len_utf8));
        let starts_path = matches!(word, "crate" | "self" | "super") && code[next..].trim_start().starts_with("::");
        at = match word {
            "use" => tree(code, next, &[], &mut found),
            _ if starts_path => tree(code, at, &[], &mut found),
            _ => next,
        };
    }
    found
}

/// Reads a tree as in `a::{b, c as d, e::*}` from `at`, adds its leaves to `found`, returns where it ends.
fn tree(code: &str, at: usize, prefix: &[String], found: &mut Vec<Named>) -> usize {
    let mut path = prefix.to_vec();
    let mut at = skip_space(code, at);
    at += if code[at..].starts_with("::") { 2 } else { 0 };
    loop {
        at = skip_space(code, at);
        if code[at..].starts_with('{') {
            at += 1;
            loop {
                at = skip_space(code, tree(code, at, &path, found));
                match code[at..].chars().next() {
                    Some(',') => at += 1,
                    Some('}') => return at + 1,
                    _ => return at,
                }
            }
        }
        let word = if code[at..].starts_with('*') { "*" } else { word_at(code, at) };
        let end = at + word.len();
        if !word.is_empty() && word != "self" || path.is_empty() {
            path.extend((!word.is_empty()).then(|| word.to_owned()));
        }
        let after = skip_space(code, end);
        if !word.is_empty() && code[after..].starts_with("::") {
            at = after + 2;
            continue;
        }
        let alias = (word_at(code, after) == "as").then(|| skip_space(code, after + 2));
        let known_as = alias.map_or(path.last().map_or("", |last| last), |alias| word_at(code, alias)).to_owned();
        if path.len() > prefix.len() || word == "self" {
            found.push(Named { at, path, known_as });
        }
        return alias.map_or(end, |alias| alias + word_at(code, alias).len());
    }
}

fn word_at(code: &str, at: usize) -> &str {
    let rest = &code[at..];
    &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())]
}

fn skip_space(code: &str, at: usize) -> usize {
    code.len() - code[at..].trim_start().len()
}

#[test]
fn an_upward_import_is_found() {
    let found = |text: &str| upward(&Source::new("src/gallery/store.rs", text));
    for bad in [
        "use crate::rpc::X;",
        "use crate::{domain::Y, pipeline};",
        "use crate::{domain::{A, B}, access::{self, C as D}};",
        "fn f() { crate::pipeline::verify() }",
        "use super::super::cli::X;",
        "pub use crate::config::*;",
        "use crate :: rpc :: X;",
    ] {
        assert_eq!(found(&format!("\n{bad}")).len(), if bad.contains("access") { 2 } else { 1 }, "{bad}");
        assert!(found(&format!("\n{bad}"))[0].starts_with("src/gallery/store.rs:2: "), "{bad}");
    }
    for good in [
        "use crate::{domain::Y, model::{Index, faiss::Flat}, seal};",
        "use super::rpc::X; use std::rpc::Z; use rpc::Y;",
        "use crate::gallery::rpc; use self::rpc::X; // use crate::rpc::X;",
        "//! [`crate::rpc::X`]\nconst A: &str = \"crate::rpc::X\"; pub(crate) fn rpc() {}",
        "use crate::telemetry::METRICS;",
        "#[cfg(test)]\nmod tests { use crate::rpc::X; }",
    ] {
        assert_eq!(found(good), Vec::<Finding>::new(), "{good}");
    }
    assert_eq!(upward(&Source::new("src/telemetry.rs", "use crate::domain::Score;")).len(), 1);
    assert_eq!(upward(&Source::new("src/main.rs", "use vultus::cli;")), Vec::<Finding>::new());
}

#[test]
fn an_import_between_stages_is_found() {
    let found = |align: &str, pipeline: &str| {
        let line = Source::new("src/pipeline/verify.rs", "use super::{align::align, quality};");
        let other = Source::new("src/pipeline/quality/sharpness.rs", "use super::Measure; use crate::domain::Pixels;");
        let pipeline = Source::new("src/pipeline/mod.rs", pipeline);
        between_stages(&[pipeline, Source::new("src/pipeline/align.rs", align), other, line])
    };
    let map =
        "mod align; mod quality; mod verify; pub use quality::{Assessor, Report as Findings}; pub use verify::Verify;";
    for bad in [
        "use super::quality::Assessor;",
        "use crate::pipeline::{self, quality};",
        "fn f() { super::quality::assess() }",
        "use super::Findings;",
        "use super::verify::Verify;",
    ] {
        assert_eq!(found(bad, map).len(), 1, "{bad}");
    }
    for good in
        ["use super::PipelineError;", "use crate::domain::quality::X;", "use self::quality::X; use super::align::X;"]
    {
        assert_eq!(found(good, map), Vec::<Finding>::new(), "{good}");
    }
}

#[test]
fn a_map_with_a_fault_is_found() {
    let found = |lib: &str| {
        let files = [("src/lib.rs", lib), ("src/main.rs", ""), ("src/model/mod.rs", ""), ("src/seal.rs", "")];
        map(&files.map(|(name, text)| Source::new(name, text)))
    };
    assert_eq!(found("pub mod model;\nmod seal;\n"), Vec::<Finding>::new());
    for bad in ["pub mod seal;\npub mod model;", "pub mod model;", "pub mod model;\npub mod seal;\npub mod util;"] {
        assert_eq!(found(bad).len(), 1, "{bad}");
    }
}

#[test]
fn an_import_between_crates_is_found() {
    let found = |name: &str, text: &str| between_crates(&Source::new(name, text)).len();
    for (name, bad) in [
        ("crates/engine/src/plan/mod.rs", "use vultus::domain::Score;"),
        ("crates/index/src/lib.rs", "use vultus_engine::image::Pixels;"),
        ("src/cli/mod.rs", "use vultus_load::drive;"),
        ("crates/new/src/lib.rs", ""),
    ] {
        assert_eq!(found(name, bad), 1, "{name}: {bad}");
    }
    for (name, good) in [
        ("src/pipeline/align.rs", "use vultus_engine::{image::Pixels, view::View};"),
        ("src/main.rs", "use vultus::cli;"),
        ("benches/load/src/main.rs", "use vultus::rpc::pb; use vultus_engine::executor::Executor;"),
        ("crates/engine/src/lib.rs", "use crate::vultus;"),
    ] {
        assert_eq!(found(name, good), 0, "{name}: {good}");
    }
}
