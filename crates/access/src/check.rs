//! What is wrong with a configuration that reads well.

use http::HeaderName;

use metrifold_base::{Period, Problems};
use metrifold_model::tenant_name;

use crate::config::{AccessConfig, OidcConfig, OpaConfig, TenantConfig, TrustedHeaderConfig};
use crate::fetch::url;
use crate::observatorium;
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
        let tenants = self
            .tenants_file
            .as_deref()
            .map(observatorium::read_tenants);
        if let Some(Err(reason)) = tenants {
            problems.at("tenants_file", reason);
        }
        if let Some(Err(reason)) = self.rbac_file.as_deref().map(observatorium::read_rbac) {
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
        self.limits.validate(problems);
        let nothing = Self {
            id: self.id.clone(),
            limits: self.limits.clone(),
            opa: self.opa.clone(),
            ..Self::default()
        };
        if *self == nothing {
            let what = "nobody can prove to be of this tenant";
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
            let what = "tokens for anybody would be taken";
            problems.at("oidc", what).help("set audience or client_id");
        }
        if self.clock_skew > Period::secs(600) {
            problems.at("oidc.clock_skew", "must be at most 10m");
        }
        self.tls.validate("oidc.tls", problems);
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
            let what = "anybody could be anybody";
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
