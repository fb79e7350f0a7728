//! The meters of one component.

mod ledger;
mod reporter;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label};

use metrifold_base::locked as lock;
use metrifold_model::Kind;
use metrifold_model::ledger::Tally;

use super::flow::{Flow, Meter};
use super::queries::QueryMeters;
use super::queue::{DiskReading, QueueGauge};
use super::recording::Recording;
use super::state::State;
use super::trouble::{LastError, Trouble};
use super::{Metric, Telemetry};

use ledger::Shown;

pub use ledger::{LEDGER_TENANTS, SinkLedger};
pub use reporter::Reporter;

/// State of one component type that the topology API shows beside the common meters.
pub trait Details: Send + Sync {
    /// The state as a JSON object.
    fn details(&self) -> String;
}

/// Held handles of one component's metrics. Clones are the same meters.
#[derive(Clone)]
pub struct ComponentMetrics(pub(crate) Arc<Component>);

/// Counters by metric and by the value of their own label, found without an allocation.
pub(crate) type ByLabel = HashMap<Metric, HashMap<Box<str>, Counter, Hashed>, Hashed>;

type Hashed = foldhash::fast::RandomState;

pub(crate) struct Component {
    pub(crate) telemetry: Telemetry,
    pub(crate) recording: Recording,
    pub(crate) id: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) type_name: Arc<str>,
    pub(crate) received: Flow,
    pub(crate) sent: Flow,
    pub(crate) up: Gauge,
    pub(crate) restarts: Counter,
    pub(crate) retries: Counter,
    pub(crate) delivery: Histogram,
    /// Created on first use, so that only components that answer queries have these series.
    pub(crate) queries: OnceLock<QueryMeters>,
    pub(crate) by_label: Mutex<ByLabel>,
    /// Serial number of the newest [`Reporter`], and the state that it reported last.
    pub(crate) state: Mutex<(u64, State)>,
    pub(crate) trouble: Trouble,
    pub(crate) queue: Mutex<Option<Arc<dyn QueueGauge>>>,
    /// Component-specific state for the topology API; weak, so that the meters keep no component
    /// alive.
    details: Mutex<Option<Weak<dyn Details>>>,
    /// Part of the sink's ledger that the metrics page shows.
    shown: Mutex<Shown>,
}

impl ComponentMetrics {
    pub(crate) fn new(telemetry: Telemetry, id: &str, kind: Kind, type_name: &str) -> Self {
        let labels = labels(id, kind, type_name);
        let recording = Recording::new();
        let meter = |metric| Meter::new(recording.counter(metric, labels.clone()));
        Self(Arc::new(Component {
            received: Flow {
                batches: meter(Metric::ReceivedBatches),
                samples: meter(Metric::ReceivedSamples),
                bytes: meter(Metric::ReceivedBytes),
            },
            sent: Flow {
                batches: meter(Metric::SentBatches),
                samples: meter(Metric::SentSamples),
                bytes: meter(Metric::SentBytes),
            },
            up: recording.gauge(Metric::Up, labels.clone()),
            restarts: recording.counter(Metric::Restarts, labels.clone()),
            retries: recording.counter(Metric::Retries, labels.clone()),
            delivery: if kind == Kind::Sink {
                recording.histogram(Metric::DeliverySeconds, labels.clone())
            } else {
                Histogram::noop()
            },
            queries: OnceLock::new(),
            by_label: Mutex::default(),
            state: Mutex::new((0, State::Built)),
            trouble: Trouble::default(),
            queue: Mutex::new(None),
            details: Mutex::new(None),
            shown: Mutex::default(),
            id: id.into(),
            kind,
            type_name: type_name.into(),
            recording,
            telemetry,
        }))
    }

    /// Batches, samples and bytes that the component received.
    pub fn received(&self) -> &Flow {
        &self.0.received
    }

    /// Batches, samples and bytes that the component sent.
    pub fn sent(&self) -> &Flow {
        &self.0.sent
    }

    /// Counts a discarded batch; `samples` is `None` if the batch was never decoded.
    pub fn discarded(&self, reason: &str, samples: Option<u64>) {
        self.labelled(Metric::DiscardedBatches, "reason", reason)
            .increment(1);
        self.discarded_samples(reason, samples.unwrap_or(0));
    }

    /// Counts discarded samples of a batch that itself went on.
    pub fn discarded_samples(&self, reason: &str, samples: u64) {
        if samples > 0 {
            self.labelled(Metric::DiscardedSamples, "reason", reason)
                .increment(samples);
        }
    }

    /// Counts discarded exemplars of a batch whose samples went on.
    pub fn discarded_exemplars(&self, reason: &str, exemplars: u64) {
        if exemplars > 0 {
            self.labelled(Metric::DiscardedExemplars, "reason", reason)
                .increment(exemplars);
        }
    }

    /// Counts discarded metadata of metric families.
    pub fn discarded_metadata(&self, reason: &str, families: u64) {
        if families > 0 {
            self.labelled(Metric::DiscardedMetadata, "reason", reason)
                .increment(families);
        }
    }

