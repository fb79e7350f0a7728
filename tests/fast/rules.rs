//! Rules delivered from files to a folder, while the files are edited and the folder is read.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use metrifold_rules::{Checks, RuleFile, any_expr};
use metrifold_testing::edits::{replace, runs, topology, until_refused, until_runs};
use metrifold_testing::{Endpoint, Metrifold, Random, Sender, StopOnPanic, until, until_so, up};

/// Number of rule files per generation.
const FILES: usize = 12;
/// Number of times that the process is killed while files change.
const KILLS: usize = 40;
/// Longest life of a process in that test, in microseconds.
const LIFE: usize = 900_000;

/// The temporary folder of a test.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.at("in")).unwrap();
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Puts a rule file in place atomically.
    fn put(&self, name: &str, text: &str) {
        let new = self.at("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.at(name)).unwrap();
    }

    /// A source of `NAME/*.yaml`, with the name of the folder.
    fn source(&self, name: &str) -> String {
        let files = self.at(name).join("*.yaml");
        format!(
            "[sources.{name}]\ntype = \"rules_file\"\nfiles = [{files:?}]\nwatch_interval = \"1s\"\n"
        )
    }

    /// A sink that writes to a folder.
    fn sink(&self, id: &str, inputs: &[&str], folder: &str) -> String {
        let path = self.at(folder);
        format!("[sinks.{id}]\ntype = \"rules_directory\"\ninputs = {inputs:?}\npath = {path:?}\n")
    }

    /// A source of the folder `in` and a sink to the folder `out`.
    fn smallest(&self) -> String {
        self.source("in") + &self.sink("sink", &["in"], "out")
    }

    #[track_caller]
    fn until_holds(&self, folder: &str, expected: &[(&str, &str)]) {
        let expected: BTreeMap<_, _> = expected
            .iter()
            .map(|(name, text)| ((*name).to_owned(), parsed(text)))
            .collect();
        let folder = self.at(folder);
        until_so(&format!("{folder:?} holds {expected:?}"), || {
            held(&folder) == expected
        });
    }
}

/// A file with one group of one recording rule.
fn rule(value: impl std::fmt::Display) -> String {
    format!("groups:\n- name: g\n  rules:\n  - record: job:x\n    expr: {value}\n")
}

fn parsed(text: &str) -> RuleFile {
    RuleFile::parse(text.as_bytes(), &Checks::new(&any_expr))
        .unwrap()
        .file
}

/// Rule files that a Prometheus with `rule_files: [FOLDER/*.yaml]` would load.
fn held(folder: &Path) -> BTreeMap<String, RuleFile> {
    let pattern = folder.join("*.yaml").display().to_string();
    let files = glob::glob(&pattern).unwrap().map(Result::unwrap);
    // A file may disappear between listing and reading, as for Prometheus.
    let files = files.filter_map(|file| {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        Some((name, parsed(&fs::read_to_string(&file).ok()?)))
    });
    files.collect()
}

fn errors(child: &Metrifold, id: &str, error_type: &str) -> f64 {
    let labels = [("component_id", id), ("error_type", error_type)];
    child.metric("metrifold_component_errors_total", &labels)
}

#[test]
fn files_arrive_whole_and_edits_follow() {
    let place = Place::new();
    let alert = "# A comment.\ngroups:\n- name: alerts\n  interval: 1m\n  labels: { team: a }\n  rules:\n  \
        - alert: Down\n    expr: up{job=~\"a.*\"} == 0\n    for: 5m\n    keep_firing_for: 90s\n    \
        labels: { severity: page }\n    annotations:\n      summary: |\n        {{ $labels.job }} is\n        down: look\n\
        - name: empty\n";
    place.put("in/a.yaml", alert);
    place.put("in/b.yaml", &rule("1"));
    // The poll is so rare that changes are noticed by events.
    let config = place.smallest().replace("\"1s\"", "\"1h\"");
    let child = Metrifold::start(&config);
    place.until_holds("out", &[("a.yaml", alert), ("b.yaml", &rule("1"))]);

    let started = Instant::now();
    fs::write(place.at("in/b.yaml"), rule("2")).unwrap();
    place.until_holds("out", &[("a.yaml", alert), ("b.yaml", &rule("2"))]);
    place.put("in/c.yaml", &rule("sum by (job) (rate(x[5m]))"));
    let c = ("c.yaml", &*rule("sum by (job) (rate(x[5m]))"));
    place.until_holds("out", &[("a.yaml", alert), ("b.yaml", &rule("2")), c]);
    fs::remove_file(place.at("in/a.yaml")).unwrap();
    place.until_holds("out", &[("b.yaml", &rule("2")), c]);
    let took = started.elapsed();
    println!("three edits arrived within {took:?}");

    // A comment does not change the rules.
    place.put("in/b.yaml", &format!("# New.\n{}", rule("2")));
    place.put("in/d.yaml", &rule("4"));
    place.until_holds("out", &[("b.yaml", &rule("2")), c, ("d.yaml", &rule("4"))]);
    let sets = || child.log().matches("rules were written").count();
    until_so("all of it is logged", || sets() == 5);
    child.until_logged("written=1 unchanged=2 removed=0");
    assert_eq!(errors(&child, "in", "invalid"), 0.0);
    assert_eq!(topology(&child)["components"].as_array().unwrap().len(), 2);
}

