//! The configuration from the outside: files, the command line, exit codes.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use proptest::prelude::*;

use metrifold_engine::config;
use metrifold_engine::config::{LoadOptions, ProcessEnvironment, Severity, unknown_keys};
use metrifold_http::Methods;
use metrifold_testing::{Process, run};

use crate::components::components;

const VALID: &str = r#"
[sources.ingest]
type = "remote_write"
address = "127.0.0.1:0"

[sinks.out]
type = "blackhole"
inputs = ["ingest"]
"#;

fn metrifold(arguments: &[&str]) -> Output {
    run(&mut metrifold_testing::cli(arguments))
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn every_file_that_a_key_names_is_known_to_the_reload() {
    let mut seen = 0;
    for info in components() {
        let keys = info.keys();
        let files: Vec<&str> = keys
            .iter()
            .map(|key| key.name.as_str())
            .filter(|name| name.ends_with("_file"))
            .collect();
        if files.is_empty() {
            continue;
        }
        let example = |key: &str| match key {
            "address" | "mpp.address" | "expose.address" => Some("\"127.0.0.1:0\""),
            "directory" => Some("\"/nowhere/rules\""),
            "rulers" => Some("[{ url = \"http://127.0.0.1:1/\", directory = \"/nowhere/rules\" }]"),
            "discovery" => Some("\"found\""),
            "endpoint" | "backend.url" => Some("\"http://127.0.0.1:1/\""),
            "bucket.url" => Some("\"s3://rules\""),
            "status_from.urls" => Some("[\"http://127.0.0.1:1/\"]"),
            key if key.ends_with("oauth2.token_url") => Some("\"http://127.0.0.1:1/\""),
            key if key.ends_with(".username") || key.ends_with(".client_id") => Some("\"name\""),
            _ => None,
        };
        let mut text = format!("[{}.x]\ntype = {:?}\n", info.kind.table(), info.name);
        for key in &keys {
            if let Some(value) = example(&key.name) {
                text.push_str(&format!("{} = {value}\n", key.name));
            } else if key.name.ends_with("_file") {
                text.push_str(&format!("{} = \"/nowhere/{}\"\n", key.name, key.name));
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let file = write(directory.path(), "a.toml", &text);
        // The configuration has errors, but its files must be watched all the same.
        let options = LoadOptions::default();
        let reading = config::read(&[file], &ProcessEnvironment, options);
        assert!(reading.outcome.is_err(), "{text}");
        let found: Vec<_> = reading.files.keys().map(|path| path.display()).collect();
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        for name in &files {
            assert!(
                found.contains(&format!("/nowhere/{name}")),
                "{name} of {text}: {found:?}"
            );
        }
        seen += files.len();
    }
    assert!(seen >= 15, "{seen}");
}

#[test]
fn a_valid_configuration_is_counted_on_stdout() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "a.toml", VALID);
    let output = metrifold(&["validate", "-c", &file]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        stdout(&output),
        "valid: 1 source, 0 transforms, 1 sink, 0 warnings\n"
    );
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_wrong_configuration_has_its_exit_code_and_its_errors_on_stderr() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(
        directory.path(),
        "a.toml",
        &VALID.replace("inputs", "input"),
    );
    for command in ["validate", "run", "graph"] {
        let output = metrifold(&[command, "-c", &file]);
        assert_eq!(output.status.code(), Some(78));
        assert_eq!(stdout(&output), "");
        let errors = stderr(&output);
        assert!(errors.contains("a.toml:8:1"), "{errors}");
        assert!(
            errors.contains("the configuration has 2 errors"),
            "{errors}"
        );
    }
}

#[test]
fn warnings_fail_only_when_they_are_denied() {
    let directory = tempfile::tempdir().unwrap();
    let text = format!("{VALID}[sources.idle]\ntype = \"internal_metrics\"\n");
    let file = write(directory.path(), "a.toml", &text);
    let output = metrifold(&["validate", "-c", &file]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("warning: nothing consumes `idle`"));
    let output = metrifold(&["validate", "--deny-warnings", "-c", &file]);
    assert_eq!(output.status.code(), Some(78));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let output = metrifold(&["-c", "/nowhere/metrifold.toml"]);
    assert_eq!(output.status.code(), Some(78));
    let errors = stderr(&output);
    assert!(
        errors.contains("cannot read /nowhere/metrifold.toml: no such file or directory"),
        "{errors}"
    );
}

#[test]
fn directories_and_files_are_merged() {
    let directory = tempfile::tempdir().unwrap();
    let (sources, sinks) = VALID.split_at(VALID.find("[sinks").unwrap());
    write(directory.path(), "b.toml", sinks);
    write(directory.path(), "a.toml", sources);
    let patterns = [directory.path().display().to_string()];
    let loaded = config::load(&patterns, &ProcessEnvironment, LoadOptions::default()).unwrap();
    assert_eq!(loaded.config.sinks.len(), 1);
    let extra = write(directory.path(), "c.toml", sinks);
    let found = config::load(&patterns, &ProcessEnvironment, LoadOptions::default()).unwrap_err();
    assert_eq!(found.len(), 1);
    let place = found[0].place.as_ref().unwrap();
    assert_eq!((place.file(), place.line()), (&*extra, 1));
    let (first, _) = found[0].related.as_ref().unwrap();
    assert!(first.file().ends_with("b.toml"));
}

#[test]
fn what_is_generated_is_valid() {
    let directory = tempfile::tempdir().unwrap();
    for names in [
        &["remote_write:sinks.remote_write"][..],
        &[
            "sources.remote_write",
            "internal_metrics",
            "thanos",
            "blackhole",
            "console",
        ],
        &["remote_write:remote_write,sinks.thanos"],
        &["remote_write:tenant,relabel:thanos"],
    ] {
        let mut arguments = vec!["generate"];
        arguments.extend(names);
        let output = metrifold(&arguments);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let file = write(directory.path(), "a.toml", &stdout(&output));
        let output = metrifold(&[
            "validate",
            "--no-environment",
            "--deny-warnings",
            "-c",
            &file,
        ]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
}

#[test]
fn what_is_generated_of_any_component_runs() {
    let directory = tempfile::tempdir().unwrap();
    for info in components() {
        let name = format!("{}.{}", info.kind.table(), info.name);
        runs_as_generated(directory.path(), &name);
    }
    // Through a transform of several signals, for each of them.
    for pipe in [
        "remote_write:tenant,relabel:thanos",
        "prometheus_api:tenant:replica_router",
        "rules_api:tenant:ruler",
        "rules_file:tenant:rules_directory",
    ] {
        runs_as_generated(directory.path(), pipe);
    }
}

fn runs_as_generated(directory: &Path, names: &str) {
    let output = metrifold(&["generate", names]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    // Unchanged, except for ports and folders, which other tests may use.
    let folder = directory
        .join(names.replace(':', "-"))
        .display()
        .to_string();
    let generated = stdout(&output).replace("\"/", &format!("\"{folder}/"));
    // On one interface, port 0 conflicts with port 0.
    let mut hosts = 1..;
    let port = |line: &str| match line.strip_prefix("address = ") {
        Some(_) => format!("address = \"127.0.0.{}:0\"\n", hosts.next().unwrap()),
        None => format!("{line}\n"),
    };
    let text: String = generated.lines().map(port).collect();
    let file = write(directory, "a.toml", &text);
    let arguments = ["-c", &file, "run", "--threads", "1"];
    let process = Process::spawn(&mut metrifold_testing::cli(&arguments));
    // Its endpoints do not exist, so that a graceful end would take long.
    process.until_logged("metrifold runs");
}

#[test]
fn what_a_plane_requires_of_a_transform_is_an_error_of_the_configuration() {
    let text = |source: &str, sink: &str| {
        format!(
            "[sources.in]\n{source}\n[transforms.t]\ntype = \"tenant\"\ninputs = [\"in\"]\n[sinks.out]\ninputs = [\"t\"]\n{sink}\n"
        )
    };
    let rules = text(
        "type = \"rules_file\"\nfiles = [\"*.yaml\"]",
        "type = \"rules_directory\"\npath = \"/x\"",
    );
    let queries = text(
        "type = \"prometheus_api\"\naddress = \"127.0.0.1:0\"",
        "type = \"prometheus\"\nendpoint = \"http://localhost:1\"",
    );
    let metrics = text(
        "type = \"remote_write\"\naddress = \"127.0.0.1:0\"",
        "type = \"blackhole\"",
    );
    let check = |text: &str| {
        let options = LoadOptions { environment: false };
        config::parse_texts(&[("a.toml", text)], &|_: &str| None, options)
    };
    for (text, what) in [(&rules, "rules"), (&queries, "queries")] {
        let found = check(text).unwrap_err();
        let messages: Vec<&str> = found.iter().map(|it| &*it.message).collect();
        let message = format!(
            "transforms.t.label: {what} are restricted by a label: name the one that holds the tenant"
        );
        assert_eq!(messages, [message]);
        assert!(found[0].place.is_some());
        let named = text.replace("\"tenant\"", "\"tenant\"\nlabel = \"a\"");
        assert!(check(&named).is_ok(), "{named}");
    }
    assert!(check(&metrics).is_ok());
    // What nothing sends to lacks nothing.
    let unknown = queries.replace("inputs = [\"in\"]", "inputs = [\"on\"]");
    let found = check(&unknown).unwrap_err();
    assert!(
        found.iter().all(|it| !it.message.contains("label")),
        "{found:?}"
    );
}

#[test]
fn components_are_listed_for_people_and_for_machines() {
    let output = metrifold(&["list"]);
    assert!(stdout(&output).contains("  blackhole "));
    let output = metrifold(&["list", "sinks.remote_write"]);
    assert!(stdout(&output).contains("\n  endpoint  (required"));
    let output = metrifold(&["list", "--format", "json"]);
    let list: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(list.as_array().is_some_and(|list| !list.is_empty()));
    assert_eq!(metrifold(&["list", "nothing"]).status.code(), Some(64));
}

#[test]
fn help_and_completion_are_results() {
    for arguments in [
        &["--help"][..],
        &["run", "--help"],
        &["--version"],
        &["completion", "bash"],
    ] {
        let output = metrifold(arguments);
        assert_eq!(output.status.code(), Some(0));
        assert!(!output.stdout.is_empty() && output.stderr.is_empty());
    }
    assert_eq!(metrifold(&["--colour"]).status.code(), Some(64));
}

#[test]
fn an_unknown_key_is_refused_on_its_line() {
    let text =
        format!("{VALID}queue = {{ max_bytes = \"1MiB\" }}\n[api]\naddress = \"127.0.0.1:0\"\n");
    let text = text.replace(
        "blackhole\"",
        "remote_write\"\nendpoint = \"http://localhost:1/\"",
    );
    let environment = |_: &str| None;
    let valid = config::parse_str("a.toml", &text, &environment);
    assert!(valid.is_ok(), "{:?}", valid.err());
    let mutations = unknown_keys(&text);
    assert_eq!(mutations.len(), 5);
    for mutation in mutations {
        let found = config::parse_str("a.toml", &mutation.text, &environment).unwrap_err();
        let lines: Vec<_> = found
            .iter()
            .filter(|found| found.severity == Severity::Error)
            .filter_map(|found| found.place.as_ref().map(|place| place.line()))
            .collect();
        assert_eq!(lines, [mutation.line], "{}", mutation.text);
    }
}

#[test]
fn a_signal_ends_the_process_with_success() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "a.toml", VALID);
    let arguments = ["-c", &file, "--log-format", "json", "run", "--threads", "1"];
    let mut process = Process::spawn(&mut metrifold_testing::cli(&arguments));
    process.until_logged("metrifold runs");
    let log = process.log();
    let line = log.lines().find(|line| line.contains("metrifold runs"));
    let line = line.unwrap();
    assert!(
        serde_json::from_str::<serde_json::Value>(line).is_ok(),
        "{line}"
    );
    assert_eq!(process.terminate().code(), Some(0), "{}", process.log());
}

#[test]
fn the_example_of_the_documentation_is_valid() {
    let page = include_str!("../../docs/configuration.md");
    let example = page.split("```toml\n").nth(1).unwrap();
    let example = example.split("```").next().unwrap();
    let loaded = config::parse_str("a.toml", example, &|_: &str| None);
    assert!(loaded.is_ok_and(|loaded| loaded.warnings.is_empty()));
}

#[test]
fn the_error_of_the_documentation_is_what_is_printed() {
    let text = format!("{}queue = {{ max_byte = \"64MiB\" }}\n", &VALID[1..]);
    let text = text.replace("blackhole\"", "remote_write\"\nendpoint = \"http://x/\"");
    let text = text.replace("[sinks", "\n\n[sinks");
    let found = config::parse_str("metrifold.toml", &text, &|_: &str| None).unwrap_err();
    let page = include_str!("../../docs/configuration.md");
    assert!(page.contains(&found[0].render(false)), "{}", found[0]);
}

/// A configuration of every component with all of its keys set to their examples.
pub fn everything() -> String {
    let output = metrifold(&["list", "--format", "json"]);
    let list: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let mut text = String::new();
    for info in list.as_array().unwrap() {
        let (kind, name) = (
            info["kind"].as_str().unwrap(),
            info["name"].as_str().unwrap(),
        );
        let is_component = ["source", "transform", "sink"].contains(&kind);
        let plural = if is_component { "s" } else { "" };
        text.push_str(&format!(
            "[{kind}{plural}.{kind}-{name}]\ntype = \"{name}\"\n"
        ));
        if is_component && kind != "source" {
            text.push_str("inputs = [\"source-*\"]\n");
        }
        for key in info["keys"].as_array().unwrap() {
            let name = key["name"].as_str().unwrap();
            // Keys of tables in lists and maps; the example of the list has them.
            if name.contains("[].") || name.contains(".NAME") {
                continue;
            }
            let Some(value) = key["example"].as_str().or(key["default"].as_str()) else {
                continue; // a table, whose keys follow
            };
            text.push_str(&format!("{name} = {value}\n"));
        }
    }
    text
}

#[test]
fn every_key_that_is_listed_is_known() {
    let environment = |_: &str| Some("value-of-a-variable".to_owned());
    let options = LoadOptions { environment: false };
    let texts = everything();
    assert!(toml::de::DeTable::parse(&texts).is_ok());
    let found = config::parse_texts(&[("a.toml", &texts)], &environment, options);
    for found in found.err().unwrap_or_default() {
        // Some keys exclude each other; none is unknown or has a wrong type.
        assert!(!found.message.contains("unknown"), "{found}");
        assert!(!found.message.contains(", not the "), "{found}");
    }
}

#[test]
fn damaged_configurations_are_refused_and_never_panic() {
    let text = everything();
    assert!(toml::de::DeTable::parse(&text).is_ok());
    let characters: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    let damage = [
        "", "\"", "=", "[", "]", "{", "}", "\n", "\0", "é", "1", ".", "${A}", "x = 1\n", ",",
    ];
    let edit = (
        any::<prop::sample::Index>(),
        0usize..6,
        prop::sample::select(damage.to_vec()),
    );
    let edits = prop::collection::vec(edit, 1..4);
    let options = LoadOptions { environment: false };
    proptest!(ProptestConfig::with_cases(200), |(edits in edits)| {
        let mut damaged = text.clone();
        for (at, length, insert) in edits {
            let at = *at.get(&characters);
            let end = at + length;
            if damaged.is_char_boundary(at) && damaged.is_char_boundary(end) && end <= damaged.len() {
                damaged.replace_range(at..end, insert);
            }
        }
        let environment = |name: &str| (name == "A").then(|| "topsecret".to_owned());
        if let Err(found) = config::parse_texts(&[("a.toml", &damaged)], &environment, options) {
            for found in found {
                let printed = found.render(false);
                prop_assert!(!printed.contains("topsecret"), "{}", printed);
            }
        }
    });
}

#[test]
fn credentials_stand_together_where_the_pages_say_so() {
    // docs/security.md and the source's page: both cannot be set in a source, but under [api] they
    // can.
    let both = "basic_auth = { username = \"u\", password = \"p\" }\nauthorization = { credentials = \"c\" }\n";
    let source = VALID.replace("[sinks", &format!("{both}[sinks"));
    let found = load(&source).unwrap_err();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].message.starts_with("sources.ingest"),
        "{}",
        found[0]
    );
    let api = format!("[api]\naddress = \"127.0.0.1:0\"\n{both}{VALID}");
    assert!(load(&api).is_ok());
}

