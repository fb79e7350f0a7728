//! Changes of a file, with a failure or a crash at every step, and names that are hard to write.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::disk::Stat;
use crate::write::tests::{file, hard, read as parse};

/// A set of groups without rules, each given as its tenant, file and name.
fn set(groups: &[(&str, &str, &str)]) -> RuleSet {
    let none = || Arc::new(TenantRules::new([]));
    groups
        .iter()
        .fold(RuleSet::default(), |set, (tenant, file, name)| {
            let rules = set.get(tenant).cloned().unwrap_or_else(none);
            let stored = rules.file(file).map(|stored| stored.file().clone());
            let mut stored = stored.unwrap_or_default();
            if stored.groups.iter().all(|group| group.name != *name) {
                stored.groups.push(Group {
                    name: (*name).to_owned(),
                    ..Group::default()
                });
            }
            let stored = Arc::new(StoredFile::new(stored));
            let rules = rules.with_file((*file).into(), stored);
            set.with((*tenant).into(), Arc::new(rules))
        })
}

/// The names under which the groups of a set are written.
fn names(set: &RuleSet) -> Vec<String> {
    let groups = named_groups(set).into_iter();
    groups.map(|named| named.name.into_owned()).collect()
}

struct Scratch {
    folder: tempfile::TempDir,
    path: PathBuf,
}

fn scratch() -> Scratch {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ruler/rules.yaml");
    Scratch { folder, path }
}

