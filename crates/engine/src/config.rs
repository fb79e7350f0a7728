//! The configuration: from TOML text to a validated graph, with every error at its line and column.
//!
//! Text becomes tables with spans (`source`, `document`), tables become components (`decode`, `components`), components
//! become a graph (`graph`, `resources`). Tables of which there may be very many are read one at a time
//! (`sections`). Each step continues after an error and reports further ones, except those that are
//! consequences of an earlier one.

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
mod sections;
mod source;
mod states;
mod suggest;
mod synonyms;
mod tables;
mod types;
mod words;
mod work;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use metrifold_base::keys::{Shape, Shaped};
use metrifold_base::{Address, Period, Problems, keys};
use metrifold_files::NamedFiles;
use metrifold_http::{AccessBy, Authorization, BasicAuth, Listen, Methods, ServerTls, auth};

use crate::component::{Resource, SinkConfig, SourceConfig, TransformConfig};
use crate::memory::Bounds;

pub use canonical::Canonical;
pub use components::{Wiring, wiring};
pub use diagnostic::{Diagnostic, Severity};
pub use discovery::ProviderTable;
pub use environment::{Environment, ProcessEnvironment};
pub use graph::OutputRef;
pub use load::{LoadOptions, Reading, api_of, load, parse_str, parse_texts, read, read_beside};
pub use mutate::{Mutation, unknown_keys};
pub use source::{Place, SourceFile};
pub use suggest::nearest;
pub use tables::{RootKeys, TableConfig, TableInfo, TableType, Tables};

/// A configuration without errors.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory in which components may keep files.
    pub data_dir: Option<PathBuf>,
    /// Limits on the memory of all requests together.
    pub memory: Bounds,
    /// Tables at the top of the files that are not components.
    pub tables: Tables,
    /// The sources by name.
    pub sources: BTreeMap<Arc<str>, Component<dyn SourceConfig>>,
    /// The transforms by name.
    pub transforms: BTreeMap<Arc<str>, Component<dyn TransformConfig>>,
    /// The sinks by name.
    pub sinks: BTreeMap<Arc<str>, Component<dyn SinkConfig>>,
    /// Hash of the files' content, which distinguishes versions of the configuration.
    pub hash: u64,
}

/// A valid configuration and the warnings about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings, which do not keep the configuration from running.
    pub warnings: Vec<Diagnostic>,
    /// Places of the configuration's parts, for errors that only a build finds.
    pub places: Places,
}

/// Places of the parts of a configuration in its files.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// `data_dir`.
    pub data_dir: Option<Place>,
    /// Places of the tables: of their address if they have one, else of their name.
    pub tables: BTreeMap<Arc<str>, Place>,
    /// Places of the components' names.
    pub components: BTreeMap<Arc<str>, Place>,
}

keys! {
    /// `[api]`: the status page, metrics, health and reload.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ApiConfig {
        /// Address of the admin API, the status page, metrics and health checks.
        pub address: Address = required("127.0.0.1:8686"),
        /// Name of a listener under `[listeners.NAME]`, whose keys `address`, `tls`, `max_connections`, `header_timeout`, `idle_timeout` and `max_connection_age` replace those here. No source can use it as well.
        listener: Option<String> = unset("admin"),
        /// Additional host names by which the admin API is reached, besides IP addresses and `localhost`.
        pub hosts: Vec<String> = unset(["metrifold.example"]),
        /// User name and password that are required for changes, and for reads from other machines. Without any credentials, only callers on this machine can change anything.
        pub basic_auth: Option<BasicAuth> = optional,
        /// `Authorization` header that is required for changes, and for reads from other machines. If `basic_auth` is set as well, either is accepted.
        pub authorization: Option<Authorization> = optional,
        /// Allow reads from other machines without credentials, as the status page needs them. By default, only callers on this machine can read without credentials. Health, readiness and metrics are always public.
        pub remote_reads: bool = default(false),
        /// TLS settings of the admin API. Unset, it serves plain HTTP.
        pub tls: Option<ServerTls> = optional,
        /// Maximum number of open connections. By default 1024, or a quarter of the process's limit of [file descriptors](operations.md#descriptors) if that is less. A further connection replaces one without a request in flight, or waits until there is one.
        pub max_connections: Option<usize> = unset(1024),
        /// Maximum time for the TLS handshake, and for receiving the head of a request.
        pub header_timeout: Period = default("10s"),
        /// Maximum time for which a connection can be idle between two requests.
        pub idle_timeout: Period = default("5m"),
        /// Age after which a connection is closed with its next answer.
        pub max_connection_age: Period = default("1h"),
        /// Access control: with `tenants`, callers must authenticate as a tenant under `[tenants.NAME]` and have the permission `admin` there, also on this machine. Excludes `basic_auth`, `authorization` and `remote_reads`.
        pub access: Option<AccessBy> = unset("tenants"),
    }
}

