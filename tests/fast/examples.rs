//! The examples in `config/examples`: each is valid, refuses unknown keys, and can be drawn; and
//! the first one runs as in the quickstart.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use metrifold_engine::config;
use metrifold_engine::config::{LoadOptions, Severity, unknown_keys};
use metrifold_testing::messages::v1;
use metrifold_testing::series::compressed;
use metrifold_testing::{Process, Sender, fetch, free_address, run, until};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples")
}

/// The examples, by file name.
pub fn examples() -> BTreeMap<String, String> {
    let files = fs::read_dir(directory()).unwrap();
    let examples: BTreeMap<_, _> = files
        .map(|file| file.unwrap())
        .map(|file| {
            let name = file.file_name().into_string().unwrap();
            (name, fs::read_to_string(file.path()).unwrap())
        })
        .collect();
    assert!(examples.len() >= 5, "{:?}", examples.keys());
    examples
}

/// No variable is set: every variable in an example has a default.
fn no_variables(_: &str) -> Option<String> {
    None
}

fn metrifold(arguments: &[&str]) -> Output {
    let mut command = metrifold_testing::cli(arguments);
    run(command.current_dir(directory()).env_clear())
}

#[test]
fn every_example_is_valid_without_a_warning() {
    for name in examples().keys() {
        let arguments = [
            "validate",
            "--no-environment",
            "--deny-warnings",
            "-c",
            name,
        ];
        let output = metrifold(&arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{name}: {errors}");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.starts_with("valid: "), "{name}: {said}");
    }
}

#[test]
fn an_example_is_refused_only_for_the_files_that_it_names() {
    for (name, text) in examples() {
        let output = metrifold(&["validate", "-c", &name]);
        let errors = String::from_utf8_lossy(&output.stderr);
        let names_files = text.lines().any(|line| {
            let code = line.split('#').next().unwrap_or_default();
            code.contains("_file = \"/")
        });
        let token = text.contains("credentials_file = \"${");
        match names_files || token {
            true => assert_eq!(output.status.code(), Some(78), "{name}"),
            false => assert_eq!(output.status.code(), Some(0), "{name}: {errors}"),
        }
        for error in errors.lines().filter(|line| line.starts_with("error: ")) {
            assert!(
                error.contains("_file: ") || error.contains("cannot read"),
                "{name}: {error}"
            );
        }
    }
}

#[test]
fn a_key_that_nothing_knows_is_refused_at_every_level_of_every_example() {
    for (name, text) in examples() {
        let mutations = unknown_keys(&text);
        // The top, [api], and at least a source, a transform and a sink, with their inline tables.
        assert!(mutations.len() >= 6, "{name}: {}", mutations.len());
        for mutation in mutations {
            let found = metrifold_errors(&name, &mutation.text);
            assert!(!found.is_empty(), "{name}: nobody minds\n{}", mutation.text);
            for (line, message) in found {
                assert_eq!(
                    line,
                    Some(mutation.line),
                    "{name}: {message}\n{}",
                    mutation.text
                );
                assert!(
                    message.contains("key_that_nothing_knows"),
                    "{name}: {message}"
                );
            }
        }
    }
}

/// Lines and messages of the errors in a text when no files can be read.
fn metrifold_errors(name: &str, text: &str) -> Vec<(Option<usize>, String)> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(name);
    fs::write(&file, text).unwrap();
    let options = LoadOptions { environment: false };
    match config::load(&[file.display().to_string()], &no_variables, options) {
        Ok(_) => Vec::new(),
        Err(found) => found
            .iter()
            .filter(|found| found.severity == Severity::Error)
            .map(|found| {
                let line = found.place.as_ref().map(|place| place.line());
                (line, found.message.clone())
            })
            .collect(),
    }
}

#[test]
fn every_example_can_be_drawn_in_every_format() {
    for (name, text) in examples() {
        for format in ["text", "dot", "mermaid"] {
            let output = metrifold(&["graph", "-c", &name, "--format", format]);
            assert_eq!(output.status.code(), Some(0), "{name} {format}");
            let drawing = String::from_utf8(output.stdout).unwrap();
            // Other tables are no part of the graph.
            let of_components = ["[sources.", "[transforms.", "[sinks."];
            let headers = text.lines();
            let headers =
                headers.filter(|line| of_components.iter().any(|kind| line.starts_with(kind)));
            for header in headers {
                let id = header.trim_matches(['[', ']']).split('.').nth(1).unwrap();
                assert!(
                    drawing.contains(id),
                    "{name} {format} lacks {id}: {drawing}"
                );
            }
        }
    }
}