fn load(text: &str) -> Result<config::Loaded, Vec<config::Diagnostic>> {
    let options = LoadOptions { environment: false };
    config::parse_texts(&[("test.toml", text)], &ProcessEnvironment, options)
}

#[test]
fn the_admin_address_can_name_a_listener_that_no_source_has() {
    let keys = "address = '127.0.0.1:8686'\nmax_connections = 7\nidle_timeout = '9s'\ntls = { cert_file = '/a.crt', key_file = '/a.key' }\n";
    let rest = "[sources.in]\ntype = 'remote_write'\naddress = ':1'\n[sinks.out]\ntype = 'blackhole'\ninputs = ['in']\n";
    let text = format!("[api]\nlistener = 'admin'\n[listeners.admin]\n{keys}{rest}");
    let named = load(&text).unwrap();
    let own = load(&format!("[api]\n{keys}{rest}")).unwrap();
    assert!(named.warnings.is_empty(), "{:?}", named.warnings);
    assert_eq!(named.config.api(), own.config.api());
    let listen = named.config.api().unwrap().listen("/", Methods::GET);
    assert_eq!(listen.max_connections, Some(7));
    assert_eq!(listen.idle_timeout, Duration::from_secs(9));

    // Commands find the address there, and the certificate beside the file.
    let folder = tempfile::tempdir().unwrap();
    let beside = text.replace("'/a.", "'a.");
    let file = write(folder.path(), "metrifold.toml", &beside);
    let api = config::api_of(&[file], &ProcessEnvironment).unwrap();
    assert_eq!(api.address.0.port(), 8686);
    assert_eq!(api.tls.unwrap().cert_file, folder.path().join("a.crt"));

    for (from, to, message) in [
        (
            "'admin'",
            "'admim'",
            "api: there is no listener of this name",
        ),
        (
            "'admin'",
            "'admin'\nidle_timeout = '1s'",
            "api: `idle_timeout` cannot be set together with listener",
        ),
        (
            "address = ':1'",
            "listener = 'admin'",
            "api: address 127.0.0.1:8686 is taken by sources.in",
        ),
    ] {
        let found = load(&text.replacen(from, to, 1)).unwrap_err();
        assert!(found[0].message.contains(message), "{found:?}");
        assert_eq!(found.len(), 1, "{found:?}");
    }
}

