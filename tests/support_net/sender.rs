//! A sender of remote write: HTTP by hand over a blocking socket, so that nothing is tidied up.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::{ClientConnection, StreamOwned};

use metrifold_http::ClientTls;

use super::PATIENCE;

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(&found.1)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connection to the program.
pub struct Sender {
    address: SocketAddr,
    stream: BufReader<Box<dyn Stream>>,
}

impl Sender {
    pub fn new(address: SocketAddr) -> Self {
        let socket = connect(address).unwrap();
        Self {
            address,
            stream: BufReader::new(Box::new(socket)),
        }
    }

    /// A connection in TLS. The handshake is made with the first request.
    pub fn tls(address: SocketAddr, tls: &ClientTls) -> Self {
        let config = Arc::new(tls.config().unwrap());
        let session = ClientConnection::new(config, address.ip().into()).unwrap();
        let socket = connect(address).unwrap();
        Self {
            address,
            stream: BufReader::new(Box::new(StreamOwned::new(session, socket))),
        }
    }

    /// Sends a request of remote write 1.0 to the default path.
    pub fn write(&mut self, body: &[u8]) -> Answer {
        self.post("/api/v1/write", &[], body)
    }

    /// Sends a request of remote write 1.0.
    pub fn post(&mut self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_post(path, headers, body).unwrap()
    }

    /// The same, where the connection may break.
    pub fn try_post(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let mut head = format!("POST {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        let given = |name: &str| {
            headers
                .iter()
                .any(|(key, _)| key.eq_ignore_ascii_case(name))
        };
        for (name, value) in [
            ("content-type", "application/x-protobuf"),
            ("content-encoding", "snappy"),
            ("x-prometheus-remote-write-version", "0.1.0"),
            ("user-agent", "test"),
        ] {
            if !given(name) {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        self.send(&[head.as_bytes(), body].concat())?;
        self.read()
    }

    /// Sends a request of remote write 2.0 to the default path.
    pub fn write_v2(&mut self, body: &[u8]) -> Answer {
        let message = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
        let headers = [
            ("content-type", message),
            ("x-prometheus-remote-write-version", "2.0.0"),
        ];
        self.post("/api/v1/write", &headers, body)
    }

    /// Sends bytes, whatever they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(bytes)?;
        stream.flush()
    }

    /// Sends bytes over a connection of their own and reads the answer, where all of it may fail.
    pub fn request(address: SocketAddr, bytes: &[u8]) -> io::Result<Answer> {
        let mut sender = Self {
            address,
            stream: BufReader::new(Box::new(connect(address)?)),
        };
        sender.send(bytes)?;
        sender.read()
    }

    /// Reads one answer.
    pub fn read(&mut self) -> io::Result<Answer> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not HTTP: {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = length
            .and_then(|(_, value)| value.parse().ok())
            .unwrap_or(0);
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    /// Whether the other side has closed the connection. Waits for it.
    pub fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

pub(super) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Gets a page.
pub fn fetch(address: SocketAddr, path: &str) -> io::Result<Answer> {
    let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    Sender::request(address, head.as_bytes())
}
