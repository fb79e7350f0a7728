//! What is configured: `[access]`, `[tenants.NAME]`, `[roles.NAME]` and `[role_bindings.NAME]`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use http::HeaderName;

use metrifold_base::{Endpoint, Period, keys, words};
use metrifold_http::ClientTls;
use metrifold_http::access::Permission;

use crate::limits::LimitsConfig;
use crate::networks::Network;

keys! {
    /// `[access]`: how requests name tenants, and files with tenants and roles.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct AccessConfig {
        /// Parameter of a source's path that names the tenant, by its name or its id.
        pub path_parameter: String = default("tenant"),
        /// Headers that name the tenant, by its name or its id; several are divided by `|`. They never travel on.
        pub headers: Vec<String> = unset(["X-Scope-OrgID", "THANOS-TENANT"]),
        /// Tenants in Observatorium's format (`tenants.yaml`), besides those under `[tenants.NAME]`.
        pub tenants_file: Option<PathBuf> = unset("/etc/metrifold/tenants.yaml"),
        /// Roles and bindings in Observatorium's format (`rbac.yaml`), besides those under `[roles.NAME]` and `[role_bindings.NAME]`. `write` there lets a caller write rules too, as it does there.
        pub rbac_file: Option<PathBuf> = unset("/etc/metrifold/rbac.yaml"),
        /// Limits of every tenant that has none of its own, key by key.
        pub limits: LimitsConfig = table,
    }
}

keys! {
    /// `[tenants.NAME]`: a tenant, and how a caller proves to be of it. Any of the ways will do.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct TenantConfig {
        /// What the tenant is called where its data is stored: the value of its label and of the header that stores choose by. Its name by default.
        pub id: Option<String> = unset("1610b0c3-c509-4592-a256-a1871353dbfa"),
        /// Tokens that it knows by their hashes.
        pub bearer: Option<BearerConfig> = optional,
        /// Users and passwords.
        pub basic: Option<BasicConfig> = optional,
        /// Client certificates.
        pub mtls: Option<MtlsConfig> = optional,
        /// Tokens of an OpenID Connect issuer.
        pub oidc: Option<OidcConfig> = optional,
        /// Tokens of Kubernetes' service accounts.
        pub kubernetes: Option<KubernetesConfig> = optional,
        /// The word of a proxy in front, which has asked callers who they are.
        pub trusted_header: Option<TrustedHeaderConfig> = optional,
        /// An Open Policy Agent that says who may do what at this tenant, in the place of roles.
        pub opa: Option<OpaConfig> = optional,
        /// Its limits; those under `[access.limits]` hold for the keys that are not here.
        pub limits: LimitsConfig = table,
    }
}

keys! {
    /// Tokens that are known by their hashes.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct BearerConfig {
        /// File with a line for each token: `sha256:` and the token's SHA-256 in hexadecimal digits, then, if it has one, the name of who has it, and groups divided by commas. Empty lines and those that begin with `#` say nothing.
        pub tokens_file: PathBuf = required("/etc/metrifold/acme.tokens"),
    }
}

keys! {
    /// Users and passwords.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct BasicConfig {
        /// File in the format of Prometheus' `web.config.file`: its `basic_auth_users`, names with passwords hashed by bcrypt; the rest of it is not read.
        pub web_config_file: PathBuf = required("/etc/metrifold/web.yaml"),
    }
}

words! {
    /// What of a certificate is its owner's name.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum SubjectOf {
        /// The first alternative name there is, of e-mail addresses, then URIs, DNS names, IP addresses.
        Any = "any",
        /// The first e-mail address.
        Email = "email",
        /// The first URI.
        Uri = "uri",
        /// The first DNS name.
        Dns = "dns",
        /// The first IP address.
        Ip = "ip",
        /// The subject's common name.
        CommonName = "common_name",
    }
}

keys! {
    /// Client certificates.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct MtlsConfig {
        /// Certificate authorities in PEM: a certificate that one of them signed is the tenant's.
        pub ca_file: PathBuf = required("/etc/metrifold/acme-ca.crt"),
        /// Lists of revoked certificates in PEM, of all authorities on the way to those in `ca_file`.
        pub crl_file: Option<PathBuf> = unset("/etc/metrifold/acme.crl"),
        /// What of a certificate is its owner's name: `any` (the first alternative name there is: e-mail address, URI, DNS name, IP address), `email`, `uri`, `dns`, `ip` or `common_name`. A certificate without it is refused. Its organizational units are the groups.
        pub subject: SubjectOf = default("any"),
    }
}

keys! {
    /// An OpenID Connect issuer, and what its tokens must say.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct OidcConfig {
        /// The issuer's URL, as its tokens have it under `iss`. What else it has is found below it, at `/.well-known/openid-configuration`.
        pub issuer: String = required("https://login.example/realms/metrics"),
        /// Audience that a token must be for; `client_id` by default.
        pub audience: Option<String> = unset("metrics"),
        /// Client that tokens are issued to.
        pub client_id: Option<String> = unset("metrifold"),
        /// Claim with the caller's name.
        pub username_claim: String = default("sub"),
        /// Claim with the caller's groups: a list, or one text.
        pub groups_claim: String = default("groups"),
        /// How far the issuer's clock may be from this one.
        pub clock_skew: Period = default("30s"),
        /// TLS towards the issuer.
        pub tls: ClientTls = table,
        /// Whether the issuer may be at an `http` URL that is not of this machine: whoever is on the way can then forge tokens.
        pub allow_http: bool = default(false),
    }
}

