//! Rules delivered to rulers with Prometheus' and Mimir's interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;

use metrifold_testing::{
    Does, Endpoint, Metrifold, Random, Reply, Seen, StopOnPanic, cli, fetch, request, run, until_so,
};

/// What a ruler reads: a folder with files, or one file.
#[derive(Clone, Copy, Debug)]
enum Form {
    Folder,
    File,
}

const FORMS: [Form; 2] = [Form::Folder, Form::File];

/// A ruler that reads its files when it is reloaded, and refuses rules whose name contains `bad` and files
/// with two groups of one name.
struct Ruler {
    endpoint: Endpoint,
    form: Form,
    path: PathBuf,
    /// Whether the ruler's own configuration is broken.
    is_broken: Arc<AtomicBool>,
    /// Whether the ruler cannot be reloaded at the moment.
    is_busy: Arc<AtomicBool>,
    /// Names of the rules that the ruler had after each reload that it accepted.
    had: Arc<Mutex<Vec<BTreeSet<String>>>>,
    /// Number of reloads before the ruler fails: `usize::MAX` if it does not.
    fails_after: Arc<AtomicUsize>,
    /// Whether the ruler does not tell what it has.
    is_mute: Arc<AtomicBool>,
    /// Whether the ruler says of a reload that it is done, and keeps what it had.
    is_stuck: Arc<AtomicBool>,
}

/// The text of a file, or of each in a folder.
fn texts(path: &Path) -> Vec<(PathBuf, String)> {
    if let Ok(text) = fs::read_to_string(path) {
        return vec![(path.to_owned(), text)];
    }
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    let yaml = paths.filter(|path| path.extension().is_some_and(|it| it == "yaml"));
    yaml.filter_map(|path| Some((path.clone(), fs::read_to_string(path).ok()?)))
        .collect()
}

/// Names of the groups of a file.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let names = text.lines().filter_map(|it| it.strip_prefix("  - name: "));
    names.map(|name| name.trim_matches('\''))
}

/// A group of a rule file as Prometheus lists it.
fn listed(group: &Value, file: &Path) -> Value {
    let rules = group["rules"].as_array().into_iter().flatten();
    let rule = |rule: &Value| {
        let name = rule["record"].as_str();
        let name = name.or_else(|| rule["alert"].as_str()).unwrap();
        json!({ "name": name, "query": rule["expr"], "type": "recording", "health": "ok" })
    };
    let rules: Vec<_> = rules.map(rule).collect();
    let at = "2026-01-01T00:00:00Z";
    json!({ "name": group["name"], "file": file, "rules": rules, "lastEvaluation": at })
}

fn groups(path: &Path) -> Vec<Value> {
    let mut groups = Vec::new();
    for (path, text) in texts(path) {
        let file: Value = serde_saphyr::from_str(&text).unwrap();
        let of_file = file["groups"].as_array().into_iter().flatten();
        groups.extend(of_file.map(|group| listed(group, &path)));
    }
    groups
}

/// Whether the ruler refuses a file.
fn is_bad(text: &str) -> bool {
    let mut seen = BTreeSet::new();
    text.contains("record: bad") || !names(text).all(|name| seen.insert(name))
}

impl Ruler {
    fn of(form: Form, place: &TempDir, name: &str) -> Self {
        let path = place.path().join(match form {
            Form::Folder => name.to_owned(),
            Form::File => format!("{name}.yaml"),
        });
        let is_broken = Arc::new(AtomicBool::new(false));
        let is_busy = Arc::new(AtomicBool::new(false));
        let (reads, broken, busy) = (path.clone(), is_broken.clone(), is_busy.clone());
        let loaded = Mutex::new(Vec::new());
        let had: Arc<Mutex<Vec<BTreeSet<String>>>> = Arc::default();
        let fails_after = Arc::new(AtomicUsize::new(usize::MAX));
        let is_stuck = Arc::new(AtomicBool::new(false));
        let is_mute = Arc::new(AtomicBool::new(false));
        let (having, left, stuck) = (had.clone(), fails_after.clone(), is_stuck.clone());
        let mute = is_mute.clone();
        let endpoint = Endpoint::new(move |seen: &Seen| match seen.path.as_str() {
            "/-/reload" if busy.load(Ordering::SeqCst) => Reply::new(503),
            "/-/reload" if stuck.load(Ordering::SeqCst) => Reply::new(200).body(""),
            "/-/reload"
                if left.load(Ordering::SeqCst) != usize::MAX
                    && left
                        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                            left.checked_sub(1)
                        })
                        .is_err() =>
            {
                Reply::new(500).body("<html>the gateway failed</html>")
            }
            "/-/reload" => {
                let is_bad = |(_, text): &(PathBuf, String)| is_bad(text);
                match broken.load(Ordering::SeqCst) || texts(&reads).iter().any(is_bad) {
                    true => {
                        Reply::new(500).body("failed to reload config: one of the rules is bad")
                    }
                    false => {
                        let groups = groups(&reads);
                        let rules = groups.iter().flat_map(|it| it["rules"].as_array().unwrap());
                        let names = rules.map(|rule| rule["name"].as_str().unwrap().to_owned());
                        having.lock().unwrap().push(names.collect());
                        *loaded.lock().unwrap() = groups;
                        Reply::new(200).body("")
                    }
                }
            }
            _ if mute.load(Ordering::SeqCst) => Reply::new(500).body("not now"),
            _ => {
                let groups = loaded.lock().unwrap().clone();
                let answer = json!({ "status": "success", "data": { "groups": groups } });
                Reply::new(200).body(answer.to_string())
            }
        });
        Self {
            endpoint,
            form,
            path,
            is_broken,
            is_busy,
            had,
            fails_after,
            is_mute,
            is_stuck,
        }
    }

    fn keys(&self) -> String {
        let url = self.endpoint.url_of("");
        let key = match self.form {
            Form::Folder => "directory",
            Form::File => "file",
        };
        format!("{{ url = {url:?}, {key} = {:?} }}", self.path)
    }

    fn reloads(&self) -> usize {
        let seen = self.endpoint.seen();
        seen.iter().filter(|seen| seen.path == "/-/reload").count()
    }

    fn has(&self, what: &str) -> bool {
        texts(&self.path)
            .iter()
            .any(|(_, text)| text.contains(what))
    }

    /// The text of each tenant, without that of the others.
    fn by_tenant(&self) -> BTreeMap<String, String> {
        let mut by_tenant: BTreeMap<String, String> = BTreeMap::new();
        for (path, text) in texts(&self.path) {
            let parts = match self.form {
                Form::Folder => {
                    let name = path.file_name().unwrap().to_str().unwrap();
                    let tenant = name.split_once('~').map(|(tenant, _)| tenant.to_owned());
                    tenant.map(|tenant| (tenant, text)).into_iter().collect()
                }
                Form::File => {
                    let parts = text.split("\n  # metrifold: ").skip(1);
                    let part = |part: &str| {
                        let (note, text) = part.split_once('\n').unwrap();
                        let note: serde_json::Value = serde_json::from_str(note).unwrap();
                        (
                            note["tenant"].as_str().unwrap().to_owned(),
                            format!("{text}\n"),
                        )
                    };
                    parts.map(part).collect::<Vec<_>>()
                }
            };
            for (tenant, text) in parts {
                by_tenant.entry(tenant).or_default().push_str(&text);
            }
        }
        by_tenant
    }

    fn tenants(&self) -> BTreeSet<String> {
        self.by_tenant().into_keys().collect()
    }
}

