//! Rules for a ruler of Mimir or Cortex, which keeps those of each tenant in a store of its own: groups
//! are pushed to its configuration API one by one, so one that is refused is known at once.
//!
//! A file is a namespace. What a tenant has there and here not is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode, Uri};
use serde::Deserialize;

use metrifold_engine::planes::rules::RuleSet;
use metrifold_model::Tenant;
use metrifold_rules::TenantRules;

use super::client::{RulerClient, excerpt};
use super::way::{Heard, MAX_REFUSED, Outcome, Refused};

/// How many tenants are asked about at a time: each costs two requests.
const MAX_ASKED: usize = 200;

/// Pushes sets to one ruler.
pub(super) struct Pusher {
    client: RulerClient,
    /// The URL of the configuration API.
    config: Uri,
    /// What it has, but for the groups that it refuses; none before the first push.
    good: Option<RuleSet>,
    refused: Vec<Refused>,
    /// The tenant that was asked about last.
    asked: Option<Tenant>,
}

/// A group in the list of a tenant's.
#[derive(Deserialize)]
struct Listed {
    name: String,
}

/// Why a tenant's rules were not pushed.
enum Trouble {
    /// The ruler answers, and does not do it for this tenant.
    Tenant(String),
    /// The ruler does not answer.
    Ruler(String),
}

impl Trouble {
    fn answered(status: StatusCode, answer: &[u8]) -> Self {
        Self::Tenant(format!("it answered {status}: {}", excerpt(answer)))
    }

    fn into_reason(self) -> String {
        let (Self::Tenant(reason) | Self::Ruler(reason)) = self;
        reason
    }
}

/// The names of the groups that a tenant has, by namespace.
type Namespaces = BTreeMap<String, Vec<String>>;

impl Pusher {
    pub(super) fn new(client: RulerClient, config: Uri) -> Self {
        Self {
            client,
            config,
            good: None,
            refused: Vec::new(),
            asked: None,
        }
    }

    pub(super) fn good(&self) -> Option<&RuleSet> {
        self.good.as_ref()
    }

    pub(super) fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// Takes nothing of what was pushed for pushed.
    pub(super) fn forget(&mut self) {
        self.good = None;
    }

    /// Pushes what changed. What fails of one tenant keeps none of the others from theirs.
    pub(super) async fn install(&mut self, set: &RuleSet) -> Outcome {
        let mut now = self.good.clone().unwrap_or_default();
        let changes = now.diff(set);
        if changes.is_empty() && self.good.is_some() {
            return Outcome::Same;
        }
        let mut failed = None;
        for change in changes {
            let (old, new) = (change.old.as_deref(), change.new.as_deref());
            match self.push(&change.tenant, old, new).await {
                Ok(()) => {
                    now = match change.new {
                        Some(rules) => now.with(change.tenant, rules),
                        None => now.without(&change.tenant),
                    };
                }
                Err(trouble) => {
                    let (Trouble::Tenant(reason) | Trouble::Ruler(reason)) = &trouble;
                    let reason = format!("tenant {:?}: {reason}", change.tenant);
                    failed.get_or_insert(reason);
                    if matches!(trouble, Trouble::Ruler(_)) {
                        break;
                    }
                }
            }
        }
        self.good = Some(now);
        failed.map_or(Outcome::Loaded, Outcome::Failed)
    }

    /// Has a tenant have these rules, of which the ruler has the old ones already.
    async fn push(
        &mut self,
        tenant: &Tenant,
        old: Option<&TenantRules>,
        new: Option<&TenantRules>,
    ) -> Result<(), Trouble> {
        let there = self.namespaces(tenant).await?;
        self.refused.retain(|refused| {
            let file = new.and_then(|rules| rules.file(&refused.file));
            refused.tenant != *tenant
                || file.is_some_and(|file| file.file().groups.contains(&refused.group))
        });
        let mut wanted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (name, stored) in new.iter().flat_map(|rules| rules.files()) {
            let had = old.and_then(|old| old.file(name));
            let there = there.get(&**name);
            for group in &stored.file().groups {
                wanted.entry(name).or_default().insert(&group.name);
                let is_there = there.is_some_and(|groups| groups.contains(&group.name));
                let is_same = had.is_some_and(|had| had.file().groups.contains(group));
                let is_refused = self.refused.iter().any(|refused| {
                    refused.tenant == *tenant && refused.file == *name && refused.group == *group
                });
                // An equal one that is not there was refused, or taken away.
                if is_refused || (is_there && is_same) {
                    continue;
                }
                let uri = self.uri(&[name])?;
                let text = Bytes::from(group.to_yaml());
                let (status, answer) = self.send(Method::POST, &uri, tenant, text).await?;
                match status {
                    status if status.is_success() => {}
                    StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
                        if self.refused.len() < MAX_REFUSED {
                            self.refused.push(Refused {
                                tenant: tenant.clone(),
                                file: name.clone(),
                                group: group.clone(),
                                reason: format!("it answered {status}: {}", excerpt(&answer)),
                            });
                        }
                    }
                    status => return Err(Trouble::answered(status, &answer)),
                }
            }
        }
        for (namespace, groups) in &there {
            let kept = wanted.get(&**namespace);
            if kept.is_none() {
                self.remove(tenant, &[namespace]).await?;
                continue;
            }
            for group in groups {
                if !kept.is_some_and(|kept| kept.contains(&**group)) {
                    self.remove(tenant, &[namespace, group]).await?;
                }
            }
        }
        Ok(())
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

