//! Observatorium's `tenants.yaml` and `rbac.yaml`, read as they are.
//!
//! A tenant that cannot be used is an error with its name, and not left out: nobody would notice until
//! its senders complain. What Metrifold has no word for (rate limits by endpoint, Rego
//! that is read from files) is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use metrifold_base::keys::defaults;
use metrifold_base::{Period, Problems, read_text};
use metrifold_http::ClientTls;
use metrifold_http::access::Permission;

use crate::config::{
    BindingConfig, KubernetesConfig, MtlsConfig, OidcConfig, OpaConfig, RoleConfig, Subject,
    SubjectKind, SubjectOf, TenantConfig,
};

/// The largest file.
const MAX_FILE: u64 = 64 << 20;

/// Roles and bindings.
#[derive(Debug, Default)]
pub struct Rbac {
    /// Roles by name.
    pub roles: Vec<(String, RoleConfig)>,
    /// Who has them.
    pub bindings: Vec<BindingConfig>,
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

/// What is not needed to tell who calls is only taken note of.
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

/// Reads tenants.
///
/// # Errors
///
/// Fails with the reason when the file cannot be read, or a tenant of it cannot be used.
pub fn read_tenants(file: &Path) -> Result<Vec<(String, TenantConfig)>, String> {
    parse_tenants(&read(file)?).map_err(|reason| format!("{}: {reason}", file.display()))
}

/// Reads roles and bindings.
///
/// # Errors
///
/// Fails with the reason when the file cannot be read or understood.
pub fn read_rbac(file: &Path) -> Result<Rbac, String> {
    parse_rbac(&read(file)?).map_err(|reason| format!("{}: {reason}", file.display()))
}

fn read(file: &Path) -> Result<String, String> {
    let text = read_text(file, MAX_FILE);
    text.map_err(|error| format!("cannot read {}: {error}", file.display()))
}

fn yaml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    // The parser's words would quote what stands there, secrets included.
    serde_saphyr::from_str(text).map_err(|error| match error.location() {
        Some(at) => format!("line {} is not understood", at.line()),
        None => "is not understood".to_owned(),
    })
}

pub(crate) fn parse_tenants(text: &str) -> Result<Vec<(String, TenantConfig)>, String> {
    let file: TenantsFile = yaml(text)?;
    let mut tenants = Vec::with_capacity(file.tenants.len());
    for entry in file.tenants {
        let name = entry.name.clone();
        let tenant = tenant(entry).map_err(|reason| format!("tenant {name:?}: {reason}"))?;
        tenants.push((name, tenant));
    }
    Ok(tenants)
}

fn tenant(entry: TenantEntry) -> Result<TenantConfig, String> {
    if entry.rate_limits.is_some_and(|limits| !limits.is_empty()) {
        return Err(
            "rateLimits are not read from here: write the tenant's limits in the configuration"
                .into(),
        );
    }
    let mut tenant = TenantConfig {
        id: Some(entry.id),
        ..TenantConfig::default()
    };
    if let Some(own) = entry.opa {
        tenant.opa = Some(opa(own)?);
    }
    let mut given = 0;
    if let Some(own) = entry.oidc {
        given += 1;
        tenant.oidc = Some(oidc(own)?);
    }
    if let Some(own) = entry.mtls {
        given += 1;
        tenant.mtls = Some(mtls(own)?);
    }
    if let Some(own) = entry.openshift {
        given += 1;
        tenant.kubernetes = Some(kubernetes(&own)?);
    }
    if let Some(own) = entry.authenticator {
        given += 1;
        let wrong = |_| format!("config of authenticator {:?} is not understood", own.kind);
        match own.kind.as_str() {
            "oidc" => {
                let config = serde_json::from_value(own.config).map_err(wrong)?;
                tenant.oidc = Some(oidc(config)?);
            }
            "mtls" => {
                let config = serde_json::from_value(own.config).map_err(wrong)?;
                tenant.mtls = Some(mtls(config)?);
            }
            "openshift" => {
                let config = serde_json::from_value(own.config).map_err(wrong)?;
                tenant.kubernetes = Some(kubernetes(&config)?);
            }
            other => return Err(format!("there is no authenticator {other:?}")),
        }
    }
    if given != 1 {
        return Err("it has not exactly one of oidc, mTLS, openshift and authenticator".into());
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
            "opa has a query of its own: run an Open Policy Agent with it, and set url".into(),
        );
    }
    if own.with_access_token {
        return Err(
            "opa wants the caller's token (withAccessToken), which never travels on".into(),
        );
    }
    let url = own.url.ok_or("opa has no url")?;
    Ok(OpaConfig {
        url: url.parse().map_err(|error| format!("opa.url: {error}"))?,
        cache: Period::secs(10),
        timeout: Period::secs(2),
        tls: defaults(),
    })
}