/// A configuration with these lines under `[listeners.public]` and in the source `in`.
fn listening(listener: &str, source: &str) -> String {
    format!(
        "[listeners.public]\n{listener}\n[sources.in]\ntype = 'remote_write'\n{source}\n[sinks.out]\ntype = 'blackhole'\ninputs = ['in']\n"
    )
}

#[test]
fn a_named_listener_is_the_same_as_its_keys_in_the_source() {
    let keys = "address = '127.0.0.1:9201'\nmax_connections = 7\ntls = { cert_file = '/a.crt', key_file = '/a.key' }";
    let named = load(&listening(keys, "listener = 'public'")).unwrap();
    let inline = listening("address = '127.0.0.1:1'", keys);
    let inline = load(&inline).unwrap();
    assert_eq!(inline.warnings.len(), 1, "{:?}", inline.warnings);
    assert!(
        inline.warnings[0]
            .message
            .contains("nothing listens on listeners.public")
    );
    assert!(named.warnings.is_empty(), "{:?}", named.warnings);
    let (named, inline) = (&named.config.sources["in"], &inline.config.sources["in"]);
    assert_eq!(named.config.resources(), inline.config.resources());
    assert_eq!(named.config.files(), inline.config.files());
    // Moving the keys changes nothing for a reload; changing a listener's keys does.
    assert_eq!(named.effective, inline.effective);
    let other = load(&listening(
        "address = '127.0.0.1:9202'",
        "listener = 'public'",
    ));
    assert_ne!(
        other.unwrap().config.sources["in"].effective,
        named.effective
    );
}

