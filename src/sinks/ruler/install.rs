//! Installs a set in a ruler's folder or file, and searches for the groups that the ruler refuses.
//!
//! A refusal says little about its cause. So the last set that the ruler accepted is restored first: if
//! the ruler refuses that set too, the fault lies in its own configuration, and no tenant is blamed.
//! Otherwise the changed tenants are added to that set by bisection, and then the changed groups of each
//! tenant at fault, so that one bad group among n tenants costs about 2·log n reloads. What did not
//! change stays loaded all the time.
//!
//! After a start, the last set is taken to be what is there, though its writer may have died
//! before the ruler judged it. So if the ruler refuses that one, the search starts from those of its
//! groups that the ruler says it has. A ruler is never given less than it has loaded: it would forget
//! which alerts are pending, of tenants that nobody blames.
//!
//! Only a verdict about the rules condemns a group. When the ruler fails for another reason, what it
//! accepted last is put back, for a ruler that restarts meanwhile, and nobody is blamed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tokio::task::spawn_blocking;

use metrifold_engine::planes::rules::{Joined, RuleSet};
use metrifold_model::Tenant;
use metrifold_rules::{Group, RuleFile, StoredFile, TenantRules, WriteError};

use super::client::{Failed, Listing, Reloaded, RulerClient};
use super::place::{OpenPlace, Place};
use super::same;
use super::way::{Heard, MAX_REFUSED, Outcome, Refused, Said};

