//! Metrifold's queue on disk beside vmagent's: the endpoint goes down, then it comes back.
//!
//! Four senders in a closed loop post the requests of the throughput benchmark, which both gateways
//! edit, while the endpoint is down: first with no listener, then answering 503. Then it accepts
//! and counts samples again. The processor time of each gateway is read from /proc for both halves.
//! Run it with `make bench`; `METRIFOLD_BENCH_SECONDS` sets the duration of the outage,
//! `METRIFOLD_BENCH_ONLY` runs Metrifold alone, and `METRIFOLD_BIN` names another binary. The
//! queues are in the folder for temporary files (`TMPDIR`) and take up to 4 GiB there.

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

use gateway::{Counter, Running, cpu, free_port, metric, peak, product, wait_for};
use load::{Load, SENDERS, quantile};

/// Bound of the queue on disk of either gateway.
const MAX_BYTES: &str = "4GiB";
/// Longest time for draining the backlog.
const PATIENCE: Duration = Duration::from_secs(90);

fn main() {
    // `cargo test --benches` only checks that it compiles.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let seconds = std::env::var("METRIFOLD_BENCH_SECONDS");
    let seconds = seconds.ok().and_then(|s| s.parse().ok()).unwrap_or(5);
    let length = Duration::from_secs(seconds);
    let load = Load::new();
    println!(
        "load: {} series per request, {} raw and {} compressed bytes per sample, {SENDERS} connections; the endpoint is down for {seconds} s\n",
        payload::SERIES,
        load.raw / payload::SERIES,
        load.compressed() / payload::SERIES,
    );
    println!(
        "{:<32} {:>9} {:>10} {:>8} {:>8} {:>8} {:>8} {:>9} {:>10} {:>8}",
        "gateway, endpoint", "queueing", "", "", "answer", "", "", "draining", "", "peak"
    );
    println!(
        "{:<32} {:>9} {:>10} {:>8} {:>8} {:>8} {:>8} {:>9} {:>10} {:>8}",
        "",
        "ns/sample",
        "samples/s",
        "fsyncs/s",
        "p50 ms",
        "p99 ms",
        "max ms",
        "ns/sample",
        "samples/s",
        "MiB"
    );
    let alone = std::env::var_os("METRIFOLD_BENCH_ONLY").is_some();
    let mut ratios = Vec::new();
    for down in [Down::Refuses, Down::Busy] {
        let metrifold = run(Gateway::Metrifold, down, &load, length);
        metrifold.print(Gateway::Metrifold, down);
        if alone {
            continue;
        }
        let vmagent = run(Gateway::Vmagent, down, &load, length);
        vmagent.print(Gateway::Vmagent, down);
        ratios.push((
            down,
            vmagent.queueing / metrifold.queueing,
            metrifold.draining / vmagent.draining,
        ));
    }
    println!();
    for (down, queueing, draining) in ratios {
        println!(
            "{}: queueing, vmagent / metrifold = {queueing:.1} (goal: at least 4); draining, metrifold / vmagent = {draining:.2} (goal: at most 1)",
            down.name()
        );
    }
}

/// State of an endpoint that is down.
#[derive(Clone, Copy)]
enum Down {
    /// Nothing listens.
    Refuses,
    /// It answers 503.
    Busy,
}

