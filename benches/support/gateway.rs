//! What benchmarks of whole programs share: the program, the sinks behind it, HTTP by hand.
#![allow(dead_code, reason = "each benchmark uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The program as it is shipped, which `make bench` builds, or the one that `METRIFOLD_BIN` names.
pub fn product() -> PathBuf {
    // Not target/release: `cargo bench` puts a binary of its own profile there.
    let product = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/product/release/metrifold");
    let binary = std::env::var_os("METRIFOLD_BIN").map_or(product, PathBuf::from);
    assert!(
        binary.exists(),
        "{} is missing: make bench",
        binary.display()
    );
    binary
}

/// A gateway that ends with the run.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A sink that counts samples and answers 204, unless it is out of order.
pub struct Counter {
    pub address: SocketAddr,
    samples: Arc<AtomicU64>,
    failing: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Counter {
    /// Starts to listen on a free port.
    pub fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into())
    }

    /// Starts to listen.
    pub fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let samples = Arc::new(AtomicU64::new(0));
        let [failing, stop] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        thread::spawn({
            let (samples, failing, stop) = (samples.clone(), failing.clone(), stop.clone());
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let (samples, failing) = (samples.clone(), failing.clone());
                    thread::spawn(move || count(stream, &samples, &failing));
                }
            }
        });
        Self {
            address,
            samples,
            failing,
            stop,
        }
    }

    /// Whether it answers 503 from now on, and counts nothing.
    pub fn fail(&self, fails: bool) {
        self.failing.store(fails, Ordering::Relaxed);
    }

    /// How many samples have arrived.
    pub fn samples(&self) -> u64 {
        self.samples.load(Ordering::Relaxed)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address); // wakes the accepting thread
    }
}

fn count(stream: TcpStream, samples: &AtomicU64, failing: &AtomicBool) {
    stream.set_nodelay(true).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::with_capacity(1 << 18, stream);
    let mut decoder = snap::raw::Decoder::new();
    let (mut body, mut raw) = (Vec::new(), Vec::new());
    while let Some(head) = read_head(&mut reader) {
        let length = head.iter().find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length: ")?
                .parse()
                .ok()
        });
        body.resize(length.unwrap_or(0), 0);
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        if failing.load(Ordering::Relaxed) {
            let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
            if writer.write_all(answer).is_err() {
                return;
            }
            continue;
        }
        let len = snap::raw::decompress_len(&body).unwrap();
        if raw.len() < len {
            raw.resize(len, 0);
        }
        let len = decoder.decompress(&body, &mut raw).unwrap();
        let series = series(&raw[..len]);
        samples.fetch_add(series, Ordering::Relaxed);
        // Who sends 2.0 wants to know what was written; the others do not look.
        let answer = format!(
            "HTTP/1.1 204 No Content\r\nX-Prometheus-Remote-Write-Samples-Written: {series}\r\n\
             X-Prometheus-Remote-Write-Histograms-Written: 0\r\n\
             X-Prometheus-Remote-Write-Exemplars-Written: 0\r\n\r\n"
        );
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// How many series a request of either version has, each of which has one sample.
fn series(raw: &[u8]) -> u64 {
    let (mut pos, mut count) = (0, 0);
    while pos < raw.len() {
        count += u64::from(matches!(raw[pos], 0x0a | 0x2a));
        pos += 1;
        let len = varint(raw, &mut pos);
        pos += len;
    }
    count
}

/// Reads a number of protobuf's at a position, and moves that on.
pub fn varint(raw: &[u8], pos: &mut usize) -> usize {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = raw[*pos];
        *pos += 1;
        value |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
        shift += 7;
    }
}

/// Reads the head of a request or an answer, line by line; none at the end of the connection.
pub fn read_head(reader: &mut impl BufRead) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Some(lines);
        }
        lines.push(line.to_string());
    }
}

/// A port that nobody else is given while the benchmark runs.
pub fn free_port() -> u16 {
    metrifold_testing::free_address().port()
}

/// Waits until somebody listens.
pub fn wait_for(address: SocketAddr) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "{address} does not listen");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Processor time of a process so far, user and system, all threads, in nanoseconds. The account
/// counts ticks of 10 ms, which a run of seconds makes small.
pub fn cpu(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.map(|t| t.parse::<u64>().unwrap() * 10_000_000).sum()
}

/// Peak resident memory of a process in MiB.
pub fn peak(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024.0
}

/// The sum of a metric of Metrifold's over all its series that have this label.
pub fn metric(api: SocketAddr, name: &str, label: &str) -> f64 {
    let mut stream = TcpStream::connect(api).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    let lines = page.lines().filter(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('{') && rest.contains(label))
    });
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}
