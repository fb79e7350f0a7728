//! Recorders, and the page that is made of several.
//!
//! Each component records by itself, so that what it has recorded goes away with it. A recorder
//! cannot forget a single series.

use std::collections::BTreeMap;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use super::Metric;

/// What one component, or the process itself, has recorded.
pub(super) struct Recording {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

const METADATA: Metadata<'static> = Metadata::new("metrifold", Level::INFO, None);

/// Seconds; from an answer on loopback to a retry that went on for minutes.
const BUCKETS: [f64; 11] = [
    0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0,
];

impl Recording {
    pub(super) fn new() -> Self {
        let seconds = Matcher::Suffix("_duration_seconds".into());
        // Fails only on an empty list of buckets.
        let recorder = match PrometheusBuilder::new().set_buckets_for_metric(seconds, &BUCKETS) {
            Ok(builder) => builder.build_recorder(),
            Err(_) => PrometheusBuilder::new().build_recorder(),
        };
        Self {
            handle: recorder.handle(),
            recorder,
        }
    }

    pub(super) fn counter(&self, metric: Metric, labels: Vec<Label>) -> Counter {
        let key = Key::from_parts(metric.name(), labels);
        self.recorder.register_counter(&key, &METADATA)
    }

    pub(super) fn gauge(&self, metric: Metric, labels: Vec<Label>) -> Gauge {
        let key = Key::from_parts(metric.name(), labels);
        self.recorder.register_gauge(&key, &METADATA)
    }

    pub(super) fn histogram(&self, metric: Metric, labels: Vec<Label>) -> Histogram {
        let key = Key::from_parts(metric.name(), labels);
        self.recorder.register_histogram(&key, &METADATA)
    }

    /// Drains what histograms have collected.
    pub(super) fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

impl Drop for Recording {
    /// Empties its histograms: what one has collected since the last upkeep is not freed with it.
    fn drop(&mut self) {
        self.upkeep();
    }
}

/// One page of several recordings. A metric's series stand together, below what it means.
pub(super) fn page<'a>(recordings: impl Iterator<Item = &'a Recording>) -> String {
    let mut families: BTreeMap<String, String> = BTreeMap::new();
    let mut length = 0;
    for recording in recordings {
        let page = recording.handle.render();
        length += page.len();
        let mut family: Option<&mut String> = None;
        for line in page.lines().filter(|line| !line.is_empty()) {
            if line.starts_with("# TYPE ") {
                family = Some(families.entry(line.to_owned()).or_default());
            } else if let Some(family) = &mut family {
                family.push_str(line);
                family.push('\n');
            }
        }
    }
    let mut page = String::with_capacity(length);
    for (head, series) in families {
        let name = head.split(' ').nth(2);
        let described = Metric::ALL.iter().map(|metric| metric.describe());
        for (_, help) in described.filter(|(known, _)| Some(*known) == name) {
            page.push_str(&format!("# HELP {} {help}\n", name.unwrap_or_default()));
        }
        page.push_str(&head);
        page.push('\n');
        page.push_str(&series);
        page.push('\n');
    }
    page
}
