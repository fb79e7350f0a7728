//! Requests as prost writes and reads them.

use std::collections::BTreeMap;

use prost::Message;

use metrifold_codec::remote_write::messages::{v1, v2};

/// A series with float samples: timestamps and values.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub labels: Vec<(String, String)>,
    pub samples: Vec<(i64, f64)>,
}

impl Series {
    pub fn new(name: &str, samples: &[(i64, f64)]) -> Self {
        Self {
            labels: vec![("__name__".into(), name.into())],
            samples: samples.to_vec(),
        }
    }

    /// Adds a label; they are kept sorted.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.push((name.into(), value.into()));
        self.labels.sort();
        self
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let label = self.labels.iter().find(|(key, _)| key == name)?;
        Some(&label.1)
    }

    pub fn name(&self) -> &str {
        self.get("__name__").unwrap_or_default()
    }
}

/// A series with one sample, whose value is its timestamp.
pub fn one(name: &str, timestamp: i64) -> Series {
    Series::new(name, &[(timestamp, timestamp as f64)])
}

/// A request of remote write 1.0, not compressed.
pub fn protobuf(series: &[Series]) -> Vec<u8> {
    let timeseries = series.iter().map(|series| v1::TimeSeries {
        labels: series
            .labels
            .iter()
            .map(|(name, value)| v1::Label {
                name: name.clone(),
                value: value.clone(),
            })
            .collect(),
        samples: series
            .samples
            .iter()
            .map(|&(timestamp, value)| v1::Sample { value, timestamp })
            .collect(),
        ..Default::default()
    });
    let request = v1::WriteRequest {
        timeseries: timeseries.collect(),
        metadata: Vec::new(),
    };
    request.encode_to_vec()
}

pub fn compress(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

/// The body of a request of remote write 1.0.
pub fn body(series: &[Series]) -> Vec<u8> {
    compress(&protobuf(series))
}

/// The body of a request of remote write 2.0.
pub fn body_v2(series: &[Series]) -> Vec<u8> {
    let mut symbols = vec![String::new()];
    let mut known: BTreeMap<String, u32> = BTreeMap::new();
    let mut symbol = |text: &String| {
        *known.entry(text.clone()).or_insert_with(|| {
            symbols.push(text.clone());
            symbols.len() as u32 - 1
        })
    };
    let mut timeseries = Vec::new();
    for series in series {
        let labels = series.labels.iter();
        timeseries.push(v2::TimeSeries {
            labels_refs: labels.flat_map(|(k, v)| [symbol(k), symbol(v)]).collect(),
            samples: series
                .samples
                .iter()
                .map(|&(timestamp, value)| v2::Sample {
                    value,
                    timestamp,
                    start_timestamp: 0,
                })
                .collect(),
            ..Default::default()
        });
    }
    let request = v2::Request {
        symbols,
        timeseries,
    };
    compress(&request.encode_to_vec())
}

/// Reads a body of either version.
pub fn decode(version: &str, body: &[u8]) -> Result<Vec<Series>, String> {
    let bytes = snap::raw::Decoder::new().decompress_vec(body);
    let bytes = bytes.map_err(|error| error.to_string())?;
    if version == "2.0.0" {
        let request = v2::Request::decode(&*bytes).map_err(|error| error.to_string())?;
        let text = |&at: &u32| request.symbols.get(at as usize).cloned().ok_or("symbol");
        let mut series = Vec::new();
        for from in &request.timeseries {
            let texts: Result<Vec<_>, _> = from.labels_refs.iter().map(text).collect();
            let pairs = texts?;
            series.push(Series {
                labels: pairs
                    .chunks(2)
                    .map(|pair| (pair[0].clone(), pair[1].clone()))
                    .collect(),
                samples: from
                    .samples
                    .iter()
                    .map(|s| (s.timestamp, s.value))
                    .collect(),
            });
        }
        return Ok(series);
    }
    let request = v1::WriteRequest::decode(&*bytes).map_err(|error| error.to_string())?;
    let series = request.timeseries.into_iter().map(|from| Series {
        labels: from.labels.into_iter().map(|l| (l.name, l.value)).collect(),
        samples: from
            .samples
            .iter()
            .map(|s| (s.timestamp, s.value))
            .collect(),
    });
    Ok(series.collect())
}
