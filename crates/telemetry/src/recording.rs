//! Recorders, and the page that joins several of them.
//!
//! Each component has a recorder of its own, so that its series go away with it: a recorder cannot
//! remove a single series.

use std::collections::BTreeMap;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use super::metric::{Metric, Scope, Type};

/// The recorder of one component, or of the process itself.
pub(super) struct Recording {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

/// Labels of every component metric.
const COMPONENT: [&str; 3] = ["component_id", "component_kind", "component_type"];

const METADATA: Metadata<'static> = Metadata::new("metrifold", Level::INFO, None);

/// Bounds of histograms in seconds, from an answer on loopback to retries over minutes.
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
        let key = key(metric, Type::Counter, labels);
        self.recorder.register_counter(&key, &METADATA)
    }

    pub(super) fn gauge(&self, metric: Metric, labels: Vec<Label>) -> Gauge {
        let key = key(metric, Type::Gauge, labels);
        self.recorder.register_gauge(&key, &METADATA)
    }

    pub(super) fn histogram(&self, metric: Metric, labels: Vec<Label>) -> Histogram {
        let key = key(metric, Type::Histogram, labels);
        self.recorder.register_histogram(&key, &METADATA)
    }

    /// Drains what histograms have collected.
    pub(super) fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

impl Drop for Recording {
    /// Empties the histograms: samples since the last upkeep are not freed with the recorder.
    fn drop(&mut self) {
        self.upkeep();
    }
}

/// The key of a series, checked against the table of metrics in debug builds.
fn key(metric: Metric, kind: Type, labels: Vec<Label>) -> Key {
    let described = metric.describe();
    debug_assert_eq!(described.kind, kind, "{metric:?}");
    debug_assert!(
        {
            let mut named: Vec<&str> = labels.iter().map(Label::key).collect();
            let mut expected = described.labels.to_vec();
            if described.scope == Scope::Component {
                expected.extend(COMPONENT);
            }
            named.sort_unstable();
            expected.sort_unstable();
            named == expected
        },
        "{metric:?} has {labels:?}"
    );
    Key::from_parts(described.name, labels)
}

/// Renders several recordings, and series without labels, as one page. All series of a metric stand
/// together below its help.
pub(super) fn page<'a>(
    recordings: impl Iterator<Item = &'a Recording>,
    readings: &[(Metric, f64)],
) -> String {
    let mut families: BTreeMap<String, String> = BTreeMap::new();
    let mut length = 0;
    for (metric, value) in readings {
        let (name, kind) = (metric.name(), metric.describe().kind.as_str());
        families.insert(format!("# TYPE {name} {kind}"), format!("{name} {value}\n"));
    }
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
        for known in described.filter(|known| Some(known.name) == name) {
            page.push_str(&format!("# HELP {} {}\n", known.name, known.help));
        }
        page.push_str(&head);
        page.push('\n');
        page.push_str(&series);
        page.push('\n');
    }
    page
}