#[test]
fn the_quickstart_carries_series_with_their_tenant_over_http_to_both_stand_ins() {
    let quickstart = Quickstart::start();
    let now = now();
    let series = |name: &str, labels: &[(&str, &str)], value: f64| {
        let mut all = vec![("__name__", name)];
        all.extend(labels);
        all.sort_unstable();
        let label = |&(name, value): &(&str, &str)| v1::Label {
            name: name.into(),
            value: value.into(),
        };
        v1::TimeSeries {
            labels: all.iter().map(label).collect(),
            samples: vec![v1::Sample {
                value,
                timestamp: now,
            }],
            ..Default::default()
        }
    };
    // The header names the tenant, whatever the labels say.
    let status = quickstart.write(
        Some("team-a"),
        vec![
            series("up", &[("job", "x"), ("tenant_id", "team-b")], 1.0),
            series("go_gc_duration_seconds", &[("job", "x")], 2.0),
        ],
    );
    assert_eq!(status, 204);
    // Without the header, a label splits the request, and the rest belongs to the default tenant.
    let status = quickstart.write(
        None,
        vec![
            series("up", &[("job", "y"), ("namespace", "team-c")], 3.0),
            series("up", &[("job", "z")], 4.0),
        ],
    );
    assert_eq!(status, 204);

    let thanos = [
        r#"up{job="x",received_for="team-a",tenant_id="team-a"} 1"#,
        r#"up{job="y",namespace="team-c",received_for="team-c",tenant_id="team-c"} 3"#,
        r#"up{job="z",received_for="demo",tenant_id="demo"} 4"#,
    ];
    let additional = [
        r#"up{job="x",tenant_id="team-a"} 1"#,
        r#"up{job="y",namespace="team-c",tenant_id="team-c"} 3"#,
        r#"up{job="z",tenant_id="demo"} 4"#,
    ];
    for (path, expected) in [("/thanos", thanos), ("/additional", additional)] {
        // The page includes Metrifold's own metrics.
        let page = quickstart.page_with(path, |page| {
            page.contains("metrifold_build_info{")
                && expected.iter().all(|line| page.lines().any(|l| l == *line))
        });
        assert_eq!(
            page.lines().filter(|line| line.starts_with("up{")).count(),
            3
        );
        assert!(!page.contains("go_gc_"), "{page}");
        assert!(
            !page.contains("metrifold_delivery_duration_seconds_bucket"),
            "{page}"
        );
        assert!(!page.contains("team-b"), "{page}");
    }
    assert_eq!(quickstart.get("api", "/-/ready"), (200, "ready".into()));
    let (status, topology) = quickstart.get("api", "/api/v1/topology");
    assert_eq!(status, 200);
    let topology: serde_json::Value = serde_json::from_str(&topology).unwrap();
    let components = topology["components"].as_array().unwrap();
    assert_eq!(components.len(), 11);
    assert!(
        components
            .iter()
            .all(|component| component["state"] == "running")
    );
    let own = components
        .iter()
        .find(|component| component["id"] == "own")
        .unwrap();
    assert_eq!(own["received"]["batches"], 1);
    assert!(own["received"]["samples"].as_u64().unwrap() > 10, "{own}");
    assert_eq!(quickstart.stop(), Some(0));
}

