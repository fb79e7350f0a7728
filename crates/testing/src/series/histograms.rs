//! Examples of every kind of native histogram.

use crate::messages::{BucketSpan, Count, Histogram, ZeroCount};

use super::STALE;

/// An integer histogram with positive and negative buckets.
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

/// A float histogram, as recording rules produce.
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

/// A histogram with custom buckets, which only 2.0 can hold.
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

/// A stale marker as a histogram.
pub fn stale_histogram(timestamp: i64) -> Histogram {
    Histogram {
        count: Some(Count::Int(0)),
        sum: f64::from_bits(STALE),
        zero_count: Some(ZeroCount::Int(0)),
        timestamp,
        ..Histogram::default()
    }
}
