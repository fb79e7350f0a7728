//! Changes of a folder, with a failure or a crash at every step.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::file::Group;
use crate::{RuleFile, StoredFile, TenantRules};

fn set(files: &[(&str, &str, &str)]) -> RuleSet {
    files
        .iter()
        .fold(RuleSet::default(), |set, (tenant, name, content)| {
            let group = Group {
                name: (*content).to_owned(),
                ..Group::default()
            };
            let file = Arc::new(StoredFile::new(RuleFile {
                groups: vec![group],
            }));
            let rules = match set.get(tenant) {
                Some(rules) => rules.with_file((*name).into(), file),
                None => TenantRules::new([((*name).into(), file)]),
            };
            set.with((*tenant).into(), Arc::new(rules))
        })
}

/// The files that a reader finds by a pattern.
fn read(path: &Path) -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir(path) else {
        return BTreeMap::new();
    };
    entries
        .map(|entry| entry.unwrap())
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .map(|entry| {
            let text = fs::read_to_string(entry.path()).unwrap();
            (entry.file_name().into_string().unwrap(), text)
        })
        .collect()
}

/// The files of a set that a reader should find.
fn expected(set: &RuleSet) -> BTreeMap<String, String> {
    let plan = names::plan(set).into_iter();
    plan.map(|(name, file)| (name, file.text().0)).collect()
}

