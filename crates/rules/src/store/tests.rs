//! A store in a local directory: racing writers, the history, and files that are left out.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::file::{Checks, any_expr};

const NOBODY: Change<'static> = Change {
    by: "somebody",
    at: 1_700_000_000_000,
    action: Action::Put,
};

fn store(root: &std::path::Path) -> Store {
    Store::new(Box::new(LocalDirectory::open(root).unwrap()), 1 << 20, 5)
}

fn rule(name: &str) -> String {
    format!("groups: [{{name: g, rules: [{{record: {name}, expr: up}}]}}]\n")
}

#[test]
fn a_file_is_written_read_and_removed_on_its_conditions() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let place = Place::new("team-a", "rules");
    assert_eq!(store.get(&place).unwrap(), None);
    let (one, changed) = store.put(&place, b"one", &Wanted::Absent, NOBODY).unwrap();
    assert!(changed);
    let path = root.path().join("metrics/rules/team-a/rules.yaml");
    assert_eq!(fs::read(path).unwrap(), b"one");
    assert_eq!(store.get(&place).unwrap().unwrap().version, one);
    let refused = |wanted| {
        let error = store.put(&place, b"two", &wanted, NOBODY).unwrap_err();
        matches!(error, StoreError::Precondition { current } if current == Some(one))
    };
    assert!(refused(Wanted::Absent));
    assert!(refused(Wanted::Version(vec![Version::of(b"other")])));
    let is_one = Wanted::Version(vec![Version::of(b"other"), one]);
    assert_eq!(
        store.put(&place, b"one", &is_one, NOBODY).unwrap(),
        (one, false)
    );
    let (two, _) = store.put(&place, b"two", &is_one, NOBODY).unwrap();
    assert!(matches!(
        store.delete(&place, &is_one, NOBODY),
        Err(StoreError::Precondition { current }) if current == Some(two)
    ));
    store.delete(&place, &Wanted::Present, NOBODY).unwrap();
    for wanted in [Wanted::Any, Wanted::Absent, Wanted::Version(vec![two])] {
        let error = store.delete(&place, &wanted, NOBODY).unwrap_err();
        assert!(
            matches!(error, StoreError::Absent(_)),
            "{wanted:?}: {error}"
        );
    }
    assert_eq!(store.list(None).unwrap(), (vec![], vec![]));
}

#[test]
fn a_file_that_is_too_large_to_be_read_can_be_replaced_and_removed() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let place = Place::new("a", "b");
    let path = root.path().join("metrics/rules/a/b.yaml");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let grow = || fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
    grow();
    let error = store.get(&place).unwrap_err();
    assert!(error.to_string().contains("larger than 1048576 bytes"));
    let found = store.find(&place).unwrap().unwrap();
    assert!(found.is_too_large && found.text.is_empty());
    // The file exists, in a version that no text has.
    let empty = Wanted::Version(vec![Version::of(b"")]);
    for wanted in [Wanted::Absent, empty] {
        let error = store.put(&place, b"one", &wanted, NOBODY).unwrap_err();
        assert!(
            matches!(error, StoreError::Precondition { current } if current == Some(found.version))
        );
    }
    let (_, changed) = store.put(&place, b"", &Wanted::Present, NOBODY).unwrap();
    assert!(changed, "an empty text is another one");
    grow();
    let known = Wanted::Version(vec![store.find(&place).unwrap().unwrap().version]);
    fs::write(&path, vec![b'+'; (1 << 20) + 2]).unwrap();
    let error = store.put(&place, b"one", &known, NOBODY).unwrap_err();
    assert!(matches!(error, StoreError::Precondition { .. }), "{error}");
    store.delete(&place, &Wanted::Any, NOBODY).unwrap();
    assert!(!path.exists());
    // Of a text that was not read, nothing is noted.
    let history = store.history(&place).unwrap();
    let actions: Vec<_> = history.iter().map(|entry| entry.action).collect();
    assert_eq!(actions, [Action::Put, Action::Put]);
}

