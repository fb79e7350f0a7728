//! Reload as users meet it: what they do to files, and what they ask of the program, which runs
//! as a child. What a reload does to the graph is shown in the tests of the topology.

mod support_net;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;
use support_net::{
    Answer, Authority, Child, Does, Endpoint, Random, Reply, Sender, body, free_address, one,
    until, until_so,
};

/// A source, a sink and whatever else.
fn config(more: &str) -> String {
    format!(
        "[sources.ingest]\ntype = \"remote_write\"\naddress = \"INGEST\"\n\
         [sinks.out]\ntype = \"blackhole\"\ninputs = [\"ingest\"]\n{more}\n"
    )
}

/// A further sink.
fn sink(name: &str) -> String {
    format!("[sinks.{name}]\ntype = \"blackhole\"\ninputs = [\"ingest\"]\n")
}

fn file(child: &Child) -> PathBuf {
    child.folder().join("metrifold.toml")
}

/// Writes the file in place.
fn edit(child: &Child, config: &str) {
    fs::write(file(child), child.complete(config)).unwrap();
}

/// Puts another file in its place.
fn replace(child: &Child, config: &str) {
    let new = child.folder().join(".metrifold.toml.new");
    fs::write(&new, child.complete(config)).unwrap();
    fs::rename(new, file(child)).unwrap();
}

fn topology(child: &Child) -> Value {
    serde_json::from_slice(&child.get("/api/v1/topology").body).unwrap()
}

fn runs(child: &Child, component: &str) -> bool {
    let topology = topology(child);
    let components = topology["components"].as_array().unwrap();
    components.iter().any(|found| found["id"] == component)
}

fn reloads(child: &Child, outcome: &str) -> f64 {
    child.metric("metrifold_config_reloads_total", &[("outcome", outcome)])
}

fn successful(child: &Child) -> f64 {
    child.metric("metrifold_config_last_reload_successful", &[])
}

#[track_caller]
fn until_runs(child: &Child, component: &str) {
    until_so(&format!("{component} runs"), || runs(child, component));
}

#[track_caller]
fn until_refused(child: &Child, times: f64) -> String {
    until_so("the reload is refused", || {
        reloads(child, "refused") >= times
    });
    topology(child)["last_refused_reload"]["errors"].to_string()
}

/// Runs it so that its looks at the files can be counted.
const TALKATIVE: [&str; 2] = ["--log-level", "info,metrifold::reload=debug"];

fn looks(child: &Child) -> usize {
    child.stderr().matches("looked at the files").count()
}

/// Waits until it has looked at the files and found nothing: what it does next is due to an event.
#[track_caller]
fn until_quiet(child: &Child) {
    let before = looks(child);
    until_so("it looks at the files", || looks(child) > before);
}

/// Asks for a reload.
#[track_caller]
fn post(child: &Child) -> Answer {
    Sender::new(child.api).post("/-/reload", &[], b"")
}

#[track_caller]
fn post_expecting(child: &Child, status: u16, last: &str) -> String {
    let answer = post(child);
    let text = answer.text();
    assert_eq!(answer.status, status, "{text}");
    assert_eq!(text.lines().last(), Some(last), "{text}");
    text
}

/// Without watching, so that nothing but the test reloads.
#[track_caller]
fn unwatched(config: &str) -> Child {
    Child::start_with(config, &["--no-watch"])
}

/// `metrifold reload` with the child's configuration.
fn command(child: &Child, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_metrifold"))
        .arg("-c")
        .arg(file(child))
        .arg("reload")
        .args(arguments)
        .env_remove("METRIFOLD_LOG")
        .env_remove("METRIFOLD_CONFIG")
        .output()
        .unwrap()
}

