//! Fixtures for tests of transforms and relabelling: batches made of labels, and their labels read
//! back.

use std::collections::BTreeMap;

use prost::Message;

use metrifold_model::Version;

use crate::Arena;
use crate::remote_write::messages::{v1, v2};
use crate::remote_write::{Limits, decode, encode_v1, encode_v2};

/// Labels of a series by name.
pub type Labels = BTreeMap<String, String>;

/// Encodes and compresses a message.
pub fn compress(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    snap::raw::Encoder::new().compress_vec(&bytes).unwrap()
}

/// Decompresses a body.
pub fn decompress(body: &[u8]) -> Vec<u8> {
    snap::raw::Decoder::new().decompress_vec(body).unwrap()
}

/// An arena decoded from 1.0, in which each series has its index as its only sample.
pub fn arena_v1(series: &[Labels]) -> Arena {
    let timeseries = series
        .iter()
        .enumerate()
        .map(|(number, labels)| v1::TimeSeries {
            labels: labels
                .iter()
                .map(|(name, value)| v1::Label {
                    name: name.clone(),
                    value: value.clone(),
                })
                .collect(),
            samples: vec![v1::Sample {
                value: number as f64,
                timestamp: 1,
            }],
            ..Default::default()
        });
    let request = v1::WriteRequest {
        timeseries: timeseries.collect(),
        ..Default::default()
    };
    let (arena, invalid) = decode(Version::V1, &compress(&request), &Limits::default()).unwrap();
    assert_eq!(invalid.series(), 0, "{invalid}");
    arena
}

/// The same decoded from 2.0.
pub fn arena_v2(series: &[Labels]) -> Arena {
    let mut symbols = vec![String::new()];
    let mut symbol = |text: &str| {
        let found = symbols.iter().position(|other| other == text);
        found.unwrap_or_else(|| {
            symbols.push(text.into());
            symbols.len() - 1
        }) as u32
    };
    let timeseries = series
        .iter()
        .enumerate()
        .map(|(number, labels)| v2::TimeSeries {
            labels_refs: labels
                .iter()
                .flat_map(|(name, value)| [symbol(name), symbol(value)])
                .collect(),
            samples: vec![v2::Sample {
                value: number as f64,
                timestamp: 1,
                ..Default::default()
            }],
            ..Default::default()
        });
    let timeseries = timeseries.collect();
    let request = v2::Request {
        symbols,
        timeseries,
    };
    let (arena, invalid) = decode(Version::V2, &compress(&request), &Limits::default()).unwrap();
    assert_eq!(invalid.series(), 0, "{invalid}");
    arena
}

/// Encodes as 1.0; returns the labels, and the number of the series that they belonged to.
pub fn leaves_v1(arena: &Arena) -> Vec<(Labels, usize)> {
    let request = v1::WriteRequest::decode(&decompress(&encode_v1(arena, None))[..]).unwrap();
    let leave = |series: v1::TimeSeries| {
        let names: Vec<_> = series.labels.iter().map(|label| &label.name).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
        let labels = series.labels.into_iter();
        let labels = labels.map(|label| (label.name, label.value)).collect();
        (labels, series.samples[0].value as usize)
    };
    request.timeseries.into_iter().map(leave).collect()
}

/// The same for 2.0.
pub fn leaves_v2(arena: &Arena) -> Vec<(Labels, usize)> {
    let request = v2::Request::decode(&decompress(&encode_v2(arena))[..]).unwrap();
    let text = |number: &u32| request.symbols[*number as usize].clone();
    let leave = |series: &v2::TimeSeries| {
        let pairs = series.labels_refs.chunks(2);
        let labels = pairs.map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
        (labels, series.samples[0].value as usize)
    };
    request.timeseries.iter().map(leave).collect()
}

/// Labels from pairs.
pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(n, v)| (n.to_string(), v.to_string()))
        .collect()
}
