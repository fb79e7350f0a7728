//! Providers of targets and their publishers, in the whole program.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::Value;

use metrifold_testing::edits::{edit, post, post_expecting};
use metrifold_testing::{
    Endpoint, Metrifold, Reply, cli, free_address, get, request, run, until, until_so,
};

/// Polls files often, since not all file systems report changes.
const OFTEN: &str = "watch_interval = \"100ms\"";

fn discovery(running: &Metrifold, query: &str) -> Value {
    running.get(&format!("/api/v1/discovery{query}")).json()
}

/// Addresses of a provider's targets.
fn addresses(running: &Metrifold, name: &str) -> Vec<String> {
    let found = discovery(running, &format!("?limit=1000&provider={name}"));
    let targets = found["targets"].as_array().unwrap();
    let address = |target: &Value| target["labels"]["__address__"].as_str().unwrap().to_owned();
    targets.iter().map(address).collect()
}

fn provider(running: &Metrifold, name: &str) -> Value {
    discovery(running, &format!("?provider={name}"))["providers"][0].clone()
}

#[track_caller]
fn until_has(running: &Metrifold, name: &str, expected: &[&str]) {
    until_so(&format!("{name} has {expected:?}"), || {
        addresses(running, name) == expected
    });
}

fn list(addresses: &[&str]) -> String {
    serde_json::json!([{ "targets": addresses, "labels": { "env": "prod" } }]).to_string()
}

/// A server of target lists.
fn server(addresses: &'static [&'static str]) -> Endpoint {
    Endpoint::new(move |_| answer(addresses))
}

fn answer(addresses: &[&str]) -> Reply {
    Reply::new(200)
        .header("content-type", "application/json")
        .body(list(addresses))
}

fn http(name: &str, server: &Endpoint, keys: &str) -> String {
    format!(
        "[discovery.{name}]\ntype = \"http\"\nurl = {:?}\nrefresh_interval = \"100ms\"\n{keys}\n",
        server.url_of("/list")
    )
}

#[test]
fn files_are_read_again_when_they_change_and_one_that_is_wrong_keeps_its_targets() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::write(root.join("a.json"), list(&["a:1"])).unwrap();
    fs::write(root.join("b.yaml"), "- targets: [b:1]\n").unwrap();
    fs::write(root.join("lines"), "c:1\n# no more\n").unwrap();
    let lines = root.join("lines");
    let json = root.join("*.json");
    let child = Metrifold::start(&format!(
        "[discovery.files]\ntype = \"file\"\nfiles = [{json:?}, {:?}]\n{OFTEN}\n\
         [discovery.lines]\ntype = \"file\"\nformat = \"lines\"\nfiles = [{lines:?}]\n{OFTEN}\n",
        root.join("*.yaml")
    ));
    until_has(&child, "files", &["a:1", "b:1"]);
    until_has(&child, "lines", &["c:1"]);

    for wrong in ["", "[{\"targets\":", "[null]", "[{\"target\":[]}]"] {
        fs::write(root.join("a.json"), wrong).unwrap();
        until_so("it is stale", || provider(&child, "files")["stale"] == true);
        assert_eq!(addresses(&child, "files"), ["a:1", "b:1"], "{wrong:?}");
        fs::write(root.join("a.json"), list(&["a:1"])).unwrap();
        until_so("it is well", || provider(&child, "files")["stale"] == false);
    }
    fs::write(root.join("c.json"), list(&["c:1", "d:1"])).unwrap();
    until_has(&child, "files", &["a:1", "b:1", "c:1", "d:1"]);
    fs::remove_file(root.join("c.json")).unwrap();
    until_has(&child, "files", &["a:1", "b:1"]);
    fs::write(root.join("a.json"), "[]").unwrap();
    until_has(&child, "files", &["b:1"]);
    // All files of a pattern are gone, as if the folder were not mounted.
    fs::remove_file(root.join("b.yaml")).unwrap();
    until_so("it is stale", || provider(&child, "files")["stale"] == true);
    assert_eq!(addresses(&child, "files"), ["b:1"]);
    fs::remove_file(&lines).unwrap();
    until_so("it is stale", || provider(&child, "lines")["stale"] == true);
    assert_eq!(addresses(&child, "lines"), ["c:1"]);
    let labels = [("discovery", "lines"), ("reason", "unreadable")];
    assert!(child.metric("metrifold_discovery_failures_total", &labels) >= 1.0);
    let of = [("discovery", "lines")];
    assert_eq!(child.metric("metrifold_discovery_stale", &of), 1.0);
    assert_eq!(child.metric("metrifold_discovery_targets", &of), 1.0);
}