/// Names in the folder of a file.
fn beside(path: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(path.parent().unwrap()).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn the_file_is_written_as_people_read_it_and_only_when_it_changes() {
    let Scratch { path, folder: _f } = scratch();
    let one = set(&[
        ("b", "x.yaml", "node"),
        ("a", "y.yaml", "own"),
        ("a", "x.yaml", "node"),
        ("", "x.yaml", "none"),
    ]);
    let document = RulesDocument::open(&path).unwrap();
    assert_eq!(document.held(), RuleSet::default());
    assert!(document.apply(&one).unwrap());
    let expected = "\
# Rules of all tenants, written by Metrifold in format 1. Changes made here are replaced.
groups:
  # metrifold: {\"tenant\":\"\",\"file\":\"x.yaml\",\"group\":\"none\"}
  - name: none
    rules: []
  # metrifold: {\"tenant\":\"a\",\"file\":\"x.yaml\",\"group\":\"node\"}
  - name: a/x.yaml/node
    rules: []
  # metrifold: {\"tenant\":\"a\",\"file\":\"y.yaml\",\"group\":\"own\"}
  - name: own
    rules: []
  # metrifold: {\"tenant\":\"b\",\"file\":\"x.yaml\",\"group\":\"node\"}
  - name: b/x.yaml/node
    rules: []
";
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    let written = Stat::of(&path).unwrap();
    assert!(!document.apply(&one).unwrap());
    // Another process finds the same, and a trailing slash makes no difference.
    let slash = PathBuf::from(format!("{}/", path.display()));
    let other = RulesDocument::open(&slash).unwrap();
    assert_eq!(other.held(), one);
    assert!(!other.apply(&one).unwrap());
    assert_eq!(Stat::of(&path).unwrap(), written);
    // What others have changed is replaced, whether the size is the same or not.
    for edited in [
        expected.replace("own", "osn"),
        format!("{expected}# More.\n"),
    ] {
        fs::write(&path, edited).unwrap();
        assert!(document.apply(&one).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }
    assert!(document.apply(&RuleSet::default()).unwrap());
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().nth(1), Some("groups: []"));
    assert_eq!(parse(&text), RuleFile::default());
    assert_eq!(
        beside(&path),
        BTreeSet::from(["rules.yaml", ".rules.yaml.metrifold-lock"].map(str::to_owned))
    );
}

#[test]
fn a_file_of_others_is_never_overwritten_and_an_empty_one_is_taken() {
    let Scratch { path, folder } = scratch();
    let one = set(&[("a", "x.yaml", "node")]);
    // It has to be refused at the start, and when it appears later.
    let refused = |later: &RulesDocument| {
        let error = RulesDocument::open(&path).unwrap_err();
        assert_eq!(
            later.apply(&one).unwrap_err().to_string(),
            error.to_string()
        );
        assert_eq!(later.held(), RuleSet::default());
        error
    };
    let later = RulesDocument::open(&path).unwrap();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    for theirs in ["groups: []\n", "#", HEADER, &format!("{HEADER}x")] {
        fs::write(&path, theirs).unwrap();
        let error = refused(&later);
        assert!(matches!(error, WriteError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains("move it elsewhere"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), theirs);
    }
    fs::write(&path, format!("{HEADER}2, which has more.\n")).unwrap();
    let error = refused(&later);
    assert!(
        matches!(error, WriteError::FileFormat { format: 2, .. }),
        "{error}"
    );
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(refused(&later), WriteError::Foreign { .. }));
    fs::remove_dir(&path).unwrap();
    // A link is not followed, even to a file of ours, or to none.
    let target = folder.path().join("target.yaml");
    symlink(&target, &path).unwrap();
    assert!(matches!(refused(&later), WriteError::Link { .. }));
    RulesDocument::open(&target).unwrap().apply(&one).unwrap();
    assert!(matches!(refused(&later), WriteError::Link { .. }));
    fs::remove_file(&path).unwrap();
    fs::write(&path, "").unwrap();
    assert!(RulesDocument::open(&path).unwrap().apply(&one).unwrap());
    assert_eq!(RulesDocument::open(&path).unwrap().held(), one);
    for nameless in ["/", "..", "/tmp/.."] {
        let error = RulesDocument::open(Path::new(nameless)).unwrap_err();
        assert!(matches!(error, WriteError::Unnamed { .. }), "{error}");
    }
}

#[test]
fn two_writers_do_not_meet() {
    let Scratch { path, folder: _f } = scratch();
    let one = set(&[("a", "x.yaml", "node")]);
    let document = RulesDocument::open(&path).unwrap();
    document.apply(&one).unwrap();
    let lock = Lock::take(&document.lock, &path).unwrap();
    assert!(matches!(document.apply(&one), Err(WriteError::Busy { .. })));
    assert!(matches!(
        RulesDocument::open(&path),
        Err(WriteError::Busy { .. })
    ));
    drop(lock);
    assert!(!document.apply(&one).unwrap());
}

#[test]
fn groups_that_others_have_damaged_are_left_out() {
    let Scratch { path, folder: _f } = scratch();
    let all = set(&[("a", "x", "one"), ("a", "x", "two"), ("b", "x", "six")]);
    let document = RulesDocument::open(&path).unwrap();
    document.apply(&all).unwrap();
    let whole = fs::read_to_string(&path).unwrap();
    for (from, to, left) in [
        ("\"one\"}", "", set(&[("a", "x", "two"), ("b", "x", "six")])),
        (
            "name: two",
            "nmae: two",
            set(&[("a", "x", "one"), ("b", "x", "six")]),
        ),
        (
            "  - name: two\n",
            "",
            set(&[("a", "x", "one"), ("b", "x", "six")]),
        ),
        (
            "\"two\"",
            "\"one\"",
            set(&[("a", "x", "one"), ("b", "x", "six")]),
        ),
    ] {
        assert!(whole.contains(from), "{from}");
        fs::write(&path, whole.replace(from, to)).unwrap();
        assert_eq!(document.held(), left, "{from}");
    }
    fs::write(&path, [whole.as_bytes(), b"\xff"].concat()).unwrap();
    assert_eq!(document.held(), RuleSet::default());
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

/// Applies `new` over `old` on a failing disk, with what a crash has left beside it, and then on a sound
/// one. Returns whether the first attempt succeeded.
fn survive(old: Option<&RuleSet>, new: &RuleSet, disk: Disk) -> bool {
    let Scratch { path, folder: _f } = scratch();
    if let Some(old) = old {
        let document = RulesDocument::open(&path).unwrap();
        document.apply(old).unwrap();
        fs::write(&document.next, "half a te").unwrap();
    }
    let seen = || fs::read_to_string(&path).ok();
    let (before, after) = (seen(), Some(text(new)));
    assert_eq!(before, old.map(text));
    let outcome = RulesDocument::open_on(&path, disk).and_then(|document| document.apply(new));
    let then = seen();
    match &outcome {
        Ok(changed) => assert!(*changed && then == after),
        Err(error) => {
            assert_eq!(then, before, "{error}");
            assert!(error.to_string().contains("free some space"), "{error}");
        }
    }
    // A restart after the failure.
    let document = RulesDocument::open(&path).unwrap();
    let is_left = || fs::symlink_metadata(&document.next).is_ok();
    assert!(seen() == then && !is_left());
    assert_eq!(document.apply(new).unwrap(), outcome.is_err());
    assert!(seen() == after && !is_left());
    outcome.is_ok()
}

#[test]
fn any_failure_and_any_crash_leaves_the_old_text_or_the_new_one() {
    let old = set(&[("a", "x.yaml", "one"), ("b", "x.yaml", "two")]);
    let new = set(&[("a", "x.yaml", "one"), ("b", "x.yaml", "one")]);
    // Creating the folder, or removing what is left; two writes; the syncs of the file and the folder.
    for (old, expected) in [(None, 7), (Some(&old), 7)] {
        let steps = Arc::new(AtomicUsize::new(0));
        assert!(survive(old, &new, failing(|_| false, &steps)));
        let total = steps.load(Ordering::Relaxed);
        assert_eq!(total, expected);
        for step in 0..total {
            let count = || Arc::new(AtomicUsize::new(0));
            // Either one call fails, or all calls from that one on, as in a crash.
            let one = survive(old, &new, failing(move |n| n == step, &count()));
            let all = survive(old, &new, failing(move |n| n >= step, &count()));
            // Only the sync of the folder comes after the rename.
            assert_eq!([one, all], [step + 1 == total; 2], "{step}");
        }
    }
}

#[test]
fn a_name_that_is_free_is_kept_and_all_groups_with_one_that_is_not_get_another() {
    let named = |groups: &[(&str, &str, &str)]| names(&set(groups));
    assert_eq!(
        named(&[("a", "f", "g"), ("a", "f", "a/b/c")]),
        ["g", "a/b/c"]
    );
    assert_eq!(
        named(&[("a", "f", "g"), ("a", "h", "g"), ("", "f", "g")]),
        ["/f/g", "a/f/g", "a/h/g"]
    );
    assert_eq!(
        named(&[("a/b", "50%", "g/h"), ("a", "b/50%", "g/h")]),
        ["a/b%2f50%25/g/h", "a%2fb/50%25/g/h"]
    );
    // A group whose own name is the one that another gets has to give way, and so on.
    assert_eq!(
        named(&[
            ("a", "f", "g"),
            ("b", "f", "g"),
            ("c", "f", "a/f/g"),
            ("d", "f", "c/f/a/f/g"),
            ("e", "f", "c/f/b/f/g"),
        ]),
        ["a/f/g", "b/f/g", "c/f/a/f/g", "d/f/c/f/a/f/g", "c/f/b/f/g"]
    );
}

/// Sets whose names collide with each other, and with those that groups get for that.
fn colliding() -> impl Strategy<Value = RuleSet> {
    let name = || prop_oneof!["[ab/%]{0,3}", "[ab]/[ab]/[ab]", "[ab]/[ab]/[ab]/[ab]/[ab]"];
    let group = (name(), name(), name());
    prop::collection::vec(group, 0..12).prop_map(|groups| {
        let groups = groups.iter();
        let groups: Vec<_> = groups
            .map(|(tenant, file, group)| (&**tenant, &**file, &**group))
            .collect();
        set(&groups)
    })
}

/// Sets with texts that are hard to quote everywhere; no file is without groups.
fn any_set() -> impl Strategy<Value = RuleSet> {
    let name = || prop_oneof![Just(String::new()), "[ab/]{1,2}", hard(), any::<String>()];
    prop::collection::vec((name(), name(), file()), 0..4).prop_map(|files| {
        let files = files
            .into_iter()
            .filter(|(.., file)| !file.groups.is_empty());
        files.fold(RuleSet::default(), |set, (tenant, name, file)| {
            let none = || Arc::new(TenantRules::new([]));
            let rules = set.get(&tenant).cloned().unwrap_or_else(none);
            let rules = rules.with_file(name.into(), Arc::new(StoredFile::new(file)));
            set.with(tenant.into(), Arc::new(rules))
        })
    })
}

proptest! {
    #[test]
    fn no_two_groups_of_a_file_have_one_name(set in colliding()) {
        let groups = named_groups(&set);
        let names: BTreeSet<_> = groups.iter().map(|named| &*named.name).collect();
        prop_assert_eq!(names.len(), groups.len(), "{:?}", groups);
        let of_all = |name: &str| groups.iter().filter(|named| named.group.name == name).count();
        for named in &groups {
            let own = &named.group.name;
            // A group is renamed only if another has its name, or got it.
            let is_taken = of_all(own) > 1 || groups.iter().any(|other| {
                other.name == **own && other.group.name != *own
            });
            prop_assert_eq!(named.name != **own, is_taken, "{:?}", groups);
            if is_taken {
                let parts: Vec<_> = named.name.splitn(3, '/').collect();
                let plain = |part: &str| part.replace("%2f", "/").replace("%25", "%");
                prop_assert_eq!(plain(parts[0]), named.tenant);
                prop_assert_eq!(plain(parts[1]), named.file);
                prop_assert_eq!(parts[2], own);
            }
        }
    }

    #[test]
    fn what_is_written_reads_back_the_same_and_as_a_rule_file(set in any_set()) {
        let text = text(&set);
        prop_assert_eq!(&read(&text), &set, "{}", text);
        // Other parsers end comments at more characters than ours.
        prop_assert!(text.chars().all(|c| c == '\n' || is_printable(c)), "{}", text);
        let groups = named_groups(&set).into_iter().map(|named| Group {
            name: named.name.into_owned(),
            ..named.group.clone()
        });
        let file = RuleFile { groups: groups.collect() };
        prop_assert_eq!(parse(&text), file, "{}", text);
    }

    #[test]
    fn any_text_is_read_without_a_panic(pieces in prop::collection::vec(hard(), 0..6)) {
        let notes = pieces.iter().map(|piece| format!("{NOTE}{piece}\n  - name: {piece}\n"));
        read(&notes.collect::<String>());
    }
}
