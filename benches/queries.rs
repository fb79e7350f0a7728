//! Queries through Metrifold beside vmauth and nginx, in front of one upstream in this process.
//!
//! Clients in a closed loop request small answers and answers of 10 MB, then small ones at a fixed
//! rate, where latency counts from when a request was due; at last a thousand clients request 10 MB
//! and read slowly. The processor time of each gateway is read from /proc. Gateways take turns. Run
//! it with `make bench`; `METRIFOLD_BENCH_SECONDS` sets the length of each run, `METRIFOLD_BENCH_ONLY`
//! names the one gateway to measure, and `METRIFOLD_BIN` names another binary.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

#[path = "support/gateway.rs"]
mod gateway;

use gateway::{Running, cpu, free_port, nginx, peak, product, read_head, wait_for, with_children};

const REPETITIONS: usize = 3;
const CLIENTS: usize = 16;
/// Requests per second at a fixed rate, over all clients.
const RATE: u32 = 2_000;
const SLOW: usize = 1_000;
const LARGE: usize = 10 << 20;
/// Debian's vmauth serves known users only.
const USER: &str = "Authorization: Basic YmVuY2g6\r\n";

const SMALL_QUERY: &str = "/api/v1/query?query=sum(rate(http_requests_total%7Bjob%3D%22api%22%7D%5B5m%5D))%20by%20(handler)";
const LARGE_QUERY: &str = "/api/v1/query_range?query=up&start=0&end=3600&step=15";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gateway {
    Direct,
    Metrifold,
    Tenant,
    Vmauth,
    Nginx,
}

impl Gateway {
    const ALL: [Self; 5] = [
        Self::Direct,
        Self::Metrifold,
        Self::Tenant,
        Self::Vmauth,
        Self::Nginx,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Direct => "upstream itself",
            Self::Metrifold => "Metrifold",
            Self::Tenant => "Metrifold, tenants",
            Self::Vmauth => "vmauth",
            Self::Nginx => "nginx",
        }
    }

    /// Prefix of the paths of queries.
    fn prefix(self) -> &'static str {
        match self {
            Self::Tenant => "/team-a",
            _ => "",
        }
    }
}

/// Measurements of the clients.
#[derive(Default)]
struct Seen {
    latencies: Vec<f64>,
}

impl Seen {
    /// A quantile of the latencies, in milliseconds.
    fn quantile(&mut self, q: f64) -> f64 {
        self.latencies.sort_by(f64::total_cmp);
        let at = ((self.latencies.len() as f64 - 1.0) * q) as usize;
        self.latencies.get(at).copied().unwrap_or(f64::NAN) * 1e3
    }
}

fn main() {
    // `cargo test --benches` only checks that it compiles.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let seconds = std::env::var("METRIFOLD_BENCH_SECONDS");
    let length = Duration::from_secs(seconds.ok().and_then(|s| s.parse().ok()).unwrap_or(5));
    let upstream = upstream();
    println!(
        "{CLIENTS} clients, {} s per run, the best of {REPETITIONS}; at {RATE}/s the latency counts from when a request was due",
        length.as_secs()
    );
    println!(
        "{:<20} {:>14} {:>9} {:>9} {:>12} {:>14} {:>16}",
        "gateway", "per CPU second", "p50 ms", "p99 ms", "10 MB: CPU", "peak MiB", "slow: peak MiB"
    );
    let mut rates = Vec::new();
    let only = std::env::var("METRIFOLD_BENCH_ONLY").ok();
    for gateway in Gateway::ALL {
        if only.as_deref().is_some_and(|only| only != gateway.name()) {
            continue;
        }
        let mut best: Option<Row> = None;
        for _ in 0..REPETITIONS {
            let row = measure(gateway, upstream, length);
            if best.as_ref().is_none_or(|best| row.rate > best.rate) {
                best = Some(row);
            }
        }
        let Some(row) = best else { continue };
        println!(
            "{:<20} {:>14.0} {:>9.2} {:>9.2} {:>9.2} ms {:>14.0} {:>16.0}",
            gateway.name(),
            row.rate,
            row.p50,
            row.p99,
            row.large,
            row.peak,
            row.slow
        );
        rates.push((gateway, row));
    }
    let of = |wanted| {
        rates
            .iter()
            .find(|(it, _)| *it == wanted)
            .map(|(_, row)| row)
    };
    if let [
        Some(direct),
        Some(plain),
        Some(tenant),
        Some(vmauth),
        Some(nginx),
    ] = Gateway::ALL.map(of)
    {
        println!(
            "requests per CPU second: {:.2} times vmauth's (goal: at least 4), {:.2} with tenants (2), {:.2} of nginx's (0.7); \
             p99 added: {:.2} ms (at most 0.3)",
            plain.rate / vmauth.rate,
            tenant.rate / vmauth.rate,
            plain.rate / nginx.rate,
            plain.p99 - direct.p99
        );
    }
}