#[test]
fn targets_in_a_config_map_are_followed_from_one_generation_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let generation = |number: usize| {
        let name = format!("..{number}");
        fs::create_dir(root.join(&name)).unwrap();
        let text = list(&[&format!("h{number}:1")]);
        fs::write(root.join(&name).join("t.json"), text).unwrap();
        symlink(&name, root.join("..tmp")).unwrap();
        fs::rename(root.join("..tmp"), root.join("..data")).unwrap();
    };
    generation(1);
    symlink("..data/t.json", root.join("t.json")).unwrap();
    // The poll is rare: a change is noticed by an event.
    let child = Metrifold::start(&format!(
        "[discovery.map]\ntype = \"file\"\nfiles = [{:?}]\nwatch_interval = \"1h\"\n",
        root.join("*.json")
    ));
    until_has(&child, "map", &["h1:1"]);
    for number in 2..5 {
        generation(number);
        fs::remove_dir_all(root.join(format!("..{}", number - 1))).unwrap();
        until_has(&child, "map", &[&format!("h{number}:1")]);
    }
}

#[test]
fn a_server_is_asked_as_prometheus_asks_and_for_changes_only() {
    let server = Endpoint::new(|seen| match seen.header("if-none-match") {
        Some("\"1\"") => Reply::new(304),
        _ => answer(&["a:1"]).header("etag", "\"1\""),
    });
    let child = Metrifold::start(&http(
        "h",
        &server,
        "basic_auth = { username = \"u\", password = \"p\" }",
    ));
    until_has(&child, "h", &["a:1"]);
    until_so("it was asked for changes", || {
        let seen = server.seen();
        seen.iter()
            .filter(|seen| seen.header("if-none-match").is_some())
            .count()
            > 2
    });
    let first = &server.seen()[0];
    assert_eq!(first.header("accept"), Some("application/json"));
    assert_eq!(
        first.header("x-prometheus-refresh-interval-seconds"),
        Some("0.1")
    );
    assert_eq!(first.header("authorization"), Some("Basic dTpw"));
    let seen = server.seen();
    assert_eq!(
        seen.iter()
            .filter(|seen| seen.header("if-none-match").is_none())
            .count(),
        1
    );
    assert_eq!(provider(&child, "h")["stale"], false);
    let found = discovery(&child, "");
    assert_eq!(
        found["targets"][0]["labels"]["__meta_url"],
        server.url_of("/list")
    );
}

#[test]
fn whatever_a_server_answers_that_is_no_list_keeps_the_targets() {
    let server = server(&["a:1", "b:1"]);
    let child = Metrifold::start(&http(
        "h",
        &server,
        "max_answer_bytes = \"1kB\"\ntimeout = \"200ms\"",
    ));
    until_has(&child, "h", &["a:1", "b:1"]);
    let json = || Reply::new(200).header("content-type", "application/json");
    let large = format!("[{}]", " ".repeat(2000));
    for (reply, reason) in [
        (Reply::new(500), "refused"),
        (Reply::new(404), "refused"),
        (Reply::new(401), "credentials"),
        (Reply::new(302).header("location", "/other"), "refused"),
        (Reply::new(200).body(list(&["c:1"])), "invalid"),
        (
            Reply::new(200)
                .header("content-type", "text/html")
                .body("[]"),
            "invalid",
        ),
        (json().body("[{\"targets\":[\"c:1\"]},null]"), "invalid"),
        (
            json().body("[{\"targets\":[\"c:1\"],\"label\":{}}]"),
            "invalid",
        ),
        (json().body("[]"), "empty"),
        (json().body(large), "too_large"),
    ] {
        let shown = format!("{reply:?}");
        server.now(move |_| reply.clone());
        until_so(&format!("{reason} is told for {shown}"), || {
            provider(&child, "h")["failing"][0]["reason"] == reason
        });
        assert_eq!(addresses(&child, "h"), ["a:1", "b:1"], "{shown}");
        server.now(|_| answer(&["a:1", "b:1"]));
        until_so("it is well", || provider(&child, "h")["stale"] == false);
    }
}

#[test]
fn redirects_are_followed_and_credentials_stay_with_their_server() {
    let other = server(&["a:1"]);
    let there = other.url_of("/there");
    let first = Endpoint::new(move |seen| match seen.path.as_str() {
        "/list" => Reply::new(307).header("location", "/next"),
        _ => Reply::new(301).header("location", &there),
    });
    let child = Metrifold::start(&http(
        "h",
        &first,
        "authorization = { credentials = \"t\" }",
    ));
    until_has(&child, "h", &["a:1"]);
    assert!(
        first.seen()[..2]
            .iter()
            .all(|seen| seen.header("authorization") == Some("Bearer t"))
    );
    assert_eq!(other.seen()[0].header("authorization"), None);
}

