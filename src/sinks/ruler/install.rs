//! Bringing a set to a ruler, and finding out which of its groups the ruler does not take.
//!
//! A refusal says little about its cause. So what the ruler took before is restored first: if it
//! refuses that, too, the cause is elsewhere, in its own configuration, and no tenant's. Otherwise
//! the tenants that changed are tried by halves on top of that, and of a tenant that is at fault its
//! groups, so that a set of n tenants with one culprit costs some 2·log n reloads.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::spawn_blocking;

use metrifold_engine::planes::rules::RuleSet;
use metrifold_model::Tenant;
use metrifold_rules::{Group, RuleFile, RulesDirectory, StoredFile, TenantRules, decode_name};

use super::client::{LoadedGroup, Reloaded, RulerClient};
use super::way::{Heard, MAX_REFUSED, Outcome, Refused};

/// Brings sets to one ruler.
pub(super) struct Installer {
    path: PathBuf,
    client: RulerClient,
    directory: Option<RulesDirectory>,
    /// The set that was wanted last, once the ruler has taken of it what it takes.
    wanted: Option<RuleSet>,
    /// What the ruler has taken.
    good: Option<RuleSet>,
    refused: Vec<Refused>,
    /// What the folder held before this run.
    held: RuleSet,
}

/// Something that can be added to a set.
#[derive(Clone)]
enum Part {
    /// All that a tenant has, or that it has nothing.
    Tenant(Tenant, Option<Arc<TenantRules>>),
    Group(Tenant, Arc<str>, Group),
}

/// What a ruler says to a set.
enum Tried {
    Taken,
    Refused(String),
}

impl Installer {
    pub(super) fn new(path: PathBuf, client: RulerClient) -> Self {
        Self {
            path,
            client,
            directory: None,
            wanted: None,
            good: None,
            refused: Vec::new(),
            held: RuleSet::default(),
        }
    }

    /// What the ruler has taken.
    pub(super) fn good(&self) -> Option<&RuleSet> {
        self.good.as_ref()
    }

    /// The groups that it does not take.
    pub(super) fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// Asks the ruler what it has.
    pub(super) async fn look(&self) -> Result<Heard, String> {
        let loaded = self.client.rules().await?;
        let own = loaded.into_iter().filter_map(|group| {
            let (tenant, file) = own_file(&group.file, &self.path)?;
            Some((tenant, file, group))
        });
        let groups: Vec<_> = own.collect();
        let missing = self.missing(&groups);
        Ok(Heard {
            asked: None,
            groups,
            missing,
        })
    }

    /// A group that the ruler should have and has not.
    fn missing(&self, loaded: &[(String, String, LoadedGroup)]) -> Option<String> {
        let named = |(tenant, file, group): &(String, String, LoadedGroup)| {
            (tenant.clone(), file.clone(), group.name.clone())
        };
        let loaded: BTreeSet<_> = loaded.iter().map(named).collect();
        for (tenant, rules) in self.good.as_ref()?.iter() {
            for (file, stored) in rules.files() {
                let groups = stored.file().groups.iter();
                for group in groups.filter(|group| !group.rules.is_empty()) {
                    let key = (tenant.to_string(), file.to_string(), group.name.clone());
                    if !loaded.contains(&key) && is_decodable(tenant, file) {
                        return Some(format!("group {:?} of tenant {tenant:?}", group.name));
                    }
                }
            }
        }
        None
    }

    /// Takes nothing of what was brought for brought.
    pub(super) fn forget(&mut self) {
        self.wanted = None;
    }

    /// Brings a set.
    pub(super) async fn install(&mut self, set: &RuleSet) -> Outcome {
        if self.wanted.as_ref() == Some(set) {
            return Outcome::Same;
        }
        let installed = self.bring(set).await;
        match installed {
            Ok(()) => {
                self.wanted = Some(set.clone());
                Outcome::Loaded
            }
            Err(reason) => Outcome::Failed(reason),
        }
    }

