//! Builds tenants from their configuration, and reuses the parts that a reload leaves unchanged.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use metrifold_base::{BuildError, read_file};
use metrifold_model::{Membership, Tenant, tenant_name};

use crate::access::CUSTOMARY;
use crate::config::{OidcConfig, OpaConfig, TenantConfig, TenantSettings};
use crate::digest::{self, Digest};
use crate::indices::Indices;
use crate::limits::{Limits, LimitsConfig, UsageCell};
use crate::opa::Opa;
use crate::proof::issuer::Issuer;
use crate::proof::{Method, basic, bearer, kubernetes, mtls, oidc, trusted_header};

use super::{Errors, One, Settings, Tenants, Way};

/// Maximum size of a file of a tenant, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// Tenants under construction.
pub(super) struct Builder<'a> {
    pub(super) built: Tenants,
    before: Option<&'a Tenants>,
    /// Authentication methods of the previous tenants, by their digests.
    methods: HashMap<Digest, usize>,
    /// Digests of the previous issuers, by their addresses in memory.
    issuers: HashMap<*const Issuer, Digest>,
    /// New indices of authentication methods that were taken over, by their previous ones.
    moved: Vec<Option<usize>>,
    /// Default limits of all tenants.
    limits: LimitsConfig,
    /// The same limits, compiled, shared by tenants that set none.
    shared_limits: Arc<Limits>,
    /// Indices of authentication methods, by the digest of their configuration and files.
    prints: HashMap<Digest, usize>,
    errors: Errors,
}

impl<'a> Builder<'a> {
    /// A builder without tenants, which may reuse parts of `before`.
    pub(super) fn new(settings: &Settings<'_>, before: Option<&'a Tenants>) -> Self {
        // Each has a name and an id.
        let count = settings.tenants.len();
        Builder {
            built: Tenants {
                tenants: Vec::with_capacity(count),
                by_name: HashMap::with_capacity(2 * count),
                parameter: settings.access.path_parameter.clone(),
                headers: settings.access.header_names(),
                ..Tenants::default()
            },
            before,
            methods: before.map_or_else(HashMap::new, |before| {
                let ways = before.ways.iter().enumerate();
                ways.map(|(index, way)| (way.print, index)).collect()
            }),
            issuers: before.map_or_else(HashMap::new, |before| {
                let issuers = before.issuers.iter();
                issuers
                    .map(|(print, issuer)| (Arc::as_ptr(issuer), *print))
                    .collect()
            }),
            moved: vec![None; before.map_or(0, |before| before.ways.len())],
            shared_limits: Limits::of_all(&settings.access.limits).into(),
            limits: settings.access.limits.clone(),
            prints: HashMap::new(),
            errors: Vec::new(),
        }
    }

    pub(super) fn error(&mut self, table: &str, key: &str, reason: &str) {
        let error = BuildError::new(key, reason);
        self.errors.push((table.to_owned(), error));
    }

    /// Adds a tenant. `file` is where it is declared, for messages.
    pub(super) fn tenant(&mut self, settings: &TenantSettings<'_>, file: &str) {
        let TenantSettings {
            membership,
            config,
            print,
        } = settings;
        let kept = self.kept(settings);
        let table = || format!("tenants.{}{file}", membership.name);
        let Membership { name, tenant: id } = match kept {
            Some(one) => one.membership.clone(),
            None => match tenant_name::check(membership.name.as_bytes()) {
                Ok(_) => membership.clone(),
                Err(reason) => return self.error(&table(), "name", &reason),
            },
        };
        let index = self.built.tenants.len();
        for known in [&name, &id] {
            let before = self.built.by_name.insert(Arc::clone(known), index);
            if let Some(other) = before.filter(|&other| other != index) {
                let other = &self.built.tenants[other].membership.name;
                let reason = format!("{known:?} is also the name or the id of tenant {other:?}");
                return self.error(&table(), "id", &reason);
            }
        }
        let mut ways = Indices::default();
        match kept {
            Some(one) => ways.extend(one.ways.as_slice().iter().map(|&way| self.take_over(way))),
            None => ways.extend(self.ways(config, &table())),
        }
        for &way in ways.as_slice() {
            self.built.ways[way].tenants.push(index);
        }
        let usage = self.usage(&id);
        let opa = config.opa.as_ref();
        let opa = opa.and_then(|config| self.opa(config, &table()));
        let own = config.limits.as_deref();
        let limits = Limits::of_one(own, (&self.limits, &self.shared_limits));
        self.built.looks_inside |= limits.keys.looks_inside();
        self.built.tenants.push(One {
            opa,
            limits,
            usage,
            membership: Membership { name, tenant: id },
            ways,
            print: *print,
        });
    }

