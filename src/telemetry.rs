//! Metrics of Metrifold itself, and what the topology API tells of each component.
//!
//! Names follow Vector's component specification under the prefix `metrifold_`. Handles are made
//! when a component is built and held; values are added once per batch. There is no global
//! recorder: a process can run several topologies, as the tests do.

mod recording;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label};

use crate::component::Kind;
use crate::signal::Counts;

use recording::Recording;

/// The metrics of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Batches that came in.
    ReceivedBatches,
    /// Samples (float and histogram) that came in, of batches that were decoded.
    ReceivedSamples,
    /// Encoded bytes that came in.
    ReceivedBytes,
    /// Batches that went out.
    SentBatches,
    /// Samples that went out, of batches that were decoded.
    SentSamples,
    /// Encoded bytes that went out.
    SentBytes,
    /// Samples that did not go on, by reason.
    DiscardedSamples,
    /// Batches that did not go on, by reason.
    DiscardedBatches,
    /// Things that went wrong, by kind.
    Errors,
    /// How often a component was built anew after it had died.
    Restarts,
    /// 1 while the component runs.
    Up,
    /// Bytes in a sink's queue.
    QueueBytes,
    /// The bound on the bytes in a sink's queue.
    QueueMaxBytes,
    /// Batches that wait in a sink's queue.
    QueueBatches,
    /// From a batch's arrival in the queue to its end, in seconds.
    DeliverySeconds,
    /// Requests to a source, by status.
    SourceRequests,
    /// Remote-write requests by endpoint and status, as the Observatorium proposal names them.
    RemoteWriteRequests,
    /// Attempts after the first.
    Retries,
    /// The version that runs.
    BuildInfo,
    /// When the process started, in seconds since the epoch.
    StartTime,
    /// Whether the last reload succeeded.
    ReloadSuccessful,
    /// When a configuration was last taken, in seconds since the epoch.
    ReloadTime,
    /// The hash of the configuration.
    ConfigHash,
    /// Reloads, by outcome.
    Reloads,
}

impl Metric {
    /// All metrics.
    pub const ALL: [Self; 24] = [
        Self::ReceivedBatches,
        Self::ReceivedSamples,
        Self::ReceivedBytes,
        Self::SentBatches,
        Self::SentSamples,
        Self::SentBytes,
        Self::DiscardedSamples,
        Self::DiscardedBatches,
        Self::Errors,
        Self::Restarts,
        Self::Up,
        Self::QueueBytes,
        Self::QueueMaxBytes,
        Self::QueueBatches,
        Self::DeliverySeconds,
        Self::SourceRequests,
        Self::RemoteWriteRequests,
        Self::Retries,
        Self::BuildInfo,
        Self::StartTime,
        Self::ReloadSuccessful,
        Self::ReloadTime,
        Self::ConfigHash,
        Self::Reloads,
    ];

