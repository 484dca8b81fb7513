//! Keeps the house tidy: reads the source tree and fails with `file:line` for everything that breaks a rule of
//! ARCHITECTURE.md. Each rule is a function from text to findings, and each proves on a bad example that it can fail.

#![allow(clippy::expect_used, clippy::panic)] // a test fails by panicking

mod circles;
mod imports;
mod rules;
mod source;

use std::{fs, path::Path, process::Command};

use source::Source;

/// A rule, broken somewhere: `file:line: what and why`.
type Finding = String;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files under version control, by path relative to the root; outside a checkout, every file but built ones.
fn tracked() -> Vec<String> {
    let listed = Command::new("git").args(["-c", "safe.directory=*", "ls-files", "-z"]).current_dir(root()).output();
    match listed {
        Ok(out) if out.status.success() => {
            let names = String::from_utf8(out.stdout).expect("file names are UTF-8");
            names.split_terminator('\0').filter(|name| root().join(name).is_file()).map(str::to_owned).collect()
        }
        _ => {
            println!("no git checkout: looking at every file instead of the tracked ones");
            let mut found = Vec::new();
            walk(root(), &mut found);
            found
        }
    }
}

fn walk(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let name = path.strip_prefix(root()).expect("below the root").to_str().expect("a UTF-8 name").to_owned();
        if ["target", "data", ".venv", ".git"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() { walk(&path, found) } else { found.push(name) }
    }
}

/// Everything under the crates' src/, tracked or not yet.
fn sources() -> Vec<Source> {
    let mut names = Vec::new();
    for home in ["", "crates/cuda", "crates/engine", "crates/index", "benches/load"] {
        walk(&root().join(home).join("src"), &mut names);
    }
    names.retain(|name| name.ends_with(".rs"));
    names.sort();
    names.into_iter().map(|name| Source::new(&name, &text(&name))).collect()
}

fn text(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Every tracked file that is text, by name.
fn texts() -> impl Iterator<Item = (String, String)> {
    let read = |name: &String| fs::read_to_string(root().join(name)).ok();
    tracked().into_iter().filter_map(move |name| read(&name).map(|text| (name, text)))
}

fn assert_tidy(findings: Vec<Finding>) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn imports_point_down() {
    assert_tidy(sources().iter().flat_map(imports::upward).collect());
}

#[test]
fn crates_know_those_below() {
    assert_tidy(sources().iter().flat_map(imports::between_crates).collect());
}

#[test]
fn no_circle_is_closed() {
    assert_tidy(circles::circles(&sources()));
}

#[test]
fn stages_do_not_import_each_other() {
    assert_tidy(imports::between_stages(&sources()));
}

#[test]
fn the_map_lists_every_layer_in_order() {
    assert_tidy(imports::map(&sources()));
}

#[test]
fn files_stay_readable() {
    let readable = |name: &String| name.ends_with(".rs") || name.ends_with(".proto");
    assert_tidy(tracked().iter().filter(|n| readable(n)).flat_map(|name| rules::length(name, &text(name))).collect());
}

#[test]
fn nothing_that_is_reachable_panics() {
    assert_tidy(sources().iter().flat_map(rules::panics).collect());
}

#[test]
fn what_has_a_seam_is_named_behind_it() {
    assert_tidy(sources().iter().flat_map(rules::in_one_place).collect());
}

#[test]
fn unsafe_code_is_denied() {
    let libs = ["src/lib.rs", "crates/cuda/src/lib.rs", "crates/engine/src/lib.rs", "crates/index/src/lib.rs"];
    assert_tidy(libs.iter().flat_map(|lib| rules::unsafe_denied(lib, &text(lib), &text("Cargo.toml"))).collect());
}

#[test]
fn no_weights_and_no_photos_in_git() {
    let size = |name: &String| fs::metadata(root().join(name)).map_or(0, |m| m.len());
    assert_tidy(tracked().iter().flat_map(|name| rules::weight(name, size(name))).collect());
}

#[test]
fn no_path_of_a_machine_in_the_tree() {
    assert_tidy(texts().flat_map(|(name, text)| rules::machine_paths(&name, &text)).collect());
}

#[test]
fn no_conflict_is_left() {
    assert_tidy(texts().flat_map(|(name, text)| rules::conflict_markers(&name, &text)).collect());
}

#[test]
fn the_readme_opens_with_two_commands() {
    assert_tidy(rules::readme(&text("README.md")));
}