struct Store {
    place: TempDir,
}

impl Store {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        Self { place }
    }

    fn put(&self, tenant: &str, groups: &[(&str, &str)]) {
        let folder = self.place.path().join("store/metrics/rules").join(tenant);
        fs::create_dir_all(&folder).unwrap();
        let groups: Vec<_> = groups
            .iter()
            .map(|(name, record)| {
                format!("- {{name: {name}, rules: [{{record: {record}, expr: up}}]}}\n")
            })
            .collect();
        let new = folder.join(".new");
        fs::write(&new, format!("groups:\n{}", groups.concat())).unwrap();
        fs::rename(new, folder.join("rules.yaml")).unwrap();
    }

    fn config(&self, rulers: &[&Ruler]) -> String {
        let store = self.place.path().join("store");
        let rulers: Vec<_> = rulers.iter().map(|ruler| ruler.keys()).collect();
        format!(
            "[sources.rules]\ntype = \"rules_api\"\naddress = \"INGEST\"\ndirectory = {store:?}\npoll_interval = \"100ms\"\n\
             [sinks.ruler]\ntype = \"ruler\"\ninputs = [\"rules\"]\nrulers = [{}]\nstatus_interval = \"200ms\"\n",
            rulers.join(", ")
        )
    }
}

fn status(program: &Metrifold, tenant: &str) -> serde_json::Value {
    let path = format!("/api/metrics/v1/{tenant}/rules?status=true");
    metrifold_testing::fetch(program.ingest, &path)
        .unwrap()
        .json()
}

#[test]
fn a_ruler_reloads_when_something_changes_and_the_writer_hears_of_it() {
    for form in FORMS {
        let store = Store::new();
        let ruler = Ruler::of(form, &store.place, "rules");
        store.put("a", &[("ggg", "rrr")]);
        let program = Metrifold::start(&store.config(&[&ruler]));
        until_so("it is loaded", || {
            let group = &status(&program, "a")["files"][0]["groups"][0]["rulers"][0];
            group["state"] == "loaded" && group["last_evaluation"] == "2026-01-01T00:00:00Z"
        });
        assert_eq!(ruler.reloads(), 1);
        store.put("b", &[("hhh", "sss")]);
        until_so("it has the other", || {
            status(&program, "b")["files"][0]["groups"][0]["rulers"][0]["state"] == "loaded"
        });
        assert_eq!(ruler.reloads(), 2);
    }
}

#[test]
fn a_group_is_called_loaded_only_if_the_ruler_has_its_newest_version() {
    for form in FORMS {
        let store = Store::new();
        let ruler = Ruler::of(form, &store.place, "rules");
        store.put("a", &[("ggg", "rrr"), ("hhh", "sss")]);
        let program = Metrifold::start(&store.config(&[&ruler]));
        let states = || {
            let groups = status(&program, "a")["files"][0]["groups"].clone();
            [0, 1].map(|at| groups[at]["rulers"][0]["state"].clone())
        };
        until_so("both are loaded", || states() == ["loaded", "loaded"]);
        ruler.is_busy.store(true, Ordering::SeqCst);
        let text = "groups: [{name: ggg, rules: [{record: new, expr: up}]}, {name: hhh, rules: [{record: sss, expr: up}]}]";
        let path = "/api/metrics/v1/a/rules";
        let answer = request("PUT", program.ingest, path, &[], text.as_bytes()).unwrap();
        assert_eq!(answer.status, 200);
        // Before and after the sink has it, and whatever the ruler says of the group by its name.
        assert_eq!(states(), ["pending", "loaded"]);
        until_so("the ruler does not reload", || ruler.reloads() >= 3);
        assert_eq!(states(), ["pending", "loaded"]);
        ruler.is_busy.store(false, Ordering::SeqCst);
        until_so("it is loaded", || states() == ["loaded", "loaded"]);
    }
}

#[test]
fn the_group_at_fault_is_found_and_all_others_go_on() {
    for form in FORMS {
        let store = Store::new();
        let ruler = Ruler::of(form, &store.place, "rules");
        for tenant in ["a", "b", "c", "d", "e"] {
            store.put(tenant, &[("ggg", "rrr")]);
        }
        let program = Metrifold::start(&store.config(&[&ruler]));
        until_so("all are loaded", || {
            ruler.tenants().len() == 5 && ruler.reloads() == 1
        });
        // A new group, and one that was valid before.
        store.put("b", &[("ggg", "bad_r"), ("hhh", "fine"), ("iii", "bad_i")]);
        store.put("d", &[("ggg", "fine_d")]);
        until_so("the others go on", || {
            ruler.has("fine_d") && ruler.has("record: fine")
        });
        until_so("the one at fault is told", || {
            let groups = status(&program, "b")["files"][0]["groups"].clone();
            let states: Vec<_> = (0..3)
                .map(|at| groups[at]["rulers"][0]["state"].clone())
                .collect();
            states == ["refused", "loaded", "refused"]
        });
        assert!(
            !ruler.has("bad"),
            "what is refused is not left for a restart"
        );
        assert!(
            ruler.by_tenant()["b"].contains("record: rrr\n"),
            "what it had before stays: {:?}",
            ruler.by_tenant()
        );
        // After a restart the sink finds the bad group again, starting from the ruler's present rules.
        drop(program);
        let program = Metrifold::start(&store.config(&[&ruler]));
        until_so("it is known again", || {
            let groups = status(&program, "b")["files"][0]["groups"].clone();
            groups[2]["rulers"][0]["state"] == "refused"
        });
        assert!(
            ruler.by_tenant()["b"].contains("record: rrr\n"),
            "what it had before stays: {:?}",
            ruler.by_tenant()
        );
        // A bad group is not tried again before it changes.
        let reloads = ruler.reloads();
        store.put("a", &[("ggg", "again")]);
        until_so("another change goes on", || ruler.has("again"));
        until_so("by one reload", || ruler.reloads() == reloads + 1);
        store.put("b", &[("ggg", "mended")]);
        until_so("mended, it is loaded", || ruler.has("mended"));
    }
}

