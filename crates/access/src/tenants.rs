//! Configured tenants, their authentication methods and their usage.

mod builder;
mod decision;
mod index;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::error;

use metrifold_base::BuildError;
use metrifold_http::access::Permission;
use metrifold_limits::{Check, OverCounts};
use metrifold_model::{Caller, Membership, Rejection, Tenant};

use crate::access::AccessConfig;
use crate::config::{BindingConfig, RoleConfig, TenantSettings};
use crate::digest::Digest;
use crate::indices::Indices;
use crate::limits::{Limits, Passes, UsageCell};
use crate::observatorium::{Aside, Foreign, Rbac};
use crate::opa::Opa;
use crate::proof::Method;
use crate::proof::basic::Users;
use crate::proof::issuer::Issuer;
use crate::roles::{Binding, Role, Roles};
use crate::trouble::{AsideTenant, Trouble};

use builder::Builder;
use index::Index;

/// Maximum number of issuers whose keys are fetched concurrently after a reload.
const AT_ONCE: usize = 16;

/// Configuration that [`Tenants`] are built from.
#[derive(Default)]
pub struct Settings<'a> {
    /// `[access]`.
    pub access: AccessConfig,
    /// `[tenants.NAME]`.
    pub tenants: Vec<TenantSettings<'a>>,
    /// `[roles.NAME]`.
    pub roles: Vec<(&'a str, &'a RoleConfig)>,
    /// `[role_bindings.NAME]`.
    pub bindings: Vec<(&'a str, &'a BindingConfig)>,
}

/// All tenants and the permissions of their callers. Immutable: a reload replaces it.
#[derive(Default)]
pub struct Tenants {
    tenants: Vec<One>,
    /// Indices of tenants, by name and by id.
    by_name: HashMap<Arc<str>, usize>,
    ways: Vec<Way>,
    index: Index,
    roles: Roles,
    parameter: String,
    headers: Vec<HeaderName>,
    /// Whether any tenant has a limit that is checked on decoded batches.
    looks_inside: bool,
    hidden: Arc<[HeaderName]>,
    challenges: Vec<HeaderValue>,
    issuers: HashMap<Digest, Arc<Issuer>>,
    agents: HashMap<Digest, Arc<Opa>>,
    /// Names and ids of the tenants of `tenants_file` that cannot be used.
    aside: HashSet<String>,
    /// The same tenants, with the reasons.
    set_aside: Vec<AsideTenant>,
    /// Checks passwords that no method has to check, in the time that a method takes; none if no tenant
    /// has passwords.
    decoy: Option<Users>,
}

struct One {
    membership: Membership,
    limits: Arc<Limits>,
    usage: UsageCell,
    /// Policy agent that authorizes requests instead of roles, if configured.
    opa: Option<Arc<Opa>>,
    /// Indices of the tenant's authentication methods.
    ways: Indices,
    /// See [`TenantSettings::print`].
    print: Option<u64>,
}

/// An authentication method and the tenants that it is valid for.
struct Way {
    method: Arc<Method>,
    print: Digest,
    tenants: Indices,
}

/// Errors, each with the name of the configuration table that it is about.
type Errors = Vec<(String, BuildError)>;

impl Tenants {
    /// Builds the tenants and reads all files that the configuration names. Parts that are the same in
    /// `before` are reused, with their caches.
    ///
    /// # Errors
    ///
    /// Fails with all files that cannot be read and all contradictions, each with its table.
    pub fn build(settings: &Settings<'_>, before: Option<&Self>) -> Result<Self, Errors> {
        let mut builder = Builder::new(settings, before);
        for tenant in &settings.tenants {
            builder.tenant(tenant, "");
        }
        match settings.access.tenants_file.as_ref().map(Foreign::get) {
            Some(Ok(foreign)) => {
                for tenant in foreign.tenants() {
                    builder.tenant(&tenant, " of tenants_file");
                }
                for Aside { name, id, reason } in foreign.aside() {
                    error!(
                        tenant = name,
                        reason,
                        "a tenant of tenants_file cannot be used: its requests are answered 503"
                    );
                    let names = [Some(name), id.as_ref()].into_iter().flatten();
                    let built = &mut builder.built;
                    built.set_aside.push(AsideTenant {
                        name: name.clone(),
                        reason: reason.clone(),
                    });
                    let names = names.filter(|name| !built.by_name.contains_key(name.as_str()));
                    built.aside.extend(names.cloned());
                }
            }
            Some(Err(reason)) => builder.error("access", "tenants_file", reason),
            None => {}
        }
        let rbac = match settings.access.rbac_file.as_ref().map(Foreign::get) {
            Some(Ok(rbac)) => Some(rbac),
            Some(Err(reason)) => {
                builder.error("access", "rbac_file", reason);
                None
            }
            None => None,
        };
        let mut text = |name: &str| Arc::from(name);
        let roles = settings.roles.iter();
        let roles: Vec<Role> = roles
            .map(|(name, it)| Role::new(name, it, &mut text))
            .collect();
        let bindings = settings.bindings.iter();
        let bindings: Vec<Binding> = bindings
            .map(|(_, it)| Binding::new(it, &mut text))
            .collect();
        let roles = || roles.iter().chain(rbac.into_iter().flat_map(Rbac::roles));
        let bindings = bindings
            .iter()
            .chain(rbac.into_iter().flat_map(Rbac::bindings));
        let known = match settings.bindings[..] {
            [] => HashSet::new(),
            _ => roles().map(Role::name).collect(),
        };
        for (name, binding) in &settings.bindings {
            for role in &binding.roles {
                if !known.contains(role.as_str()) {
                    let reason =
                        format!("there is no role {role:?}: declare it under [roles.NAME]");
                    builder.error(&format!("role_bindings.{name}"), "roles", &reason);
                }
            }
        }
        for (name, role) in &settings.roles {
            for tenant in role.tenants.iter().filter(|tenant| *tenant != "*") {
                let built = &builder.built;
                if !built.by_name.contains_key(tenant.as_str()) && !built.aside.contains(tenant) {
                    let reason = format!("there is no tenant {tenant:?}");
                    builder.error(&format!("roles.{name}"), "tenants", &reason);
                }
            }
        }
        let roles = Roles::new(roles(), bindings);
        builder.built.roles = match settings.access.rbac_file {
            Some(_) => roles.restrictive(),
            None => roles,
        };
        builder.finish()
    }

