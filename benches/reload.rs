//! Duration of a reload, and its effect on senders.
//!
//! The graph has 1,000 components, of which one is changed at a time. First, reloads are timed:
//! from the request to its answer, and the part inside the program, which the topology shows. Then
//! eight connections send requests of 2,000 series at a steady rate, without reloads and during
//! storms of them; latencies count from the time at which a request was due. Run it with `make
//! bench`; `METRIFOLD_BENCH_SECONDS` sets the length of each run, and `METRIFOLD_BIN` names another
//! binary.

use std::fmt::Write as _;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/payload.rs"]
mod payload;

use gateway::{Counter, Running, free_port, product, read_head, wait_for};

/// Number of chains, each of a source, a transform and two sinks.
const CHAINS: usize = 250;
/// Timed reloads per kind of component.
const RELOADS: usize = 50;
const SENDERS: u32 = 8;
/// Rough processor time of a reload. As a control, other work of this size runs in place of
/// reloads.
const WORK: Duration = Duration::from_millis(30);
/// Interval between the requests of a sender, and between reloads.
const INTERVAL: Duration = Duration::from_millis(100);

fn main() {
    // `cargo test --benches` only checks that it compiles.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let seconds = std::env::var("METRIFOLD_BENCH_SECONDS");
    let seconds = seconds.ok().and_then(|s| s.parse().ok()).unwrap_or(10);
    let length = Duration::from_secs(seconds);
    let mut graph = Graph::start();
    println!(
        "{} components, of which one changes; median and maximum of {RELOADS} reloads in ms\n\n\
         {:<34} {:>10} {:>10} {:>10} {:>10}",
        4 * CHAINS,
        "reload",
        "request",
        "",
        "inside",
        ""
    );
    // Not timed: the first reload waits for the end of the start.
    graph.reload(Part::Transform);
    for part in [Part::Transform, Part::Sink, Part::Source] {
        let (mut answered, mut inside) = (Vec::new(), Vec::new());
        for _ in 0..RELOADS {
            answered.push(graph.reload(part));
            inside.push(graph.inside());
        }
        let [answered, inside] = [answered, inside].map(|times| quantiles(times, [0.5, 1.0]));
        println!(
            "{:<34} {:>10} {:>10} {:>10} {:>10}",
            part.name(),
            ms(answered[0]),
            ms(answered[1]),
            ms(inside[0]),
            ms(inside[1])
        );
    }

    println!(
        "\n{SENDERS} connections, a request of {} series every {INTERVAL:?} on each, {seconds} s per run; latency in ms\n\n\
         {:<34} {:>8} {:>10} {:>8} {:>8} {:>8}",
        payload::SERIES,
        "latency",
        "reloads",
        "requests",
        "p50",
        "p99",
        "max"
    );
    // Warm-up.
    graph.latency(Storm::Quiet, Duration::from_secs(2));
    for storm in [
        Storm::Quiet,
        Storm::Control,
        Storm::Paced(Part::Transform),
        Storm::Paced(Part::Sink),
        Storm::Paced(Part::Source),
        Storm::Unceasing,
        Storm::Quiet,
    ] {
        let (reloads, times) = graph.latency(storm, length);
        let requests = times.len();
        let [p50, p99, most] = quantiles(times, [0.5, 0.99, 1.0]).map(ms);
        println!(
            "{:<34} {reloads:>8} {requests:>10} {p50:>8} {p99:>8} {most:>8}",
            storm.name()
        );
    }
}

/// The component of a chain that is changed.
#[derive(Clone, Copy)]
enum Part {
    Source,
    Transform,
    Sink,
}

impl Part {
    const ALL: [Self; 3] = [Self::Source, Self::Transform, Self::Sink];

    fn name(self) -> &'static str {
        match self {
            Self::Source => "a source with other keys",
            Self::Transform => "a transform with other keys",
            Self::Sink => "a sink with other keys",
        }
    }
}

#[derive(Clone, Copy)]
enum Storm {
    Quiet,
    /// No reloads, but another thread computes for [`WORK`] every 100 ms.
    Control,
    /// A reload of this part every 100 ms.
    Paced(Part),
    /// Reloads of all parts without pauses.
    Unceasing,
}

impl Storm {
    fn name(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Control => "quiet, somebody else computes",
            Self::Paced(Part::Transform) => "a transform every 100 ms",
            Self::Paced(Part::Sink) => "a sink every 100 ms",
            Self::Paced(Part::Source) => "a source every 100 ms",
            Self::Unceasing => "one reload after the other",
        }
    }
}

/// The running program. Only the first chain is used.
struct Graph {
    folder: tempfile::TempDir,
    sinks: [Counter; 2],
    ingest: SocketAddr,
    api: SocketAddr,
    /// Number of changes to each part of the first chain.
    versions: [usize; 3],
    _program: Running,
}

