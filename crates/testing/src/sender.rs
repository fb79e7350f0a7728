//! A sender of remote write over one connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustls::ClientConfig;

use crate::http::{Answer, Connection, exchange};
use crate::series::{TYPE_1, TYPE_2, up};
use crate::wait::until;

const WRITE: &str = "/api/v1/write";

/// A connection to the program.
pub struct Sender {
    address: SocketAddr,
    connection: Connection,
}

impl Sender {
    #[track_caller]
    pub fn new(address: SocketAddr) -> Self {
        Self::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    /// Connects to an address that may have no listener.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let connection = Connection::open(address)?;
        Ok(Self {
            address,
            connection,
        })
    }

    /// A connection in TLS. The handshake is made with the first request.
    pub fn tls(address: SocketAddr, tls: &Arc<ClientConfig>) -> Self {
        Self {
            address,
            connection: Connection::tls(address, tls.clone()).unwrap(),
        }
    }

    /// Sends a request of remote write 1.0 to the default path.
    #[track_caller]
    pub fn write(&mut self, body: &[u8]) -> Answer {
        self.post(WRITE, &[], body)
    }

    /// Sends a request of remote write 1.0.
    #[track_caller]
    pub fn post(&mut self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_post(path, headers, body).unwrap()
    }

    /// As [`post`](Self::post), for a connection that may break.
    pub fn try_post(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        self.begin(path, headers, body)?;
        self.read()
    }

    /// Sends a request of remote write 1.0 without waiting for its answer.
    pub fn begin(&mut self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
        let mut head = format!("POST {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        let is_given = |name: &str| {
            let mut names = headers.iter().map(|(given, _)| given);
            names.any(|given| given.eq_ignore_ascii_case(name))
        };
        for (name, value) in [
            ("content-type", TYPE_1),
            ("content-encoding", "snappy"),
            ("x-prometheus-remote-write-version", "0.1.0"),
            ("user-agent", "test"),
        ] {
            if !is_given(name) {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        self.send(&[head.as_bytes(), body].concat())
    }

    /// Sends a request of remote write 2.0 to the default path.
    #[track_caller]
    pub fn write_v2(&mut self, body: &[u8]) -> Answer {
        let headers = [
            ("content-type", TYPE_2),
            ("x-prometheus-remote-write-version", "2.0.0"),
        ];
        self.post(WRITE, &headers, body)
    }

    /// Sends raw bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.connection.send(bytes)
    }

    /// Reads one answer.
    pub fn read(&mut self) -> io::Result<Answer> {
        self.connection.read()
    }

    /// Sends bytes over a new connection and reads the answer; any step may fail.
    pub fn request(address: SocketAddr, bytes: &[u8]) -> io::Result<Answer> {
        exchange(address, bytes)
    }

    /// Waits for the end of the connection; returns false if data comes or the wait times out.
    pub fn is_closed(&mut self) -> bool {
        self.connection.is_closed()
    }
}

#[track_caller]
pub fn expect(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.text());
}

/// Writes one sample over a new connection, from another thread.
pub fn write(address: SocketAddr, time: i64) -> JoinHandle<Answer> {
    std::thread::spawn(move || Sender::new(address).write(&up(time)))
}

/// As [`write()`], for a connection that may arrive while a listener closes.
pub fn write_again(address: SocketAddr, time: i64) -> JoinHandle<Answer> {
    std::thread::spawn(move || {
        until("it is answered", || {
            let mut sender = Sender::connect(address).ok()?;
            let answer = sender.try_post(WRITE, &[], &up(time));
            answer.ok().filter(|answer| answer.status != 503)
        })
    })
}
