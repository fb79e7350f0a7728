//! Counters of a provider. They survive a restart of its loops.

use metrics::{Counter, Gauge, Label};

use metrifold_telemetry::{Meters, Metric, Telemetry};

/// Meters of a provider, unregistered with it.
pub(crate) struct AivenMeters {
    pub(crate) fetches: Counter,
    pub(crate) fetch_failures: Counter,
    pub(crate) created: Counter,
    pub(crate) change_failures: Counter,
    pub(crate) resolves: Counter,
    pub(crate) resolve_failures: Counter,
    pub(crate) planned: Gauge,
    pub(crate) leads: Gauge,
    _meters: Meters,
}

impl AivenMeters {
    pub(crate) fn new(telemetry: &Telemetry, name: &str) -> Self {
        let meters = telemetry.meters();
        let labels = || vec![Label::new("discovery", name.to_owned())];
        let counter = |metric: Metric| {
            let counter = meters.counter(metric, labels());
            counter.increment(0);
            counter
        };
        Self {
            fetches: counter(Metric::AivenFetches),
            fetch_failures: counter(Metric::AivenFetchFailures),
            created: counter(Metric::AivenCreated),
            change_failures: counter(Metric::AivenChangeFailures),
            resolves: counter(Metric::AivenResolves),
            resolve_failures: counter(Metric::AivenResolveFailures),
            planned: meters.gauge(Metric::AivenPlanned, labels()),
            leads: meters.gauge(Metric::AivenLeads, labels()),
            _meters: meters,
        }
    }
}
