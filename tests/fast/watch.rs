//! Reloads by editing files: the program runs as a child process and watches them. The effect of a
//! reload on the graph is covered by the tests of the topology.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;

use metrifold_testing::config::{blackhole, smallest};
use metrifold_testing::edits::*;
use metrifold_testing::{
    Authority, Endpoint, Metrifold, Random, Sender, StopOnPanic, body, free_address, one, until_so,
};

#[test]
fn an_edit_in_place_and_a_replaced_file_are_both_applied_and_told() {
    let child = Metrifold::start_with(&smallest(""), &TALKATIVE);
    let before = topology(&child);
    assert_eq!(before["last_reload"], Value::Null);
    assert_eq!(successful(&child), 1.0);

    edit(&child, &smallest(&blackhole("a")));
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
    until_so("it is logged", || child.log().contains(log));

    // Three times: a watch on the file itself would see only the first replacement.
    for name in ["b", "c", "d"] {
        until_quiet(&child);
        replace(&child, &smallest(&blackhole(name)));
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
    let child = Metrifold::spawn_from(folder, &first, &smallest(""), &arguments, Stdio::null());
    let child = child.started(&smallest(""));
    for generation in 2..6 {
        let (new, old) = (format!("..{generation}"), format!("..{}", generation - 1));
        let name = format!("generation{generation}");
        fs::create_dir(root.join(&new)).unwrap();
        let text = child.complete(&smallest(&blackhole(&name)));
        fs::write(root.join(&new).join("metrifold.toml"), text).unwrap();
        until_quiet(&child);
        symlink(&new, root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        fs::remove_dir_all(root.join(old)).unwrap();
        until_runs(&child, &name);
    }
    assert_eq!(reloads(&child, "refused"), 0.0);
    let log = child.log();
    let odd = log.lines().find(|line| line.contains("notify"));
    assert_eq!(odd, None, "that is an ordinary day");
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
    let child = Metrifold::spawn_from(folder, &first, &smallest(""), &arguments, Stdio::null());
    let child = child.started(&smallest(""));
    until_quiet(&child);
    fs::write(root.join("b.toml"), blackhole("in_directory")).unwrap();
    until_runs(&child, "in_directory");
    until_quiet(&child);
    fs::write(root.join("c.conf"), blackhole("in_glob")).unwrap();
    until_runs(&child, "in_glob");
    fs::remove_file(root.join("b.toml")).unwrap();
    until_so("it is gone", || !runs(&child, "in_directory"));
    // A new directory with the same name is watched as well.
    let aside = child.folder().join("aside");
    fs::create_dir(&aside).unwrap();
    for name in ["0.toml", "c.conf"] {
        fs::copy(root.join(name), aside.join(name)).unwrap();
    }
    fs::write(aside.join("d.toml"), blackhole("moved")).unwrap();
    fs::remove_dir_all(&root).unwrap();
    until_refused(&child, 1.0);
    fs::rename(&aside, &root).unwrap();
    until_runs(&child, "moved");
    until_quiet(&child);
    fs::write(root.join("e.toml"), blackhole("later")).unwrap();
    until_runs(&child, "later");
}

#[test]
fn a_missing_file_refuses_the_reload_and_ends_nothing() {
    let mut child = Metrifold::start(&smallest(""));
    fs::remove_file(file(&child)).unwrap();
    let errors = until_refused(&child, 1.0);
    assert!(errors.contains("no such file or directory"), "{errors}");
    assert_eq!(successful(&child), 0.0);
    assert!(child.is_alive());
    assert_eq!(child.get("/-/ready").status, 200);

    // The original content: the failure is over, and nothing changes.
    replace(&child, &smallest(""));
    until_so("all is well", || successful(&child) == 1.0);
    assert_eq!(reloads(&child, "unchanged"), 1.0);
    assert_eq!(topology(&child)["last_reload"]["outcome"], "unchanged");

    fs::remove_file(file(&child)).unwrap();
    until_refused(&child, 2.0);
    replace(&child, &smallest(&blackhole("again")));
    until_runs(&child, "again");
}

#[test]
fn a_broken_file_is_refused_with_every_error_and_without_secrets() {
    let child = Metrifold::start(&smallest(""));
    let secret = "hunter2hunter2";
    let broken = format!(
        "{}basic_auth = {{ username = \"u\", password = \"{secret}\" }}\nendpont = \"x\"\n\
         [sinks.b]\ntype = \"blackhole\"\ninputs = [\"nobody\"]\n",
        "[sinks.a]\ntype = \"remote_write\"\ninputs = [\"ingest\"]\n"
    );
    replace(&child, &smallest(&broken));
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

    // Invalid TOML on the line with the secret.
    let torn = format!("password = \"{secret}\n");
    replace(&child, &smallest(&torn));
    until_refused(&child, 2.0);
    let answer = post(&child);
    assert_eq!(answer.status, 422, "{}", answer.text());
    for shown in [
        answer.text(),
        child.log(),
        child.get("/api/v1/topology").text(),
        child.get("/").text(),
    ] {
        assert!(!shown.contains(secret), "{shown}");
    }

    replace(&child, &smallest(&blackhole("fixed")));
    until_runs(&child, "fixed");
    assert_eq!(successful(&child), 1.0);
    // The refused reload is still shown, beside the last one.
    let topology = topology(&child);
    assert_eq!(topology["last_reload"]["outcome"], "applied");
    assert!(topology["last_refused_reload"]["time"].as_u64() > Some(0));
}

#[test]
fn identical_content_is_nothing_to_do() {
    let child = Metrifold::start_with(&smallest(""), &TALKATIVE);
    let mut sender = Sender::new(child.ingest);
    assert_eq!(sender.write(&body(&[one("up", 1)])).status, 204);
    until_so("it looks at the files", || looks(&child) > 0);
    replace(&child, &smallest(""));
    until_quiet(&child);
    assert_eq!(topology(&child)["last_reload"], Value::Null);
    post_expecting(
        &child,
        200,
        "unchanged: the files match the running configuration",
    );
    replace(&child, &smallest(&blackhole("a")));
    until_runs(&child, "a");
    // Only the request counted as a reload.
    assert_eq!(reloads(&child, "unchanged"), 1.0);
    assert_eq!(reloads(&child, "applied"), 1.0);
    assert_eq!(sender.write(&body(&[one("up", 2)])).status, 204);
}

#[test]
fn after_a_storm_of_edits_the_newest_is_in_force() {
    let child = Metrifold::start(&smallest(""));
    let mut random = Random(0x5eed);
    const EDITS: u32 = 300;
    for at in 0..EDITS {
        let text = match random.below(4) {
            0 => "[sinks".to_owned(),
            1 => smallest("[sinks.x]\ntype = \"none\""),
            _ => smallest(&blackhole(&format!("s{at}"))),
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
    edit(&child, &smallest(&blackhole("newest")));
    until_runs(&child, "newest");
    let all: f64 = ["applied", "unchanged", "refused"]
        .map(|name| reloads(&child, name))
        .iter()
        .sum();
    assert!(all < f64::from(EDITS), "{all}");
    assert_eq!(child.get("/-/ready").status, 200);
    let text = post(&child).text();
    let last = text.lines().last();
    assert_eq!(
        last,
        Some("unchanged: the files match the running configuration")
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
    let child = Metrifold::start(&format!(
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
    let child = Metrifold::start(&smallest(""));
    let (cert, key) = authority.issue("late");
    let aside = cert.with_extension("aside");
    fs::rename(&cert, &aside).unwrap();
    let with_tls = |path: &Path| {
        let tls = format!("tls = {{ cert_file = {path:?}, key_file = {key:?} }}");
        smallest(&format!(
            "[sources.tls]\ntype = \"remote_write\"\naddress = \"{}\"\n{tls}\n{}",
            free_address(),
            blackhole("x").replace("ingest", "tls")
        ))
    };
    replace(&child, &with_tls(&cert));
    let errors = until_refused(&child, 1.0);
    assert!(
        errors.contains("cannot read") && errors.contains("late.crt"),
        "{errors}"
    );
    assert!(!runs(&child, "tls"));
    // The configuration is not touched: the file that it names is enough.
    fs::rename(&aside, &cert).unwrap();
    until_runs(&child, "tls");
}

/// Changes how senders get in. The old way must be closed and the new one open afterwards, and no
/// connection may be refused in between.
fn rotate(
    child: &Metrifold,
    change: impl FnOnce(),
    old: impl Fn() -> bool + Sync,
    new: impl Fn() -> bool + Sync,
) {
    assert!(old() && !new());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // Connects all the time, so that no moment of the change is missed.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                drop(Sender::new(child.ingest));
            }
        });
        let _guard = StopOnPanic(&done);
        change();
        until_so("the new one is let in", &new);
        done.store(true, Ordering::Relaxed);
    });
    assert!(!old() && new());
}

#[test]
fn a_rotated_password_is_picked_up_without_a_refused_connection() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, "old\n").unwrap();
    let keys = format!("basic_auth = {{ username = \"u\", password_file = {password:?} }}\n");
    let child = Metrifold::start(&smallest("").replace("[sinks", &format!("{keys}[sinks")));
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
    // Base64 of u:old and u:new.
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
    let shown = child.get("/api/v1/topology").text() + &child.log();
    assert!(!shown.contains("u:new") && !shown.contains("dTpuZXc="));
}

#[test]
fn a_renewed_certificate_is_shown_to_new_connections() {
    let (before, after) = (Authority::new(), Authority::new());
    let (cert, key) = before.issue("server");
    let keys = format!("tls = {{ cert_file = {cert:?}, key_file = {key:?} }}\n");
    let child = Metrifold::start(&smallest("").replace("[sinks", &format!("{keys}[sinks")));
    let (old, new) = (before.client(None), after.client(None));
    let request = body(&[one("up", 1)]);
    let enters = |client| {
        let answer = Sender::tls(child.ingest, client).try_post("/api/v1/write", &[], &request);
        answer.is_ok_and(|answer| answer.status == 204)
    };
    until_so("it serves", || enters(&old));
    let change = || {
        let (new_cert, new_key) = after.issue("server");
        // One after the other, as most tools do: in between, a pair that does not match is refused.
        fs::copy(new_key, &key).unwrap();
        fs::copy(new_cert, &cert).unwrap();
    };
    rotate(&child, change, || enters(&old), || enters(&new));
    let changes = &topology(&child)["last_reload"]["changes"];
    assert_eq!(changes, "changed sources.ingest");
}
