//! Small requests, as thousands of sidecars send them, through Metrifold beside nginx, which relays the
//! same bodies: 500 connections, 100 series in a request, in plain text and with TLS on both sides.
//!
//! Each connection sends its next request once the one before is acknowledged. The endpoint behind is
//! another nginx, which reads each body and answers 204. The processor time of each gateway is read
//! from /proc; gateways take turns. Run it with `make bench`; `METRIFOLD_BENCH_SECONDS` sets the length
//! of each run, and `METRIFOLD_BIN` names another binary.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use metrifold_testing::Authority;

#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/load.rs"]
mod load;
#[path = "support/payload.rs"]
mod payload;
#[path = "support/shapes.rs"]
mod shapes;

use gateway::{Running, cpu, free_port, nginx, peak, product, read_head, wait_for, with_children};
use shapes::{Generator, Shape};

const REPETITIONS: usize = 3;
const CONNECTIONS: usize = 500;
const SERIES: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gateway {
    Nginx,
    /// With `count_samples = false`, so that it relays bodies as nginx does.
    Relay,
    /// With the defaults: it decompresses and counts all bodies.
    Counting,
}

impl Gateway {
    const ALL: [Self; 3] = [Self::Nginx, Self::Relay, Self::Counting];

    fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Relay => "Metrifold, relay",
            Self::Counting => "Metrifold, counting",
        }
    }
}

/// The certificates of a run over TLS.
type Tls<'a> = Option<&'a Authority>;

fn main() {
    // `cargo test --benches` only wants to see that it compiles.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let seconds = std::env::var("METRIFOLD_BENCH_SECONDS");
    let length = Duration::from_secs(seconds.ok().and_then(|s| s.parse().ok()).unwrap_or(5));
    let seed = shapes::seed();
    let generator = Generator {
        shape: Shape::Unlike,
        seed,
        series: SERIES,
    };
    let bodies: Vec<Vec<u8>> = (0..CONNECTIONS)
        .map(|sender| load::request(&shapes::compressed(&generator.request(sender, 0))))
        .collect();
    println!(
        "seed {seed}, {CONNECTIONS} connections, {SERIES} series and {} bytes per request, {} s per run, ranges over {REPETITIONS} runs",
        bodies[0].len(),
        length.as_secs()
    );
    println!(
        "{:<12} {:<20} {:>16} {:>12} {:>10}",
        "", "gateway", "CPU us/request", "requests/s", "peak MiB"
    );
    let authority = Authority::new();
    for (name, tls) in [("plain text", None), ("TLS", Some(&authority))] {
        // In turns, since a machine may be slower for a while.
        let mut runs: [Vec<Run>; 3] = Default::default();
        for _ in 0..REPETITIONS {
            for (gateway, runs) in Gateway::ALL.into_iter().zip(&mut runs) {
                runs.push(run(gateway, tls, &bodies, length));
            }
        }
        let medians = Gateway::ALL
            .into_iter()
            .zip(runs)
            .map(|(gateway, mut runs)| {
                runs.sort_by(|a, b| a.micros.total_cmp(&b.micros));
                let (least, most) = (runs[0].micros, runs[REPETITIONS - 1].micros);
                let rate = runs[REPETITIONS / 2].rate;
                let peak = runs.iter().fold(0.0, |peak: f64, run| peak.max(run.peak));
                println!(
                    "{name:<12} {:<20} {least:>8.1}-{most:<7.1} {rate:>12.0} {peak:>10.1}",
                    gateway.name()
                );
                runs[REPETITIONS / 2].micros
            });
        let medians: Vec<f64> = medians.collect();
        println!(
            "{name:<12} Metrifold / nginx, medians: {:.2} (goal: at most 1.3), counting samples {:.2}",
            medians[1] / medians[0],
            medians[2] / medians[0]
        );
    }
}

struct Run {
    /// Processor microseconds per request.
    micros: f64,
    rate: f64,
    peak: f64,
}

fn run(gateway: Gateway, tls: Tls<'_>, bodies: &[Vec<u8>], length: Duration) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let [endpoint, address] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
    let behind = folder.path().join("behind");
    std::fs::create_dir(&behind).unwrap();
    let _endpoint = nginx(
        &behind,
        &format!(
            "server {{ {} location / {{ return 204; }} }}",
            listen(endpoint, tls)
        ),
    );
    wait_for(endpoint);
    let process = match gateway {
        Gateway::Nginx => relay(folder.path(), address, endpoint, tls),
        Gateway::Relay => metrifold(folder.path(), address, endpoint, tls, false),
        Gateway::Counting => metrifold(folder.path(), address, endpoint, tls, true),
    };
    wait_for(address);
    let pids = with_children(process.0.id());
    let used = || pids.iter().map(|pid| cpu(*pid)).sum::<u64>();
    // Connections are made and memory is taken before anything counts.
    let mut senders = connect(address, tls);
    drive(&mut senders, bodies, Duration::from_secs(1));
    let (before, started) = (used(), Instant::now());
    let requests = drive(&mut senders, bodies, length);
    let took = started.elapsed();
    Run {
        micros: (used() - before) as f64 / 1e3 / requests as f64,
        rate: requests as f64 / took.as_secs_f64(),
        peak: pids.iter().map(|pid| peak(*pid)).sum(),
    }
}