    /// Its name and what it means.
    pub const fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::ReceivedBatches => (
                "metrifold_component_received_batches_total",
                "Batches that a component received.",
            ),
            Self::ReceivedSamples => (
                "metrifold_component_received_samples_total",
                "Samples, float and histogram, that a component received in batches that were decoded.",
            ),
            Self::ReceivedBytes => (
                "metrifold_component_received_bytes_total",
                "Encoded bytes that a component received.",
            ),
            Self::SentBatches => (
                "metrifold_component_sent_batches_total",
                "Batches that a component sent.",
            ),
            Self::SentSamples => (
                "metrifold_component_sent_samples_total",
                "Samples, float and histogram, that a component sent in batches that were decoded.",
            ),
            Self::SentBytes => (
                "metrifold_component_sent_bytes_total",
                "Encoded bytes that a component sent.",
            ),
            Self::DiscardedSamples => (
                "metrifold_component_discarded_samples_total",
                "Samples that went no further, by reason.",
            ),
            Self::DiscardedBatches => (
                "metrifold_component_discarded_batches_total",
                "Batches that went no further, by reason.",
            ),
            Self::Errors => (
                "metrifold_component_errors_total",
                "Errors of a component, by kind.",
            ),
            Self::Restarts => (
                "metrifold_component_restarts_total",
                "How often a component was built anew after it had died.",
            ),
            Self::Up => (
                "metrifold_component_up",
                "1 while the component runs, 0 while it waits to be built anew.",
            ),
            Self::QueueBytes => (
                "metrifold_queue_bytes",
                "Bytes in a sink's queue, those of batches being sent included.",
            ),
            Self::QueueMaxBytes => (
                "metrifold_queue_max_bytes",
                "The bound on the bytes in a sink's queue.",
            ),
            Self::QueueBatches => (
                "metrifold_queue_batches",
                "Batches that wait in a sink's queue.",
            ),
            Self::DeliverySeconds => (
                "metrifold_delivery_duration_seconds",
                "From a batch's arrival in a sink's queue to its end.",
            ),
            Self::SourceRequests => (
                "metrifold_source_requests_total",
                "Requests to a source, by status code.",
            ),
            Self::RemoteWriteRequests => (
                "remote_write_requests_count",
                "Remote-write requests to an endpoint, by status code; <error> when there was no answer.",
            ),
            Self::Retries => (
                "metrifold_component_retries_total",
                "Attempts to deliver a batch after the first.",
            ),
            Self::BuildInfo => ("metrifold_build_info", "Always 1; the version is a label."),
            Self::StartTime => (
                "metrifold_start_time_seconds",
                "When the process started, in seconds since the epoch.",
            ),
            Self::ReloadSuccessful => (
                "metrifold_config_last_reload_successful",
                "1 unless the last attempt to reload the configuration was refused.",
            ),
            Self::ReloadTime => (
                "metrifold_config_last_reload_success_timestamp_seconds",
                "When a configuration was last loaded with success, in seconds since the epoch.",
            ),
            Self::ConfigHash => (
                "metrifold_config_hash",
                "The last 48 bits of the hash of the configuration that runs.",
            ),
            Self::Reloads => (
                "metrifold_config_reloads_total",
                "Attempts to reload the configuration, by outcome.",
            ),
        }
    }

    const fn name(self) -> &'static str {
        self.describe().0
    }
}

/// The recorder of one topology, and its components' meters.
#[derive(Clone)]
pub struct Telemetry {
    shared: Arc<Shared>,
}

struct Shared {
    /// Of the process itself.
    own: Recording,
    /// What somebody still counts in: with its last handle, a component goes from the page.
    components: Mutex<BTreeMap<Identity, Weak<Component>>>,
}

/// Kind, name and type of a component.
type Identity = (Kind, Arc<str>, Arc<str>);

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

impl Telemetry {
    /// A recorder of its own.
    pub fn new() -> Self {
        let telemetry = Self {
            shared: Arc::new(Shared {
                own: Recording::new(),
                components: Mutex::default(),
            }),
        };
        telemetry
            .gauge(
                Metric::BuildInfo,
                vec![Label::new("version", env!("CARGO_PKG_VERSION"))],
            )
            .set(1.0);
        telemetry
    }

    /// A gauge of the process.
    pub fn gauge(&self, metric: Metric, labels: Vec<Label>) -> Gauge {
        self.shared.own.gauge(metric, labels)
    }

    /// A counter of the process.
    pub fn counter(&self, metric: Metric, labels: Vec<Label>) -> Counter {
        self.shared.own.counter(metric, labels)
    }

    /// Those that somebody holds. They are held here as well, so that none of them goes while the
    /// list is locked.
    fn components(&self) -> Vec<Arc<Component>> {
        let components = lock(&self.shared.components);
        components.values().filter_map(Weak::upgrade).collect()
    }

    /// The meters of a component: the same ones for as long as somebody holds them.
    pub fn component(&self, id: &str, kind: Kind, type_name: &str) -> ComponentMetrics {
        let identity = (kind, id.into(), type_name.into());
        let mut components = lock(&self.shared.components);
        if let Some(known) = components.get(&identity).and_then(Weak::upgrade) {
            return ComponentMetrics(known);
        }
        let metrics = ComponentMetrics::new(self.clone(), id, kind, type_name);
        components.insert(identity, Arc::downgrade(&metrics.0));
        metrics
    }

    /// The metrics page.
    pub fn render(&self) -> String {
        let components = self.components();
        for component in &components {
            component.refresh();
        }
        let recordings = components.iter().map(|component| &component.recording);
        recording::page([&self.shared.own].into_iter().chain(recordings))
    }

    /// Drains what histograms have collected and takes the readings that rates are made of. Call
    /// it every [`UPKEEP`].
    pub fn upkeep(&self) {
        self.shared.own.upkeep();
        for component in self.components() {
            component.recording.upkeep();
            component.received.tick();
            component.sent.tick();
        }
    }
}

/// How often [`Telemetry::upkeep`] has to be called.
pub const UPKEEP: Duration = Duration::from_secs(5);

