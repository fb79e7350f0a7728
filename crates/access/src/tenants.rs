//! Tenants as they are configured, and the decision about a caller.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::task::JoinSet;
use tokio::time::Instant;

use metrifold_base::{BuildError, read_file};
use metrifold_http::Refusal;
use metrifold_http::access::Permission;
use metrifold_limits::{Check, OverCounts};
use metrifold_model::{Caller, Identity, Membership, Rejection, RejectionKind, Tenant};

use crate::config::{AccessConfig, BindingConfig, OidcConfig, OpaConfig, RoleConfig, TenantConfig};
use crate::digest::{self, Digest};
use crate::limits::{Limits, LimitsConfig, TenantUsage, UnderWay};
use crate::named::named;
use crate::observatorium;
use crate::opa::Opa;
use crate::proof::issuer::Issuer;
use crate::proof::{
    Method, Proven, Verdict, basic, bearer, kubernetes, mtls, oidc, trusted_header,
};
use crate::roles::Roles;
use crate::shown::{Credentials, Shown};

/// The largest file that a tenant names.
const MAX_FILE: u64 = 64 << 20;

/// The most tenants of which a caller can be that names none.
const MOST_UNNAMED: usize = 1000;

/// How many issuers are asked for their keys at once when a configuration is taken.
const AT_ONCE: usize = 16;

/// What is configured.
#[derive(Default)]
pub struct Settings<'a> {
    /// `[access]`.
    pub access: AccessConfig,
    /// `[tenants.NAME]`.
    pub tenants: Vec<(&'a str, &'a TenantConfig)>,
    /// `[roles.NAME]`.
    pub roles: Vec<(&'a str, &'a RoleConfig)>,
    /// `[role_bindings.NAME]`.
    pub bindings: Vec<(&'a str, &'a BindingConfig)>,
}

/// All tenants, and who may do what there. Never changed: another takes its place.
#[derive(Default)]
pub struct Tenants {
    tenants: Vec<One>,
    /// Tenants by name and by id.
    by_name: HashMap<Arc<str>, usize>,
    ways: Vec<Way>,
    index: Index,
    roles: Roles,
    parameter: String,
    headers: Vec<HeaderName>,
    /// Whether a tenant has limits that look into batches.
    looks_inside: bool,
    hidden: Arc<[HeaderName]>,
    challenges: Vec<HeaderValue>,
    issuers: HashMap<Digest, Arc<Issuer>>,
    agents: HashMap<Digest, Arc<Opa>>,
}

struct One {
    membership: Membership,
    limits: Limits,
    usage: Arc<TenantUsage>,
    /// What decides in the place of roles.
    opa: Option<Arc<Opa>>,
    /// The ways to prove to be of it.
    ways: Vec<usize>,
}

/// A way to prove to be of some tenants.
struct Way {
    method: Arc<Method>,
    print: Digest,
    tenants: Vec<usize>,
}

/// Finds the ways that what a request shows may be good for.
#[derive(Default)]
struct Index {
    tokens: HashMap<Digest, Vec<usize>>,
    users: HashMap<Arc<str>, Vec<usize>>,
    issuers: HashMap<String, Vec<usize>>,
    certificates: Vec<usize>,
    reviews: Vec<usize>,
    proxies: Vec<usize>,
}

/// Errors with the names of the tables that they are about.
type Errors = Vec<(String, BuildError)>;

