//! Observatorium's `tenants.yaml` and `rbac.yaml`, in their original format.
//!
//! A tenant that cannot be used is an error that names it. If it were skipped, nobody would notice
//! until its senders complain. Features that Metrifold does not have (rate limits by endpoint, Rego
//! policies in files) are rejected.

mod entries;
mod foreign;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use metrifold_base::keys::defaults;
use metrifold_base::{Period, Problems, read_text};
use metrifold_http::ClientTls;
use metrifold_http::access::Permission;

use crate::config::{
    BindingConfig, KubernetesConfig, MtlsConfig, OidcConfig, OpaConfig, RoleConfig, Subject,
    SubjectKind, SubjectOf, TenantConfig, TenantSettings,
};

use entries::Entries;

pub use foreign::{Content, Foreign};

/// Maximum size of a file, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// The tenants of a `tenants.yaml`.
#[derive(Debug, Default)]
pub struct ForeignTenants(Entries<ForeignTenant>);

/// A tenant of a `tenants.yaml`.
#[derive(Debug)]
struct ForeignTenant {
    name: String,
    config: TenantConfig,
    /// Hash of its text, unless it names files; see [`TenantSettings::print`].
    print: Option<u64>,
}

/// The roles and bindings of an `rbac.yaml`.
#[derive(Debug, Default)]
pub struct Rbac(Entries<RbacEntry>);

/// A role, with its name, or a binding of roles to users and groups.
#[derive(Debug)]
enum RbacEntry {
    Role(String, RoleConfig),
    Binding(BindingConfig),
}

impl ForeignTenants {
    /// The tenants.
    pub fn tenants(&self) -> impl Iterator<Item = TenantSettings<'_>> {
        self.0.all.iter().map(|tenant| TenantSettings {
            name: &tenant.name,
            config: &tenant.config,
            print: tenant.print,
        })
    }
}

impl Rbac {
    /// The roles by name.
    pub fn roles(&self) -> impl Iterator<Item = (&str, &RoleConfig)> {
        self.0.all.iter().filter_map(|entry| match &**entry {
            RbacEntry::Role(name, role) => Some((name.as_str(), role)),
            RbacEntry::Binding(_) => None,
        })
    }