#[test]
fn what_did_not_change_stays_loaded_during_the_search() {
    for form in FORMS {
        let store = Store::new();
        let ruler = Ruler::of(form, &store.place, "rules");
        store.put("a", &[("g", "of_a")]);
        store.put(
            "b",
            &[("old", "old_b"), ("same", "same_b"), ("gone", "gone_b")],
        );
        let program = Metrifold::start(&store.config(&[&ruler]));
        let state = |group: usize| {
            status(&program, "b")["files"][0]["groups"][group]["rulers"][0]["state"].clone()
        };
        until_so("all is loaded", || state(2) == "loaded");
        let before = ruler.had.lock().unwrap().len();
        store.put(
            "b",
            &[
                ("old", "bad_b"),
                ("new", "new_b"),
                ("same", "same_b"),
                ("worse", "bad_w"),
            ],
        );
        until_so("the ones at fault are found", || {
            [0, 1, 2, 3].map(state) == ["refused", "loaded", "loaded", "refused"]
        });
        let had = ruler.had.lock().unwrap()[before..].to_vec();
        for rules in &had {
            for kept in ["of_a", "old_b", "same_b"] {
                assert!(
                    rules.contains(kept),
                    "{form:?}: {kept} was unloaded: {had:?}"
                );
            }
        }
        assert!(!had.last().unwrap().contains("gone_b"));
        // The order of the groups is that of the file.
        let names: Vec<_> = texts(&ruler.path)
            .iter()
            .flat_map(|(_, text)| names(text).map(str::to_owned).collect::<Vec<_>>())
            .filter(|name| name != "g")
            .collect();
        assert_eq!(names, ["old", "new", "same"]);
    }
}

#[test]
fn a_ruler_that_fails_during_the_search_blames_no_tenant() {
    for form in FORMS {
        let store = Store::new();
        let ruler = Ruler::of(form, &store.place, "rules");
        for tenant in ["a", "b", "c", "d"] {
            store.put(tenant, &[("g", "before")]);
        }
        let program = Metrifold::start(&store.config(&[&ruler]));
        let state = |tenant: &str| {
            status(&program, tenant)["files"][0]["groups"][0]["rulers"][0]["state"].clone()
        };
        until_so("all is loaded", || state("d") == "loaded");
        // Refused, restored, and then no answer about the rules.
        ruler.fails_after.store(2, Ordering::SeqCst);
        store.put("b", &[("g", "bad")]);
        program.until_logged("the gateway failed");
        let reloads = ruler.reloads();
        until_so("it is tried again", || ruler.reloads() >= reloads + 2);
        let others = ["a", "b", "c", "d"].map(state);
        assert!(others.iter().all(|state| state != "refused"), "{others:?}");
        until_so("a restart meets no rules that were not accepted", || {
            !ruler.has("bad") && ruler.tenants().len() == 4
        });
        ruler.fails_after.store(usize::MAX, Ordering::SeqCst);
        until_so("the one at fault is found", || {
            ["a", "b", "c", "d"].map(state) == ["loaded", "refused", "loaded", "loaded"]
        });
        assert!(!ruler.has("bad"));
        // After a start at which it does not answer, nor does it meet new rules that it may refuse.
        drop(program);
        ruler.is_busy.store(true, Ordering::SeqCst);
        store.put("c", &[("g", "bad_c")]);
        let reloads = ruler.reloads();
        let _program = Metrifold::start(&store.config(&[&ruler]));
        until_so("it is tried", || ruler.reloads() > reloads);
        until_so("what it had is put back", || {
            !ruler.has("bad_c") && ruler.tenants().len() == 4
        });
    }
}

#[test]
fn an_old_version_of_a_group_is_not_taken_for_the_new_one() {
    for form in FORMS {
        let store = Store::new();
        let ruler = Ruler::of(form, &store.place, "rules");
        store.put("a", &[("ggg", "before")]);
        let program = Metrifold::start(&store.config(&[&ruler]));
        let state = || status(&program, "a")["files"][0]["groups"][0]["rulers"][0].clone();
        until_so("it is loaded", || state()["state"] == "loaded");
        let first = state();
        assert!(first["since"].as_u64().unwrap() > 0, "{first}");
        // The state stays as old as it is, though it is confirmed again and again.
        until_so("it is confirmed", || {
            state()["confirmed"].as_u64() > first["confirmed"].as_u64()
        });
        assert_eq!(state()["since"], first["since"]);
        ruler.is_stuck.store(true, Ordering::SeqCst);
        store.put("a", &[("ggg", "after")]);
        program.until_logged("this version of group");
        until_so("it is told so", || {
            state()["since"].as_u64() >= first["since"].as_u64()
        });
        let pending = state();
        assert_eq!(pending["state"], "pending");
        assert_eq!(pending["confirmed"], Value::Null);
        let reloads = ruler.reloads();
        until_so("it is reloaded again", || ruler.reloads() > reloads);
        ruler.is_stuck.store(false, Ordering::SeqCst);
        until_so("it is loaded", || state()["state"] == "loaded");
    }
}

#[test]
fn a_tenant_whose_sources_contradict_each_other_keeps_its_rules_and_holds_up_no_other() {
    for form in FORMS {
        let (store, other) = (Store::new(), Store::new());
        let ruler = Ruler::of(form, &store.place, "rules");
        let folder = store.place.path().join("plain");
        store.put("a", &[("g", "one_a")]);
        store.put("b", &[("g", "one_b")]);
        let config = || {
            let more = other.place.path().join("store");
            fs::create_dir_all(&more).unwrap();
            store
                .config(&[&ruler])
                .replace("inputs = [\"rules\"]", "inputs = [\"rules\", \"more\"]")
                + &format!(
                    "[sources.more]\ntype = \"rules_poll\"\ndirectory = {more:?}\npoll_interval = \"100ms\"\n\
                    [sinks.plain]\ntype = \"rules_directory\"\ninputs = [\"rules\", \"more\"]\npath = {folder:?}\n"
                )
        };
        let state = |program: &Metrifold, tenant: &str| {
            status(program, tenant)["files"][0]["groups"][0]["rulers"][0].clone()
        };
        let in_folder = |what: &str| texts(&folder).iter().any(|(_, text)| text.contains(what));
        let mut program = Metrifold::start(&config());
        until_so("both are loaded", || {
            state(&program, "a")["state"] == "loaded"
                && state(&program, "b")["state"] == "loaded"
                && in_folder("one_b")
        });
        other.put("a", &[("g", "two_a")]);
        until_so("the tenant is told", || {
            let state = state(&program, "a");
            state["state"] == "refused"
                && state["error"]
                    .as_str()
                    .unwrap()
                    .contains("comes from more than one source")
        });
        store.put("b", &[("g", "new_b")]);
        until_so("the other goes on", || {
            state(&program, "b")["state"] == "loaded" && ruler.has("new_b") && in_folder("new_b")
        });
        assert!(ruler.has("one_a") && !ruler.has("two_a"));
        assert!(in_folder("one_a") && !in_folder("two_a"));
        let told = program
            .log()
            .matches("the rules of a tenant were not delivered")
            .count();
        assert_eq!(told, 2, "once for each sink: {}", program.log());
        // So it is after a restart.
        drop(program);
        store.put("b", &[("g", "newer_b")]);
        program = Metrifold::start(&config());
        until_so("the other goes on", || {
            ruler.has("newer_b") && in_folder("newer_b")
        });
        assert!(ruler.has("one_a") && in_folder("one_a"));
        store.put("a", &[("g", "two_a")]);
        until_so("they agree", || {
            state(&program, "a")["state"] == "loaded" && ruler.has("two_a") && in_folder("two_a")
        });
    }
}

