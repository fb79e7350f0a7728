//! A plane per signal: what flows between components, and what carries it.
//!
//! - [`metrics`]: batches; a stage of transforms, an edge with a queue in front of every sink.
//! - [`queries`]: a request that awaits one answer; nothing queues.
//! - [`rules`]: the complete rule set of a source, sent again when it changes; a sink sees the
//!   newest.
//!
//! Building, supervision, reload and shutdown are written once, over [`Plane`]. A component's type
//! says to which planes it belongs ([`crate::component`]), so that a source of queries cannot be
//! handed an output for batches.

pub mod metrics;
pub mod queries;
pub mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use metrifold_access::Gate;
use metrifold_base::{BoxFuture, RunError, Shutdown};
use metrifold_model::Signal;
use metrifold_model::ledger::{Reason, Tally};
use metrifold_telemetry::ComponentMetrics;

use crate::memory::Budget;

/// What differs between the signals.
pub trait Plane: Debug + Sized + Send + Sync + 'static {
    /// What flows in it.
    const SIGNAL: Signal;
    /// A transform, built.
    type Transform: ?Sized + Debug + Send + Sync + 'static;
    /// The edge into a sink: a queue, a slot for queries, or a watch.
    type Edge: Edge + Debug;
    /// A source's end of its stage.
    type Output: Clone + Send + Sync + 'static;
    /// All that lies behind a source: built whole, replaced whole.
    type Stage: Send + Sync + 'static;

    /// A stage of this wiring behind a source.
    fn stage(wiring: Wiring<Self>, source: SourceContext<'_>) -> Self::Stage;

    /// The end of a stage for the source named `id`, which counts in `metrics`.
    fn output(id: &Arc<str>, stage: Arc<Self::Stage>, metrics: ComponentMetrics) -> Self::Output;

    /// The same end for the source's successor, which counts in `metrics`.
    fn succeed(output: &Self::Output, metrics: ComponentMetrics) -> Self::Output;

    /// Has everything that is sent from now on go through another stage.
    fn redirect(output: &Self::Output, stage: Arc<Self::Stage>);
}

/// What a stage has to know of the source before it.
pub struct SourceContext<'a> {
    /// The account that its requests draw on.
    pub memory: &'a Budget,
    /// Whoever let its callers in, and knows the limits of their tenants.
    pub access: &'a Gate,
    /// Its meters.
    pub metrics: ComponentMetrics,
}

/// What leads into a sink, as the engine sees it. When a sink is replaced, its successor has an
/// edge of its own, which takes over from the predecessor's.
pub trait Edge: Drain + Sized + 'static {
    /// What the sink is run with.
    type Input: Send + 'static;

    /// The sink's end.
    fn input(self: &Arc<Self>) -> Self::Input;

    /// The meters of the sink.
    fn metrics(&self) -> &ComponentMetrics;

    /// Makes the sink at this edge the one that is sent to.
    fn take_over(&self, predecessor: Option<&Self>);

    /// Says which sources lead here from now on, before any of them sends.
    fn wired(&self, sources: &BTreeSet<Arc<str>>);
}

/// The end of what leads into a sink.
pub trait Drain: Send + Sync {
    /// Takes no more.
    fn close(&self, ending: Ending);

    /// Puts what it holds where it outlives the process, as far as it can until `deadline`.
    fn store(self: Arc<Self>, deadline: Instant) -> BoxFuture<()>;

    /// The same, once nothing more comes: a sink that fails is to try no more, if all is stored.
    fn secure(self: Arc<Self>, deadline: Instant) -> BoxFuture<()>;

    /// What would be lost if it ended now, what is being sent included.
    fn left(&self) -> Tally;

    /// Gives up what is left.
    fn abandon(&self);

    /// What has been dropped so far, by reason.
    fn dropped(&self) -> BTreeMap<Reason, Tally> {
        BTreeMap::new()
    }

    /// Lets go of files.
    fn shut(self: Arc<Self>) -> BoxFuture<()>;
}

/// Why an edge takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The process ends.
    Shutdown,
    /// The configuration has the sink no more.
    Removed,
}

/// A source of a plane, built.
pub trait Source<P: Plane>: Send {
    /// Runs until `shutdown` says so or it can do no more.
    ///
    /// # Errors
    ///
    /// Fails when it cannot go on; it is then built and started again after a pause.
    fn run(self: Box<Self>, out: P::Output, shutdown: Shutdown) -> BoxFuture<Result<(), RunError>>;
}

/// A sink of a plane, built.
pub trait Sink<P: Plane>: Send {
    /// Takes what comes until `input` ends or `shutdown` says so, then finishes what it has.
    ///
    /// # Errors
    ///
    /// Fails when it cannot go on; it is then built and started again after a pause.
    fn run(
        self: Box<Self>,
        input: <P::Edge as Edge>::Input,
        shutdown: Shutdown,
    ) -> BoxFuture<Result<(), RunError>>;
}

/// How a source, transforms and sinks are connected.
#[derive(Debug)]
pub struct Wiring<P: Plane> {
    /// Where the source's output leads.
    pub entry: Vec<Target>,
    /// The transforms.
    pub nodes: Vec<Node<P>>,
    /// What leads into the sinks.
    pub edges: Vec<Arc<P::Edge>>,
    /// Tells, by going away, that nobody sends through it any more.
    pub in_use: watch::Receiver<()>,
}

/// Where something goes next: an index into the wiring's nodes or edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A transform.
    Node(usize),
    /// A sink.
    Edge(usize),
}

/// A transform in its place.
#[derive(Debug)]
pub struct Node<P: Plane> {
    /// The transform.
    pub transform: Arc<P::Transform>,
    /// Its meters.
    pub metrics: ComponentMetrics,
    /// Where each of its outputs leads.
    pub outputs: Vec<Vec<Target>>,
}