    /// The previous tenant of this name, if its configuration and its files are the same.
    fn kept(&self, settings: &TenantSettings<'_>) -> Option<&'a One> {
        let before = self.before?;
        let one = &before.tenants[*before.by_name.get(&settings.membership.name)?];
        let same = settings.print.is_some() && settings.print == one.print;
        (same && one.membership == settings.membership).then_some(one)
    }

    /// The usage of the previous tenant with this id, or of a new one.
    fn usage(&self, id: &Tenant) -> UsageCell {
        let before = self.before.and_then(|before| {
            let one = &before.tenants[*before.by_name.get(id)?];
            (one.membership.tenant == *id).then(|| one.usage.clone())
        });
        before.unwrap_or_default()
    }

    /// New index of a previous authentication method.
    fn take_over(&mut self, way: usize) -> usize {
        if let Some(moved) = self.moved[way] {
            return moved;
        }
        let before = self.before.map(|before| &before.ways[way]);
        // Only indices into the previous tenants are taken over.
        let Some(Way { method, print, .. }) = before else {
            return way;
        };
        if let Method::Oidc(verifier) = &**method
            && let Some(print) = self.issuers.get(&Arc::as_ptr(verifier.issuer()))
        {
            let issuer = Arc::clone(verifier.issuer());
            self.built.issuers.insert(*print, issuer);
        }
        let new = self.add(Arc::clone(method), *print);
        self.moved[way] = Some(new);
        new
    }

    /// Adds an authentication method. Returns its index.
    fn add(&mut self, method: Arc<Method>, print: Digest) -> usize {
        let way = self.built.ways.len();
        self.prints.insert(print, way);
        self.built.ways.push(Way {
            method,
            print,
            tenants: Indices::default(),
        });
        way
    }

    /// Adds the authentication methods of a tenant. Returns their indices, shared ones included.
    fn ways(&mut self, config: &TenantConfig, table: &str) -> Vec<usize> {
        let mut ways = Vec::new();
        let files = |files: &[Option<&Path>]| {
            let files = files.iter().flatten();
            let texts = files.map(|file| read_file(file, MAX_FILE).unwrap_or_default());
            texts.collect::<Vec<_>>()
        };
        if let Some(config) = &config.bearer {
            let file = &config.tokens_file;
            let texts = files(&[Some(file)]);
            // What cannot be read, or is no text, is read again for the reason.
            let text = texts
                .first()
                .and_then(|text| std::str::from_utf8(text).ok());
            let made = || match text.filter(|text| !text.is_empty()) {
                Some(text) => bearer::Tokens::of(file, text),
                None => bearer::Tokens::read(file),
            };
            let made = || made().map(Method::Bearer);
            ways.extend(self.way(table, "bearer", format!("{config:?}"), &texts, made));
        }
        if let Some(config) = &config.basic {
            let made = || basic::Users::read(&config.web_config_file);
            let made = || made().map(Box::new).map(Method::Basic);
            let texts = files(&[Some(&config.web_config_file)]);
            ways.extend(self.way(table, "basic", format!("{config:?}"), &texts, made));
        }
        if let Some(config) = &config.mtls {
            let made = || mtls::Certificates::read(config).map(Box::new);
            let made = || made().map(Method::Mtls).map_err(|error| error.reason);
            let texts = files(&[Some(&config.ca_file), config.crl_file.as_deref()]);
            ways.extend(self.way(table, "mtls", format!("{config:?}"), &texts, made));
        }
        if let Some(config) = &config.oidc {
            let tls: Vec<_> = config.tls.files().map(Some).collect();
            let texts = files(&tls);
            match self.issuer(config, &texts) {
                Ok(issuer) => {
                    let made = || {
                        oidc::Verifier::new(issuer, config)
                            .map(Arc::new)
                            .map(Method::Oidc)
                    };
                    let made = || made().map_err(|error| error.to_string());
                    let login = config.login.as_ref();
                    let secret = login.and_then(|it| it.client_secret_file.as_deref());
                    let inline = login.and_then(|it| it.client_secret.as_ref());
                    let inline = inline.map(|secret| secret.expose().as_bytes().to_vec());
                    let inline = inline.into_iter().collect();
                    let texts = [texts, files(&[secret]), inline].concat();
                    ways.extend(self.way(table, "oidc", format!("{config:?}"), &texts, made));
                }
                Err(error) => self.error(table, &format!("oidc.{}", error.what), &error.reason),
            }
        }
        if let Some(config) = &config.kubernetes {
            let files_of_server: Vec<_> = config.files().map(Some).collect();
            let made = || {
                kubernetes::Reviews::new(config)
                    .map(Box::new)
                    .map(Method::Kubernetes)
            };
            let made = || made().map_err(|error| error.to_string());
            let texts = files(&files_of_server);
            ways.extend(self.way(table, "kubernetes", format!("{config:?}"), &texts, made));
        }
        if let Some(config) = &config.trusted_header {
            let made = || trusted_header::Proxy::new(config).map(Box::new);
            let made = || made().map(Method::TrustedHeader);
            ways.extend(self.way(table, "trusted_header", format!("{config:?}"), &[], made));
        }
        ways
    }

    /// The policy agent of a configuration, shared by all tenants with the same one.
    fn opa(&mut self, config: &OpaConfig, table: &str) -> Option<Arc<Opa>> {
        let files = config.tls.files();
        let texts = files.map(|file| read_file(file, MAX_FILE).unwrap_or_default());
        let texts: Vec<Vec<u8>> = texts.collect();
        let shown = format!("{config:?}");
        let parts = [shown.as_bytes()].into_iter();
        let print = digest::of(parts.chain(texts.iter().map(Vec::as_slice)));
        let before = self.before.and_then(|before| before.agents.get(&print));
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

    /// The issuer of a configuration, shared by all tenants with the same one.
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
        let before = self.before.and_then(|before| before.issuers.get(&print));
        let issuer = match before {
            Some(issuer) => Arc::clone(issuer),
            None => Arc::new(Issuer::new(config)?),
        };
        self.built.issuers.insert(print, Arc::clone(&issuer));
        Ok(issuer)
    }

    /// Index of the authentication method with this digest: an existing one, one reused from the previous
    /// tenants, or a new one.
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
        if let Some(&before) = self.methods.get(&print) {
            return Some(self.take_over(before));
        }
        match make() {
            Ok(method) => Some(self.add(Arc::new(method), print)),
            Err(reason) => {
                self.error(table, key, &reason);
                None
            }
        }
    }

