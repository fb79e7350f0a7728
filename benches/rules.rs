//! Cost of rules: the time from the start of the process until a ruler's folder has the rules of many
//! tenants, the memory of the process at that time, the time until a change of one tenant is in the
//! folder, and the time to check a rule.
//!
//! A store of 10,000 tenants with 20 rules each is read by a `rules_api`, restricted to each tenant
//! by a `tenant`, and written by a `rules_directory`; the sink `ruler` writes the same way. Run it
//! with `make bench`; `METRIFOLD_BENCH_TENANTS` sets the number of tenants, and `METRIFOLD_BIN`
//! names another binary.
//!
//! An ext4 without a journal, as some virtual machines have, looks for a free inode past all that were
//! freed within the last minutes: after a run, whose files are removed at its end, the next one there
//! takes seconds longer.

use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use metrifold_promql::{Options, insert, parse};
use metrifold_regex::Regex;
use metrifold_rules::{CheckedExpr, Checks, RuleFile};

#[path = "support/gateway.rs"]
mod gateway;

use gateway::{Running, free_port, product, read_head};

const RULES: usize = 20;
/// Number of tenants that change, one after the other.
const CHANGES: usize = 30;
/// Number of rules that are checked by one request, and number of such requests.
const CHECKED: usize = 1000;
const CHECKS: usize = 30;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(110);

