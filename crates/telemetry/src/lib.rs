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
