//! Metrifold beside vmagent under the same loads, and both beside the minimum of work on the same
//! bodies.
//!
//! Four senders in a closed loop post requests of 2,000 series, one shape after the other; two
//! sinks count the samples. The processor time of each gateway is read from /proc, from the first
//! request to the last series that the sinks received. Run it with `make bench`;
//! `METRIFOLD_BENCH_SECONDS` sets the length of each run, `METRIFOLD_BENCH_ONLY` names one load,
//! `METRIFOLD_BENCH_ALONE` leaves out vmagent, `METRIFOLD_BENCH_SEED` repeats a run's data, and
//! `METRIFOLD_BIN` names another binary.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use metrifold_codec::remote_write::messages::v1;

#[path = "support/edit.rs"]
mod edit;
#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/limit.rs"]
mod limit;
#[path = "support/load.rs"]
mod load;
#[path = "support/payload.rs"]
mod payload;
#[path = "support/shapes.rs"]
mod shapes;

use gateway::{Counter, Running, cpu, free_port, peak, product, wait_for};
use limit::Limit;
use load::{Load, SENDERS};
use shapes::{Generator, Shape};

const REPETITIONS: usize = 3;

fn main() {
    // `cargo test --benches` only checks that it compiles.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let seconds = std::env::var("METRIFOLD_BENCH_SECONDS");
    let seconds = seconds.ok().and_then(|s| s.parse().ok()).unwrap_or(6);
    let length = Duration::from_secs(seconds);
    let seed = shapes::seed();
    println!(
        "seed {seed}, {} series per request, {SENDERS} connections, {seconds} s per run, ranges over {REPETITIONS} runs; \
         CPU in nanoseconds per series, the limit in one core without a network",
        payload::SERIES,
    );
    println!(
        "{:<24} {:<34} {:>5} {:>5} {:>11} {:>13} {:>9} {:>12} {:>8}",
        "load", "case", "raw", "wire", "CPU", "times limit", "limit", "series/s", "MiB"
    );
    let only = std::env::var("METRIFOLD_BENCH_ONLY").ok();
    let peer = std::env::var_os("METRIFOLD_BENCH_ALONE").is_none();
    for shape in Shape::ALL {
        if only
            .as_ref()
            .is_some_and(|only| !shape.name().contains(&**only))
        {
            continue;
        }
        let requests = requests(shape, seed);
        let mut better = f64::INFINITY;
        let mut worst: f64 = 0.0;
        for case in Case::ALL {
            // vmagent does not support 2.0, and this version no native histograms.
            let both = peer && case != Case::EditV2 && shape != Shape::Histograms;
            let gateways = match both {
                true => &[Gateway::Metrifold, Gateway::Vmagent][..],
                false => &[Gateway::Metrifold],
            };
            let load = load_of(&requests, case == Case::EditV2);
            let kept = match case {
                Case::Pass => payload::SERIES,
                Case::Edit | Case::EditV2 => shapes::kept(&requests[0][0]),
            };
            let limit = limit(&load, case == Case::EditV2);
            for &gateway in gateways {
                let mut runs: Vec<Run> = (0..REPETITIONS)
                    .map(|_| run(gateway, case, &load, kept, length))
                    .collect();
                runs.sort_by(|a, b| a.nanos.total_cmp(&b.nanos));
                let (least, most) = (runs[0], runs[REPETITIONS - 1]);
                let peak = runs.iter().fold(0.0, |peak: f64, run| peak.max(run.peak));
                println!(
                    "{:<24} {:<34} {:>5} {:>5} {:>5.0}-{:<5.0} {:>6.2}-{:<6.2} {limit:>9.0} {:>12.0} {peak:>8.1}",
                    shape.name(),
                    format!("{}, {}", gateway.name(), case.name()),
                    load.raw / payload::SERIES,
                    load.compressed() / payload::SERIES,
                    least.nanos,
                    most.nanos,
                    least.nanos / limit,
                    most.nanos / limit,
                    runs[REPETITIONS / 2].rate,
                );
                match (gateway, case) {
                    (Gateway::Metrifold, Case::Edit) => worst = most.nanos,
                    (Gateway::Vmagent, Case::Edit) => better = least.nanos,
                    _ => {}
                }
            }
        }
        if better.is_finite() {
            println!(
                "{:<24} vmagent / metrifold, worst of the runs: {:.1}",
                shape.name(),
                better / worst
            );
        }
    }
}

/// Requests of each sender.
fn requests(shape: Shape, seed: u64) -> Vec<Vec<v1::WriteRequest>> {
    let generator = Generator {
        shape,
        seed,
        series: payload::SERIES,
    };
    // Churn needs more rounds, since its series must stay new for a while.
    let rounds = if shape == Shape::Churn { 12 } else { 4 };
    let of = |sender| {
        (0..rounds)
            .map(|round| generator.request(sender, round))
            .collect()
    };
    (0..SENDERS).map(of).collect()
}

fn load_of(requests: &[Vec<v1::WriteRequest>], second_version: bool) -> Arc<Load> {
    let body = |request| match second_version {
        false => shapes::compressed(request),
        true => shapes::compressed(&shapes::as_v2(request)),
    };
    let bodies = requests
        .iter()
        .map(|requests| requests.iter().map(body).collect());
    Load::of(bodies.collect(), second_version)
}

/// The minimum of work on such requests: nanoseconds per series.
fn limit(load: &Load, second_version: bool) -> f64 {
    let mut limit = Limit::new();
    let mut times = Vec::new();
    for round in 0..400 {
        let started = Instant::now();
        let len = limit.read(load.body(round), second_version);
        limit.write(len);
        times.push(started.elapsed());
    }
    times.sort();
    times[times.len() / 2].as_nanos() as f64 / payload::SERIES as f64
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    /// Adds a tenant label, drops one family and one label.
    Edit,
    /// The same edit of 2.0 requests.
    EditV2,
    /// No edit; Metrifold only counts samples.
    Pass,
}

impl Case {
    const ALL: [Self; 3] = [Self::Edit, Self::EditV2, Self::Pass];

    fn name(self) -> &'static str {
        match self {
            Self::Edit => "edit",
            Self::EditV2 => "edit of 2.0",
            Self::Pass => "nothing to change",
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
                if case != Case::Pass {
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
        Case::Edit | Case::EditV2 => (edit::transforms(), "clean"),
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
    /// Nanoseconds of processor time per received sample.
    nanos: f64,
    /// Received samples per second.
    rate: f64,
    /// Peak memory in MiB.
    peak: f64,
}

fn run(gateway: Gateway, case: Case, load: &Arc<Load>, kept: usize, length: Duration) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let sinks = [Counter::start(), Counter::start()];
    let port = free_port();
    let child = gateway.start(case, port, [sinks[0].address, sinks[1].address], dir.path());
    let child = Running(child);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait_for(address);
    // Warm-up, which fills pools and caches.
    let warmed = load.drive(address, Duration::from_millis(1000)).len();
    settle(&sinks, warmed as u64 * kept as u64);

    let before = cpu(child.0.id());
    let started = Instant::now();
    let requests = load.drive(address, length).len();
    let took = started.elapsed();
    settle(&sinks, (warmed + requests) as u64 * kept as u64);
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

/// Waits until both sinks have `samples`.
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
