//! Cost of an endpoint's outage to other endpoints, and speed of draining the backlog.
//!
//! Senders post at a fixed rate to a gateway with two required sinks: one with a queue on disk,
//! whose endpoint goes down for a while and comes back while the load goes on, and a healthy one.
//! The first value of each request is the time at which it was due, from which the endpoints
//! compute its latency. Latencies count from when a request was due, so that the delay of waiting
//! senders is included. Run it with `make bench`; `METRIFOLD_BENCH_SECONDS` sets the duration of
//! the outage.

use std::io::{BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use prost::Message;
use socket2::{Domain, Socket, Type};

use metrifold_codec::remote_write::messages::v1;
use metrifold_codec::wire::{Fields, Value};

#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/load.rs"]
mod load;
#[path = "support/payload.rs"]
mod payload;

use gateway::{Running, free_port, metric, peak, product, read_head, wait_for};
use load::{expect_success, quantile, request};

const SENDERS: usize = 8;
/// Series per request: a tenth of the throughput benchmark's.
const SERIES: usize = 200;
/// Interval between the requests of a sender.
const INTERVAL: Duration = Duration::from_millis(50);
/// Duration of the phases before and after the outage.
const CALM: Duration = Duration::from_secs(5);
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    // `cargo test --benches` only checks that it compiles.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let seconds = std::env::var("METRIFOLD_BENCH_SECONDS");
    let seconds = seconds.ok().and_then(|s| s.parse().ok()).unwrap_or(20);
    let outage = Duration::from_secs(seconds);
    println!(
        "load: {} samples/s in requests of {SERIES}, {SENDERS} connections; one of two endpoints is gone for {seconds} s\n",
        SENDERS as f64 * SERIES as f64 / INTERVAL.as_secs_f64()
    );
    println!(
        "{:<42} {:>8} {:>9} {:>8} {:>9} {:>9} {:>8} {:>8}",
        "latency in ms: p50 / p99 of", "before", "", "gone", "", "catching", "up", ""
    );
    for (senders, pause) in [
        (Addresses::Many, Duration::ZERO),
        (Addresses::Many, Duration::from_millis(10)),
        (Addresses::One, Duration::from_millis(10)),
    ] {
        run(senders, pause, outage);
    }
}

/// Source addresses of the senders, which decide about requests in flight.
#[derive(Clone, Copy)]
enum Addresses {
    Many,
    One,
}

impl Addresses {
    fn of(self, sender: usize) -> IpAddr {
        let last = match self {
            Self::Many => 2 + sender as u8,
            Self::One => 1,
        };
        IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Many => "senders of their own addresses",
            Self::One => "senders of one address",
        }
    }
}

/// The phases of a run, by the time at which a request was due.
struct Phases {
    gone: Duration,
    back: Duration,
    drained: Duration,
}