impl Down {
    fn name(self) -> &'static str {
        match self {
            Self::Refuses => "connections refused",
            Self::Busy => "answers 503",
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

    fn start(self, port: u16, api: SocketAddr, sink: SocketAddr, dir: &Path) -> Child {
        match self {
            Self::Metrifold => {
                let config = dir.join("metrifold.toml");
                let text = format!(
                    "data_dir = {dir:?}\n[api]\naddress = \"{api}\"\n\
                     [sources.ingest]\ntype = \"remote_write\"\naddress = \"127.0.0.1:{port}\"\n{}\
                     [sinks.a]\ntype = \"remote_write\"\ninputs = [\"clean\"]\n\
                     endpoint = \"http://{sink}/write\"\n\
                     queue = {{ type = \"disk\", max_bytes = \"{MAX_BYTES}\", sync = \"batch\" }}\n",
                    edit::transforms()
                );
                std::fs::write(&config, text).unwrap();
                Command::new(product())
                    .args(["--log-level", "error", "-c"])
                    .arg(config)
                    .stdout(Stdio::null())
                    .spawn()
                    .unwrap()
            }
            Self::Vmagent => {
                let rules = dir.join("relabel.yml");
                std::fs::write(&rules, edit::vmagent_rules()).unwrap();
                Command::new("vmagent")
                    .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
                    .arg(format!("-remoteWrite.tmpDataPath={}", dir.display()))
                    .arg(format!("-remoteWrite.maxDiskUsagePerURL={MAX_BYTES}"))
                    .arg(format!("-remoteWrite.url=http://{sink}/write"))
                    .arg(format!("-remoteWrite.relabelConfig={}", rules.display()))
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .expect("vmagent is missing: apt-get install victoria-metrics")
            }
        }
    }
}

/// Results of a run.
struct Run {
    /// Nanoseconds of processor time per sample while the endpoint is down.
    queueing: f64,
    queued_rate: f64,
    /// Syncs per second; `None` for a gateway that does not report them.
    fsyncs: Option<f64>,
    /// Median, 99th percentile and maximum time to the acknowledgement.
    answers: [Duration; 3],
    /// Nanoseconds of processor time per sample after the endpoint is back.
    draining: f64,
    /// Samples per second, from the first to the last that arrives.
    drained_rate: f64,
    /// Peak memory in MiB.
    peak: f64,
}

impl Run {
    fn print(&self, gateway: Gateway, down: Down) {
        let [p50, p99, most] = self
            .answers
            .map(|time| format!("{:.2}", 1e3 * time.as_secs_f64()));
        let fsyncs = self
            .fsyncs
            .map_or("-".to_owned(), |fsyncs| format!("{fsyncs:.0}"));
        println!(
            "{:<32} {:>9.0} {:>10.0} {fsyncs:>8} {p50:>8} {p99:>8} {most:>8} {:>9.1} {:>10.0} {:>8.1}",
            format!("{}, {}", gateway.name(), down.name()),
            self.queueing,
            self.queued_rate,
            self.draining,
            self.drained_rate,
            self.peak
        );
    }
}

fn run(gateway: Gateway, down: Down, load: &Arc<Load>, length: Duration) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let (port, api, sink) = (free_port(), local(free_port()), local(free_port()));
    let counter = match down {
        Down::Refuses => None,
        Down::Busy => {
            let counter = Counter::start_at(sink);
            counter.fail(true);
            Some(counter)
        }
    };
    let child = Running(gateway.start(port, api, sink, dir.path()));
    let pid = child.0.id();
    let address = local(port);
    wait_for(address);
    let read = |name: &str| match gateway {
        Gateway::Metrifold => Some(metric(api, name, "component_id=\"a\"")),
        Gateway::Vmagent => None,
    };
    // Warm-up: the gateway notices that the endpoint is down, and pools and caches fill.
    let warmed = load.drive(address, Duration::from_secs(1)).len();

    let fsyncs = || read("metrifold_queue_disk_fsyncs_total");
    let (cpu_before, fsyncs_before, started) = (cpu(pid), fsyncs(), Instant::now());
    let mut answers = load.drive(address, length);
    let took = started.elapsed().as_secs_f64();
    let fsyncs = fsyncs().zip(fsyncs_before).map(|(now, then)| now - then);
    // The last acknowledged batches may still be on their way to the disk.
    thread::sleep(Duration::from_millis(500));
    let queueing = cpu(pid) - cpu_before;
    let requests = answers.len();
    if let Some(queued) = read("metrifold_queue_disk_batches") {
        let sent = (warmed + requests) as f64;
        assert_eq!(queued, sent, "not all of it is on disk");
    }

    let cpu_before = cpu(pid);
    let counter = match counter {
        Some(counter) => {
            counter.fail(false);
            counter
        }
        None => Counter::start_at(sink),
    };
    let backlog = (warmed + requests) * payload::SERIES;
    let drained = drain(&counter, ((warmed + requests) * edit::kept()) as u64);
    let draining = cpu(pid) - cpu_before;
    let samples = (requests * payload::SERIES) as f64;
    Run {
        queueing: queueing as f64 / samples,
        queued_rate: samples / took,
        fsyncs: fsyncs.map(|fsyncs| fsyncs / took),
        answers: [0.5, 0.99, 1.0].map(|at| quantile(&mut answers, at)),
        draining: draining as f64 / backlog as f64,
        drained_rate: backlog as f64 / drained.as_secs_f64(),
        peak: peak(pid),
    }
}

/// Waits until the sink has `samples`. Returns the time since the first one, since before that the
/// gateway may be pausing between attempts.
fn drain(counter: &Counter, samples: u64) -> Duration {
    let deadline = Instant::now() + PATIENCE;
    let mut first = None;
    loop {
        let arrived = counter.samples();
        if arrived > 0 {
            first.get_or_insert_with(Instant::now);
        }
        if let (Some(first), true) = (first, arrived >= samples) {
            assert_eq!(arrived, samples, "something came twice");
            return first.elapsed();
        }
        assert!(
            Instant::now() < deadline,
            "the sink has {arrived} of {samples} samples"
        );
        thread::sleep(Duration::from_millis(2));
    }
}