#[test]
fn what_is_wrong_with_a_named_listener_is_said_once_and_where_it_stands() {
    let address = "address = '127.0.0.1:9201'";
    for (listener, source, line, message) in [
        (
            address,
            "listener = 'publik'",
            5,
            "there is no listener of this name",
        ),
        (address, "listener = 7", 5, "not the name of a listener"),
        (
            address,
            "listener = 'public'\ntls = { cert_file = 'a', key_file = 'b' }",
            5,
            "`tls` cannot be set together with listener",
        ),
        ("", "listener = 'public'", 1, "key `address` is missing"),
        (
            "address = 'x'",
            "listener = 'public'",
            2,
            "listeners.public.address: ",
        ),
        (
            "address = ':1'\nmax_connections = 0",
            "listener = 'public'",
            3,
            "listeners.public.max_connections: must be at least 1",
        ),
        (
            "address = ':1'\npath = '/'",
            "listener = 'public'",
            3,
            "unknown key `path`",
        ),
        (
            address,
            "listener = 'public'\n[sources.in2]\ntype = 'remote_write'\nlistener = 'public'",
            8,
            "path \"/api/v1/write\" is taken by sources.in",
        ),
    ] {
        let text = listening(listener, source);
        let found = load(&text).unwrap_err();
        let errors: Vec<_> = found
            .iter()
            .filter(|found| found.severity == Severity::Error)
            .map(|found| {
                let line = found.place.as_ref().unwrap().line();
                (line, found.message.as_str())
            })
            .collect();
        assert_eq!(errors.len(), 1, "{text}{errors:?}");
        assert!(errors[0].1.contains(message), "{text}{errors:?}");
        assert_eq!(errors[0].0, line, "{text}{errors:?}");
    }
    let sink = "[listeners.public]\naddress = ':1'\n[sources.in]\ntype = 'remote_write'\nlistener = 'public'\n[sinks.out]\ntype = 'blackhole'\ninputs = ['in']\nlistener = 'public'";
    let found = load(sink).unwrap_err();
    assert!(
        found[0].message.contains("unknown key `listener`"),
        "{found:?}"
    );
}

