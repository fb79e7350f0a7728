//! The configuration: from TOML text to a validated graph, with every error at its place.
//!
//! Text becomes tables with spans (`source`, `document`), tables become components (`decode`,
//! `components`), components become a graph (`graph`, `resources`). Each step goes on after an
//! error as long as what it finds then is not a consequence of that error.

mod canonical;
mod components;
mod decode;
mod diagnostic;
mod document;
mod environment;
mod fingerprint;
mod graph;
mod load;
mod memory;
mod mutate;
mod path;
mod resources;
mod secrets;
mod source;
mod suggest;
mod types;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use metrifold_base::Secret;
use metrifold_telemetry::LEDGER_TENANTS;

use crate::component::{SinkConfig, SourceConfig, TransformConfig};
use crate::memory::Bounds;

pub use components::has_named_outputs;
pub use diagnostic::{Diagnostic, Severity};
pub use environment::{Environment, ProcessEnvironment};
pub use fingerprint::Fingerprint;
pub use graph::OutputRef;
pub use load::{LoadOptions, Reading, load, parse_str, parse_texts, read};
pub use mutate::{Mutation, unknown_keys};
pub use source::{Place, SourceFile, paths};

/// A configuration without errors.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where components may keep files.
    pub data_dir: Option<PathBuf>,
    /// What all requests together may take.
    pub memory: Bounds,
    /// The admin API; off when absent.
    pub api: Option<ApiConfig>,
    /// What is shown of the ledgers of sinks.
    pub ledger: LedgerConfig,
    /// The sources by name.
    pub sources: BTreeMap<Arc<str>, SourceNode>,
    /// The transforms by name.
    pub transforms: BTreeMap<Arc<str>, TransformNode>,
    /// The sinks by name.
    pub sinks: BTreeMap<Arc<str>, SinkNode>,
    /// A hash of what the files hold, to tell versions of the configuration apart.
    pub hash: u64,
}

/// A configuration and what is odd about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Findings that do not keep it from running.
    pub warnings: Vec<Diagnostic>,
    /// Where its parts stand, for what is found out only when they are built.
    pub places: Places,
}

/// Where the parts of a configuration stand in its files.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// `data_dir`.
    pub data_dir: Option<Place>,
    /// The address under `api`.
    pub api: Option<Place>,
    /// The names of components.
    pub components: BTreeMap<Arc<str>, Place>,
}

/// The files that a component names, each with the state that was found when it was loaded.
pub type NamedFiles = BTreeMap<PathBuf, Fingerprint>;

/// `[api]`: the status page, metrics, health and reload.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    /// Where it listens.
    pub address: SocketAddr,
}

/// `[ledger]`: what is shown of the ledgers of sinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerConfig {
    /// How many tenants of a sink have metrics of their own.
    #[serde(default)]
    pub tenants: LedgerTenants,
}

/// From 0 to [`MAX`](Self::MAX).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct LedgerTenants(pub usize);

impl LedgerTenants {
    /// The most that can be shown: sinks know no more by name.
    pub const MAX: usize = 1000;
}

impl Default for LedgerTenants {
    fn default() -> Self {
        Self(LEDGER_TENANTS)
    }
}

impl TryFrom<i64> for LedgerTenants {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        let number = usize::try_from(number).ok();
        let number = number.filter(|number| *number <= Self::MAX);
        number
            .map(Self)
            .ok_or_else(|| format!("must be from 0 to {}", Self::MAX))
    }
}

/// A source of the graph.
#[derive(Clone, Debug)]
pub struct SourceNode {
    /// Its configuration.
    pub config: Arc<dyn SourceConfig>,
    /// Its `type`.
    pub type_name: String,
    /// Its table in canonical form, without `inputs`: it has changed when this differs.
    pub effective: Secret,
    /// The files that it names: it has changed when what they hold differs.
    pub files: NamedFiles,
}

/// A transform of the graph.
#[derive(Clone, Debug)]
pub struct TransformNode {
    /// Its configuration.
    pub config: Arc<dyn TransformConfig>,
    /// Its `type`.
    pub type_name: String,
    /// What it consumes, sorted, each once, with globs expanded.
    pub inputs: Vec<OutputRef>,
    /// Its table in canonical form, without `inputs`: it has changed when this differs.
    pub effective: Secret,
    /// The files that it names: it has changed when what they hold differs.
    pub files: NamedFiles,
}

/// A sink of the graph.
#[derive(Clone, Debug)]
pub struct SinkNode {
    /// Its configuration.
    pub config: Arc<dyn SinkConfig>,
    /// Its `type`.
    pub type_name: String,
    /// What it consumes, sorted, each once, with globs expanded.
    pub inputs: Vec<OutputRef>,
    /// Its table in canonical form, without `inputs`: it has changed when this differs.
    pub effective: Secret,
    /// The files that it names: it has changed when what they hold differs.
    pub files: NamedFiles,
}

impl Config {
    /// The files that components name.
    pub fn files(&self) -> NamedFiles {
        let sources = self.sources.values().map(|node| &node.files);
        let transforms = self.transforms.values().map(|node| &node.files);
        let sinks = self.sinks.values().map(|node| &node.files);
        let files = sources.chain(transforms).chain(sinks);
        files
            .flatten()
            .map(|(path, state)| (path.clone(), *state))
            .collect()
    }
}

impl SourceNode {
    /// Whether the same source would be built from both.
    pub fn same_as(&self, other: &Self) -> bool {
        self.type_name == other.type_name
            && self.effective == other.effective
            && self.files == other.files
    }
}

impl TransformNode {
    /// Whether the same transform would be built from both, whatever their inputs.
    pub fn same_as(&self, other: &Self) -> bool {
        self.type_name == other.type_name
            && self.effective == other.effective
            && self.files == other.files
    }
}

impl SinkNode {
    /// Whether the same sink would be built from both, whatever their inputs.
    pub fn same_as(&self, other: &Self) -> bool {
        self.type_name == other.type_name
            && self.effective == other.effective
            && self.files == other.files
    }
}

#[cfg(test)]
mod tests;