#[test]
fn one_wrong_file_changes_nothing_until_it_is_mended() {
    let place = Place::new();
    place.put("in/a.yaml", &rule("1"));
    place.put("in/b.yaml", &rule("1"));
    let child = Metrifold::start(&place.smallest());
    place.until_holds("out", &[("a.yaml", &rule("1")), ("b.yaml", &rule("1"))]);
    let wrong = [
        ("groups:\n- name: g\n  rules: [\n", "yaml", 3),
        (&*rule("sum(rate(x))"), "expr", 5),
        (&*rule("1").replace("record", "rekord"), "rekord", 4),
        (&*rule("x{job=~\"(\"}"), "expr", 5),
    ];
    for (generation, (text, named, line)) in (2..).zip(wrong) {
        let before = errors(&child, "in", "invalid");
        let logged = child.log().lines().count();
        // Valid changes beside it wait as well.
        place.put("in/a.yaml", &rule(generation));
        place.put("in/b.yaml", text);
        until_so("it is counted", || errors(&child, "in", "invalid") > before);
        let b = format!("{}:", place.at("in/b.yaml").display());
        let told = until("the problem is logged", || {
            let log = child.log();
            let mut new = log.lines().skip(logged);
            new.find(|line| line.contains(&b)).map(str::to_owned)
        });
        assert!(told.contains("the previous ones stay"), "{told}");
        assert!(told.contains(named), "{named}: {told}");
        let place_told: Vec<_> = told.split(&b).nth(1).unwrap().split(':').collect();
        let lines = [line.to_string(), (line + 1).to_string()];
        assert!(lines.contains(&place_told[0].to_owned()), "{line}: {told}");
        let held = held(&place.at("out"));
        assert_eq!(held["a.yaml"], held["b.yaml"]);
        assert_eq!(held["a.yaml"], parsed(&rule(generation - 1)));
        place.put("in/b.yaml", &rule(generation));
        let mended = rule(generation);
        place.until_holds("out", &[("a.yaml", &mended), ("b.yaml", &mended)]);
    }
}

#[test]
fn a_folder_that_disappears_is_not_one_without_rules() {
    let place = Place::new();
    place.put("in/a.yaml", &rule("1"));
    let mut child = Metrifold::start(&place.smallest());
    place.until_holds("out", &[("a.yaml", &rule("1"))]);
    fs::rename(place.at("in"), place.at("aside")).unwrap();
    until_so("it is told", || errors(&child, "in", "invalid") > 0.0);
    child.until_logged("No such file or directory");
    place.until_holds("out", &[("a.yaml", &rule("1"))]);

    // Nor after a restart.
    child.terminate();
    child.start_again();
    until_so("it is told again", || errors(&child, "in", "invalid") > 0.0);
    child.until_logged("there are none yet");
    child.until_logged("waiting for the first rules of all sources");
    place.until_holds("out", &[("a.yaml", &rule("1"))]);
    fs::write(place.at("aside/b.yaml"), rule("2")).unwrap();
    fs::rename(place.at("aside"), place.at("in")).unwrap();
    place.until_holds("out", &[("a.yaml", &rule("1")), ("b.yaml", &rule("2"))]);

    // An existing empty folder means that there are no rules.
    for name in ["a", "b"] {
        fs::remove_file(place.at(&format!("in/{name}.yaml"))).unwrap();
    }
    place.until_holds("out", &[]);
}

