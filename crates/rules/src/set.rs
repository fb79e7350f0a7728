//! What all tenants have: a map from tenant to files that is cheap to copy and to compare.
//!
//! A set that was made from another one shares with it what did not change, so [`RuleSet::diff`]
//! looks at nothing but the way to what did.

mod trie;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::Version;
use crate::file::RuleFile;
use trie::Trie;

/// A tenant's name. The empty one is of rules that have no tenant, such as those from a folder.
pub type Tenant = Arc<str>;

/// A file with the version of its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    file: RuleFile,
    version: Version,
}

impl StoredFile {
    /// Takes a file and computes its version, that of its canonical text.
    pub fn new(file: RuleFile) -> Self {
        let version = Version::of(file.to_yaml().as_bytes());
        Self { file, version }
    }

    /// What it holds.
    pub fn file(&self) -> &RuleFile {
        &self.file
    }

    /// The version: equal for equal files.
    pub fn version(&self) -> Version {
        self.version
    }
}

/// The files of one tenant by name. Names are any text; a store or a folder escapes them.
#[derive(Clone, Debug)]
pub struct TenantRules {
    files: BTreeMap<Arc<str>, Arc<StoredFile>>,
    version: Version,
}

impl TenantRules {
    /// Rules of so many files; the last one of a name counts.
    pub fn new(files: impl IntoIterator<Item = (Arc<str>, Arc<StoredFile>)>) -> Self {
        let files: BTreeMap<_, _> = files.into_iter().collect();
        let parts = files
            .iter()
            .flat_map(|(name, file)| [name.as_bytes(), file.version.as_bytes()]);
        let version = Version::of_parts(parts);
        Self { files, version }
    }

    /// The same with one file added or replaced.
    pub fn with_file(&self, name: Arc<str>, file: Arc<StoredFile>) -> Self {
        let others = self
            .files()
            .map(|(name, file)| (name.clone(), file.clone()));
        Self::new(others.chain([(name, file)]))
    }

    /// The same without one file.
    pub fn without_file(&self, name: &str) -> Self {
        let others = self.files().filter(|(other, _)| &***other != name);
        Self::new(others.map(|(name, file)| (name.clone(), file.clone())))
    }

    /// A file by its name.
    pub fn file(&self, name: &str) -> Option<&Arc<StoredFile>> {
        self.files.get(name)
    }

    /// The files, sorted by name.
    pub fn files(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, &Arc<StoredFile>)> {
        self.files.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The number of rules in all files.
    pub fn rules(&self) -> usize {
        self.files.values().map(|file| file.file.rules()).sum()
    }

    /// The version: equal for equal names and files.
    pub fn version(&self) -> Version {
        self.version
    }
}

impl PartialEq for TenantRules {
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version
    }
}

impl Eq for TenantRules {}

/// The complete rules of all tenants. A clone is one pointer.
#[derive(Clone, Debug, Default)]
pub struct RuleSet(Trie<Arc<TenantRules>>);

/// A tenant whose rules differ between two sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose rules they are.
    pub tenant: Tenant,
    /// What it had; none if it is new.
    pub old: Option<Arc<TenantRules>>,
    /// What it has; none if it is gone.
    pub new: Option<Arc<TenantRules>>,
}

impl RuleSet {
    /// A set of rules that have no tenant.
    pub fn of_none(rules: Arc<TenantRules>) -> Self {
        Self::default().with(Tenant::from(""), rules)
    }

    /// The rules of a tenant.
    pub fn get(&self, tenant: &str) -> Option<&Arc<TenantRules>> {
        self.0.get(tenant)
    }

    /// The same set with the rules of one tenant set or replaced.
    #[must_use]
    pub fn with(&self, tenant: Tenant, rules: Arc<TenantRules>) -> Self {
        // An equal one stays, so that what is equal stays shared.
        if self.get(&tenant) == Some(&rules) {
            return self.clone();
        }
        Self(self.0.insert(tenant, rules))
    }

    /// The same set without a tenant.
    #[must_use]
    pub fn without(&self, tenant: &str) -> Self {
        Self(self.0.remove(tenant))
    }

    /// All tenants with their rules, in an order that depends on their names alone but is not
    /// sorted.
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

    /// The tenants whose rules differ, in the order of [`Self::iter`]. Takes time in proportion to
    /// their number if one set was made from the other.
    pub fn diff(&self, new: &Self) -> Vec<Change> {
        self.diff_counting(new, &mut 0)
    }

    /// [`Self::diff`], which adds to `visits` the nodes and rules that it looks at.
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