#[test]
fn a_ruler_with_a_broken_configuration_blames_no_tenant() {
    for form in FORMS {
        let store = Store::new();
        let ruler = Ruler::of(form, &store.place, "rules");
        store.put("a", &[("ggg", "rrr")]);
        let program = Metrifold::start(&store.config(&[&ruler]));
        until_so("it is loaded", || ruler.reloads() == 1);
        ruler.is_broken.store(true, Ordering::SeqCst);
        store.put("a", &[("ggg", "sss")]);
        program.until_logged("the cause is in its own configuration");
        assert!(
            ruler.has("record: rrr\n"),
            "what it took before is restored"
        );
        ruler.is_broken.store(false, Ordering::SeqCst);
        until_so("it is brought when the ruler is mended", || {
            ruler.has("record: sss\n")
        });
        let group = || status(&program, "a")["files"][0]["groups"][0]["rulers"][0]["state"].clone();
        until_so("and loaded", || group() == "loaded");
    }
}

#[test]
fn rules_that_no_ruler_has_judged_before_a_restart_are_not_taken_for_good_ones() {
    for form in FORMS {
        let store = Store::new();
        let ruler = Ruler::of(form, &store.place, "rules");
        ruler.is_busy.store(true, Ordering::SeqCst);
        store.put("a", &[("ggg", "fine_a")]);
        store.put("b", &[("ggg", "bad_b"), ("hhh", "fine_b")]);
        let program = Metrifold::start(&store.config(&[&ruler]));
        until_so("they are written, and the ruler does not reload", || {
            ruler.has("bad_b") && ruler.reloads() > 0
        });
        drop(program);
        ruler.is_busy.store(false, Ordering::SeqCst);
        let program = Metrifold::start(&store.config(&[&ruler]));
        let state = |tenant: &str, group: usize| {
            status(&program, tenant)["files"][0]["groups"][group]["rulers"][0]["state"].clone()
        };
        until_so("the one at fault is found", || {
            state("a", 0) == "loaded" && state("b", 0) == "refused" && state("b", 1) == "loaded"
        });
        assert!(ruler.has("fine_a") && ruler.has("fine_b") && !ruler.has("bad"));
        // A ruler that refuses no rules at all is blamed itself after a restart, too.
        drop(program);
        ruler.is_broken.store(true, Ordering::SeqCst);
        let program = Metrifold::start(&store.config(&[&ruler]));
        program.until_logged("the cause is in its own configuration");
        let has_all = || ruler.has("fine_a") && ruler.has("fine_b") && !ruler.has("bad");
        until_so("its rules are there for its own restart", has_all);
        let reloads = ruler.reloads();
        until_so("it is asked again", || ruler.reloads() >= reloads + 8);
        until_so("they are there again", has_all);
        // They outlive the process as well.
        drop(program);
        ruler.is_broken.store(false, Ordering::SeqCst);
        let program = Metrifold::start(&store.config(&[&ruler]));
        let state = |tenant: &str, group: usize| {
            status(&program, tenant)["files"][0]["groups"][group]["rulers"][0]["state"].clone()
        };
        until_so("the one at fault is found again", || {
            state("a", 0) == "loaded" && state("b", 0) == "refused" && state("b", 1) == "loaded"
        });
        assert!(has_all());
    }
}

#[test]
fn a_ruler_that_does_not_tell_what_it_has_is_not_given_less_to_find_out() {
    for form in FORMS {
        let store = Store::new();
        let ruler = Ruler::of(form, &store.place, "rules");
        ruler.is_busy.store(true, Ordering::SeqCst);
        store.put("a", &[("ggg", "fine_a")]);
        store.put("b", &[("ggg", "bad_b")]);
        let program = Metrifold::start(&store.config(&[&ruler]));
        until_so("they are written, and the ruler does not reload", || {
            ruler.has("bad_b") && ruler.reloads() > 0
        });
        drop(program);
        ruler.is_busy.store(false, Ordering::SeqCst);
        ruler.is_mute.store(true, Ordering::SeqCst);
        let program = Metrifold::start(&store.config(&[&ruler]));
        program.until_logged("not now");
        let reloads = ruler.reloads();
        until_so("it is tried again", || ruler.reloads() > reloads);
        assert_eq!(*ruler.had.lock().unwrap(), [] as [BTreeSet<String>; 0]);
        ruler.is_mute.store(false, Ordering::SeqCst);
        let state = |tenant: &str| {
            status(&program, tenant)["files"][0]["groups"][0]["rulers"][0]["state"].clone()
        };
        until_so("the one at fault is found", || {
            state("a") == "loaded" && state("b") == "refused"
        });
    }
}

#[test]
fn of_two_rulers_each_has_its_tenants() {
    for form in FORMS {
        let store = Store::new();
        let rulers = ["one", "two"].map(|name| Ruler::of(form, &store.place, name));
        let tenants: BTreeSet<String> = (0..12).map(|at| format!("tenant-{at}")).collect();
        for tenant in &tenants {
            store.put(tenant, &[("ggg", "rrr")]);
        }
        let _program = Metrifold::start(&store.config(&[&rulers[0], &rulers[1]]));
        until_so("every tenant has one", || {
            let (one, two) = (rulers[0].tenants(), rulers[1].tenants());
            one.is_disjoint(&two) && (&one | &two) == tenants && !one.is_empty() && !two.is_empty()
        });
    }
}

