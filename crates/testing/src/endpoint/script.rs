//! Requests that an endpoint has seen, and its reactions.

use std::time::{Duration, Instant, SystemTime};

use prost::Message;

use crate::http::{Headers, header};
use crate::messages::{v1, v2};
use crate::series::{Series, TYPE_2, counts, decompress, from_v1, from_v2, try_decompress};

/// Reaction to a request.
#[derive(Clone, Debug)]
pub enum Does {
    /// Answers at once.
    Answer(Reply),
    /// Waits for [`Endpoint::release`](super::Endpoint::release), then answers.
    Hang(Reply),
    /// Closes the connection without an answer.
    Close,
    /// Writes raw bytes, which need not be HTTP, and closes the connection.
    Raw(Vec<u8>),
    /// Answers byte by byte with pauses.
    Trickle(Reply, Duration),
    /// Reacts after a pause.
    After(Duration, Box<Does>),
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Headers,
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

    /// A 2.0 answer for stored samples.
    pub fn written(samples: u64) -> Self {
        Self::new(204).counts([samples, 0, 0])
    }

    /// Adds the headers for the numbers of written samples, histograms and exemplars.
    pub fn counts(self, [samples, histograms, exemplars]: [u64; 3]) -> Self {
        self.header("X-Prometheus-Remote-Write-Samples-Written", samples)
            .header("X-Prometheus-Remote-Write-Histograms-Written", histograms)
            .header("X-Prometheus-Remote-Write-Exemplars-Written", exemplars)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
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

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Index of the request at this endpoint, from 0.
    pub order: usize,
    pub method: String,
    pub path: String,
    pub headers: Headers,
    pub body: Vec<u8>,
    /// Its decoded series, or the error of decoding.
    pub series: Result<Vec<Series>, String>,
    pub at: Instant,
    pub time: SystemTime,
    /// Whether it was answered 2xx.
    pub accepted: bool,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    pub fn series(&self) -> &[Series] {
        self.series.as_ref().unwrap()
    }

    pub fn is_v2(&self) -> bool {
        self.header("content-type") == Some(TYPE_2)
    }

    #[track_caller]
    pub fn v1(&self) -> v1::WriteRequest {
        assert!(!self.is_v2());
        v1::WriteRequest::decode(&*decompress(&self.body)).unwrap()
    }

    #[track_caller]
    pub fn v2(&self) -> v2::Request {
        assert!(self.is_v2());
        v2::Request::decode(&*decompress(&self.body)).unwrap()
    }

    /// Its series in either version. Panics if they break the specification.
    #[track_caller]
    pub fn checked(&self) -> Vec<Series> {
        match self.is_v2() {
            true => from_v2(&self.v2()),
            false => from_v1(&self.v1()),
        }
    }
}

/// How an endpoint speaks the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Receives both versions: 204, to 2.0 with exact counts of written samples.
    Honest,
    /// Answers 415 to 2.0.
    OnlyV1,
    /// Answers 204 to everything, as an old receiver that reads 2.0 as an empty request of 1.0.
    Swallowing,
    /// Answers 400 with a reason.
    Refusing,
    /// Refuses all series but the first of a 2.0 request: 400 with exact counts.
    Picky,
    /// As Prometheus 3: of 2.0 it refuses series without a sample (prometheus#17857) and stores the
    /// rest, with 400 and exact counts; of 1.0 it accepts them.
    Prometheus,
}

impl Manner {
    pub fn answer(self, seen: &Seen) -> Reply {
        if try_decompress(&seen.body).is_err() {
            return Reply::new(400).body("body is damaged");
        }
        match self {
            Self::Refusing => Reply::new(400).body("this endpoint refuses everything"),
            Self::OnlyV1 if seen.is_v2() => Reply::new(415).body("only 1.0 is spoken here"),
            Self::Honest if seen.is_v2() => Reply::new(204).counts(counts(&seen.checked())),
            Self::Picky if seen.is_v2() => {
                let first = &seen.checked()[..1];
                let reply = Reply::new(400).body("only the first series is liked");
                reply.counts(counts(first))
            }
            Self::Prometheus if seen.is_v2() => {
                let (alone, stored): (Vec<_>, Vec<_>) = seen
                    .series()
                    .iter()
                    .cloned()
                    .partition(|series| series.samples.len() + series.histograms.len() == 0);
                let written = counts(&stored);
                match alone.first() {
                    None => Reply::new(204).counts(written),
                    Some(first) => Reply::new(400).counts(written).body(format!(
                        "TimeSeries must contain at least one sample or histogram for series {{__name__={:?}}}",
                        first.name()
                    )),
                }
            }
            _ => Reply::new(204),
        }
    }
}