#[test]
fn an_edit_in_place_and_a_replaced_file_are_both_applied_and_told() {
    let child = Child::start_with(&config(""), &TALKATIVE);
    let before = topology(&child);
    assert_eq!(before["last_reload"], Value::Null);
    assert_eq!(successful(&child), 1.0);

    edit(&child, &config(&sink("a")));
    until_runs(&child, "a");
    let after = topology(&child);
    assert_ne!(after["config_hash"], before["config_hash"]);
    let last = &after["last_reload"];
    assert_eq!(last["outcome"], "applied");
    assert_eq!(last["trigger"], "file");
    assert_eq!(last["changes"], "added sinks.a");
    let hash = after["config_hash"].as_str().unwrap();
    let shown = u64::from_str_radix(&hash[4..], 16).unwrap();
    assert_eq!(child.metric("metrifold_config_hash", &[]), shown as f64);
    let log = "configuration reloaded: added sinks.a";
    until_so("it is logged", || child.stderr().contains(log));

    // Three times, since a watch on the file itself would see the first only.
    for name in ["b", "c", "d"] {
        until_quiet(&child);
        replace(&child, &config(&sink(name)));
        until_runs(&child, name);
    }
    assert!(!runs(&child, "a"));
    assert_eq!(reloads(&child, "applied"), 4.0);
}

#[test]
fn a_config_map_is_followed_from_one_generation_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    fs::create_dir(root.join("..1")).unwrap();
    symlink("..1", root.join("..data")).unwrap();
    symlink("..data/metrifold.toml", root.join("metrifold.toml")).unwrap();
    let first = root.join("..1/metrifold.toml");
    let directory = root.display().to_string();
    let arguments = ["-c", &directory, TALKATIVE[0], TALKATIVE[1]];
    let child = Child::spawn_from(folder, &first, &config(""), &arguments, Stdio::null());
    let child = child.started(&config(""));
    for generation in 2..6 {
        let (new, old) = (format!("..{generation}"), format!("..{}", generation - 1));
        let name = format!("generation{generation}");
        fs::create_dir(root.join(&new)).unwrap();
        let text = child.complete(&config(&sink(&name)));
        fs::write(root.join(&new).join("metrifold.toml"), text).unwrap();
        until_quiet(&child);
        symlink(&new, root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        fs::remove_dir_all(root.join(old)).unwrap();
        until_runs(&child, &name);
    }
    assert_eq!(reloads(&child, "refused"), 0.0);
}

#[test]
fn files_of_a_directory_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("conf.d");
    fs::create_dir(&root).unwrap();
    let directory = root.display().to_string();
    let glob = format!("{directory}/*.conf");
    fs::write(root.join("a.conf"), "").unwrap();
    let first = root.join("0.toml");
    let arguments = ["-c", &directory, "-c", &glob, TALKATIVE[0], TALKATIVE[1]];
    let child = Child::spawn_from(folder, &first, &config(""), &arguments, Stdio::null());
    let child = child.started(&config(""));
    until_quiet(&child);
    fs::write(root.join("b.toml"), sink("in_directory")).unwrap();
    until_runs(&child, "in_directory");
    until_quiet(&child);
    fs::write(root.join("c.conf"), sink("in_glob")).unwrap();
    until_runs(&child, "in_glob");
    fs::remove_file(root.join("b.toml")).unwrap();
    until_so("it is gone", || !runs(&child, "in_directory"));
    // Another directory of the same name is watched, too.
    let aside = child.folder().join("aside");
    fs::create_dir(&aside).unwrap();
    for name in ["0.toml", "c.conf"] {
        fs::copy(root.join(name), aside.join(name)).unwrap();
    }
    fs::write(aside.join("d.toml"), sink("moved")).unwrap();
    fs::remove_dir_all(&root).unwrap();
    until_refused(&child, 1.0);
    fs::rename(&aside, &root).unwrap();
    until_runs(&child, "moved");
    until_quiet(&child);
    fs::write(root.join("e.toml"), sink("later")).unwrap();
    until_runs(&child, "later");
}

#[test]
fn a_missing_file_refuses_the_reload_and_ends_nothing() {
    let mut child = Child::start(&config(""));
    fs::remove_file(file(&child)).unwrap();
    let errors = until_refused(&child, 1.0);
    assert!(errors.contains("no such file or directory"), "{errors}");
    assert_eq!(successful(&child), 0.0);
    assert!(child.is_alive());
    assert_eq!(child.get("/-/ready").status, 200);

    // The same content again: all is well, and nothing changes.
    replace(&child, &config(""));
    until_so("all is well", || successful(&child) == 1.0);
    assert_eq!(reloads(&child, "unchanged"), 1.0);
    assert_eq!(topology(&child)["last_reload"]["outcome"], "unchanged");

    fs::remove_file(file(&child)).unwrap();
    until_refused(&child, 2.0);
    replace(&child, &config(&sink("again")));
    until_runs(&child, "again");
}

