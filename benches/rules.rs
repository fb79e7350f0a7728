//! What rules cost: many tenants, from the start until a ruler's folder has all of them, the memory of
//! the process then, and the change of one tenant until it is in the folder.
//!
//! A store of 10,000 tenants with 20 rules each is read by a `rules_api`, held to each tenant by a
//! `tenant`, and written by a `rules_directory`; the sink `ruler` writes the same way. Run it with
//! `make bench`; `METRIFOLD_BENCH_TENANTS` sets how many, and `METRIFOLD_BIN` names another binary.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

#[path = "support/gateway.rs"]
mod gateway;

use gateway::{Running, free_port, product, read_head};

const RULES: usize = 20;
/// How many tenants change, one after the other.
const CHANGES: usize = 30;
/// The longest that anything is waited for.
const PATIENCE: Duration = Duration::from_secs(110);

fn main() {
    // `cargo test --benches` only wants to see that it compiles.
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
        fs::write(folder.join("rules.yaml"), rules(0)).unwrap();
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
    let mut times: Vec<Duration> = (0..CHANGES.min(tenants))
        .map(|change| {
            let tenant = change * tenants / CHANGES.min(tenants);
            let start = Instant::now();
            put(address, tenant, &rules(change + 1));
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

/// A file of a tenant, another one for each version.
fn rules(version: usize) -> String {
    let mut text = String::from("groups:\n- name: g\n  rules:\n");
    for rule in 0..RULES {
        let _ = write!(
            text,
            "  - record: record_{version}_{rule}\n    expr: sum by (job, code) (rate(http_requests_total{{job=~\"api|web\",code!=\"200\"}}[5m])) / on (job) group_left sum by (job) (rate(http_requests_total[5m]))\n"
        );
    }
    text
}

fn put(address: SocketAddr, tenant: usize, text: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "PUT /api/metrics/v1/t{tenant}/rules HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
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
