//! Remote write without its versions: series as they are meant, from and to the messages of 1.0
//! and 2.0 as prost derives them, which share no code with the codec under test.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use prost::Message;

use metrifold_codec::remote_write::messages::{BucketSpan, Count, Histogram, ZeroCount, v1, v2};

/// The bits of a stale marker.
pub const STALE: u64 = 0x7ff0_0000_0000_0002;
/// The content types and versions of both protocols.
pub const TYPE_1: &str = "application/x-protobuf";
pub const TYPE_2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

pub type Labels = Vec<(String, String)>;

/// A float sample; the value by its bits, because stale markers are NaNs.
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

/// Type, help and unit.
pub type Metadata = (i32, String, String);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Series {
    pub labels: Labels,
    pub samples: Vec<Sample>,
    /// Encoded, so that NaNs can be compared.
    pub histograms: Vec<Vec<u8>>,
    pub exemplars: Vec<Exemplar>,
    pub metadata: Option<Metadata>,
    /// Of the drafts of 2.0.
    pub created: i64,
}

impl Series {
    pub fn new(labels: &[(&str, &str)]) -> Self {
        Self {
            labels: pairs(labels),
            ..Self::default()
        }
    }

    /// A series of a metric with one more label.
    pub fn named(name: &str) -> Self {
        Self::new(&[("__name__", name), ("job", "j")])
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

    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.push((name.into(), value.into()));
        self.labels.sort();
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.labels.retain(|(label, _)| label != name);
        self
    }

    pub fn name(&self) -> &str {
        let name = self.labels.iter().find(|(name, _)| name == "__name__");
        name.map_or("", |(_, value)| value)
    }
}

fn pairs(labels: &[(&str, &str)]) -> Labels {
    let pair = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    labels.iter().map(pair).collect()
}

/// Samples, histograms and exemplars.
pub fn counts(series: &[Series]) -> [u64; 3] {
    let sum = |of: fn(&Series) -> usize| series.iter().map(of).sum::<usize>() as u64;
    [
        sum(|s| s.samples.len()),
        sum(|s| s.histograms.len()),
        sum(|s| s.exemplars.len()),
    ]
}

/// An integer histogram of both signs.
pub fn integer_histogram(timestamp: i64) -> Histogram {
    Histogram {
        count: Some(Count::Int(12)),
        sum: -3.75,
        schema: 3,
        zero_threshold: 1e-128,
        zero_count: Some(ZeroCount::Int(2)),
        negative_spans: vec![BucketSpan {
            offset: -2,
            length: 2,
        }],
        negative_deltas: vec![1, 2],
        positive_spans: vec![
            BucketSpan {
                offset: 0,
                length: 2,
            },
            BucketSpan {
                offset: 5,
                length: 1,
            },
        ],
        positive_deltas: vec![3, -1, -1],
        reset_hint: 1,
        timestamp,
        ..Histogram::default()
    }
}

/// A float histogram, as a recording rule makes them.
pub fn float_histogram(timestamp: i64) -> Histogram {
    Histogram {
        count: Some(Count::Float(6.5)),
        sum: 0.1,
        schema: -4,
        zero_threshold: 0.001,
        zero_count: Some(ZeroCount::Float(0.5)),
        negative_spans: vec![BucketSpan {
            offset: 1,
            length: 1,
        }],
        negative_counts: vec![2.5],
        positive_spans: vec![BucketSpan {
            offset: -7,
            length: 2,
        }],
        positive_counts: vec![1.5, 2.0],
        reset_hint: 2,
        timestamp,
        ..Histogram::default()
    }
}

/// A histogram with buckets of one's own: only 2.0 can hold it.
pub fn custom_histogram(timestamp: i64) -> Histogram {
    Histogram {
        count: Some(Count::Int(5)),
        sum: 12.5,
        schema: -53,
        zero_count: Some(ZeroCount::Int(0)),
        positive_spans: vec![BucketSpan {
            offset: 0,
            length: 3,
        }],
        positive_deltas: vec![1, 1, -1],
        timestamp,
        custom_values: vec![0.5, 2.5],
        ..Histogram::default()
    }
}