#[test]
fn tenants_whose_groups_have_one_name_are_told_apart_in_one_file() {
    let store = Store::new();
    let ruler = Ruler::of(Form::File, &store.place, "rules");
    store.put("a", &[("ggg", "of_a"), ("hhh", "more_of_a")]);
    let program = Metrifold::start(&store.config(&[&ruler]));
    let state = |tenant: &str, group: usize| {
        status(&program, tenant)["files"][0]["groups"][group]["rulers"][0].clone()
    };
    let names = || -> Vec<String> {
        let text = texts(&ruler.path).pop().unwrap().1;
        names(&text).map(str::to_owned).collect()
    };
    until_so("it is loaded", || state("a", 1)["state"] == "loaded");
    assert_eq!(names(), ["ggg", "hhh"]);
    store.put("b", &[("ggg", "of_b")]);
    until_so("both are loaded", || {
        let states = [state("a", 0), state("a", 1), state("b", 0)];
        states.iter().all(|state| {
            state["state"] == "loaded" && state["last_evaluation"] == "2026-01-01T00:00:00Z"
        })
    });
    let file = status(&program, "a")["files"][0]["file"].clone();
    let file = file.as_str().unwrap();
    let renamed = [
        format!("a/{file}/ggg"),
        "hhh".to_owned(),
        format!("b/{file}/ggg"),
    ];
    assert_eq!(names(), renamed);
    // One that is refused is told under its own name, and nobody's rules are taken for another's.
    store.put("b", &[("ggg", "bad_b"), ("hhh", "of_b")]);
    until_so("the one at fault is found", || {
        let states = [state("a", 0), state("a", 1), state("b", 0), state("b", 1)];
        let states = states.map(|state| state["state"].clone());
        states == ["loaded", "loaded", "refused", "loaded"]
    });
    assert!(ruler.by_tenant()["b"].contains("record: of_b\n") && !ruler.has("bad"));
    let path = "/api/metrics/v1/b/rules";
    let answer = request("DELETE", program.ingest, path, &[], b"").unwrap();
    assert_eq!(answer.status, 204);
    until_so("alone, they have their names again", || {
        names() == ["ggg", "hhh"]
    });
    until_so("and are loaded", || {
        state("a", 0)["state"] == "loaded" && state("a", 1)["state"] == "loaded"
    });
}

#[test]
fn what_is_unchanged_is_not_written_again_after_a_restart() {
    for form in FORMS {
        let store = Store::new();
        let ruler = Ruler::of(form, &store.place, "rules");
        store.put("a", &[("ggg", "rrr")]);
        store.put("b", &[("ggg", "rrr")]);
        let program = Metrifold::start(&store.config(&[&ruler]));
        until_so("it is loaded", || ruler.reloads() == 1);
        let stat = || {
            let stat = fs::symlink_metadata(&ruler.path).unwrap();
            (stat.ino(), stat.modified().unwrap())
        };
        let before = stat();
        drop(program);
        let program = Metrifold::start(&store.config(&[&ruler]));
        let state = || status(&program, "b")["files"][0]["groups"][0]["rulers"][0]["state"].clone();
        until_so("it is loaded again", || state() == "loaded");
        assert_eq!(ruler.reloads(), 2, "{form:?}");
        assert_eq!(stat(), before, "{form:?}");
    }
}

#[test]
fn a_file_of_another_program_stays_until_somebody_moves_it() {
    let store = Store::new();
    let ruler = Ruler::of(Form::File, &store.place, "rules");
    store.put("a", &[("ggg", "rrr")]);
    let theirs = "groups: [{name: theirs, rules: []}]\n";
    fs::write(&ruler.path, theirs).unwrap();
    let program = Metrifold::start(&store.config(&[&ruler]));
    program.until_logged("was not written by this component and is in the way: move it elsewhere");
    assert_eq!(fs::read_to_string(&ruler.path).unwrap(), theirs);
    assert_eq!(ruler.reloads(), 0);
    fs::rename(&ruler.path, store.place.path().join("moved")).unwrap();
    until_so("the rules are delivered", || ruler.has("record: rrr\n"));
}

#[test]
fn a_ruler_has_one_way_and_its_file_one_writer() {
    let told = |rulers: &str, more: &str| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("metrifold.toml");
        let config = format!(
            "[sources.rules]\ntype = \"rules_file\"\nfiles = [\"/nowhere/*.yaml\"]\n\
             [sinks.ruler]\ntype = \"ruler\"\ninputs = [\"rules\"]\nrulers = [{rulers}]\n{more}"
        );
        fs::write(&file, config).unwrap();
        let output = run(cli(&["validate", "-c"]).arg(&file));
        String::from_utf8(output.stderr).unwrap()
    };
    let needs = "rulers[0]: needs exactly one of directory, file and push_url";
    let url = "url = \"http://ruler\"";
    for (keys, problem) in [
        ("", needs),
        (", file = \"/r/a.yaml\", directory = \"/r/a\"", needs),
        (
            ", file = \"/r/a.yaml\", push_url = \"http://ruler/push\"",
            needs,
        ),
        (
            ", file = \"/r/..\"",
            "rulers[0].file: must end in the name of a file",
        ),
        (
            ", file = \"/r/\"",
            "rulers[0].file: must end in the name of a file",
        ),
    ] {
        let told = told(&format!("{{ {url}{keys} }}"), "");
        assert!(told.contains(problem), "{keys}: {told}");
    }
    for (one, two, problem) in [
        (
            "file = \"/r/a\"",
            "file = \"/r/a\"",
            "rulers[1].file: is the path of another ruler",
        ),
        (
            "directory = \"/r/a\"",
            "file = \"/r/a\"",
            "rulers[1].file: is the path of another ruler",
        ),
        (
            "file = \"/r/a\"",
            "file = \"/r/./a\"",
            "file \"/r/./a\" is written by sinks.ruler",
        ),
        (
            "file = \"/r/a/b\"",
            "directory = \"/r/a\"",
            "rulers[0].file: lies in the directory of a ruler",
        ),
    ] {
        let told = told(
            &format!("{{ {url}, {one} }}, {{ url = \"http://two\", {two} }}"),
            "",
        );
        assert!(told.contains(problem), "{one} {two}: {told}");
    }
    let rulers = format!("{{ {url}, file = \"/r/a.yaml\" }}");
    let other =
        format!("[sinks.other]\ntype = \"ruler\"\ninputs = [\"rules\"]\nrulers = [{rulers}]\n");
    let told = told(&rulers, &other);
    assert!(
        told.contains("file \"/r/a.yaml\" is written by sinks."),
        "{told}"
    );
}

/// Texts of groups, by tenant, namespace and name.
type Pushed = BTreeMap<(String, String, String), String>;

/// A ruler with Mimir's interface, which stores groups and refuses those that contain `bad`.
struct Mimir {
    endpoint: Endpoint,
    groups: Arc<Mutex<Pushed>>,
}

impl Mimir {
    fn new() -> Self {
        let groups: Arc<Mutex<Pushed>> = Arc::default();
        let own = groups.clone();
        let endpoint =
            Endpoint::new(move |seen: &Seen| Self::answer(&mut own.lock().unwrap(), seen));
        Self { endpoint, groups }
    }

