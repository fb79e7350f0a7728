//! Letters on disk: bounds, restarts and damage.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use metrifold_codec::Batch;
use metrifold_model::{Kind, Origin, Version};
use metrifold_telemetry::{ComponentMetrics, Telemetry};

use super::folder::{Added, Folder};
use super::*;

fn letter(tenant: Option<&str>, body: &[u8]) -> Letter {
    Letter {
        tenant: tenant.map(str::to_owned),
        status: Some(400),
        reason: "endpoint answered 400 Bad Request: out of order".into(),
        version: Version::V1,
        body: body.to_vec().into(),
    }
}

fn bounds(bytes: u64) -> Bounds {
    Bounds {
        bytes,
        age: Duration::from_secs(3600),
    }
}

fn files(path: &Path) -> Vec<String> {
    let names = fs::read_dir(path).unwrap();
    let mut names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

proptest! {
    #[test]
    fn a_letter_is_read_as_it_was_written_and_no_damage_goes_unseen(
        tenant in proptest::option::of(".{0,20}"),
        reason in ".{0,60}",
        status: u16,
        second: bool,
        body in proptest::collection::vec(any::<u8>(), 0..200),
        at: proptest::sample::Index,
        bit in 0u8..8,
        cut: proptest::sample::Index,
    ) {
        let version = if second { Version::V2 } else { Version::V1 };
        let letter = Letter { tenant, status: Some(status), reason, version, body: body.into() };
        let file = letter.encode();
        prop_assert_eq!(Letter::decode(file.clone()), Ok(letter));
        let mut flipped = file.clone();
        let place = at.index(file.len());
        flipped[place] ^= 1 << bit;
        prop_assert!(Letter::decode(flipped).is_err());
        let cut = file[..cut.index(file.len())].to_vec();
        prop_assert!(Letter::decode(cut).is_err());
    }
}

#[test]
fn the_oldest_letters_make_room_and_small_ones_count_as_what_they_take() {
    let folder = tempfile::tempdir().unwrap();
    let mut letters = Folder::open(folder.path().to_owned()).unwrap();
    for now in 1..=20 {
        let added = letters.add(now, b"small", bounds(64 << 10)).unwrap();
        let removed = usize::from(now > 16);
        assert_eq!(added, Added::Kept { removed }, "{now}");
    }
    assert_eq!(letters.fill(), (16, 64 << 10));
    assert_eq!(letters.numbers(), (5..=20).rev().collect::<Vec<_>>());
    // A large letter takes the place of several; one above the bound is not kept at all.
    let large = vec![0; 10_000];
    let added = letters.add(21, &large, bounds(64 << 10)).unwrap();
    assert_eq!(added, Added::Kept { removed: 3 });
    let added = letters.add(22, &vec![0; 70_000], bounds(64 << 10)).unwrap();
    assert_eq!(added, Added::TooLarge);
    assert_eq!(letters.fill(), (14, 64 << 10));
    assert_eq!(files(folder.path()).len(), 14);
}

#[test]
fn letters_outlive_a_restart_and_unfinished_ones_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut letters = Folder::open(folder.path().to_owned()).unwrap();
    letters.add(7, b"a", bounds(1 << 20)).unwrap();
    // The same millisecond again, and an earlier one, as after a clock was set back.
    letters.add(7, b"b", bounds(1 << 20)).unwrap();
    letters.add(3, b"c", bounds(1 << 20)).unwrap();
    fs::write(folder.path().join("0000000000010.unfinished"), b"x").unwrap();
    fs::write(folder.path().join("notes.txt"), b"not ours").unwrap();
    let letters = Folder::open(folder.path().to_owned()).unwrap();
    assert_eq!(letters.numbers(), [9, 8, 7]);
    let content = |number| fs::read(letters.file(number)).unwrap();
    assert_eq!([content(7), content(8), content(9)], [b"a", b"b", b"c"]);
    assert_eq!(files(folder.path()).len(), 4, "what is not ours stays");
}