#[test]
fn names_stay_within_their_folder() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    for name in [
        "",
        ".",
        "..",
        ".hidden",
        "a/b",
        "a\\b",
        "ä",
        &"x".repeat(151),
    ] {
        for place in [Place::new(name, "rules"), Place::new("a", name)] {
            let error = store.put(&place, b"x", &Wanted::Any, NOBODY).unwrap_err();
            assert!(matches!(error, StoreError::Name(_)), "{name}");
        }
    }
    assert!(store.entry(&Place::new("a", "b"), "../../x").is_err());
}

#[test]
fn changes_are_noted_with_who_and_when_and_the_oldest_go() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let place = Place::new("a", "b");
    let path = root.path().join("metrics/rules/a/b.yaml");
    for turn in 0..4 {
        let text = format!("text {turn}");
        store
            .put(&place, text.as_bytes(), &Wanted::Any, NOBODY)
            .unwrap();
    }
    // A change by a program that writes no history.
    fs::write(&path, "by hand").unwrap();
    store
        .delete(
            &place,
            &Wanted::Any,
            Change {
                by: "x",
                at: 1_700_000_000_005,
                action: Action::Delete,
            },
        )
        .unwrap();
    let history = store.history(&place).unwrap();
    let told: Vec<_> = history
        .iter()
        .map(|entry| {
            assert_eq!(entry.text, None);
            let text = store.entry(&place, &entry.id).unwrap().text;
            (entry.action, entry.by.as_str(), text.unwrap_or_default())
        })
        .collect();
    assert_eq!(
        told,
        [
            (Action::Delete, "x", String::new()),
            (Action::Outside, "", "by hand".to_owned()),
            (Action::Put, "somebody", "text 3".to_owned()),
            (Action::Put, "somebody", "text 2".to_owned()),
            (Action::Put, "somebody", "text 1".to_owned()),
        ]
    );
    let version = |text: &str| Version::of(text.as_bytes());
    let entry = store.entry_of(&place, version("text 3")).unwrap();
    assert_eq!(entry.unwrap().id, history[2].id);
    assert_eq!(store.entry_of(&place, version("text 9")).unwrap(), None);
}

/// Increments the number in a file; returns whether this writer won.
fn count_up(store: &Store, place: &Place) -> bool {
    let current = store.get(place).unwrap();
    let number = current.as_ref().map_or(0, |current| {
        String::from_utf8(current.text.clone())
            .unwrap()
            .parse::<u64>()
            .unwrap()
    });
    let wanted = match &current {
        Some(current) => Wanted::Version(vec![current.version]),
        None => Wanted::Absent,
    };
    let text = (number + 1).to_string();
    match store.put(place, text.as_bytes(), &wanted, NOBODY) {
        Ok(_) => true,
        Err(StoreError::Precondition { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn of_writers_that_race_none_loses_what_another_wrote() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::new("a", "b");
    let written = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = store(root.path());
                for _ in 0..20 {
                    written.fetch_add(usize::from(count_up(&store, &place)), Ordering::Relaxed);
                }
            });
        }
    });
    let store = store(root.path());
    let text = store.get(&place).unwrap().unwrap().text;
    let expected = written.into_inner();
    assert_eq!(String::from_utf8(text).unwrap(), expected.to_string());
    assert!(expected >= 20);
    assert!(store.history(&place).unwrap().len() <= 5);
}

#[test]
fn what_killed_writers_have_left_goes_with_the_next_change() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let place = Place::new("a", "b");
    store.put(&place, b"one", &Wanted::Any, NOBODY).unwrap();
    let leave = || {
        for left in [
            "metrics/rules/a/.b.yaml.new",
            "metrics/rules/a/.c.yaml.new",
            "metrics/rules-history/a/b/.001700000000000-000000.json.new",
        ] {
            fs::write(root.path().join(left), "hal").unwrap();
        }
    };
    let files = |folder: &str| {
        let entries = fs::read_dir(root.path().join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<BTreeSet<_>>()
    };
    leave();
    fs::write(root.path().join("metrics/rules/a/.other.swp"), "").unwrap();
    store.put(&place, b"two", &Wanted::Any, NOBODY).unwrap();
    let kept = [".other.swp", "b.yaml"].map(str::to_owned);
    assert_eq!(files("metrics/rules/a"), BTreeSet::from(kept));
    assert_eq!(files("metrics/rules-history/a/b").len(), 2);
    // So a folder that holds nothing else goes with its last file.
    fs::remove_file(root.path().join("metrics/rules/a/.other.swp")).unwrap();
    leave();
    store.delete(&place, &Wanted::Any, NOBODY).unwrap();
    assert!(!root.path().join("metrics/rules/a").exists());
}

