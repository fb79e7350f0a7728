//! Metrifold beside vmagent under the same load, and both beside the limit.
//!
//! Four senders in a closed loop post requests of 2,000 series; two sinks count what arrives. The
//! processor time of each gateway is read from /proc, from the first request to the last sample
//! that the sinks received. Run it with `make bench`; `METRIFOLD_BENCH_SECONDS` sets the length
//! of each run, `METRIFOLD_BENCH_ONLY` (`Edit` or `Pass`) runs one case of Metrifold alone, and
//! `METRIFOLD_BIN` names another binary.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

#[path = "support/edit.rs"]
mod edit;
#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/load.rs"]
mod load;
#[path = "support/payload.rs"]
mod payload;

use gateway::{Counter, Running, cpu, free_port, peak, product, varint, wait_for};
use load::{Load, SENDERS};

const REPETITIONS: usize = 3;

fn main() {
    // `cargo test --benches` only wants to see that it compiles.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let seconds = std::env::var("METRIFOLD_BENCH_SECONDS");
    let seconds = seconds.ok().and_then(|s| s.parse().ok()).unwrap_or(6);
    let length = Duration::from_secs(seconds);
    let load = Load::new();
    println!(
        "load: {} series per request, {} raw and {} compressed bytes per sample, {SENDERS} connections, {seconds} s per run, median of {REPETITIONS}",
        payload::SERIES,
        load.raw / payload::SERIES,
        load.compressed() / payload::SERIES,
    );
    let limit = limit();
    println!(
        "limit (snappy decode, walk, copy, snappy encode, one core): {limit:.0} ns per sample\n"
    );

    println!(
        "{:<34} {:>12} {:>14} {:>10}",
        "case", "ns/sample", "samples/s", "peak MiB"
    );
    let mut results = HashMap::new();
    let only = std::env::var("METRIFOLD_BENCH_ONLY").ok();
    let gateways = match only {
        None => &[Gateway::Metrifold, Gateway::Vmagent][..],
        Some(_) => &[Gateway::Metrifold],
    };
    for case in [Case::Edit, Case::Pass] {
        if only
            .as_ref()
            .is_some_and(|only| *only != format!("{case:?}"))
        {
            continue;
        }
        for &gateway in gateways {
            let mut runs: Vec<Run> = (0..REPETITIONS)
                .map(|_| run(gateway, case, &load, length))
                .collect();
            runs.sort_by(|a, b| a.nanos.total_cmp(&b.nanos));
            let run = runs[REPETITIONS / 2];
            println!(
                "{:<34} {:>12.1} {:>14.0} {:>10.1}",
                format!("{}, {}", gateway.name(), case.name()),
                run.nanos,
                run.rate,
                run.peak
            );
            results.insert((gateway.name(), case.name()), run);
        }
    }
    if only.is_some() {
        return;
    }
    let ratio = |case: Case| {
        results[&("vmagent", case.name())].nanos / results[&("metrifold", case.name())].nanos
    };
    let edit = results[&("metrifold", Case::Edit.name())];
    println!();
    println!(
        "{}: vmagent / metrifold = {:.1}",
        Case::Edit.name(),
        ratio(Case::Edit)
    );
    println!(
        "{}: vmagent / metrifold = {:.1}",
        Case::Pass.name(),
        ratio(Case::Pass)
    );
    println!(
        "{}: metrifold / limit = {:.2}",
        Case::Edit.name(),
        edit.nanos / limit
    );
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    /// A tenant label added, one family dropped, one label dropped.
    Edit,
    /// Nothing to change.
    Pass,
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::Edit => "tag, drop family and label",
            Self::Pass => "nothing to change",
        }
    }

    /// How many of a request's series reach a sink.
    fn kept(self) -> usize {
        match self {
            Self::Edit => edit::kept(),
            Self::Pass => payload::SERIES,
        }
    }
}

#[derive(Clone, Copy)]
enum Gateway {
    Metrifold,
    Vmagent,
}

impl Gateway {
    fn name(self) -> &'static str {
        match self {
            Self::Metrifold => "metrifold",
            Self::Vmagent => "vmagent",
        }
    }

    fn start(self, case: Case, port: u16, sinks: [SocketAddr; 2], dir: &Path) -> Child {
        match self {
            Self::Metrifold => {
                let config = dir.join("metrifold.toml");
                std::fs::write(&config, metrifold_config(case, port, sinks)).unwrap();
                Command::new(product())
                    .args(["--log-level", "warn", "-c"])
                    .arg(config)
                    .stdout(Stdio::null())
                    .spawn()
                    .unwrap()
            }
            Self::Vmagent => {
                let mut command = Command::new("vmagent");
                command
                    .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
                    .arg(format!("-remoteWrite.tmpDataPath={}", dir.display()))
                    .args(sinks.map(|sink| format!("-remoteWrite.url=http://{sink}/write")));
                if case == Case::Edit {
                    let rules = dir.join("relabel.yml");
                    std::fs::write(&rules, edit::vmagent_rules()).unwrap();
                    command.arg(format!("-remoteWrite.relabelConfig={}", rules.display()));
                }
                command
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .expect("vmagent is missing: apt-get install victoria-metrics")
            }
        }
    }
}

