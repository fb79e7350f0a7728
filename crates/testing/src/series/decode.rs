//! Series from messages, read as they are or checked against the specification.

use std::collections::HashSet;

use prost::Message;

use crate::messages::{v1, v2};

use super::{Exemplar, Labels, Series, try_decompress};

/// Decodes a body of the version that the remote-write header names.
pub fn decode(version: &str, body: &[u8]) -> Result<Vec<Series>, String> {
    let bytes = try_decompress(body)?;
    if version == "2.0.0" {
        let request = v2::Request::decode(&*bytes).map_err(|error| error.to_string())?;
        return read_v2(&request);
    }
    let request = v1::WriteRequest::decode(&*bytes).map_err(|error| error.to_string())?;
    Ok(read_v1(&request))
}

/// Series of a 1.0 message, each with the metadata of the family that has exactly its name.
fn read_v1(request: &v1::WriteRequest) -> Vec<Series> {
    let labels = |labels: &[v1::Label]| -> Labels {
        let pair = |label: &v1::Label| (label.name.clone(), label.value.clone());
        labels.iter().map(pair).collect()
    };
    let series = |series: &v1::TimeSeries| {
        let mut found = Series {
            labels: labels(&series.labels),
            ..Series::default()
        };
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

/// Series of a 2.0 message.
fn read_v2(request: &v2::Request) -> Result<Vec<Series>, String> {
    let symbol = |number: u32| {
        let symbol = request.symbols.get(number as usize).cloned();
        symbol.ok_or_else(|| format!("there is no symbol {number}"))
    };
    let labels = |refs: &[u32]| -> Result<Labels, String> {
        let pairs = refs.chunks_exact(2);
        if !pairs.remainder().is_empty() {
            return Err("odd label references".into());
        }
        pairs
            .map(|pair| Ok((symbol(pair[0])?, symbol(pair[1])?)))
            .collect()
    };
    let series = |series: &v2::TimeSeries| {
        let mut found = Series {
            labels: labels(&series.labels_refs)?,
            created: series.created_timestamp,
            ..Series::default()
        };
        for sample in &series.samples {
            found = found.started_sample(sample.value, sample.timestamp, sample.start_timestamp);
        }
        for exemplar in &series.exemplars {
            found.exemplars.push(Exemplar {
                labels: labels(&exemplar.labels_refs)?,
                bits: exemplar.value.to_bits(),
                timestamp: exemplar.timestamp,
            });
        }
        for histogram in &series.histograms {
            found = found.histogram(histogram.clone());
        }
        if let Some(it) = &series.metadata {
            found.metadata = Some((it.r#type, symbol(it.help_ref)?, symbol(it.unit_ref)?));
        }
        Ok(found)
    };
    request.timeseries.iter().map(series).collect()
}

/// Series of a 1.0 message. Panics if the message breaks the specification.
#[track_caller]
pub fn from_v1(request: &v1::WriteRequest) -> Vec<Series> {
    let series = read_v1(request);
    series.iter().for_each(check_labels);
    series
}

/// Series of a 2.0 message. Panics if the message breaks the specification.
#[track_caller]
pub fn from_v2(request: &v2::Request) -> Vec<Series> {
    let symbols = &request.symbols;
    assert_eq!(symbols.first().map(String::as_str), Some(""), "{symbols:?}");
    let unique: HashSet<&String> = symbols.iter().collect();
    assert_eq!(
        unique.len(),
        symbols.len(),
        "symbols are not unique: {symbols:?}"
    );
    let series = read_v2(request).unwrap();
    for series in &series {
        check_labels(series);
        assert!(
            series.samples.is_empty() || series.histograms.is_empty(),
            "samples and histograms in one series: {:?}",
            series.labels
        );
        assert!(
            series.samples.len() + series.histograms.len() > 0,
            "neither samples nor histograms in a series: {:?}",
            series.labels
        );
    }
    series
}

/// Checks that labels are sorted and unique, with non-empty names and values.
#[track_caller]
fn check_labels(series: &Series) {
    let labels = &series.labels;
    assert!(labels.is_sorted_by(|a, b| a.0 < b.0), "{labels:?}");
    let empty = |(name, value): &(String, String)| name.is_empty() || value.is_empty();
    assert!(!labels.iter().any(empty), "{labels:?}");
}
