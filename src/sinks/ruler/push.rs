//! Pushes rules to a ruler of Mimir or Cortex, which keeps the rules of each tenant in its own store.
//! Groups are pushed to its configuration API one by one, so that a refusal names its group.
//!
//! A file is a namespace, whose name begins with a prefix: the API tells no owner of a group, so the prefix
//! does. Groups that the ruler has already are not pushed, also after a restart; groups that only the
//! ruler has are removed from namespaces with the prefix, and other namespaces are not touched. A bounded
//! number of tenants is pushed concurrently; the groups of one tenant are pushed in order. After a push
//! that failed, which of the tenant's groups the ruler has is unknown: they are read again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode, Uri};
use serde_json::{Value, json};

use metrifold_engine::planes::rules::{Joined, RuleSet};
use metrifold_model::Tenant;
use metrifold_rules::{Change, Checks, Group, RuleFile, TenantRules, any_expr};

use super::client::{Failed, Listing, RulerClient, excerpt};
use super::same;
use super::way::{Heard, MAX_REFUSED, Outcome, Refused};
use crate::rules::side_by_side;

/// Number of tenants whose state is read in one round: each costs two requests.
const MAX_ASKED: usize = 200;

/// Pushes sets to one ruler.
pub(super) struct Pusher {
    api: ConfigApi,
    /// Maximum number of tenants that are pushed concurrently.
    at_once: usize,
    /// The set that was pushed, without the groups that the ruler refuses; `None` before the first
    /// push.
    good: Option<RuleSet>,
    refused: Vec<Refused>,
    /// Tenants of which the ruler may have other rules than those that were pushed.
    unsure: BTreeSet<Tenant>,
    /// Tenants whose rules were pushed since their state was read: the next rounds begin with them.
    fresh: BTreeSet<Tenant>,
    /// The last of the other tenants whose state was read, where the next round continues.
    asked: Option<Tenant>,
}

/// The configuration API of a ruler.
#[derive(Clone)]
struct ConfigApi {
    client: RulerClient,
    url: Uri,
    /// Beginning of the names of all namespaces that belong to the sink.
    prefix: Arc<str>,
}

/// Outcome of pushing a tenant's rules.
struct Pushed {
    change: Change,
    /// The pushed groups that the ruler refuses.
    refused: Vec<Refused>,
    outcome: Result<(), Trouble>,
}

/// A tenant's groups as the ruler reports them.
struct Found {
    there: Namespaces,
    loaded: Listing,
}

/// Why a tenant's rules were not pushed.
enum Trouble {
    /// The ruler answered with an error for this tenant.
    Tenant(String),
    /// The ruler did not answer.
    Ruler(String),
}

impl From<Failed> for Trouble {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Silent(reason) => Self::Ruler(reason),
            Failed::Answered(reason) => Self::Tenant(reason),
        }
    }
}

impl Trouble {
    fn answered(status: StatusCode, answer: &[u8]) -> Self {
        Self::Tenant(format!("the ruler answered {status}: {}", excerpt(answer)))
    }

    fn into_reason(self) -> String {
        let (Self::Tenant(reason) | Self::Ruler(reason)) = self;
        reason
    }
}

/// The groups that a tenant has in namespaces of the sink, by the name of the file and their own; `None`
/// for one that cannot be read.
type Namespaces = BTreeMap<String, BTreeMap<String, Option<Group>>>;

impl Pusher {
    pub(super) fn new(client: RulerClient, url: Uri, prefix: &str, at_once: usize) -> Self {
        let prefix = prefix.into();
        Self {
            api: ConfigApi {
                client,
                url,
                prefix,
            },
            at_once,
            good: None,
            refused: Vec::new(),
            unsure: BTreeSet::new(),
            fresh: BTreeSet::new(),
            asked: None,
        }
    }

    pub(super) fn good(&self) -> Option<&RuleSet> {
        self.good.as_ref()
    }

    pub(super) fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// Has the next call of [`Self::install`] remove the rules of these tenants, which now belong to
    /// another ruler and may have belonged to this one before.
    pub(super) fn disown(&mut self, tenants: Vec<Tenant>) {
        self.unsure.extend(tenants);
    }

