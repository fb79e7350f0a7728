//! Patterns, names, and files that change under the reader.

use std::fs;

use super::*;
use crate::any_expr;

fn group(name: &str) -> String {
    format!("groups:\n- name: {name}\n")
}

fn read(patterns: &[String]) -> Result<FilesRead, ReadError> {
    read_globs(patterns, &Checks::new(&any_expr), &GlobLimits::default())
}

fn names(read: &FilesRead) -> Vec<String> {
    let files = read.rules.files();
    files.map(|(name, _)| name.to_string()).collect()
}

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new(files: &[(&str, &str)]) -> Self {
        let scratch = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            let path = scratch.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        scratch
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn pattern(&self, pattern: &str) -> String {
        self.path(pattern).to_str().unwrap().to_owned()
    }
}

#[test]
fn files_have_their_names_within_the_common_folder() {
    let one = group("x");
    let scratch = Scratch::new(&[
        ("r/a.yaml", &one),
        ("r/b.yml", &one),
        ("r/sub/c.yaml", &one),
        ("r/.hidden.yaml", &one),
        ("s/a.yaml", &one),
    ]);
    let of = |patterns: &[&str]| {
        let patterns: Vec<_> = patterns.iter().map(|p| scratch.pattern(p)).collect();
        names(&read(&patterns).unwrap())
    };
    assert_eq!(of(&["r/*.yaml"]), [".hidden.yaml", "a.yaml"]);
    assert_eq!(of(&["r/[a-z]*.y*ml", "r/a.yaml"]), ["a.yaml", "b.yml"]);
    assert_eq!(of(&["r/a.yaml", "s/*.yaml"]), ["r/a.yaml", "s/a.yaml"]);
    assert_eq!(of(&["r/**/c.yaml"]), ["sub/c.yaml"]);
    assert_eq!(of(&["r/../s/*.yaml"]), ["a.yaml"]);
    assert!(of(&["nothing/*.yaml"]).is_empty());
    assert!(read(&[]).unwrap().rules.is_empty());
}

#[test]
fn all_problems_of_all_files_are_told_and_nothing_is_read() {
    let scratch = Scratch::new(&[
        ("a.yaml", "groups:\n- nam: x\n"),
        ("b.yaml", &group("x")),
        ("c.yaml", "groups: [{name: a, limit: b}]"),
    ]);
    let error = read(&[scratch.pattern("*.yaml")]).unwrap_err();
    let text = error.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(
        lines[1].contains("a.yaml:2:3: groups[0].name: group has no name"),
        "{text}"
    );
    assert!(
        lines[0].contains("a.yaml:2:3: groups[0]: unknown key"),
        "{text}"
    );
    assert!(lines[2].contains("c.yaml:1:27: groups[0].limit"), "{text}");

    fs::create_dir(scratch.path("d.yaml")).unwrap();
    let patterns = [
        scratch.pattern("missing.yaml"),
        scratch.pattern("d*"),
        scratch.pattern("["),
    ];
    let text = read(&patterns).unwrap_err().to_string();
    assert!(text.contains("missing.yaml: no such file"), "{text}");
    assert!(text.contains("d.yaml: is no regular file"), "{text}");
    assert!(text.contains("pattern is wrong"), "{text}");
    assert!(
        read(&[String::new()])
            .unwrap_err()
            .to_string()
            .contains("pattern is empty")
    );
}

#[test]
fn warnings_name_their_file() {
    let scratch = Scratch::new(&[("a.yaml", "groups: []\n---\nx\n")]);
    let found = read(&[scratch.pattern("a.yaml")]).unwrap();
    let warning = found.warnings[0].to_string();
    assert!(
        warning.contains("a.yaml:2:1: only the first document"),
        "{warning}"
    );
}

#[test]
fn files_and_bytes_are_bounded() {
    let scratch = Scratch::new(&[("a.yaml", &group("x")), ("b.yaml", &group("y"))]);
    let pattern = [scratch.pattern("*.yaml")];
    let with = |limits: GlobLimits, bytes: usize| {
        let mut checks = Checks::new(&any_expr);
        checks.limits.bytes = bytes;
        read_globs(&pattern, &checks, &limits)
            .unwrap_err()
            .to_string()
    };
    let limits = GlobLimits::default();
    assert!(with(GlobLimits { files: 1, ..limits }, 100).contains("more than 1 files"));
    assert!(
        with(
            GlobLimits {
                bytes: 30,
                ..limits
            },
            100
        )
        .contains("more than 30 bytes")
    );
    assert!(with(limits, 5).contains("larger than 5 bytes"));
}

/// Reads `*.yaml`, and calls `change` after each file with the number of files read before it.
fn read_while(scratch: &Scratch, mut change: impl FnMut(usize)) -> Result<FilesRead, ReadError> {
    let mut count = 0;
    let patterns = [scratch.pattern("*.yaml")];
    read_watching(
        &patterns,
        &Checks::new(&any_expr),
        &GlobLimits::default(),
        &mut |_| {
            change(count);
            count += 1;
        },
    )
}

#[test]
fn what_changes_meanwhile_is_read_again_as_a_whole() {
    let changes: [&dyn Fn(&Scratch); 4] = [
        &|scratch| fs::write(scratch.path("a.yaml"), group("changed")).unwrap(),
        &|scratch| {
            fs::write(scratch.path("new"), group("moved")).unwrap();
            fs::rename(scratch.path("new"), scratch.path("b.yaml")).unwrap();
        },
        &|scratch| fs::write(scratch.path("c.yaml"), group("added")).unwrap(),
        &|scratch| fs::remove_file(scratch.path("b.yaml")).unwrap(),
    ];
    for (index, change) in changes.iter().enumerate() {
        let scratch = Scratch::new(&[("a.yaml", &group("x")), ("b.yaml", &group("y"))]);
        let mut reads = 0;
        let found = read_while(&scratch, |count| {
            reads = count + 1;
            if count == 0 {
                change(&scratch);
            }
        });
        let now = read(&[scratch.pattern("*.yaml")]).unwrap();
        assert_eq!(found.unwrap().rules, now.rules, "{index}");
        assert!(reads > 2 || index == 3, "{index}");
    }
}

#[test]
fn a_file_that_never_stands_still_is_an_error() {
    let scratch = Scratch::new(&[("a.yaml", &group("x"))]);
    let mut reads = 0;
    let error = read_while(&scratch, |count| {
        reads = count + 1;
        fs::write(scratch.path("a.yaml"), group(&"y".repeat(count + 2))).unwrap();
    });
    let text = error.unwrap_err().to_string();
    assert!(text.contains("a.yaml: changes each time"), "{text}");
    assert_eq!(reads, ATTEMPTS);
}