#[test]
fn credentials_do_not_come_back_with_a_redirect_from_another_server() {
    let other = server(&[]);
    let there = other.url_of("/there");
    let first = Endpoint::new(move |seen| match seen.path.as_str() {
        "/back" => answer(&["a:1"]),
        _ => Reply::new(307).header("location", &there),
    });
    let back = first.url_of("/back");
    other.now(move |_| Reply::new(307).header("location", &back));
    let child = Metrifold::start(&http(
        "h",
        &first,
        "authorization = { credentials = \"t\" }",
    ));
    until_has(&child, "h", &["a:1"]);
    let seen = first.seen();
    let returned = seen.iter().find(|seen| seen.path == "/back").unwrap();
    assert_eq!(returned.header("authorization"), None);
}

#[test]
fn targets_outlive_a_restart_with_their_server_down_and_are_published_all_the_while() {
    let folder = tempfile::tempdir().unwrap();
    let (file, lines) = (folder.path().join("t.json"), folder.path().join("t.txt"));
    let server = server(&["b:1", "a:1"]);
    let address = free_address();
    let config = format!(
        "data_dir = {:?}\n{}[publish.both]\ndiscovery = \"h\"\nfile = {file:?}\n\
         relabel = [{{ regex = \"__meta_.*\", action = \"labeldrop\" }}, {{ source_labels = [\"env\"], target_label = \"stage\" }}]\n\
         http_sd = {{ listener = \"out\", path = \"/t\" }}\n\
         [publish.lines]\ndiscovery = \"h\"\nformat = \"lines\"\nfile = {lines:?}\n\
         [listeners.out]\naddress = \"{address}\"\n",
        folder.path().join("data"),
        http("h", &server, "")
    );
    let mut child = Metrifold::start(&config);
    let expected = "[\n  {\"labels\":{\"env\":\"prod\",\"stage\":\"prod\"},\"targets\":[\"a:1\",\"b:1\"]}\n]\n";
    let published = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    until_so("it is published", || published(&file) == expected);
    until_so("lines are published", || published(&lines) == "a:1\nb:1\n");
    let url = format!("http://{address}/t");
    let served = get(&url);
    assert_eq!(
        (served.status, &served.body[..]),
        (200, expected.as_bytes())
    );
    assert_eq!(served.header("content-type"), Some("application/json"));
    let tag = served.header("etag").unwrap().to_owned();
    let known = request("GET", address, "/t", &[("if-none-match", &tag)], b"").unwrap();
    assert_eq!((known.status, known.body.len()), (304, 0));

    // The target before and after the rules.
    let found = discovery(&child, "?search=b:1");
    assert_eq!(found["matched"], 1);
    let target = &found["targets"][0];
    assert_eq!(target["labels"]["__meta_url"], server.url_of("/list"));
    let after = &target["published"][0];
    assert_eq!(after["publish"], "both");
    assert_eq!(after["labels"]["stage"], "prod");
    assert_eq!(after["labels"]["__meta_url"], Value::Null);

    let written = fs::metadata(&file).unwrap().modified().unwrap();
    let kept = folder.path().join("data/discovery/h.json");
    until_so("it is kept", || published(&kept).contains("a:1"));
    server.now(|_| Reply::new(503));
    child.kill();
    child.start_again();
    until_so("it has failed", || {
        provider(&child, "h")["failing"][0]["reason"] == "refused"
    });
    let state = provider(&child, "h");
    assert_eq!(
        (&state["stale"], &state["inherited"]),
        (&true.into(), &true.into())
    );
    assert!(state["age_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(addresses(&child, "h"), ["a:1", "b:1"]);
    until_so("it is served again", || {
        get(&url).body == expected.as_bytes()
    });
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), written);

    server.now(|_| answer(&["a:1"]));
    until_so("it changes", || !published(&file).contains("b:1"));
    assert_eq!(provider(&child, "h")["inherited"], false);
}

#[test]
fn without_a_memory_nothing_is_published_before_every_source_has_answered() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let out = root.join("out.json");
    fs::write(&out, "before").unwrap();
    fs::write(root.join("a.json"), list(&["a:1"])).unwrap();
    let address = free_address();
    let child = Metrifold::start(&format!(
        "[discovery.f]\ntype = \"file\"\nfiles = [{:?}, {:?}]\n{OFTEN}\n\
         [publish.p]\ndiscovery = \"f\"\nfile = {out:?}\nhttp_sd = {{ address = \"{address}\", path = \"/t\" }}\n",
        root.join("a.json"),
        root.join("b.json"),
    ));
    until_has(&child, "f", &["a:1"]);
    assert_eq!(provider(&child, "f")["standing"], "partial");
    assert_eq!(get(&format!("http://{address}/t")).status, 503);
    assert_eq!(fs::read_to_string(&out).unwrap(), "before");
    fs::write(root.join("b.json"), list(&["b:1"])).unwrap();
    until_so("it is published", || {
        fs::read_to_string(&out).unwrap().contains("b:1")
    });
}

