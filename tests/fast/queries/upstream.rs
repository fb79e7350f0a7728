//! An upstream whose connections a test controls byte by byte.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use metrifold_testing::{PATIENCE, until};

/// A listener on loopback.
pub(super) struct Upstream(TcpListener);

/// A connection on which the head of a request, and perhaps its body, was read.
pub(super) struct Asked {
    pub(super) stream: TcpStream,
    pub(super) received: String,
}

/// The head of a chunked answer.
pub(super) const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";

impl Upstream {
    pub(super) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    /// Waits for the next connection, and reads its request up to `end`, such as an empty line.
    #[track_caller]
    pub(super) fn asked(&self, end: &str) -> Asked {
        let (mut stream, _) = until("the upstream is asked", || self.0.accept().ok());
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut received = Vec::new();
        while !received.ends_with(end.as_bytes()) {
            let mut byte = [0];
            assert_eq!(stream.read(&mut byte).unwrap(), 1, "{received:?}");
            received.push(byte[0]);
        }
        let received = String::from_utf8(received).unwrap();
        Asked { stream, received }
    }
}

impl Asked {
    #[track_caller]
    pub(super) fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// Whether the connection ends within `time`.
    pub(super) fn ends_within(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).unwrap();
        match self.stream.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

/// A caller that has sent the head of a GET.
#[track_caller]
pub(super) fn caller(address: SocketAddr) -> TcpStream {
    caller_of(address, "/api/v1/query?query=up")
}

/// A caller that has sent the head of a GET of a target.
#[track_caller]
pub(super) fn caller_of(address: SocketAddr, target: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("GET {target} HTTP/1.1\r\nhost: {address}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// Reads until `text` has arrived.
#[track_caller]
pub(super) fn read_until(stream: &mut impl Read, text: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(text.as_bytes()) {
        let mut byte = [0];
        let shown = String::from_utf8_lossy(&read).into_owned();
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{shown}");
        read.push(byte[0]);
    }
    String::from_utf8(read).unwrap()
}