fn oidc(own: Oidc) -> Result<OidcConfig, String> {
    if own.issuer_ca.is_some() {
        return Err("issuerCA is not read, as in Observatorium: use issuerCAPath".into());
    }
    Ok(OidcConfig {
        issuer: own.issuer_url,
        audience: None,
        client_id: Some(own.client_id),
        username_claim: own.username_claim.unwrap_or_else(|| "sub".to_owned()),
        groups_claim: own.group_claim.unwrap_or_else(|| "groups".to_owned()),
        clock_skew: Period::secs(30),
        tls: ClientTls {
            ca_file: own.issuer_ca_path,
            ..defaults()
        },
        allow_http: false,
    })
}

fn mtls(own: Mtls) -> Result<MtlsConfig, String> {
    if own.ca.is_some() {
        return Err("ca is not read, as in Observatorium: use caPath".into());
    }
    Ok(MtlsConfig {
        ca_file: own.ca_path.ok_or("mTLS has no caPath")?,
        crl_file: None,
        subject: SubjectOf::Any,
    })
}

fn kubernetes(own: &OpenShift) -> Result<KubernetesConfig, String> {
    if own.kubeconfig.as_ref().is_some_and(|path| !path.is_empty()) {
        return Err(
            "kubeconfig is not read: write the tenant with `kubernetes` in the configuration"
                .into(),
        );
    }
    Ok(defaults())
}

pub(crate) fn parse_rbac(text: &str) -> Result<Rbac, String> {
    let file: RbacFile = yaml(text)?;
    let mut rbac = Rbac::default();
    let mut names = BTreeMap::new();
    for role in file.roles {
        if names.insert(role.name.clone(), ()).is_some() {
            return Err(format!("there are two roles {:?}", role.name));
        }
        let mut permissions = Vec::new();
        for permission in &role.permissions {
            match permission.as_str() {
                "read" => permissions.push(Permission::Read),
                "write" => permissions.extend([Permission::Write, Permission::Rules]),
                other => {
                    return Err(format!("role {:?} has a permission {other:?}", role.name));
                }
            }
        }
        let config = RoleConfig {
            resources: role.resources,
            // A tenant of that name, and not every tenant.
            tenants: role
                .tenants
                .into_iter()
                .filter(|name| name != "*")
                .collect(),
            permissions,
        };
        rbac.roles.push((role.name, config));
    }
    for binding in file.role_bindings {
        let subject = |subject: SubjectEntry| {
            let kind = match subject.kind.as_str() {
                "user" => SubjectKind::User,
                "group" => SubjectKind::Group,
                other => return Err(format!("there is no kind of subject {other:?}")),
            };
            Ok(Subject {
                name: subject.name,
                kind,
            })
        };
        let subjects: Result<_, String> = binding.subjects.into_iter().map(subject).collect();
        rbac.bindings.push(BindingConfig {
            roles: binding.roles,
            subjects: subjects?,
        });
    }
    Ok(rbac)
}
