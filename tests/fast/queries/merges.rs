//! Answers of several replicas, merged while they arrive.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;

use metrifold_testing::Metrifold;

use super::upstream::{Asked, CHUNKED, Upstream, caller_of, read_until};

/// Points of a series in a replica's answer.
const POINTS: usize = 500;

fn gateway(replicas: &[&Upstream], keys: &str) -> Metrifold {
    let replicas = replicas
        .iter()
        .map(|it| format!("{{ endpoint = {:?} }}", it.url()));
    let replicas: Vec<String> = replicas.collect();
    Metrifold::start(&format!(
        "[sources.api]\ntype = \"prometheus_api\"\naddress = \"INGEST\"\n\
         [sinks.router]\ntype = \"replica_router\"\ninputs = [\"api\"]\nstrategy = \"merge\"\n\
         probe.interval = \"0s\"\nreplicas = [{}]\n{keys}\n",
        replicas.join(", ")
    ))
}

const BEGIN: &str = "{\"status\":\"success\",\"data\":{\"resultType\":\"matrix\",\"result\":[";

/// A series with every second point, from the first or the second on.
fn series(number: usize, from: usize) -> String {
    let mut text = format!("{{\"metric\":{{\"n\":\"{number:08}\"}},\"values\":[");
    for point in (from..2 * POINTS).step_by(2) {
        let comma = if point == from { "" } else { "," };
        write!(text, "{comma}[{},\"{point}.25\"]", 1_700_000_000 + point).unwrap();
    }
    text + "]}"
}

/// Series at the beginning of an answer, enough for the merged one to begin.
const BEGUN: usize = 10;

fn begun(from: usize) -> String {
    let series: Vec<String> = (0..BEGUN).map(|number| series(number, from)).collect();
    format!("{BEGIN}{}", series.join(","))
}

fn chunk(stream: &mut TcpStream, text: &str) -> std::io::Result<()> {
    write!(stream, "{:x}\r\n{text}\r\n", text.len())
}

/// Takes a chunked body apart, while it is read.
struct Chunks<'a> {
    stream: &'a mut TcpStream,
    left: usize,
    over: bool,
}

impl Read for Chunks<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 && !self.over {
            let size = read_until(self.stream, "\r\n");
            self.left = usize::from_str_radix(size.trim(), 16).unwrap();
            self.over = self.left == 0;
        }
        if self.over {
            return Ok(0);
        }
        let most = into.len().min(self.left);
        let read = self.stream.read(&mut into[..most])?;
        self.left -= read;
        if self.left == 0 {
            read_until(self.stream, "\r\n");
        }
        Ok(read)
    }
}

/// A caller whose merged answer both replicas have begun, with the two requests that they got.
fn begun_by(replicas: &[Upstream; 2]) -> (Metrifold, TcpStream, [Asked; 2]) {
    let gateway = gateway(
        &[&replicas[0], &replicas[1]],
        "retry.answer_bytes = \"1KiB\"",
    );
    let target = "/api/v1/query_range?query=up&start=1&end=2&step=1";
    let caller = caller_of(gateway.ingest, target);
    let mut asked = replicas.each_ref().map(|it| it.asked("\r\n\r\n"));
    for (from, asked) in asked.iter_mut().enumerate() {
        asked.send(CHUNKED);
        chunk(&mut asked.stream, &begun(from)).unwrap();
    }
    (gateway, caller, asked)
}

#[test]
fn a_replica_that_breaks_off_amid_a_merged_answer_is_told_of_at_its_end() {
    let replicas = [Upstream::new(), Upstream::new()];
    let (_gateway, mut caller, asked) = begun_by(&replicas);
    let head = read_until(&mut caller, "\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let [mut stays, breaks] = asked;
    drop(breaks);
    let end = format!(",{}]}}}}", series(BEGUN, 0));
    write!(stays.stream, "{:x}\r\n{end}\r\n0\r\n\r\n", end.len()).unwrap();
    let mut text = String::new();
    let mut body = Chunks {
        stream: &mut caller,
        left: 0,
        over: false,
    };
    body.read_to_string(&mut text).unwrap();
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    let points = |at: usize| {
        answer["data"]["result"][at]["values"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!([points(0), points(BEGUN)], [2 * POINTS, POINTS]);
    let told = answer["warnings"][0].as_str().unwrap();
    assert!(
        told.contains(&replicas[1].url()) && told.contains("broke off"),
        "{told}"
    );
}

#[test]
fn a_merged_answer_breaks_off_only_with_the_last_replica() {
    let replicas = [Upstream::new(), Upstream::new()];
    let (_gateway, mut caller, asked) = begun_by(&replicas);
    read_until(&mut caller, "\r\n\r\n");
    drop(asked);
    let mut text = Vec::new();
    // Whoever reads it does not take it for whole.
    let read = caller.read_to_end(&mut text);
    assert!(read.is_err() || !text.ends_with(b"0\r\n\r\n"));
}