    async fn bring(&mut self, set: &RuleSet) -> Result<(), String> {
        self.keep_refused_of(set);
        let set = self.without_refused(set);
        if self.good.is_none() {
            // What another run has left there is what the ruler has, most likely.
            self.held = self.held().await?;
        }
        let Tried::Refused(_) = self.try_set(&set).await? else {
            self.good = Some(set);
            return Ok(());
        };
        let good = self.good.clone().unwrap_or_else(|| self.held.clone());
        if let Tried::Refused(reason) = self.try_set(&good).await? {
            return Err(format!(
                "{reason}; it refuses what it took before as well, so the cause is in its own configuration"
            ));
        }
        let changes = good.diff(&set).into_iter();
        let parts = changes.map(|change| Part::Tenant(change.tenant, change.new));
        let (mut good, guilty) = self.search(good, parts.collect()).await?;
        for (part, reason) in guilty {
            let Part::Tenant(tenant, Some(rules)) = part else {
                return Err(reason);
            };
            good = self.search_tenant(good, tenant, &rules).await?;
        }
        // What was tried last need not be what it took.
        match self.try_set(&good).await? {
            Tried::Taken => {
                self.good = Some(good);
                Ok(())
            }
            Tried::Refused(reason) => Err(reason),
        }
    }

    /// Brings the groups of a tenant that the ruler takes, and what it had of the others.
    async fn search_tenant(
        &mut self,
        base: RuleSet,
        tenant: Tenant,
        rules: &TenantRules,
    ) -> Result<RuleSet, String> {
        let old = base.get(&tenant).cloned();
        let old_group = |file: &str, name: &str| {
            let file = old.as_ref()?.file(file)?.file();
            file.groups.iter().find(|group| group.name == name).cloned()
        };
        let groups = rules.files().flat_map(|(name, stored)| {
            let groups = stored.file().groups.iter();
            groups.map(|group| Part::Group(tenant.clone(), name.clone(), group.clone()))
        });
        let parts: Vec<_> = groups.collect();
        let bare = base.without(&tenant);
        let (mut good, guilty) = self.search(bare, parts).await?;
        for (part, reason) in guilty {
            let Part::Group(tenant, file, group) = part else {
                continue;
            };
            if let Some(old) = old_group(&file, &group.name) {
                good = Part::Group(tenant.clone(), file.clone(), old).added_to(&good);
            }
            if self.refused.len() < MAX_REFUSED {
                self.refused.push(Refused {
                    tenant,
                    file,
                    group,
                    reason,
                });
            }
        }
        Ok(good)
    }

    /// Adds parts to a set that the ruler takes, but for those that it refuses.
    async fn search(
        &mut self,
        base: RuleSet,
        parts: Vec<Part>,
    ) -> Result<(RuleSet, Vec<(Part, String)>), String> {
        let (mut good, mut guilty) = (base, Vec::new());
        let mut open = vec![parts];
        while let Some(mut parts) = open.pop() {
            if parts.is_empty() {
                continue;
            }
            let trial = parts
                .iter()
                .fold(good.clone(), |set, part| part.added_to(&set));
            match self.try_set(&trial).await? {
                Tried::Taken => good = trial,
                Tried::Refused(reason) if parts.len() == 1 => {
                    guilty.extend(parts.pop().map(|part| (part, reason)));
                }
                Tried::Refused(_) => {
                    let second = parts.split_off(parts.len() / 2);
                    open.push(second);
                    open.push(parts);
                }
            }
        }
        Ok((good, guilty))
    }

    /// What the folder holds.
    async fn held(&mut self) -> Result<RuleSet, String> {
        let path = self.path.clone();
        let opened = spawn_blocking(move || {
            let directory = RulesDirectory::open(&path)?;
            let held = directory.held();
            Ok::<_, metrifold_rules::DirectoryError>((directory, held))
        });
        let opened = opened.await.map_err(|error| error.to_string())?;
        let (directory, held) = opened.map_err(|error| error.to_string())?;
        self.directory = Some(directory);
        Ok(held)
    }