struct Row {
    rate: f64,
    p50: f64,
    p99: f64,
    /// Milliseconds of processor time per answer of 10 MB.
    large: f64,
    peak: f64,
    slow: f64,
}

fn measure(gateway: Gateway, upstream: SocketAddr, length: Duration) -> Row {
    let folder = tempfile::tempdir().unwrap();
    let address = match gateway {
        Gateway::Direct => upstream,
        _ => ([127, 0, 0, 1], free_port()).into(),
    };
    let running = start(gateway, address, upstream, folder.path());
    wait_for(address);
    let pids: Vec<u32> = running
        .iter()
        .flat_map(|it| with_children(it.0.id()))
        .collect();
    let used = || pids.iter().map(|pid| cpu(*pid)).sum::<u64>() as f64 / 1e9;
    let most = || pids.iter().map(|pid| peak(*pid)).sum::<f64>();
    let small = format!("{}{SMALL_QUERY}", gateway.prefix());
    let large = format!("{}{LARGE_QUERY}", gateway.prefix());
    // Warm-up: makes connections and allocates memory.
    closed_loop(address, &small, CLIENTS, Duration::from_millis(500));
    let before = used();
    let asked = closed_loop(address, &small, CLIENTS, length);
    let rate = asked as f64 / (used() - before);
    let mut seen = at_rate(address, &small, length);
    let before = used();
    let asked = closed_loop(address, &large, 2, length);
    let of_large = (used() - before) / asked as f64 * 1e3;
    let peak = most();
    slow_readers(address, &large);
    Row {
        rate,
        p50: seen.quantile(0.5),
        p99: seen.quantile(0.99),
        large: of_large,
        peak,
        slow: most(),
    }
}

fn start(
    gateway: Gateway,
    address: SocketAddr,
    upstream: SocketAddr,
    folder: &Path,
) -> Option<Running> {
    let file = folder.join("config");
    let mut command = match gateway {
        Gateway::Direct => return None,
        Gateway::Metrifold | Gateway::Tenant => {
            let (path, inputs, tenant) = match gateway {
                Gateway::Tenant => (
                    "path = \"/{tenant}\"\n",
                    "own",
                    "[transforms.own]\ntype = \"tenant\"\ninputs = [\"api\"]\n\
                     from = [{ path = \"tenant\" }]\nlabel = \"tenant_id\"\n",
                ),
                _ => ("", "api", ""),
            };
            let config = format!(
                "[sources.api]\ntype = \"prometheus_api\"\naddress = \"{address}\"\n{path}max_concurrent = 5000\n{tenant}\
                 [sinks.prom]\ntype = \"prometheus\"\ninputs = [\"{inputs}\"]\nendpoint = \"http://{upstream}\"\n"
            );
            std::fs::write(&file, config).unwrap();
            let mut command = Command::new(product());
            command.arg("--config").arg(&file).arg("run");
            command
        }
        Gateway::Vmauth => {
            let config = format!(
                "users:\n- username: bench\n  password: \"\"\n  url_prefix: \"http://{upstream}/\"\n"
            );
            std::fs::write(&file, config).unwrap();
            let mut command = Command::new("vmauth");
            command
                .arg(format!("-auth.config={}", file.display()))
                .arg(format!("-httpListenAddr={address}"))
                .arg("-loggerLevel=ERROR");
            command
        }
        Gateway::Nginx => {
            let http = format!(
                "upstream up {{ server {upstream}; keepalive 64; }}\n server {{ listen {address}; location / {{\n\
                 proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_max_temp_file_size 0; }} }}"
            );
            return Some(nginx(folder, &http));
        }
    };
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{gateway:?} cannot be started: {error}"));
    Some(Running(child))
}