/// Installs sets in the place that one ruler reads.
pub(super) struct Installer {
    place: Place,
    client: RulerClient,
    /// The place, unless it must be opened first.
    open: Option<OpenPlace>,
    /// The last set that was installed, refused groups included; `None` if it must be installed again.
    wanted: Option<Joined>,
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
    /// A group, instead of that of its name if there is one.
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
        let (groups, missing) = self.compare(good, loaded).await?;
        Ok(Heard {
            asked: None,
            groups,
            missing,
            unheard: None,
        })
    }

    async fn compare(
        &self,
        set: RuleSet,
        loaded: Listing,
    ) -> Result<(Vec<Said>, Option<String>), String> {
        let place = self.place.clone();
        let compared = spawn_blocking(move || {
            let own = place.own(&set, loaded.groups()?);
            same::compare(&set, own, |tenant, file| place.shows(tenant, file))
        });
        compared.await.map_err(|error| error.to_string())?
    }

    /// Has the next call of [`Self::install`] write the set again, even if it is unchanged.
    pub(super) fn forget(&mut self) {
        self.wanted = None;
    }

    /// Installs a set.
    pub(super) async fn install(&mut self, joined: &Joined) -> Outcome {
        if self.wanted.as_ref() == Some(joined) {
            return Outcome::Same;
        }
        match self.bring(joined).await {
            Ok(()) => {
                self.wanted = Some(joined.clone());
                Outcome::Loaded
            }
            Err(reason) => Outcome::Failed(match self.restore().await {
                Ok(()) => reason,
                Err(unwritten) => {
                    format!("{reason}; its previous rules were not restored: {unwritten}")
                }
            }),
        }
    }

    /// Puts back what the ruler accepted last, or else what the place held at the start, for a ruler that
    /// restarts meanwhile: with rules that it refuses, it would not start. A first set stays.
    async fn restore(&mut self) -> Result<(), String> {
        let held = self.held.as_ref().filter(|held| !held.is_empty());
        match self.good.as_ref().or(held).cloned() {
            Some(good) => self.write(good).await,
            None => Ok(()),
        }
    }

    async fn bring(&mut self, joined: &Joined) -> Result<(), String> {
        if self.held.is_none() {
            // The ruler most likely has the rules that a previous process left there. They are read once: at
            // the next attempt, the place may hold others.
            self.held = Some(self.held().await?);
        }
        let old = self.good.as_ref().or(self.held.as_ref());
        let set = joined.keeping(&old.cloned().unwrap_or_default());
        self.keep_refused_of(&set);
        let set = self.without_refused(&set);
        let Tried::Refused(reason) = self.try_set(&set).await? else {
            self.accept(set);
            return Ok(());
        };
        let good = match self.good.clone() {
            Some(good) => match self.try_set(&good).await? {
                Tried::Taken => Some(good),
                Tried::Refused(_) => None,
            },
            None => self.first_good().await?,
        };
        let Some(good) = good else {
            return Err(format!(
                "{reason}; the ruler refuses its previous rules as well, so the cause is in its own configuration"
            ));
        };
        self.accept(good.clone());
        let changes = good.diff(&set).into_iter();
        let parts = changes.map(|change| Part::Tenant(change.tenant, change.new));
        let (mut good, guilty) = self.search(good, parts.collect()).await?;
        let mut refused = self.refused.clone();
        for (part, reason) in guilty {
            let Part::Tenant(tenant, Some(rules)) = part else {
                return Err(reason);
            };
            good = self
                .search_tenant(good, tenant, &rules, &mut refused)
                .await?;
        }
        // The place may hold a set of the search that the ruler refused.
        match self.try_set(&good).await? {
            Tried::Taken => {
                self.accept(good);
                self.refused = refused;
                Ok(())
            }
            Tried::Refused(reason) => Err(reason),
        }
    }

    /// Finds a set that the ruler accepts, after a start at which it refuses the newest: what the place
    /// held then, or what the ruler has of that, which may be nothing. `None` if it refuses both.
    async fn first_good(&mut self) -> Result<Option<RuleSet>, String> {
        let held = self.held.clone().unwrap_or_default();
        if let Tried::Taken = self.try_set(&held).await? {
            return Ok(Some(held));
        }
        let loaded = self.loaded_of(&held).await?;
        if let Tried::Taken = self.try_set(&loaded).await? {
            return Ok(Some(loaded));
        }
        // A ruler that is restarted to mend its configuration must find its rules there.
        self.write(held).await?;
        Ok(None)
    }

    /// The groups of a set that the ruler says it has.
    async fn loaded_of(&self, set: &RuleSet) -> Result<RuleSet, String> {
        let listing = self.client.rules().await.map_err(Failed::into_reason)?;
        let (said, _) = self.compare(set.clone(), listing).await?;
        let mut loaded: HashMap<String, HashSet<(String, String)>> = HashMap::new();
        for said in said {
            let groups = loaded.entry(said.tenant).or_default();
            groups.insert((said.file, said.group));
        }
        let tenants = set.iter().filter_map(|(tenant, rules)| {
            let loaded = loaded.get(&**tenant)?;
            let is_loaded =
                |file: &str, group: &Group| loaded.contains(&(file.to_owned(), group.name.clone()));
            Some((tenant.clone(), Arc::new(mixed(None, rules, is_loaded))))
        });
        Ok(tenants.collect())
    }

    /// Remembers a set that the ruler has accepted.
    fn accept(&mut self, good: RuleSet) {
        self.good = Some(good);
        self.held = Some(RuleSet::default());
    }

    /// Installs those changed groups of a tenant that the ruler accepts, and the previous version of the
    /// others. Returns the set with them.
    async fn search_tenant(
        &mut self,
        base: RuleSet,
        tenant: Tenant,
        rules: &TenantRules,
        all_refused: &mut Vec<Refused>,
    ) -> Result<RuleSet, String> {
        let old = base.get(&tenant).cloned();
        let is_old = |file: &str, group: &Group| {
            let file = old.as_ref().and_then(|old| old.file(file));
            file.is_some_and(|file| file.file().groups.contains(group))
        };
        let groups = rules.files().flat_map(|(name, stored)| {
            let groups = stored.file().groups.iter();
            groups.map(move |group| (name, group))
        });
        let changed = groups.filter(|(name, group)| !is_old(name, group));
        let part = |(name, group): (&Arc<str>, &Group)| {
            Part::Group(tenant.clone(), name.clone(), group.clone())
        };
        let parts: Vec<_> = changed.map(part).collect();
        let unchanged = mixed(old.as_deref(), rules, is_old);
        let start = base.with(tenant.clone(), Arc::new(unchanged));
        let (good, guilty) = self.search(start, parts).await?;
        let guilty = guilty.into_iter().filter_map(|(part, reason)| match part {
            Part::Group(tenant, file, group) => Some(Refused {
                tenant,
                file,
                group,
                reason,
            }),
            Part::Tenant(..) => None,
        });
        let refused: Vec<_> = guilty.collect();
        // The same groups, in the order of the tenant's file.
        let is_taken = |file: &str, group: &Group| !is_refused(&refused, file, group);
        let taken = mixed(old.as_deref(), rules, is_taken);
        let left = MAX_REFUSED.saturating_sub(all_refused.len());
        all_refused.extend(refused.into_iter().take(left));
        Ok(good.with(tenant, Arc::new(taken)))
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
                Tried::Taken => {
                    self.accept(trial.clone());
                    good = trial;
                }
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
        self.write(set.clone()).await?;
        match self.client.reload().await {
            Reloaded::Done => Ok(Tried::Taken),
            Reloaded::Refused(reason) => Ok(Tried::Refused(reason)),
            Reloaded::Failed(reason) => Err(reason),
        }
    }

    /// Writes a set to the place.
    async fn write(&mut self, set: RuleSet) -> Result<(), String> {
        let (place, open) = (self.place.clone(), self.open.take());
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
        Ok(())
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
        let mut by_tenant: BTreeMap<&Tenant, Vec<&Refused>> = BTreeMap::new();
        for refused in &self.refused {
            by_tenant.entry(&refused.tenant).or_default().push(refused);
        }
        let mut set = set.clone();
        for (tenant, refused) in by_tenant {
            let Some(rules) = set.get(tenant) else {
                continue;
            };
            let old = self.good.as_ref().and_then(|good| good.get(tenant));
            let is_taken =
                |file: &str, group: &Group| !is_refused(refused.iter().copied(), file, group);
            let rules = mixed(old.map(|old| &**old), rules, is_taken);
            set = set.with(tenant.clone(), Arc::new(rules));
        }
        set
    }
}