impl Tenants {
    /// Reads all that the configuration names. What is the same as in `before` is taken from there,
    /// with what it has found out.
    ///
    /// # Errors
    ///
    /// Fails with everything that cannot be read or contradicts itself, and the table that says so.
    pub fn build(settings: &Settings<'_>, before: Option<&Self>) -> Result<Self, Errors> {
        let mut builder = Builder {
            built: Self {
                parameter: settings.access.path_parameter.clone(),
                headers: settings.access.header_names(),
                ..Self::default()
            },
            before: before.map(|before| {
                let ways = before.ways.iter();
                ways.map(|way| (way.print, &way.method)).collect()
            }),
            issuers: before.map(|before| &before.issuers),
            agents: before.map(|before| &before.agents),
            usages: before.map(|before| {
                let tenants = before.tenants.iter();
                tenants
                    .map(|one| (&one.membership.tenant, &one.usage))
                    .collect()
            }),
            shared_limits: Limits::of_all(&settings.access.limits),
            limits: settings.access.limits.clone(),
            prints: HashMap::new(),
            errors: Vec::new(),
        };
        let mut roles: Vec<(&str, &RoleConfig)> = settings.roles.clone();
        let mut bindings: Vec<&BindingConfig> = Vec::new();
        bindings.extend(settings.bindings.iter().map(|(_, binding)| *binding));
        for (name, tenant) in &settings.tenants {
            builder.tenant(name, tenant, &format!("tenants.{name}"));
        }
        let foreign = match &settings.access.tenants_file {
            Some(file) => observatorium::read_tenants(file),
            None => Ok(Vec::new()),
        };
        match &foreign {
            Ok(foreign) => {
                for (name, tenant) in foreign {
                    builder.tenant(name, tenant, "access");
                }
            }
            Err(reason) => builder.error("access", "tenants_file", reason),
        }
        let rbac = match &settings.access.rbac_file {
            Some(file) => observatorium::read_rbac(file),
            None => Ok(observatorium::Rbac::default()),
        };
        match &rbac {
            Ok(rbac) => {
                let foreign = rbac.roles.iter();
                roles.extend(foreign.map(|(name, role)| (name.as_str(), role)));
                bindings.extend(&rbac.bindings);
            }
            Err(reason) => builder.error("access", "rbac_file", reason),
        }
        for (name, binding) in &settings.bindings {
            for role in &binding.roles {
                if !roles.iter().any(|(known, _)| known == role) {
                    let reason =
                        format!("there is no role {role:?}: declare it under [roles.NAME]");
                    builder.error(&format!("role_bindings.{name}"), "roles", &reason);
                }
            }
        }
        for (name, role) in &settings.roles {
            for tenant in role.tenants.iter().filter(|tenant| *tenant != "*") {
                if !builder.built.by_name.contains_key(tenant.as_str()) {
                    let reason = format!("there is no tenant {tenant:?}");
                    builder.error(&format!("roles.{name}"), "tenants", &reason);
                }
            }
        }
        builder.built.roles = Roles::new(roles, bindings);
        builder.finish()
    }

    /// How many tenants there are.
    pub fn len(&self) -> usize {
        self.tenants.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }

    /// The headers that never travel on.
    pub(crate) fn hidden(&self) -> Arc<[HeaderName]> {
        Arc::clone(&self.hidden)
    }

    /// Lets a caller in that keeps to the limits of its tenants.
    pub(crate) fn enter(
        &self,
        caller: &Caller,
        permission: Permission,
        headers: &HeaderMap,
        all: &OverCounts,
    ) -> Result<Vec<UnderWay>, Rejection> {
        if permission == Permission::Admin {
            return Ok(Vec::new());
        }
        let tenants = caller.tenants().iter();
        let tenants = tenants.filter_map(|membership| self.by_name.get(&membership.tenant));
        let tenants = tenants.map(|&index| &self.tenants[index]);
        let passes = tenants.map(|one| {
            let name = &one.membership.name;
            one.usage.enter(&one.limits, all, name, permission, headers)
        });
        passes.collect()
    }

    /// Whether a tenant has limits that look into batches.
    pub(crate) fn looks_inside(&self) -> bool {
        self.looks_inside
    }

