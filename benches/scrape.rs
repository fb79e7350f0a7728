//! Scraping beside vmagent: a thousand targets of a thousand series each, from their pages to a sink of
//! remote write.
//!
//! All targets are one server with a page for each path. What counts is the processor time of the
//! scraper for each sample that arrives at the sink, once every target has been scraped, and its peak
//! memory. Run it with `make bench`; `METRIFOLD_BENCH_SECONDS` sets for how long it is measured.

use std::fmt::Write as _;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

#[path = "support/gateway.rs"]
mod gateway;

use gateway::{Counter, Running, cpu, free_port, peak, product, read_head};

const TARGETS: usize = 1000;
const SERIES: usize = 1000;
const INTERVAL: Duration = Duration::from_secs(15);

fn main() {
    // `cargo test --benches` only wants to see that it compiles.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let seconds = std::env::var("METRIFOLD_BENCH_SECONDS");
    let seconds = seconds.ok().and_then(|s| s.parse().ok()).unwrap_or(30);
    println!("{TARGETS} targets of {SERIES} series, every {INTERVAL:?}, for {seconds} s\n");
    println!(
        "{:<12} {:>14} {:>12} {:>10}",
        "", "CPU ns/sample", "samples/s", "MiB peak"
    );
    let address = serve();
    let length = Duration::from_secs(seconds);
    let [ours, theirs] = [Scraper::Metrifold, Scraper::Vmagent].map(|it| run(it, address, length));
    println!(
        "\nvmagent / metrifold = {:.1} (goal: at least 4)",
        theirs / ours
    );
}

#[derive(Clone, Copy)]
enum Scraper {
    Metrifold,
    Vmagent,
}

/// A page as an exporter of some size serves it.
fn page() -> String {
    let mut page = String::new();
    for family in 0..SERIES / 20 {
        writeln!(
            page,
            "# HELP http_requests_{family}_total Requests, by handler and code."
        )
        .unwrap();
        writeln!(page, "# TYPE http_requests_{family}_total counter").unwrap();
        for series in 0..20 {
            let (handler, code) = (series / 4, 200 + 100 * (series % 4));
            let value = 1_000 * family + 37 * series;
            writeln!(page, "http_requests_{family}_total{{code=\"{code}\",handler=\"/api/v1/thing/{handler}\",method=\"GET\",zone=\"eu-west-1a\"}} {value}").unwrap();
        }
    }
    page
}

/// Serves the page under every path.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let page = page();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\r\n",
        page.len()
    );
    let answer: Arc<[u8]> = [head.as_bytes(), page.as_bytes()].concat().into();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            let connection = thread::Builder::new().stack_size(64 << 10);
            connection.spawn(move || talk(stream, &answer)).unwrap();
        }
    });
    address
}

fn talk(stream: TcpStream, answer: &[u8]) {
    stream.set_nodelay(true).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::with_capacity(4 << 10, stream);
    while read_head(&mut reader).is_some() && writer.write_all(answer).is_ok() {}
}

impl Scraper {
    fn name(self) -> &'static str {
        match self {
            Self::Metrifold => "metrifold",
            Self::Vmagent => "vmagent",
        }
    }

    fn start(self, targets: SocketAddr, sink: SocketAddr, dir: &Path) -> Child {
        let list = dir.join("targets.json");
        let groups = (0..TARGETS).map(|number| {
            format!("{{\"targets\":[\"{targets}\"],\"labels\":{{\"__metrics_path__\":\"/{number}\",\"target\":\"t{number}\"}}}}")
        });
        let groups: Vec<_> = groups.collect();
        std::fs::write(&list, format!("[{}]", groups.join(","))).unwrap();
        match self {
            Self::Metrifold => {
                let config = dir.join("metrifold.toml");
                let text = format!(
                    "[discovery.targets]\ntype = \"file\"\nfiles = [{list:?}]\n\
                     [sources.scrape]\ntype = \"scrape\"\ndiscovery = \"targets\"\nscrape_interval = \"15s\"\n\
                     [sinks.out]\ntype = \"remote_write\"\ninputs = [\"scrape\"]\nendpoint = \"http://{sink}/write\"\nprotocol = \"1.0\"\n"
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
                let config = dir.join("scrape.yml");
                let text = format!(
                    "global: {{scrape_interval: 15s, scrape_timeout: 10s}}\nscrape_configs:\n- job_name: scrape\n  file_sd_configs: [{{files: [{list:?}]}}]\n"
                );
                std::fs::write(&config, text).unwrap();
                Command::new("vmagent")
                    .arg(format!("-httpListenAddr=127.0.0.1:{}", free_port()))
                    .arg(format!("-promscrape.config={}", config.display()))
                    .arg(format!("-remoteWrite.tmpDataPath={}", dir.display()))
                    .arg(format!("-remoteWrite.url=http://{sink}/write"))
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .expect("vmagent is missing: apt-get install victoria-metrics")
            }
        }
    }
}

/// Runs one of them; returns its processor nanoseconds for each sample.
fn run(scraper: Scraper, targets: SocketAddr, length: Duration) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let sink = Counter::start();
    let child = Running(scraper.start(targets, sink.address, dir.path()));
    let pid = child.0.id();
    // Until every target has been scraped at least once.
    let deadline = Instant::now() + 4 * INTERVAL;
    while sink.samples() < (TARGETS * SERIES) as u64 {
        assert!(
            Instant::now() < deadline,
            "{} has sent {} samples",
            scraper.name(),
            sink.samples()
        );
        thread::sleep(Duration::from_millis(100));
    }
    let (cpu_before, before, started) = (cpu(pid), sink.samples(), Instant::now());
    thread::sleep(length);
    let samples = (sink.samples() - before) as f64;
    let nanoseconds = (cpu(pid) - cpu_before) as f64 / samples;
    println!(
        "{:<12} {nanoseconds:>14.0} {:>12.0} {:>10.1}",
        scraper.name(),
        samples / started.elapsed().as_secs_f64(),
        peak(pid)
    );
    nanoseconds
}