#[test]
fn a_broken_file_is_refused_with_every_error_and_without_secrets() {
    let child = Child::start(&config(""));
    let secret = "hunter2hunter2";
    let broken = format!(
        "{}basic_auth = {{ username = \"u\", password = \"{secret}\" }}\nendpont = \"x\"\n\
         [sinks.b]\ntype = \"blackhole\"\ninputs = [\"nobody\"]\n",
        "[sinks.a]\ntype = \"remote_write\"\ninputs = [\"ingest\"]\n"
    );
    replace(&child, &config(&broken));
    let errors = until_refused(&child, 1.0);
    assert!(
        errors.contains("endpont") && errors.contains("nobody"),
        "{errors}"
    );
    assert_eq!(topology(&child)["last_reload"]["outcome"], "refused");
    assert_eq!(child.get("/-/ready").status, 200);
    assert_eq!(
        Sender::new(child.ingest)
            .write(&body(&[one("up", 1)]))
            .status,
        204
    );

    // What does not even parse, on the line with the secret.
    let torn = format!("password = \"{secret}\n");
    replace(&child, &config(&torn));
    until_refused(&child, 2.0);
    let answer = post(&child);
    assert_eq!(answer.status, 422, "{}", answer.text());
    for shown in [
        answer.text(),
        child.stderr(),
        child.get("/api/v1/topology").text(),
        child.get("/").text(),
    ] {
        assert!(!shown.contains(secret), "{shown}");
    }

    replace(&child, &config(&sink("fixed")));
    until_runs(&child, "fixed");
    assert_eq!(successful(&child), 1.0);
    // It is still told, besides the last one.
    let topology = topology(&child);
    assert_eq!(topology["last_reload"]["outcome"], "applied");
    assert!(topology["last_refused_reload"]["time"].as_u64() > Some(0));
}

#[test]
fn requests_are_answered_with_the_outcome() {
    let child = unwatched(&config(""));
    let unchanged = "unchanged: what runs is what the files say";
    post_expecting(&child, 200, unchanged);
    // A comment changes the hash and nothing else.
    let before = topology(&child)["config_hash"].clone();
    edit(&child, &config("# a comment"));
    post_expecting(&child, 200, unchanged);
    assert_ne!(topology(&child)["config_hash"], before);

    edit(&child, &config(&sink("a")));
    post_expecting(&child, 200, "applied: added sinks.a");
    edit(
        &child,
        &config(
            "[transforms.unused]\ntype = \"tenant\"\ninputs = [\"ingest\"]\nfrom = [{ value = \"t\" }]",
        ),
    );
    let text = post(&child).text();
    assert!(
        text.starts_with("warning: nothing consumes `unused`"),
        "{text}"
    );

    edit(
        &child,
        &config("[sinks.b]\ntype = \"blackhole\"\ninputs = [\"x\"]\nkey = 1"),
    );
    let text = post_expecting(&child, 422, "refused: 2 errors, nothing was changed");
    let validate = Command::new(env!("CARGO_BIN_EXE_metrifold"))
        .args(["validate", "-c"])
        .arg(file(&child))
        .output()
        .unwrap();
    let validate = String::from_utf8(validate.stderr).unwrap();
    let errors = text.rsplit_once("refused").unwrap().0;
    assert!(validate.starts_with(errors), "{validate}\n---\n{errors}");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let moved = config(&sink("b")).replace("INGEST", &address.to_string());
    edit(&child, &moved);
    let text = post_expecting(&child, 409, "refused: 1 error, nothing was changed");
    assert!(
        text.contains("ingest") && text.contains(&address.to_string()),
        "{text}"
    );
    assert!(text.contains("metrifold.toml:3:10"), "{text}");
    assert!(!runs(&child, "b"));
    assert_eq!(
        Sender::new(child.ingest)
            .write(&body(&[one("up", 1)]))
            .status,
        204
    );
    drop(taken);
    post_expecting(
        &child,
        200,
        "applied: added sinks.b; changed sources.ingest; removed transforms.unused",
    );
    assert_eq!(
        Sender::new(address).write(&body(&[one("up", 2)])).status,
        204
    );

    let answer = child.get("/-/reload");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    assert_eq!(
        Sender::new(child.api).post("/metrics", &[], b"").status,
        405
    );
    assert_eq!(reloads(&child, "refused"), 2.0);
}