    /// What keeps callers out at the moment.
    pub fn trouble(&self) -> Trouble {
        let issuers = self.issuers.values().filter_map(|it| it.trouble());
        Trouble::of(&self.set_aside, issuers)
    }

    /// Number of tenants.
    pub fn len(&self) -> usize {
        self.tenants.len()
    }

    /// Whether no tenant is configured.
    pub fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }

    /// Headers that are removed from forwarded requests.
    pub(crate) fn hidden(&self) -> Arc<[HeaderName]> {
        Arc::clone(&self.hidden)
    }

    /// Admits a request unless its caller's tenants exceed a limit.
    pub(crate) fn enter(
        &self,
        caller: &Caller,
        permission: Permission,
        length: Option<u64>,
        all: &Arc<OverCounts>,
    ) -> Result<Passes, Rejection> {
        if permission == Permission::Admin {
            return Ok(Passes(Vec::new()));
        }
        let tenants = caller.tenants().iter();
        let tenants = tenants.filter_map(|membership| self.by_name.get(&membership.tenant));
        let tenants = tenants.map(|&index| &self.tenants[index]);
        let passes = tenants.map(|one| {
            let name = &one.membership.name;
            let usage = one.usage.get();
            usage.enter(&one.limits, all, name, permission, length)
        });
        passes.collect::<Result<_, _>>().map(Passes)
    }

    /// Whether any tenant has a limit that is checked on decoded batches.
    pub(crate) fn looks_inside(&self) -> bool {
        self.looks_inside
    }

    /// Begins to check a batch that arrived at `now` against the limits of the caller's tenant.
    pub(crate) fn hold(
        &self,
        caller: &Caller,
        all: &Arc<OverCounts>,
        now: Instant,
    ) -> Result<Option<Check>, Rejection> {
        let Some(&index) = caller.tenant().and_then(|tenant| self.by_name.get(tenant)) else {
            return Ok(None);
        };
        let one = &self.tenants[index];
        let (limits, usage) = (&one.limits.keys, &one.usage.get().shared);
        Check::begin(limits, usage, all, &one.membership.name, now)
    }

    /// Releases the series state of tenants that have stopped sending.
    pub(crate) fn trim(&self, now: Instant) {
        for one in &self.tenants {
            if let Some(usage) = one.usage.known() {
                usage.shared.trim(&one.limits.keys, now);
            }
        }
    }

    /// The id of the tenant of this name; none if there is no such tenant.
    pub fn id(&self, name: &str) -> Option<&Tenant> {
        let one = &self.tenants[*self.by_name.get(name)?];
        Some(&one.membership.tenant)
    }

    /// Usage and remaining allowance of a tenant; none if there is no such tenant.
    pub fn usage(&self, name: &str) -> Option<serde_json::Value> {
        let one = &self.tenants[*self.by_name.get(name)?];
        Some(one.usage.get().show(&one.limits))
    }

    /// Fetches the keys of issuers that were never reached, so that the first requests need not wait
    /// for them.
    pub(crate) async fn warm_up(self: Arc<Self>) {
        let mut asked = JoinSet::new();
        for issuer in self.issuers.values().filter(|issuer| !issuer.is_known()) {
            if asked.len() >= AT_ONCE {
                asked.join_next().await;
            }
            let issuer = Arc::clone(issuer);
            asked.spawn(async move { issuer.refresh().await });
        }
        // Failures are already logged.
        while asked.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests;
