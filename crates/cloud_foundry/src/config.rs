//! `[discovery.NAME] type = "cloud_foundry"`: which foundation, as whom, and what of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use metrifold_base::{BuildError, Endpoint, OneOrMany, Period, Problems, Secret, keys, words};
use metrifold_discovery::LimitKeys;
use metrifold_http::{Client, ClientConfig, ClientTls, ProxyKeys, SecretFrom};

keys! {
    /// `[discovery.NAME] type = "cloud_foundry"`.
    #[derive(Clone, Debug)]
    pub struct CloudFoundryConfig {
        /// URL of the foundation's Cloud Controller. A query in it is added to each request.
        pub(crate) api: Endpoint = required("https://api.cf.example"),
        pub(crate) uaa: UaaKeys = include,
        /// What is a target, each entry with keys of its own; all instances of web processes unless given.
        pub(crate) select: Vec<SelectKeys> = unset([{ organization = "prod", path = "/metrics" }]),
        /// How often processes and their instances are read, unless the platform's rate limit asks for less.
        pub(crate) refresh_interval: Period = default("15s"),
        /// How often organizations, spaces, applications and routes are read; at once when a process of an unknown application shows up.
        pub(crate) metadata_interval: Period = default("1m"),
        /// Most percent of the rate limit that the platform publishes (`/v3/info`, `X-RateLimit-Limit`) that may be used.
        pub(crate) rate_limit_share: u16 = default(50),
        /// Where the platform does not list the states of instances with its processes: most processes of which they are asked for per refresh, those that changed first. Of the others, what was heard last holds.
        pub(crate) max_stats_requests: usize = default(50),
        /// How often the processor, memory and disk that instances use are measured, for sources that report them: a request per process, at most `max_stats_requests` per refresh, and within the rate limit. Not at all unless given.
        pub(crate) stats_interval: Option<Period> = unset("1m"),
        /// Longest time for the answer to one request.
        pub(crate) timeout: Period = default("20s"),
        /// TLS towards Cloud Controller and UAA.
        pub(crate) tls: ClientTls = table,
        pub(crate) proxy: ProxyKeys = include,
        /// Longest time for making a connection.
        pub(crate) connect_timeout: Period = default("5s"),
        /// Age from which on a connection is not used for a further request, so that a changed DNS record is followed.
        pub(crate) max_connection_age: Period = default("5m"),
        pub(crate) limits: LimitKeys = include,
    }
}

keys! {
    /// Who asks the platform.
    #[derive(Clone, Debug)]
    pub struct UaaKeys {
        /// How a token is got: `password`, `client_credentials`, `refresh_token` or `passcode`.
        pub(crate) grant: Grant = default("password"),
        /// User; one who may read what is selected, such as a space auditor.
        pub(crate) username: Option<String> = suggested("metrifold"),
        /// The user's password. Either this or `password_file` must be set with `grant = "password"`.
        pub(crate) password: Option<Secret> = suggested("${CF_PASSWORD:-change-me}"),
        /// File with the password, instead of `password`; white space at its end is ignored.
        pub(crate) password_file: Option<PathBuf> = unset("/etc/metrifold/cf-password"),
        /// Identity provider that the user belongs to, such as `ldap`; UAA finds it unless given.
        pub(crate) origin: Option<String> = unset("ldap"),
        /// One-time passcode for `grant = "passcode"`; it is spent once, and a refresh token takes its place.
        pub(crate) passcode: Option<Secret> = unset("${CF_PASSCODE}"),
        /// File with a refresh token; each that UAA gives in its place is written to it. Needed with `grant = "refresh_token"`, and with `passcode` to outlive a restart.
        pub(crate) refresh_token_file: Option<PathBuf> = unset("/var/lib/metrifold/cf-refresh-token"),
        /// Client of UAA.
        pub(crate) client_id: String = default("cf"),
        /// The client's secret. `cf` has none.
        pub(crate) client_secret: Option<Secret> = unset("${CF_CLIENT_SECRET}"),
        /// File with the client's secret, instead of `client_secret`.
        pub(crate) client_secret_file: Option<PathBuf> = unset("/etc/metrifold/cf-client-secret"),
    }
}

words! {
    /// How a token is got.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Grant {
        /// A user and a password, perhaps of an identity provider.
        Password = "password",
        /// A client and its secret.
        ClientCredentials = "client_credentials",
        /// A refresh token that somebody got before.
        RefreshToken = "refresh_token",
        /// A passcode that a user was shown after signing in.
        Passcode = "passcode",
    }
}