/// Held handles of one component's metrics. Clones are the same meters.
#[derive(Clone)]
pub struct ComponentMetrics(Arc<Component>);

struct Component {
    telemetry: Telemetry,
    recording: Recording,
    id: Arc<str>,
    kind: Kind,
    type_name: Arc<str>,
    received: Flow,
    sent: Flow,
    up: Gauge,
    restarts: Counter,
    retries: Counter,
    delivery: Histogram,
    by_label: Mutex<HashMap<(Metric, Box<str>), Counter, foldhash::fast::RandomState>>,
    /// Whose turn it is to say so, and what was said.
    state: Mutex<(u64, State)>,
    last_error: Mutex<Option<(std::time::SystemTime, String)>>,
    queue: Mutex<Option<Arc<dyn QueueGauge>>>,
}

/// What a queue tells of itself.
pub trait QueueGauge: Send + Sync {
    /// Bytes, bound in bytes, batches waiting.
    fn fill(&self) -> (usize, usize, usize);
}

/// What goes through one side of a component.
pub struct Flow {
    batches: Meter,
    samples: Meter,
    bytes: Meter,
}

/// A counter that can be read back, and its rate over the last interval of upkeep.
struct Meter {
    exported: Counter,
    total: AtomicU64,
    before: AtomicU64,
    rate: AtomicU64,
}

impl Meter {
    fn new(exported: Counter) -> Self {
        Self {
            exported,
            total: AtomicU64::new(0),
            before: AtomicU64::new(0),
            rate: AtomicU64::new(0),
        }
    }

    fn add(&self, n: u64) {
        if n > 0 {
            self.exported.increment(n);
            self.total.fetch_add(n, Ordering::Relaxed);
        }
    }

    fn tick(&self) {
        let total = self.total.load(Ordering::Relaxed);
        let before = self.before.swap(total, Ordering::Relaxed);
        let rate = (total - before) as f64 / UPKEEP.as_secs_f64();
        self.rate.store(rate.to_bits(), Ordering::Relaxed);
    }

    fn rate(&self) -> f64 {
        f64::from_bits(self.rate.load(Ordering::Relaxed))
    }
}

impl Flow {
    /// Counts a batch. What it carries is unknown if nobody had to decode it.
    pub fn batch(&self, counts: Option<Counts>, bytes: usize) {
        self.batches.add(1);
        self.bytes.add(bytes as u64);
        if let Some(counts) = counts {
            self.samples.add(counts.all_samples());
        }
    }

    fn tick(&self) {
        self.batches.tick();
        self.samples.tick();
        self.bytes.tick();
    }

    /// Totals and rates per second, for the topology API.
    pub fn reading(&self) -> FlowReading {
        let total = |meter: &Meter| meter.total.load(Ordering::Relaxed);
        FlowReading {
            batches: total(&self.batches),
            samples: total(&self.samples),
            bytes: total(&self.bytes),
            batches_per_second: self.batches.rate(),
            samples_per_second: self.samples.rate(),
            bytes_per_second: self.bytes.rate(),
        }
    }
}

/// Totals since the start and rates over the last seconds.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct FlowReading {
    batches: u64,
    samples: u64,
    bytes: u64,
    batches_per_second: f64,
    samples_per_second: f64,
    bytes_per_second: f64,
}

/// Whether a component runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Built, not started.
    Built,
    /// Runs.
    Running,
    /// Died, and will be built anew.
    Restarting,
    /// Has ended as it should.
    Ended,
}

