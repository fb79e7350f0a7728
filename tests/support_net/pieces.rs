//! Pieces of configurations and of traffic that the tests of reloads share.

use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;

use super::{Answer, Does, Endpoint, Reply, Sender, body, free_address, one, until};

pub fn source(name: &str, address: SocketAddr, keys: &str) -> String {
    format!("[sources.{name}]\ntype = \"remote_write\"\naddress = \"{address}\"\n{keys}\n")
}

/// A sink that retries quickly.
pub fn sink(name: &str, inputs: &str, url: &str, keys: &str) -> String {
    let retry = match keys.contains("retry") {
        true => "",
        false => "retry = { min_backoff = \"5ms\", max_backoff = \"20ms\" }",
    };
    format!(
        "[sinks.{name}]\ntype = \"remote_write\"\ninputs = [{inputs:?}]\nendpoint = \"{url}\"\n{retry}\n{keys}\n"
    )
}

pub const OPTIONAL: &str = "required = false";

pub fn up(time: i64) -> Vec<u8> {
    body(&[one("up", time)])
}

pub fn ups(times: impl IntoIterator<Item = i64>) -> Vec<(String, i64)> {
    times.into_iter().map(|time| ("up".into(), time)).collect()
}

#[track_caller]
pub fn expect(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.text());
}

/// Writes one sample over a connection of its own, from another thread.
pub fn write(address: SocketAddr, time: i64) -> JoinHandle<Answer> {
    std::thread::spawn(move || Sender::new(address).write(&up(time)))
}

/// The same, where the connection may come just when a listener closes.
pub fn write_again(address: SocketAddr, time: i64) -> JoinHandle<Answer> {
    std::thread::spawn(move || {
        until("it is answered", || {
            let body = up(time);
            let length = body.len();
            let head = format!(
                "POST /api/v1/write HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/x-protobuf\r\ncontent-encoding: snappy\r\ncontent-length: {length}\r\n\r\n"
            );
            let answer = Sender::request(address, &[head.as_bytes(), &body].concat());
            answer.ok().filter(|answer| answer.status != 503)
        })
    })
}

/// An endpoint that says nothing until it is released.
pub fn hanging() -> Endpoint {
    Endpoint::new(|_| Does::Hang(Reply::new(204)))
}

/// The URL of an endpoint that nobody listens at.
pub fn nobody() -> String {
    format!("http://{}/write", free_address())
}

/// Whether nobody listens there any more.
pub fn is_closed(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err()
}