    /// Pushes the changed tenants, but for those in conflict. A failure of one tenant does not hold up
    /// the others.
    pub(super) async fn install(&mut self, joined: &Joined) -> Outcome {
        let mut now = self.good.clone().unwrap_or_default();
        let mut changes = now.diff(&joined.set);
        changes.retain(|change| !self.unsure.contains(&change.tenant));
        changes.extend(self.unsure.iter().map(|tenant| Change {
            tenant: tenant.clone(),
            old: None,
            new: joined.set.get(tenant).cloned(),
        }));
        changes.retain(|change| !joined.conflicts.contains_key(&change.tenant));
        if changes.is_empty() && self.good.is_some() {
            return Outcome::Same;
        }
        let jobs = changes.into_iter().map(|change| {
            let refused = self.refused.iter();
            let refused = refused.filter(|refused| refused.tenant == change.tenant);
            let refused: Vec<Refused> = refused.cloned().collect();
            (change, refused)
        });
        let jobs: Vec<_> = jobs.collect();
        let api = self.api.clone();
        let pushes = jobs
            .into_iter()
            .map(|(change, refused)| api.clone().push(change, refused));
        let (refused, unsure, fresh) = (&mut self.refused, &mut self.unsure, &mut self.fresh);
        let (mut failed, mut answers) = (None, true);
        side_by_side(self.at_once, pushes, |pushed| {
            let tenant = pushed.change.tenant;
            refused.retain(|refused| refused.tenant != tenant);
            refused.extend(pushed.refused);
            refused.truncate(MAX_REFUSED);
            match pushed.outcome {
                Ok(()) => {
                    unsure.remove(&tenant);
                    fresh.insert(tenant.clone());
                    now = match pushed.change.new {
                        Some(rules) => now.with(tenant, rules),
                        None => now.without(&tenant),
                    };
                    true
                }
                Err(trouble) => {
                    // A ruler that does not answer is not tried for the remaining tenants.
                    answers &= matches!(trouble, Trouble::Tenant(_));
                    let reason = format!("tenant {tenant:?}: {}", trouble.into_reason());
                    failed.get_or_insert(reason);
                    unsure.insert(tenant);
                    answers
                }
            }
        })
        .await;
        self.good = Some(now);
        match failed {
            None => Outcome::Loaded,
            Some(reason) if answers => Outcome::Partly(reason),
            Some(reason) => Outcome::Failed(reason),
        }
    }

    /// Reads the state of the next tenants, round robin. A tenant that lacks a group is pushed again by
    /// the next call of [`Self::install`].
    pub(super) async fn look(&mut self) -> Result<Heard, String> {
        let good = self.good.clone().unwrap_or_default();
        let mut tenants: Vec<_> = good.iter().map(|(tenant, _)| tenant.clone()).collect();
        tenants.sort_unstable();
        let after = &self.asked;
        let next = tenants.partition_point(|tenant| Some(tenant) <= after.as_ref());
        tenants.rotate_left(next);
        self.fresh.retain(|tenant| good.get(tenant).is_some());
        // The order of the others stays.
        tenants.sort_by_key(|tenant| !self.fresh.contains(tenant));
        tenants.truncate(MAX_ASKED);
        let (api, prefix) = (self.api.clone(), self.api.prefix.clone());
        let questions = tenants.clone().into_iter();
        let questions = questions.map(|tenant| api.clone().find(tenant));
        let (mut groups, mut missing) = (Vec::new(), None);
        let (mut silent, mut unheard) = (None, BTreeMap::new());
        side_by_side(self.at_once, questions, |(tenant, found)| {
            let Found { there, loaded } = match found {
                Ok(found) => found,
                Err(Trouble::Tenant(reason)) => {
                    unheard.insert(tenant, reason);
                    return true;
                }
                Err(Trouble::Ruler(reason)) => {
                    silent.get_or_insert(reason);
                    return false;
                }
            };
            if let Some(group) = find_missing(&self.refused, &tenant, good.get(&tenant), &there) {
                missing.get_or_insert(group);
                self.unsure.insert(tenant.clone());
            }
            let only = good.get(&tenant).cloned();
            let only = only.map(|rules| RuleSet::default().with(tenant.clone(), rules));
            let compared = loaded.groups().and_then(|loaded| {
                let named = loaded.into_iter().filter_map(|group| {
                    let file = group.file.strip_prefix(&*prefix)?.to_owned();
                    Some((tenant.to_string(), file, group))
                });
                same::compare(&only.unwrap_or_default(), named.collect(), |_, _| false)
            });
            match compared {
                Ok((said, _)) => groups.extend(said),
                Err(reason) => {
                    unheard.insert(tenant, reason);
                }
            }
            true
        })
        .await;
        // After a failure as well: a tenant that always fails does not keep the others from their turn.
        let other = tenants.iter().rfind(|tenant| !self.fresh.contains(*tenant));
        self.asked = other.cloned().or(self.asked.take());
        tenants.iter().for_each(|tenant| {
            self.fresh.remove(tenant);
        });
        if let Some(reason) = silent {
            return Err(reason);
        }
        tenants.retain(|tenant| !unheard.contains_key(tenant));
        let unheard = unheard.into_iter().next();
        let unheard = unheard.map(|(tenant, reason)| format!("tenant {tenant:?}: {reason}"));
        Ok(Heard {
            asked: Some(tenants),
            groups,
            missing,
            unheard,
        })
    }
}