    /// Begins to hold a batch of a caller that came at `now` to the limits of its tenant.
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
        let (limits, usage) = (&one.limits.keys, &one.usage.shared);
        Check::begin(limits, usage, all, &one.membership.name, now)
    }

    /// Lets go of what is held for series of tenants that send nothing any more.
    pub(crate) fn trim(&self, now: Instant) {
        for one in &self.tenants {
            one.usage.shared.trim(&one.limits.keys, now);
        }
    }

    /// What a tenant of this name is called where its data is stored.
    pub fn id(&self, name: &str) -> Option<&Tenant> {
        let one = &self.tenants[*self.by_name.get(name)?];
        Some(&one.membership.tenant)
    }

    /// What a tenant uses and what it has left, if there is such a tenant.
    pub fn usage(&self, name: &str) -> Option<serde_json::Value> {
        let one = &self.tenants[*self.by_name.get(name)?];
        Some(one.usage.show(&one.limits))
    }

    /// Asks the issuers of which nothing is known yet for their keys, so that nobody has to wait for
    /// it later.
    pub(crate) async fn warm_up(self: Arc<Self>) {
        let mut asked = JoinSet::new();
        for issuer in self.issuers.values().filter(|issuer| !issuer.is_known()) {
            if asked.len() >= AT_ONCE {
                asked.join_next().await;
            }
            let issuer = Arc::clone(issuer);
            asked.spawn(async move { issuer.refresh().await });
        }
        // What failed was logged.
        while asked.join_next().await.is_some() {}
    }

    /// Who sends a request that wants to do something, if it may.
    pub(crate) async fn decide(
        &self,
        shown: &Shown<'_>,
        permission: Permission,
    ) -> Result<Caller, Refusal> {
        let names = match permission {
            // The process is of no tenant, whatever a path of its API is called.
            Permission::Admin => Vec::new(),
            _ => named(&shown.head, &self.parameter, &self.headers)?,
        };
        if names.is_empty() {
            return self.of_all(shown, permission).await;
        }
        let mut memberships = Vec::with_capacity(names.len());
        let mut first: Option<Arc<Proven>> = None;
        for name in names {
            let (one, proven) = self.of_named(shown, name).await?;
            self.check(one, &proven, permission).await?;
            memberships.push(one.membership.clone());
            first.get_or_insert(proven);
        }
        memberships.sort();
        memberships.dedup();
        match first {
            Some(proven) => caller(shown, memberships, &proven, permission),
            None => Err(self.unauthenticated(None)),
        }
    }

    /// Proves that a caller is of a tenant that the request names.
    async fn of_named(
        &self,
        shown: &Shown<'_>,
        name: &str,
    ) -> Result<(&One, Arc<Proven>), Refusal> {
        let one = self.by_name.get(name).map(|&index| &self.tenants[index]);
        let own = one.map_or(&[][..], |one| &one.ways);
        let mut unknown = None;
        let mut wrong = None;
        for &way in own {
            match self.ways[way].method.prove(shown).await {
                Verdict::Proven(proven) => {
                    if let Some(one) = one {
                        return Ok((one, proven));
                    }
                }
                Verdict::Unknown(reason) => unknown = unknown.or(Some(reason)),
                Verdict::Wrong(reason) => wrong = wrong.or(Some(reason)),
                Verdict::Absent => {}
            }
        }
        // Only somebody who is known otherwise hears which tenants there are.
        let others = self.index.ways(shown);
        for way in others.filter(|way| !own.contains(way)) {
            match self.ways[way].method.prove(shown).await {
                Verdict::Proven(_) => {
                    let (kind, reason) = match one {
                        Some(_) => (RejectionKind::Forbidden, "is of another tenant than"),
                        None => (RejectionKind::NotFound, "is of no tenant that is called"),
                    };
                    let reason = format!("what proves who you are {reason} {name:?}");
                    return Err(Rejection::new(kind, reason).into());
                }
                Verdict::Unknown(reason) => unknown = unknown.or(Some(reason)),
                Verdict::Wrong(reason) => wrong = wrong.or(Some(reason)),
                Verdict::Absent => {}
            }
        }
        match unknown {
            Some(reason) => Err(Rejection::unavailable(&*reason).into()),
            None => Err(self.unauthenticated(self.wrong(shown, wrong.as_deref()))),
        }
    }

    /// Proves of which tenants a caller is that names none, and keeps those at which it may do what it
    /// wants.
    async fn of_all(&self, shown: &Shown<'_>, permission: Permission) -> Result<Caller, Refusal> {
        let mut memberships = Vec::new();
        let mut first: Option<Arc<Proven>> = None;
        let mut unknown = None;
        let mut wrong = None;
        for way in self.index.ways(shown) {
            let way = &self.ways[way];
            match way.method.prove(shown).await {
                Verdict::Proven(proven) => {
                    if way.tenants.len() > MOST_UNNAMED {
                        let reason = "you are of too many tenants to ask for all: name those that are meant in the path or in a header";
                        return Err(Rejection::invalid(reason).into());
                    }
                    for &tenant in &way.tenants {
                        let one = &self.tenants[tenant];
                        match self.check(one, &proven, permission).await {
                            Ok(()) => memberships.push(one.membership.clone()),
                            Err(no) if no.kind == RejectionKind::Forbidden => {}
                            Err(no) => unknown = unknown.or(Some(no.reason.into())),
                        }
                    }
                    first.get_or_insert(proven);
                }
                Verdict::Unknown(reason) => unknown = unknown.or(Some(reason)),
                Verdict::Wrong(reason) => wrong = wrong.or(Some(reason)),
                Verdict::Absent => {}
            }
        }
        memberships.sort();
        memberships.dedup();
        match (first, unknown) {
            (Some(proven), _) if !memberships.is_empty() => {
                caller(shown, memberships, &proven, permission)
            }
            // Whatever else the caller is may have the right.
            (_, Some(reason)) => Err(Rejection::unavailable(&*reason).into()),
            (Some(proven), None) => {
                let who = proven.subject.as_deref().unwrap_or("nobody in particular");
                let reason = format!("{who} may not {} at any tenant", permission.as_str());
                Err(Rejection::new(RejectionKind::Forbidden, reason).into())
            }
            (None, None) => Err(self.unauthenticated(self.wrong(shown, wrong.as_deref()))),
        }
    }

    async fn check(
        &self,
        one: &One,
        proven: &Proven,
        permission: Permission,
    ) -> Result<(), Rejection> {
        let at = &one.membership;
        if let Some(opa) = &one.opa {
            return opa.check(at, proven, permission).await;
        }
        let subject = proven.subject.as_deref();
        if self
            .roles
            .allow(subject, &proven.groups, &at.name, permission)
        {
            return Ok(());
        }
        let who = subject.unwrap_or("nobody in particular");
        let (what, name) = (permission.as_str(), &at.name);
        let reason = format!("{who} has no role that lets it {what} at tenant {name:?}");
        Err(Rejection::new(RejectionKind::Forbidden, reason))
    }

    /// Why a caller is not known, in its words.
    fn wrong<'a>(&self, shown: &Shown<'_>, wrong: Option<&'a str>) -> Option<&'a str> {
        match shown.credentials {
            Credentials::Unusable(reason) => Some(reason),
            _ if shown.nothing() => None,
            _ => wrong.or(Some("what was sent proves nothing here")),
        }
    }

    fn unauthenticated(&self, reason: Option<&str>) -> Refusal {
        let reason = match reason {
            _ if self.is_empty() => "there are no tenants: add one under [tenants.NAME]",
            Some(reason) => reason,
            None => "credentials are missing",
        };
        Refusal {
            rejection: Rejection::new(RejectionKind::Unauthenticated, reason),
            challenges: self.challenges.clone(),
        }
    }
}