#[test]
fn two_sources_are_joined_and_a_conflict_leaves_the_old_set() {
    let place = Place::new();
    fs::create_dir(place.at("more")).unwrap();
    place.put("in/a.yaml", &rule("1"));
    place.put("more/b.yaml", &rule("2"));
    let config =
        place.source("in") + &place.source("more") + &place.sink("sink", &["in", "more"], "out");
    let child = Metrifold::start(&config);
    let joined = [("a.yaml", &*rule("1")), ("b.yaml", &*rule("2"))];
    place.until_holds("out", &joined);
    // The same rules in both are no conflict.
    place.put("more/a.yaml", &rule("1"));
    until_so("it is read", || {
        child.log().matches("rules were read").count() == 3
    });
    place.put("more/a.yaml", &rule("3"));
    until_so("the conflict is counted", || {
        errors(&child, "sink", "conflict") == 1.0
    });
    child.until_logged("file \"a.yaml\" of tenant \"\" comes from more than one source");
    place.until_holds("out", &joined);
    fs::remove_file(place.at("in/a.yaml")).unwrap();
    place.until_holds("out", &[("a.yaml", &rule("3")), ("b.yaml", &rule("2"))]);
}

#[test]
fn a_reload_adds_and_removes_sources_and_moves_the_folder() {
    let place = Place::new();
    fs::create_dir(place.at("more")).unwrap();
    place.put("in/a.yaml", &rule("1"));
    place.put("more/b.yaml", &rule("2"));
    let mut child = Metrifold::start(&place.smallest());
    let (a, b) = (rule("1"), rule("2"));
    let (one, both) = ([("a.yaml", &*a)], [("a.yaml", &*a), ("b.yaml", &*b)]);
    place.until_holds("out", &one);
    let more = place.source("in") + &place.source("more");
    replace(
        &child,
        &(more.clone() + &place.sink("sink", &["in", "more"], "out")),
    );
    place.until_holds("out", &both);
    replace(&child, &place.smallest());
    place.until_holds("out", &one);

    // The previous folder keeps its content.
    replace(
        &child,
        &(more.clone() + &place.sink("sink", &["in", "more"], "moved")),
    );
    place.until_holds("moved", &both);
    place.until_holds("out", &one);
    place.put("in/a.yaml", &rule("3"));
    place.until_holds("moved", &[("a.yaml", &rule("3")), ("b.yaml", &b)]);
    place.until_holds("out", &one);

    // Moving a source to a place that does not exist yet removes nothing.
    let elsewhere = place.source("in").replace("/in/", "/absent/");
    let config = elsewhere + &place.source("more") + &place.sink("sink", &["in", "more"], "moved");
    replace(&child, &config);
    until_so("it is told", || errors(&child, "in", "invalid") > 0.0);
    place.until_holds("moved", &[("a.yaml", &rule("3")), ("b.yaml", &b)]);
    fs::create_dir(place.at("absent")).unwrap();
    place.put("absent/c.yaml", &rule("4"));
    place.until_holds("moved", &[("b.yaml", &b), ("c.yaml", &rule("4"))]);

    // Removing a sink deletes no rules, however often it comes and goes.
    let other = place.sink("other", &["more"], "other");
    for _ in 0..10 {
        replace(&child, &(config.clone() + &other));
        until_runs(&child, "other");
        place.until_holds("other", &[("b.yaml", &b)]);
        replace(&child, &config);
        until_so("it is removed", || !runs(&child, "other"));
    }
    child.terminate();
    place.until_holds("other", &[("b.yaml", &b)]);
    place.until_holds("moved", &[("b.yaml", &b), ("c.yaml", &rule("4"))]);
}

#[test]
fn a_restart_keeps_what_did_not_change() {
    let place = Place::new();
    place.put("in/a.yaml", &rule("1"));
    place.put("in/b.yaml", &rule("1"));
    let mut child = Metrifold::start(&place.smallest());
    let b = rule("1");
    place.until_holds("out", &[("a.yaml", &b), ("b.yaml", &b)]);
    let version = fs::read_link(place.at("out")).unwrap();
    let modified = |name: &str| {
        let file = fs::metadata(place.at("out").join(name)).unwrap();
        file.modified().unwrap()
    };
    let before = modified("b.yaml");
    for _ in 0..3 {
        assert!(child.terminate().success());
        child.start_again();
        until_so("it has looked", || {
            let labels = [("component_id", "sink")];
            child.metric("metrifold_component_rule_sets_total", &labels) > 0.0
        });
        assert_eq!(fs::read_link(place.at("out")).unwrap(), version);
    }
    assert!(child.terminate().success());
    place.put("in/a.yaml", &rule("2"));
    child.start_again();
    place.until_holds("out", &[("a.yaml", &rule("2")), ("b.yaml", &b)]);
    assert_eq!(modified("b.yaml"), before);
}

