//! What a component is: a config that validates, builds and runs in three separate phases.
//!
//! - **validate** is pure: it reports every problem that it finds, each at a key;
//! - **build** may fail: it binds, opens and reads, but starts nothing, and dropping what it
//!   returned undoes it;
//! - **run** cannot fail to start.

use std::fmt::Debug;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use thiserror::Error;

use crate::config::Problems;
use crate::dead_letters::Stores;
use crate::http::{Listen, Listeners};
use crate::memory::{Budget, Sizes};
use crate::queue::QueueConfig;
use crate::signal::{Batch, Rejection, SeriesMut};
use crate::telemetry::{ComponentMetrics, Telemetry};
use crate::topology::{Input, Output, Shutdown};

/// A boxed future that can move between threads.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What an edge of the graph carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Batches of series.
    Metrics,
    /// An HTTP read request that awaits one response.
    Queries,
    /// The complete set of rule groups of all tenants.
    Rules,
}

/// The three kinds of components.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Has no inputs.
    Source,
    /// Has inputs and outputs.
    Transform,
    /// Has no outputs.
    Sink,
}

impl Kind {
    /// In metrics and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Transform => "transform",
            Self::Sink => "sink",
        }
    }

    /// The table of the configuration that holds such components.
    pub fn table(self) -> &'static str {
        match self {
            Self::Source => "sources",
            Self::Transform => "transforms",
            Self::Sink => "sinks",
        }
    }
}

/// What a component takes for itself, so that conflicts are found before anything starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A path on a listening address, which sources may share.
    Route(Listen),
    /// A listening address of its own.
    Address(SocketAddr),
}

/// A source's configuration.
#[typetag::deserialize]
pub trait SourceConfig: Debug + Send + Sync {
    /// What it sends.
    fn signal(&self) -> Signal {
        Signal::Metrics
    }

    /// What it takes for itself.
    fn resources(&self) -> Vec<Resource> {
        Vec::new()
    }

    /// The largest request that it takes, if it takes any.
    fn largest_request(&self) -> Option<Sizes> {
        None
    }

    /// The files that it reads when it is built. When what they hold changes, it is built anew.
    fn files(&self) -> Vec<&Path> {
        Vec::new()
    }

    /// Reports every problem that deserialization cannot see.
    fn validate(&self, problems: &mut Problems);

    /// Makes the source; starts nothing.
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Source>, BuildError>;
}

/// A transform's configuration.
#[typetag::deserialize]
pub trait TransformConfig: Debug + Send + Sync {
    /// The signals that it can transform.
    fn signals(&self) -> &'static [Signal] {
        &[Signal::Metrics]
    }

    /// Its named outputs, `id.name` in `inputs`; empty when it has the one output `id`.
    fn outputs(&self) -> Vec<String> {
        Vec::new()
    }

    /// The files that it reads when it is built. When what they hold changes, it is built anew.
    fn files(&self) -> Vec<&Path> {
        Vec::new()
    }

    /// Reports every problem that deserialization cannot see.
    fn validate(&self, problems: &mut Problems);

    /// Makes the transform.
    fn build(&self, cx: &BuildContext) -> Result<Arc<dyn Transform>, BuildError>;
}

/// A sink's configuration.
#[typetag::deserialize]
pub trait SinkConfig: Debug + Send + Sync {
    /// What it takes.
    fn signal(&self) -> Signal {
        Signal::Metrics
    }

    /// Whether a batch is acknowledged to its sender only once this sink has it.
    fn required(&self) -> bool {
        false
    }

    /// The queue in front of it.
    fn queue(&self) -> QueueConfig {
        QueueConfig::default()
    }

    /// The form in which it takes batches to begin with.
    fn form(&self) -> Form;

    /// Whether batches have to be decoded for it, so that their series are valid and their labels
    /// sorted, though it does not read them.
    fn checks_series(&self) -> bool {
        false
    }

    /// What it takes for itself.
    fn resources(&self) -> Vec<Resource> {
        Vec::new()
    }

    /// The files that it reads when it is built. When what they hold changes, it is built anew.
    fn files(&self) -> Vec<&Path> {
        Vec::new()
    }

    /// Reports every problem that deserialization cannot see.
    fn validate(&self, problems: &mut Problems);

    /// A transform of the sink's own, applied before its queue.
    fn before(&self, _cx: &BuildContext) -> Result<Option<Arc<dyn Transform>>, BuildError> {
        Ok(None)
    }

    /// Makes the sink; starts nothing.
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Sink>, BuildError>;
}

/// How a sink takes its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Form {
    /// It reads series.
    Decoded,
    /// It sends bodies of remote write 1.0.
    V1,
    /// It sends bodies of remote write 2.0.
    V2,
    /// It sends bodies of the version in which the batch arrived.
    AsReceived,
}

/// A source, built.
pub trait Source: Send {
    /// Runs until `shutdown` says so or it can do no more.
    ///
    /// # Errors
    ///
    /// Fails when it cannot go on; it is then built and started again after a pause.
    fn run(self: Box<Self>, out: Output, shutdown: Shutdown) -> BoxFuture<Result<(), RunError>>;
}