/// The caller of a request that is of these tenants.
fn caller(
    shown: &Shown<'_>,
    memberships: Vec<Membership>,
    proven: &Proven,
    permission: Permission,
) -> Result<Caller, Refusal> {
    let one_only = matches!(permission, Permission::Write | Permission::Rules);
    if one_only && memberships.len() > 1 {
        let reason =
            "you are of several tenants: name the one that is meant in the path or in a header";
        return Err(Rejection::invalid(reason).into());
    }
    let certificate = proven.certificate.clone();
    Ok(Caller {
        identity: Some(Arc::new(Identity {
            tenants: memberships.into(),
            subject: proven.subject.clone(),
            groups: Arc::clone(&proven.groups),
            proof: proven.proof,
        })),
        certificate: certificate.or_else(|| shown.head.certificate.cloned()),
    })
}

impl Index {
    /// The ways that may be good for what a request shows, each once.
    fn ways(&self, shown: &Shown<'_>) -> impl Iterator<Item = usize> {
        let mut ways: Vec<usize> = Vec::new();
        match &shown.credentials {
            Credentials::Bearer(token) => {
                let known = self.tokens.get(&digest::plain(token.as_bytes()));
                ways.extend(known.into_iter().flatten());
                if known.is_none() {
                    let issuer = oidc::issuer_of(token);
                    let issued = issuer.and_then(|issuer| self.issuers.get(&issuer));
                    ways.extend(issued.into_iter().flatten());
                    // A token may leave this process only if it is of nobody else.
                    if issued.is_none() {
                        ways.extend(&self.reviews);
                    }
                }
            }
            Credentials::Basic(user, _) => {
                ways.extend(self.users.get(user.as_str()).into_iter().flatten());
            }
            Credentials::None | Credentials::Unusable(_) => {}
        }
        if !shown.head.presented.is_empty() {
            ways.extend(&self.certificates);
        }
        ways.extend(&self.proxies);
        ways.into_iter()
    }
}

struct Builder<'a> {
    built: Tenants,
    before: Option<HashMap<Digest, &'a Arc<Method>>>,
    issuers: Option<&'a HashMap<Digest, Arc<Issuer>>>,
    agents: Option<&'a HashMap<Digest, Arc<Opa>>>,
    /// What tenants use, by their ids.
    usages: Option<HashMap<&'a Tenant, &'a Arc<TenantUsage>>>,
    /// The limits of all tenants.
    limits: LimitsConfig,
    /// The same, as tenants share them.
    shared_limits: Limits,
    /// The ways that there are, by what they are made of.
    prints: HashMap<Digest, usize>,
    errors: Errors,
}