impl ComponentMetrics {
    fn new(telemetry: Telemetry, id: &str, kind: Kind, type_name: &str) -> Self {
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
            by_label: Mutex::default(),
            state: Mutex::new((0, State::Built)),
            last_error: Mutex::new(None),
            queue: Mutex::new(None),
            id: id.into(),
            kind,
            type_name: type_name.into(),
            recording,
            telemetry,
        }))
    }

    /// What comes in.
    pub fn received(&self) -> &Flow {
        &self.0.received
    }

    /// What goes out.
    pub fn sent(&self) -> &Flow {
        &self.0.sent
    }

    /// Counts what went no further; `samples` is unknown if nobody had to decode the batch.
    pub fn discarded(&self, reason: &str, samples: Option<u64>) {
        self.labelled(Metric::DiscardedBatches, "reason", reason)
            .increment(1);
        self.discarded_samples(reason, samples.unwrap_or(0));
    }

    /// Counts samples of a batch that itself went on.
    pub fn discarded_samples(&self, reason: &str, samples: u64) {
        if samples > 0 {
            self.labelled(Metric::DiscardedSamples, "reason", reason)
                .increment(samples);
        }
    }

    /// Counts an error and keeps its text for the topology API.
    pub fn error(&self, kind: &str, text: impl ToString) {
        self.labelled(Metric::Errors, "error_type", kind)
            .increment(1);
        let mut last = lock(&self.0.last_error);
        *last = Some((std::time::SystemTime::now(), text.to_string()));
    }

    /// Counts an answer to a sender.
    pub fn answered(&self, status: http::StatusCode) {
        self.labelled(Metric::SourceRequests, "code", status.as_str())
            .increment(1);
    }

    /// Counts a request to an endpoint; no status means that there was no answer.
    pub fn requested(&self, status: Option<http::StatusCode>) {
        let code = status.as_ref().map_or("<error>", |s| s.as_str());
        self.labelled(Metric::RemoteWriteRequests, "code", code)
            .increment(1);
    }

    /// Counts an attempt after the first.
    pub fn retried(&self) {
        self.0.retries.increment(1);
    }

    /// Records how long a batch took from the queue to its end.
    pub fn delivered_after(&self, time: Duration) {
        self.0.delivery.record(time.as_secs_f64());
    }

    /// Lets a component say from now on whether it runs, in place of any before it: what these
    /// still say is not heard.
    pub fn reporter(&self) -> Reporter {
        let mut state = lock(&self.0.state);
        state.0 += 1;
        Reporter {
            metrics: self.clone(),
            turn: state.0,
        }
    }

    /// Whether it runs.
    pub fn state(&self) -> State {
        lock(&self.0.state).1
    }

    /// The last error and when it was.
    pub fn last_error(&self) -> Option<(std::time::SystemTime, String)> {
        lock(&self.0.last_error).clone()
    }

    /// Shows this queue's fill, or none any more.
    pub fn watch_queue(&self, queue: Option<Arc<dyn QueueGauge>>) {
        *lock(&self.0.queue) = queue;
    }

    /// Bytes, bound and batches of the component's queue, if it has one.
    pub fn queue(&self) -> Option<(usize, usize, usize)> {
        lock(&self.0.queue).as_ref().map(|queue| queue.fill())
    }

    fn labelled(&self, metric: Metric, label: &'static str, value: &str) -> Counter {
        let c = &*self.0;
        let mut counters = lock(&c.by_label);
        if let Some(counter) = counters.get(&(metric, value.into())) {
            return counter.clone();
        }
        let mut labels = if metric == Metric::RemoteWriteRequests {
            vec![Label::new("name", c.id.to_string())]
        } else {
            labels(&c.id, c.kind, &c.type_name)
        };
        labels.push(Label::new(label, value.to_string()));
        let counter = c.recording.counter(metric, labels);
        counters.insert((metric, value.into()), counter.clone());
        counter
    }
}

/// Says whether a component runs.
#[derive(Debug)]
pub struct Reporter {
    metrics: ComponentMetrics,
    turn: u64,
}

impl Reporter {
    /// Says so, unless a successor has taken the component's place.
    pub fn set(&self, new: State) {
        let component = &self.metrics.0;
        let mut state = lock(&component.state);
        if state.0 != self.turn {
            return;
        }
        state.1 = new;
        if new == State::Restarting {
            component.restarts.increment(1);
        }
        component.up.set(f64::from(new == State::Running));
    }
}

impl Component {
    fn refresh(&self) {
        let Some((bytes, max, batches)) = lock(&self.queue).as_ref().map(|queue| queue.fill())
        else {
            return;
        };
        for (metric, value) in [
            (Metric::QueueBytes, bytes),
            (Metric::QueueMaxBytes, max),
            (Metric::QueueBatches, batches),
        ] {
            let labels = labels(&self.id, self.kind, &self.type_name);
            self.recording.gauge(metric, labels).set(value as f64);
        }
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        let identity = (self.kind, self.id.clone(), self.type_name.clone());
        let mut components = lock(&self.telemetry.shared.components);
        // Another may have taken its name since its last handle went.
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

impl std::hash::Hash for Metric {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u8(*self as u8);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn labels(id: &str, kind: Kind, type_name: &str) -> Vec<Label> {
    vec![
        Label::new("component_id", id.to_string()),
        Label::new("component_kind", kind.as_str()),
        Label::new("component_type", type_name.to_string()),
    ]
}
