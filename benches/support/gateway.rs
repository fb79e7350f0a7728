//! Helpers of benchmarks of whole programs: the program, counting sinks, HTTP by hand.
#![allow(dead_code, reason = "each benchmark uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The release build of the program, which `make bench` makes, or the one that `METRIFOLD_BIN`
/// names.
pub fn product() -> PathBuf {
    // Not target/release, where `cargo bench` puts a build with its own profile.
    let product = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/product/release/metrifold");
    let binary = std::env::var_os("METRIFOLD_BIN").map_or(product, PathBuf::from);
    assert!(
        binary.exists(),
        "{} is missing: make bench",
        binary.display()
    );
    binary
}

/// A gateway process, killed on drop.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let all = with_children(self.0.id());
        let _ = self.0.kill();
        // Workers outlive a parent that is killed.
        for pid in &all[1..] {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        let _ = self.0.wait();
    }
}

/// A sink that counts samples and answers 204, or 503 while it fails.
pub struct Counter {
    pub address: SocketAddr,
    samples: Arc<AtomicU64>,
    failing: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Counter {
    /// Listens on a free port.
    pub fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into())
    }

    /// Listens on `address`.
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

    /// Answers 503 and counts nothing from now on, or no longer.
    pub fn fail(&self, fails: bool) {
        self.failing.store(fails, Ordering::Relaxed);
    }

    /// Number of samples so far.
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
        // Senders of 2.0 need the count; others ignore it.
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

/// Number of series in a request of either version; each has one sample.
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

/// Reads a protobuf varint at a position, and advances the position.
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

/// Reads the lines of the head of a request or an answer; `None` at the end of the connection.
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

/// A port that no other socket is assigned while the benchmark runs.
pub fn free_port() -> u16 {
    metrifold_testing::free_address().port()
}

/// Waits for a listener.
pub fn wait_for(address: SocketAddr) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "{address} does not listen");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Processor time of a process so far, user and system, all threads, in nanoseconds. The kernel
/// counts ticks of 10 ms, which is little against a run of seconds.
pub fn cpu(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.map(|t| t.parse::<u64>().unwrap() * 10_000_000).sum()
}

/// A process and its workers.
pub fn with_children(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
    std::iter::once(pid).chain(children).collect()
}

/// Starts Debian's nginx with two workers and what is configured within its block `http`.
pub fn nginx(folder: &Path, http: &str) -> Running {
    let file = folder.join("nginx.conf");
    let folder = folder.display();
    let config = format!(
        "daemon off;\nworker_processes 2;\npid {folder}/nginx.pid;\nerror_log /dev/null;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\n access_log off; proxy_temp_path {folder}/nginx; client_body_temp_path {folder}/nginx;\n\
         keepalive_requests 1000000000;\n{http}\n}}\n"
    );
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&file).args(["-e", "/dev/null"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn();
    let running = Running(child.expect("nginx is missing: apt-get install nginx-light"));
    let deadline = Instant::now() + Duration::from_secs(20);
    while with_children(running.0.id()).len() < 3 {
        assert!(
            Instant::now() < deadline,
            "nginx has not started its workers"
        );
        thread::sleep(Duration::from_millis(5));
    }
    running
}

/// Peak resident memory of a process in MiB.
pub fn peak(pid: u32) -> f64 {
    memory(pid, "VmHWM:")
}

/// Resident memory of a process in MiB.
pub fn resident(pid: u32) -> f64 {
    memory(pid, "VmRSS:")
}

fn memory(pid: u32, kind: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(kind)).unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024.0
}

/// Sum of a Metrifold metric over all series with this label.
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
