//! The metrics of a publisher.

use metrics::{Counter, Gauge, Label};

use metrifold_telemetry::{Meters, Metric, Telemetry};

/// The meters of a publisher. They leave the metrics page when this is dropped.
pub(crate) struct PublishMeters {
    pub(crate) targets: Gauge,
    pub(crate) dropped: Gauge,
    pub(crate) written: Gauge,
    pub(crate) writes: Counter,
    pub(crate) failures: Counter,
    _meters: Meters,
}

impl PublishMeters {
    pub(crate) fn new(telemetry: &Telemetry, name: &str) -> Self {
        let meters = telemetry.meters();
        let labels = || vec![Label::new("publish", name.to_owned())];
        let counter = |metric: Metric| {
            let counter = meters.counter(metric, labels());
            counter.increment(0);
            counter
        };
        Self {
            targets: meters.gauge(Metric::PublishTargets, labels()),
            dropped: meters.gauge(Metric::PublishDropped, labels()),
            written: meters.gauge(Metric::PublishWritten, labels()),
            writes: counter(Metric::PublishWrites),
            failures: counter(Metric::PublishFailures),
            _meters: meters,
        }
    }
}
