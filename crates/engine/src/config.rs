//! The configuration: from TOML text to a validated graph, with every error at its place.
//!
//! Text becomes tables with spans (`source`, `document`), tables become components (`decode`,
//! `components`), components become a graph (`graph`, `resources`). Each step goes on after an
//! error as long as what it finds then is not a consequence of that error.

mod access;
mod canonical;
mod components;
mod decode;
mod diagnostic;
mod discovery;
mod document;
mod environment;
mod files;
mod globals;
mod graph;
mod listeners;
mod load;
mod memory;
mod mutate;
mod path;
pub mod queues;
mod references;
mod resources;
mod secrets;
mod source;
mod suggest;
mod synonyms;
mod tables;
mod types;
mod words;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use metrifold_base::keys::{Shape, Shaped};
use metrifold_base::{Address, Problems, keys};
use metrifold_files::NamedFiles;
use metrifold_http::{AccessBy, Authorization, BasicAuth, auth};

use crate::component::{Resource, SinkConfig, SourceConfig, TransformConfig};
use crate::memory::Bounds;

pub use canonical::Canonical;
pub use components::{Wiring, wiring};
pub use diagnostic::{Diagnostic, Severity};
pub use discovery::ProviderTable;
pub use environment::{Environment, ProcessEnvironment};
pub use graph::OutputRef;
pub use load::{LoadOptions, Reading, api_of, load, parse_str, parse_texts, read};
pub use mutate::{Mutation, unknown_keys};
pub use source::{Place, SourceFile};
pub use suggest::nearest;
pub use tables::{RootKeys, TableConfig, TableInfo, TableType, Tables};

/// A configuration without errors.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where components may keep files.
    pub data_dir: Option<PathBuf>,
    /// What all requests together may take.
    pub memory: Bounds,
    /// What else stands at the top.
    pub tables: Tables,
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
    /// The addresses of tables, or else their names.
    pub tables: BTreeMap<String, Place>,
    /// The names of components.
    pub components: BTreeMap<Arc<str>, Place>,
}

keys! {
    /// `[api]`: the status page, metrics, health and reload.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ApiConfig {
        /// Address of the admin API, the status page, metrics and health.
        pub address: Address = required("127.0.0.1:8686"),
        /// Further names that it is reached by, besides addresses and `localhost`.
        pub hosts: Vec<String> = unset(["metrifold.example"]),
        /// User and password that whoever changes something must send.
        pub basic_auth: Option<BasicAuth> = optional,
        /// `Authorization` header that whoever changes something must send.
        pub authorization: Option<Authorization> = optional,
        /// Whether anybody who reaches the address may read, as the status page does. Otherwise only callers on this machine read and change something, and those with the user or the header above. Health, readiness and metrics are for everybody.
        pub remote_reads: bool = default(false),
        /// Who may read and change something: `tenants` is whoever proves to be of a tenant under `[tenants.NAME]` and has the permission `admin` there, on this machine too. In place of `basic_auth` and `authorization`.
        pub access: Option<AccessBy> = unset("tenants"),
    }
}

impl TableConfig for ApiConfig {
    const NAME: &'static str = "api";

    fn validate(&self, problems: &mut Problems) {
        let (basic_auth, authorization) = (self.basic_auth.as_ref(), self.authorization.as_ref());
        // Either will do, so that both may be set.
        auth::validate("", basic_auth, None, None, problems);
        auth::validate("", None, authorization, None, problems);
        if self.access.is_some()
            && (basic_auth.is_some() || authorization.is_some() || self.remote_reads)
        {
            let what = "tenants say how callers prove who they are";
            let help = "remove basic_auth, authorization and remote_reads";
            problems.at("access", what).help(help);
        }
        for (place, host) in self.hosts.iter().enumerate() {
            let authority = host.parse::<http::uri::Authority>();
            if !authority.is_ok_and(|authority| authority.host() == host) {
                let problem = problems.at(format!("hosts[{place}]"), "is not the name of a host");
                problem.help("write it without a port, such as \"metrifold.example\"");
            }
        }
    }

    fn files(&self) -> Vec<&Path> {
        let (basic_auth, authorization) = (self.basic_auth.as_ref(), self.authorization.as_ref());
        auth::files(basic_auth, authorization, None).collect()
    }

    fn resources(&self) -> Vec<Resource> {
        vec![Resource::Address(self.address.0)]
    }
}

keys! {
    /// `[ledger]`: what is shown of the ledgers of sinks.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct LedgerConfig {
        /// How many tenants of a sink have metrics of their own, from 0 to 1000: those with the most samples. The others are one.
        pub tenants: LedgerTenants = default(20),
    }
}

impl TableConfig for LedgerConfig {
    const NAME: &'static str = "ledger";
}

inventory::submit! { TableInfo::one::<ApiConfig>("Status page, metrics, health and reload; off unless it is there.") }
inventory::submit! { TableInfo::one::<LedgerConfig>("What is shown of the ledgers of sinks.") }

/// From 0 to [`MAX`](Self::MAX).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct LedgerTenants(pub usize);

impl LedgerTenants {
    /// The most that can be shown: sinks know no more by name.
    pub const MAX: usize = 1000;
}

impl Shaped for LedgerTenants {
    const SHAPE: Shape = Shape::Integer {
        least: 0,
        most: Some(Self::MAX as i64),
    };
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
    pub effective: Canonical,
    /// The files that it names: it has changed when what they hold differs.
    pub files: NamedFiles,
}

impl Config {
    /// The admin API; off when absent.
    pub fn api(&self) -> Option<&ApiConfig> {
        self.tables.get()
    }

    /// What is shown of the ledgers of sinks.
    pub fn ledger(&self) -> LedgerConfig {
        let ledger = self.tables.get::<LedgerConfig>().copied();
        ledger.unwrap_or_else(keys::defaults)
    }

    /// The files that components and tables name.
    pub fn files(&self) -> NamedFiles {
        let sources = self.sources.values().map(|node| &node.files);
        let transforms = self.transforms.values().map(|node| &node.files);
        let sinks = self.sinks.values().map(|node| &node.files);
        let tables = self.tables.0.values().map(|table| &table.files);
        let files = sources.chain(transforms).chain(sinks).chain(tables);
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
