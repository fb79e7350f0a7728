//! Pages of native histograms.

use prost::Message;

/// A page in Prometheus's protobuf format with one native histogram, which grows with each scrape.
pub fn histogram_page(name: &str, number: u64) -> Vec<u8> {
    page(name, number, None)
}

/// The same, with the time since which the histogram has been counting, in milliseconds.
pub fn started_histogram_page(name: &str, number: u64, start: i64) -> Vec<u8> {
    let start = Timestamp {
        seconds: start / 1000,
        nanoseconds: (start % 1000 * 1_000_000) as i32,
    };
    page(name, number, Some(start))
}

fn page(name: &str, number: u64, start: Option<Timestamp>) -> Vec<u8> {
    let span = |offset, length| BucketSpan { offset, length };
    let family = MetricFamily {
        name: name.into(),
        kind: 4,
        metric: vec![Metric {
            histogram: Some(Histogram {
                sample_count: 6 * number + 1,
                sample_sum: 0.1 * number as f64,
                schema: 3,
                zero_threshold: 1e-128,
                zero_count: 1,
                negative_span: vec![span(-3, 1)],
                negative_delta: vec![number as i64],
                positive_span: vec![span(0, 2), span(4, 1)],
                // Each bucket holds the difference to the one before.
                positive_delta: vec![number as i64, number as i64, 0],
                start,
            }),
        }],
    };
    family.encode_length_delimited_to_vec()
}

/// Messages of `io.prometheus.client`, as far as these pages need them.
#[derive(Clone, PartialEq, prost::Message)]
struct MetricFamily {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "3")]
    kind: i32,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metric {
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Histogram {
    #[prost(uint64, tag = "1")]
    sample_count: u64,
    #[prost(double, tag = "2")]
    sample_sum: f64,
    #[prost(sint32, tag = "5")]
    schema: i32,
    #[prost(double, tag = "6")]
    zero_threshold: f64,
    #[prost(uint64, tag = "7")]
    zero_count: u64,
    #[prost(message, repeated, tag = "9")]
    negative_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "10")]
    negative_delta: Vec<i64>,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "13")]
    positive_delta: Vec<i64>,
    #[prost(message, optional, tag = "15")]
    start: Option<Timestamp>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanoseconds: i32,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct BucketSpan {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}