struct Scratch {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn scratch() -> Scratch {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ruler/rules");
    Scratch {
        _folder: folder,
        path,
    }
}

fn base_of(path: &Path) -> PathBuf {
    path.with_file_name(".rules.metrifold")
}

fn inode(path: &Path) -> disk::Stat {
    disk::Stat::of(path).unwrap()
}

#[test]
fn a_folder_holds_exactly_the_set_and_what_is_unchanged_is_not_written() {
    let Scratch { path, _folder } = scratch();
    let one = set(&[("", "a.yaml", "1"), ("", "b.yaml", "1"), ("t/x", "c", "1")]);
    let mut directory = RulesDirectory::open(&path).unwrap();
    let applied = directory.apply(&one).unwrap();
    assert_eq!(
        (applied.written, applied.unchanged, applied.removed),
        (3, 0, 0)
    );
    assert_eq!(read(&path), expected(&one));
    let a = inode(&path.join("a.yaml"));

    let two = set(&[
        ("", "a.yaml", "1"),
        ("", "b.yaml", "2"),
        ("", "d.yaml", "1"),
    ]);
    let applied = directory.apply(&two).unwrap();
    assert_eq!(
        (applied.written, applied.unchanged, applied.removed),
        (2, 1, 1)
    );
    assert_eq!(read(&path), expected(&two));
    assert_eq!(inode(&path.join("a.yaml")), a);

    let target = fs::read_link(&path).unwrap();
    assert!(!directory.apply(&two).unwrap().is_change());
    // Another process finds the same files.
    let mut other = RulesDirectory::open(&path).unwrap();
    assert_eq!(other.apply(&two).unwrap().unchanged, 3);
    assert_eq!(fs::read_link(&path).unwrap(), target);
    // The first process notices the changes of the other.
    other.apply(&one).unwrap();
    assert_eq!(directory.apply(&two).unwrap().written, 2);
    assert_eq!(read(&path), expected(&two));
    assert!(!directory.apply(&two).unwrap().is_change());
    directory.apply(&RuleSet::default()).unwrap();
    assert!(read(&path).is_empty() && path.is_dir());
}

#[test]
fn a_reader_that_is_in_a_version_stays_in_it_for_two_changes_and_old_ones_go() {
    let Scratch { path, _folder } = scratch();
    let mut directory = RulesDirectory::open(&path).unwrap();
    let sets: Vec<_> = (0..6)
        .map(|i| set(&[("", "a.yaml", &i.to_string())]))
        .collect();
    directory.apply(&sets[0]).unwrap();
    let opened = path.canonicalize().unwrap();
    directory.apply(&sets[1]).unwrap();
    directory.apply(&sets[2]).unwrap();
    assert_eq!(read(&opened), expected(&sets[0]));
    sets[3..].iter().for_each(|set| {
        directory.apply(set).unwrap();
    });
    assert!(read(&opened).is_empty());
    assert_eq!(
        fs::read_dir(base_of(&path)).unwrap().count(),
        4,
        "three versions and the lock"
    );
}

#[test]
fn of_many_files_one_is_replaced_where_it_is_and_versions_before_keep_theirs() {
    let Scratch { path, _folder } = scratch();
    let mut directory = RulesDirectory::open(&path).unwrap();
    directory.many = 3;
    let of = |b: &str, more: &[(&str, &str, &str)]| {
        let files = [("", "a.yaml", "1"), ("", "b.yaml", b), ("t", "c.yaml", "1")];
        set(&[&files, more].concat())
    };
    let sets = ["1", "2"].map(|b| of(b, &[("", "d.yaml", "1")]));
    directory.apply(&of("1", &[])).unwrap();
    directory.apply(&sets[0]).unwrap();
    let (before, opened) = (fs::read_link(&path).unwrap(), path.canonicalize().unwrap());
    fs::write(path.join("foreign.yaml"), "theirs").unwrap();
    let applied = directory.apply(&sets[1]).unwrap();
    assert_eq!((applied.written, applied.unchanged), (1, 3));
    assert_eq!(fs::read_link(&path).unwrap(), before);
    let mut seen = read(&path);
    assert_eq!(seen.remove("foreign.yaml").as_deref(), Some("theirs"));
    assert_eq!(seen, expected(&sets[1]));
    // The previous version shares files by links, and does not have this change.
    let older = base_of(&path).join("1");
    assert_eq!(read(&older), expected(&of("1", &[])));
    assert!(!directory.apply(&sets[1]).unwrap().is_change());
    let mut other = RulesDirectory::open(&path).unwrap();
    assert!(!other.apply(&sets[1]).unwrap().is_change());
    // A further change makes a new version.
    directory.apply(&of("3", &[])).unwrap();
    assert_ne!(path.canonicalize().unwrap(), opened);
    // A file of ours that another program changed is restored.
    fs::remove_file(path.join("b.yaml")).unwrap();
    fs::write(path.join("b.yaml"), "edited").unwrap();
    assert_eq!(directory.apply(&of("3", &[])).unwrap().written, 1);
    let mut seen = read(&path);
    seen.remove("foreign.yaml");
    assert_eq!(seen, expected(&of("3", &[])));
    // At a single change, only the changed file is looked at, and all files if that one is not ours.
    let link = fs::read_link(&path).unwrap();
    fs::write(path.join("a.yaml"), "edited").unwrap();
    assert_eq!(directory.apply(&of("4", &[])).unwrap().written, 1);
    assert_eq!(fs::read_to_string(path.join("a.yaml")).unwrap(), "edited");
    fs::write(path.join("b.yaml"), "edited").unwrap();
    assert_eq!(directory.apply(&of("5", &[])).unwrap().written, 2);
    assert_ne!(fs::read_link(&path).unwrap(), link);
    let mut seen = read(&path);
    seen.remove("foreign.yaml");
    assert_eq!(seen, expected(&of("5", &[])));
}

#[test]
fn files_of_others_are_kept_and_never_overwritten() {
    let Scratch { path, _folder } = scratch();
    let mut directory = RulesDirectory::open(&path).unwrap();
    let one = set(&[("", "a.yaml", "1")]);
    directory.apply(&one).unwrap();
    fs::write(path.join("foreign.yaml"), "theirs").unwrap();
    let theirs = inode(&path.join("foreign.yaml"));
    for content in 2..8 {
        directory
            .apply(&set(&[("", "a.yaml", &content.to_string())]))
            .unwrap();
        assert_eq!(inode(&path.join("foreign.yaml")), theirs);
    }
    assert_eq!(fs::read_dir(base_of(&path)).unwrap().count(), 4);
    let before = read(&path);
    let error = directory
        .apply(&set(&[("", "foreign.yaml", "1")]))
        .unwrap_err();
    assert!(
        matches!(&error, WriteError::Foreign { path } if path.ends_with("foreign.yaml")),
        "{error}"
    );
    assert_eq!(read(&path), before);
    // A foreign folder cannot be linked.
    fs::create_dir(path.join("sub")).unwrap();
    let error = directory.apply(&one).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("sub was not written by this component"),
        "{error}"
    );
    fs::remove_dir(path.join("sub")).unwrap();
    directory.apply(&one).unwrap();
    // A file of ours that another program changed is restored.
    fs::remove_file(path.join("a.yaml")).unwrap();
    fs::write(path.join("a.yaml"), "edited").unwrap();
    assert_eq!(directory.apply(&one).unwrap().written, 1);
    fs::remove_file(path.join("foreign.yaml")).unwrap();
    assert_eq!(read(&path), expected(&one));
}