#[test]
fn make_run_says_that_it_builds_and_what_is_served_where_once_it_is() {
    // In place of cargo, which would build for minutes: runs the program with the arguments after
    // `--`, behind the recipe's own.
    let folder = tempfile::tempdir().unwrap();
    let cargo = folder.path().join("cargo");
    let script = "echo \"cargo $*\"\nwhile [ \"$1\" != -- ]; do shift; done\nshift\nexec \"$PROGRAM\" \"$@\"\n";
    fs::write(&cargo, script).unwrap();
    let quickstart = Quickstart::run_by(|file| {
        let mut command = Command::new("sh");
        // Both outputs in one, so that their order shows.
        let make =
            "exec make --no-print-directory -C \"$1\" run CARGO=\"sh $2\" CONFIG=\"$3\" 1>&2";
        command
            .args(["-c", make, "sh", env!("CARGO_MANIFEST_DIR")])
            .args([cargo.as_path(), file])
            .env_remove("MAKEFLAGS")
            .env_remove("METRIFOLD_CONFIG")
            .env_remove("METRIFOLD_LOG")
            .env("PROGRAM", metrifold_testing::cli(&[]).get_program());
        command
    });
    let log = quickstart.process.log();
    let (building, running) = log.split_once("\ncargo run ").unwrap();
    assert!(building.starts_with("building metrifold: "), "{log}");
    assert!(running.contains("--profile quickstart --no-default-features"));
    for (role, address) in &quickstart.addresses {
        let address = address.to_string();
        let is_told = |line: &str| line.contains("listening") && line.contains(&address);
        assert!(!building.contains(&address), "{role}: {log}");
        assert!(running.lines().any(is_told), "{role}: {log}");
        assert!(quickstart.is_served(role), "{role}");
    }
    quickstart.stop();
}

/// The quickstart, running at reserved addresses.
struct Quickstart {
    process: Process,
    /// Addresses by their role in the file.
    addresses: BTreeMap<&'static str, SocketAddr>,
    _directory: tempfile::TempDir,
}

const ADDRESSES: [(&str, &str); 5] = [
    ("api", "127.0.0.1:8686"),
    ("ingest", "127.0.0.1:9201"),
    ("pages", "127.0.0.1:9598"),
    ("thanos", "127.0.0.1:19291"),
    ("additional", "127.0.0.1:19292"),
];

impl Quickstart {
    fn start() -> Self {
        let quickstart = Self::run_by(|file| {
            let mut command = metrifold_testing::cli(&["-c"]);
            command.arg(file).env_clear();
            command
        });
        let log = quickstart.process.log();
        assert!(!log.contains('\x1b'), "no colours in a pipe: {log:?}");
        quickstart
    }

    /// Runs the command for a copy of the file until it serves.
    fn run_by(command: impl FnOnce(&Path) -> Command) -> Self {
        let mut text = examples()["quickstart.toml"].clone();
        let mut addresses = BTreeMap::new();
        for (role, address) in ADDRESSES {
            let own = free_address();
            assert!(text.contains(address), "{address}");
            text = text.replace(address, &own.to_string());
            addresses.insert(role, own);
        }
        // One batch of its own metrics suffices, and none is in flight at the shutdown.
        assert!(text.contains("interval = \"2s\""));
        text = text.replace("interval = \"2s\"", "interval = \"1h\"");
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("quickstart.toml");
        fs::write(&file, text).unwrap();
        let process = Process::spawn(&mut command(&file));
        process.until_logged("metrifold runs");
        Self {
            process,
            addresses,
            _directory: directory,
        }
    }

    /// Sends a request of remote write 1.0 and returns the status.
    fn write(&self, tenant: Option<&str>, timeseries: Vec<v1::TimeSeries>) -> u16 {
        let request = v1::WriteRequest {
            timeseries,
            ..Default::default()
        };
        let tenant = tenant.map(|tenant| ("THANOS-TENANT", tenant));
        let headers: Vec<_> = tenant.into_iter().collect();
        let mut sender = Sender::new(self.addresses["ingest"]);
        let answer = sender.post("/api/v1/write", &headers, &compressed(&request));
        answer.status
    }

    fn get(&self, role: &str, path: &str) -> (u16, String) {
        let answer = fetch(self.addresses[role], path).unwrap();
        (answer.status, answer.text())
    }

    /// The page, once it is complete.
    fn page_with(&self, path: &str, is_complete: impl Fn(&str) -> bool) -> String {
        until(&format!("{path} is complete"), || {
            let (status, page) = self.get("pages", path);
            assert_eq!(status, 200);
            is_complete(&page).then_some(page)
        })
    }

    fn is_served(&self, role: &str) -> bool {
        TcpStream::connect(self.addresses[role]).is_ok()
    }

    /// Sends SIGTERM; returns the exit code.
    fn stop(mut self) -> Option<i32> {
        self.process.terminate().code()
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}
