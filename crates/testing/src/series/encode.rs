//! Messages from series.

use std::collections::{BTreeMap, HashMap};

use prost::Message;

use crate::messages::{Histogram, v1, v2};

use super::{Exemplar, Labels, Sample, Series};

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

/// The symbol table of a 2.0 message under construction.
#[derive(Default)]
struct Symbols {
    texts: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl Symbols {
    fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.texts.len() as u32;
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }

    fn labels(&mut self, labels: &Labels) -> Vec<u32> {
        let pair = |(name, value): &(String, String)| [self.number(name), self.number(value)];
        labels.iter().flat_map(pair).collect()
    }
}

/// A 2.0 message.
pub fn to_v2(list: &[Series]) -> v2::Request {
    let mut symbols = Symbols::default();
    // The first symbol is the empty text.
    symbols.number("");
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
        symbols: symbols.texts,
        timeseries,
    }
}
