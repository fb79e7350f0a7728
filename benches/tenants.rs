//! Measures the time of a decision about a caller (`support/decision.rs`), how a tenant that sends ten
//! times its limit affects the latency of another one, and what 100,000 tenants cost (`support/many.rs`).
//!
//! Two tenants write through one gateway: `calm` at a fixed rate within its limit, `noisy` first not at
//! all, then at its limit, then at ten times its limit. The latencies are those of `calm`. Each counts
//! from the time at which its request was due, so that the wait behind a slow answer counts as well. Run
//! it with `make bench`; `METRIFOLD_BENCH_SECONDS` sets the duration of each part, and an argument
//! (`decision`, `latencies`, `many`) selects one.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use prost::Message;

use metrifold_codec::remote_write::messages::v1;

#[path = "support/decision.rs"]
mod decision;
#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/load.rs"]
mod load;
#[path = "support/many.rs"]
mod many;
#[path = "support/payload.rs"]
mod payload;

use gateway::{Counter, Running, cpu, free_port, product, read_head, wait_for};
use load::quantile;

/// Series of a request, with a sample each.
const SERIES: usize = 200;
/// Limit of each tenant, in requests per second.
const LIMIT: u32 = 100;
/// Number of connections of a tenant.
const SENDERS: u32 = 4;
/// Pause before each part, in which `noisy` already sends.
const PAUSE: Duration = Duration::from_secs(1);

/// Names of the tenants, which are also their tokens, with their SHA-256.
const TENANTS: [(&str, &str); 2] = [
    (
        "calm",
        "2b4b2eadf7b2aece598d2f2ad4637361614a738a7cdf1a457d8b46db072184d5",
    ),
    (
        "noisy",
        "acd6beff7c3430bfed5d69f86c5c9e6a32ad2a27a2c2a1e8763ce08f6c3da5ec",
    ),
];

fn main() {
    // `cargo test --benches` only checks that it compiles.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let seconds = std::env::var("METRIFOLD_BENCH_SECONDS");
    let seconds = seconds.ok().and_then(|s| s.parse().ok()).unwrap_or(20);
    let part = std::env::args().skip(1).find(|it| !it.starts_with('-'));
    let wanted = |name| part.as_deref().is_none_or(|part| part == name);
    if wanted("decision") {
        decision::run();
    }
    if wanted("latencies") {
        latencies(seconds);
    }
    if wanted("many") {
        many::run();
    }
}

