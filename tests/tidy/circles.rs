//! No two parts of a crate import each other, directly or through others.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Finding,
    imports::{named_paths, resolve},
    source::Source,
};

type Path = Vec<String>;

/// Circles among the modules that stand side by side, at every level of every crate. A module may name what its parent defines.
pub fn circles(sources: &[Source]) -> Vec<Finding> {
    let homes: BTreeSet<&str> = sources.iter().map(Source::home).collect();
    homes.into_iter().flat_map(|home| in_crate(home, sources.iter().filter(|s| s.home() == home))).collect()
}

fn in_crate<'a>(home: &str, sources: impl Iterator<Item = &'a Source> + Clone) -> Vec<Finding> {
    let path = |source: &Source| -> Path { source.module().into_iter().map(str::to_owned).collect() };
    let modules: BTreeSet<Path> = sources.clone().map(path).collect();
    // What a module offers under its own name that is a child's: `pub use child::Thing`.
    let mut offered: BTreeMap<(Path, String), String> = BTreeMap::new();
    for source in sources.clone() {
        let own = path(source);
        for named in named_paths(source) {
            let inner =
                resolve(source, &named.path).unwrap_or_else(|| own.iter().chain(&named.path).cloned().collect());
            if let Some([child, _, ..]) = inner.strip_prefix(own.as_slice())
                && modules.contains(&[own.as_slice(), std::slice::from_ref(child)].concat())
            {
                offered.insert((own.clone(), named.known_as), child.clone());
            }
        }
    }
    // By the parent of those that stand side by side: who names whom, and where.
    let mut edges: BTreeMap<Path, BTreeMap<(String, String), String>> = BTreeMap::new();
    for source in sources {
        let own = path(source);
        for named in named_paths(source) {
            let Some(target) = resolve(source, &named.path).map(|named| owner(&named, &modules, &offered)) else {
                continue;
            };
            let common = own.iter().zip(&target).take_while(|(a, b)| a == b).count();
            if let (Some(from), Some(to)) = (own.get(common), target.get(common)) {
                let place = format!("{}:{}", source.name, source.line(named.at));
                let beside = edges.entry(own[..common].to_vec()).or_default();
                beside.entry((from.clone(), to.clone())).or_insert(place);
            }
        }
    }
    edges.iter().filter_map(|(parent, beside)| circle(home, parent, beside)).collect()
}

/// The module in which the thing of this path is defined.
fn owner(named: &[String], modules: &BTreeSet<Path>, offered: &BTreeMap<(Path, String), String>) -> Path {
    let mut module = Path::new();
    for segment in named {
        let child = match offered.get(&(module.clone(), segment.clone())) {
            Some(child) => child,
            None => segment,
        };
        module.push(child.clone());
        if !modules.contains(&module) {
            module.pop();
            break;
        }
    }
    module
}

/// The first that is found.
fn circle(home: &str, parent: &[String], beside: &BTreeMap<(String, String), String>) -> Option<Finding> {
    let names: BTreeSet<&String> = beside.keys().map(|(from, _)| from).collect();
    for start in names {
        let mut way: Vec<&String> = vec![start];
        let mut seen = BTreeSet::new();
        if returns(start, &mut way, &mut seen, beside) {
            let steps = way.windows(2).map(|pair| {
                let place = &beside[&(pair[0].clone(), pair[1].clone())];
                format!("{} imports {} ({place})", pair[0], pair[1])
            });
            let parent = if parent.is_empty() { "the crate".to_owned() } else { parent.join("::") };
            return Some(format!("{home}{parent}: a circle: {}", steps.collect::<Vec<_>>().join(", ")));
        }
    }
    None
}

/// Whether `start` can be reached again from the end of `way`, which is then such a circle.
fn returns<'a>(
    start: &'a String,
    way: &mut Vec<&'a String>,
    seen: &mut BTreeSet<&'a String>,
    beside: &'a BTreeMap<(String, String), String>,
) -> bool {
    let Some(&here) = way.last() else { return false };
    for (_, to) in beside.keys().filter(|(from, _)| from == here) {
        way.push(to);
        if to == start || (seen.insert(to) && returns(start, way, seen, beside)) {
            return true;
        }
        way.pop();
    }
    false
}

#[test]
fn a_circle_is_found() {
    let found =
        |files: &[(&str, &str)]| circles(&files.iter().map(|(name, text)| Source::new(name, text)).collect::<Vec<_>>());
    let two =
        [("src/a/mod.rs", "mod x; mod y;"), ("src/a/x.rs", "use super::y::Y;"), ("src/a/y.rs", "use crate::a::x;")];
    assert_eq!(found(&two).len(), 1);
    assert!(found(&two)[0].starts_with("a: a circle: x imports y (src/a/x.rs:1), y imports x (src/a/y.rs:1)"));
    let by_name = [
        ("src/a/mod.rs", "mod x; mod y;\npub use x::X; use y::{Y as Z};"),
        ("src/a/x.rs", "use super::Z;"),
        ("src/a/y.rs", "fn f(x: super::X) {}"),
    ];
    assert_eq!(found(&by_name).len(), 1, "through what the parent offers");
    let three = [
        ("crates/b/src/lib.rs", ""),
        ("crates/b/src/x/deep.rs", "use crate::y;"),
        ("crates/b/src/x/mod.rs", ""),
        ("crates/b/src/y.rs", "use crate::z;"),
        ("crates/b/src/z.rs", "use crate::x::deep;"),
    ];
    assert!(found(&three)[0].starts_with("crates/b/the crate: a circle: x imports y"), "{:?}", found(&three));
    let none = [
        ("src/a/mod.rs", "mod x; mod y;\npub struct A;"),
        ("src/a/x.rs", "use super::{A, y::Y};\n#[cfg(test)]\nmod tests { use super::super::y; }"),
        ("src/a/y.rs", "use super::A;\n#[cfg(test)]\nmod tests { use super::super::x; }"),
        ("src/b.rs", "use crate::a::A;"),
    ];
    assert_eq!(found(&none), Vec::<Finding>::new());
}
