//! An entry of `tenants.yaml`, and the configuration of its tenant.

use std::path::PathBuf;

use serde::Deserialize;

use metrifold_base::keys::defaults;
use metrifold_base::{Period, Problems, Secret};
use metrifold_http::ClientTls;
use metrifold_limits::LimitKeys;
use metrifold_model::tenant_name;

use crate::config::{
    KubernetesConfig, LoginConfig, MtlsConfig, OidcConfig, OpaConfig, SubjectOf, TenantConfig,
};
use crate::fetch::url;
use crate::limits::LimitsConfig;

use super::flaw;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct TenantEntry {
    pub(super) name: String,
    pub(super) id: String,
    oidc: Option<Oidc>,
    #[serde(rename = "mTLS")]
    mtls: Option<Mtls>,
    openshift: Option<OpenShift>,
    authenticator: Option<Authenticator>,
    opa: Option<OpaEntry>,
    rate_limits: Option<Vec<serde_json::Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Oidc {
    #[serde(rename = "clientID")]
    client_id: String,
    #[serde(rename = "clientSecret")]
    client_secret: Option<serde_json::Value>,
    #[serde(rename = "issuerURL")]
    issuer_url: String,
    #[serde(rename = "issuerCAPath")]
    issuer_ca_path: Option<PathBuf>,
    #[serde(rename = "issuerCA")]
    issuer_ca: Option<serde_json::Value>,
    #[serde(rename = "redirectURL")]
    redirect_url: Option<String>,
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

/// Fields that authentication does not need are parsed, so that unknown ones are still rejected.
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

/// The configuration of a tenant, and what of its entry has no effect or another one than in
/// Observatorium. With `files`, those that it names must be usable.
pub(super) fn tenant(
    entry: TenantEntry,
    files: bool,
) -> Result<(TenantConfig, Box<[String]>), String> {
    let mut notes = Vec::new();
    let name = entry.name.as_str();
    tenant_name::check(name.as_bytes()).map_err(|reason| format!("name: {reason}"))?;
    let limits = limits(&entry.rate_limits.unwrap_or_default(), &mut notes);
    let mut tenant = TenantConfig {
        id: Some(entry.id),
        limits: limits.map(Box::new),
        ..TenantConfig::default()
    };
    if let Some(own) = entry.opa {
        tenant.opa = Some(opa(own)?.into());
    }
    let mut given = 0;
    if let Some(own) = entry.oidc {
        given += 1;
        tenant.oidc = Some(oidc(name, own, &mut notes)?.into());
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
        let wrong = |error| format!("authenticator.config: {}", flaw::of_json(&error));
        match own.kind.as_str() {
            "oidc" => {
                let config = serde_json::from_value(own.config).map_err(wrong)?;
                tenant.oidc = Some(oidc(name, config, &mut notes)?.into());
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
    let mut problems = Problems::new(files);
    tenant.validate(&mut problems);
    match problems.into_list().first() {
        Some(problem) => Err(format!("{}: {}", key_of(&problem.path), problem.message)),
        None => Ok((tenant, notes.into())),
    }
}

/// The key of the file that the value of a key of a tenant's table is from.
fn key_of(path: &str) -> &str {
    match path {
        "mtls.ca_file" => "mTLS.caPath",
        "oidc.issuer" => "oidc.issuerURL",
        "oidc.tls.ca_file" | "oidc.tls" => "oidc.issuerCAPath",
        path => path,
    }
}

/// Endpoints of rate limits that are every path.
const EVERY_PATH: [&str; 8] = ["", "/", ".*", ".+", "/.*", "/.+", "^/.*", "^/.*$"];

/// The first rate limit, which is the one that applies, if it is for every path. Limits are not divided
/// by paths.
fn limits(rates: &[serde_json::Value], notes: &mut Vec<String>) -> Option<LimitsConfig> {
    let first = rates.first()?;
    let endpoint = first.get("endpoint").and_then(serde_json::Value::as_str);
    let limit = first.get("limit").and_then(serde_json::Value::as_u64);
    let window = first.get("window").and_then(serde_json::Value::as_str);
    let window = window.and_then(|window| window.parse::<Period>().ok());
    let seconds = window.map_or(0, |window| window.0.as_secs());
    let every = endpoint.is_some_and(|endpoint| EVERY_PATH.contains(&endpoint));
    let burst = limit.filter(|limit| every && *limit > 0);
    let Some(rate) = burst.and_then(|burst| burst.checked_div(seconds).filter(|rate| *rate > 0))
    else {
        notes.push(
            "rateLimits have no effect, as they are for some paths or for less than one request per second: set limits under [access.limits]"
                .to_owned(),
        );
        return None;
    };
    Some(LimitsConfig {
        keys: LimitKeys {
            requests_per_second: Some(rate),
            requests_burst: burst,
            ..LimitKeys::default()
        },
        ..LimitsConfig::default()
    })
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

fn oidc(name: &str, own: Oidc, notes: &mut Vec<String>) -> Result<OidcConfig, String> {
    if own.issuer_ca.is_some() {
        return Err("issuerCA is not supported: use issuerCAPath".into());
    }
    let issuer = own.issuer_url.as_str();
    let allow_http = url(issuer, false).is_err() && url(issuer, true).is_ok();
    if allow_http {
        notes.push(
            "its issuer is not https: anyone on the network path to it can forge tokens".to_owned(),
        );
    }
    let redirect = own.redirect_url.filter(|url| !url.is_empty());
    let login = redirect.and_then(|redirect| {
        let login = login(name, &redirect, own.client_secret.as_ref());
        if login.is_none() {
            notes.push(format!(
                "users cannot log in with a browser: redirectURL must be https://HOST/oidc/{name}/callback"
            ));
        }
        login.map(Box::new)
    });
    Ok(OidcConfig {
        issuer: own.issuer_url,
        audience: None,
        client_id: Some(own.client_id),
        username_claim: own.username_claim.unwrap_or_else(|| "sub".to_owned()),
        groups_claim: own.group_claim.unwrap_or_else(|| "groups".to_owned()),
        clock_skew: Period::secs(30),
        login,
        tls: ClientTls {
            ca_file: own.issuer_ca_path,
            ..defaults()
        },
        allow_http,
    })
}

/// Login with a browser, if the path of the redirect URL is the one that is served.
fn login(name: &str, redirect: &str, secret: Option<&serde_json::Value>) -> Option<LoginConfig> {
    let external_url = redirect.strip_suffix(&format!("/oidc/{name}/callback"))?;
    let host = external_url.strip_prefix("https://")?;
    if host.is_empty() || host.contains(['/', '?', '#', '@']) {
        return None;
    }
    let secret = secret.and_then(|secret| match secret {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    });
    let secret = secret.filter(|secret| !secret.is_empty());
    Some(LoginConfig {
        external_url: external_url.to_owned(),
        client_secret: secret.map(Secret::new),
        client_secret_file: None,
        after_logout_url: None,
        // The scopes that Observatorium requests.
        scopes: ["openid", "profile", "email", "groups"]
            .map(str::to_owned)
            .into(),
        session: Period::secs(12 * 3600),
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