/// A histogram that ends its series.
pub fn stale_histogram(timestamp: i64) -> Histogram {
    Histogram {
        count: Some(Count::Int(0)),
        sum: f64::from_bits(STALE),
        zero_count: Some(ZeroCount::Int(0)),
        timestamp,
        ..Histogram::default()
    }
}

fn v1_labels(labels: &Labels) -> Vec<v1::Label> {
    let label = |(name, value): &(String, String)| v1::Label {
        name: name.clone(),
        value: value.clone(),
    };
    labels.iter().map(label).collect()
}

/// A 1.0 message; the series' metadata become entries by metric name.
pub fn to_v1(series: &[Series]) -> v1::WriteRequest {
    let mut families = BTreeMap::new();
    let timeseries = series.iter().map(|series| {
        if let Some(metadata) = &series.metadata {
            families.insert(series.name().to_owned(), metadata.clone());
        }
        let sample = |sample: &Sample| v1::Sample {
            value: f64::from_bits(sample.bits),
            timestamp: sample.timestamp,
        };
        let exemplar = |exemplar: &Exemplar| v1::Exemplar {
            labels: v1_labels(&exemplar.labels),
            value: f64::from_bits(exemplar.bits),
            timestamp: exemplar.timestamp,
        };
        let histogram = |encoded: &Vec<u8>| Histogram::decode(&encoded[..]).unwrap();
        v1::TimeSeries {
            labels: v1_labels(&series.labels),
            samples: series.samples.iter().map(sample).collect(),
            exemplars: series.exemplars.iter().map(exemplar).collect(),
            histograms: series.histograms.iter().map(histogram).collect(),
        }
    });
    let timeseries = timeseries.collect();
    let metadata = families
        .into_iter()
        .map(|(name, (kind, help, unit))| v1::MetricMetadata {
            r#type: kind,
            metric_family_name: name,
            help,
            unit,
        });
    v1::WriteRequest {
        timeseries,
        metadata: metadata.collect(),
    }
}

