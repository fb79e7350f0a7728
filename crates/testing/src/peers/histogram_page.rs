//! A page of native histograms.

use prost::Message;

/// A page of Prometheus's protobuf format with one native histogram, which grows by each scrape.
pub fn histogram_page(name: &str, number: u64) -> Vec<u8> {
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
                // Each bucket says by how much it differs from the one before.
                positive_delta: vec![number as i64, number as i64, 0],
            }),
        }],
    };
    family.encode_length_delimited_to_vec()
}

/// A part of `io.prometheus.client`, for [`histogram_page`].
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
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct BucketSpan {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}
