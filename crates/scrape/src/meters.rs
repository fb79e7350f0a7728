//! Metrics of a pool.

use metrics::{Counter, Gauge, Label};

use metrifold_telemetry::{Meters, Metric, Telemetry};

use crate::error::Cause;

/// The meters of a pool. They leave the metrics page when this is dropped.
pub(crate) struct PoolMeters {
    pub(crate) targets: [Gauge; 3],
    pub(crate) dropped: Gauge,
    pub(crate) good: Counter,
    bad: Vec<(Cause, Counter)>,
    pub(crate) missed: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) ahead: Counter,
    _meters: Meters,
}

impl PoolMeters {
    pub(crate) fn new(telemetry: &Telemetry, pool: &str) -> Self {
        let meters = telemetry.meters();
        let labels = |more: &[(&'static str, &'static str)]| {
            let mut labels = vec![Label::new("pool", pool.to_owned())];
            labels.extend(more.iter().map(|(name, value)| Label::new(*name, *value)));
            labels
        };
        let counter = |metric, more: &[(&'static str, &'static str)]| {
            let counter = meters.counter(metric, labels(more));
            counter.increment(0);
            counter
        };
        let outcome = |outcome| counter(Metric::Scrapes, &[("outcome", outcome)]);
        let health = ["unknown", "up", "down"];
        Self {
            targets: health
                .map(|health| meters.gauge(Metric::ScrapeTargets, labels(&[("health", health)]))),
            dropped: meters.gauge(Metric::ScrapeDroppedTargets, labels(&[])),
            good: outcome("success"),
            bad: Cause::ALL
                .map(|cause| (cause, outcome(cause.as_str())))
                .into(),
            missed: counter(Metric::ScrapesMissed, &[]),
            duplicates: counter(Metric::ScrapeSamplesLeftOut, &[("reason", "duplicate")]),
            ahead: counter(Metric::ScrapeSamplesLeftOut, &[("reason", "too_far_ahead")]),
            _meters: meters,
        }
    }

    pub(crate) fn failed(&self, cause: Cause) {
        if let Some((_, counter)) = self.bad.iter().find(|(known, _)| *known == cause) {
            counter.increment(1);
        }
    }
}