    fn answer(groups: &mut Pushed, seen: &Seen) -> Reply {
        let Some(tenant) = seen.header("x-scope-orgid").map(str::to_owned) else {
            return Reply::new(401).body("no org id");
        };
        let path = seen
            .path
            .replace("%2E", ".")
            .replace("%2F", "/")
            .replace("%20", " ");
        if path.starts_with("/prometheus/api/v1/rules?") {
            let own = groups.keys().filter(|(owner, ..)| *owner == tenant);
            let listed: Vec<_> = own
                .map(|key| {
                    let group: Value = serde_saphyr::from_str(&groups[key]).unwrap();
                    listed(&group, Path::new(&key.1))
                })
                .collect();
            let answer = json!({ "status": "success", "data": { "groups": listed } });
            return Reply::new(200).body(answer.to_string());
        }
        let rest = path.strip_prefix("/prometheus/config/v1/rules").unwrap();
        let parts: Vec<_> = rest.trim_start_matches('/').splitn(2, '/').collect();
        match (&*seen.method, &parts[..]) {
            ("GET", _) => {
                let mut text = String::new();
                let mut last = None;
                for (owner, namespace, name) in groups.keys().filter(|(owner, ..)| *owner == tenant)
                {
                    if last != Some(namespace) {
                        text.push_str(&format!("{namespace}:\n"));
                        last = Some(namespace);
                    }
                    let group = groups[&(owner.clone(), namespace.clone(), name.clone())].clone();
                    text.push_str(&format!(
                        "    - {}\n",
                        group.trim_end().replace('\n', "\n      ")
                    ));
                }
                match text.is_empty() {
                    true => Reply::new(404).body("no rule groups found"),
                    false => Reply::new(200).body(text),
                }
            }
            ("POST", [namespace]) => {
                let text = String::from_utf8(seen.body.clone()).unwrap();
                if text.contains("record: bad") {
                    return Reply::new(400).body("invalid rules config: it is bad");
                }
                let first = text.lines().next().unwrap();
                let name = first
                    .strip_prefix("name: ")
                    .unwrap()
                    .trim_matches('\'')
                    .to_owned();
                groups.insert((tenant, (*namespace).to_owned(), name), text);
                Reply::new(202).body("{\"status\":\"success\"}")
            }
            ("DELETE", [namespace]) => {
                groups.retain(|(owner, of, _), _| *owner != tenant || of != namespace);
                Reply::new(202)
            }
            ("DELETE", [namespace, name]) => {
                groups.remove(&(tenant, (*namespace).to_owned(), (*name).to_owned()));
                Reply::new(202)
            }
            _ => Reply::new(405),
        }
    }

    /// Groups of a tenant, as `namespace/group`.
    fn has(&self, tenant: &str) -> Vec<String> {
        let groups = self.groups.lock().unwrap();
        let own = groups.keys().filter(|(owner, ..)| owner == tenant);
        own.map(|(_, namespace, name)| format!("{namespace}/{name}"))
            .collect()
    }

    fn texts(&self) -> String {
        self.groups.lock().unwrap().values().cloned().collect()
    }
}