#[test]
fn words_of_prometheus_and_numbers_without_quotes_are_answered_with_what_to_write() {
    let scrape = |key: &str| {
        format!(
            "[sources.s]\ntype = \"scrape\"\ntargets = [\"127.0.0.1:1\"]\n{key}\n\
             [sinks.out]\ntype = \"blackhole\"\ninputs = [\"s\"]\n"
        )
    };
    let write = |key: &str| {
        let sink = "type = \"remote_write\"\nendpoint = \"http://127.0.0.1:1/write\"";
        VALID.replace("type = \"blackhole\"", &format!("{sink}\n{key}"))
    };
    for (text, expected) in [
        (scrape("metric_relabel_configs = []"), "`metric_relabel`"),
        (scrape("relabel_configs = []"), "`relabel`"),
        (write("write_relabel_configs = []"), "`relabel`"),
        (
            write("protobuf_message = \"io.prometheus.write.v2.Request\""),
            "`protocol`",
        ),
        (
            write("protocol = 2.0"),
            "must be one of \"auto\", \"1.0\", \"2.0\"",
        ),
        (
            write("protocol = 1.0"),
            "must be one of \"auto\", \"1.0\", \"2.0\"",
        ),
    ] {
        let found = load(&text).unwrap_err();
        let shown = found[0].render(false);
        assert!(shown.contains(expected), "{text}\n{shown}");
    }
}