#[test]
fn letters_that_are_too_old_go() {
    let folder = tempfile::tempdir().unwrap();
    let mut letters = Folder::open(folder.path().to_owned()).unwrap();
    for now in [100, 200, 300] {
        letters.add(now, b"x", bounds(1 << 20)).unwrap();
    }
    assert_eq!(letters.expire(200).unwrap(), 1);
    assert_eq!(letters.numbers(), [300, 200]);
    // An operator may remove a file.
    fs::remove_file(letters.file(200)).unwrap();
    assert_eq!(letters.expire(1000).unwrap(), 2);
    assert_eq!(letters.fill(), (0, 0));
}

/// The stores of a process.
struct Process {
    stores: Stores,
    telemetry: Telemetry,
}

impl Process {
    fn new(data_dir: &TempDir) -> Self {
        Self {
            stores: Stores::new(Some(data_dir.path())),
            telemetry: Telemetry::new(),
        }
    }

    fn meters(&self, sink: &str) -> ComponentMetrics {
        self.telemetry.component(sink, Kind::Sink, "remote_write")
    }

    fn open(&self, sink: &str) -> Arc<Store> {
        let store = self.stores.open(&sink.into(), &self.meters(sink));
        store.unwrap().unwrap()
    }

    fn list(&self) -> Listing {
        assert_eq!(self.stores.flush(Duration::from_secs(30)), []);
        self.stores.list(&Filter {
            limit: 100,
            ..Filter::default()
        })
    }

    /// The value of a metric.
    fn metric(&self, name: &str) -> String {
        let page = self.telemetry.render();
        let line = page.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value.unwrap_or_default().to_owned()
    }
}

fn part() -> Batch {
    let origin = Arc::new(Origin::internal("test".into()));
    Batch::from_body(Version::V1, Vec::new().into(), Default::default(), origin)
}

#[test]
fn what_is_kept_is_listed_the_newest_first_and_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::new(&folder);
    let (a, b) = (process.open("a"), process.open("b"));
    for store in [&a, &b] {
        store.set_bounds(bounds(1 << 20));
        for tenant in [Some("x"), Some("y"), None] {
            store.keep(&part(), letter(tenant, b""));
            assert_eq!(process.stores.flush(Duration::from_secs(30)), []);
        }
    }
    let listing = process.list();
    assert_eq!(listing.letters.len(), 6);
    assert!(listing.letters.is_sorted_by(|a, b| a.time >= b.time));
    let filter = Filter {
        sink: Some("b".into()),
        tenant: Some("y".into()),
        limit: 5,
    };
    let some = process.stores.list(&filter);
    assert_eq!((some.letters.len(), some.more), (1, false));
    assert_eq!(some.letters[0].sink, "b");
    assert_eq!(some.letters[0].status, Some(400));
    let few = process.stores.list(&Filter {
        limit: 2,
        ..Filter::default()
    });
    assert_eq!((few.letters.len(), few.more), (2, true));
    let id = &few.letters[0].id;
    assert!(process.stores.discard(id).unwrap());
    assert!(!process.stores.discard(id).unwrap());
    assert!(!process.stores.discard("nobody/1").unwrap());
    assert_eq!(process.list().letters.len(), 5);
}

#[test]
fn damaged_letters_are_told_of_and_cost_the_others_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::new(&folder);
    let store = process.open("a");
    store.set_bounds(bounds(1 << 20));
    for _ in 0..3 {
        store.keep(&part(), letter(Some("x"), b"body"));
        assert_eq!(process.stores.flush(Duration::from_secs(30)), []);
    }
    drop((store, process));
    let path = folder.path().join("dead-letters/a");
    let names = files(&path);
    fs::write(path.join(&names[0]), b"").unwrap();
    let mut bytes = fs::read(path.join(&names[1])).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path.join(&names[1]), bytes).unwrap();

    let process = Process::new(&folder);
    let _store = process.open("a");
    let letters = process.list().letters;
    let damaged: Vec<_> = letters.iter().map(|l| l.damaged.as_deref()).collect();
    let expected = [
        None,
        Some("checksum does not match"),
        Some("file is cut short"),
    ];
    assert_eq!(damaged, expected);
    for letter in &letters {
        assert!(process.stores.discard(&letter.id).unwrap());
    }
    assert_eq!(files(&path), <[&str; 0]>::default());
    assert_eq!(process.metric("metrifold_dead_letters{"), "0");
    assert_eq!(process.metric("metrifold_dead_letters_bytes{"), "0");
}