#[test]
fn what_was_not_made_here_is_refused_and_an_empty_folder_is_taken() {
    let Scratch { path, _folder } = scratch();
    let open = || {
        RulesDirectory::open(&path)
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("x"), "").unwrap();
    assert!(open().contains("is there already"));
    fs::remove_file(path.join("x")).unwrap();
    let one = set(&[("", "a.yaml", "1")]);
    let mut directory = RulesDirectory::open(&path).unwrap();
    directory.apply(&one).unwrap();
    assert_eq!(read(&path), expected(&one));
    // A trailing slash in the path does not follow the link.
    let slash = PathBuf::from(format!("{}/", path.display()));
    assert!(
        !RulesDirectory::open(&slash)
            .unwrap()
            .apply(&one)
            .unwrap()
            .is_change()
    );

    fs::remove_file(&path).unwrap();
    fs::write(&path, "").unwrap();
    assert!(open().contains("is there already"));
    assert!(matches!(
        directory.apply(&one),
        Err(WriteError::Occupied { .. })
    ));
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/tmp", &path).unwrap();
    assert!(open().contains("is there already"));
    fs::remove_file(&path).unwrap();
    // The link is restored.
    directory.apply(&one).unwrap();
    assert_eq!(read(&path), expected(&one));
    assert!(matches!(
        RulesDirectory::open(Path::new("/")),
        Err(WriteError::Unnamed { .. })
    ));
}

#[test]
fn a_folder_of_another_format_is_refused_and_one_cut_short_by_a_crash_is_not() {
    let Scratch { path, _folder } = scratch();
    let one = set(&[("", "a.yaml", "1")]);
    RulesDirectory::open(&path).unwrap().apply(&one).unwrap();
    let manifest = path.join(versions::MANIFEST);
    let text = fs::read_to_string(&manifest).unwrap();
    // A later format may have other keys as well.
    fs::write(&manifest, "{ \"format\": 2, \"tenants\": [] }").unwrap();
    let error = RulesDirectory::open(&path).unwrap_err();
    assert!(
        matches!(&error, WriteError::Format { format: 2, .. }),
        "{error}"
    );
    assert_eq!(read(&path), expected(&one));
    fs::write(&manifest, text).unwrap();
    RulesDirectory::open(&path).unwrap();
    // A crash while the next version was begun.
    let begun = base_of(&path).join("2");
    fs::create_dir(&begun).unwrap();
    fs::write(begun.join(versions::MANIFEST), "{ \"form").unwrap();
    let mut directory = RulesDirectory::open(&path).unwrap();
    assert!(!begun.is_dir());
    assert_eq!(directory.apply(&one).unwrap().unchanged, 1);
}

#[test]
fn two_writers_do_not_meet() {
    let Scratch { path, _folder } = scratch();
    let mut directory = RulesDirectory::open(&path).unwrap();
    let one = set(&[("", "a.yaml", "1")]);
    directory.apply(&one).unwrap();
    let lock = fs::File::open(base_of(&path).join("lock")).unwrap();
    lock.lock().unwrap();
    assert!(matches!(
        directory.apply(&one),
        Err(WriteError::Busy { .. })
    ));
    assert!(matches!(
        RulesDirectory::open(&path),
        Err(WriteError::Busy { .. })
    ));
    drop(lock);
    assert!(directory.apply(&one).is_ok());
}

/// A disk on which the steps that `fails` selects fail, counted from 0.
fn failing(
    fails: impl Fn(usize) -> bool + Send + Sync + 'static,
    steps: &Arc<AtomicUsize>,
) -> Disk {
    let steps = steps.clone();
    Disk::failing(Arc::new(move |_, _| {
        match fails(steps.fetch_add(1, Ordering::Relaxed)) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }))
}

