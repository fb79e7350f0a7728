//! Scraping beside vmagent and Prometheus 3 as agent, from pages to a sink of remote write: 20
//! targets of 2,000 series every second, and a thousand targets of a thousand series every 15 s.
//!
//! One server is all targets, with a page for each path, whose values change with every scrape and whose
//! series change with every twentieth. Measured are the processor time of the
//! scraper per sample that arrives at the sink, from when every target has been scraped, and its
//! peak memory. Run it with `make bench`; `METRIFOLD_BENCH_SECONDS` sets the duration,
//! `METRIFOLD_BENCH_ONLY` names one load, `METRIFOLD_BENCH_ALONE` leaves out the other scrapers.
//! Prometheus runs only if `tests/peers/build` has built it.

use std::fmt::Write as _;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

#[path = "support/gateway.rs"]
mod gateway;

use gateway::{Counter, Running, cpu, free_port, peak, product, read_head};

/// Number of targets, series per target, and interval.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    targets: usize,
    series: usize,
    interval: u64,
}

/// Pages of a target, one after another: a series comes and another goes once in so many scrapes.
const TURNS: usize = 20;

const LOADS: [Load; 2] = [
    Load {
        name: "often",
        targets: 20,
        series: 2000,
        interval: 1,
    },
    Load {
        name: "many",
        targets: 1000,
        series: 1000,
        interval: 15,
    },
];

fn main() {
    // `cargo test --benches` only checks that it compiles.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let seconds = std::env::var("METRIFOLD_BENCH_SECONDS");
    let seconds = seconds.ok().and_then(|s| s.parse().ok()).unwrap_or(30);
    let only = std::env::var("METRIFOLD_BENCH_ONLY").ok();
    let alone = std::env::var_os("METRIFOLD_BENCH_ALONE").is_some();
    let mut scrapers = vec![Scraper::Metrifold];
    if !alone {
        scrapers.push(Scraper::Vmagent);
        scrapers.extend(prometheus().map(|_| Scraper::Prometheus));
    }
    for load in LOADS {
        if only.as_ref().is_some_and(|only| only != load.name) {
            continue;
        }
        let Load {
            name,
            targets,
            series,
            interval,
        } = load;
        println!(
            "\n{name}: {targets} targets of {series} series every {interval} s, for {seconds} s"
        );
        println!(
            "{:<12} {:>14} {:>12} {:>10}",
            "", "CPU ns/sample", "samples/s", "MiB peak"
        );
        let address = serve(load.series);
        let length = Duration::from_secs(seconds);
        let mut ours = None;
        for scraper in &scrapers {
            let spent = run(*scraper, load, address, length);
            match ours {
                None => ours = Some(spent),
                Some(ours) => {
                    let (name, times) = (scraper.name(), spent / ours);
                    println!("{name} / metrifold = {times:.1} (goal: at least 4)");
                }
            }
        }
    }
}

/// The Prometheus that `tests/peers/build` builds, if it exists.
fn prometheus() -> Option<PathBuf> {
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/build");
    let folder = Command::new(build).arg("--path").output().ok()?.stdout;
    let folder = String::from_utf8(folder).ok()?;
    let program = Path::new(folder.trim()).join("prometheus");
    program.exists().then_some(program)
}

#[derive(Clone, Copy)]
enum Scraper {
    Metrifold,
    Vmagent,
    Prometheus,
}

/// A page with `count` series, as an exporter serves it. Its values differ with `turn`; on the last
/// of [`TURNS`], one series has another label.
fn page(count: usize, turn: usize) -> String {
    let mut page = String::new();
    let zone = if turn == TURNS - 1 { "b" } else { "a" };
    for family in 0..count / 20 {
        writeln!(
            page,
            "# HELP http_requests_{family}_total Requests, by handler and code."
        )
        .unwrap();
        writeln!(page, "# TYPE http_requests_{family}_total counter").unwrap();
        for series in 0..20 {
            let (handler, code) = (series / 4, 200 + 100 * (series % 4));
            let value = 1_000 * family + 37 * series * turn;
            let zone = if (family, series) == (0, 0) {
                zone
            } else {
                "a"
            };
            writeln!(page, "http_requests_{family}_total{{code=\"{code}\",handler=\"/api/v1/thing/{handler}\",method=\"GET\",zone=\"eu-west-1{zone}\"}} {value}").unwrap();
        }
    }
    page
}

