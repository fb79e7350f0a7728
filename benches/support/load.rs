//! Senders in a closed loop: each sends its next request after the acknowledgement of the last.
#![allow(dead_code, reason = "each benchmark uses its part")]

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::gateway::read_head;
use super::payload;

pub const SENDERS: usize = 4;
/// Number of different requests per sender.
const ROUNDS: usize = 4;

/// Requests, ready to be written to a connection.
pub struct Load {
    bodies: Vec<Vec<Vec<u8>>>,
    /// Bytes of a request before compression.
    pub raw: usize,
    /// Whether the bodies are of 2.0.
    second_version: bool,
}

impl Load {
    pub fn new() -> Arc<Self> {
        let body = |sender| {
            (0..ROUNDS)
                .map(|round| payload::body(sender, round))
                .collect()
        };
        Arc::new(Self {
            bodies: (0..SENDERS).map(body).collect(),
            raw: payload::request(0, 0).len(),
            second_version: false,
        })
    }

    /// A load of given bodies, grouped by sender.
    pub fn of(bodies: Vec<Vec<Vec<u8>>>, second_version: bool) -> Arc<Self> {
        let raw = snap::raw::decompress_len(&bodies[0][0]).unwrap();
        Arc::new(Self {
            bodies,
            raw,
            second_version,
        })
    }

    /// A body of the first sender.
    pub fn body(&self, round: usize) -> &[u8] {
        let bodies = &self.bodies[0];
        &bodies[round % bodies.len()]
    }

    /// Compressed bytes of a request.
    pub fn compressed(&self) -> usize {
        self.bodies[0][0].len()
    }

    /// Sends from all senders for `length`; returns the time to each acknowledgement.
    pub fn drive(self: &Arc<Self>, address: SocketAddr, length: Duration) -> Vec<Duration> {
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let load = self.clone();
                thread::spawn(move || {
                    let bodies = load.bodies[sender % load.bodies.len()].iter();
                    let requests = bodies.map(|body| match load.second_version {
                        false => request(body),
                        true => request_v2(body),
                    });
                    send(&requests.collect::<Vec<_>>(), address, length)
                })
            })
            .collect();
        let took = senders.into_iter().map(|sender| sender.join().unwrap());
        took.flatten().collect()
    }
}

fn send(requests: &[Vec<u8>], address: SocketAddr, length: Duration) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let deadline = Instant::now() + length;
    let mut took = Vec::new();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let started = Instant::now();
        if started >= deadline {
            return took;
        }
        stream
            .write_all(&requests[took.len() % requests.len()])
            .unwrap();
        expect_success(&mut reader);
        took.push(started.elapsed());
    }
}

/// A request with a body of remote write 1.0.
pub fn request(body: &[u8]) -> Vec<u8> {
    request_as(body, "application/x-protobuf", "0.1.0")
}

/// A request with a body of remote write 2.0.
pub fn request_v2(body: &[u8]) -> Vec<u8> {
    let message = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
    request_as(body, message, "2.0.0")
}

fn request_as(body: &[u8], content_type: &str, version: &str) -> Vec<u8> {
    let mut request = format!(
        "POST /api/v1/write HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench\r\n\
         Content-Type: {content_type}\r\nContent-Encoding: snappy\r\n\
         X-Prometheus-Remote-Write-Version: {version}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// Reads an answer, which must be 2xx.
pub fn expect_success(reader: &mut BufReader<TcpStream>) {
    let head = read_head(reader).unwrap();
    if !head[0].contains(" 20") {
        let mut rest = vec![0; 4096];
        let n = reader.read(&mut rest).unwrap_or(0);
        panic!("{head:?} {}", String::from_utf8_lossy(&rest[..n]));
    }
}

/// A quantile of times.
pub fn quantile(times: &mut [Duration], at: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * at).round() as usize]
}
