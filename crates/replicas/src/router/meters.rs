//! Metrics of replicas. A replica's metrics leave the page with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::{Counter, Gauge, Label};
use tokio::time::Instant;

use metrifold_telemetry::{Meters as Recorded, Metric, Telemetry};

use crate::fleet::{Fleet, Outcome};

/// Metrics of all replicas of a router.
pub(super) struct Meters {
    sink: Arc<str>,
    telemetry: Telemetry,
    replicas: BTreeMap<Arc<str>, OfReplica>,
}

struct OfReplica {
    up: Gauge,
    selected: Gauge,
    answered: Counter,
    failed: Counter,
    cancelled: Counter,
    retries: Counter,
    hedges: Counter,
    _meters: Recorded,
}

impl Meters {
    pub(super) fn new(sink: Arc<str>, telemetry: Telemetry) -> Self {
        Self {
            sink,
            telemetry,
            replicas: BTreeMap::new(),
        }
    }

    /// Updates the gauges, and drops the metrics of replicas that have gone.
    pub(super) fn show(&mut self, fleet: &Fleet, now: Instant) {
        let names: Vec<Arc<str>> = fleet.replicas().map(|it| it.name.clone()).collect();
        self.replicas.retain(|name, _| names.contains(name));
        let available = fleet.available(now);
        for name in names {
            let up = available.contains(&name);
            let selected = fleet.selection().contains(&name);
            let (sink, telemetry) = (&self.sink, &self.telemetry);
            let known = self.replicas.entry(name.clone());
            let of = known.or_insert_with(|| OfReplica::new(telemetry, sink, &name));
            of.up.set(f64::from(u8::from(up)));
            of.selected.set(f64::from(u8::from(selected)));
        }
    }

    pub(super) fn done(&self, name: &str, outcome: Outcome) {
        if let Some(of) = self.replicas.get(name) {
            let counter = match outcome {
                Outcome::Answered => &of.answered,
                Outcome::Failed => &of.failed,
                Outcome::Cancelled => &of.cancelled,
            };
            counter.increment(1);
        }
    }

    pub(super) fn retried(&self, name: &str) {
        if let Some(of) = self.replicas.get(name) {
            of.retries.increment(1);
        }
    }

    pub(super) fn hedged(&self, name: &str) {
        if let Some(of) = self.replicas.get(name) {
            of.hedges.increment(1);
        }
    }
}

impl OfReplica {
    fn new(telemetry: &Telemetry, sink: &str, replica: &str) -> Self {
        let meters = telemetry.meters();
        let labels = || {
            vec![
                Label::new("sink", sink.to_owned()),
                Label::new("replica", replica.to_owned()),
            ]
        };
        let requests = |outcome: &'static str| {
            let mut labels = labels();
            labels.push(Label::new("outcome", outcome));
            meters.counter(Metric::ReplicaRequests, labels)
        };
        Self {
            up: meters.gauge(Metric::ReplicaUp, labels()),
            selected: meters.gauge(Metric::ReplicaSelected, labels()),
            answered: requests("answered"),
            failed: requests("failed"),
            cancelled: requests("cancelled"),
            retries: meters.counter(Metric::ReplicaRetries, labels()),
            hedges: meters.counter(Metric::ReplicaHedges, labels()),
            _meters: meters,
        }
    }
}