    /// Has the folder hold a set, and the ruler read it.
    async fn try_set(&mut self, set: &RuleSet) -> Result<Tried, String> {
        let (path, directory, set) = (self.path.clone(), self.directory.take(), set.clone());
        let written = spawn_blocking(move || {
            let mut directory = match directory {
                Some(directory) => directory,
                None => RulesDirectory::open(&path)?,
            };
            directory.apply(&set)?;
            Ok::<_, metrifold_rules::DirectoryError>(directory)
        });
        let written = written.await.map_err(|error| error.to_string())?;
        // What is known of a folder that could not be written may no longer hold.
        self.directory = Some(written.map_err(|error| error.to_string())?);
        match self.client.reload().await {
            Reloaded::Done => Ok(Tried::Taken),
            Reloaded::Refused(reason) => Ok(Tried::Refused(reason)),
            Reloaded::Failed(reason) => Err(reason),
        }
    }

    /// Forgets refusals of groups that a set does not have as they were.
    fn keep_refused_of(&mut self, set: &RuleSet) {
        self.refused.retain(|refused| {
            let file = set
                .get(&refused.tenant)
                .and_then(|rules| rules.file(&refused.file));
            file.is_some_and(|file| file.file().groups.contains(&refused.group))
        });
    }

    /// The set with what the ruler had of the groups that it refuses, or without them.
    fn without_refused(&self, set: &RuleSet) -> RuleSet {
        let mut set = set.clone();
        for refused in &self.refused {
            let Some(rules) = set.get(&refused.tenant).cloned() else {
                continue;
            };
            let Some(stored) = rules.file(&refused.file) else {
                continue;
            };
            let had = self.good.as_ref().and_then(|good| {
                let file = good.get(&refused.tenant)?.file(&refused.file)?.file();
                let groups = &mut file.groups.iter();
                groups
                    .find(|group| group.name == refused.group.name)
                    .cloned()
            });
            let groups =
                stored
                    .file()
                    .groups
                    .iter()
                    .filter_map(|group| match *group == refused.group {
                        true => had.clone(),
                        false => Some(group.clone()),
                    });
            let file = RuleFile {
                groups: groups.collect(),
            };
            let file = Arc::new(StoredFile::new(file));
            let rules = rules.with_file(refused.file.clone(), file);
            set = set.with(refused.tenant.clone(), Arc::new(rules));
        }
        set
    }
}

impl Part {
    fn added_to(&self, set: &RuleSet) -> RuleSet {
        match self {
            Self::Tenant(tenant, Some(rules)) => set.with(tenant.clone(), rules.clone()),
            Self::Tenant(tenant, None) => set.without(tenant),
            Self::Group(tenant, name, group) => {
                let none = || Arc::new(TenantRules::new([]));
                let rules = set.get(tenant).cloned().unwrap_or_else(none);
                let mut file = rules
                    .file(name)
                    .map_or_else(RuleFile::default, |stored| stored.file().clone());
                file.groups.push(group.clone());
                let file = Arc::new(StoredFile::new(file));
                let rules = rules.with_file(name.clone(), file);
                set.with(tenant.clone(), Arc::new(rules))
            }
        }
    }
}

/// The tenant and the file that a path of the ruler's is of, if it lies in the folder.
fn own_file(path: &str, folder: &Path) -> Option<(String, String)> {
    let path = Path::new(path);
    // The ruler may see the folder under another path, but hardly under another name.
    let same = path.parent()?.file_name()? == folder.file_name()?;
    same.then(|| decode_name(path.file_name()?.to_str()?))?
}

/// Whether the name of a tenant's file says which it is: one that would be too long does not.
fn is_decodable(tenant: &str, file: &str) -> bool {
    3 * (tenant.len() + file.len()) < 180
}
