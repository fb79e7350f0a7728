//! The metrics of a provider.

use std::time::{SystemTime, UNIX_EPOCH};

use metrics::{Counter, Gauge, Label};

use metrifold_telemetry::{Meters, Metric, Telemetry};

use super::answer::Reason;

/// The meters of a provider. They leave the metrics page when this is dropped.
pub(crate) struct ProviderMeters {
    pub(crate) up: Gauge,
    pub(crate) targets: Gauge,
    pub(crate) stale: Gauge,
    pub(crate) answered: Gauge,
    pub(crate) attempts: Counter,
    failures: Vec<(Reason, Counter)>,
    _meters: Meters,
}

impl ProviderMeters {
    pub(crate) fn new(telemetry: &Telemetry, name: &str, type_name: &str) -> Self {
        let meters = telemetry.meters();
        let labels = || {
            vec![
                Label::new("discovery", name.to_owned()),
                Label::new("type", type_name.to_owned()),
            ]
        };
        let failure = |reason: Reason| {
            let mut labels = labels();
            labels.push(Label::new("reason", reason.as_str()));
            let counter = meters.counter(Metric::DiscoveryFailures, labels);
            counter.increment(0);
            (reason, counter)
        };
        let attempts = meters.counter(Metric::DiscoveryAttempts, labels());
        attempts.increment(0);
        Self {
            up: meters.gauge(Metric::DiscoveryUp, labels()),
            targets: meters.gauge(Metric::DiscoveryTargets, labels()),
            stale: meters.gauge(Metric::DiscoveryStale, labels()),
            answered: meters.gauge(Metric::DiscoveryAnswered, labels()),
            attempts,
            failures: Reason::ALL.map(failure).into(),
            _meters: meters,
        }
    }

    pub(crate) fn failed(&self, reason: Reason) {
        let known = self.failures.iter().find(|(known, _)| *known == reason);
        if let Some((_, counter)) = known {
            counter.increment(1);
        }
    }
}

/// Seconds since the epoch, as gauges show times.
pub fn seconds(time: SystemTime) -> f64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}