fn is_refused<'r>(
    refused: impl IntoIterator<Item = &'r Refused>,
    file: &str,
    group: &Group,
) -> bool {
    let mut refused = refused.into_iter();
    refused.any(|refused| *refused.file == *file && refused.group == *group)
}

/// A tenant's rules, in which groups that are not taken are as they were before, or left out if they are
/// new.
fn mixed(
    old: Option<&TenantRules>,
    new: &TenantRules,
    is_taken: impl Fn(&str, &Group) -> bool,
) -> TenantRules {
    let files = new.files().map(|(name, stored)| {
        let groups = &stored.file().groups;
        if groups.iter().all(|group| is_taken(name, group)) {
            return (name.clone(), stored.clone());
        }
        let old = old.and_then(|old| old.file(name));
        let old = |name: &str| {
            let mut groups = old?.file().groups.iter();
            groups.find(|group| group.name == name)
        };
        let groups = groups
            .iter()
            .filter_map(|group| match is_taken(name, group) {
                true => Some(group),
                false => old(&group.name),
            });
        let groups = groups.cloned().collect();
        (name.clone(), Arc::new(StoredFile::new(RuleFile { groups })))
    });
    TenantRules::new(files)
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
                let groups = &mut file.groups;
                match groups.iter_mut().find(|old| old.name == group.name) {
                    Some(old) => old.clone_from(group),
                    None => groups.push(group.clone()),
                }
                let file = Arc::new(StoredFile::new(file));
                let rules = rules.with_file(name.clone(), file);
                set.with(tenant.clone(), Arc::new(rules))
            }
        }
    }
}