/// Name of a group that was accepted and that the ruler does not have, or only in another version, if
/// there is one.
fn find_missing(
    refused: &[Refused],
    tenant: &Tenant,
    rules: Option<&Arc<TenantRules>>,
    there: &Namespaces,
) -> Option<String> {
    for (name, stored) in rules.iter().flat_map(|rules| rules.files()) {
        for group in &stored.file().groups {
            let stored = there.get(&**name).and_then(|there| there.get(&group.name));
            let is_there = stored.is_some_and(|stored| match stored {
                Some(stored) => same::has_rules(group, stored),
                // In a form that is not understood.
                None => true,
            });
            let is_refused = || {
                let mut own = refused.iter().filter(|refused| refused.tenant == *tenant);
                own.any(|refused| refused.file == *name && refused.group == *group)
            };
            if !is_there && !is_refused() {
                let what = if stored.is_some() {
                    "this version of "
                } else {
                    ""
                };
                let name = &group.name;
                return Some(format!("{what}group {name:?} of tenant {tenant:?}"));
            }
        }
    }
    None
}

impl ConfigApi {
    /// Pushes a tenant's change. Groups that the ruler refused before are pushed only if they have
    /// changed.
    async fn push(self, change: Change, mut refused: Vec<Refused>) -> Pushed {
        let outcome = self.bring(&change, &mut refused).await;
        Pushed {
            change,
            refused,
            outcome,
        }
    }