fn latencies(seconds: u64) {
    let length = Duration::from_secs(seconds);
    let dir = tempfile::tempdir().unwrap();
    let [ingest, api] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
    let endpoint = Counter::start();
    let mut text = format!(
        "[api]\naddress = \"{api}\"\n\
         [access.limits]\nrequests_per_second = {LIMIT}\nsamples_per_second = {}\n\
         [sources.ingest]\ntype = \"remote_write\"\naddress = \"{ingest}\"\naccess = \"tenants\"\n\
         [transforms.tenant]\ntype = \"tenant\"\ninputs = [\"ingest\"]\nlabel = \"tenant_id\"\n\
         [sinks.out]\ntype = \"remote_write\"\ninputs = [\"tenant\"]\nendpoint = \"http://{}/write\"\n",
        LIMIT as usize * SERIES,
        endpoint.address
    );
    for (name, hash) in TENANTS {
        let file = dir.path().join(name);
        std::fs::write(&file, format!("sha256:{hash} agent\n")).unwrap();
        text.push_str(&format!(
            "[tenants.{name}]\nbearer = {{ tokens_file = {file:?} }}\n"
        ));
    }
    let config = dir.path().join("metrifold.toml");
    std::fs::write(&config, text).unwrap();
    let child = Command::new(product())
        .args(["--log-level", "error", "-c"])
        .arg(config)
        .arg("run")
        .stdout(Stdio::null())
        .spawn();
    let child = Running(child.unwrap());
    wait_for(ingest);

    println!(
        "two tenants of {LIMIT} requests/s with {SERIES} samples; \"calm\" sends {} requests/s, each part takes {seconds} s\n",
        LIMIT / 2
    );
    println!(
        "{:<32} {:>9} {:>9} {:>9} {:>12} {:>12} {:>8}",
        "", "p50 in ms", "p99 in ms", "max in ms", "noisy: taken", "noisy: 429", "cores"
    );
    for (what, rate) in [
        ("calm alone", 0),
        ("noisy at its rate", LIMIT),
        ("noisy at ten times its rate", 10 * LIMIT),
        ("calm alone, again", 0),
    ] {
        let noise = (rate > 0).then(|| tenant("noisy", rate, ingest, PAUSE + length));
        thread::sleep(PAUSE);
        let (before, started) = (cpu(child.0.id()), Instant::now());
        let calm = tenant("calm", LIMIT / 2, ingest, length);
        let calm: Vec<_> = calm.into_iter().flat_map(|it| it.join().unwrap()).collect();
        let spent = (cpu(child.0.id()) - before) as f64 / started.elapsed().as_nanos() as f64;
        assert!(
            calm.iter().all(|(status, _)| *status == 204),
            "calm is within its limit"
        );
        let noise = noise.into_iter().flatten();
        let noise: Vec<_> = noise.flat_map(|it| it.join().unwrap()).collect();
        let count = |wanted| noise.iter().filter(|(status, _)| *status == wanted).count();
        let mut took: Vec<_> = calm.into_iter().map(|(_, took)| took).collect();
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|at| {
            let quantile = quantile(&mut took, at);
            format!("{:.2}", quantile.as_secs_f64() * 1e3)
        });
        println!(
            "{what:<32} {p50:>9} {p99:>9} {max:>9} {:>12} {:>12} {spent:>8.2}",
            count(204),
            count(429)
        );
    }
}

type Answers = Vec<(u16, Duration)>;

/// Sends a tenant's requests at a rate over several connections. Each thread returns the status of every
/// request, and the time from its due time to its answer.
fn tenant(
    name: &'static str,
    rate: u32,
    address: SocketAddr,
    length: Duration,
) -> Vec<thread::JoinHandle<Answers>> {
    let interval = Duration::from_secs(1) * SENDERS / rate;
    let senders = (0..SENDERS).map(|sender| {
        // Requests of the senders are due one after the other.
        let first = interval * sender / SENDERS;
        thread::spawn(move || send(name, sender as usize, address, (first, interval, length)))
    });
    senders.collect()
}

fn send(
    name: &str,
    sender: usize,
    address: SocketAddr,
    (first, interval, length): (Duration, Duration, Duration),
) -> Answers {
    let request = request(name, sender);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let started = Instant::now();
    let mut answers = Answers::new();
    let mut due = first;
    while due < length {
        thread::sleep(due.saturating_sub(started.elapsed()));
        stream.write_all(&request).unwrap();
        let status = read_answer(&mut reader);
        answers.push((status, started.elapsed() - due));
        due += interval;
    }
    answers
}

fn read_answer(reader: &mut BufReader<TcpStream>) -> u16 {
    let head = read_head(reader).unwrap();
    let length = head.iter().find_map(|line| {
        let line = line.to_ascii_lowercase();
        line.strip_prefix("content-length: ")?.parse().ok()
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    head[0].split(' ').nth(1).unwrap().parse().unwrap()
}

/// A write request of a tenant, whose name is its token.
fn request(name: &str, sender: usize) -> Vec<u8> {
    let mut whole = v1::WriteRequest::decode(&*payload::request(sender, 0)).unwrap();
    whole.timeseries.truncate(SERIES);
    let body = whole.encode_to_vec();
    let body = snap::raw::Encoder::new().compress_vec(&body).unwrap();
    let head = format!(
        "POST /api/v1/write HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench\r\n\
         Authorization: Bearer {name}\r\nContent-Type: application/x-protobuf\r\n\
         Content-Encoding: snappy\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body].concat()
}