#[test]
fn two_sinks_into_one_folder_are_an_error_with_its_place() {
    let place = Place::new();
    let config = place.smallest() + &place.sink("other", &["in"], "out");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("metrifold.toml");
    fs::write(&file, &config).unwrap();
    let mut command = metrifold_testing::cli(&["validate", "-c"]);
    let output = metrifold_testing::run(command.arg(&file));
    assert_eq!(output.status.code(), Some(78));
    let told = String::from_utf8(output.stderr).unwrap();
    let taken = format!("folder {:?} is taken by", place.at("out"));
    assert!(
        told.contains(&taken) && told.contains("metrifold.toml:"),
        "{told}"
    );
    assert!(told.contains("choose another folder"), "{told}");

    // A reload reports the same error.
    let child = Metrifold::start(&place.smallest());
    replace(&child, &config);
    let told = until_refused(&child, 1.0);
    assert!(told.contains("is taken by"), "{told}");
}

#[test]
fn what_is_in_the_way_is_told_and_the_set_is_written_once_it_is_gone() {
    let place = Place::new();
    place.put("in/a.yaml", &rule("1"));
    // A file in place of the folder.
    fs::write(place.at("out"), "of somebody else").unwrap();
    let child = Metrifold::start(&place.smallest());
    until_so("it is tried again", || {
        errors(&child, "sink", "write") > 1.0
    });
    child.until_logged("was not made by this component");
    assert_eq!(
        fs::read_to_string(place.at("out")).unwrap(),
        "of somebody else"
    );
    fs::remove_file(place.at("out")).unwrap();
    place.until_holds("out", &[("a.yaml", &rule("1"))]);

    // A foreign file in the folder, which stays until its name is needed.
    fs::write(place.at("out/b.yaml"), rule("8")).unwrap();
    place.put("in/a.yaml", &rule("2"));
    place.until_holds("out", &[("a.yaml", &rule("2")), ("b.yaml", &rule("8"))]);
    let before = errors(&child, "sink", "write");
    place.put("in/b.yaml", &rule("2"));
    until_so("it is told", || errors(&child, "sink", "write") > before);
    child.until_logged("out/b.yaml was not written by this component and is in the way");
    place.until_holds("out", &[("a.yaml", &rule("2")), ("b.yaml", &rule("8"))]);
    fs::remove_file(place.at("out/b.yaml")).unwrap();
    place.until_holds("out", &[("a.yaml", &rule("2")), ("b.yaml", &rule("2"))]);
}

/// Whether a file's mode prevents this user from reading it; it does not for root.
fn may_be_denied(place: &Place) -> bool {
    let probe = place.at("probe");
    fs::write(&probe, "").unwrap();
    fs::set_permissions(&probe, fs::Permissions::from_mode(0o000)).unwrap();
    fs::read(&probe).is_err()
}