/// The lines of nginx by which it listens.
fn listen(address: SocketAddr, tls: Tls<'_>) -> String {
    match tls {
        None => format!("listen {address} backlog=4096;"),
        Some(authority) => {
            let (certificate, key) = authority.issue("server");
            format!(
                "listen {address} ssl backlog=4096; ssl_certificate {}; ssl_certificate_key {};",
                certificate.display(),
                key.display()
            )
        }
    }
}

fn relay(folder: &Path, address: SocketAddr, endpoint: SocketAddr, tls: Tls<'_>) -> Running {
    let (scheme, trust) = match tls {
        None => ("http", String::new()),
        Some(authority) => (
            "https",
            format!(
                "proxy_ssl_verify on; proxy_ssl_name localhost; proxy_ssl_trusted_certificate {};",
                authority.ca().display()
            ),
        ),
    };
    nginx(
        folder,
        &format!(
            "upstream up {{ server {endpoint}; keepalive 512; keepalive_requests 1000000000; }}\n\
             server {{ {} client_body_buffer_size 64k;\n\
             location / {{ proxy_pass {scheme}://up; proxy_http_version 1.1;\n\
             proxy_set_header Connection \"\"; {trust} }} }}",
            listen(address, tls)
        ),
    )
}

fn metrifold(
    folder: &Path,
    address: SocketAddr,
    endpoint: SocketAddr,
    tls: Tls<'_>,
    counting: bool,
) -> Running {
    let (scheme, source, sink) = match tls {
        None => ("http", String::new(), String::new()),
        Some(authority) => {
            let (certificate, key) = authority.issue("server");
            (
                "https",
                format!("tls = {{ cert_file = {certificate:?}, key_file = {key:?} }}\n"),
                format!("tls = {{ ca_file = {:?} }}\n", authority.ca()),
            )
        }
    };
    let file = folder.join("metrifold.toml");
    let config = format!(
        "[sources.ingest]\ntype = \"remote_write\"\naddress = \"{address}\"\n\
         count_samples = {counting}\n{source}\
         [sinks.endpoint]\ntype = \"remote_write\"\ninputs = [\"ingest\"]\n\
         endpoint = \"{scheme}://127.0.0.1:{port}/api/v1/write\"\n{sink}",
        port = endpoint.port()
    );
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(product());
    command.args(["--log-level", "warn", "-c"]).arg(&file);
    Running(command.stdout(Stdio::null()).spawn().unwrap())
}

/// A connection, over TLS or not.
trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

type Sender = BufReader<Box<dyn Stream>>;

fn connect(address: SocketAddr, tls: Tls<'_>) -> Vec<Sender> {
    let config = tls.map(|authority| authority.client(None));
    let connect = |_| {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let stream: Box<dyn Stream> = match &config {
            None => Box::new(stream),
            Some(config) => {
                let name = "localhost".try_into().unwrap();
                let connection = rustls::ClientConnection::new(Arc::clone(config), name).unwrap();
                Box::new(rustls::StreamOwned::new(connection, stream))
            }
        };
        BufReader::new(stream)
    };
    (0..CONNECTIONS).map(connect).collect()
}

/// Sends from all connections for so long; returns how many requests were acknowledged.
fn drive(senders: &mut [Sender], bodies: &[Vec<u8>], length: Duration) -> usize {
    let until = Instant::now() + length;
    thread::scope(|scope| {
        let senders: Vec<_> = senders
            .iter_mut()
            .zip(bodies)
            .map(|(sender, body)| {
                scope.spawn(move || {
                    let mut requests = 0;
                    while Instant::now() < until {
                        sender.get_mut().write_all(body).unwrap();
                        sender.get_mut().flush().unwrap();
                        let head = read_head(sender).unwrap();
                        assert!(head[0].contains(" 204"), "{head:?}");
                        requests += 1;
                    }
                    requests
                })
            })
            .collect();
        senders.into_iter().map(|it| it.join().unwrap()).sum()
    })
}