/// A transform, built: synchronous, without I/O.
pub trait Transform: Debug + Send + Sync {
    /// Whether it reads labels, so that batches have to be decoded for it.
    fn reads_labels(&self) -> bool {
        true
    }

    /// What it does to a batch series by series, if that is all that it does and the batch goes to
    /// its only output. Neighbours that can say so share one walk over the batch, in which every
    /// series is still in the processor's cache for the next one. What it says of the batch as a
    /// whole, such as its tenant, it says here.
    ///
    /// # Errors
    ///
    /// Fails when the whole batch has to be refused to its sender.
    fn begin(&self, _batch: &mut Batch) -> Result<Option<Box<dyn Pass + '_>>, Rejection> {
        Ok(None)
    }

    /// Transforms a batch and emits what becomes of it, possibly nothing.
    ///
    /// # Errors
    ///
    /// Fails when the whole batch has to be refused to its sender.
    fn apply(&self, batch: Batch, out: &mut Emitter<'_>) -> Result<(), Rejection>;
}

/// A transform's walk over the series of one batch.
pub trait Pass {
    /// Edits a series; returns whether to keep it.
    fn series(&mut self, series: &mut SeriesMut<'_>) -> bool;

    /// Under which reason samples count of series that it does not keep.
    fn reason(&self) -> &'static str;
}

/// Where a transform puts its results.
pub struct Emitter<'a> {
    emit: &'a mut dyn FnMut(usize, Batch),
    dropped: &'a mut dyn FnMut(&'static str, u64),
}

impl<'a> Emitter<'a> {
    /// An emitter that hands batches, with the index of their output, and drops to these.
    pub fn new(
        emit: &'a mut dyn FnMut(usize, Batch),
        dropped: &'a mut dyn FnMut(&'static str, u64),
    ) -> Self {
        Self { emit, dropped }
    }

    /// Sends a batch to the transform's only output.
    pub fn emit(&mut self, batch: Batch) {
        (self.emit)(0, batch);
    }

    /// Sends a batch to the output at `index` in [`TransformConfig::outputs`].
    pub fn emit_to(&mut self, index: usize, batch: Batch) {
        (self.emit)(index, batch);
    }

    /// Counts samples that the transform dropped on purpose.
    pub fn dropped(&mut self, reason: &'static str, samples: u64) {
        (self.dropped)(reason, samples);
    }
}

/// A sink, built.
pub trait Sink: Send {
    /// Takes deliveries until `input` ends, then finishes what it has.
    ///
    /// # Errors
    ///
    /// Fails when it cannot go on; it is then built and started again after a pause.
    fn run(self: Box<Self>, input: Input, shutdown: Shutdown) -> BoxFuture<Result<(), RunError>>;
}

/// What components may use to build themselves.
pub struct BuildContext {
    /// The component's name.
    pub id: Arc<str>,
    /// The listeners of the process.
    pub listeners: Listeners,
    /// The dead letters of all sinks.
    pub dead_letters: Stores,
    /// What all requests of the process draw on.
    pub memory: Budget,
    /// The component's metrics.
    pub metrics: ComponentMetrics,
    /// The metrics of the process.
    pub telemetry: Telemetry,
}

/// Why a component cannot be built.
#[derive(Debug, Error)]
#[error("{what}: {reason}")]
pub struct BuildError {
    /// The key, file or address concerned.
    pub what: String,
    /// What is wrong with it.
    pub reason: String,
}

impl BuildError {
    /// A build error.
    pub fn new(what: impl ToString, reason: impl ToString) -> Self {
        Self {
            what: what.to_string(),
            reason: reason.to_string(),
        }
    }
}

/// Why a component ended.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct RunError(pub String);

/// What `list`, `generate` and the reference pages know of a component type.
pub struct ComponentInfo {
    /// Its kind.
    pub kind: Kind,
    /// Its `type`.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// Its keys, in the order in which they are best read.
    pub keys: &'static [&'static [Key]],
}

inventory::collect!(ComponentInfo);

/// A key of a component.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its path in the component's table, such as `tls.ca_file`.
    pub name: &'static str,
    /// Its default, or what stands in for it.
    pub default: Default,
    /// What it does, with unit and bounds, in one sentence.
    pub doc: &'static str,
}

/// What holds when a key is absent. The text is TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// The key must be given; an example.
    Required(&'static str),
    /// This value.
    Value(&'static str),
    /// Nothing; an example.
    Unset(&'static str),
}

impl Key {
    /// A key that must be given.
    pub const fn required(name: &'static str, example: &'static str, doc: &'static str) -> Self {
        Self {
            name,
            default: Default::Required(example),
            doc,
        }
    }

    /// A key with a default.
    pub const fn value(name: &'static str, default: &'static str, doc: &'static str) -> Self {
        Self {
            name,
            default: Default::Value(default),
            doc,
        }
    }

    /// A key that may be absent.
    pub const fn unset(name: &'static str, example: &'static str, doc: &'static str) -> Self {
        Self {
            name,
            default: Default::Unset(example),
            doc,
        }
    }
}
