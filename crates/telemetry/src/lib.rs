//! Metrics of Metrifold itself, and what the topology API tells of each component.
//!
//! Names follow Vector's component specification under the prefix `metrifold_`. Handles are made
//! when a component is built and held; values are added once per batch. There is no global
//! recorder: a process can run several topologies, as the tests do.
#![warn(unreachable_pub)]
// Tests may do all of this.
#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::expect_used,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::unwrap_used,
    )
)]

mod ledger;
mod metric;
pub mod process;
mod queries;
mod recording;
mod trouble;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label};

use metrifold_base::locked as lock;
use metrifold_model::ledger::{Ledger, Reason, Tally};
use metrifold_model::{Counts, Kind};

use ledger::Shown;
use recording::Recording;
use trouble::Trouble;

pub use ledger::{LEDGER_TENANTS, SinkLedger};
pub use metric::{Described, Metric, Scope, Type};
pub use queries::{QueryMeters, UnderWay};
pub use trouble::LastError;

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
    /// Of what is no component, and goes from the page likewise.
    others: Mutex<Vec<Weak<Recording>>>,
    /// How many tenants of a sink have a line of their own.
    ledger_tenants: AtomicUsize,
    /// Who is told of changes of states.
    states: OnceLock<WatchStates>,
}

type WatchStates = Box<dyn Fn(StateChange) + Send + Sync>;

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
                others: Mutex::default(),
                ledger_tenants: AtomicUsize::new(LEDGER_TENANTS),
                states: OnceLock::new(),
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

    /// Has every change of a component's state told to `tell`, which must not wait. Only the first
    /// call has an effect.
    pub fn watch_states(&self, tell: impl Fn(StateChange) + Send + Sync + 'static) {
        // An error says that somebody watches already.
        let _ = self.shared.states.set(Box::new(tell));
    }

    /// A gauge of the process.
    pub fn gauge(&self, metric: Metric, labels: Vec<Label>) -> Gauge {
        self.shared.own.gauge(metric, labels)
    }

    /// A counter of the process.
    pub fn counter(&self, metric: Metric, labels: Vec<Label>) -> Counter {
        self.shared.own.counter(metric, labels)
    }

    /// Meters of something that is no component: they go from the page with their last handle.
    pub fn meters(&self) -> Meters {
        let meters = Meters(Arc::new(Recording::new()));
        let mut others = lock(&self.shared.others);
        others.retain(|other| other.strong_count() > 0);
        others.push(Arc::downgrade(&meters.0));
        meters
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

    /// Says how many tenants of a sink have a line of their own. Those that have one keep it.
    pub fn set_ledger_tenants(&self, max: usize) {
        self.shared.ledger_tenants.store(max, Ordering::Relaxed);
    }

    /// The metrics page.
    pub fn render(&self) -> String {
        let components = self.components();
        let tenants = self.shared.ledger_tenants.load(Ordering::Relaxed);
        for component in &components {
            component.refresh();
            component.refresh_ledger(tenants);
        }
        let recordings = components.iter().map(|component| &component.recording);
        let others: Vec<_> = {
            let others = lock(&self.shared.others);
            others.iter().filter_map(Weak::upgrade).collect()
        };
        let recordings = [&self.shared.own].into_iter().chain(recordings);
        let recordings = recordings.chain(others.iter().map(|other| &**other));
        recording::page(recordings, &process::readings())
    }

    /// What came to each sink and what became of it.
    pub fn ledgers(&self) -> Vec<SinkLedger> {
        let components = self.components();
        let ledgers = components.iter().filter_map(|it| it.ledger());
        ledgers.collect()
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

/// Meters of something that is no component. Clones are the same meters.
#[derive(Clone)]
pub struct Meters(Arc<Recording>);

impl Meters {
    /// A gauge with these labels.
    pub fn gauge(&self, metric: Metric, labels: Vec<Label>) -> Gauge {
        self.0.gauge(metric, labels)
    }

    /// A counter with these labels.
    pub fn counter(&self, metric: Metric, labels: Vec<Label>) -> Counter {
        self.0.counter(metric, labels)
    }
}

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
    /// Made when they are asked for, so that only components of queries show them.
    queries: OnceLock<QueryMeters>,
    by_label: Mutex<HashMap<(Metric, Box<str>), Counter, foldhash::fast::RandomState>>,
    /// Whose turn it is to say so, and what was said.
    state: Mutex<(u64, State)>,
    trouble: Trouble,
    queue: Mutex<Option<Arc<dyn QueueGauge>>>,
    /// What of its ledger is on the page.
    shown: Mutex<Shown>,
}

/// What a queue tells of itself.
pub trait QueueGauge: Send + Sync {
    /// Bytes, bound in bytes, batches waiting.
    fn fill(&self) -> (usize, usize, usize);

    /// What is on disk, if it has a queue there.
    fn disk(&self) -> Option<DiskReading> {
        None
    }

    /// What came to the sink and what became of it.
    fn ledger(&self) -> Ledger;

    /// How long it takes to deliver so many bytes, if so many are sent; none if nothing goes.
    fn drain_seconds(&self, bytes: u64, sent_per_second: f64) -> Option<f64>;
}

/// What a queue on disk tells of itself.
#[derive(Clone, Debug)]
pub struct DiskReading {
    /// Samples that are queued, of batches that were decoded.
    pub samples: u64,
    /// Batches that are queued.
    pub batches: u64,
    /// What the files take.
    pub bytes: u64,
    /// What they may take.
    pub max_bytes: u64,
    /// How long ago the oldest batch was accepted.
    pub oldest_seconds: f64,
    /// How long draining it takes at the present rate; none if nothing goes.
    pub drain_seconds: Option<f64>,
    /// How often the disk was asked to make something durable.
    pub fsyncs: u64,
    /// Batches that were lost to damage.
    pub corrupt: u64,
    /// What was dropped on disk since the last reading, by reason.
    pub dropped: Vec<(Reason, Tally)>,
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

/// A component whose state has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// Its name.
    pub id: Arc<str>,
    /// Its kind.
    pub kind: Kind,
    /// Its `type`.
    pub type_name: Arc<str>,
    /// The state from now on.
    pub state: State,
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
            queries: OnceLock::new(),
            by_label: Mutex::default(),
            state: Mutex::new((0, State::Built)),
            trouble: Trouble::default(),
            queue: Mutex::new(None),
            shown: Mutex::default(),
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

    /// Counts exemplars that went no further, though the samples of their batch did.
    pub fn discarded_exemplars(&self, reason: &str, exemplars: u64) {
        if exemplars > 0 {
            self.labelled(Metric::DiscardedExemplars, "reason", reason)
                .increment(exemplars);
        }
    }

    /// Counts metadata of metric families that went no further.
    pub fn discarded_metadata(&self, reason: &str, families: u64) {
        if families > 0 {
            self.labelled(Metric::DiscardedMetadata, "reason", reason)
                .increment(families);
        }
    }

    /// Counts an error and keeps its text for the topology API.
    pub fn error(&self, kind: &str, text: impl ToString) {
        self.labelled(Metric::Errors, "error_type", kind)
            .increment(1);
        self.0.trouble.happened(text.to_string());
    }

    /// Counts an attempt that has failed as an error. It is over with the next that succeeds; until
    /// then the far end is taken to be failing.
    pub fn failed(&self, kind: &str, text: impl ToString) {
        self.labelled(Metric::Errors, "error_type", kind)
            .increment(1);
        self.0.trouble.failed(text.to_string());
    }

    /// Notes that an attempt has succeeded.
    pub fn succeeded(&self) {
        self.0.trouble.succeeded();
    }

    /// For how long the far end has been failing; none if it is not.
    pub fn failing_for(&self) -> Option<Duration> {
        self.0.trouble.failing_for()
    }

    /// What waits in the component's queue or is being sent; none without a queue.
    pub fn waiting(&self) -> Option<Tally> {
        let queue = lock(&self.0.queue).clone()?;
        Some(queue.ledger().total.queued)
    }

    /// Counts an answer to a sender.
    pub fn answered(&self, status: http::StatusCode) {
        self.labelled(Metric::SourceRequests, "code", status.as_str())
            .increment(1);
    }

    /// Counts a request that a source refused since memory is short.
    pub fn refused(&self, reason: &str) {
        self.labelled(Metric::RefusedRequests, "reason", reason)
            .increment(1);
    }

    /// Counts a request to an endpoint by the code of its answer, of which there must be few.
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

    /// Counts what became of a query: the status of its answer, or a word in angle brackets.
    pub fn query_answered(&self, code: &str) {
        self.labelled(Metric::Queries, "code", code).increment(1);
    }

    /// Counts a rule set that was passed on, and shows of how many tenants it is.
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

    /// Shows how many requests may be under way at once.
    pub fn connections(&self) -> Gauge {
        let c = &*self.0;
        let labels = labels(&c.id, c.kind, &c.type_name);
        c.recording.gauge(Metric::Connections, labels)
    }

    /// Shows how many dead letters there are, and what they take on disk.
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

    /// Counts dead letters that are not kept, or no more.
    pub fn dead_letters_dropped(&self, reason: &str, letters: usize) {
        if letters > 0 {
            self.labelled(Metric::DeadLettersDropped, "reason", reason)
                .increment(letters as u64);
        }
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

    /// The last error, if there was one.
    pub fn last_error(&self) -> Option<LastError> {
        self.0.trouble.last()
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
        self.0.labelled(metric, label, value)
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
        match new {
            State::Restarting => component.restarts.increment(1),
            State::Running => component.trouble.succeeded(),
            State::Built | State::Ended => {}
        }
        component.up.set(f64::from(new == State::Running));
        // With the lock held, so that changes are told in their order.
        if let Some(tell) = component.telemetry.shared.states.get() {
            tell(StateChange {
                id: component.id.clone(),
                kind: component.kind,
                type_name: component.type_name.clone(),
                state: new,
            });
        }
    }
}

impl Component {
    fn refresh(&self) {
        let Some(queue) = lock(&self.queue).clone() else {
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
        if let Some(counter) = counters.get(&(metric, value.into())) {
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
        counters.insert((metric, value.into()), counter.clone());
        counter
    }

    /// Whether there is a rate at which so many batches go: what went before the far end began to
    /// fail says nothing of them.
    fn drains(&self, batches: u64) -> bool {
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

/// What Observatorium's API calls the way that remote write takes through it. Its dashboards and
/// tests ask for it.
const PROXY: &str = "metricsv1-remotewrite";

fn labels(id: &str, kind: Kind, type_name: &str) -> Vec<Label> {
    vec![
        Label::new("component_id", id.to_string()),
        Label::new("component_kind", kind.as_str()),
        Label::new("component_type", type_name.to_string()),
    ]
}
