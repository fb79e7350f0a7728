//! Validation of the configuration beyond its syntax.

use http::HeaderName;

use metrifold_base::{Period, Problems};
use metrifold_model::tenant_name;

use crate::access::AccessConfig;
use crate::config::{LoginConfig, OidcConfig, OpaConfig, TenantConfig, TrustedHeaderConfig};
use crate::fetch::url;
use crate::observatorium::Foreign;
use crate::proof::basic::Users;
use crate::proof::bearer::Tokens;
use crate::proof::mtls::Certificates;

impl AccessConfig {
    /// Reports every problem that deserialization cannot see.
    pub fn validate(&self, problems: &mut Problems) {
        if self.path_parameter.is_empty() {
            problems.at("path_parameter", "must not be empty");
        }
        for (index, header) in self.headers.iter().enumerate() {
            if header.parse::<HeaderName>().is_err() {
                let what = format!("{header:?} is not the name of a header");
                problems.at(format!("headers[{index}]"), what);
            }
        }
        self.limits.validate(problems);
        if !problems.environment() {
            return;
        }
        if let Some(Err(reason)) = self.tenants_file.as_ref().map(Foreign::get) {
            problems.at("tenants_file", reason);
        }
        if let Some(Err(reason)) = self.rbac_file.as_ref().map(Foreign::get) {
            problems.at("rbac_file", reason);
        }
    }
}

impl TenantConfig {
    /// Reports every problem that deserialization cannot see.
    pub fn validate(&self, problems: &mut Problems) {
        if let Some(id) = &self.id
            && let Err(reason) = tenant_name::check(id.as_bytes())
        {
            problems.at("id", reason).help("choose another id");
        }
        if let Some(limits) = &self.limits {
            limits.validate(problems);
        }
        let nothing = Self {
            id: self.id.clone(),
            limits: self.limits.clone(),
            opa: self.opa.clone(),
            ..Self::default()
        };
        if *self == nothing {
            let what = "the tenant has no authentication method, so that nobody can use it";
            let help = "add one of bearer, basic, mtls, oidc, kubernetes and trusted_header";
            problems.at("", what).help(help);
        }
        if let Some(oidc) = &self.oidc {
            oidc.validate(problems);
        }
        if let Some(kubernetes) = &self.kubernetes {
            kubernetes.tls.validate("kubernetes.tls", problems);
        }
        if let Some(trusted) = &self.trusted_header {
            trusted.validate(problems);
        }
        if let Some(opa) = &self.opa {
            opa.validate(problems);
        }
        if problems.environment() {
            self.validate_files(problems);
        }
    }

    fn validate_files(&self, problems: &mut Problems) {
        let mut check = |key: &str, read: Result<(), String>| {
            if let Err(reason) = read {
                problems.at(key, reason);
            }
        };
        if let Some(bearer) = &self.bearer {
            check(
                "bearer.tokens_file",
                Tokens::read(&bearer.tokens_file).map(drop),
            );
        }
        if let Some(basic) = &self.basic {
            check(
                "basic.web_config_file",
                Users::read(&basic.web_config_file).map(drop),
            );
        }
        if let Some(mtls) = &self.mtls {
            let read = Certificates::read(mtls).map(drop);
            check("mtls.ca_file", read.map_err(|error| error.reason));
        }
    }
}

impl OidcConfig {
    fn validate(&self, problems: &mut Problems) {
        if let Err(reason) = url(&self.issuer, self.allow_http) {
            problems.at("oidc.issuer", reason);
        }
        if self.audience.is_none() && self.client_id.is_none() {
            let what = "tokens for any audience would be accepted";
            problems.at("oidc", what).help("set audience or client_id");
        }
        if self.clock_skew > Period::secs(600) {
            problems.at("oidc.clock_skew", "must be at most 10m");
        }
        self.tls.validate("oidc.tls", problems);
        if let Some(login) = &self.login {
            login.validate(problems);
            if self.client_id.is_none() {
                let what = "login requires the id of a client";
                problems.at("oidc.login", what).help("set client_id");
            }
        }
    }
}

impl LoginConfig {
    fn validate(&self, problems: &mut Problems) {
        let url = self.external_url.parse::<http::Uri>().ok();
        let plain = url.as_ref().is_some_and(|url| {
            let bare = url.query().is_none() && url.path() == "/";
            bare && url.authority().is_some_and(|it| !it.as_str().contains('@'))
        });
        let scheme = url.as_ref().and_then(http::Uri::scheme_str);
        if !plain || scheme != Some("https") {
            let what =
                "must be https:// and a host, as browsers keep session cookies only for https";
            problems.at("oidc.login.external_url", what);
        }
        if !self.scopes.iter().any(|scope| scope == "openid") {
            problems.at("oidc.login.scopes", "must contain openid");
        }
        if !(Period::secs(60)..=Period::secs(30 * 24 * 3600)).contains(&self.session) {
            problems.at("oidc.login.session", "must be from 1m to 30d");
        }
        if let Some(url) = &self.after_logout_url
            && url
                .parse::<http::Uri>()
                .ok()
                .and_then(|url| url.host().map(drop))
                .is_none()
        {
            problems.at("oidc.login.after_logout_url", "must be a URL with a host");
        }
        if self.client_secret.is_some() && self.client_secret_file.is_some() {
            let what = "client_secret and client_secret_file are both set";
            problems.at("oidc.login", what).help("remove one of them");
        }
        if !problems.environment() {
            return;
        }
        if let Some(path) = &self.client_secret_file
            && let Err(error) = metrifold_base::read_text(path, 64 << 10)
        {
            let what = format!("cannot read {}: {error}", path.display());
            problems.at("oidc.login.client_secret_file", what);
        }
    }
}

impl TrustedHeaderConfig {
    fn validate(&self, problems: &mut Problems) {
        let groups = self.groups.iter().map(|name| ("groups", name));
        for (key, name) in groups.chain([("user", &self.user)]) {
            if name.parse::<HeaderName>().is_err() {
                let what = format!("{name:?} is not the name of a header");
                problems.at(format!("trusted_header.{key}"), what);
            }
        }
        if self.addresses.is_empty() && self.certificates.is_empty() {
            let what = "any client could claim to be any caller";
            let help = "set addresses or certificates of the proxy";
            problems.at("trusted_header", what).help(help);
        }
    }
}

impl OpaConfig {
    /// Reports every problem that deserialization cannot see, at keys below `opa`.
    pub(crate) fn validate(&self, problems: &mut Problems) {
        if self.timeout.0.is_zero() {
            problems.at("opa.timeout", "must be longer than 0s");
        }
        self.tls.validate("opa.tls", problems);
    }
}