#[test]
fn a_variable_that_the_admin_address_needs_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[api]\naddress = \"127.0.0.1:${PORT_THAT_IS_NOT_SET}\"\n";
    let file = write(folder.path(), "m.toml", text);
    let output = metrifold(&["-c", &file, "reload"]);
    assert_ne!(output.status.code(), Some(0));
    let said = stderr(&output);
    assert!(
        said.contains("environment variable PORT_THAT_IS_NOT_SET is not set"),
        "{said}"
    );
    assert!(!said.contains("no [api]"), "{said}");
}

#[test]
fn what_is_wrong_with_the_api_is_found_before_it_is_served() {
    for (keys, message) in [
        ("hosts = ['host:1']", "is not the name of a host"),
        (
            "authorization = {}",
            "needs credentials or credentials_file",
        ),
        (
            "basic_auth = { username = 'a:b', password = 'c' }",
            "cannot contain a colon",
        ),
        ("token = 'x'", "unknown key `token`"),
    ] {
        let found = load(&format!("{VALID}\n[api]\naddress = '127.0.0.1:0'\n{keys}"));
        let found = found.unwrap_err();
        assert_eq!(found.len(), 1, "{keys}: {found:?}");
        assert!(found[0].message.contains(message), "{keys}: {found:?}");
    }
}
