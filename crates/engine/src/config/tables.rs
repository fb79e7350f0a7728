//! The tables at the top of the configuration that are no components: what they are, and how they
//! are registered and found.
//!
//! A table is a type with keys and one `inventory::submit!` of a [`TableInfo`], wherever that is
//! written. Reading, errors, files, changes, reference and schema follow from it.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use toml::de::DeTable;

use metrifold_base::keys::{Entry, Keys, Listed, list};
use metrifold_base::{Problems, Size, keys};
use metrifold_files::NamedFiles;

use crate::component::Resource;

use super::canonical::Canonical;
use super::decode::{self, Finding};
use super::discovery::{self, ProviderTable};
use super::path::KeyPath;

keys! {
    /// The keys at the top of the configuration that are no tables.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct RootKeys {
        /// Directory in which components may keep files, such as queues on disk and dead letters.
        pub data_dir: Option<PathBuf> = unset("/var/lib/metrifold"),
        /// Most memory that the process takes. What is left of it after the queues of sinks and the program itself is what all requests together may take.
        pub memory_limit: Option<Size> = unset("1GiB"),
        /// Memory that all requests in flight of all sources may take together, compressed and decoded; above it 503 with Retry-After.
        pub max_in_flight_bytes: Option<Size> = unset("512MiB"),
    }
}

impl RootKeys {
    /// Reports every problem that deserialization cannot see.
    pub(crate) fn validate(&self, problems: &mut Problems) {
        if self
            .data_dir
            .as_ref()
            .is_some_and(|path| path.as_os_str().is_empty())
        {
            problems.at("data_dir", "must not be empty");
        }
        for (key, size) in [
            ("memory_limit", self.memory_limit),
            ("max_in_flight_bytes", self.max_in_flight_bytes),
        ] {
            if size == Some(Size(0)) {
                problems.at(key, "must be at least 1B");
            }
        }
    }
}

/// A table's configuration, made with [`keys!`](metrifold_base::keys!).
pub trait TableConfig: Keys + for<'de> Deserialize<'de> + Debug + Send + Sync + 'static {
    /// Its name at the top of the file.
    const NAME: &'static str;

    /// Reports every problem that deserialization cannot see.
    fn validate(&self, _problems: &mut Problems) {}

    /// The files that it names. When what they hold changes, so has the table.
    fn files(&self) -> Vec<&Path> {
        Vec::new()
    }

    /// What it takes for itself.
    fn resources(&self) -> Vec<Resource> {
        Vec::new()
    }
}

/// A kind of table that there is.
pub struct TableInfo {
    /// Its name at the top of the file.
    pub name: &'static str,
    /// Whether there are several, `[name.NAME]`, or one, `[name]`.
    pub named: bool,
    /// What it is for, in one line.
    pub summary: &'static str,
    /// Its keys, besides those of its types.
    pub keys: &'static [Entry],
    /// What its `type` may be; empty where it has none.
    pub types: fn() -> Vec<TableType>,
    pub(crate) read: Read,
}

/// What the `type` of a table may be.
#[derive(Clone, Copy, Debug)]
pub struct TableType {
    /// Its name.
    pub name: &'static str,
    /// What it is, in one line.
    pub summary: &'static str,
    /// Its keys.
    pub keys: &'static [Entry],
}

inventory::collect!(TableInfo);

/// Reads a table of a type, if it has types; keys in the third argument were taken out of it before.
pub(crate) type Read = for<'i> fn(
    &str,
    DeTable<'i>,
    Vec<KeyPath>,
    &[Listed],
) -> Result<Arc<dyn AnyTable>, Vec<Finding>>;

impl TableInfo {
    /// `[name]`.
    pub const fn one<T: TableConfig>(summary: &'static str) -> Self {
        Self {
            name: T::NAME,
            named: false,
            summary,
            keys: T::ENTRIES,
            types: Vec::new,
            read: read::<T>,
        }
    }

    /// `[name.NAME]`.
    pub const fn named<T: TableConfig>(summary: &'static str) -> Self {
        Self {
            named: true,
            ..Self::one::<T>(summary)
        }
    }

    /// All that there are, by name.
    pub fn all() -> Vec<&'static Self> {
        let mut all: Vec<&Self> = inventory::iter::<Self>.into_iter().collect();
        all.sort_unstable_by_key(|info| info.name);
        all
    }

    /// Its keys by their full names.
    pub fn keys(&self) -> Vec<Listed> {
        list(self.keys)
    }

    /// How its header is written.
    pub fn header(&self) -> String {
        match self.named {
            true => format!("[{}.NAME]", self.name),
            false => format!("[{}]", self.name),
        }
    }
}

fn read<T: TableConfig>(
    _type_name: &str,
    table: DeTable<'_>,
    removed: Vec<KeyPath>,
    keys: &[Listed],
) -> Result<Arc<dyn AnyTable>, Vec<Finding>> {
    let table = decode::all_errors(table, removed, keys, &decode::plain::<T>)?;
    Ok(Arc::new(table))
}

/// A table of whichever type.
pub(crate) trait AnyTable: Debug + Send + Sync {
    fn any(&self) -> &dyn Any;
    fn validate(&self, problems: &mut Problems);
    fn files(&self) -> Vec<&Path>;
    fn resources(&self) -> Vec<Resource>;
}

impl<T: TableConfig> AnyTable for T {
    fn any(&self) -> &dyn Any {
        self
    }

    fn validate(&self, problems: &mut Problems) {
        TableConfig::validate(self, problems);
    }

    fn files(&self) -> Vec<&Path> {
        TableConfig::files(self)
    }

    fn resources(&self) -> Vec<Resource> {
        TableConfig::resources(self)
    }
}

/// The tables of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Tables(pub(crate) BTreeMap<String, Table>);

/// A table that was read.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) config: Arc<dyn AnyTable>,
    /// Its canonical form: it has changed when this differs.
    pub(crate) effective: Canonical,
    /// The files that it names: it has changed when what they hold differs.
    pub(crate) files: NamedFiles,
}

impl Tables {
    /// The table `[name]`, if it is there.
    pub fn get<T: TableConfig>(&self) -> Option<&T> {
        self.0.get(T::NAME)?.config.any().downcast_ref()
    }

    /// The tables `[name.NAME]` by their names.
    pub fn named<T: TableConfig>(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().filter_map(|(name, table)| {
            let name = name.strip_prefix(T::NAME)?.strip_prefix('.')?;
            Some((name, table.config.any().downcast_ref()?))
        })
    }

    /// The providers of targets by their names.
    pub fn providers(&self) -> impl Iterator<Item = (&str, &ProviderTable)> {
        self.0.iter().filter_map(|(name, table)| {
            let name = name.strip_prefix(discovery::NAME)?.strip_prefix('.')?;
            Some((name, table.config.any().downcast_ref()?))
        })
    }

    /// Whether the table of this full name is the same in both.
    pub fn same(&self, other: &Self, name: &str) -> bool {
        match (self.0.get(name), other.0.get(name)) {
            (Some(one), Some(other)) => one.same_as(other),
            _ => false,
        }
    }
}

impl Table {
    /// Whether nothing of it differs.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        self.effective == other.effective && self.files == other.files
    }
}