#[test]
fn everybody_who_asks_is_answered_by_a_reload_that_read_the_files_afterwards() {
    let child = unwatched(&config(""));
    for round in 0..5 {
        let name = format!("round{round}");
        edit(&child, &config(&sink(&name)));
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let answer = post(&child);
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    assert!(runs(&child, &name), "{name}");
                });
            }
        });
    }
    assert_eq!(reloads(&child, "applied"), 5.0);
}

#[test]
fn the_command_has_exit_codes() {
    let child = unwatched(&config(""));
    let run = |arguments: &[&str]| {
        let output = command(&child, arguments);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    edit(&child, &config(&sink("a")));
    let (code, out, err) = run(&[]);
    assert_eq!(
        (code, &*out),
        (Some(0), "applied: added sinks.a\n"),
        "{err}"
    );

    let address = child.api.to_string();
    edit(&child, &config("[sinks.b]"));
    for arguments in [&[][..], &["--address", &address]] {
        let (code, out, err) = run(arguments);
        assert_eq!((code, &*out), (Some(78), ""), "{err}");
        assert!(err.contains("sinks.b has no type"), "{err}");
    }
    // Asked only when the file does not say it already.
    assert_eq!(reloads(&child, "refused"), 1.0);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let moved = config("").replace("INGEST", &taken.local_addr().unwrap().to_string());
    edit(&child, &moved);
    let (code, _, err) = run(&[]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("cannot listen"), "{err}");

    let nobody = free_address().to_string();
    let (code, _, err) = run(&["--address", &nobody]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("cannot be asked"), "{err}");
}

#[test]
fn a_hangup_reloads_without_watching_too() {
    let child = unwatched(&config(""));
    edit(&child, &config(&sink("a")));
    child.signal("HUP");
    until_runs(&child, "a");
    assert_eq!(topology(&child)["last_reload"]["trigger"], "signal");
    assert_eq!(reloads(&child, "applied"), 1.0);
}

#[test]
fn identical_content_is_nothing_to_do() {
    let child = Child::start_with(&config(""), &TALKATIVE);
    let mut sender = Sender::new(child.ingest);
    assert_eq!(sender.write(&body(&[one("up", 1)])).status, 204);
    until_so("it looks at the files", || looks(&child) > 0);
    replace(&child, &config(""));
    until_quiet(&child);
    assert_eq!(topology(&child)["last_reload"], Value::Null);
    post_expecting(&child, 200, "unchanged: what runs is what the files say");
    replace(&child, &config(&sink("a")));
    until_runs(&child, "a");
    // Only the request was a reload.
    assert_eq!(reloads(&child, "unchanged"), 1.0);
    assert_eq!(reloads(&child, "applied"), 1.0);
    assert_eq!(sender.write(&body(&[one("up", 2)])).status, 204);
}

#[test]
fn after_a_storm_of_edits_the_newest_is_in_force() {
    let child = Child::start(&config(""));
    let mut random = Random(0x5eed);
    const EDITS: u32 = 300;
    for at in 0..EDITS {
        let text = match random.below(4) {
            0 => "[sinks".to_owned(),
            1 => config("[sinks.x]\ntype = \"none\""),
            _ => config(&sink(&format!("s{at}"))),
        };
        match random.below(3) {
            0 => edit(&child, &text),
            1 => replace(&child, &text),
            _ => {
                let _ = fs::remove_file(file(&child));
                edit(&child, &text);
            }
        }
        if random.below(20) == 0 {
            child.signal("HUP");
        }
        if random.below(20) == 0 {
            let status = post(&child).status;
            assert!([200, 422].contains(&status), "{status}");
        }
    }
    edit(&child, &config(&sink("newest")));
    until_runs(&child, "newest");
    let all: f64 = ["applied", "unchanged", "refused"]
        .map(|name| reloads(&child, name))
        .iter()
        .sum();
    assert!(all < f64::from(EDITS), "{all}");
    assert_eq!(child.get("/-/ready").status, 200);
    let text = post(&child).text();
    assert_eq!(text, "unchanged: what runs is what the files say");
}

#[test]
fn what_only_a_start_can_set_is_refused_at_its_place() {
    let child = unwatched(&config(""));
    let text = child.complete(&config(""));
    fs::write(file(&child), format!("data_dir = \"/tmp/x\"\n{text}")).unwrap();
    let answer = post_expecting(&child, 422, "refused: 1 error, nothing was changed");
    assert!(answer.contains("`data_dir` cannot be changed"), "{answer}");
    assert!(answer.contains("metrifold.toml:1:"), "{answer}");
}

#[test]
fn the_admin_address_moves_comes_and_goes() {
    let child = unwatched(&config(""));
    let (old, new) = (child.api, free_address());
    let text = child.complete(&config(""));
    let moved = text.replace(&old.to_string(), &new.to_string());
    fs::write(file(&child), &moved).unwrap();
    post_expecting(&child, 200, "applied: changed api");
    let page = support_net::fetch(new, "/-/ready").unwrap();
    assert_eq!(page.status, 200);
    until_so("the old address is closed", || {
        TcpListener::bind(old).is_ok()
    });

    // Taken by somebody else: refused, and the new one still answers.
    let taken = TcpListener::bind(old).unwrap();
    fs::write(file(&child), &text).unwrap();
    let answer = Sender::new(new).post("/-/reload", &[], b"");
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.text().contains("api: "), "{}", answer.text());
    drop(taken);

    fs::write(
        file(&child),
        config("").replace("INGEST", &child.ingest.to_string()),
    )
    .unwrap();
    let answer = Sender::new(new).post("/-/reload", &[], b"");
    assert_eq!(answer.text(), "applied: removed api");
    until_so("it is closed", || TcpListener::bind(new).is_ok());
    fs::write(file(&child), &text).unwrap();
    child.signal("HUP");
    until_so("it is there again", || support_net::fetch(old, "/").is_ok());
    assert_eq!(
        Sender::new(child.ingest)
            .write(&body(&[one("up", 1)]))
            .status,
        204
    );
}