keys! {
    /// Kubernetes' API server, which is asked whose a token is (`TokenReview`).
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct KubernetesConfig {
        /// URL of the API server.
        pub api_server: Endpoint = default("https://kubernetes.default.svc"),
        /// Token that it is asked with; it must be allowed to create `tokenreviews`.
        pub token_file: PathBuf = default("/var/run/secrets/kubernetes.io/serviceaccount/token"),
        /// Audiences of which a token must be for one; without them those of the API server.
        pub audiences: Vec<String> = unset(["metrics"]),
        /// How long an answer is believed. A token that is withdrawn is good for so long.
        pub cache: Period = default("1m"),
        /// TLS towards the API server.
        pub tls: ClientTls = table,
    }
}

keys! {
    /// What a proxy in front says of callers.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct TrustedHeaderConfig {
        /// Header with the caller's name.
        pub user: String = required("X-Forwarded-User"),
        /// Header with the caller's groups, divided by commas.
        pub groups: Option<String> = unset("X-Forwarded-Groups"),
        /// Addresses of the proxy, or networks such as `10.0.0.0/24`. Anybody there can be anybody of the tenant.
        pub addresses: Vec<Network> = unset(["10.0.0.7"]),
        /// Names of the proxy: common names or DNS names of a client certificate that the listener's `client_ca_file` verified.
        pub certificates: Vec<String> = unset(["proxy.example"]),
    }
}

keys! {
    /// An Open Policy Agent that decides in the place of roles.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct OpaConfig {
        /// URL of the rule in its data API. It is asked with `subject`, `groups`, `tenant`, `tenantID`, `resource` and `permission`, and answers `true`, or `{"allowed": true}`, as `result`.
        pub url: Endpoint = required("http://127.0.0.1:8181/v1/data/observatorium/allow"),
        /// How long an answer is believed.
        pub cache: Period = default("10s"),
        /// Longest time for an answer; then the caller is told to come again (503).
        pub timeout: Period = default("2s"),
        /// TLS towards it.
        pub tls: ClientTls = table,
    }
}

keys! {
    /// `[roles.NAME]`: what a role lets callers do.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct RoleConfig {
        /// What it is for. Metrifold has `metrics`; others, such as `logs`, are taken and mean nothing here.
        pub resources: Vec<String> = default(["metrics"]),
        /// Names of the tenants that it is for; `*` is every tenant.
        pub tenants: Vec<String> = required(["acme"]),
        /// What it lets callers do: `read`, `write`, `rules` and `admin`.
        pub permissions: Vec<Permission> = required(["read", "write"]),
    }
}

keys! {
    /// `[role_bindings.NAME]`: who has which roles.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct BindingConfig {
        /// Names of the roles.
        pub roles: Vec<String> = required(["acme-readers"]),
        /// Who has them: entries of `name` and `kind`, which is `user` or `group`.
        pub subjects: Vec<Subject> = required([{ name = "admin@example.com", kind = "user" }]),
    }
}

keys! {
    /// Who has roles.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Subject {
        /// The name of the user or the group.
        pub name: String = required("admin@example.com"),
        /// What it is: `user` or `group`.
        pub kind: SubjectKind = default("user"),
    }
}

words! {
    /// What a subject is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum SubjectKind {
        /// A caller by its name.
        User = "user",
        /// All callers of a group.
        Group = "group",
    }
}

/// Headers by which servers of metrics are told the tenant.
const CUSTOMARY: [HeaderName; 2] = [
    HeaderName::from_static("x-scope-orgid"),
    HeaderName::from_static("thanos-tenant"),
];

impl Default for AccessConfig {
    fn default() -> Self {
        metrifold_base::keys::defaults()
    }
}

impl AccessConfig {
    /// The headers that name the tenant.
    pub(crate) fn header_names(&self) -> Vec<HeaderName> {
        if self.headers.is_empty() {
            return CUSTOMARY.to_vec();
        }
        let names = self.headers.iter();
        names.filter_map(|name| name.parse().ok()).collect()
    }

    /// The files that it names.
    pub fn files(&self) -> Vec<&Path> {
        let files = [&self.tenants_file, &self.rbac_file];
        files.into_iter().flatten().map(PathBuf::as_path).collect()
    }
}

impl TenantConfig {
    /// The files that it names.
    pub fn files(&self) -> Vec<&Path> {
        let mut files: Vec<&Path> = Vec::new();
        files.extend(self.bearer.iter().map(|it| it.tokens_file.as_path()));
        files.extend(self.basic.iter().map(|it| it.web_config_file.as_path()));
        if let Some(mtls) = &self.mtls {
            files.push(&mtls.ca_file);
            files.extend(mtls.crl_file.as_deref());
        }
        if let Some(oidc) = &self.oidc {
            files.extend(oidc.tls.files());
        }
        // The token of a service account is renewed all the time, and read when it is needed.
        if let Some(kubernetes) = &self.kubernetes {
            files.extend(kubernetes.tls.files());
        }
        if let Some(opa) = &self.opa {
            files.extend(opa.tls.files());
        }
        files
    }
}

impl OidcConfig {
    /// The audience that tokens must be for.
    pub(crate) fn audience(&self) -> &str {
        let either = self.audience.as_deref().or(self.client_id.as_deref());
        either.unwrap_or_default()
    }
}

impl TrustedHeaderConfig {
    /// Whether a proxy there is trusted for its address.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        self.addresses.iter().any(|network| network.holds(peer))
    }
}