fn main() {
    // `cargo test --benches` only checks that it compiles.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let tenants = std::env::var("METRIFOLD_BENCH_TENANTS");
    let tenants = tenants
        .ok()
        .and_then(|it| it.parse().ok())
        .unwrap_or(10_000);
    let place = tempfile::tempdir().unwrap();
    for tenant in 0..tenants {
        let folder = place.path().join(format!("store/metrics/rules/t{tenant}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("rules.yaml"), rules(0, RULES)).unwrap();
    }
    let address: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let config = format!(
        "[sources.rules]\ntype = \"rules_api\"\naddress = \"{address}\"\ndirectory = {:?}\n\
         [transforms.tenant]\ntype = \"tenant\"\ninputs = [\"rules\"]\nfrom = [{{ path = \"tenant\" }}]\nlabel = \"tenant_id\"\n\
         [sinks.out]\ntype = \"rules_directory\"\ninputs = [\"tenant\"]\npath = {:?}\n",
        place.path().join("store"),
        place.path().join("out")
    );
    let path = place.path().join("metrifold.toml");
    fs::write(&path, config).unwrap();
    let start = Instant::now();
    let program = Command::new(product())
        .args(["--config", path.to_str().unwrap(), "run"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let program = Running(program);
    let out = place.path().join("out");
    wait("all tenants are in the folder", || {
        fs::read_dir(&out).is_ok_and(|entries| entries.count() > tenants)
    });
    let first = start.elapsed();
    println!("{tenants} tenants with {RULES} rules each");
    println!(
        "from the start until all are in the folder   {:>8} ms",
        first.as_millis()
    );
    println!(
        "resident memory then                         {:>8} MiB",
        memory(&program)
    );
    for (kind, text) in [
        ("a recording rule ", rules(0, CHECKED)),
        ("an alerting rule ", alerts(CHECKED)),
    ] {
        println!(
            "to check {kind} and hold it to its tenant {:>5.1} µs, in a request {:.1} µs",
            alone(&text),
            checked(address, &text)
        );
    }
    let mut times: Vec<Duration> = (0..CHANGES.min(tenants))
        .map(|change| {
            let tenant = change * tenants / CHANGES.min(tenants);
            let start = Instant::now();
            put(address, tenant, "", &rules(change + 1, RULES));
            let file = out.join(format!("t{tenant}~rules~.yaml"));
            let version = format!("record_{}_0", change + 1);
            wait("the change is in the folder", || holds(&file, &version));
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!(
        "a change until it is in the folder, median    {:>8.1} ms, at most {:.1} ms",
        times[times.len() / 2].as_secs_f64() * 1e3,
        times[times.len() - 1].as_secs_f64() * 1e3
    );
    println!(
        "resident memory at the end                   {:>8} MiB",
        memory(&program)
    );
}

/// Microseconds per rule of reading a text, checking it, and inserting a tenant's matcher and label, as
/// `rules_api` and `tenant` do, but for the lints. Median of several readings.
fn alone(text: &str) -> f64 {
    let options = Options {
        validate_regex: |pattern| Regex::validate(pattern).map_err(|error| error.to_string()),
        ..Options::default()
    };
    let check = |expr: &str| {
        let parsed = parse(expr, &options).map_err(|error| error.to_string())?;
        Ok(CheckedExpr {
            lints: Vec::new(),
            places: parsed.places(expr).map(Vec::into_boxed_slice),
        })
    };
    let checks = Checks::new(&check);
    let (label, tenant) = (Arc::from("tenant_id"), Arc::from("t0"));
    let mut times: Vec<Duration> = (0..CHECKS)
        .map(|_| {
            let start = Instant::now();
            let file = RuleFile::parse(text.as_bytes(), &checks).unwrap().file;
            for rule in file.groups.iter().flat_map(|group| &group.rules) {
                let places = rule.expr.places().unwrap();
                black_box(insert(&rule.expr, places, "tenant_id=\"t0\"").unwrap());
                black_box(rule.labels.with(&label, &tenant));
            }
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[CHECKS / 2].as_secs_f64() * 1e6 / CHECKED as f64
}

/// Microseconds per rule of a request that changes nothing: the text is read, parsed and checked, its
/// expressions are restricted to the tenant, and the answer is written. Median of several requests.
fn checked(address: SocketAddr, text: &str) -> f64 {
    let mut times: Vec<Duration> = (0..CHECKS)
        .map(|_| {
            let start = Instant::now();
            put(address, 0, "?dry_run=true", text);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[CHECKS / 2].as_secs_f64() * 1e6 / CHECKED as f64
}

/// A tenant's rule file, which differs by version.
fn rules(version: usize, count: usize) -> String {
    let mut text = String::from("groups:\n- name: g\n  rules:\n");
    for rule in 0..count {
        let _ = write!(
            text,
            "  - record: record_{version}_{rule}\n    expr: sum by (job, code) (rate(http_requests_total{{job=~\"api|web\",code!=\"200\"}}[5m])) / on (job) group_left sum by (job) (rate(http_requests_total[5m]))\n"
        );
    }
    text
}

/// A rule file of alerts as people write them, with labels and templates.
fn alerts(count: usize) -> String {
    let mut text = String::from("groups:\n- name: g\n  rules:\n");
    for rule in 0..count {
        let _ = write!(
            text,
            "  - alert: HighErrorRate{rule}\n    expr: |\n      sum by (job) (rate(http_requests_total{{code=~\"5..\"}}[5m]))\n        / sum by (job) (rate(http_requests_total[5m])) > 0.05\n    for: 10m\n    labels:\n      severity: page\n    annotations:\n      summary: \"High error rate of {{{{ $labels.job }}}}\"\n      description: '{{{{ $value | humanizePercentage }}}} of the requests of {{{{ $labels.job }}}} fail.'\n"
        );
    }
    text
}

fn put(address: SocketAddr, tenant: usize, query: &str, text: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "PUT /api/metrics/v1/t{tenant}/rules{query} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )
    .unwrap();
    let mut reader = BufReader::new(stream);
    let head = read_head(&mut reader).unwrap();
    let mut body = String::new();
    reader.read_to_string(&mut body).unwrap();
    assert!(head[0].contains(" 200 "), "{} {body}", head[0]);
}

fn holds(path: &Path, text: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|read| read.contains(text))
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "{what}: not in time");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The resident memory of a program, in MiB.
fn memory(program: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", program.0.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kib >> 10
}
