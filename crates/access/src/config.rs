//! The tables `[tenants.NAME]`, `[roles.NAME]` and `[role_bindings.NAME]`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use metrifold_base::{Endpoint, Period, Secret, keys, words};
use metrifold_http::ClientTls;
use metrifold_http::access::Permission;
use metrifold_model::Membership;

use crate::limits::LimitsConfig;
use crate::networks::Network;

keys! {
    /// `[tenants.NAME]`: a tenant and its authentication methods, any one of which suffices.
    // What most tenants do not have is behind a pointer, as there may be very many tenants.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct TenantConfig {
        /// ID of the tenant where its data is stored: the value of its label and of the header by which stores select the tenant. By default, its name.
        pub id: Option<String> = unset("1610b0c3-c509-4592-a256-a1871353dbfa"),
        /// Bearer tokens, configured by their hashes.
        pub bearer: Option<Box<BearerConfig>> = optional,
        /// Users and passwords (HTTP basic authentication).
        pub basic: Option<Box<BasicConfig>> = optional,
        /// Client certificates (mutual TLS).
        pub mtls: Option<Box<MtlsConfig>> = optional,
        /// Tokens of an OpenID Connect issuer.
        pub oidc: Option<Box<OidcConfig>> = optional,
        /// Tokens of Kubernetes service accounts.
        pub kubernetes: Option<Box<KubernetesConfig>> = optional,
        /// Headers of a proxy in front that authenticates callers.
        pub trusted_header: Option<Box<TrustedHeaderConfig>> = optional,
        /// Open Policy Agent that authorizes the requests of this tenant, instead of roles.
        pub opa: Option<Box<OpaConfig>> = optional,
        /// Limits of the tenant. Keys that are not set are taken from `[access.limits]`.
        pub limits: Option<Box<LimitsConfig>> = optional,
    }
}

keys! {
    /// Bearer tokens, configured by their hashes.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct BearerConfig {
        /// File with one line per token: `sha256:` and the token's SHA-256 in hexadecimal digits, then, optionally and separated by spaces, the name of its owner, and the owner's groups separated by commas. Empty lines and lines that begin with `#` are ignored.
        pub tokens_file: PathBuf = required("/etc/metrifold/acme.tokens"),
    }
}

keys! {
    /// Users and passwords (HTTP basic authentication).
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct BasicConfig {
        /// File in the format of Prometheus' `web.config.file`. Only its `basic_auth_users` are used: user names with passwords hashed by bcrypt.
        pub web_config_file: PathBuf = required("/etc/metrifold/web.yaml"),
    }
}

words! {
    /// Field of a certificate with its owner's name.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum SubjectOf {
        /// The first alternative name, in this order: e-mail address, URI, DNS name, IP address.
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
    /// Client certificates (mutual TLS).
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct MtlsConfig {
        /// PEM file with the tenant's certificate authorities: every client certificate that one of them signed is the tenant's.
        pub ca_file: PathBuf = required("/etc/metrifold/acme-ca.crt"),
        /// PEM file with certificate revocation lists (CRLs) of all authorities in the chain up to those in `ca_file`.
        pub crl_file: Option<PathBuf> = unset("/etc/metrifold/acme.crl"),
        /// Field of the certificate with its owner's name: `any` (the first alternative name, in this order: e-mail address, URI, DNS name, IP address), `email`, `uri`, `dns`, `ip` or `common_name`. A certificate without that field is rejected. Its organizational units are the owner's groups.
        pub subject: SubjectOf = default("any"),
    }
}

keys! {
    /// An OpenID Connect issuer, and the requirements on its tokens.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct OidcConfig {
        /// URL of the issuer, exactly as in the `iss` claim of its tokens. Its keys and endpoints are discovered below it, at `/.well-known/openid-configuration`.
        pub issuer: String = required("https://login.example/realms/metrics"),
        /// Audience that a token must have; `client_id` by default.
        pub audience: Option<String> = unset("metrics"),
        /// ID of the client that the issuer issues tokens to.
        pub client_id: Option<String> = unset("metrifold"),
        /// Claim with the caller's name.
        pub username_claim: String = default("sub"),
        /// Claim with the caller's groups: a list, or one string.
        pub groups_claim: String = default("groups"),
        /// Maximum difference between the issuer's clock and the gateway's.
        pub clock_skew: Period = default("30s"),
        /// Login with a browser.
        pub login: Option<Box<LoginConfig>> = optional,
        /// TLS of the connections to the issuer.
        pub tls: ClientTls = table,
        /// Whether the issuer's URL may be `http` on another machine. Anyone on the network path can then forge tokens.
        pub allow_http: bool = default(false),
    }
}

