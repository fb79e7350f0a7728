//! Kills a process that writes a rules folder at random moments while another process reads it: every
//! set that the reader sees is complete, and after each kill the folder holds the last set or the next.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead as _, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::Arc;

use metrifold_rules::{Group, RuleFile, RuleSet, RulesDirectory, StoredFile, TenantRules};

const FOLDER: &str = "RULES_KILL_FOLDER";
const START: &str = "RULES_KILL_START";
const KILLS: u64 = 40;
/// Number of changes during which a version stays readable.
const KEPT_VERSIONS: u64 = 2;

/// The files of a set: one that changes each time, some that change occasionally, and some that come
/// and go.
fn files(number: u64) -> BTreeMap<String, String> {
    let mut files = BTreeMap::from([("stamp.yaml".to_owned(), number.to_string())]);
    for i in 1..8 {
        files.insert(format!("slow-{i}.yaml"), (number / i).to_string());
        if number.is_multiple_of(i) {
            files.insert(format!("some-{i}.yaml"), "here".to_owned());
        }
    }
    files
}

fn set(number: u64) -> RuleSet {
    let file = |content: String| {
        let group = Group {
            name: content,
            ..Group::default()
        };
        Arc::new(StoredFile::new(RuleFile {
            groups: vec![group],
        }))
    };
    let files = files(number).into_iter();
    let files = files.map(|(name, content)| (name.into(), file(content)));
    RuleSet::of_none(Arc::new(TenantRules::new(files)))
}

/// Number and folder of the version at a path.
fn version(path: &Path) -> Option<(u64, PathBuf)> {
    let folder = fs::canonicalize(path).ok()?;
    let number = folder.file_name()?.to_str()?.parse().ok()?;
    Some((number, folder))
}

/// Number of the set seen by a reader that opens the path once; `None` before the first set.
fn read(path: &Path) -> Option<u64> {
    loop {
        let (opened, folder) = version(path)?;
        let content = read_folder(&folder);
        let (now, _) = version(path).expect("a folder that was there stays");
        if now - opened > KEPT_VERSIONS {
            continue; // too slow a reader: the version may be gone
        }
        let content = content.unwrap_or_else(|error| panic!("{opened} of {now}: {error}"));
        let stamp = content.get("stamp.yaml").expect("a whole set");
        let number = stamp.parse().unwrap();
        assert_eq!(content, files(number), "version {opened}, now {now}");
        return Some(number);
    }
}

fn read_folder(folder: &Path) -> Result<BTreeMap<String, String>, String> {
    let mut content = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(|error| error.to_string())? {
        let entry = entry.map_err(|error| error.to_string())?;
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with('.') {
            continue;
        }
        let text = fs::read_to_string(entry.path()).map_err(|error| format!("{name}: {error}"))?;
        let group = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("- name: "));
        let group = group.ok_or_else(|| format!("{name} is torn: {text:?}"))?;
        content.insert(name, group.trim_matches('\'').to_owned());
    }
    Ok(content)
}

#[test]
#[ignore = "the process that the other test kills"]
fn writer() {
    let folder = std::env::var_os(FOLDER).expect("started by the other test");
    let start: u64 = std::env::var(START).unwrap().parse().unwrap();
    let mut directory = RulesDirectory::open(Path::new(&folder)).unwrap();
    for number in start.. {
        directory.apply(&set(number)).unwrap();
        println!("\napplied {number}");
    }
}

#[test]
fn readers_see_whole_sets_and_a_kill_leaves_the_last_or_the_next() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("rules");
    let seed = RandomState::new();
    let (mut last, mut seen, mut interrupted) = (0, 0, 0);
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--ignored", "--nocapture"])
            .env(FOLDER, &path)
            .env(START, (last + 1).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut applied = |lines: &mut Lines<BufReader<ChildStdout>>| {
            let line = lines.find_map(|line| line.ok()?.strip_prefix("applied ")?.parse().ok());
            line.inspect(|number: &u64| last = *number)
        };
        // The kill comes after a random number of changes and readings, which needs no clock.
        for _ in 0..seed.hash_one(("changes", kill)) % 4 {
            applied(&mut lines).expect("the writer goes on");
        }
        for _ in 0..1 + seed.hash_one(("readings", kill)) % 40 {
            let number = read(&path).unwrap_or(0);
            assert!(number >= seen, "{number} after {seen}");
            seen = number;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        while applied(&mut lines).is_some() {}
        let number = read(&path).unwrap_or(0);
        assert!(
            number == last || number == last + 1,
            "{number}, {last} was the last"
        );
        let base = scratch.path().join(".rules.metrifold");
        interrupted += u64::from(fs::read_dir(base).is_ok_and(|list| list.count() > 4));
        // The next start removes leftovers, and changes nothing else.
        RulesDirectory::open(&path).unwrap();
        assert_eq!(read(&path).unwrap_or(0), number);
        (last, seen) = (number, number);
    }
    assert!(last >= KILLS / 2, "{last}");
    println!("{last} sets, {interrupted} of {KILLS} kills left an unfinished version");
}
