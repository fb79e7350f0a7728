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

/// Exclusive or shareable resource that a component claims, so that conflicts are found before
/// anything starts.
#[allow(
    clippy::large_enum_variant,
    reason = "a component has a handful, for as long as a configuration is checked"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A path on a listening address, which sources may share.
    Route(Listen),
    /// A listening address that no other component may use.
    Address(SocketAddr),
    /// A folder that the component fills.
    Folder(PathBuf),
    /// A file that the component writes.
    File(PathBuf),
}

/// A source's configuration.
#[typetag::deserialize]
pub trait SourceConfig: Debug + Send + Sync {
    /// The plane that the source sends in, and how to build the source there.
    fn port(&self) -> SourcePort<'_>;

    /// Addresses, folders and files that the source claims.
    fn resources(&self) -> Vec<Resource> {
        Vec::new()
    }

    /// Whether its callers are tenants that do not trust each other.
    fn callers_are_tenants(&self) -> bool {
        false
    }

    /// Size of the largest request that the source accepts; `None` if it accepts no requests.
    fn largest_request(&self) -> Option<Sizes> {
        None
    }

    /// Files that are read when the source is built. A change of their content rebuilds it.
    fn files(&self) -> Vec<&Path> {
        Vec::new()
    }

    /// Reports every problem that deserialization cannot see.
    fn validate(&self, problems: &mut Problems);
}

/// A transform's configuration.
#[typetag::deserialize]
pub trait TransformConfig: Debug + Send + Sync {
    /// The planes that the transform works in, and how to build it there.
    fn ports(&self) -> TransformPorts<'_>;

    /// Named outputs, `id.name` in `inputs`; empty if the transform has only the output `id`.
    fn outputs(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether what passes is confined to the tenant of its caller.
    fn confines(&self) -> bool {
        false
    }

    /// Files that are read when the transform is built. A change of their content rebuilds it.
    fn files(&self) -> Vec<&Path> {
        Vec::new()
    }

    /// Reports every problem that deserialization cannot see.
    fn validate(&self, problems: &mut Problems);
}

/// A sink's configuration.
#[typetag::deserialize]
pub trait SinkConfig: Debug + Send + Sync {
    /// The plane that the sink takes from, and how to build the sink there.
    fn port(&self) -> SinkPort<'_>;

    /// Addresses, folders and files that the sink claims.
    fn resources(&self) -> Vec<Resource> {
        Vec::new()
    }

    /// Files that are read when the sink is built. A change of their content rebuilds it.
    fn files(&self) -> Vec<&Path> {
        Vec::new()
    }

    /// Reports every problem that deserialization cannot see.
    fn validate(&self, problems: &mut Problems);
}

/// Shared services of the process that a component is built with.
#[derive(Clone)]
pub struct BuildContext {
    /// The component's name.
    pub id: Arc<str>,
    /// The listeners of the process.
    pub listeners: Listeners,
    /// The dead letters of all sinks.
    pub dead_letters: Stores,
    /// Account that limits the memory of all requests of the process.
    pub memory: Budget,
    /// The providers of targets.
    pub discovery: Handles,
    /// State that components of one type share.
    pub shared: Shared,
    /// Reports of rulers about the rules that they received.
    pub reports: Reports,
    /// Decides which callers are let in, where access goes by tenant.
    pub access: Gate,
    /// The component's metrics.
    pub metrics: ComponentMetrics,
    /// The metrics of the process.
    pub telemetry: Telemetry,
}

/// Description of a component type, for `list`, `generate` and the reference pages.
pub struct ComponentInfo {
    /// Source, transform or sink.
    pub kind: Kind,
    /// Value of the key `type`.
    pub name: &'static str,
    /// Purpose of the component, in one line.
    pub summary: &'static str,
    /// Keys, in the order of the reference page.
    pub keys: &'static [Entry],
}

impl ComponentInfo {
    /// Keys by their full names.
    pub fn keys(&self) -> Vec<Listed> {
        list(self.keys)
    }
}

inventory::collect!(ComponentInfo);
