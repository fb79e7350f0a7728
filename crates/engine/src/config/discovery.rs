//! Tables of discovery: providers of targets, `[discovery.NAME]`, whose keys depend on their
//! `type`, and publishers, `[publish.NAME]`.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;

use toml::de::DeTable;

use metrifold_base::Problems;
use metrifold_base::keys::Entry;
use metrifold_discovery::{ProviderConfig, ProviderInfo};
use metrifold_targets::PublishConfig;

use crate::component::Resource;

use super::decode::{self, Finding};
use super::path::KeyPath;
use super::tables::{AnyTable, TableConfig, TableInfo, TableType};

/// Name of the table of providers, and of the key that refers to a provider.
pub(crate) const NAME: &str = "discovery";

/// Configuration of a provider.
#[derive(Clone, Debug)]
pub struct ProviderTable {
    /// Value of the key `type`.
    pub type_name: Arc<str>,
    /// Keys of the provider.
    pub config: Arc<dyn ProviderConfig>,
}

inventory::submit! {
    TableInfo {
        name: NAME,
        named: true,
        many: false,
        summary: "A provider of targets; `type` selects the service discovery.",
        keys: &[],
        types,
        read,
    }
}
inventory::submit! { TableInfo::named::<PublishConfig>("Publishes the targets of a provider in the formats of Prometheus.") }

fn types() -> Vec<TableType> {
    let all = ProviderInfo::all().into_iter();
    let all = all.map(|info| TableType {
        name: info.name,
        summary: info.summary,
        keys: info.keys,
    });
    all.collect()
}

fn read(
    type_name: &str,
    table: &DeTable<'_>,
    removed: &[KeyPath],
    entries: &'static [Entry],
) -> Result<Arc<dyn AnyTable>, Vec<Finding>> {
    let read = |table| decode::component::<Box<dyn ProviderConfig>>(type_name, table);
    let config = decode::all_errors(table, removed, entries, &read)?;
    Ok(Arc::new(ProviderTable {
        type_name: type_name.into(),
        config: config.into(),
    }))
}

impl AnyTable for ProviderTable {
    fn any(&self) -> &dyn Any {
        self
    }

    fn validate(&self, problems: &mut Problems) {
        self.config.validate(problems);
    }

    fn files(&self) -> Vec<&Path> {
        self.config.files()
    }

    fn resources(&self) -> Vec<Resource> {
        Vec::new()
    }
}

impl TableConfig for PublishConfig {
    const NAME: &'static str = "publish";

    fn validate(&self, problems: &mut Problems) {
        self.validate(problems);
    }

    fn files(&self) -> Vec<&Path> {
        self.files()
    }

    fn resources(&self) -> Vec<Resource> {
        let route = self.listen().map(Resource::Route);
        let file = self.file.clone().map(Resource::File);
        route.into_iter().chain(file).collect()
    }
}