impl ApiConfig {
    /// The admin address, for these methods of a path.
    pub fn listen(&self, path: &str, methods: Methods) -> Listen {
        Listen {
            tls: self.tls.clone(),
            max_connections: self.max_connections,
            header_timeout: self.header_timeout.0,
            idle_timeout: self.idle_timeout.0,
            max_age: self.max_connection_age.0,
            ..Listen::new(self.address.0, path).methods(methods)
        }
    }
}

impl TableConfig for ApiConfig {
    const NAME: &'static str = "api";

    fn validate(&self, problems: &mut Problems) {
        let (basic_auth, authorization) = (self.basic_auth.as_ref(), self.authorization.as_ref());
        // Both may be set: either credential is accepted.
        auth::validate("", basic_auth, None, None, problems);
        auth::validate("", None, authorization, None, problems);
        if self.access.is_some()
            && (basic_auth.is_some() || authorization.is_some() || self.remote_reads)
        {
            let what =
                "with access = \"tenants\", callers authenticate with the credentials of tenants";
            let help = "remove basic_auth, authorization and remote_reads";
            problems.at("access", what).help(help);
        }
        self.listen("/", Methods::GET).validate(problems);
        if self.listener.is_some() {
            // A reference is replaced by the listener's keys before; one that is left is unknown.
            problems.at("listener", "is not known");
        }
        if let Some(tls) = &self.tls {
            AccessBy::validate_tls(self.access, tls, problems);
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
        let tls = self.tls.iter().flat_map(ServerTls::files);
        tls.chain(auth::files(basic_auth, authorization, None))
            .collect()
    }

    fn resources(&self) -> Vec<Resource> {
        vec![Resource::Address(self.address.0)]
    }
}

keys! {
    /// `[ledger]`: presentation of the ledgers of sinks.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct LedgerConfig {
        /// Maximum number of tenants per sink with ledger metrics of their own, from 0 to 1000: those with the most samples. The other tenants are summed up.
        pub tenants: LedgerTenants = default(20),
    }
}

impl TableConfig for LedgerConfig {
    const NAME: &'static str = "ledger";
}

inventory::submit! { TableInfo::one::<ApiConfig>("Admin API: status page, metrics, health checks and reload. Disabled unless present.") }
inventory::submit! { TableInfo::one::<LedgerConfig>("Presentation of the ledgers of sinks.") }

/// A number of tenants from 0 to [`MAX`](Self::MAX).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct LedgerTenants(pub usize);

impl LedgerTenants {
    /// The most tenants that a sink knows by name.
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
    /// Configuration of the component.
    pub config: Arc<C>,
    /// Value of the key `type`.
    pub type_name: String,
    /// Outputs that the component consumes, sorted, without duplicates, with globs expanded; empty for a source.
    pub inputs: Vec<OutputRef>,
    /// Canonical form of the component's table, without `inputs`. A reload rebuilds the component if it differs.
    pub effective: Canonical,
    /// Files that the configuration names. A reload rebuilds the component if their content differs.
    pub files: NamedFiles,
}

impl Config {
    /// The admin API; `None` if it is off.
    pub fn api(&self) -> Option<&ApiConfig> {
        self.tables.get()
    }

    /// A number that differs if `[api]` or the content of its files does; `None` if it is off.
    pub fn api_print(&self) -> Option<u64> {
        Some(self.tables.0.get(ApiConfig::NAME)?.print())
    }

    /// Settings of the ledgers of sinks.
    pub fn ledger(&self) -> LedgerConfig {
        let ledger = self.tables.get::<LedgerConfig>().copied();
        ledger.unwrap_or_else(keys::defaults)
    }

    /// All files that components and tables name.
    pub fn files(&self) -> NamedFiles {
        let sources = self.sources.values().map(|node| &node.files);
        let transforms = self.transforms.values().map(|node| &node.files);
        let sinks = self.sinks.values().map(|node| &node.files);
        let tables = self.tables.0.values().flat_map(|table| table.files.iter());
        let tables = tables.map(|(path, state)| (path, state));
        let files = sources.chain(transforms).chain(sinks).flatten();
        files
            .chain(tables)
            .map(|(path, state)| (path.clone(), *state))
            .collect()
    }
}

impl<C: ?Sized> Component<C> {
    /// Whether both would build the same component, regardless of their inputs.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
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