impl Graph {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sinks = [Counter::start(), Counter::start()];
        let [ingest, api] = [(), ()].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        write(folder.path(), &config(ingest, api, &sinks, [0; 3]));
        let program = Command::new(product())
            .args(["--log-level", "warn", "-c"])
            .arg(folder.path().join("metrifold.toml"))
            // Reloads on request only.
            .args(["run", "--no-watch"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let program = Running(program);
        wait_for(ingest);
        wait_for(api);
        Self {
            folder,
            sinks,
            ingest,
            api,
            versions: [0; 3],
            _program: program,
        }
    }

    /// Changes a part of the first chain; returns the time to the answer.
    fn reload(&mut self, part: Part) -> Duration {
        self.versions[part as usize] += 1;
        let config = config(self.ingest, self.api, &self.sinks, self.versions);
        write(self.folder.path(), &config);
        let started = Instant::now();
        let answer = ask(self.api, "POST /-/reload");
        let took = started.elapsed();
        assert!(answer.starts_with("applied: changed "), "{answer}");
        took
    }

    /// Duration of the last reload inside the program.
    fn inside(&self) -> Duration {
        let topology: Value = serde_json::from_str(&ask(self.api, "GET /api/v1/topology")).unwrap();
        let inside = topology["last_reload"]["duration_seconds"].as_f64();
        Duration::from_secs_f64(inside.unwrap())
    }

    /// Number of reloads, and the latency of each request.
    fn latency(&mut self, storm: Storm, length: Duration) -> (usize, Vec<Duration>) {
        let started = Instant::now();
        let done = AtomicBool::new(false);
        let ingest = self.ingest;
        thread::scope(|scope| {
            let send = |sender| scope.spawn(move || send(ingest, sender, started, length));
            let senders: Vec<_> = (0..SENDERS).map(send).collect();
            let reloads = scope.spawn(|| {
                let mut reloads = 0;
                while !matches!(storm, Storm::Quiet) && !done.load(Ordering::Relaxed) {
                    match storm {
                        Storm::Quiet | Storm::Control => compute(),
                        Storm::Paced(part) => drop(self.reload(part)),
                        Storm::Unceasing => drop(self.reload(Part::ALL[reloads % 3])),
                    }
                    reloads += 1;
                    if !matches!(storm, Storm::Unceasing) {
                        let due = started + INTERVAL * reloads as u32;
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                    }
                }
                reloads
            });
            let times = senders.into_iter().flat_map(|s| s.join().unwrap());
            let times = times.collect();
            done.store(true, Ordering::Relaxed);
            let reloads = reloads.join().unwrap();
            let count = !matches!(storm, Storm::Control);
            (if count { reloads } else { 0 }, times)
        })
    }
}

fn compute() {
    let started = Instant::now();
    while started.elapsed() < WORK {
        std::hint::spin_loop();
    }
}

fn config(
    ingest: SocketAddr,
    api: SocketAddr,
    sinks: &[Counter; 2],
    [source, transform, sink]: [usize; 3],
) -> String {
    let mut text = format!("[api]\naddress = \"{api}\"\n");
    for chain in 0..CHAINS {
        let first = usize::from(chain == 0);
        let (source, transform, sink) = (first * source, first * transform, first * sink);
        write!(
            text,
            "[sources.in{chain}]\ntype = \"remote_write\"\naddress = \"{ingest}\"\npath = \"/{chain}\"\n\
             max_labels_per_series = {}\n\
             [transforms.edit{chain}]\ntype = \"relabel\"\ninputs = [\"in{chain}\"]\n\
             rules = [{{ target_label = \"version\", replacement = \"{transform}\" }}]\n",
            64 + source
        )
        .unwrap();
        for (name, counter) in ["a", "b"].into_iter().zip(sinks) {
            // Only one of the two sinks is changed.
            let sink = if name == "a" { sink } else { 0 };
            write!(
                text,
                "[sinks.{name}{chain}]\ntype = \"remote_write\"\ninputs = [\"edit{chain}\"]\n\
                 endpoint = \"http://{}/write\"\ntimeout = \"{}ms\"\n",
                counter.address,
                30_000 + sink
            )
            .unwrap();
        }
    }
    text
}

fn write(folder: &Path, config: &str) {
    std::fs::write(folder.join("metrifold.toml"), config).unwrap();
}

/// Sends a request without a body, and returns the body of the answer.
fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "{request} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    body.to_owned()
}

/// Sends at a fixed rate over one connection; returns the latency of each request from when it was
/// due, so that the delay behind a slow one is included.
fn send(address: SocketAddr, sender: u32, started: Instant, length: Duration) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let body = payload::body(sender as usize, 0);
    let mut request = format!(
        "POST /0 HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench\r\n\
         Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n\
         X-Prometheus-Remote-Write-Version: 0.1.0\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(&body);
    let first = started + INTERVAL + INTERVAL * sender / SENDERS;
    let mut times = Vec::new();
    loop {
        let due = first + INTERVAL * times.len() as u32;
        if due > started + length {
            return times;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        stream.write_all(&request).unwrap();
        let head = read_head(&mut reader).unwrap();
        assert!(head[0].contains(" 204"), "{head:?}");
        times.push(due.elapsed());
    }
}

/// The quantiles of times at these fractions.
fn quantiles<const N: usize>(mut times: Vec<Duration>, fractions: [f64; N]) -> [Duration; N] {
    times.sort();
    let last = times.len() - 1;
    fractions.map(|fraction| times[(last as f64 * fraction).round() as usize])
}

fn ms(time: Duration) -> String {
    format!("{:.2}", 1000.0 * time.as_secs_f64())
}
