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
use metrifold_http::{Authorization, BasicAuth};
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
    pub sources: BTreeMap<Arc<str>, Component<dyn SourceConfig>>,
    /// The transforms by name.
    pub transforms: BTreeMap<Arc<str>, Component<dyn TransformConfig>>,
    /// The sinks by name.
    pub sinks: BTreeMap<Arc<str>, Component<dyn SinkConfig>>,
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
    /// Further names that it is reached by, besides addresses and `localhost`.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// The user that whoever changes something must be.
    #[serde(default)]
    pub basic_auth: Option<BasicAuth>,
    /// The token that whoever changes something must have.
    #[serde(default)]
    pub authorization: Option<Authorization>,
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

/// A component of the graph.
#[derive(Debug)]
pub struct Component<C: ?Sized> {
    /// Its configuration.
    pub config: Arc<C>,
    /// Its `type`.
    pub type_name: String,
    /// What it consumes, sorted, each once, with globs expanded; nothing for a source.
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

impl<C: ?Sized> Component<C> {
    /// Whether the same component would be built from both, whatever their inputs.
    pub fn same_as(&self, other: &Self) -> bool {
        self.type_name == other.type_name
            && self.effective == other.effective
            && self.files == other.files
    }
}

impl<C: ?Sized> Clone for Component<C> {
    fn clone(&self) -> Self {
        Self {
            config: self.config.clone(),
            type_name: self.type_name.clone(),
            inputs: self.inputs.clone(),
            effective: self.effective.clone(),
            files: self.files.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