    /// Counts requests, or series, over a limit.
    pub fn over_limit(&self, limit: &str, times: u64) {
        self.labelled(Metric::OverLimit, "limit", limit)
            .increment(times);
    }

    /// Counts an error and keeps its text for the topology API.
    pub fn error(&self, kind: &str, text: impl ToString) {
        self.labelled(Metric::Errors, "error_type", kind)
            .increment(1);
        self.0.trouble.happened(text.to_string());
    }

    /// Counts a failed attempt as an error. The next successful attempt ends it; until then the far
    /// end counts as failing.
    pub fn failed(&self, kind: &str, text: impl ToString) {
        self.labelled(Metric::Errors, "error_type", kind)
            .increment(1);
        self.0.trouble.failed(text.to_string());
    }

    /// Notes a successful attempt, which ends what [`failed`](Self::failed) has reported.
    pub fn succeeded(&self) {
        self.0.trouble.succeeded();
    }

    /// Time for which the far end has been failing; `None` while it is healthy.
    pub fn failing_for(&self) -> Option<Duration> {
        self.0.trouble.failing_for()
    }

    /// Batches that wait in the component's queue or are being sent; `None` without a queue.
    pub fn waiting(&self) -> Option<Tally> {
        let queue = lock(&self.0.queue).clone()?;
        Some(queue.ledger().total.queued)
    }

    /// Counts an answer to a sender.
    pub fn answered(&self, status: http::StatusCode) {
        self.labelled(Metric::SourceRequests, "code", status.as_str())
            .increment(1);
    }

    /// Counts a request that a source refused because memory is short.
    pub fn refused(&self, reason: &str) {
        self.labelled(Metric::RefusedRequests, "reason", reason)
            .increment(1);
    }

    /// Counts a request to an endpoint by status code. Each distinct code is a series of its own,
    /// so callers pass a bounded set.
    pub fn requested(&self, code: &str) {
        for metric in [
            Metric::RemoteWriteRequests,
            Metric::RemoteWriteRequestsTotal,
        ] {
            self.labelled(metric, "code", code).increment(1);
        }
    }

    /// The meters of a sink that answers queries.
    pub fn queries(&self) -> &QueryMeters {
        let c = &*self.0;
        c.queries.get_or_init(|| {
            let labels = labels(&c.id, c.kind, &c.type_name);
            QueryMeters::new(&c.recording, &labels)
        })
    }

    /// Counts a finished query by its outcome: the status of the answer, or a word in angle
    /// brackets.
    pub fn query_answered(&self, code: &str) {
        self.labelled(Metric::Queries, "code", code).increment(1);
    }

    /// Counts a published rule set and shows how many tenants it has.
    pub fn rules_published(&self, tenants: usize) {
        let c = &*self.0;
        let labels = labels(&c.id, c.kind, &c.type_name);
        let counter = c.recording.counter(Metric::RulesPublished, labels.clone());
        counter.increment(1);
        let gauge = c.recording.gauge(Metric::RuleTenants, labels);
        gauge.set(tenants as f64);
    }

    /// Counts an attempt after the first.
    pub fn retried(&self) {
        self.0.retries.increment(1);
    }

    /// Gauge of the requests that the sink may have in flight at once.
    pub fn connections(&self) -> Gauge {
        let c = &*self.0;
        let labels = labels(&c.id, c.kind, &c.type_name);
        c.recording.gauge(Metric::Connections, labels)
    }

    /// Shows the number of dead letters and their bytes on disk.
    pub fn dead_letters(&self, letters: usize, bytes: u64) {
        let c = &*self.0;
        for (metric, value) in [
            (Metric::DeadLetters, letters as f64),
            (Metric::DeadLetterBytes, bytes as f64),
        ] {
            let labels = labels(&c.id, c.kind, &c.type_name);
            c.recording.gauge(metric, labels).set(value);
        }
    }

    /// Counts dead letters that were not stored, or were removed again.
    pub fn dead_letters_dropped(&self, reason: &str, letters: usize) {
        if letters > 0 {
            self.labelled(Metric::DeadLettersDropped, "reason", reason)
                .increment(letters as u64);
        }
    }

    /// Records the time from a batch's arrival in the queue to its outcome.
    pub fn delivered_after(&self, time: Duration) {
        self.0.delivery.record(time.as_secs_f64());
    }

    /// Hands out the right to report the component's state. It revokes every earlier reporter: what
    /// those still report is ignored.
    pub fn reporter(&self) -> Reporter {
        let mut state = lock(&self.0.state);
        state.0 += 1;
        Reporter {
            metrics: self.clone(),
            turn: state.0,
        }
    }

    /// State that the component reported last.
    pub fn state(&self) -> State {
        lock(&self.0.state).1
    }

    /// The last error, if there was one.
    pub fn last_error(&self) -> Option<LastError> {
        self.0.trouble.last()
    }

    /// Shows the fill of this queue from now on, or of none.
    pub fn watch_queue(&self, queue: Option<Arc<dyn QueueGauge>>) {
        *lock(&self.0.queue) = queue;
    }

    /// Bytes, byte bound and batches of the component's queue, if it has one.
    pub fn queue(&self) -> Option<(usize, usize, usize)> {
        lock(&self.0.queue).as_ref().map(|queue| queue.fill())
    }

