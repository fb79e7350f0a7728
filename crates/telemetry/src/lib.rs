//! Metrics of Metrifold itself, and the state of each component that the topology API shows.
//!
//! Names follow Vector's component specification under the prefix `metrifold_`. Handles are made
//! when a component is built and held; values are added once per batch. There is no global
//! recorder: a process can run several topologies, as the tests do.
#![warn(unreachable_pub)]
// Tests may use all of these.
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

mod component;
mod flow;
mod metric;
pub mod process;
mod queries;
mod queue;
mod recording;
mod state;
mod trouble;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use metrics::{Counter, Gauge, Label};

use metrifold_base::locked as lock;
use metrifold_model::Kind;

use component::Component;
use recording::Recording;

pub use component::{ComponentMetrics, Details, LEDGER_TENANTS, Reporter, SinkLedger};
pub use flow::{Flow, FlowReading};
pub use metric::{Described, Metric, Scope, Type};
pub use queries::{QueryMeters, UnderWay};
pub use queue::{DiskReading, QueueGauge};
pub use state::{State, StateChange};
pub use trouble::LastError;

/// The recorder of one topology, and its components' meters.
#[derive(Clone)]
pub struct Telemetry {
    shared: Arc<Shared>,
}

struct Shared {
    /// Metrics of the process itself.
    own: Recording,
    /// Components with at least one handle; a component's series go with its last handle.
    components: Mutex<BTreeMap<Identity, Weak<Component>>>,
    /// Meters of what is no component; their series go with the last handle as well.
    others: Mutex<Vec<Weak<Recording>>>,
    /// Number of tenants per sink that have a line of their own.
    ledger_tenants: AtomicUsize,
    /// Callback for state changes.
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
    /// A new recorder with no components.
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

    /// Calls `tell` on every change of a component's state. `tell` must not block. Only the first
    /// call has an effect.
    pub fn watch_states(&self, tell: impl Fn(StateChange) + Send + Sync + 'static) {
        // An error means that a watcher is set already.
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

    /// Meters for what is no component; their series leave the page with the last handle.
    pub fn meters(&self) -> Meters {
        let meters = Meters(Arc::new(Recording::new()));
        let mut others = lock(&self.shared.others);
        others.retain(|other| other.strong_count() > 0);
        others.push(Arc::downgrade(&meters.0));
        meters
    }

    /// Components with live handles. The returned handles keep them alive, so that no component is
    /// dropped while the list is locked.
    fn components(&self) -> Vec<Arc<Component>> {
        let components = lock(&self.shared.components);
        components.values().filter_map(Weak::upgrade).collect()
    }

    /// The meters of a component: as long as a handle exists, every call returns the same ones.
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

    /// Sets the number of tenants per sink that have a line of their own. A tenant keeps the line
    /// that it has.
    pub fn set_ledger_tenants(&self, max: usize) {
        self.shared.ledger_tenants.store(max, Ordering::Relaxed);
    }

    /// Renders the metrics page.
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

    /// The ledgers of all running sinks.
    pub fn ledgers(&self) -> Vec<SinkLedger> {
        let components = self.components();
        let ledgers = components.iter().filter_map(|it| it.ledger());
        ledgers.collect()
    }

    /// Drains histograms, and takes the readings that rates are computed from and those of the queues.
    /// Must be called every [`UPKEEP`].
    pub fn upkeep(&self) {
        self.shared.own.upkeep();
        for component in self.components() {
            component.upkeep();
        }
    }
}

/// Interval of calls to [`Telemetry::upkeep`].
pub const UPKEEP: Duration = Duration::from_secs(5);

/// Meters of something that is no component. Clones share them.
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