#[test]
fn a_rules_file_changes_its_transform_alone() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yaml");
    let rule = |regex: &str| {
        format!("- {{ source_labels: [__name__], regex: '{regex}', action: drop }}\n")
    };
    fs::write(&rules, rule("b.*")).unwrap();
    let endpoint = Endpoint::healthy();
    let child = Child::start(&format!(
        "[sources.ingest]\ntype = \"remote_write\"\naddress = \"INGEST\"\n\
         [transforms.rules]\ntype = \"relabel\"\ninputs = [\"ingest\"]\nrules_file = {:?}\n\
         [sinks.out]\ntype = \"remote_write\"\ninputs = [\"rules\"]\nendpoint = \"{}\"\n",
        rules,
        endpoint.url()
    ));
    let mut sender = Sender::new(child.ingest);
    let batch = |at| body(&[one("a", at), one("b", at)]);
    assert_eq!(sender.write(&batch(1)).status, 204);
    fs::write(&rules, rule("a.*")).unwrap();
    until_so("it is applied", || reloads(&child, "applied") == 1.0);
    assert_eq!(
        topology(&child)["last_reload"]["changes"],
        "changed transforms.rules"
    );
    assert_eq!(sender.write(&batch(2)).status, 204);
    let samples = endpoint.accepted();
    assert_eq!(samples, [("a".to_owned(), 1), ("b".to_owned(), 2)]);

    fs::write(&rules, "- action: nonsense\n").unwrap();
    let errors = until_refused(&child, 1.0);
    assert!(errors.contains("rules.yaml:1"), "{errors}");
}

#[test]
fn a_certificate_that_is_missing_is_awaited() {
    let authority = Authority::new();
    let child = Child::start(&config(""));
    let (cert, key) = authority.issue("late");
    let aside = cert.with_extension("aside");
    fs::rename(&cert, &aside).unwrap();
    let with_tls = |path: &Path| {
        let tls = format!("tls = {{ cert_file = {path:?}, key_file = {key:?} }}");
        config(&format!(
            "[sources.tls]\ntype = \"remote_write\"\naddress = \"{}\"\n{tls}\n{}",
            free_address(),
            sink("x").replace("ingest", "tls")
        ))
    };
    replace(&child, &with_tls(&cert));
    let errors = until_refused(&child, 1.0);
    assert!(
        errors.contains("cannot read") && errors.contains("late.crt"),
        "{errors}"
    );
    assert!(!runs(&child, "tls"));
    // Nobody touches the configuration: the file that it names is enough.
    fs::rename(&aside, &cert).unwrap();
    until_runs(&child, "tls");
}

