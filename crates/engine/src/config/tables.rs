//! Tables at the top of the configuration that are not components: their traits, their registration, and access to
//! them.
//!
//! A table is a type with keys and one `inventory::submit!` of a [`TableInfo`], in any crate. Reading, errors, files,
//! changes, reference and schema follow from it.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use toml::de::DeTable;

use metrifold_base::keys::{Entry, Keys, Listed, list};
use metrifold_base::{Problems, Size, keys};

use crate::component::Resource;

use super::canonical::Print;
use super::decode::{self, Finding};
use super::discovery::{self, ProviderTable};
use super::path::KeyPath;
use super::states::Named;

keys! {
    /// Keys of the root table.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct RootKeys {
        /// Directory for the files of components, such as disk queues and dead letters.
        pub data_dir: Option<PathBuf> = unset("/var/lib/metrifold"),
        /// Maximum memory of the process. Requests in flight can use what remains after the queues of sinks and the program itself.
        pub memory_limit: Option<Size> = unset("1GiB"),
        /// Maximum memory for all requests in flight of all sources, compressed and decoded. Requests beyond it are answered 503 with `Retry-After`.
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
    /// Name of the table at the top of the file.
    const NAME: &'static str;

    /// Reports every problem that deserialization cannot see.
    fn validate(&self, _problems: &mut Problems) {}

    /// Files that the table names. A change of their content counts as a change of the table.
    fn files(&self) -> Vec<&Path> {
        Vec::new()
    }

    /// The files that those name in turn. When what they hold changes, so has the table.
    fn further_files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Takes what is unchanged, and costly to read, from the same table of the running configuration.
    fn take_over(&self, _before: &Self) {}

    /// Resources that the table claims.
    fn resources(&self) -> Vec<Resource> {
        Vec::new()
    }
}

/// A registered kind of table.
pub struct TableInfo {
    /// Name of the table at the top of the file.
    pub name: &'static str,
    /// Whether there may be several, `[name.NAME]`, or only one, `[name]`.
    pub named: bool,
    /// Whether a file may have very many. They are read one at a time, so they cannot refer to
    /// listeners or providers.
    pub(crate) many: bool,
    /// Purpose of the table, in one line.
    pub summary: &'static str,
    /// Keys of all tables of this kind; those of a type are in `types`.
    pub keys: &'static [Entry],
    /// Possible values of `type`; empty if the kind has no types.
    pub types: fn() -> Vec<TableType>,
    pub(crate) read: Read,
}

/// A possible value of a table's `type`.
#[derive(Clone, Copy, Debug)]
pub struct TableType {
    /// Name of the type.
    pub name: &'static str,
    /// Purpose of the type, in one line.
    pub summary: &'static str,
    /// Keys of the type.
    pub keys: &'static [Entry],
}

inventory::collect!(TableInfo);

/// Reads a table, of the given type if the kind has types. The third argument lists keys that were removed from the
/// table before.
pub(crate) type Read = for<'i> fn(
    &str,
    &DeTable<'i>,
    &[KeyPath],
    &'static [Entry],
) -> Result<Arc<dyn AnyTable>, Vec<Finding>>;

impl TableInfo {
    /// Describes a kind with the single table `[name]`.
    pub const fn one<T: TableConfig>(summary: &'static str) -> Self {
        Self {
            name: T::NAME,
            named: false,
            many: false,
            summary,
            keys: T::ENTRIES,
            types: Vec::new,
            read: read::<T>,
        }
    }

    /// Describes a kind with the tables `[name.NAME]`.
    pub const fn named<T: TableConfig>(summary: &'static str) -> Self {
        Self {
            named: true,
            ..Self::one::<T>(summary)
        }
    }

    /// Describes a kind with very many tables `[name.NAME]`.
    pub(crate) const fn many<T: TableConfig>(summary: &'static str) -> Self {
        Self {
            many: true,
            ..Self::named::<T>(summary)
        }
    }

    /// All registered kinds, sorted by name.
    pub fn all() -> Vec<&'static Self> {
        let mut all: Vec<&Self> = inventory::iter::<Self>.into_iter().collect();
        all.sort_unstable_by_key(|info| info.name);
        all
    }

    /// The keys by their full names.
    pub fn keys(&self) -> Vec<Listed> {
        list(self.keys)
    }

    /// The table's header, such as `[name.NAME]`.
    pub fn header(&self) -> String {
        match self.named {
            true => format!("[{}.NAME]", self.name),
            false => format!("[{}]", self.name),
        }
    }
}

fn read<T: TableConfig>(
    _type_name: &str,
    table: &DeTable<'_>,
    removed: &[KeyPath],
    entries: &'static [Entry],
) -> Result<Arc<dyn AnyTable>, Vec<Finding>> {
    let table = decode::all_errors(table, removed, entries, &decode::plain::<T>)?;
    Ok(Arc::new(table))
}

/// The configuration of a table of any kind.
pub(crate) trait AnyTable: Debug + Send + Sync {
    fn any(&self) -> &dyn Any;
    fn validate(&self, problems: &mut Problems);
    fn files(&self) -> Vec<&Path>;
    fn further_files(&self) -> Vec<PathBuf> {
        Vec::new()
    }
    fn take_over(&self, _before: &dyn AnyTable) {}
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

    fn further_files(&self) -> Vec<PathBuf> {
        TableConfig::further_files(self)
    }

    fn take_over(&self, before: &dyn AnyTable) {
        if let Some(before) = before.any().downcast_ref() {
            TableConfig::take_over(self, before);
        }
    }

    fn resources(&self) -> Vec<Resource> {
        TableConfig::resources(self)
    }
}

/// The tables of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Tables(pub(crate) BTreeMap<Arc<str>, Arc<Table>>);

/// A table that was read. A reload takes over those that it finds unchanged.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) config: Arc<dyn AnyTable>,
    /// Print of the table's canonical form, which differs if the table has changed.
    pub(crate) effective: Print,
    /// Print of the text that the table was read from; `None` if it depends on more than its text
    /// and its files.
    pub(crate) text: Option<Print>,
    /// Whether that text has values that must not appear in messages.
    pub(crate) secret: bool,
    /// Files that the table names. The table has changed if their content differs.
    pub(crate) files: Named,
}

impl Tables {
    /// The table `[name]`, if it is present.
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

    /// The tables `[name.NAME]` by their names, each with a number that differs if the table or the
    /// content of its files does.
    pub(crate) fn printed<T: TableConfig>(&self) -> impl Iterator<Item = (&str, &T, u64)> {
        self.0.iter().filter_map(|(name, table)| {
            let name = name.strip_prefix(T::NAME)?.strip_prefix('.')?;
            Some((name, table.config.any().downcast_ref()?, table.print()))
        })
    }

    /// Whether the table with this full name is the same in both.
    pub fn same(&self, other: &Self, name: &str) -> bool {
        match (self.0.get(name), other.0.get(name)) {
            (Some(one), Some(other)) => one.same_as(other),
            _ => false,
        }
    }
}

impl Table {
    /// Whether both tables, and the files that they name, are the same.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
            || (self.effective == other.effective && self.files == other.files)
    }

    /// A number that differs if the table or the content of its files does. Made of keyed hashes.
    pub(crate) fn print(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.effective.0);
        for (_, state) in self.files.iter() {
            hasher.write_u64(state.content());
        }
        hasher.finish()
    }
}