/// A directory whose answers to writes of rules are lost: each is made, retried, and then conflicts
/// with itself.
#[derive(Debug)]
struct Lossy(LocalDirectory);

impl Objects for Lossy {
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError> {
        self.0.list(prefix)
    }

    fn get(&self, key: &str, max: usize) -> Result<Option<Object>, ObjectError> {
        self.0.get(key, max)
    }

    fn put(&self, key: &str, text: &[u8], expected: Expected<'_>) -> Result<(), ObjectError> {
        self.0.put(key, text, expected)?;
        match key.starts_with(FILES) {
            true => Err(ObjectError::Changed),
            false => Ok(()),
        }
    }

    fn delete(&self, key: &str, expected: Expected<'_>) -> Result<(), ObjectError> {
        self.0.delete(key, expected)
    }

    fn repeats(&self) -> bool {
        true
    }
}

#[test]
fn the_history_stays_bounded_though_answers_are_lost() {
    let root = tempfile::tempdir().unwrap();
    let objects = Lossy(LocalDirectory::open(root.path()).unwrap());
    let store = Store::new(Box::new(objects), 1 << 20, 3);
    let place = Place::new("a", "b");
    for turn in 0..8 {
        let text = format!("text {turn}");
        let made = store.put(&place, text.as_bytes(), &Wanted::Any, NOBODY);
        assert!(made.unwrap().1, "the write was made");
    }
    let kept = store.objects.list("metrics/rules-history/").unwrap();
    assert_eq!(kept.len(), 3, "{kept:?}");
}

fn tenants(follower: &Follower) -> BTreeSet<String> {
    follower
        .set()
        .iter()
        .map(|(tenant, _)| tenant.to_string())
        .collect()
}

#[test]
fn what_changes_is_read_and_what_is_damaged_costs_only_itself() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let checks = Checks::new(&any_expr);
    let put = |tenant: &str, file: &str, text: &str| {
        let place = Place::new(tenant, file);
        store
            .put(&place, text.as_bytes(), &Wanted::Any, NOBODY)
            .unwrap();
    };
    for tenant in ["a", "b", "c"] {
        put(tenant, "rules", &rule("r"));
    }
    let mut follower = Follower::default();
    let refreshed = follower.refresh(&store, &checks, None).unwrap();
    assert_eq!(
        refreshed,
        Refreshed {
            read: 3,
            changed: true
        }
    );
    let refreshed = follower.refresh(&store, &checks, None).unwrap();
    assert_eq!(
        refreshed,
        Refreshed {
            read: 0,
            changed: false
        }
    );

    put("b", "rules", "groups: [");
    put("d", "rules", "nonsense");
    fs::write(root.path().join("metrics/rules/stray"), "x").unwrap();
    put("a", "more", &rule("s"));
    let refreshed = follower.refresh(&store, &checks, None).unwrap();
    assert_eq!(
        refreshed,
        Refreshed {
            read: 3,
            changed: true
        }
    );
    assert_eq!(tenants(&follower), ["a", "b", "c"].map(String::from).into());
    let quarantined = follower.quarantined();
    let told: Vec<_> = quarantined
        .iter()
        .map(|it| (&*it.tenant, it.keeps))
        .collect();
    assert_eq!(told, [("b", true), ("d", false), ("", false)]);
    assert_eq!(follower.set().get("a").unwrap().files().len(), 2);

    // A change of one tenant costs the reading of one object.
    put("c", "rules", &rule("t"));
    let before = follower.set().clone();
    let refreshed = follower.refresh(&store, &checks, Some("c")).unwrap();
    assert_eq!(
        refreshed,
        Refreshed {
            read: 1,
            changed: true
        }
    );
    assert_eq!(before.diff(follower.set()).len(), 1);
    store
        .delete(&Place::new("c", "rules"), &Wanted::Any, NOBODY)
        .unwrap();
    follower.refresh(&store, &checks, Some("c")).unwrap();
    assert_eq!(tenants(&follower), ["a", "b"].map(String::from).into());
}