/// Ends the knocking, if the test fails too.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Changes the way in. The old one must then be closed and the new one open, and no connection may
/// be refused meanwhile.
fn rotate(
    child: &Child,
    change: impl FnOnce(),
    old: impl Fn() -> bool + Sync,
    new: impl Fn() -> bool + Sync,
) {
    assert!(old() && !new());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // Steadily, so that every moment of the change is seen.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                drop(Sender::new(child.ingest));
            }
        });
        let _ending = Ending(&done);
        change();
        until_so("the new one is let in", &new);
    });
    assert!(!old() && new());
}

#[test]
fn a_rotated_password_is_picked_up_without_a_refused_connection() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, "old\n").unwrap();
    let keys = format!("basic_auth = {{ username = \"u\", password_file = {password:?} }}\n");
    let child = Child::start(&config("").replace("[sinks", &format!("{keys}[sinks")));
    let enters = |header: &str| {
        let mut sender = Sender::new(child.ingest);
        let answer = sender.post(
            "/api/v1/write",
            &[("authorization", header)],
            &body(&[one("up", 1)]),
        );
        assert!([204, 401].contains(&answer.status), "{}", answer.text());
        answer.status == 204
    };
    let change = || fs::write(&password, "new\n").unwrap();
    // base64 of u:old and u:new
    rotate(
        &child,
        change,
        || enters("Basic dTpvbGQ="),
        || enters("Basic dTpuZXc="),
    );
    assert_eq!(
        topology(&child)["last_reload"]["changes"],
        "changed sources.ingest"
    );
    let shown = child.get("/api/v1/topology").text() + &child.stderr();
    assert!(!shown.contains("u:new") && !shown.contains("dTpuZXc="));
}

#[test]
fn a_renewed_certificate_is_shown_to_new_connections() {
    let (before, after) = (Authority::new(), Authority::new());
    let (cert, key) = before.issue("server");
    let keys = format!("tls = {{ cert_file = {cert:?}, key_file = {key:?} }}\n");
    let child = Child::start(&config("").replace("[sinks", &format!("{keys}[sinks")));
    let (old, new) = (before.client(None), after.client(None));
    let request = body(&[one("up", 1)]);
    let enters = |client| {
        let answer = Sender::tls(child.ingest, client).try_post("/api/v1/write", &[], &request);
        answer.is_ok_and(|answer| answer.status == 204)
    };
    until_so("it serves", || enters(&old));
    let change = || {
        let (new_cert, new_key) = after.issue("server");
        // One after the other, as most tools do: a pair that does not fit is refused meanwhile.
        fs::copy(new_key, &key).unwrap();
        fs::copy(new_cert, &cert).unwrap();
    };
    rotate(&child, change, || enters(&old), || enters(&new));
    let changes = &topology(&child)["last_reload"]["changes"];
    assert_eq!(changes, "changed sources.ingest");
}

#[test]
fn nothing_that_asks_for_a_reload_disturbs_the_end() {
    let endpoint = Endpoint::new(|_| Does::Hang(Reply::new(204)));
    let text = config("").replace(
        "type = \"blackhole\"",
        &format!(
            "type = \"remote_write\"\nrequired = false\nendpoint = \"{}\"",
            endpoint.url()
        ),
    );
    let mut child = Child::start(&text);
    assert_eq!(
        Sender::new(child.ingest)
            .write(&body(&[one("up", 1)]))
            .status,
        204
    );
    until_so("the request hangs", || !endpoint.seen().is_empty());
    child.signal("TERM");
    until_so("it shuts down", || child.stderr().contains("shutting down"));
    edit(&child, &config(&sink("late")));
    child.signal("HUP");
    let answer = until("it is answered", || {
        let answer = post(&child);
        (answer.status == 503).then_some(answer)
    });
    assert_eq!(answer.text(), "shutting down");
    endpoint.release();
    assert_eq!(child.wait().code(), Some(0));
}