#[test]
fn what_cannot_be_kept_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::new(&folder);
    let store = process.open("a");
    store.set_bounds(bounds(8 << 10));
    for _ in 0..3 {
        store.keep(&part(), letter(None, b""));
    }
    assert_eq!(process.list().letters.len(), 2);
    let dropped = "metrifold_dead_letters_dropped_total";
    assert_eq!(process.metric(dropped), "1");
    assert_eq!(process.metric("metrifold_dead_letters{"), "2");
    assert_eq!(process.metric("metrifold_dead_letters_bytes{"), "8192");
    // A missing folder does not stop the writer.
    fs::remove_dir_all(folder.path().join("dead-letters/a")).unwrap();
    store.set_bounds(bounds(1 << 20));
    store.keep(&part(), letter(None, b""));
    assert_eq!(process.list().letters.len(), 0);
    assert_eq!(
        process
            .telemetry
            .render()
            .matches("reason=\"failed\"")
            .count(),
        1
    );
}

#[test]
fn a_letter_waits_for_no_disk() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::new(&folder);
    let store = process.open("a");
    store.set_bounds(bounds(1 << 30));
    let held = store.hold();
    // The thread holds one letter and waits for its folder; 8 MiB may wait for the thread.
    for _ in 0..12 {
        store.keep(&part(), letter(None, &vec![0; 1 << 20]));
    }
    drop(held);
    let kept = process.list().letters.len();
    assert!((7..=9).contains(&kept), "{kept}");
    let dropped = process.metric("metrifold_dead_letters_dropped_total");
    assert_eq!(dropped, (12 - kept).to_string());
}

#[test]
fn letters_left_unwritten_are_told_by_sink() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::new(&folder);
    let (a, b, c) = (process.open("a"), process.open("b"), process.open("c"));
    for store in [&a, &b, &c] {
        store.set_bounds(bounds(1 << 20));
    }
    let held = a.hold();
    for store in [&a, &a, &b] {
        store.keep(&part(), letter(None, b""));
    }
    // The sinks are gone by then.
    drop((b, c));
    let left = process.stores.flush(Duration::from_millis(10));
    assert_eq!(left, [("a".into(), 2), ("b".into(), 1)]);
    drop(held);
    assert_eq!(process.stores.flush(Duration::from_secs(30)), []);
}

#[test]
fn without_a_place_or_with_none_to_take_nothing_is_kept() {
    let telemetry = Telemetry::new();
    let meters = telemetry.component("a", Kind::Sink, "remote_write");
    let nowhere = Stores::new(None);
    assert!(nowhere.open(&"a".into(), &meters).unwrap().is_none());
    assert_eq!(nowhere.flush(Duration::ZERO), []);

    let folder = tempfile::tempdir().unwrap();
    let process = Process::new(&folder);
    let store = process.open("a");
    store.set_bounds(bounds(0));
    store.keep(&part(), letter(None, b""));
    assert_eq!(process.list(), Listing::default());
    assert_eq!(process.metric("metrifold_dead_letters_dropped_total"), "");
}

#[test]
fn two_processes_do_not_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = Process::new(&folder);
    let _store = first.open("a");
    let second = Process::new(&folder);
    let refused = second.stores.open(&"b".into(), &second.meters("b"));
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("in use by another process"), "{error}");
}