    async fn bring(&self, change: &Change, refused: &mut Vec<Refused>) -> Result<(), Trouble> {
        let Change { tenant, old, new } = change;
        let there = self.namespaces(tenant).await?;
        refused.retain(|refused| {
            let file = new.as_ref().and_then(|rules| rules.file(&refused.file));
            file.is_some_and(|file| file.file().groups.contains(&refused.group))
        });
        let mut wanted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (name, stored) in new.iter().flat_map(|rules| rules.files()) {
            let had = old.as_ref().and_then(|old| old.file(name));
            let there = there.get(&**name);
            for group in &stored.file().groups {
                wanted.entry(name).or_default().insert(&group.name);
                let stored = there.and_then(|there| there.get(&group.name));
                // A ruler may not keep all fields. After a start, a group that it has shortened is pushed once.
                let is_same = had.is_some_and(|had| had.file().groups.contains(group));
                let is_there = stored.is_some_and(|stored| match (stored, is_same) {
                    (Some(stored), true) => same::has_rules(group, stored),
                    (Some(stored), false) => same::is_same(group, stored),
                    (None, is_same) => is_same,
                });
                let is_refused = refused
                    .iter()
                    .any(|refused| refused.file == *name && refused.group == *group);
                // An unchanged group that is not in the ruler was refused, or changed there by others.
                if is_refused || is_there {
                    continue;
                }
                let uri = self.uri(&[&self.namespace(name)])?;
                let text = Bytes::from(group.to_yaml());
                let (status, answer) = self.send(Method::POST, &uri, tenant, text).await?;
                match status {
                    status if status.is_success() => {}
                    StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
                        if refused.len() < MAX_REFUSED {
                            refused.push(Refused {
                                tenant: tenant.clone(),
                                file: name.clone(),
                                group: group.clone(),
                                reason: format!(
                                    "the ruler answered {status}: {}",
                                    excerpt(&answer)
                                ),
                            });
                        }
                    }
                    status => return Err(Trouble::answered(status, &answer)),
                }
            }
        }
        for (file, groups) in &there {
            let namespace = self.namespace(file);
            let Some(kept) = wanted.get(&**file) else {
                self.remove(tenant, &[&namespace]).await?;
                continue;
            };
            for group in groups.keys().filter(|group| !kept.contains(&***group)) {
                self.remove(tenant, &[&namespace, group]).await?;
            }
        }
        Ok(())
    }

    /// Reads a tenant's groups and their state from the ruler.
    async fn find(self, tenant: Tenant) -> (Tenant, Result<Found, Trouble>) {
        let found = self.found(&tenant).await;
        (tenant, found)
    }

    async fn found(&self, tenant: &Tenant) -> Result<Found, Trouble> {
        Ok(Found {
            there: self.namespaces(tenant).await?,
            loaded: self.client.rules_of(tenant).await?,
        })
    }

    async fn remove(&self, tenant: &Tenant, parts: &[&str]) -> Result<(), Trouble> {
        let uri = self.uri(parts)?;
        let (status, answer) = self
            .send(Method::DELETE, &uri, tenant, Bytes::new())
            .await?;
        match status.is_success() || status == StatusCode::NOT_FOUND {
            true => Ok(()),
            false => Err(Trouble::answered(status, &answer)),
        }
    }

    /// Lists a tenant's groups in namespaces of the sink in the ruler's store.
    async fn namespaces(&self, tenant: &Tenant) -> Result<Namespaces, Trouble> {
        let uri = self.uri(&[])?;
        let (status, answer) = self.send(Method::GET, &uri, tenant, Bytes::new()).await?;
        // The ruler answers 404 for a tenant without rules.
        if status == StatusCode::NOT_FOUND {
            return Ok(Namespaces::new());
        }
        if !status.is_success() {
            return Err(Trouble::answered(status, &answer));
        }
        if answer.iter().all(u8::is_ascii_whitespace) {
            return Ok(Namespaces::new());
        }
        let listed: Result<BTreeMap<String, Vec<Value>>, _> = serde_saphyr::from_slice(&answer);
        let listed = listed.map_err(|error| {
            let what = "the answer is not a list of namespaces with their groups";
            Trouble::Tenant(format!("{what}: {error}"))
        })?;
        let mut namespaces = Namespaces::new();
        for (namespace, groups) in listed {
            // Others wrote it.
            let Some(file) = namespace.strip_prefix(&*self.prefix) else {
                continue;
            };
            let named = namespaces.entry(file.to_owned()).or_default();
            for group in groups {
                let Some(name) = group["name"].as_str() else {
                    let what = "the ruler lists a group that has no name";
                    return Err(Trouble::Tenant(what.to_owned()));
                };
                named.insert(name.to_owned(), stored_group(&group));
            }
        }
        Ok(namespaces)
    }

    async fn send(
        &self,
        method: Method,
        uri: &Uri,
        tenant: &Tenant,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Trouble> {
        Ok(self.client.send(method, uri, Some(tenant), body).await?)
    }

    /// The name of a file's namespace.
    fn namespace(&self, file: &str) -> String {
        format!("{}{file}", self.prefix)
    }

    /// The URL of a namespace, or of a group in it.
    fn uri(&self, parts: &[&str]) -> Result<Uri, Trouble> {
        let base = self.url.to_string();
        let mut uri = base.trim_end_matches('/').to_owned();
        for part in parts {
            uri.push('/');
            for byte in part.bytes() {
                match byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
                    true => uri.push(char::from(byte)),
                    // Dots are escaped too: `.` and `..` would be resolved as parts of the path.
                    false => uri.push_str(&format!("%{byte:02X}")),
                }
            }
        }
        uri.parse()
            .map_err(|error| Trouble::Tenant(format!("{error}")))
    }
}

/// A group as a ruler stores it, without keys that rule files do not have; `None` if it is none that a
/// rule file could have.
fn stored_group(group: &Value) -> Option<Group> {
    let checks = Checks {
        thanos: true,
        ignore_unknown: true,
        ..Checks::new(&any_expr)
    };
    // JSON is YAML.
    let file = json!({ "groups": [group] }).to_string();
    let parsed = RuleFile::parse(file.as_bytes(), &checks).ok()?;
    parsed.file.groups.into_iter().next()
}