keys! {
    /// Which instances are targets, and how they are reached.
    #[derive(Clone, Debug)]
    pub struct SelectKeys {
        /// Name of this entry in `__meta_cf_selector` and in messages; its place in the list unless given.
        pub(crate) name: Option<String> = unset("spring"),
        /// Names of organizations, in any case; all unless given.
        pub(crate) organization: OneOrMany<String> = unset("prod"),
        /// Pattern that an organization's whole name must match, in any case.
        pub(crate) organization_regex: Option<String> = unset("prod-.*"),
        /// GUIDs of organizations.
        pub(crate) organization_guid: OneOrMany<String> = unset("6e1ca5aa-55f1-4110-a97f-1f3473e771b9"),
        /// Names of spaces, in any case; all unless given.
        pub(crate) space: OneOrMany<String> = unset("live"),
        /// Pattern that a space's whole name must match, in any case.
        pub(crate) space_regex: Option<String> = unset("live|canary"),
        /// GUIDs of spaces.
        pub(crate) space_guid: OneOrMany<String> = unset("885735b5-aea4-4cf5-8e44-961af0e41920"),
        /// Names of applications, in any case; all unless given.
        pub(crate) application: OneOrMany<String> = unset("shop"),
        /// Pattern that an application's whole name must match, in any case.
        pub(crate) application_regex: Option<String> = unset("shop-.*"),
        /// GUIDs of applications.
        pub(crate) application_guid: OneOrMany<String> = unset("1cb006ee-fb05-47e1-b541-c34179ddc446"),
        /// Cloud Foundry's label selector, such as `env=prod,tier in (a,b),!legacy`.
        pub(crate) label_selector: Option<String> = unset("metrics=true"),
        /// Names of service instances of which an application must be bound to one.
        pub(crate) bound_service: OneOrMany<String> = unset("metrics"),
        /// Prefixes of annotations that say more of an application: `scrape` (`"false"` leaves it out), `path`, `port`, `scheme`, `scrape_interval` and `scrape_timeout` behind one of them.
        pub(crate) annotations: OneOrMany<String> = unset("prometheus.io/"),
        /// Whether only applications are taken whose annotation `scrape` is `"true"`.
        pub(crate) opt_in: bool = default(false),
        /// Types of processes.
        pub(crate) processes: Vec<String> = default(["web"]),
        /// Path that is scraped, or several.
        pub(crate) path: OneOrMany<String> = default("/metrics"),
        /// Protocol towards the router. Internal routes are always reached by HTTP.
        pub(crate) protocol: Protocol = default("https"),
        /// Port of the router, where it is not the protocol's own.
        pub(crate) router_port: Option<u16> = unset(8443),
        /// Port of the application: internal routes are reached at it, and of the external ones, those that lead to it are preferred. Unset, that of the route, or 8080.
        pub(crate) port: Option<u16> = unset(8080),
        /// Which routes may be used: `any`, `external` or `internal`.
        pub(crate) routes: RouteKind = default("any"),
        /// Patterns of routes (host, domain and path, compared as written). The first pattern that some route matches says which is used; without a match it is the first route.
        pub(crate) preferred_routes: Vec<String> = unset([".*\\.cf\\.example"]),
        /// Name of the credentials that are shown to the application, one of those of the component that scrapes.
        pub(crate) authenticator: Option<String> = unset("xsuaa"),
        /// How often it is scraped, if not as the component that scrapes says.
        pub(crate) interval: Option<Period> = unset("30s"),
        /// Longest time for a scrape, if not as the component that scrapes says.
        pub(crate) scrape_timeout: Option<Period> = unset("10s"),
        /// Further labels of these targets.
        pub(crate) labels: BTreeMap<String, String> = unset({ team = "shop" }),
    }
}

words! {
    /// Protocols towards the router.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Protocol {
        /// HTTP in TLS.
        Https = "https",
        /// HTTP in plain text.
        Http = "http",
    }
}

words! {
    /// Which routes may be used.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum RouteKind {
        /// The first, whichever it is.
        Any = "any",
        /// Those that lead through the router.
        External = "external",
        /// Those of internal domains, which lead to an instance directly.
        Internal = "internal",
    }
}

impl CloudFoundryConfig {
    pub(crate) fn client(&self) -> Result<Client, BuildError> {
        Client::new(&ClientConfig {
            tls: self.tls.clone(),
            proxy_url: self.proxy.proxy_url.clone(),
            proxy_basic_auth: self.proxy.proxy_basic_auth.clone(),
            connections: 2,
            connect_timeout: self.connect_timeout.0,
            max_age: self.max_connection_age.0,
        })
    }
}

impl UaaKeys {
    pub(crate) fn password(&self) -> SecretFrom<'_> {
        SecretFrom::new(self.password.as_ref(), self.password_file.as_deref())
    }

    /// The client's secret, if it has one.
    pub(crate) fn client_secret(&self) -> Option<SecretFrom<'_>> {
        let file = self.client_secret_file.as_deref();
        let any = self.client_secret.is_some() || file.is_some();
        any.then(|| SecretFrom::new(self.client_secret.as_ref(), file))
    }

    /// Reports what is wrong with them, at their keys.
    pub(crate) fn validate(&self, problems: &mut Problems) {
        let keys = ["password", "password_file"];
        match self.grant {
            Grant::Password => {
                if self.username.as_ref().is_none_or(String::is_empty) {
                    let problem = problems.at("username", "a user is needed");
                    problem.help("add username, or grant = \"client_credentials\"");
                }
                self.password().validate("", keys, problems);
            }
            Grant::ClientCredentials => {
                if self.client_secret().is_none() {
                    let what = "the client's secret is needed";
                    let problem = problems.at("client_secret", what);
                    problem.help("add client_secret or client_secret_file");
                }
            }
            Grant::RefreshToken => {
                if self.refresh_token_file.is_none() {
                    problems.at("refresh_token_file", "a refresh token is needed");
                }
            }
            Grant::Passcode => {
                if self.passcode.is_none() && self.refresh_token_file.is_none() {
                    let problem = problems.at("passcode", "a passcode is needed");
                    problem.help("add passcode, or refresh_token_file with a token");
                }
            }
        }
        if self.client_id.is_empty() {
            problems.at("client_id", "must not be empty");
        }
        if let Some(secret) = self.client_secret() {
            let keys = ["client_secret", "client_secret_file"];
            secret.validate("", keys, problems);
        }
    }
}
