//! The rules of all tenants: a map from tenant to files that is cheap to clone and compare.
//!
//! A set that was made from another shares all unchanged parts with it, so [`RuleSet::diff`] visits
//! only the paths to the changed tenants.

mod trie;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use crate::Version;
use crate::file::RuleFile;
use trie::Trie;

/// Name of a tenant; empty for rules without one, such as those from a folder.
pub type Tenant = Arc<str>;

/// A file with the version of its content, which is computed when it is first needed.
#[derive(Clone, Debug)]
pub struct StoredFile {
    file: RuleFile,
    version: OnceLock<Version>,
}

impl StoredFile {
    /// Stores a file.
    pub fn new(file: RuleFile) -> Self {
        let version = OnceLock::new();
        Self { file, version }
    }

    /// The rules in the file.
    pub fn file(&self) -> &RuleFile {
        &self.file
    }

    /// The version, the hash of the canonical text: equal for equal files.
    pub fn version(&self) -> Version {
        match self.version.get() {
            Some(version) => *version,
            None => self.text().1,
        }
    }

    /// The canonical text with its version.
    pub fn text(&self) -> (String, Version) {
        let text = self.file.to_yaml();
        let version = *self.version.get_or_init(|| Version::of(text.as_bytes()));
        (text, version)
    }
}

/// Files are equal if their rules are: their versions need not be computed for that.
impl PartialEq for StoredFile {
    fn eq(&self, other: &Self) -> bool {
        match (self.version.get(), other.version.get()) {
            (Some(own), Some(other)) => own == other,
            _ => self.file == other.file,
        }
    }
}

impl Eq for StoredFile {}

/// The files of one tenant by name. Names are any text; a store or a folder escapes them.
#[derive(Clone, Debug)]
pub struct TenantRules {
    files: BTreeMap<Arc<str>, Arc<StoredFile>>,
    version: OnceLock<Version>,
}

impl TenantRules {
    /// Creates a tenant's rules from files; of several files with the same name, the last one counts.
    pub fn new(files: impl IntoIterator<Item = (Arc<str>, Arc<StoredFile>)>) -> Self {
        Self {
            files: files.into_iter().collect(),
            version: OnceLock::new(),
        }
    }

    /// A copy with one file added or replaced.
    pub fn with_file(&self, name: Arc<str>, file: Arc<StoredFile>) -> Self {
        let others = self
            .files()
            .map(|(name, file)| (name.clone(), file.clone()));
        Self::new(others.chain([(name, file)]))
    }

    /// A file by its name.
    pub fn file(&self, name: &str) -> Option<&Arc<StoredFile>> {
        self.files.get(name)
    }

    /// The files, sorted by name.
    pub fn files(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, &Arc<StoredFile>)> {
        self.files.iter()
    }

    /// Whether there are no files.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The number of rules in all files.
    pub fn rules(&self) -> usize {
        self.files.values().map(|file| file.file.rules()).sum()
    }

    /// The version: equal for equal names and files.
    pub fn version(&self) -> Version {
        *self.version.get_or_init(|| {
            let versions = self.files.values().map(|file| file.version());
            let versions: Vec<_> = versions.collect();
            let parts = self.files.keys().zip(&versions);
            let parts = parts.flat_map(|(name, version)| [name.as_bytes(), version.as_bytes()]);
            Version::of_parts(parts)
        })
    }
}

impl PartialEq for TenantRules {
    fn eq(&self, other: &Self) -> bool {
        match (self.version.get(), other.version.get()) {
            (Some(own), Some(other)) => own == other,
            // Files that two versions of a tenant share are not compared.
            _ => self.files == other.files,
        }
    }
}

impl Eq for TenantRules {}

/// The complete rules of all tenants. A clone is one pointer.
#[derive(Clone, Debug, Default)]
pub struct RuleSet(Trie<Arc<TenantRules>>);

/// A tenant whose rules differ between two sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The tenant whose rules differ.
    pub tenant: Tenant,
    /// The tenant's old rules; `None` if the tenant is new.
    pub old: Option<Arc<TenantRules>>,
    /// The tenant's new rules; `None` if the tenant is gone.
    pub new: Option<Arc<TenantRules>>,
}

impl RuleSet {
    /// A set with rules that have no tenant.
    pub fn of_none(rules: Arc<TenantRules>) -> Self {
        Self::default().with(Tenant::from(""), rules)
    }

    /// The rules of a tenant.
    pub fn get(&self, tenant: &str) -> Option<&Arc<TenantRules>> {
        self.0.get(tenant)
    }

    /// A copy with the rules of one tenant added or replaced.
    #[must_use]
    pub fn with(&self, tenant: Tenant, rules: Arc<TenantRules>) -> Self {
        // Equal rules keep the old value, so that sets stay shared.
        if self.get(&tenant) == Some(&rules) {
            return self.clone();
        }
        Self(self.0.insert(tenant, rules))
    }

    /// A copy without a tenant.
    #[must_use]
    pub fn without(&self, tenant: &str) -> Self {
        Self(self.0.remove(tenant))
    }

    /// All tenants with their rules. The order depends only on the names, but is not sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&Tenant, &Arc<TenantRules>)> {
        self.0.iter()
    }

    /// The number of tenants.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no tenant.
    pub fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// The tenants whose rules differ, in the order of [`Self::iter`]. Takes time proportional to their
    /// number if one set was made from the other.
    pub fn diff(&self, new: &Self) -> Vec<Change> {
        self.diff_counting(new, &mut 0)
    }

    /// [`Self::diff`], which counts the visited nodes and rules in `visits`.
    fn diff_counting(&self, new: &Self, visits: &mut usize) -> Vec<Change> {
        let mut changes = Vec::new();
        self.0.diff(&new.0, visits, &mut |tenant, old, new| {
            changes.push(Change {
                tenant: tenant.clone(),
                old: old.cloned(),
                new: new.cloned(),
            });
        });
        changes
    }
}

impl PartialEq for RuleSet {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.diff(other).is_empty()
    }
}

impl Eq for RuleSet {}

impl FromIterator<(Tenant, Arc<TenantRules>)> for RuleSet {
    fn from_iter<I: IntoIterator<Item = (Tenant, Arc<TenantRules>)>>(rules: I) -> Self {
        rules
            .into_iter()
            .fold(Self::default(), |set, (tenant, rules)| {
                set.with(tenant, rules)
            })
    }
}

#[cfg(test)]
mod tests;