fn run(senders: Addresses, pause: Duration, outage: Duration) {
    let dir = tempfile::tempdir().unwrap();
    let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let (ingest, api) = (local(free_port()), local(free_port()));
    let epoch = Instant::now();
    let listen = |address| Endpoint::start(address, epoch, pause);
    let (well, gone) = (listen(local(0)), listen(local(0)));
    let config = dir.path().join("metrifold.toml");
    let text = format!(
        "data_dir = {:?}\n[api]\naddress = \"{api}\"\n\
         [sources.ingest]\ntype = \"remote_write\"\naddress = \"{ingest}\"\n\
         [sinks.well]\ntype = \"remote_write\"\ninputs = [\"ingest\"]\n\
         endpoint = \"http://{}/write\"\nconnections = 16\n\
         [sinks.gone]\ntype = \"remote_write\"\ninputs = [\"ingest\"]\n\
         endpoint = \"http://{}/write\"\nqueue = {{ type = \"disk\" }}\n",
        dir.path(),
        well.address,
        gone.address
    );
    std::fs::write(&config, text).unwrap();
    let child = Command::new(product())
        .args(["--log-level", "error", "-c"])
        .arg(config)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let child = Running(child);
    wait_for(ingest);

    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (from, stop) = (senders.of(sender), stop.clone());
            thread::spawn(move || send(sender, from, ingest, epoch, &stop))
        })
        .collect();
    let queued = || metric(api, "metrifold_queue_disk_batches", "component_id=\"gone\"");
    // One second of warm-up.
    thread::sleep(Duration::from_secs(1) + CALM);
    let address = gone.address;
    let first = gone.end();
    let left = epoch.elapsed();
    thread::sleep(outage);
    let backlog = queued();
    let back = epoch.elapsed();
    let gone = listen(address);
    // The gateway may be pausing between attempts; the drain is timed from its first request.
    while gone.requests.load(Ordering::Relaxed) == 0 {
        assert!(epoch.elapsed() - back < PATIENCE, "nothing comes");
        thread::sleep(Duration::from_millis(1));
    }
    let begun = epoch.elapsed();
    // For the duration of the outage, at most.
    while queued() > 0.0 && epoch.elapsed() - begun < outage {
        thread::sleep(Duration::from_millis(5));
    }
    let (drained, left_over) = (epoch.elapsed(), queued());
    let peak = peak(child.0.id());
    thread::sleep(CALM);
    stop.store(true, Ordering::Relaxed);
    let answers: Vec<_> = threads
        .into_iter()
        .flat_map(|thread| thread.join().unwrap())
        .collect();
    let sent = answers.len() as u64;
    // Every request must arrive exactly once.
    let deadline = Instant::now() + PATIENCE;
    while left_over == 0.0 && first + gone.requests.load(Ordering::Relaxed) < sent {
        assert!(Instant::now() < deadline, "requests are missing");
        thread::sleep(Duration::from_millis(5));
    }
    drop(child);

    println!("{}, endpoints take {pause:?}", senders.name());
    let phases = Phases {
        gone: left,
        back,
        drained,
    };
    phases.print("answers to the senders", &answers);
    phases.print("deliveries to the other endpoint", &well.latencies());
    let took = (drained - begun).as_secs_f64();
    let speed = outage.as_secs_f64() / took;
    let outcome = match left_over {
        0.0 => format!("all went in {took:.2} s, {speed:.1} times real time (goal: more than 10)"),
        left => format!("{left} are left after {took:.2} s (goal: none after a tenth of that)"),
    };
    println!(
        "  {backlog} requests of {} s waited; while the load went on, {outcome}; the first came after {:.2} s; peak memory {peak:.1} MiB\n",
        outage.as_secs(),
        (begun - back).as_secs_f64(),
    );
}

impl Phases {
    /// Prints latencies by the phase in which the requests were due.
    fn print(&self, what: &str, all: &[(Duration, Duration)]) {
        let between = |from: Duration, to: Duration| {
            let due = all.iter().filter(|(due, _)| (from..to).contains(due));
            let mut took: Vec<_> = due.map(|(_, took)| *took).collect();
            if took.is_empty() {
                return ["-".to_owned(), "-".to_owned()];
            }
            [0.5, 0.99].map(|at| format!("{:.2}", 1e3 * quantile(&mut took, at).as_secs_f64()))
        };
        let [b50, b99] = between(Duration::from_secs(1), self.gone);
        let [g50, g99] = between(self.gone, self.back);
        let [c50, c99] = between(self.back, self.drained);
        println!("  {what:<40} {b50:>8} {b99:>9} {g50:>8} {g99:>9} {c50:>9} {c99:>8}");
    }
}

/// Sends at a fixed rate. Returns for each request the time at which it was due, and its latency
/// from then.
fn send(
    sender: usize,
    from: IpAddr,
    to: SocketAddr,
    epoch: Instant,
    stop: &AtomicBool,
) -> Vec<(Duration, Duration)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut message = v1::WriteRequest::decode(&*payload::request(sender, 0)).unwrap();
    message.timeseries.truncate(SERIES);
    let mut encoder = snap::raw::Encoder::new();
    let mut answers = Vec::new();
    // Senders are spread over the interval.
    let mut due = epoch.elapsed() + INTERVAL * sender as u32 / SENDERS as u32;
    while !stop.load(Ordering::Relaxed) {
        let now = epoch.elapsed();
        if due > now {
            thread::sleep(due - now);
        }
        for series in &mut message.timeseries {
            series.samples[0].timestamp = due.as_millis() as i64;
            series.samples[0].value = due.as_secs_f64();
        }
        let body = encoder.compress_vec(&message.encode_to_vec()).unwrap();
        stream.write_all(&request(&body)).unwrap();
        expect_success(&mut reader);
        answers.push((due, epoch.elapsed().saturating_sub(due)));
        due += INTERVAL;
    }
    answers
}

