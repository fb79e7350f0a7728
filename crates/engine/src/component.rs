//! What a component is: a config that validates, builds and runs in three separate phases.
//!
//! - **validate** is pure: it reports every problem that it finds, each at a key;
//! - **build** may fail: it binds, opens and reads, but starts nothing, and dropping what it
//!   returned undoes it;
//! - **run** cannot fail to start.

mod port;

use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use metrifold_access::Gate;
use metrifold_base::keys::{Entry, Listed, list};
use metrifold_base::{Problems, Shared};
use metrifold_discovery::Handles;
use metrifold_http::{Listen, Listeners};
use metrifold_model::Kind;
use metrifold_telemetry::{ComponentMetrics, Telemetry};

use crate::dead_letters::Stores;
use crate::memory::{Budget, Sizes};
use crate::planes::rules::Reports;

pub(crate) use port::InputOf;
pub use port::{
    BuildSink, BuildSource, BuildTransform, Buildable, MetricsSink, SinkPort, SourcePort,
    TransformPorts,
};

/// What a component takes for itself, so that conflicts are found before anything starts.
#[allow(
    clippy::large_enum_variant,
    reason = "a component has a handful, for as long as a configuration is checked"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A path on a listening address, which sources may share.
    Route(Listen),
    /// A listening address of its own.
    Address(SocketAddr),
    /// A folder that it fills.
    Folder(PathBuf),
    /// A file that it writes.
    File(PathBuf),
}

/// A source's configuration.
#[typetag::deserialize]
pub trait SourceConfig: Debug + Send + Sync {
    /// The plane that it sends in, and how it is built there.
    fn port(&self) -> SourcePort<'_>;

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
}

/// A transform's configuration.
#[typetag::deserialize]
pub trait TransformConfig: Debug + Send + Sync {
    /// The planes that it works in, and how it is built there.
    fn ports(&self) -> TransformPorts<'_>;

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
}

/// A sink's configuration.
#[typetag::deserialize]
pub trait SinkConfig: Debug + Send + Sync {
    /// The plane that it takes from, and how it is built there.
    fn port(&self) -> SinkPort<'_>;

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
}

/// What components may use to build themselves.
#[derive(Clone)]
pub struct BuildContext {
    /// The component's name.
    pub id: Arc<str>,
    /// The listeners of the process.
    pub listeners: Listeners,
    /// The dead letters of all sinks.
    pub dead_letters: Stores,
    /// What all requests of the process draw on.
    pub memory: Budget,
    /// The providers of targets.
    pub discovery: Handles,
    /// What components of one type share.
    pub shared: Shared,
    /// What rulers say of the rules that they were given.
    pub reports: Reports,
    /// Who is let in where tenants decide.
    pub access: Gate,
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