#[test]
fn a_reload_keeps_what_is_unchanged_and_refuses_what_cannot_be() {
    let server = server(&["a:1"]);
    let other = Endpoint::new(|_| Reply::new(500));
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("t.json");
    let base = |url: &Endpoint, rule: &str| {
        format!(
            "{}[discovery.s]\ntype = \"static\"\ntargets = [\"s:1\"]\n\
             [publish.p]\ndiscovery = \"h\"\nfile = {out:?}\nrelabel = [{rule}]\n",
            http("h", url, "refresh_interval = \"1h\"").replacen(
                "refresh_interval = \"100ms\"\n",
                "",
                1
            )
        )
    };
    let child = Metrifold::start_with(&base(&server, ""), &["--no-watch"]);
    until_has(&child, "h", &["a:1"]);
    let asked = server.seen().len();
    edit(
        &child,
        &(base(&server, "") + "[discovery.t]\ntype = \"static\"\ntargets = [\"t:1\"]\n"),
    );
    post_expecting(&child, 200, "applied: added discovery.t");
    until_has(&child, "t", &["t:1"]);
    edit(
        &child,
        &base(&server, "{ regex = \"env\", action = \"labeldrop\" }"),
    );
    post_expecting(
        &child,
        200,
        "applied: changed publish.p; removed discovery.t",
    );
    until_so("the rule holds", || {
        fs::read_to_string(&out).is_ok_and(|text| !text.contains("env"))
    });
    // The server is queried once an hour, and the reload causes no query.
    assert_eq!(server.seen().len(), asked);
    assert_eq!(child.get("/api/v1/discovery?provider=t").status, 404);

    // The changed provider gets no answer: its known targets stay.
    edit(&child, &base(&other, ""));
    post_expecting(&child, 200, "applied: changed discovery.h, publish.p");
    until_so("it has failed", || {
        provider(&child, "h")["failing"][0]["reason"] == "refused"
    });
    assert_eq!(addresses(&child, "h"), ["a:1"]);
    assert!(fs::read_to_string(&out).unwrap().contains("a:1"));

    let wrong = base(&server, "").replace("discovery = \"h\"", "discovery = \"hh\"");
    edit(&child, &wrong);
    let answer = post(&child);
    let said = answer.text();
    assert_eq!(answer.status, 422, "{said}");
    assert!(
        said.contains("publish.p: there is no provider `hh`"),
        "{said}"
    );
    assert!(said.contains("did you mean `h`?"), "{said}");
}

#[test]
fn thousands_of_targets_are_listed_page_by_page_and_found_by_a_search() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t");
    let all: Vec<String> = (0..20_000)
        .map(|number| format!("h{number:05}:1\n"))
        .collect();
    fs::write(&file, all.concat()).unwrap();
    let child = Metrifold::start(&format!(
        "[discovery.many]\ntype = \"file\"\nformat = \"lines\"\nfiles = [{file:?}]\n{OFTEN}\n"
    ));
    until("all are there", || {
        let found = discovery(&child, "?limit=1000&offset=19990");
        (found["matched"] == 20_000)
            .then_some(found["targets"].as_array().unwrap().len())
            .filter(|listed| *listed == 10)
    });
    let found = discovery(&child, "?search=h1234&limit=3");
    assert_eq!(found["matched"], 10);
    assert_eq!(found["targets"].as_array().unwrap().len(), 3);
    let page = child.get("/").text();
    assert!(page.contains("/api/v1/discovery?"), "{page}");
    for wrong in ["?limit=1001", "?name=many"] {
        assert_eq!(child.get(&format!("/api/v1/discovery{wrong}")).status, 400);
    }
}

#[test]
fn discover_prints_once_what_a_provider_finds() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("m.toml");
    let server = server(&["b:1", "a:1"]);
    fs::write(&config, http("h", &server, "")).unwrap();
    let path = config.display().to_string();
    let discover = |more: &[&str]| run(&mut cli(&[&["-c", &path, "discover"], more].concat()));
    let found = discover(&["h"]);
    let url = server.url_of("/list");
    let line = |address: &str| {
        format!("{{__address__=\"{address}\", __meta_url={url:?}, env=\"prod\"}}\n")
    };
    let printed = String::from_utf8(found.stdout).unwrap();
    assert_eq!(printed, line("a:1") + &line("b:1"));
    assert_eq!(found.status.code(), Some(0));
    let json = discover(&["h", "--format", "json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["targets"][0]["__address__"], "a:1");

    server.now(|_| Reply::new(500));
    let failed = discover(&["h"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("(refused)"));
    assert_eq!(discover(&["x"]).status.code(), Some(64));
}