/// Applies `new` over `old` on a failing disk, and then on a sound one. `many` is the number of files
/// from which a single file is replaced in place, and `bulk` that from which they are synced together.
fn survive(old: Option<&RuleSet>, new: &RuleSet, (many, bulk): (usize, usize), disk: Disk) -> bool {
    let Scratch { path, _folder } = scratch();
    let mut before = BTreeMap::new();
    let sound = || failing(|_| false, &Arc::default());
    if let Some(old) = old {
        let mut directory = RulesDirectory::open_on(&path, sound()).unwrap();
        // Makes enough versions that the oldest must be removed.
        for i in 0..2 {
            directory
                .apply(&set(&[("", "a.yaml", &i.to_string())]))
                .unwrap();
        }
        directory.apply(old).unwrap();
        fs::write(path.join("foreign.yaml"), "theirs").unwrap();
        before = read(&path);
    }
    let mut after = expected(new);
    if old.is_some() {
        after.insert("foreign.yaml".into(), "theirs".into());
    }
    let outcome = RulesDirectory::open_on(&path, disk).and_then(|mut directory| {
        directory.many = many;
        directory.bulk = bulk;
        directory.apply(new)
    });
    let seen = read(&path);
    match &outcome {
        Ok(_) => assert_eq!(seen, after),
        Err(error) => {
            assert_eq!(seen, before, "{error}");
            assert!(error.to_string().contains("free some space"), "{error}");
        }
    }
    // A restart after the failure.
    let mut directory = RulesDirectory::open_on(&path, sound()).unwrap();
    assert_eq!(read(&path), seen);
    directory.apply(new).unwrap();
    assert_eq!(read(&path), after);
    let left: BTreeSet<_> = fs::read_dir(base_of(&path))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(left.len() <= 4 && !left.contains("next"), "{left:?}");
    outcome.is_ok()
}

#[test]
fn any_failure_and_any_crash_leaves_the_old_set_or_the_new_one() {
    let old = set(&[
        ("", "a.yaml", "1"),
        ("", "b.yaml", "1"),
        ("t", "c.yaml", "1"),
    ]);
    let new = set(&[
        ("", "a.yaml", "1"),
        ("", "b.yaml", "2"),
        ("t", "d.yaml", "1"),
    ]);
    let one = set(&[
        ("", "a.yaml", "1"),
        ("", "b.yaml", "2"),
        ("t", "c.yaml", "1"),
    ]);
    // Enough files to be synced, or written, on several threads.
    let names: Vec<String> = (0..20).map(|at| format!("{at}.yaml")).collect();
    let twenty: Vec<_> = names.iter().map(|name| ("", &**name, "1")).collect();
    let twenty = set(&twenty);
    for (old, new, limits, least) in [
        (None, &new, (MANY, BULK), 15),
        (Some(&old), &twenty, (MANY, BULK), 60),
        (Some(&old), &twenty, (MANY, 5), 60),
        (Some(&old), &new, (MANY, BULK), 15),
        (Some(&old), &one, (0, BULK), 6),
    ] {
        let steps = Arc::new(AtomicUsize::new(0));
        assert!(survive(old, new, limits, failing(|_| false, &steps)));
        let total = steps.load(Ordering::Relaxed);
        assert!(total >= least, "{total}");
        let mut outcomes = [0; 2];
        for step in 0..total {
            let count = || Arc::new(AtomicUsize::new(0));
            // Either one call fails, or all calls from that one on, as in a crash.
            let kinds = [
                survive(old, new, limits, failing(move |n| n == step, &count())),
                survive(old, new, limits, failing(move |n| n >= step, &count())),
            ];
            kinds.iter().for_each(|ok| outcomes[usize::from(*ok)] += 1);
        }
        let [failed, done] = outcomes;
        assert!(failed > 0 && done > 0, "{failed} {done}");
    }
}

#[test]
fn what_was_written_is_read_back_however_large_it_is() {
    let scratch = scratch();
    let expr = "up or ".repeat(1 << 20) + "up";
    let set = set(&[("a", "large", &expr), ("b", "small", "up")]);
    let large = set.get("a").unwrap().file("large").unwrap();
    assert!(large.text().0.len() > 4 << 20);
    RulesDirectory::open(&scratch.path)
        .unwrap()
        .apply(&set)
        .unwrap();
    let held = RulesDirectory::open(&scratch.path).unwrap().held();
    assert!(
        held == set,
        "of {:?}",
        held.iter().map(|(tenant, _)| tenant).collect::<Vec<_>>()
    );
}

#[test]
fn names_of_any_kind_are_files_of_one_folder() {
    let Scratch { path, _folder } = scratch();
    let long = "x".repeat(300);
    let one = set(&[
        ("../..", "../../etc/passwd", "1"),
        ("a", "b", "1"),
        ("A", "b", "1"),
        ("", "a~b", "1"),
        ("\u{0}\n", "/", "1"),
        (&long, "a", "1"),
        (&long, &long, "1"),
        ("ü", ".hidden", "1"),
        ("", "", "1"),
    ]);
    RulesDirectory::open(&path).unwrap().apply(&one).unwrap();
    assert_eq!(read(&path), expected(&one));
    assert_eq!(read(&path).len(), 9);
    let mut again = RulesDirectory::open(&path).unwrap();
    assert_eq!(again.apply(&one).unwrap().unchanged, 9);
}
