//! What a component is: a config that validates, builds and runs in three separate phases.
//!
//! - **validate** is pure: it reports every problem that it finds, each at a key;
//! - **build** may fail: it binds, opens and reads, but starts nothing, and dropping what it
//!   returned undoes it;
//! - **run** cannot fail to start.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use metrifold_base::keys::{Entry, Listed, list};
use metrifold_base::{BuildError, Problems};
use metrifold_http::{Listen, Listeners};
use metrifold_model::{Kind, Signal};
use metrifold_queue::QueueConfig;
use metrifold_telemetry::{ComponentMetrics, Telemetry};

use crate::dead_letters::Stores;
use crate::memory::{Budget, Sizes};
use crate::planes::metrics::{Form, Sink, Source, Transform};

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

/// What `list`, `generate` and the reference pages know of a component type.
pub struct ComponentInfo {
    /// Its kind.
    pub kind: Kind,
    /// Its `type`.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// Its keys, in the order in which they are best read.
    pub keys: &'static [Entry],
}

impl ComponentInfo {
    /// Its keys by their full names.
    pub fn keys(&self) -> Vec<Listed> {
        list(self.keys)
    }
}

inventory::collect!(ComponentInfo);