    /// The bindings of roles to users and groups.
    pub fn bindings(&self) -> impl Iterator<Item = &BindingConfig> {
        self.0.all.iter().filter_map(|entry| match &**entry {
            RbacEntry::Binding(binding) => Some(binding),
            RbacEntry::Role(..) => None,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantsFile {
    #[serde(default)]
    tenants: Vec<TenantEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct TenantEntry {
    name: String,
    id: String,
    oidc: Option<Oidc>,
    #[serde(rename = "mTLS")]
    mtls: Option<Mtls>,
    openshift: Option<OpenShift>,
    authenticator: Option<Authenticator>,
    opa: Option<OpaEntry>,
    rate_limits: Option<Vec<serde_json::Value>>,
}

/// Fields that authentication does not need are parsed, so that unknown ones are still rejected.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Oidc {
    #[serde(rename = "clientID")]
    client_id: String,
    #[serde(rename = "clientSecret")]
    _client_secret: Option<serde_json::Value>,
    #[serde(rename = "issuerURL")]
    issuer_url: String,
    #[serde(rename = "issuerCAPath")]
    issuer_ca_path: Option<PathBuf>,
    #[serde(rename = "issuerCA")]
    issuer_ca: Option<serde_json::Value>,
    #[serde(rename = "redirectURL")]
    _redirect_url: Option<String>,
    #[serde(rename = "usernameClaim")]
    username_claim: Option<String>,
    #[serde(rename = "groupClaim")]
    group_claim: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Mtls {
    ca_path: Option<PathBuf>,
    ca: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct OpenShift {
    #[serde(rename = "kubeconfig")]
    kubeconfig: Option<String>,
    #[serde(rename = "serviceAccount")]
    _service_account: Option<String>,
    #[serde(rename = "redirectURL")]
    _redirect_url: Option<String>,
    #[serde(rename = "cookieSecret")]
    _cookie_secret: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct OpaEntry {
    url: Option<String>,
    query: Option<String>,
    #[serde(default)]
    paths: Vec<String>,
    #[serde(default)]
    with_access_token: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Authenticator {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    config: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RbacFile {
    #[serde(default)]
    roles: Vec<RoleEntry>,
    #[serde(default)]
    role_bindings: Vec<BindingEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleEntry {
    name: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    tenants: Vec<String>,
    #[serde(default)]
    permissions: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BindingEntry {
    #[serde(rename = "name")]
    _name: String,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    subjects: Vec<SubjectEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubjectEntry {
    name: String,
    kind: String,
}

/// Reads the tenants of a `tenants.yaml`.
///
/// # Errors
///
/// Fails with the reason when the file cannot be read, or a tenant of it cannot be used.
pub fn read_tenants(file: &Path) -> Result<ForeignTenants, String> {
    ForeignTenants::read(file, None)
}

/// Reads the roles and bindings of an `rbac.yaml`.
///
/// # Errors
///
/// Fails with the reason when the file cannot be read or understood.
pub fn read_rbac(file: &Path) -> Result<Rbac, String> {
    Rbac::read(file, None)
}

impl Content for ForeignTenants {
    fn read(file: &Path, before: Option<&Self>) -> Result<Self, String> {
        let text = read(file)?;
        let read = parse_tenants(&text, before);
        read.map_err(|reason| format!("{}: {reason}", file.display()))
    }
}

impl Content for Rbac {
    fn read(file: &Path, before: Option<&Self>) -> Result<Self, String> {
        let text = read(file)?;
        let read = parse_rbac(&text, before);
        read.map_err(|reason| format!("{}: {reason}", file.display()))
    }
}

fn read(file: &Path) -> Result<String, String> {
    let text = read_text(file, MAX_FILE);
    text.map_err(|error| format!("cannot read {}: {error}", file.display()))
}

fn yaml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    // The size of the file is the bound; the parser's own ones are for fewer tenants.
    let mut budget = serde_saphyr::Budget::default();
    (budget.max_nodes, budget.max_events) = (text.len() + 16, 2 * text.len() + 32);
    let options = serde_saphyr::options! { budget: Some(budget) };
    // The parser's message would quote the file, secrets included.
    serde_saphyr::from_str_with_options(text, options).map_err(|error| match error.location() {
        Some(at) => format!("line {} does not have the expected form", at.line()),
        None => "does not have the expected form".to_owned(),
    })
}

/// Reads tenants entry by entry, unless the file has an unusual form or an error, which is reported with
/// its line in the file.
fn parse_tenants(text: &str, before: Option<&ForeignTenants>) -> Result<ForeignTenants, String> {
    let mut tenants = Entries::default();
    let divided = entries::divide(text, &["tenants"]).unwrap_or_default();
    let each: Result<_, String> = divided.iter().try_for_each(|(_, text)| {
        tenants.add(text, before.map(|before| &before.0), |text| {
            let [entry]: [TenantEntry; 1] = yaml(text)?;
            let tenant = named_tenant(entry)?;
            let print = tenant.config.files().is_empty();
            let print = print.then(|| entries::hash(text));
            Ok(ForeignTenant { print, ..tenant })
        })
    });
    if !divided.is_empty() && each.is_ok() {
        return Ok(ForeignTenants(tenants));
    }
    let file: TenantsFile = yaml(text)?;
    let tenants: Result<Vec<_>, _> = file.tenants.into_iter().map(named_tenant).collect();
    Ok(ForeignTenants(Entries::of(tenants?)))
}

fn named_tenant(entry: TenantEntry) -> Result<ForeignTenant, String> {
    let name = entry.name.clone();
    let config = tenant(entry).map_err(|reason| format!("tenant {name:?}: {reason}"))?;
    Ok(ForeignTenant {
        name,
        config,
        print: None,
    })
}

fn tenant(entry: TenantEntry) -> Result<TenantConfig, String> {
    if entry.rate_limits.is_some_and(|limits| !limits.is_empty()) {
        return Err(
            "rateLimits are not supported: set limits under [tenants.NAME] or [access]".into(),
        );
    }
    let mut tenant = TenantConfig {
        id: Some(entry.id),
        ..TenantConfig::default()
    };
    if let Some(own) = entry.opa {
        tenant.opa = Some(opa(own)?.into());
    }
    let mut given = 0;
    if let Some(own) = entry.oidc {
        given += 1;
        tenant.oidc = Some(oidc(own)?.into());
    }
    if let Some(own) = entry.mtls {
        given += 1;
        tenant.mtls = Some(mtls(own)?.into());
    }
    if let Some(own) = entry.openshift {
        given += 1;
        tenant.kubernetes = Some(kubernetes(&own)?.into());
    }
    if let Some(own) = entry.authenticator {
        given += 1;
        let wrong = |_| {
            format!(
                "config of authenticator {:?} does not have the expected form",
                own.kind
            )
        };
        match own.kind.as_str() {
            "oidc" => {
                let config = serde_json::from_value(own.config).map_err(wrong)?;
                tenant.oidc = Some(oidc(config)?.into());
            }
            "mtls" => {
                let config = serde_json::from_value(own.config).map_err(wrong)?;
                tenant.mtls = Some(mtls(config)?.into());
            }
            "openshift" => {
                let config = serde_json::from_value(own.config).map_err(wrong)?;
                tenant.kubernetes = Some(kubernetes(&config)?.into());
            }
            other => {
                return Err(format!(
                    "unknown authenticator {other:?}: use oidc, mtls or openshift"
                ));
            }
        }
    }
    if given != 1 {
        return Err("must have exactly one of oidc, mTLS, openshift and authenticator".into());
    }
    let mut problems = Problems::new(false);
    tenant.validate(&mut problems);
    match problems.into_list().first() {
        Some(problem) => Err(format!("{}: {}", problem.path, problem.message)),
        None => Ok(tenant),
    }
}

fn opa(own: OpaEntry) -> Result<OpaConfig, String> {
    if own.query.is_some() || !own.paths.is_empty() {
        return Err(
            "opa.query and opa.paths are not supported: run an Open Policy Agent with the policy, and set opa.url".into(),
        );
    }
    if own.with_access_token {
        return Err(
            "opa.withAccessToken is not supported, as tokens of callers are never forwarded".into(),
        );
    }
    let url = own.url.ok_or("opa.url is missing")?;
    Ok(OpaConfig {
        url: url.parse().map_err(|error| format!("opa.url: {error}"))?,
        cache: Period::secs(10),
        timeout: Period::secs(2),
        tls: defaults(),
    })
}

fn oidc(own: Oidc) -> Result<OidcConfig, String> {
    if own.issuer_ca.is_some() {
        return Err("issuerCA is not supported: use issuerCAPath".into());
    }
    Ok(OidcConfig {
        issuer: own.issuer_url,
        audience: None,
        client_id: Some(own.client_id),
        username_claim: own.username_claim.unwrap_or_else(|| "sub".to_owned()),
        groups_claim: own.group_claim.unwrap_or_else(|| "groups".to_owned()),
        clock_skew: Period::secs(30),
        login: None,
        tls: ClientTls {
            ca_file: own.issuer_ca_path,
            ..defaults()
        },
        allow_http: false,
    })
}

fn mtls(own: Mtls) -> Result<MtlsConfig, String> {
    if own.ca.is_some() {
        return Err("mTLS.ca is not supported: use caPath".into());
    }
    Ok(MtlsConfig {
        ca_file: own.ca_path.ok_or("mTLS.caPath is missing")?,
        crl_file: None,
        subject: SubjectOf::Any,
    })
}

fn kubernetes(own: &OpenShift) -> Result<KubernetesConfig, String> {
    if own.kubeconfig.as_ref().is_some_and(|path| !path.is_empty()) {
        return Err(
            "openshift.kubeconfig is not supported: declare the tenant under [tenants.NAME], with `kubernetes`"
                .into(),
        );
    }
    Ok(defaults())
}

/// Reads roles and bindings as [`parse_tenants`] does tenants.
fn parse_rbac(text: &str, before: Option<&Rbac>) -> Result<Rbac, String> {
    let mut rbac = Entries::default();
    let divided = entries::divide(text, &["roles", "roleBindings"]).unwrap_or_default();
    let each: Result<_, String> = divided.iter().try_for_each(|(key, text)| {
        rbac.add(text, before.map(|before| &before.0), |text| match key {
            0 => yaml(text).and_then(|[entry]: [RoleEntry; 1]| role(entry)),
            _ => yaml(text).and_then(|[entry]: [BindingEntry; 1]| binding(entry)),
        })
    });
    if divided.is_empty() || each.is_err() {
        let file: RbacFile = yaml(text)?;
        let roles = file.roles.into_iter().map(role);
        let bindings = file.role_bindings.into_iter().map(binding);
        let all: Result<Vec<_>, _> = roles.chain(bindings).collect();
        rbac = Entries::of(all?);
    }
    let rbac = Rbac(rbac);
    let mut names = HashSet::new();
    let twice = rbac.roles().find(|(name, _)| !names.insert(*name));
    if let Some((name, _)) = twice {
        return Err(format!("role {name:?} is declared twice"));
    }
    Ok(rbac)
}

fn role(entry: RoleEntry) -> Result<RbacEntry, String> {
    let mut permissions = Vec::new();
    for permission in &entry.permissions {
        match permission.as_str() {
            "read" => permissions.push(Permission::Read),
            "write" => permissions.extend([Permission::Write, Permission::Rules]),
            other => {
                return Err(format!(
                    "role {:?} has an unknown permission {other:?}: use read or write",
                    entry.name
                ));
            }
        }
    }
    let tenants = entry.tenants.into_iter();
    let config = RoleConfig {
        resources: trimmed(entry.resources),
        // In Observatorium, `*` is an ordinary name here: it must not grant access to all tenants.
        tenants: trimmed(tenants.filter(|name| name != "*").collect()),
        permissions,
    };
    Ok(RbacEntry::Role(entry.name, config))
}

fn binding(entry: BindingEntry) -> Result<RbacEntry, String> {
    let subject = |subject: SubjectEntry| {
        let kind = match subject.kind.as_str() {
            "user" => SubjectKind::User,
            "group" => SubjectKind::Group,
            other => {
                return Err(format!(
                    "unknown kind of subject {other:?}: use user or group"
                ));
            }
        };
        Ok(Subject {
            name: subject.name,
            kind,
        })
    };
    let subjects: Result<_, String> = entry.subjects.into_iter().map(subject).collect();
    Ok(RbacEntry::Binding(BindingConfig {
        roles: trimmed(entry.roles),
        subjects: trimmed(subjects?),
    }))
}

/// A list without the room that the parser left for more: there may be very many lists of one entry.
fn trimmed<T>(mut list: Vec<T>) -> Vec<T> {
    list.shrink_to_fit();
    list
}

#[cfg(test)]
mod tests;