/// An endpoint that records latencies, takes a while, and answers 204.
struct Endpoint {
    address: SocketAddr,
    requests: Arc<AtomicU64>,
    latencies: Arc<Mutex<Vec<(Duration, Duration)>>>,
    ended: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Endpoint {
    fn start(address: SocketAddr, epoch: Instant, pause: Duration) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let endpoint = Self {
            address: listener.local_addr().unwrap(),
            requests: Arc::default(),
            latencies: Arc::default(),
            ended: Arc::default(),
            streams: Arc::default(),
        };
        let (requests, latencies) = (endpoint.requests.clone(), endpoint.latencies.clone());
        let (ended, streams) = (endpoint.ended.clone(), endpoint.streams.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                streams.lock().unwrap().push(stream.try_clone().unwrap());
                let (requests, latencies) = (requests.clone(), latencies.clone());
                thread::spawn(move || serve(stream, epoch, pause, &requests, &latencies));
            }
        });
        endpoint
    }

    fn latencies(&self) -> Vec<(Duration, Duration)> {
        self.latencies.lock().unwrap().clone()
    }

    /// Closes everything. Returns the number of answered requests.
    fn end(self) -> u64 {
        self.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address); // wakes the accepting thread
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        // Until connections are refused.
        while TcpStream::connect(self.address).is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
        self.requests.load(Ordering::Relaxed)
    }
}

fn serve(
    mut stream: TcpStream,
    epoch: Instant,
    pause: Duration,
    requests: &AtomicU64,
    latencies: &Mutex<Vec<(Duration, Duration)>>,
) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::with_capacity(1 << 17, stream.try_clone().unwrap());
    let mut decoder = snap::raw::Decoder::new();
    let mut body = Vec::new();
    while let Some(head) = read_head(&mut reader) {
        let now = epoch.elapsed();
        let length = head.iter().find_map(|line| {
            let line = line.to_ascii_lowercase();
            line.strip_prefix("content-length: ")?.parse().ok()
        });
        body.resize(length.unwrap_or(0), 0);
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let raw = decoder.decompress_vec(&body).unwrap();
        // Reads only what is needed to find the samples, so that a slow endpoint is not what is
        // measured.
        let series: Vec<&[u8]> = messages(&raw, TIMESERIES).collect();
        if !pause.is_zero() {
            thread::sleep(pause);
        }
        if stream
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .is_err()
        {
            return;
        }
        // A merged request holds several, each with `SERIES` series.
        let merged = series.iter().step_by(SERIES);
        let due = merged.map(|series| Duration::from_secs_f64(first_value(series)));
        latencies
            .lock()
            .unwrap()
            .extend(due.map(|due| (due, now.saturating_sub(due))));
        requests.fetch_add((series.len() / SERIES) as u64, Ordering::Relaxed);
    }
}

/// The messages in a repeated field of a message.
fn messages(message: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    let fields = Fields::new(message).map(Result::unwrap);
    let fields = fields.filter(move |field| field.number == number);
    fields.map(|field| field.bytes().unwrap())
}

/// The value of a series' only sample.
fn first_value(series: &[u8]) -> f64 {
    let sample = messages(series, SAMPLES).next().unwrap();
    let fields = Fields::new(sample).map(Result::unwrap);
    let mut values = fields.filter(|field| field.number == VALUE);
    match values.next().map(|field| field.value) {
        Some(Value::Fixed64(bits)) => f64::from_bits(bits),
        other => panic!("{other:?}"),
    }
}

/// Field numbers in `prometheus.WriteRequest`, `TimeSeries` and `Sample`.
const TIMESERIES: u32 = 1;
const SAMPLES: u32 = 2;
const VALUE: u32 = 1;
