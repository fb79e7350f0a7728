//! Kills a process that writes to a store at random moments: every acknowledged write is complete, with
//! its history entry, and the next process can write without a cleanup.

use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use metrifold_rules::Version;
use metrifold_rules::store::{Action, Change, LocalDirectory, Place, Store, Wanted};

const FOLDER: &str = "RULES_STORE_FOLDER";
const KILLS: u64 = 30;

fn store(folder: &Path) -> Store {
    let objects = LocalDirectory::open(folder).unwrap();
    Store::new(Box::new(objects), 1 << 20, 1000)
}

/// A text that reveals truncation and mixing.
fn text(number: u64) -> String {
    format!("{number}\n").repeat(2000)
}

fn number_of(store: &Store, place: &Place) -> u64 {
    let Some(read) = store.get(place).unwrap() else {
        return 0;
    };
    let read = String::from_utf8(read.text).unwrap();
    let number = read.lines().next().unwrap().parse().unwrap();
    assert!(read == text(number), "the text of {number} is torn");
    number
}

#[test]
#[ignore = "the process that the other test kills"]
fn writer() {
    let folder = std::env::var_os(FOLDER).expect("started by the other test");
    let store = store(Path::new(&folder));
    let place = Place::new("a", "rules");
    let first = number_of(&store, &place) + 1;
    for number in first.. {
        let change = Change {
            by: "writer",
            at: number,
            action: Action::Put,
        };
        let text = text(number);
        store
            .put(&place, text.as_bytes(), &Wanted::Any, change)
            .unwrap();
        println!("\nwrote {number}");
    }
}

#[test]
fn what_was_written_survives_a_kill_with_its_note() {
    let scratch = tempfile::tempdir().unwrap();
    let seed = RandomState::new();
    let (store, place) = (store(scratch.path()), Place::new("a", "rules"));
    let mut last = 0;
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--ignored", "--nocapture"])
            .env(FOLDER, scratch.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut wrote = || {
            let line = lines.find_map(|line| line.ok()?.strip_prefix("wrote ")?.parse().ok());
            line.inspect(|number: &u64| last = *number).is_some()
        };
        for _ in 0..1 + seed.hash_one(("changes", kill)) % 3 {
            assert!(wrote(), "the writer goes on");
        }
        for _ in 0..seed.hash_one(("readings", kill)) % 20 {
            number_of(&store, &place);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        while wrote() {}
        let number = number_of(&store, &place);
        assert!(
            number == last || number == last + 1,
            "{number}, {last} was the last"
        );
        let version = Version::of(text(number).as_bytes());
        let entry = store.entry_of(&place, version).unwrap();
        let noted = entry.and_then(|entry| entry.text);
        assert_eq!(noted, Some(text(number)), "{number} has no note");
        last = number;
    }
}