#[test]
fn what_is_denied_is_told_and_taken_once_it_is_allowed() {
    let place = Place::new();
    let mode = |name: &str, mode| {
        fs::set_permissions(place.at(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    place.put("in/a.yaml", &rule("1"));
    fs::create_dir(place.at("closed")).unwrap();
    // Modes do not bind root unless it drops that privilege.
    let bound = match may_be_denied(&place) {
        true => "true",
        false => {
            "exec setpriv --bounding-set -dac_override,-dac_read_search --inh-caps -all \"$0\" \"$@\""
        }
    };
    mode("closed", 0o555);
    mode("in/a.yaml", 0o000);
    let config = place.source("in") + &place.sink("sink", &["in"], "closed/out");
    let child = Metrifold::start_after(bound, &config);
    child.until_logged("cannot be read: let this process read it");
    mode("in/a.yaml", 0o644);
    child.until_logged("let this process write to the folder above it");
    until_so("it is tried again", || {
        errors(&child, "sink", "write") > 1.0
    });
    mode("closed", 0o755);
    place.until_holds("closed/out", &[("a.yaml", &rule("1"))]);
}

/// Makes another generation of [`FILES`] files current, all at once.
fn turn(place: &Place, generation: usize) {
    let folder = place.at(&format!("in/..{generation}"));
    fs::create_dir(&folder).unwrap();
    for at in 0..FILES {
        fs::write(folder.join(format!("{at}.yaml")), rule(generation)).unwrap();
    }
    let next = place.at("in/..next");
    symlink(format!("..{generation}"), &next).unwrap();
    fs::rename(next, place.at("in/..data")).unwrap();
    if generation > 1 {
        fs::remove_dir_all(place.at(&format!("in/..{}", generation - 1))).unwrap();
    }
}

/// The generation seen by a reader that opens the folder once; `None` before the first.
fn generation(out: &Path) -> Option<usize> {
    let opened = fs::canonicalize(out).ok()?;
    let held = held(&opened);
    assert_eq!(held.len(), FILES, "{opened:?}");
    let mut generations = held.values().map(|file| &file.groups[0].rules[0].expr);
    let first = generations.next().unwrap();
    assert!(generations.all(|other| other == first), "{held:?}");
    Some(first.parse().unwrap())
}

#[test]
fn a_reader_sees_whole_sets_alone_while_the_process_is_killed_at_random_moments() {
    let place = Place::new();
    turn(&place, 1);
    let source = place.source("in").replace("/in/", "/in/..data/");
    let config = source + &place.sink("sink", &["in"], "out");
    let out = place.at("out");
    let mut child = Metrifold::spawn(&config, &[]).started(&config);
    until_so("the first set is there", || generation(&out) == Some(1));
    let (stop, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut random = Random(0x5eed);
    let mut newest = 1;
    let mut behind = 0;
    thread::scope(|scope| {
        let _guard = StopOnPanic(&stop);
        scope.spawn(|| {
            let _guard = StopOnPanic(&stop);
            let mut last = 0;
            while !stop.load(Ordering::SeqCst) {
                let seen = generation(&out).expect("the folder never goes");
                assert!(seen >= last, "{seen} after {last}");
                last = seen;
                reads.fetch_add(1, Ordering::SeqCst);
            }
        });
        for round in 0..KILLS {
            newest += 1;
            turn(&place, newest);
            if round % 2 == 0 {
                // While a version is written.
                let base = place.at(".out.metrifold");
                let versions = || fs::read_dir(&base).unwrap().count();
                let before = versions();
                until_so("a version is written", || versions() != before);
                let end = Instant::now() + Duration::from_micros(random.below(8_000) as u64);
                while Instant::now() < end {
                    thread::yield_now();
                }
            } else {
                let life = Duration::from_micros(random.below(LIFE) as u64);
                let end = Instant::now() + life;
                while Instant::now() < end && !stop.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            child.kill();
            behind += usize::from(generation(&out) != Some(newest));
            child.start_again();
            if round % 5 == 0 {
                until_so("the newest arrives", || generation(&out) == Some(newest));
            }
        }
        until_so("the newest arrives", || generation(&out) == Some(newest));
        stop.store(true, Ordering::SeqCst);
    });
    let reads = reads.into_inner();
    println!("{KILLS} kills, {behind} of them before the set was in place, {reads} reads");
    assert!(behind > 0 && reads > KILLS, "{behind} {reads}");
    // Left-overs of crashes are removed.
    turn(&place, newest + 1);
    until_so("one more arrives", || generation(&out) == Some(newest + 1));
    until_so("versions are swept up", || {
        let base = fs::read_dir(place.at(".out.metrifold")).unwrap();
        // Three versions and the lock file.
        base.count() == 4
    });
}

#[test]
fn a_transform_is_built_for_the_signals_alone_that_reach_it() {
    let endpoint = Endpoint::healthy();
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("*.yaml");
    // Writes need no label, whereas rules and queries do.
    let gateway = Metrifold::start(&format!(
        "[sources.ingest]\ntype = \"remote_write\"\naddress = \"INGEST\"\n\
         [transforms.whose]\ntype = \"tenant\"\ninputs = [\"ingest\"]\nfrom = [{{ value = \"a\" }}]\n\
         [sinks.far]\ntype = \"remote_write\"\ninputs = [\"whose\"]\nendpoint = \"{}\"\n\
         [sources.files]\ntype = \"rules_file\"\nfiles = [{files:?}]\n\
         [sinks.out]\ntype = \"rules_directory\"\ninputs = [\"files\"]\npath = {:?}\n",
        endpoint.url(),
        folder.path().join("out"),
    ));
    assert_eq!(Sender::new(gateway.ingest).write(&up(1)).status, 204);
    assert_eq!(endpoint.count(), 1);
}
