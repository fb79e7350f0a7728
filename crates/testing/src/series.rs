//! Series independent of the version of remote write, converted from and to the messages of 1.0 and
//! 2.0 that prost derives, which share no code with the codec under test.

mod decode;
mod encode;
mod histograms;

use prost::Message;

use crate::messages::Histogram;

pub use decode::{decode, from_v1, from_v2};
pub use encode::{to_v1, to_v2};
pub use histograms::{custom_histogram, float_histogram, integer_histogram, stale_histogram};

/// Bits of a stale marker.
pub const STALE: u64 = 0x7ff0_0000_0000_0002;
/// Content types of both versions.
pub const TYPE_1: &str = "application/x-protobuf";
pub const TYPE_2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

pub type Labels = Vec<(String, String)>;

/// A float sample; the value as bits, because stale markers are NaNs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub bits: u64,
    pub timestamp: i64,
    pub start: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exemplar {
    pub labels: Labels,
    pub bits: u64,
    pub timestamp: i64,
}

/// Type, help and unit of a metric family.
pub type Metadata = (i32, String, String);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Series {
    pub labels: Labels,
    pub samples: Vec<Sample>,
    /// Encoded histograms, so that NaNs can be compared.
    pub histograms: Vec<Vec<u8>>,
    pub exemplars: Vec<Exemplar>,
    pub metadata: Option<Metadata>,
    /// Created timestamp, which only drafts of 2.0 have.
    pub created: i64,
}

impl Series {
    /// A series with a name, and samples of these times and values.
    pub fn new(name: &str, samples: &[(i64, f64)]) -> Self {
        let series = Self::of(&[("__name__", name)]);
        let samples = samples.iter();
        samples.fold(series, |series, &(time, value)| series.sample(value, time))
    }

    /// A series with these labels.
    pub fn of(labels: &[(&str, &str)]) -> Self {
        Self {
            labels: pairs(labels),
            ..Self::default()
        }
    }

    /// A series with a name and a second label.
    pub fn named(name: &str) -> Self {
        Self::of(&[("__name__", name), ("job", "j")])
    }

    pub fn sample(mut self, value: f64, timestamp: i64) -> Self {
        self.samples.push(Sample {
            bits: value.to_bits(),
            timestamp,
            start: 0,
        });
        self
    }

    pub fn started_sample(mut self, value: f64, timestamp: i64, start: i64) -> Self {
        self = self.sample(value, timestamp);
        self.samples.last_mut().unwrap().start = start;
        self
    }

    pub fn stale(self, timestamp: i64) -> Self {
        self.sample(f64::from_bits(STALE), timestamp)
    }

    pub fn histogram(mut self, histogram: Histogram) -> Self {
        self.histograms.push(histogram.encode_to_vec());
        self
    }

    pub fn exemplar(mut self, labels: &[(&str, &str)], value: f64, timestamp: i64) -> Self {
        self.exemplars.push(Exemplar {
            labels: pairs(labels),
            bits: value.to_bits(),
            timestamp,
        });
        self
    }

    pub fn metadata(mut self, kind: i32, help: &str, unit: &str) -> Self {
        self.metadata = Some((kind, help.into(), unit.into()));
        self
    }

    pub fn created(mut self, created: i64) -> Self {
        self.created = created;
        self
    }

    /// Adds a label; labels stay sorted.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.push((name.into(), value.into()));
        self.labels.sort();
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.labels.retain(|(label, _)| label != name);
        self
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let label = self.labels.iter().find(|(key, _)| key == name)?;
        Some(&label.1)
    }

    pub fn name(&self) -> &str {
        self.get("__name__").unwrap_or_default()
    }

    /// Times of its samples.
    pub fn times(&self) -> impl Iterator<Item = i64> {
        self.samples.iter().map(|sample| sample.timestamp)
    }
}

fn pairs(labels: &[(&str, &str)]) -> Labels {
    let pair = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    labels.iter().map(pair).collect()
}

/// Numbers of samples, histograms and exemplars.
pub fn counts(series: &[Series]) -> [u64; 3] {
    let sum = |of: fn(&Series) -> usize| series.iter().map(of).sum::<usize>() as u64;
    [
        sum(|s| s.samples.len()),
        sum(|s| s.histograms.len()),
        sum(|s| s.exemplars.len()),
    ]
}

/// A series with one sample, whose value is its timestamp.
pub fn one(name: &str, timestamp: i64) -> Series {
    Series::new(name, &[(timestamp, timestamp as f64)])
}

/// The body of a request with one sample of `up`.
pub fn up(time: i64) -> Vec<u8> {
    body(&[one("up", time)])
}

/// Names and times of the samples of [`up`].
pub fn ups(times: impl IntoIterator<Item = i64>) -> Vec<(String, i64)> {
    times.into_iter().map(|time| ("up".into(), time)).collect()
}

/// An uncompressed request of remote write 1.0.
pub fn protobuf(series: &[Series]) -> Vec<u8> {
    to_v1(series).encode_to_vec()
}

/// The body of a request of remote write 1.0.
pub fn body(series: &[Series]) -> Vec<u8> {
    compressed(&to_v1(series))
}

/// The body of a request of remote write 2.0.
pub fn body_v2(series: &[Series]) -> Vec<u8> {
    compressed(&to_v2(series))
}

/// A message, compressed as a body.
pub fn compressed(message: &impl Message) -> Vec<u8> {
    compress(&message.encode_to_vec())
}

pub fn compress(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

/// A body compressed as no compressor does it: literals only, in small pieces. Compressing its
/// content anew yields other bytes.
pub fn peculiar_body(raw: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    prost::encoding::encode_varint(raw.len() as u64, &mut body);
    for piece in raw.chunks(37) {
        body.push(((piece.len() - 1) << 2) as u8);
        body.extend_from_slice(piece);
    }
    body
}

pub fn decompress(body: &[u8]) -> Vec<u8> {
    try_decompress(body).unwrap()
}

pub(crate) fn try_decompress(body: &[u8]) -> Result<Vec<u8>, String> {
    let bytes = snap::raw::Decoder::new().decompress_vec(body);
    bytes.map_err(|error| error.to_string())
}

/// Compares series one by one, for a readable difference.
#[track_caller]
pub fn same(what: &str, found: &[Series], expected: &[Series]) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected, "{what}");
    }
    let names =
        |list: &[Series]| -> Vec<String> { list.iter().map(|s| s.name().to_owned()).collect() };
    assert_eq!(names(found), names(expected), "{what}");
}