/// Series of a 1.0 message, each with the metadata of the family of exactly its name.
pub fn from_v1(request: &v1::WriteRequest) -> Vec<Series> {
    let labels = |labels: &[v1::Label]| -> Labels {
        labels
            .iter()
            .map(|l| (l.name.clone(), l.value.clone()))
            .collect()
    };
    let series = |series: &v1::TimeSeries| {
        let mut found = Series {
            labels: labels(&series.labels),
            ..Series::default()
        };
        check_labels(&found.labels);
        for sample in &series.samples {
            found = found.sample(sample.value, sample.timestamp);
        }
        for exemplar in &series.exemplars {
            found.exemplars.push(Exemplar {
                labels: labels(&exemplar.labels),
                bits: exemplar.value.to_bits(),
                timestamp: exemplar.timestamp,
            });
        }
        for histogram in &series.histograms {
            found = found.histogram(histogram.clone());
        }
        let mut entries = request.metadata.iter();
        let entry = entries.find(|entry| entry.metric_family_name == found.name());
        found.metadata = entry.map(|e| (e.r#type, e.help.clone(), e.unit.clone()));
        found
    };
    request.timeseries.iter().map(series).collect()
}

/// The symbol table of a 2.0 message that is being made.
struct Symbols(Vec<String>);

impl Symbols {
    fn number(&mut self, text: &str) -> u32 {
        let known = self.0.iter().position(|symbol| symbol == text);
        let number = known.unwrap_or_else(|| {
            self.0.push(text.to_owned());
            self.0.len() - 1
        });
        number as u32
    }

    fn labels(&mut self, labels: &Labels) -> Vec<u32> {
        let pair = |(name, value): &(String, String)| [self.number(name), self.number(value)];
        labels.iter().flat_map(pair).collect()
    }
}

/// A 2.0 message.
pub fn to_v2(list: &[Series]) -> v2::Request {
    let mut symbols = Symbols(vec![String::new()]);
    let series = |series: &Series| {
        let labels_refs = symbols.labels(&series.labels);
        let sample = |sample: &Sample| v2::Sample {
            value: f64::from_bits(sample.bits),
            timestamp: sample.timestamp,
            start_timestamp: sample.start,
        };
        let mut exemplar = |exemplar: &Exemplar| v2::Exemplar {
            labels_refs: symbols.labels(&exemplar.labels),
            value: f64::from_bits(exemplar.bits),
            timestamp: exemplar.timestamp,
        };
        let exemplars = series.exemplars.iter().map(&mut exemplar).collect();
        let histogram = |encoded: &Vec<u8>| Histogram::decode(&encoded[..]).unwrap();
        let metadata = series
            .metadata
            .as_ref()
            .map(|(kind, help, unit)| v2::Metadata {
                r#type: *kind,
                help_ref: symbols.number(help),
                unit_ref: symbols.number(unit),
            });
        v2::TimeSeries {
            labels_refs,
            samples: series.samples.iter().map(sample).collect(),
            histograms: series.histograms.iter().map(histogram).collect(),
            exemplars,
            metadata,
            created_timestamp: series.created,
        }
    };
    let timeseries = list.iter().map(series).collect();
    v2::Request {
        symbols: symbols.0,
        timeseries,
    }
}

/// Series of a 2.0 message. Panics where the message is not as the specification wants it.
pub fn from_v2(request: &v2::Request) -> Vec<Series> {
    let symbols = &request.symbols;
    assert_eq!(symbols.first().map(String::as_str), Some(""), "{symbols:?}");
    let unique: HashSet<&String> = symbols.iter().collect();
    assert_eq!(
        unique.len(),
        symbols.len(),
        "symbols are not unique: {symbols:?}"
    );
    let symbol = |number: u32| symbols[number as usize].clone();
    let labels = |refs: &[u32]| -> Labels {
        let pairs = refs.chunks_exact(2);
        assert!(pairs.remainder().is_empty(), "odd label references");
        pairs
            .map(|pair| (symbol(pair[0]), symbol(pair[1])))
            .collect()
    };
    let series = |series: &v2::TimeSeries| {
        let mut found = Series {
            labels: labels(&series.labels_refs),
            created: series.created_timestamp,
            ..Series::default()
        };
        check_labels(&found.labels);
        assert!(
            series.samples.is_empty() || series.histograms.is_empty(),
            "samples and histograms in one series: {:?}",
            found.labels
        );
        for sample in &series.samples {
            found = found.started_sample(sample.value, sample.timestamp, sample.start_timestamp);
        }
        for exemplar in &series.exemplars {
            found.exemplars.push(Exemplar {
                labels: labels(&exemplar.labels_refs),
                bits: exemplar.value.to_bits(),
                timestamp: exemplar.timestamp,
            });
        }
        for histogram in &series.histograms {
            found = found.histogram(histogram.clone());
        }
        found.metadata = series
            .metadata
            .map(|m| (m.r#type, symbol(m.help_ref), symbol(m.unit_ref)));
        found
    };
    request.timeseries.iter().map(series).collect()
}

/// Labels leave sorted, unique and without empty parts.
fn check_labels(labels: &Labels) {
    assert!(labels.is_sorted_by(|a, b| a.0 < b.0), "{labels:?}");
    let empty = |(name, value): &(String, String)| name.is_empty() || value.is_empty();
    assert!(!labels.iter().any(empty), "{labels:?}");
}

/// A compressed body.
pub fn body(message: &impl Message) -> Bytes {
    let raw = message.encode_to_vec();
    snap::raw::Encoder::new().compress_vec(&raw).unwrap().into()
}

/// A body as no compressor writes it: all literals, in small pieces. Whoever compresses anew
/// yields other bytes.
pub fn peculiar_body(raw: &[u8]) -> Bytes {
    let mut body = Vec::new();
    prost::encoding::encode_varint(raw.len() as u64, &mut body);
    for piece in raw.chunks(37) {
        body.push(((piece.len() - 1) << 2) as u8);
        body.extend_from_slice(piece);
    }
    body.into()
}

pub fn decompress(body: &[u8]) -> Vec<u8> {
    snap::raw::Decoder::new().decompress_vec(body).unwrap()
}

/// Compares series one by one, so that a difference can be read.
#[track_caller]
pub fn same(what: &str, found: &[Series], expected: &[Series]) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected, "{what}");
    }
    let names =
        |list: &[Series]| -> Vec<String> { list.iter().map(|s| s.name().to_owned()).collect() };
    assert_eq!(names(found), names(expected), "{what}");
}