keys! {
    /// Login with a browser.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct LoginConfig {
        /// URL of this gateway as browsers reach it. It must be `https`. `URL/oidc/NAME/callback`, with the name of the tenant, must be registered at the issuer as a redirect URI.
        pub external_url: String = required("https://metrics.example"),
        /// Secret of the client. Without it and `client_secret_file`, the client is public.
        pub client_secret: Option<Secret> = unset("${ACME_SECRET}"),
        /// File with the client's secret, instead of `client_secret`. Trailing white space is ignored.
        pub client_secret_file: Option<PathBuf> = unset("/etc/metrifold/acme.secret"),
        /// URL that the issuer sends the browser to after the logout. It must be registered there as a post-logout redirect URI. By default, the issuer shows a page of its own.
        pub after_logout_url: Option<String> = unset("https://metrics.example/"),
        /// Requested scopes, among them `openid`. Some issuers return refresh tokens only for `offline_access`.
        pub scopes: Vec<String> = default(["openid"]),
        /// Maximum duration of a session. Until then it is renewed whenever its ID token expires, if the issuer returned a refresh token.
        pub session: Period = default("12h"),
    }
}

keys! {
    /// Kubernetes API server that verifies the tokens of service accounts (`TokenReview`).
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct KubernetesConfig {
        /// URL of the API server.
        pub api_server: Endpoint = default("https://kubernetes.default.svc"),
        /// File with the token that authenticates to the API server. Its service account must be allowed to create `tokenreviews`.
        pub token_file: PathBuf = default("/var/run/secrets/kubernetes.io/serviceaccount/token"),
        /// Audiences of which a token must have at least one. By default, those of the API server.
        pub audiences: Vec<String> = unset(["metrics"]),
        /// Time for which an answer of the API server is cached, but not longer than the token is valid. A revoked token is accepted for at most this long.
        pub cache: Period = default("1m"),
        /// TLS of the connections to the API server.
        pub tls: ClientTls = table,
    }
}

keys! {
    /// Headers of a proxy in front that authenticates callers.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct TrustedHeaderConfig {
        /// Header with the caller's name.
        pub user: String = required("X-Forwarded-User"),
        /// Header with the caller's groups, separated by commas. A request that repeats it is rejected.
        pub groups: Option<String> = unset("X-Forwarded-Groups"),
        /// Addresses of the proxy, or networks such as `10.0.0.0/24`. Any client at these addresses can claim to be any caller of the tenant.
        pub addresses: Vec<Network> = unset(["10.0.0.7"]),
        /// Names of the proxy: common names or DNS names of its client certificate, which the listener verifies by its `client_ca_file`.
        pub certificates: Vec<String> = unset(["proxy.example"]),
    }
}

keys! {
    /// Open Policy Agent that authorizes requests instead of roles.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct OpaConfig {
        /// URL of the rule in the agent's data API. The input has the keys `subject`, `groups`, `tenant`, `tenantID`, `resource` and `permission`. The rule allows a request by the result `true` or `{"allowed": true}`.
        pub url: Endpoint = required("http://127.0.0.1:8181/v1/data/observatorium/allow"),
        /// Time for which a decision is cached.
        pub cache: Period = default("10s"),
        /// Maximum time for a decision. After it, the request is rejected with status 503.
        pub timeout: Period = default("2s"),
        /// TLS of the connections to the agent.
        pub tls: ClientTls = table,
    }
}

