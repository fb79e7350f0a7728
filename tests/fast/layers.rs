//! Allowed dependencies between crates, and no cycles among the modules of a crate.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The crates, from the bottom up, each with the only crates that it may depend on. A new
/// dependency is a decision, which is recorded here.
const LAYERS: [(&str, &[&str]); 26] = [
    ("base", &[]),
    ("model", &[]),
    ("files", &["base"]),
    ("promql", &[]),
    ("rules", &["base", "files"]),
    ("codec", &["model"]),
    ("exposition", &["codec"]),
    ("regex", &[]),
    ("expr", &["base", "codec", "model", "regex"]),
    ("http", &["base", "model"]),
    ("buckets", &["base", "http", "rules"]),
    ("dedupe", &["base", "model"]),
    ("limits", &["base", "codec", "model"]),
    ("access", &["base", "http", "limits", "model"]),
    ("telemetry", &["base", "model"]),
    ("queue", &["base", "codec", "model"]),
    (
        "replicas",
        &["base", "http", "model", "promql", "telemetry"],
    ),
    ("discovery", &["base", "files", "http", "telemetry"]),
    (
        "targets",
        &[
            "base",
            "codec",
            "discovery",
            "expr",
            "files",
            "http",
            "telemetry",
        ],
    ),
    ("kubernetes", &["base", "discovery", "http"]),
    (
        "aiven",
        &[
            "base",
            "discovery",
            "files",
            "http",
            "kubernetes",
            "telemetry",
        ],
    ),
    (
        "cloud_foundry",
        &["base", "discovery", "files", "http", "regex"],
    ),
    (
        "engine",
        &[
            "access",
            "base",
            "codec",
            "discovery",
            "expr",
            "files",
            "http",
            "limits",
            "model",
            "queue",
            "rules",
            "targets",
            "telemetry",
        ],
    ),
    (
        "delivery",
        &[
            "base",
            "codec",
            "engine",
            "expr",
            "http",
            "model",
            "queue",
            "telemetry",
        ],
    ),
    (
        "scrape",
        &[
            "base",
            "codec",
            "discovery",
            "engine",
            "exposition",
            "expr",
            "http",
            "model",
            "targets",
            "telemetry",
        ],
    ),
    // Helpers of tests of the whole program, without the product's code.
    ("testing", &[]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_crate_knows_only_what_lies_below_it() {
    let folders = fs::read_dir(root().join("crates")).unwrap();
    let names: BTreeSet<String> = folders
        .map(|folder| folder.unwrap().file_name().into_string().unwrap())
        .collect();
    let listed: BTreeSet<String> = LAYERS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names, listed, "every crate has its place among the layers");
    let mut below: BTreeSet<&str> = BTreeSet::new();
    for (name, may_know) in LAYERS {
        let manifest = root().join("crates").join(name).join("Cargo.toml");
        let manifest: toml::Table = fs::read_to_string(manifest).unwrap().parse().unwrap();
        let used: BTreeSet<&str> = manifest["dependencies"]
            .as_table()
            .unwrap()
            .keys()
            .filter_map(|key| key.strip_prefix("metrifold-"))
            .collect();
        let allowed: BTreeSet<&str> = may_know.iter().copied().collect();
        assert!(used.is_subset(&allowed), "{name} knows {used:?}");
        assert!(
            allowed.is_subset(&below),
            "{name} must stand above {allowed:?}"
        );
        below.insert(name);
    }
}

#[test]
fn the_modules_of_a_crate_form_no_circle() {
    for (name, _) in LAYERS {
        check(&root().join("crates").join(name).join("src"));
    }
    check(&root().join("src"));
}

/// Fails on a cycle among the top-level modules of a crate, tests aside.
fn check(src: &Path) {
    let mut sources = Vec::new();
    collect(src, &mut sources);
    let top = |path: &Path| {
        let first = path.strip_prefix(src).unwrap().iter().next().unwrap();
        let name = Path::new(first).file_stem().unwrap();
        name.to_str().unwrap().to_owned()
    };
    let modules: BTreeSet<String> = sources.iter().map(|path| top(path)).collect();
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in &sources {
        let module = top(path);
        if ["lib", "main"].contains(&&*module) {
            continue;
        }
        let is_top = path.parent() == Some(src);
        for used in named(&fs::read_to_string(path).unwrap(), is_top) {
            if used != module && modules.contains(&used) {
                uses.entry(module.clone()).or_default().insert(used);
            }
        }
    }
    for start in &modules {
        let mut reached = BTreeSet::new();
        let mut next = vec![start];
        while let Some(module) = next.pop() {
            for used in uses.get(module).into_iter().flatten() {
                assert!(
                    used != start,
                    "{}: {start} uses itself by way of {module}",
                    src.display()
                );
                if reached.insert(used) {
                    next.push(used);
                }
            }
        }
    }
}

fn collect(folder: &Path, sources: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        // Tests may depend on any module.
        if ["tests", "testing"].contains(&&*stem) {
            continue;
        }
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|it| it == "rs") {
            sources.push(path);
        }
    }
}

/// Top-level modules of the crate that a source names in front of its tests.
fn named(text: &str, is_top: bool) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap())
        .collect::<Vec<_>>()
        .join("\n");
    let mut names = BTreeSet::new();
    let roots: &[&str] = match is_top {
        true => &["crate::", "super::"],
        false => &["crate::"],
    };
    for root in roots {
        for (at, _) in code.match_indices(root) {
            // Excludes `metrifold_crate::` and `super::super::`.
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let rest = &code[at + root.len()..];
            match rest.strip_prefix('{') {
                Some(list) => names.extend(first_names(list)),
                None => names.extend(word(rest)),
            }
        }
    }
    names
}

/// The first path segments of the elements of a list in braces.
fn first_names(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0;
    let mut start = true;
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            c if start && !c.is_whitespace() => {
                names.extend(word(&list[at..]));
                start = false;
            }
            _ => {}
        }
    }
    names
}

fn word(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    let word = &text[..end.unwrap_or(text.len())];
    (!word.is_empty()).then(|| word.to_owned())
}

#[test]
fn a_name_is_found_in_every_way_to_write_it() {
    let text = "use crate::a::B;\nuse crate::{c, d::{E, F}, g as h};\n// crate::no\n\
                fn f() { crate::i::j() }\nuse other_crate::k;\n#[cfg(test)]\nmod tests {\nuse crate::z;";
    let expected = ["a", "c", "d", "g", "i"].map(str::to_owned);
    assert_eq!(named(text, true), expected.into());
}