    /// What a tenant has.
    async fn namespaces(&self, tenant: &Tenant) -> Result<Namespaces, Trouble> {
        let uri = self.uri(&[])?;
        let (status, answer) = self.send(Method::GET, &uri, tenant, Bytes::new()).await?;
        // Which is how it says that there are none.
        if status == StatusCode::NOT_FOUND {
            return Ok(Namespaces::new());
        }
        if !status.is_success() {
            return Err(Trouble::answered(status, &answer));
        }
        if answer.iter().all(u8::is_ascii_whitespace) {
            return Ok(Namespaces::new());
        }
        let listed: Result<BTreeMap<String, Vec<Listed>>, _> = serde_saphyr::from_slice(&answer);
        let listed = listed.map_err(|error| {
            let what = "its answer is no list of namespaces with their groups";
            Trouble::Tenant(format!("{what}: {error}"))
        })?;
        let names = |groups: Vec<Listed>| groups.into_iter().map(|group| group.name).collect();
        Ok(listed
            .into_iter()
            .map(|(namespace, groups)| (namespace, names(groups)))
            .collect())
    }

    /// Asks how it goes with some of the tenants, in turn.
    pub(super) async fn look(&mut self) -> Result<Heard, String> {
        let good = self.good.clone().unwrap_or_default();
        let mut tenants: Vec<_> = good.iter().map(|(tenant, _)| tenant.clone()).collect();
        tenants.sort_unstable();
        let after = self.asked.take();
        let next = tenants.partition_point(|tenant| Some(tenant) <= after.as_ref());
        tenants.rotate_left(next);
        tenants.truncate(MAX_ASKED);
        let (mut groups, mut missing) = (Vec::new(), None);
        for tenant in &tenants {
            let there = self
                .namespaces(tenant)
                .await
                .map_err(Trouble::into_reason)?;
            missing = missing.or_else(|| self.missing(tenant, good.get(tenant), &there));
            let loaded = self.client.rules_of(tenant).await?;
            let named = loaded
                .into_iter()
                .map(|group| (tenant.to_string(), group.file.clone(), group));
            groups.extend(named);
        }
        self.asked = tenants.last().cloned();
        Ok(Heard {
            asked: Some(tenants),
            groups,
            missing,
        })
    }

    /// A group that a tenant should have and has not.
    fn missing(
        &self,
        tenant: &Tenant,
        rules: Option<&Arc<TenantRules>>,
        there: &Namespaces,
    ) -> Option<String> {
        for (name, stored) in rules.iter().flat_map(|rules| rules.files()) {
            for group in &stored.file().groups {
                let is_there = there
                    .get(&**name)
                    .is_some_and(|groups| groups.contains(&group.name));
                let is_refused = self.refused.iter().any(|refused| {
                    refused.tenant == *tenant && refused.file == *name && refused.group == *group
                });
                if !is_there && !is_refused {
                    return Some(format!("group {:?} of tenant {tenant:?}", group.name));
                }
            }
        }
        None
    }

    async fn send(
        &self,
        method: Method,
        uri: &Uri,
        tenant: &Tenant,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Trouble> {
        let sent = self.client.send(method, uri, Some(tenant), body).await;
        sent.map_err(Trouble::Ruler)
    }

    /// The URL of a namespace, or of a group in it.
    fn uri(&self, parts: &[&str]) -> Result<Uri, Trouble> {
        let base = self.config.to_string();
        let mut uri = base.trim_end_matches('/').to_owned();
        for part in parts {
            uri.push('/');
            for byte in part.bytes() {
                match byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
                    true => uri.push(char::from(byte)),
                    // A dot as well: one or two of them would be another path.
                    false => uri.push_str(&format!("%{byte:02X}")),
                }
            }
        }
        uri.parse()
            .map_err(|error| Trouble::Tenant(format!("{error}")))
    }
}
