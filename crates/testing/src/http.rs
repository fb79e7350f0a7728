//! HTTP over blocking sockets, without a library that would repair anything.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;

use crate::wait::PATIENCE;

/// Names in lower case, with values.
pub(crate) type Headers = Vec<(String, String)>;

/// An answer as it arrived.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Headers,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// Numbers of written samples, histograms and exemplars, if all three headers are present.
    pub fn written(&self) -> Option<[u64; 3]> {
        let count = |kind: &str| {
            let name = format!("x-prometheus-remote-write-{kind}-written");
            self.header(&name)?.parse().ok()
        };
        Some([count("samples")?, count("histograms")?, count("exemplars")?])
    }

    /// Whether any header for written samples is present.
    pub fn speaks_of_written(&self) -> bool {
        let mut names = self.headers.iter().map(|(name, _)| name);
        names.any(|name| name.ends_with("-written"))
    }
}

pub(crate) fn header<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    let mut headers = headers.iter();
    let found = headers.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
    Some(&found.1)
}

pub(crate) trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// The client's side of a connection.
pub(crate) struct Connection {
    stream: BufReader<Box<dyn Stream>>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = BufReader::new(Box::new(connect(address)?) as Box<dyn Stream>);
        Ok(Self { stream })
    }

    /// A connection in TLS. The handshake is made with the first request.
    pub(crate) fn tls(address: SocketAddr, config: Arc<ClientConfig>) -> io::Result<Self> {
        let session = ClientConnection::new(config, address.ip().into());
        let session = session.map_err(io::Error::other)?;
        let stream = StreamOwned::new(session, connect(address)?);
        let stream = BufReader::new(Box::new(stream) as Box<dyn Stream>);
        Ok(Self { stream })
    }

    /// Sends raw bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(bytes)?;
        stream.flush()
    }

    /// Reads one answer.
    pub(crate) fn read(&mut self) -> io::Result<Answer> {
        let (line, headers) = read_head(&mut self.stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not HTTP: {line:?}")))?;
        let is = |name, value| header(&headers, name).is_some_and(|it| it == value);
        let body = if is("transfer-encoding", "chunked") {
            self.read_chunks()?
        } else if let Some(length) = header(&headers, "content-length") {
            let mut body = vec![0; length.parse().map_err(io::Error::other)?];
            self.stream.read_exact(&mut body)?;
            body
        } else {
            let mut body = Vec::new();
            if is("connection", "close") && status != 204 {
                self.stream.read_to_end(&mut body)?;
            }
            body
        };
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let length = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            let mut chunk = vec![0; length + 2];
            self.stream.read_exact(&mut chunk)?;
            if length == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..length]);
        }
    }

    /// Waits for the end of the connection; returns false if data comes or the wait times out.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

/// Reads the first line and the headers of a request or an answer; `None` at the end of the
/// connection.
pub(crate) fn read_head(stream: &mut impl BufRead) -> io::Result<Option<(String, Headers)>> {
    let mut line = || -> io::Result<Option<String>> {
        let mut line = String::new();
        let read = stream.read_line(&mut line)?;
        Ok((read > 0).then(|| line.trim_end().to_owned()))
    };
    let Some(first) = line()? else {
        return Ok(None);
    };
    let mut headers = Vec::new();
    loop {
        let Some(line) = line()? else {
            return Ok(None);
        };
        if line.is_empty() {
            return Ok(Some((first, headers)));
        }
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Sends bytes over a new connection and reads the answer.
pub(crate) fn exchange(address: SocketAddr, bytes: &[u8]) -> io::Result<Answer> {
    let mut connection = Connection::open(address)?;
    connection.send(bytes)?;
    connection.read()
}

/// Sends a request with these headers, `host` and `content-length` over a new connection.
pub fn request(
    method: &str,
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method == "POST" {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    exchange(address, &[head.as_bytes(), b"\r\n", body].concat())
}

/// Gets a page.
pub fn fetch(address: SocketAddr, path: &str) -> io::Result<Answer> {
    request("GET", address, path, &[("connection", "close")], b"")
}

/// Gets the page of a URL; panics without an answer.
#[track_caller]
pub fn get(url: &str) -> Answer {
    let rest = url.strip_prefix("http://").unwrap();
    let (address, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let answer = fetch(address.parse().unwrap(), path);
    answer.unwrap_or_else(|error| panic!("{url}: {error}"))
}

/// Base64 of a text, as in credentials of basic authentication.
pub fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

/// Percent-encodes a query parameter.
pub fn encode(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &'static [u8]) -> io::Result<Answer> {
        let stream: Box<dyn Stream> = Box::new(io::Cursor::new(bytes.to_vec()));
        let stream = BufReader::new(stream);
        Connection { stream }.read()
    }

    #[test]
    fn bodies_are_read_as_long_as_they_are() {
        let chunked = read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
        assert_eq!(chunked.unwrap().body, b"abcde");
        let sized = read(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc").unwrap();
        assert_eq!((sized.status, &*sized.body), (200, &b"ab"[..]));
        let closed = read(b"HTTP/1.1 500 Oh\r\nConnection: close\r\n\r\nabc").unwrap();
        assert_eq!((closed.status, &*closed.body), (500, &b"abc"[..]));
        let empty = read(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        assert_eq!((empty.status, &*empty.body), (204, &b""[..]));
    }

    #[test]
    fn what_is_cut_short_is_an_error() {
        for cut in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\nContent-Le",
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            b"nonsense\r\n\r\n",
        ] {
            assert!(read(cut).is_err(), "{}", String::from_utf8_lossy(cut));
        }
    }
}
