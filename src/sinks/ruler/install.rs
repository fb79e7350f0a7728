//! Installs a set in a ruler's folder or file, and searches for the groups that the ruler refuses.
//!
//! A refusal says little about its cause. So the last set that the ruler accepted is restored first: if
//! the ruler refuses that set too, the fault lies in its own configuration, and no tenant is blamed.
//! Otherwise the changed tenants are added to that set by bisection, and then the groups of each tenant
//! at fault, so that one bad group among n tenants costs about 2·log n reloads.
//!
//! After a start, the last set is taken to be what is there, though its writer may have died
//! before the ruler judged it. So if the ruler refuses that one, it is given no rules, and if it accepts
//! these, the search starts from them.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use metrifold_engine::planes::rules::RuleSet;
use metrifold_model::Tenant;
use metrifold_rules::{Group, RuleFile, StoredFile, TenantRules, WriteError};

use super::client::{Failed, LoadedGroup, Reloaded, RulerClient};
use super::place::{OpenPlace, Place};
use super::way::{Heard, MAX_REFUSED, Outcome, Refused};

/// Installs sets in the place that one ruler reads.
pub(super) struct Installer {
    place: Place,
    client: RulerClient,
    /// The place, unless it must be opened first.
    open: Option<OpenPlace>,
    /// The last set that was installed, refused groups included; `None` if it must be installed again.
    wanted: Option<RuleSet>,
    /// The last set that the ruler accepted; `None` before the first.
    good: Option<RuleSet>,
    refused: Vec<Refused>,
    /// Rules that the place held when this process started; `None` before they are read.
    held: Option<RuleSet>,
}

/// Something that can be added to a set.
#[derive(Clone)]
enum Part {
    /// All files of a tenant; `None` removes the tenant.
    Tenant(Tenant, Option<Arc<TenantRules>>),
    Group(Tenant, Arc<str>, Group),
}

/// A ruler's verdict on a set.
enum Tried {
    Taken,
    Refused(String),
}

impl Installer {
    pub(super) fn new(place: Place, client: RulerClient) -> Self {
        Self {
            place,
            client,
            open: None,
            wanted: None,
            good: None,
            refused: Vec::new(),
            held: None,
        }
    }

    /// The last set that the ruler accepted; `None` before the first.
    pub(super) fn good(&self) -> Option<&RuleSet> {
        self.good.as_ref()
    }

    /// The groups that the ruler refuses.
    pub(super) fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// Likely cause if the ruler lacks rules that were delivered, for the log.
    pub(super) fn hint(&self) -> &'static str {
        self.place.hint()
    }

    /// Reads the ruler's loaded groups.
    pub(super) async fn look(&self) -> Result<Heard, String> {
        let loaded = self.client.rules().await.map_err(Failed::into_reason)?;
        let good = self.good.clone().unwrap_or_default();
        let groups = self.place.own(&good, loaded);
        let missing = self.missing(&groups);
        Ok(Heard {
            asked: None,
            groups,
            missing,
            unheard: None,
        })
    }

    /// Name of a group that is missing in the ruler although it was accepted, if there is one.
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
                    if !loaded.contains(&key) && self.place.shows(tenant, file) {
                        return Some(format!("group {:?} of tenant {tenant:?}", group.name));
                    }
                }
            }
        }
        None
    }

    /// Has the next call of [`Self::install`] write the set again, even if it is unchanged.
    pub(super) fn forget(&mut self) {
        self.wanted = None;
    }

    /// Installs a set.
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
        if self.held.is_none() {
            // The ruler most likely has the rules that a previous process left there. They are read once: at
            // the next attempt, the place may hold others.
            self.held = Some(self.held().await?);
        }
        let Tried::Refused(_) = self.try_set(&set).await? else {
            self.accept(set);
            return Ok(());
        };
        let held = self.held.clone().unwrap_or_default();
        let mut good = self.good.clone().unwrap_or_else(|| held.clone());
        if let Tried::Refused(reason) = self.try_set(&good).await? {
            let was_judged = self.good.is_some();
            good = RuleSet::default();
            if was_judged || matches!(self.try_set(&good).await?, Tried::Refused(_)) {
                if !was_judged {
                    // A ruler that is restarted to mend its configuration must find its rules there.
                    self.try_set(&held).await?;
                }
                return Err(format!(
                    "{reason}; the ruler refuses its previous rules as well, so the cause is in its own configuration"
                ));
            }
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
        // The place may hold a set of the search that the ruler refused.
        match self.try_set(&good).await? {
            Tried::Taken => {
                self.accept(good);
                Ok(())
            }
            Tried::Refused(reason) => Err(reason),
        }
    }

    /// Remembers a set that the ruler has accepted.
    fn accept(&mut self, good: RuleSet) {
        self.good = Some(good);
        self.held = Some(RuleSet::default());
    }

    /// Installs those groups of a tenant that the ruler accepts, and the previous version of the
    /// others.
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

    /// Adds parts to a set that the ruler accepts, except those that it refuses.
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

    /// Reads the rules in the place.
    async fn held(&mut self) -> Result<RuleSet, String> {
        let place = self.place.clone();
        let opened = spawn_blocking(move || {
            let open = place.open()?;
            let held = open.held();
            Ok::<_, WriteError>((open, held))
        });
        let opened = opened.await.map_err(|error| error.to_string())?;
        let (open, held) = opened.map_err(|error| error.to_string())?;
        self.open = Some(open);
        Ok(held)
    }

    /// Writes a set to the place and reloads the ruler.
    async fn try_set(&mut self, set: &RuleSet) -> Result<Tried, String> {
        let (place, open, set) = (self.place.clone(), self.open.take(), set.clone());
        let written = spawn_blocking(move || {
            let mut open = match open {
                Some(open) => open,
                None => place.open()?,
            };
            open.apply(&set)?;
            Ok::<_, WriteError>(open)
        });
        let written = written.await.map_err(|error| error.to_string())?;
        // After a failed write the place's state is unknown: it is opened again.
        self.open = Some(written.map_err(|error| error.to_string())?);
        match self.client.reload().await {
            Reloaded::Done => Ok(Tried::Taken),
            Reloaded::Refused(reason) => Ok(Tried::Refused(reason)),
            Reloaded::Failed(reason) => Err(reason),
        }
    }

    /// Forgets the refusals of groups that have changed or are gone in a set.
    fn keep_refused_of(&mut self, set: &RuleSet) {
        self.refused.retain(|refused| {
            let file = set
                .get(&refused.tenant)
                .and_then(|rules| rules.file(&refused.file));
            file.is_some_and(|file| file.file().groups.contains(&refused.group))
        });
    }

    /// The set with each refused group replaced by its last accepted version, or removed if it has
    /// none.
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