/// Runs clients in a closed loop; returns the number of answers.
fn closed_loop(address: SocketAddr, path: &str, clients: usize, length: Duration) -> usize {
    let until = Instant::now() + length;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..clients)
            .map(|_| {
                scope.spawn(move || {
                    let mut client = Client::connect(address);
                    let mut asked = 0;
                    while Instant::now() < until {
                        client.ask(path);
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        clients.into_iter().map(|it| it.join().unwrap()).sum()
    })
}

/// Runs clients at a fixed rate.
fn at_rate(address: SocketAddr, path: &str, length: Duration) -> Seen {
    let pause = Duration::from_secs(CLIENTS as u64) / RATE;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| {
                scope.spawn(move || {
                    let mut client = Client::connect(address);
                    let begin = Instant::now() + pause * n as u32 / CLIENTS as u32;
                    let mut seen = Vec::new();
                    let mut due = begin;
                    while due < begin + length {
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                        client.ask(path);
                        seen.push(due.elapsed().as_secs_f64());
                        due += pause;
                    }
                    seen
                })
            })
            .collect();
        let latencies = clients.into_iter().flat_map(|it| it.join().unwrap());
        Seen {
            latencies: latencies.collect(),
        }
    })
}

/// Runs a thousand clients that request 10 MB and read little of it for a while.
fn slow_readers(address: SocketAddr, path: &str) {
    let mut readers: Vec<TcpStream> = (0..SLOW)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            let head = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n{USER}\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    let mut some = vec![0; 16 << 10];
    for _ in 0..5 {
        for reader in &mut readers {
            let _ = reader.read(&mut some).unwrap();
        }
        thread::sleep(Duration::from_millis(200));
    }
}

struct Client {
    stream: BufReader<TcpStream>,
    body: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream: BufReader::with_capacity(1 << 16, stream),
            body: Vec::new(),
        }
    }

    fn ask(&mut self, path: &str) {
        let head = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n{USER}\r\n");
        self.stream.get_mut().write_all(head.as_bytes()).unwrap();
        let head = read_head(&mut self.stream).unwrap();
        assert!(head[0].contains(" 200"), "{head:?}");
        let length = head.iter().find_map(|line| {
            let line = line.to_ascii_lowercase();
            line.strip_prefix("content-length: ")?.parse().ok()
        });
        match length {
            Some(length) => {
                self.body.resize(length, 0);
                self.stream.read_exact(&mut self.body).unwrap();
            }
            None => self.chunks(),
        }
    }

    /// Reads a chunked body.
    fn chunks(&mut self) {
        loop {
            let line = read_line(&mut self.stream);
            let length = usize::from_str_radix(line.trim_end(), 16).unwrap();
            self.body.resize(length + 2, 0);
            self.stream.read_exact(&mut self.body).unwrap();
            if length == 0 {
                return;
            }
        }
    }
}

fn read_line(reader: &mut impl std::io::BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line
}

/// A Prometheus with prepared answers.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let series = |n: usize| {
        format!("{{\"metric\":{{\"handler\":\"/api/{n}\"}},\"value\":[1700000000.123,\"{n}.5\"]}}")
    };
    let answer = |series: usize, one: &dyn Fn(usize) -> String| {
        let result: Vec<_> = (0..series).map(one).collect();
        let body = format!(
            "{{\"status\":\"success\",\"data\":{{\"resultType\":\"vector\",\"result\":[{}]}}}}",
            result.join(",")
        );
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.into_bytes(), body.into_bytes()].concat()
    };
    let small: &'static [u8] = answer(6, &series).leak();
    let large: &'static [u8] = answer(LARGE / series(10_000).len(), &series).leak();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || serve(stream, small, large));
        }
    });
    address
}

fn serve(stream: TcpStream, small: &[u8], large: &[u8]) {
    stream.set_nodelay(true).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    while let Some(head) = read_head(&mut reader) {
        let wanted = match head[0].contains("query_range") {
            true => large,
            false => small,
        };
        if writer.write_all(wanted).is_err() {
            return; // a slow reader has gone
        }
    }
}