#[test]
fn a_ruler_of_mimir_is_sent_what_changed_and_keeps_nothing_else_of_the_sink() {
    let place = tempfile::tempdir().unwrap();
    let mimir = Mimir::new();
    // Left by this sink, and by another program.
    for namespace in ["metrifold-stray", "own"] {
        let key = ("a".to_owned(), namespace.to_owned(), "x".to_owned());
        let mut groups = mimir.groups.lock().unwrap();
        groups.insert(key, "name: x\nrules: []\n".to_owned());
    }
    let (url, push) = (
        mimir.endpoint.url_of("/prometheus"),
        mimir.endpoint.url_of("/prometheus/config/v1/rules"),
    );
    let program = Metrifold::start(&format!(
        "[sources.rules]\ntype = \"rules_api\"\naddress = \"INGEST\"\ndirectory = {:?}\n\
         [sinks.ruler]\ntype = \"ruler\"\ninputs = [\"rules\"]\nrulers = [{{ url = {url:?}, push_url = {push:?} }}]\nstatus_interval = \"200ms\"\n",
        place.path()
    ));
    let put = |tenant: &str, file: &str, groups: &[(&str, &str)]| {
        let group = |(name, record): &(&str, &str)| {
            format!("{{name: {name}, rules: [{{record: {record}, expr: up}}]}}")
        };
        let groups: Vec<_> = groups.iter().map(group).collect();
        let text = format!("groups: [{}]", groups.join(", "));
        let path = format!("/api/metrics/v1/{tenant}/rules/{file}");
        let answer = request("PUT", program.ingest, &path, &[], text.as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    let state = |tenant: &str, file: usize, group: usize| {
        let path = format!("/api/metrics/v1/{tenant}/rules?status=true");
        let status = fetch(program.ingest, &path).unwrap().json();
        status["files"][file]["groups"][group]["rulers"][0].clone()
    };
    put("a", "one", &[("g", "r"), ("\"two words\"", "s")]);
    put("a", "v1.2", &[("h", "r")]);
    put("b", "one", &[("g", "r")]);
    until_so("each has its own", || {
        let own = [
            "metrifold-one/g",
            "metrifold-one/two words",
            "metrifold-v1.2/h",
            "own/x",
        ];
        mimir.has("a") == own && mimir.has("b") == ["metrifold-one/g"]
    });
    until_so("it is told that they are loaded", || {
        let state = state("a", 0, 0);
        state["state"] == "loaded" && state["last_evaluation"] == "2026-01-01T00:00:00Z"
    });
    let posts = || {
        let seen = mimir.endpoint.seen();
        seen.iter().filter(|seen| seen.method == "POST").count()
    };
    let before = posts();
    put("a", "one", &[("g", "changed"), ("worse", "bad")]);
    until_so("what changed is there, and what is gone is not", || {
        mimir.has("a") == ["metrifold-one/g", "metrifold-v1.2/h", "own/x"]
            && mimir.texts().contains("record: changed")
    });
    until_so("the tenant is told what was refused", || {
        let state = state("a", 0, 1);
        state["state"] == "refused" && state["error"].as_str().unwrap().contains("it is bad")
    });
    assert_eq!(posts() - before, 2, "what did not change is not sent");
    // Another program removes a group.
    let before = posts();
    mimir
        .groups
        .lock()
        .unwrap()
        .retain(|(tenant, ..), _| tenant != "b");
    until_so("it is sent again", || mimir.has("b") == ["metrifold-one/g"]);
    assert_eq!(posts() - before, 1, "rules of other tenants are not");
    for tenant in ["a", "b"] {
        let path = format!("/api/metrics/v1/{tenant}/rules");
        let answer = request("DELETE", program.ingest, &path, &[], b"").unwrap();
        assert_eq!(answer.status, 204);
    }
    until_so("a tenant without rules has only others' there", || {
        mimir.has("a") == ["own/x"] && mimir.has("b").is_empty()
    });
}

#[test]
fn without_a_prefix_all_namespaces_of_a_tenant_belong_to_the_sink() {
    let mimir = Mimir::new();
    let stray = ("a".to_owned(), "stray".to_owned(), "x".to_owned());
    let groups = mimir.groups.clone();
    let text = "name: x\nrules: []\n".to_owned();
    groups.lock().unwrap().insert(stray, text);
    let pushing = Pushing::with(&mimir, "namespace_prefix = \"\"\n");
    pushing.put("a", &[("g", "a_g")]);
    until_so("nothing else is there", || mimir.has("a") == ["rules/g"]);
    until_so("it is loaded", || {
        let status = status(&pushing.program, "a");
        status["files"][0]["groups"][0]["rulers"][0]["state"] == "loaded"
    });
}

/// A program that pushes what its API is given to a ruler of Mimir.
struct Pushing {
    program: Metrifold,
    _place: TempDir,
}

impl Pushing {
    fn to(mimir: &Mimir) -> Self {
        Self::with(mimir, "")
    }

    /// With more keys of the sink.
    fn with(mimir: &Mimir, keys: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let url = mimir.endpoint.url_of("/prometheus");
        let push = mimir.endpoint.url_of("/prometheus/config/v1/rules");
        let program = Metrifold::start(&format!(
            "[sources.rules]\ntype = \"rules_api\"\naddress = \"INGEST\"\ndirectory = {:?}\n\
             [sinks.ruler]\ntype = \"ruler\"\ninputs = [\"rules\"]\nrulers = [{{ url = {url:?}, push_url = {push:?} }}]\nstatus_interval = \"200ms\"\n{keys}",
            place.path()
        ));
        Self {
            program,
            _place: place,
        }
    }

    /// Gives a tenant groups with one rule each.
    fn put(&self, tenant: &str, groups: &[(&str, &str)]) {
        let group = |(name, record): &(&str, &str)| {
            format!("{{name: {name}, rules: [{{record: {record}, expr: up}}]}}")
        };
        let groups: Vec<_> = groups.iter().map(group).collect();
        let text = format!("groups: [{}]", groups.join(", "));
        let path = format!("/api/metrics/v1/{tenant}/rules");
        let answer = request("PUT", self.program.ingest, &path, &[], text.as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[test]
fn what_the_ruler_has_already_is_not_pushed_after_a_restart() {
    let mimir = Mimir::new();
    let mut pushing = Pushing::to(&mimir);
    pushing.put("a", &[("g", "a_g"), ("h", "a_h"), ("i", "a_i")]);
    pushing.put("b", &[("g", "b_g")]);
    until_so("all is there", || {
        mimir.has("a").len() == 3 && mimir.has("b").len() == 1
    });
    pushing.program.kill();
    // Another program changes a group meanwhile, and adds one.
    let key = |name: &str| {
        let namespace = "metrifold-rules".to_owned();
        ("a".to_owned(), namespace, name.to_owned())
    };
    let mut groups = mimir.groups.lock().unwrap();
    let text = groups[&key("h")].replace("a_h", "changed");
    groups.insert(key("h"), text);
    groups.insert(key("z"), "name: z\nrules: []\n".to_owned());
    // The ruler writes expressions in a form of its own, and keys of its own.
    let text = groups[&key("g")]
        .replace("expr: up", "expr: (up)")
        .replace("(up)", " up ");
    groups.insert(key("g"), format!("{text}source_tenants: [a]\n"));
    drop(groups);
    mimir.endpoint.take();
    pushing.program.start_again();
    until_so("what differs is mended", || {
        mimir.has("a").len() == 3 && mimir.texts().contains("a_h")
    });
    let state = |tenant: &str| {
        status(&pushing.program, tenant)["files"][0]["groups"][0]["rulers"][0]["state"].clone()
    };
    until_so("the rest is loaded", || {
        state("a") == "loaded" && state("b") == "loaded"
    });
    let seen = mimir.endpoint.take();
    let posts: Vec<_> = seen.iter().filter(|seen| seen.method == "POST").collect();
    assert_eq!(posts.len(), 1, "{posts:?}");
}

#[test]
fn an_answer_that_is_not_about_the_rules_condemns_no_group() {
    let mimir = Mimir::new();
    let code = Arc::new(AtomicUsize::new(0));
    let (groups, answers) = (mimir.groups.clone(), code.clone());
    mimir.endpoint.now(move |seen: &Seen| {
        let code = answers.load(Ordering::SeqCst);
        match seen.method == "POST" && code != 0 {
            true => Reply::new(u16::try_from(code).unwrap()).body("not now"),
            false => Mimir::answer(&mut groups.lock().unwrap(), seen),
        }
    });
    let pushing = Pushing::to(&mimir);
    for status_code in [401, 403, 429, 500, 503] {
        code.store(status_code, Ordering::SeqCst);
        let record = format!("r_{status_code}");
        pushing.put("a", &[("g", &record)]);
        pushing
            .program
            .until_logged(&format!("the ruler answered {status_code}"));
        let state = status(&pushing.program, "a")["files"][0]["groups"][0]["rulers"][0].clone();
        assert_ne!(state["state"], "refused");
        code.store(0, Ordering::SeqCst);
        until_so("it is pushed", || mimir.texts().contains(&record));
    }
}

#[test]
fn a_push_that_failed_halfway_leaves_no_group_that_is_not_wanted() {
    let mimir = Mimir::new();
    let is_failing = Arc::new(AtomicBool::new(false));
    let (groups, fails) = (mimir.groups.clone(), is_failing.clone());
    mimir.endpoint.now(move |seen: &Seen| {
        let is_second =
            seen.method == "POST" && String::from_utf8_lossy(&seen.body).contains("'h'");
        match is_second && fails.load(Ordering::SeqCst) {
            true => Reply::new(503),
            false => Mimir::answer(&mut groups.lock().unwrap(), seen),
        }
    });
    let pushing = Pushing::to(&mimir);
    pushing.put("a", &[("g", "before_g"), ("h", "before_h")]);
    until_so("both groups are there", || mimir.has("a").len() == 2);
    is_failing.store(true, Ordering::SeqCst);
    pushing.put("a", &[("g", "after_g"), ("h", "after_h")]);
    pushing
        .program
        .until_logged("the rules of some tenants were not delivered");
    assert!(mimir.texts().contains("after_g") && mimir.texts().contains("before_h"));
    pushing.put("a", &[("g", "before_g"), ("h", "before_h")]);
    is_failing.store(false, Ordering::SeqCst);
    until_so("the change is taken back", || {
        let texts = mimir.texts();
        texts.contains("before_g") && texts.contains("before_h") && !texts.contains("after")
    });
}

#[test]
fn a_tenant_that_moves_to_another_ruler_leaves_nothing_at_the_one_before() {
    let store = Store::new();
    let rulers = [Mimir::new(), Mimir::new()];
    let tenants: Vec<String> = (0..12).map(|at| format!("tenant-{at}")).collect();
    for tenant in &tenants {
        store.put(tenant, &[("g", "r")]);
    }
    // A tenant that nobody here knows is not touched.
    let namespace = "metrifold-rules".to_owned();
    let stranger = ("stranger".to_owned(), namespace, "g".to_owned());
    rulers[0]
        .groups
        .lock()
        .unwrap()
        .insert(stranger, "name: g\nrules: []\n".to_owned());
    let keys = rulers.each_ref().map(|ruler| {
        let url = ruler.endpoint.url_of("/prometheus");
        let push = ruler.endpoint.url_of("/prometheus/config/v1/rules");
        format!("{{ url = {url:?}, push_url = {push:?} }}")
    });
    let start = |rulers: &[String]| {
        Metrifold::start(&format!(
            "[sources.rules]\ntype = \"rules_poll\"\ndirectory = {:?}\n\
             [sinks.ruler]\ntype = \"ruler\"\ninputs = [\"rules\"]\nrulers = [{}]\n",
            store.place.path().join("store"),
            rulers.join(", ")
        ))
    };
    let has = |at: usize| -> Vec<bool> {
        let has = |tenant: &String| !rulers[at].has(tenant).is_empty();
        tenants.iter().map(has).collect()
    };
    let program = start(&keys[..1]);
    until_so("the first has all", || has(0).iter().all(|has| *has));
    drop(program);
    let _program = start(&keys);
    until_so("each tenant is at one of them", || {
        let (first, second) = (has(0), has(1));
        first
            .iter()
            .zip(&second)
            .all(|(first, second)| first != second)
            && second.iter().any(|has| *has)
    });
    assert_eq!(rulers[0].has("stranger"), ["metrifold-rules/g"]);
}

#[test]
fn a_tenant_that_the_ruler_fails_for_hides_the_state_of_no_other() {
    let mimir = Mimir::new();
    let groups = mimir.groups.clone();
    mimir
        .endpoint
        .now(move |seen: &Seen| match seen.header("x-scope-orgid") {
            Some("b") => Reply::new(500).body("no shard of it answers"),
            _ => Mimir::answer(&mut groups.lock().unwrap(), seen),
        });
    let pushing = Pushing::to(&mimir);
    for tenant in ["a", "b", "c"] {
        pushing.put(tenant, &[("g", "r")]);
    }
    let state = |tenant: &str| {
        status(&pushing.program, tenant)["files"][0]["groups"][0]["rulers"][0]["state"].clone()
    };
    until_so("others are told that their rules are loaded", || {
        state("a") == "loaded" && state("c") == "loaded" && state("b") == "pending"
    });
    pushing.program.until_logged("no shard of it answers");
}

#[test]
fn tenants_are_pushed_side_by_side_and_no_more_of_them_than_may_be() {
    let place = tempfile::tempdir().unwrap();
    for tenant in 0..10 {
        let folder = place.path().join(format!("metrics/rules/t{tenant}"));
        fs::create_dir_all(&folder).unwrap();
        let text = "groups: [{name: g, rules: [{record: r, expr: up}]}]\n";
        fs::write(folder.join("rules.yaml"), text).unwrap();
    }
    let mimir = Mimir::new();
    let groups = mimir.groups.clone();
    // Each push begins with a list request, which is answered only once the maximum number of requests
    // is in flight.
    mimir.endpoint.now(move |seen: &Seen| {
        let answer = Mimir::answer(&mut groups.lock().unwrap(), seen);
        match seen.method == "GET" {
            true => Does::Hang(answer),
            false => answer.into(),
        }
    });
    let (url, push) = (
        mimir.endpoint.url_of("/prometheus"),
        mimir.endpoint.url_of("/prometheus/config/v1/rules"),
    );
    let _program = Metrifold::start(&format!(
        "[sources.rules]\ntype = \"rules_poll\"\ndirectory = {:?}\n\
         [sinks.ruler]\ntype = \"ruler\"\ninputs = [\"rules\"]\nrulers = [{{ url = {url:?}, push_url = {push:?} }}]\nmax_pushes = 3\n",
        place.path()
    ));
    until_so("three are under way", || mimir.endpoint.most_at_once() == 3);
    mimir.endpoint.release();
    until_so("every tenant has its rules", || {
        (0..10).all(|tenant| mimir.has(&format!("t{tenant}")) == ["metrifold-rules/g"])
    });
    assert_eq!(mimir.endpoint.most_at_once(), 3);
}

#[test]
fn what_the_ruler_reads_is_whole_though_the_process_is_killed_at_random_moments() {
    for form in FORMS {
        const KILLS: usize = 12;
        let store = Store::new();
        let ruler = Ruler::of(form, &store.place, "out");
        let mut program = Metrifold::start(&store.config(&[&ruler]));
        // The number in the file that the ruler reads; `None` before the first one. A torn file lacks the
        // number or the end.
        let number = || -> Option<usize> {
            let text = texts(&ruler.path).pop()?.1;
            if text.ends_with("\ngroups: []\n") {
                return None;
            }
            let numbers: BTreeSet<&str> = text
                .lines()
                .filter_map(|line| {
                    line.trim()
                        .trim_start_matches("- ")
                        .strip_prefix("record: ")
                })
                .collect();
            let rules = text.matches("record: ").count();
            assert!(rules == 50 && numbers.len() == 1, "torn: {text:?}");
            numbers
                .first()?
                .trim_matches('\'')
                .strip_prefix('r')?
                .parse()
                .ok()
        };
        let body = |at: usize| {
            let rules = vec![format!("{{record: r{at}, expr: up}}"); 50].join(", ");
            format!("groups: [{{name: g, rules: [{rules}]}}]")
        };
        let mut random = Random(0x5eed);
        let (mut written, mut read) = (0, 0);
        for _ in 0..KILLS {
            let address = program.ingest;
            let answered = AtomicUsize::new(written);
            let enough = written + 1 + random.below(12);
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let _guard = StopOnPanic(&stop);
                let (answered, body, stop) = (&answered, &body, &stop);
                scope.spawn(move || {
                    for at in (written + 1..).take_while(|_| !stop.load(Ordering::SeqCst)) {
                        let path = "/api/metrics/v1/a/rules";
                        match request("PUT", address, path, &[], body(at).as_bytes()) {
                            Ok(answer) if answer.status == 200 => {
                                answered.store(at, Ordering::SeqCst)
                            }
                            _ => return,
                        }
                    }
                });
                until_so("it is written to", || {
                    let seen = number().unwrap_or(0);
                    assert!(seen >= read, "{seen} after {read}");
                    read = seen;
                    answered.load(Ordering::SeqCst) >= enough
                });
                program.kill();
            });
            let seen = number().unwrap_or(0);
            assert!(seen >= read && seen <= answered.load(Ordering::SeqCst) + 1);
            // Acknowledged rules are delivered to the ruler after the next start.
            written = answered.into_inner();
            program.start_again();
            until_so("the ruler gets what was stored", || {
                number().is_some_and(|seen| seen == written || seen == written + 1)
            });
            written = number().unwrap();
            read = written;
        }
    }
}