/// Serves a page under every path.
fn serve(series: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answers = (0..TURNS).map(|turn| {
        let page = page(series, turn);
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\r\n",
            page.len()
        );
        [head.as_bytes(), page.as_bytes()].concat()
    });
    let answers: Arc<[Vec<u8>]> = answers.collect();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answers = answers.clone();
            let connection = thread::Builder::new().stack_size(64 << 10);
            connection.spawn(move || talk(stream, &answers)).unwrap();
        }
    });
    address
}

fn talk(stream: TcpStream, answers: &[Vec<u8>]) {
    stream.set_nodelay(true).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::with_capacity(4 << 10, stream);
    for answer in answers.iter().cycle() {
        if read_head(&mut reader).is_none() || writer.write_all(answer).is_err() {
            return;
        }
    }
}

impl Scraper {
    fn name(self) -> &'static str {
        match self {
            Self::Metrifold => "metrifold",
            Self::Vmagent => "vmagent",
            Self::Prometheus => "prometheus",
        }
    }

    fn start(self, load: Load, targets: SocketAddr, sink: SocketAddr, dir: &Path) -> Child {
        let interval = load.interval;
        let timeout = interval.min(10);
        let list = dir.join("targets.json");
        let groups = (0..load.targets).map(|number| {
            format!("{{\"targets\":[\"{targets}\"],\"labels\":{{\"__metrics_path__\":\"/{number}\",\"target\":\"t{number}\"}}}}")
        });
        let groups: Vec<_> = groups.collect();
        std::fs::write(&list, format!("[{}]", groups.join(","))).unwrap();
        match self {
            Self::Metrifold => {
                let config = dir.join("metrifold.toml");
                let text = format!(
                    "[discovery.targets]\ntype = \"file\"\nfiles = [{list:?}]\n\
                     [sources.scrape]\ntype = \"scrape\"\ndiscovery = \"targets\"\nscrape_interval = \"{interval}s\"\nscrape_timeout = \"{timeout}s\"\n\
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
                    "global: {{scrape_interval: {interval}s, scrape_timeout: {timeout}s}}\nscrape_configs:\n- job_name: scrape\n  file_sd_configs: [{{files: [{list:?}]}}]\n"
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
            Self::Prometheus => {
                let config = dir.join("prometheus.yml");
                let text = format!(
                    "global: {{scrape_interval: {interval}s, scrape_timeout: {timeout}s}}\nscrape_configs:\n- job_name: scrape\n  file_sd_configs: [{{files: [{list:?}]}}]\nremote_write: [{{url: 'http://{sink}/write'}}]\n"
                );
                std::fs::write(&config, text).unwrap();
                Command::new(prometheus().unwrap())
                    .arg("--agent")
                    .arg(format!("--config.file={}", config.display()))
                    .arg(format!(
                        "--storage.agent.path={}",
                        dir.join("wal").display()
                    ))
                    .arg(format!("--web.listen-address=127.0.0.1:{}", free_port()))
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap()
            }
        }
    }
}

/// Runs a scraper; returns its processor time in nanoseconds per sample.
fn run(scraper: Scraper, load: Load, targets: SocketAddr, length: Duration) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let sink = Counter::start();
    let child = Running(scraper.start(load, targets, sink.address, dir.path()));
    let pid = child.0.id();
    // Warm-up: every target has been scraped at least once.
    let deadline = Instant::now() + Duration::from_secs(30 + 4 * load.interval);
    while sink.samples() < (load.targets * load.series) as u64 {
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
