//! An endpoint of remote write that does what the test tells it, request by request.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use metrifold_http::ServerTls;

use super::series::{Series, decode};
use super::until;

/// What to do with a request.
#[derive(Clone, Debug)]
pub enum Does {
    /// Answers.
    Answer(Reply),
    /// Says nothing until [`Endpoint::release`], then does this.
    Hang(Reply),
    /// Closes the connection without a word.
    Close,
    /// Writes bytes that need not be HTTP, and closes the connection.
    Raw(Vec<u8>),
    /// Answers a byte at a time.
    Trickle(Reply, Duration),
    /// Takes its time first.
    After(Duration, Box<Does>),
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The answer to remote write 2.0.
    pub fn written(samples: u64) -> Self {
        Self::new(204)
            .header("X-Prometheus-Remote-Write-Samples-Written", samples)
            .header("X-Prometheus-Remote-Write-Histograms-Written", 0)
            .header("X-Prometheus-Remote-Write-Exemplars-Written", 0)
    }

    fn encode(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.status != 204 {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        [head.as_bytes(), &self.body].concat()
    }
}

impl From<Reply> for Does {
    fn from(reply: Reply) -> Self {
        Self::Answer(reply)
    }
}

impl From<u16> for Does {
    fn from(status: u16) -> Self {
        Self::Answer(Reply::new(status))
    }
}

/// A request, as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which request of this endpoint it was, from 0.
    pub order: usize,
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// What it carried, or why that cannot be read.
    pub series: Result<Vec<Series>, String>,
    pub at: Instant,
    pub time: SystemTime,
    /// Whether it was answered 2xx.
    pub accepted: bool,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(&found.1)
    }

    pub fn series(&self) -> &[Series] {
        self.series.as_ref().unwrap()
    }
}

type Script = Arc<dyn Fn(&Seen) -> Does + Send + Sync>;

struct Shared {
    script: Mutex<Script>,
    seen: Mutex<Vec<Seen>>,
    streams: Mutex<HashMap<usize, TcpStream>>,
    released: (Mutex<bool>, Condvar),
    now: AtomicUsize,
    most: AtomicUsize,
    connections: AtomicUsize,
    resets: AtomicUsize,
    ended: AtomicBool,
    tls: Option<Arc<ServerConfig>>,
}

/// A scripted endpoint on loopback. Dropping it closes everything.
pub struct Endpoint {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Endpoint {
    /// An endpoint that does with each request what the script says.
    pub fn new<D: Into<Does>>(script: impl Fn(&Seen) -> D + Send + Sync + 'static) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), None, script)
    }

    /// The same behind TLS.
    pub fn tls<D: Into<Does>>(
        tls: &ServerTls,
        script: impl Fn(&Seen) -> D + Send + Sync + 'static,
    ) -> Self {
        let tls = tls.config().unwrap();
        Self::at(([127, 0, 0, 1], 0).into(), Some(tls), script)
    }