fn metrifold_config(case: Case, port: u16, sinks: [SocketAddr; 2]) -> String {
    let (transforms, last) = match case {
        Case::Pass => (String::new(), "ingest"),
        Case::Edit => (edit::transforms(), "clean"),
    };
    let sink = |name: &str, address: SocketAddr| {
        format!(
            "[sinks.{name}]\ntype = \"remote_write\"\ninputs = [\"{last}\"]\n\
             endpoint = \"http://{address}/write\"\n"
        )
    };
    format!(
        "[sources.ingest]\ntype = \"remote_write\"\naddress = \"127.0.0.1:{port}\"\n{transforms}{}{}",
        sink("a", sinks[0]),
        sink("b", sinks[1])
    )
}

#[derive(Clone, Copy)]
struct Run {
    /// Processor nanoseconds per sample that went in.
    nanos: f64,
    /// Samples per second that went in.
    rate: f64,
    /// Peak memory in MiB.
    peak: f64,
}

fn run(gateway: Gateway, case: Case, load: &Arc<Load>, length: Duration) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let sinks = [Counter::start(), Counter::start()];
    let port = free_port();
    let child = gateway.start(case, port, [sinks[0].address, sinks[1].address], dir.path());
    let child = Running(child);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait_for(address);
    // Once through everything, so that pools and caches are what they are in the long run.
    let warmed = load.drive(address, Duration::from_millis(1000)).len();
    settle(&sinks, warmed as u64 * case.kept() as u64);

    let before = cpu(child.0.id());
    let started = Instant::now();
    let requests = load.drive(address, length).len();
    let took = started.elapsed();
    settle(&sinks, (warmed + requests) as u64 * case.kept() as u64);
    let nanos = cpu(child.0.id()) - before;
    let peak = peak(child.0.id());
    drop(child);
    let samples = (requests * payload::SERIES) as f64;
    Run {
        nanos: nanos as f64 / samples,
        rate: samples / took.as_secs_f64(),
        peak,
    }
}

/// Waits until both sinks have so many samples.
fn settle(sinks: &[Counter; 2], samples: u64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    for sink in sinks {
        while sink.samples() < samples {
            assert!(
                Instant::now() < deadline,
                "a sink has {} of {samples} samples",
                sink.samples()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The least that has to be done to a request whose labels change: nanoseconds per sample.
fn limit() -> f64 {
    let bodies: Vec<_> = (0..4).map(|round| payload::body(0, round)).collect();
    let len = payload::request(0, 0).len() + 1024;
    let (mut raw, mut copy) = (vec![0; len], vec![0; len]);
    let mut out = vec![0; snap::raw::max_compress_len(len)];
    let mut offsets: Vec<u32> = Vec::new();
    let mut decoder = snap::raw::Decoder::new();
    let mut encoder = snap::raw::Encoder::new();
    let mut times = Vec::new();
    for round in 0..400 {
        let started = Instant::now();
        let len = decoder
            .decompress(&bodies[round % bodies.len()], &mut raw)
            .unwrap();
        offsets.clear();
        walk(&raw[..len], &mut offsets);
        copy[..len].copy_from_slice(std::hint::black_box(&raw[..len]));
        std::hint::black_box(encoder.compress(&copy[..len], &mut out).unwrap());
        times.push(started.elapsed());
    }
    times.sort();
    times[times.len() / 2].as_nanos() as f64 / payload::SERIES as f64
}

/// Finds every series and the name and value of every label.
fn walk(raw: &[u8], offsets: &mut Vec<u32>) {
    let mut pos = 0;
    while pos < raw.len() {
        pos += 1;
        let len = varint(raw, &mut pos);
        let end = pos + len;
        offsets.push(pos as u32);
        while pos < end {
            let tag = raw[pos];
            pos += 1;
            let len = varint(raw, &mut pos);
            if tag != 0x0a {
                pos += len;
                continue;
            }
            for _ in 0..2 {
                pos += 1;
                let len = varint(raw, &mut pos);
                offsets.extend_from_slice(&[pos as u32, len as u32]);
                pos += len;
            }
        }
    }
}
