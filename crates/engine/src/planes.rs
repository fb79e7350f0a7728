//! One plane per signal: the items that flow between components, and the edges that carry them.
//!
//! - [`metrics`]: batches; a stage of transforms, an edge with a queue in front of every sink.
//! - [`queries`]: a request that awaits one answer; nothing queues.
//! - [`rules`]: the complete rule set of a source, sent again when it changes; a sink sees the
//!   newest.
//!
//! Building, supervision, reload and shutdown are written once, over [`Plane`]. The type of a
//! component's port names its planes ([`crate::component`]), so that a source of queries cannot be
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

/// Types and constructors of one signal.
pub trait Plane: Debug + Sized + Send + Sync + 'static {
    /// The signal that flows in this plane.
    const SIGNAL: Signal;
    /// A built transform.
    type Transform: ?Sized + Debug + Send + Sync + 'static;
    /// The edge into a sink: a queue, a slot for queries, or a watch.
    type Edge: Edge + Debug;
    /// Handle with which a source sends into its stage.
    type Output: Clone + Send + Sync + 'static;
    /// Everything between a source and the edges of its sinks. Built and replaced as a whole.
    type Stage: Send + Sync + 'static;

    /// A stage of this wiring behind a source.
    fn stage(wiring: Wiring<Self>, source: SourceContext<'_>) -> Self::Stage;

    /// The output of the source `id`, which counts in `metrics`.
    fn output(id: &Arc<str>, stage: Arc<Self::Stage>, metrics: ComponentMetrics) -> Self::Output;

    /// The output of the source's successor: it leads into the same stage and counts in `metrics`.
    fn succeed(output: &Self::Output, metrics: ComponentMetrics) -> Self::Output;

    /// Leads everything that is sent from now on into another stage.
    fn redirect(output: &Self::Output, stage: Arc<Self::Stage>);
}

/// Properties of a source that its stage is built with.
pub struct SourceContext<'a> {
    /// Account that the source's requests draw on.
    pub memory: &'a Budget,
    /// Gate that authenticated the source's callers; it knows the limits of their tenants.
    pub access: &'a Gate,
    /// Metrics of the source.
    pub metrics: ComponentMetrics,
}

/// The way into a sink, as the engine sees it. When a sink is replaced, its successor has an edge
/// of its own, which takes over from the predecessor's.
pub trait Edge: Drain + Sized + 'static {
    /// The sink's end of the edge, handed to the sink when it is run.
    type Input: Send + 'static;

    /// Makes the sink's end of the edge.
    fn input(self: &Arc<Self>) -> Self::Input;

    /// Metrics of the sink.
    fn metrics(&self) -> &ComponentMetrics;

    /// Makes this edge's sink the receiver. The items that the predecessor has not delivered move
    /// here.
    fn take_over(&self, predecessor: Option<&Self>);

    /// Sets the sources that lead here from now on, before any of them sends.
    fn wired(&self, sources: &BTreeSet<Arc<str>>);
}

/// An edge while it drains and ends.
pub trait Drain: Send + Sync {
    /// Accepts no more items.
    fn close(&self, ending: Ending);

    /// Writes the edge's content to disk, as far as possible until `deadline`, so that it outlives
    /// the process.
    fn store(self: Arc<Self>, deadline: Instant) -> BoxFuture<()>;

    /// Writes the edge's content to disk once nothing more arrives. If all of it is stored, a sink
    /// whose endpoint fails stops retrying.
    fn secure(self: Arc<Self>, deadline: Instant) -> BoxFuture<()>;

    /// Batches, samples and bytes that would be lost if the edge ended now, in-flight ones
    /// included.
    fn left(&self) -> Tally;

    /// Drops everything that is left.
    fn abandon(&self);

    /// Items that have been dropped so far, by reason.
    fn dropped(&self) -> BTreeMap<Reason, Tally> {
        BTreeMap::new()
    }

    /// Closes the edge's files.
    fn shut(self: Arc<Self>) -> BoxFuture<()>;
}

/// Reason why an edge is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The process ends.
    Shutdown,
    /// The new configuration does not have the sink.
    Removed,
}

/// A built source of a plane.
pub trait Source<P: Plane>: Send {
    /// Runs until `shutdown` is set or the source cannot go on.
    ///
    /// # Errors
    ///
    /// Fails when the source cannot go on; it is then built and started again after a pause.
    fn run(self: Box<Self>, out: P::Output, shutdown: Shutdown) -> BoxFuture<Result<(), RunError>>;
}

/// A built sink of a plane.
pub trait Sink<P: Plane>: Send {
    /// Takes items until `input` ends or `shutdown` is set, then finishes those that it has.
    ///
    /// # Errors
    ///
    /// Fails when the sink cannot go on; it is then built and started again after a pause.
    fn run(
        self: Box<Self>,
        input: <P::Edge as Edge>::Input,
        shutdown: Shutdown,
    ) -> BoxFuture<Result<(), RunError>>;
}

/// Connections between a source, transforms and sinks.
#[derive(Debug)]
pub struct Wiring<P: Plane> {
    /// First targets of the source's output.
    pub entry: Vec<Target>,
    /// The transforms.
    pub nodes: Vec<Node<P>>,
    /// The edges into the sinks.
    pub edges: Vec<Arc<P::Edge>>,
    /// Closes when the wiring is dropped: nobody sends through it any more.
    pub in_use: watch::Receiver<()>,
}

/// The next step of an item: an index into the nodes or the edges of the wiring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A transform.
    Node(usize),
    /// A sink.
    Edge(usize),
}

/// A transform and its outputs within the wiring.
#[derive(Debug)]
pub struct Node<P: Plane> {
    /// The transform.
    pub transform: Arc<P::Transform>,
    /// Metrics of the transform.
    pub metrics: ComponentMetrics,
    /// Targets of each output.
    pub outputs: Vec<Vec<Target>>,
}