    /// The same at a given address.
    pub fn at<D: Into<Does>>(
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        script: impl Fn(&Seen) -> D + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Mutex::new(Arc::new(move |seen| script(seen).into())),
            seen: Mutex::default(),
            streams: Mutex::default(),
            released: (Mutex::new(false), Condvar::new()),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            resets: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            tls,
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                let id = accepting.connections.fetch_add(1, Ordering::SeqCst);
                let clone = stream.try_clone().unwrap();
                accepting.streams.lock().unwrap().insert(id, clone);
                let shared = accepting.clone();
                std::thread::spawn(move || shared.connection(id, stream));
            }
        });
        Self { address, shared }
    }

    /// An endpoint that takes everything.
    pub fn healthy() -> Self {
        Self::new(|_| 204)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}/write", self.address)
    }

    /// Changes what it does from now on.
    pub fn now<D: Into<Does>>(&self, script: impl Fn(&Seen) -> D + Send + Sync + 'static) {
        *self.shared.script.lock().unwrap() = Arc::new(move |seen| script(seen).into());
    }

    /// Lets go what hangs.
    pub fn release(&self) {
        *self.shared.released.0.lock().unwrap() = true;
        self.shared.released.1.notify_all();
    }

    /// Resets this many connections instead of reading their next request.
    pub fn reset(&self, connections: usize) {
        self.shared.resets.store(connections, Ordering::SeqCst);
    }

    /// Everything that came.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.shared.seen.lock().unwrap().len()
    }

    /// The samples of all requests that were answered 2xx, in the order in which they came.
    pub fn accepted(&self) -> Vec<(String, i64)> {
        let seen = self.shared.seen.lock().unwrap();
        let accepted = seen.iter().filter(|seen| seen.accepted);
        accepted.flat_map(samples).collect()
    }

    /// The samples of all requests, in the order in which they came.
    pub fn arrived(&self) -> Vec<(String, i64)> {
        self.shared
            .seen
            .lock()
            .unwrap()
            .iter()
            .flat_map(samples)
            .collect()
    }

    /// Waits for this many accepted samples.
    #[track_caller]
    pub fn wait_accepted(&self, samples: usize) -> Vec<(String, i64)> {
        let what = format!("{samples} samples are accepted");
        until(&what, || {
            let accepted = self.accepted();
            (accepted.len() >= samples).then_some(accepted)
        })
    }

    /// Waits for this many requests.
    #[track_caller]
    pub fn wait_requests(&self, requests: usize) {
        let what = format!("{requests} requests have come");
        until(&what, || (self.count() >= requests).then_some(()));
    }

    /// The most requests that were under way at once.
    pub fn most_at_once(&self) -> usize {
        self.shared.most.load(Ordering::SeqCst)
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

fn samples(seen: &Seen) -> Vec<(String, i64)> {
    let series = seen.series.as_deref().unwrap_or_default().iter();
    let samples = series.flat_map(|series| {
        let times = series.samples.iter().map(|sample| sample.0);
        times.map(|time| (series.name().to_owned(), time))
    });
    samples.collect()
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.release();
        // Wakes the accept loop.
        let _ = TcpStream::connect(self.address);
        for (_, stream) in self.shared.streams.lock().unwrap().drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Shared {
    fn connection(&self, id: usize, mut stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let reset = |resets: usize| resets.checked_sub(1);
        if self
            .resets
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, reset)
            .is_ok()
        {
            // Closing a socket with unread bytes makes the kernel send a reset.
            let _ = stream.read(&mut [0]);
            self.streams.lock().unwrap().remove(&id);
            return;
        }
        // However a connection ends is the test's concern.
        let _ = match &self.tls {
            None => self.serve(&mut BufReader::new(stream)),
            Some(tls) => {
                let session = ServerConnection::new(tls.clone()).unwrap();
                let mut stream = BufReader::new(StreamOwned::new(session, stream));
                let ended = self.serve(&mut stream);
                let stream = stream.get_mut();
                stream.conn.send_close_notify();
                let _ = stream.conn.write_tls(&mut stream.sock);
                ended
            }
        };
        if let Some(stream) = self.streams.lock().unwrap().remove(&id) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn serve<S: Stream>(&self, stream: &mut BufReader<S>) -> io::Result<()> {
        while let Some(seen) = self.read(stream)? {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            if !self.act(seen, stream.get_mut())? {
                break;
            }
        }
        Ok(())
    }

    fn read<S: Stream>(&self, stream: &mut BufReader<S>) -> io::Result<Option<Seen>> {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, path) = (words.next(), words.next());
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let find = |name: &str| {
            let found = headers.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let length: usize = find("content-length").parse().unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let series = decode(&find("x-prometheus-remote-write-version"), &body);
        Ok(Some(Seen {
            order: 0,
            method: method.unwrap_or_default(),
            path: path.unwrap_or_default(),
            series,
            headers,
            body,
            at: Instant::now(),
            time: SystemTime::now(),
            accepted: false,
        }))
    }

    /// Does what the script says; whether the connection goes on.
    fn act(&self, mut seen: Seen, stream: &mut impl Write) -> io::Result<bool> {
        let order = {
            let mut all = self.seen.lock().unwrap();
            seen.order = all.len();
            all.push(seen.clone());
            seen.order
        };
        let script = self.script.lock().unwrap().clone();
        let mut does = script(&seen);
        let end = loop {
            match does {
                Does::After(pause, then) => {
                    std::thread::sleep(pause);
                    does = *then;
                }
                Does::Hang(reply) => {
                    let (released, changed) = &self.released;
                    let mut released = released.lock().unwrap();
                    while !*released {
                        released = changed.wait(released).unwrap();
                    }
                    does = Does::Answer(reply);
                }
                end => break end,
            }
        };
        if let Does::Answer(reply) | Does::Trickle(reply, _) = &end {
            let accepted = (200..300).contains(&reply.status);
            self.seen.lock().unwrap()[order].accepted = accepted;
        }
        self.now.fetch_sub(1, Ordering::SeqCst);
        if self.ended.load(Ordering::SeqCst) {
            return Ok(false);
        }
        let (bytes, pause) = match end {
            Does::Answer(reply) => (reply.encode(), None),
            Does::Trickle(reply, pause) => (reply.encode(), Some(pause)),
            Does::Raw(bytes) => {
                stream.write_all(&bytes)?;
                stream.flush()?;
                return Ok(false);
            }
            Does::Close | Does::After(..) | Does::Hang(_) => return Ok(false),
        };
        let Some(pause) = pause else {
            stream.write_all(&bytes)?;
            stream.flush()?;
            return Ok(true);
        };
        for byte in bytes {
            if self.ended.load(Ordering::SeqCst) {
                return Ok(false);
            }
            stream.write_all(&[byte])?;
            stream.flush()?;
            std::thread::sleep(pause);
        }
        Ok(true)
    }
}
