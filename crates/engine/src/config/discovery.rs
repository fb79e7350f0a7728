//! Providers of targets, `[discovery.NAME]`, whose keys depend on their `type`, and what publishes
//! targets, `[publish.NAME]`.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;

use toml::de::DeTable;

use metrifold_base::Problems;
use metrifold_base::keys::Listed;
use metrifold_discovery::{ProviderConfig, ProviderInfo, PublishConfig};

use crate::component::Resource;

use super::decode::{self, Finding};
use super::path::KeyPath;
use super::tables::{AnyTable, TableConfig, TableInfo, TableType};

/// The name of the table of providers, and of the key that names one of them.
pub(crate) const NAME: &str = "discovery";

/// A provider as it is configured.
#[derive(Clone, Debug)]
pub struct ProviderTable {
    /// Its `type`.
    pub type_name: Arc<str>,
    /// Its keys.
    pub config: Arc<dyn ProviderConfig>,
}

inventory::submit! {
    TableInfo {
        name: NAME,
        named: true,
        summary: "A provider of targets, by its type.",
        keys: &[],
        types,
        read,
    }
}
inventory::submit! { TableInfo::named::<PublishConfig>("Writes the targets of a provider for programs that read them in Prometheus' forms.") }

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
    table: DeTable<'_>,
    removed: Vec<KeyPath>,
    keys: &[Listed],
) -> Result<Arc<dyn AnyTable>, Vec<Finding>> {
    let read = |table| decode::component::<Box<dyn ProviderConfig>>(type_name, table);
    let config = decode::all_errors(table, removed, keys, &read)?;
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