keys! {
    /// `[roles.NAME]`: the permissions that a role grants.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct RoleConfig {
        /// Resources that the role applies to. Metrifold serves `metrics`; others, such as `logs`, are accepted without effect.
        pub resources: Vec<String> = default(["metrics"]),
        /// Names of the tenants that the role applies to; `*` stands for all tenants.
        pub tenants: Vec<String> = required(["acme"]),
        /// Permissions that the role grants: `read`, `write`, `rules` and `admin`.
        pub permissions: Vec<Permission> = required(["read", "write"]),
    }
}

keys! {
    /// `[role_bindings.NAME]`: users and groups that get roles.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct BindingConfig {
        /// Names of the roles to grant.
        pub roles: Vec<String> = required(["acme-readers"]),
        /// Users and groups that get the roles: entries of `name` and `kind`, which is `user` or `group`.
        pub subjects: Vec<Subject> = required([{ name = "admin@example.com", kind = "user" }]),
    }
}

keys! {
    /// A user or a group that gets roles.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Subject {
        /// The name of the user or the group.
        pub name: String = required("admin@example.com"),
        /// Kind of the subject: `user` or `group`.
        pub kind: SubjectKind = default("user"),
    }
}

words! {
    /// Kind of a subject.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum SubjectKind {
        /// The caller of this name.
        User = "user",
        /// All callers that are members of this group.
        Group = "group",
    }
}

/// A tenant that is to be built.
#[derive(Clone)]
pub struct TenantSettings<'a> {
    /// Its name and its id, which count instead of that in `config`.
    pub membership: Membership,
    /// The rest of its configuration.
    pub config: &'a TenantConfig,
    /// A number that differs if the configuration or the content of a file that it names does; `None`
    /// if it is not known. A tenant with the same number as before is taken over without reading its
    /// files.
    pub print: Option<u64>,
}

impl<'a> TenantSettings<'a> {
    /// The settings of the table `[tenants.NAME]`.
    pub fn of(name: &str, config: &'a TenantConfig, print: Option<u64>) -> Self {
        let name: Arc<str> = name.into();
        let id = config.id.as_deref();
        let tenant = id.map_or_else(|| Arc::clone(&name), Arc::from);
        Self {
            membership: Membership { name, tenant },
            config,
            print,
        }
    }
}

impl TenantConfig {
    /// The files that the table refers to.
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
            files.extend(
                oidc.login
                    .iter()
                    .flat_map(|it| it.client_secret_file.as_deref()),
            );
        }
        // The token of a service account is rotated often and read at each use: no change to watch for.
        if let Some(kubernetes) = &self.kubernetes {
            files.extend(kubernetes.files());
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

/// Path of the certificate authority of the cluster in every pod.
const CLUSTER_CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

impl KubernetesConfig {
    /// The authorities to verify the API server with; `None` for the system's.
    pub(crate) fn ca_file(&self) -> Option<&Path> {
        self.ca_file_or(Path::new(CLUSTER_CA))
    }

    fn ca_file_or<'a>(&'a self, cluster: &'a Path) -> Option<&'a Path> {
        let exists = || std::fs::metadata(cluster).is_ok_and(|file| file.is_file());
        let own = self.tls.ca_file.as_deref();
        own.or_else(|| exists().then_some(cluster))
    }

    /// The files for TLS towards the API server, the authority of the cluster included.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let own = [&self.tls.cert_file, &self.tls.key_file];
        let own = own.into_iter().flatten().map(PathBuf::as_path);
        self.ca_file().into_iter().chain(own)
    }
}

impl TrustedHeaderConfig {
    /// Whether a proxy is trusted by its address.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        self.addresses.iter().any(|network| network.holds(peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_of_the_cluster_is_used_if_there_is_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = folder.path().join("ca.crt");
        let config = |text: &str| toml::from_str::<KubernetesConfig>(text).unwrap();
        let (own, none) = (config("tls = { ca_file = \"own.crt\" }"), config(""));
        assert_eq!(none.ca_file_or(&cluster), None);
        std::fs::write(&cluster, "").unwrap();
        assert_eq!(none.ca_file_or(&cluster), Some(&*cluster));
        assert_eq!(own.ca_file_or(&cluster), Some(Path::new("own.crt")));
        // What is read is watched, and read again when it changes.
        assert_eq!(none.files().next(), none.ca_file());
        assert_eq!(own.files().next(), own.ca_file());
    }
}