impl Builder<'_> {
    fn error(&mut self, table: &str, key: &str, reason: &str) {
        let error = BuildError::new(key, reason);
        self.errors.push((table.to_owned(), error));
    }

    fn tenant(&mut self, name: &str, config: &TenantConfig, table: &str) {
        if let Err(reason) = metrifold_model::tenant_name::check(name.as_bytes()) {
            return self.error(table, "name", &reason);
        }
        let name: Arc<str> = name.into();
        let id: Tenant = config.id.as_deref().map_or_else(|| name.clone(), Arc::from);
        let index = self.built.tenants.len();
        for known in [&name, &id] {
            let before = self.built.by_name.insert(Arc::clone(known), index);
            if let Some(other) = before.filter(|&other| other != index) {
                let other = &self.built.tenants[other].membership.name;
                let reason = format!("{known:?} is the name or the id of tenant {other:?} too");
                return self.error(table, "id", &reason);
            }
        }
        let ways = self.ways(config, table);
        for &way in &ways {
            self.built.ways[way].tenants.push(index);
        }
        let before = self.usages.as_ref().and_then(|before| before.get(&id));
        let usage = before.map_or_else(Arc::default, |usage| Arc::clone(usage));
        let opa = config.opa.as_ref();
        let opa = opa.and_then(|config| self.opa(config, table));
        let limits = Limits::of_one(&config.limits, (&self.limits, &self.shared_limits));
        self.built.looks_inside |= limits.keys.looks_inside();
        self.built.tenants.push(One {
            opa,
            limits,
            usage,
            membership: Membership { name, tenant: id },
            ways,
        });
    }

    /// The ways of a tenant, those that it shares with others among them.
    fn ways(&mut self, config: &TenantConfig, table: &str) -> Vec<usize> {
        let mut ways = Vec::new();
        let files = |files: &[Option<&std::path::Path>]| {
            let files = files.iter().flatten();
            let texts = files.map(|file| read_file(file, MAX_FILE).unwrap_or_default());
            texts.collect::<Vec<_>>()
        };
        if let Some(config) = &config.bearer {
            let made = || bearer::Tokens::read(&config.tokens_file).map(Method::Bearer);
            let texts = files(&[Some(&config.tokens_file)]);
            ways.extend(self.way(table, "bearer", format!("{config:?}"), &texts, made));
        }
        if let Some(config) = &config.basic {
            let made = || basic::Users::read(&config.web_config_file).map(Method::Basic);
            let texts = files(&[Some(&config.web_config_file)]);
            ways.extend(self.way(table, "basic", format!("{config:?}"), &texts, made));
        }
        if let Some(config) = &config.mtls {
            let made = || mtls::Certificates::read(config).map(Method::Mtls);
            let made = || made().map_err(|error| error.reason);
            let texts = files(&[Some(&config.ca_file), config.crl_file.as_deref()]);
            ways.extend(self.way(table, "mtls", format!("{config:?}"), &texts, made));
        }
        if let Some(config) = &config.oidc {
            let tls: Vec<_> = config.tls.files().map(Some).collect();
            let texts = files(&tls);
            match self.issuer(config, &texts) {
                Ok(issuer) => {
                    let made = || Ok(Method::Oidc(oidc::Verifier::new(issuer, config)));
                    ways.extend(self.way(table, "oidc", format!("{config:?}"), &texts, made));
                }
                Err(error) => self.error(table, &format!("oidc.{}", error.what), &error.reason),
            }
        }
        if let Some(config) = &config.kubernetes {
            let tls: Vec<_> = config.tls.files().map(Some).collect();
            let made = || kubernetes::Reviews::new(config).map(Method::Kubernetes);
            let made = || made().map_err(|error| error.to_string());
            let texts = files(&tls);
            ways.extend(self.way(table, "kubernetes", format!("{config:?}"), &texts, made));
        }
        if let Some(config) = &config.trusted_header {
            let made = || trusted_header::Proxy::new(config).map(Method::TrustedHeader);
            ways.extend(self.way(table, "trusted_header", format!("{config:?}"), &[], made));
        }
        ways
    }

    /// The agent of a configuration, shared by all that have the same.
    fn opa(&mut self, config: &OpaConfig, table: &str) -> Option<Arc<Opa>> {
        let files = config.tls.files();
        let texts = files.map(|file| read_file(file, MAX_FILE).unwrap_or_default());
        let texts: Vec<Vec<u8>> = texts.collect();
        let shown = format!("{config:?}");
        let parts = [shown.as_bytes()].into_iter();
        let print = digest::of(parts.chain(texts.iter().map(Vec::as_slice)));
        let before = self.agents.and_then(|agents| agents.get(&print));
        if let Some(opa) = self.built.agents.get(&print).or(before).cloned() {
            self.built.agents.insert(print, Arc::clone(&opa));
            return Some(opa);
        }
        match Opa::new(config) {
            Ok(opa) => {
                let opa = Arc::new(opa);
                self.built.agents.insert(print, Arc::clone(&opa));
                Some(opa)
            }
            Err(error) => {
                self.error(table, &format!("opa.{}", error.what), &error.reason);
                None
            }
        }
    }

    /// The issuer of a configuration, shared by all that have the same.
    fn issuer(
        &mut self,
        config: &OidcConfig,
        texts: &[Vec<u8>],
    ) -> Result<Arc<Issuer>, BuildError> {
        let tls = format!("{:?}{}", config.tls, config.allow_http);
        let parts = [config.issuer.as_bytes(), tls.as_bytes()];
        let print = digest::of(parts.into_iter().chain(texts.iter().map(Vec::as_slice)));
        if let Some(issuer) = self.built.issuers.get(&print) {
            return Ok(Arc::clone(issuer));
        }
        let before = self.issuers.and_then(|issuers| issuers.get(&print));
        let issuer = match before {
            Some(issuer) => Arc::clone(issuer),
            None => Arc::new(Issuer::new(config)?),
        };
        self.built.issuers.insert(print, Arc::clone(&issuer));
        Ok(issuer)
    }

    /// The way that is made of this: one that is there, that was there before, or a new one.
    fn way(
        &mut self,
        table: &str,
        key: &str,
        config: String,
        texts: &[Vec<u8>],
        make: impl FnOnce() -> Result<Method, String>,
    ) -> Option<usize> {
        let texts = texts.iter().map(Vec::as_slice);
        let print = digest::of([key.as_bytes(), config.as_bytes()].into_iter().chain(texts));
        if let Some(&way) = self.prints.get(&print) {
            return Some(way);
        }
        let before = self.before.as_ref().and_then(|before| before.get(&print));
        let method = match before {
            Some(method) => Arc::clone(method),
            None => match make() {
                Ok(method) => Arc::new(method),
                Err(reason) => {
                    self.error(table, key, &reason);
                    return None;
                }
            },
        };
        let way = self.built.ways.len();
        self.prints.insert(print, way);
        self.built.ways.push(Way {
            method,
            print,
            tenants: Vec::new(),
        });
        Some(way)
    }

    fn finish(self) -> Result<Tenants, Errors> {
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        let mut built = self.built;
        let mut hidden: Vec<HeaderName> = built.headers.clone();
        let mut challenges = BTreeMap::new();
        for (number, way) in built.ways.iter().enumerate() {
            challenges.extend(way.method.challenge().map(|text| (text, ())));
            let index = &mut built.index;
            match &*way.method {
                Method::Bearer(tokens) => {
                    for hash in tokens.hashes() {
                        index.tokens.entry(*hash).or_default().push(number);
                    }
                }
                Method::Basic(users) => {
                    for name in users.names() {
                        index.users.entry(name.clone()).or_default().push(number);
                    }
                }
                Method::Mtls(_) => index.certificates.push(number),
                Method::Oidc(verifier) => {
                    let issuer = verifier.issuer().url().to_owned();
                    index.issuers.entry(issuer).or_default().push(number);
                }
                Method::Kubernetes(_) => index.reviews.push(number),
                Method::TrustedHeader(proxy) => {
                    index.proxies.push(number);
                    hidden.extend(proxy.headers().cloned());
                }
            }
        }
        hidden.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        hidden.dedup();
        built.hidden = hidden.into();
        let challenges = challenges.into_keys();
        built.challenges = challenges.map(HeaderValue::from_static).collect();
        if built.challenges.is_empty() {
            // A 401 without any is against RFC 9110, and certificates have none of their own.
            let bearer = HeaderValue::from_static("Bearer realm=\"metrifold\"");
            built.challenges.push(bearer);
        }
        Ok(built)
    }
}

#[cfg(test)]
mod tests;