    pub(super) fn finish(self) -> Result<Tenants, Errors> {
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        let mut built = self.built;
        let mut hidden: Vec<HeaderName> = built.headers.clone();
        hidden.extend(CUSTOMARY);
        let mut challenges = BTreeMap::new();
        let mut servers = HashSet::new();
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
                    built.decoy.get_or_insert_with(|| users.decoy());
                    for name in users.names() {
                        index.users.entry(name.clone()).or_default().push(number);
                    }
                }
                Method::Mtls(certificates) => {
                    for name in certificates.authorities() {
                        index
                            .authorities
                            .entry(name.into())
                            .or_default()
                            .push(number);
                    }
                }
                Method::Oidc(verifier) => {
                    let issuer = verifier.issuer().url().to_owned();
                    index.issuers.entry(issuer).or_default().push(number);
                    if let Some(login) = verifier.login() {
                        let name = login.session_cookie().to_owned();
                        index.sessions.entry(name).or_default().push(number);
                    }
                }
                Method::Kubernetes(reviews) => {
                    index.reviews.push(number);
                    servers.insert(reviews.server().clone());
                }
                Method::TrustedHeader(proxy) => {
                    index.proxies.push(number);
                    hidden.extend(proxy.headers().cloned());
                }
            }
        }
        built.index.has_several_servers = servers.len() > 1;
        hidden.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        hidden.dedup();
        built.hidden = hidden.into();
        let challenges = challenges.into_keys();
        built.challenges = challenges.map(HeaderValue::from_static).collect();
        if built.challenges.is_empty() {
            // RFC 9110 requires a challenge in a 401, and certificates have no scheme of their own.
            let bearer = HeaderValue::from_static("Bearer realm=\"metrifold\"");
            built.challenges.push(bearer);
        }
        Ok(built)
    }
}