    /// Shows `details` of the component in the topology API until it is dropped.
    pub fn show_details<D: Details + 'static>(&self, details: &Arc<D>) {
        let details: Arc<dyn Details> = details.clone();
        *lock(&self.0.details) = Some(Arc::downgrade(&details));
    }

    /// Component-specific state as JSON, if something provides it.
    pub fn details(&self) -> Option<String> {
        let details = lock(&self.0.details).as_ref().and_then(Weak::upgrade)?;
        Some(details.details())
    }

    fn labelled(&self, metric: Metric, label: &'static str, value: &str) -> Counter {
        self.0.labelled(metric, label, value)
    }
}

impl Component {
    pub(crate) fn upkeep(&self) {
        self.recording.upkeep();
        self.received.tick();
        self.sent.tick();
        // So that losses on disk are counted and logged although nobody reads the metrics.
        self.refresh();
        if let Some(queue) = self.queue() {
            queue.upkeep();
        }
    }

    fn queue(&self) -> Option<Arc<dyn QueueGauge>> {
        lock(&self.queue).clone()
    }

    pub(crate) fn refresh(&self) {
        let Some(queue) = self.queue() else {
            return;
        };
        let (bytes, max, batches) = queue.fill();
        if let Some(disk) = queue.disk() {
            self.refresh_disk(disk);
        }
        let failing = self.trouble.failing_for();
        for (metric, value) in [
            (Metric::QueueBytes, bytes as f64),
            (Metric::QueueMaxBytes, max as f64),
            (Metric::QueueBatches, batches as f64),
            (
                Metric::FailingSeconds,
                failing.map_or(0.0, |it| it.as_secs_f64()),
            ),
        ] {
            let labels = labels(&self.id, self.kind, &self.type_name);
            self.recording.gauge(metric, labels).set(value);
        }
    }
}

impl Component {
    fn labelled(&self, metric: Metric, label: &'static str, value: &str) -> Counter {
        let mut counters = lock(&self.by_label);
        if let Some(counter) = counters.get(&metric).and_then(|it| it.get(value)) {
            return counter.clone();
        }
        let name = || Label::new("name", self.id.to_string());
        let mut labels = match metric {
            Metric::RemoteWriteRequests => vec![name()],
            Metric::RemoteWriteRequestsTotal => vec![Label::new("proxy", PROXY), name()],
            _ => labels(&self.id, self.kind, &self.type_name),
        };
        labels.push(Label::new(label, value.to_string()));
        let counter = self.recording.counter(metric, labels);
        let known = counters.entry(metric).or_default();
        known.insert(value.into(), counter.clone());
        counter
    }

    /// Whether a drain time can be estimated for this number of batches. While the far end fails it
    /// cannot: the rate was measured before the failure.
    pub(crate) fn drains(&self, batches: u64) -> bool {
        batches == 0 || self.trouble.failing_for().is_none()
    }

    fn refresh_disk(&self, disk: DiskReading) {
        for (reason, tally) in &disk.dropped {
            self.labelled(Metric::DiscardedBatches, "reason", reason.as_str())
                .increment(tally.batches);
            self.labelled(Metric::DiscardedSamples, "reason", reason.as_str())
                .increment(tally.samples);
        }
        let drain = disk.drain_seconds.filter(|_| self.drains(disk.batches));
        for (metric, value) in [
            (Metric::DiskSamples, disk.samples as f64),
            (Metric::DiskBatches, disk.batches as f64),
            (Metric::DiskBytes, disk.bytes as f64),
            (Metric::DiskMaxBytes, disk.max_bytes as f64),
            (Metric::DiskOldest, disk.oldest_seconds),
            (Metric::DiskDrain, drain.unwrap_or(f64::INFINITY)),
        ] {
            let labels = labels(&self.id, self.kind, &self.type_name);
            self.recording.gauge(metric, labels).set(value);
        }
        for (metric, value) in [
            (Metric::DiskSyncs, disk.fsyncs),
            (Metric::DiskCorrupt, disk.corrupt),
        ] {
            let labels = labels(&self.id, self.kind, &self.type_name);
            self.recording.counter(metric, labels).absolute(value);
        }
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        let identity = (self.kind, self.id.clone(), self.type_name.clone());
        let mut components = lock(&self.telemetry.shared.components);
        // A new component may have taken this identity after the last handle was dropped.
        if components
            .get(&identity)
            .is_some_and(|component| component.strong_count() == 0)
        {
            components.remove(&identity);
        }
    }
}

impl std::fmt::Debug for ComponentMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ComponentMetrics").field(&self.0.id).finish()
    }
}

/// Name under which Observatorium's API counts its remote-write proxy. Its dashboards and tests
/// query for it.
const PROXY: &str = "metricsv1-remotewrite";

pub(crate) fn labels(id: &str, kind: Kind, type_name: &str) -> Vec<Label> {
    vec![
        Label::new("component_id", id.to_string()),
        Label::new("component_kind", kind.as_str()),
        Label::new("component_type", type_name.to_string()),
    ]
}
