//! `[discovery.NAME] type = "cloud_foundry"`: the foundation, the user who reads it, and the
//! selectors.

use std::collections::BTreeMap;
use std::path::PathBuf;

use metrifold_base::{BuildError, Endpoint, OneOrMany, Period, Problems, Secret, keys, words};
use metrifold_discovery::LimitKeys;
use metrifold_http::{Client, ClientConfig, ClientTls, ProxyKeys, SecretFrom};

keys! {
    /// `[discovery.NAME] type = "cloud_foundry"`.
    #[derive(Clone, Debug)]
    pub struct CloudFoundryConfig {
        /// URL of the foundation's Cloud Controller. A query string in it is added to each request.
        pub(crate) api: Endpoint = required("https://api.cf.example"),
        pub(crate) uaa: UaaKeys = include,
        /// Selectors of targets, each with keys of its own. By default, all instances of processes of the type `web` are targets.
        pub(crate) select: Vec<SelectKeys> = unset([{ organization = "prod", path = "/metrics" }]),
        /// How often processes and their instances are read. Refreshes are further apart where the platform's rate limit requires it.
        pub(crate) refresh_interval: Period = default("15s"),
        /// How often organizations, spaces, applications and routes are read. A process of an unknown application causes an additional read at once.
        pub(crate) metadata_interval: Period = default("1m"),
        /// Maximum share, in percent, of the rate limit that the platform publishes (`/v3/info`, `X-RateLimit-Limit`), from 1 to 100.
        pub(crate) rate_limit_share: u16 = default(50),
        /// Maximum number of requests per refresh for the states of instances, one per process, on platforms that do not list the states with the processes. No more are sent than the rate limit allows without delaying the next refresh, but at least one. New and changed processes come first, then those with the oldest states; the others keep their last known states, and so do those whose states cannot be read. Requests for `service_credentials`, one per binding, have the same maximum.
        pub(crate) max_stats_requests: usize = default(50),
        /// How often the processor, memory and disk usage of instances is measured, for sources that report it. Takes one request per process, at most `max_stats_requests` per refresh and no more than the rate limit allows without delaying the next refresh. Unset, usage is not measured.
        pub(crate) stats_interval: Option<Period> = unset("1m"),
        /// Maximum time for a request, until its answer is complete.
        pub(crate) timeout: Period = default("20s"),
        /// TLS settings for the connections to Cloud Controller and UAA.
        pub(crate) tls: ClientTls = table,
        pub(crate) proxy: ProxyKeys = include,
        /// Maximum time to establish a connection.
        pub(crate) connect_timeout: Period = default("5s"),
        /// Age after which a connection gets no further requests, so that changed DNS records take effect.
        pub(crate) max_connection_age: Period = default("5m"),
        pub(crate) limits: LimitKeys = include,
    }
}

keys! {
    /// Credentials towards the platform's UAA.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct UaaKeys {
        /// OAuth 2.0 grant by which a token is obtained: `password`, `client_credentials`, `refresh_token` or `passcode`.
        pub(crate) grant: Grant = default("password"),
        /// Name of a user who may read the selected applications, such as a space auditor.
        pub(crate) username: Option<String> = suggested("metrifold"),
        /// The user's password. With `grant = "password"`, either this or `password_file` must be set.
        pub(crate) password: Option<Secret> = suggested("${CF_PASSWORD:-change-me}"),
        /// File with the password, instead of `password`. Trailing white space is ignored.
        pub(crate) password_file: Option<PathBuf> = unset("/etc/metrifold/cf-password"),
        /// Identity provider of the user, such as `ldap`. Unset, UAA determines it.
        pub(crate) origin: Option<String> = unset("ldap"),
        /// One-time passcode for `grant = "passcode"`. It is used once, to obtain a refresh token.
        pub(crate) passcode: Option<Secret> = unset("${CF_PASSCODE}"),
        /// File with a refresh token; each new one that UAA issues is written to it. Required with `grant = "refresh_token"`, and with `passcode` if logins are to survive a restart.
        pub(crate) refresh_token_file: Option<PathBuf> = unset("/var/lib/metrifold/cf-refresh-token"),
        /// ID of the OAuth 2.0 client.
        pub(crate) client_id: String = default("cf"),
        /// Secret of the client. The client `cf` has none.
        pub(crate) client_secret: Option<Secret> = unset("${CF_CLIENT_SECRET}"),
        /// File with the client's secret, instead of `client_secret`.
        pub(crate) client_secret_file: Option<PathBuf> = unset("/etc/metrifold/cf-client-secret"),
    }
}

words! {
    /// Grants that yield a token.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Grant {
        /// A user and a password, possibly of an external identity provider.
        Password = "password",
        /// A client and its secret.
        ClientCredentials = "client_credentials",
        /// A refresh token from an earlier login.
        RefreshToken = "refresh_token",
        /// A one-time passcode that a user gets after signing in.
        Passcode = "passcode",
    }
}

keys! {
    /// A selector of targets, and how they are reached.
    #[derive(Clone, Debug)]
    pub struct SelectKeys {
        /// Name of this selector in `__meta_cf_selector` and in messages; by default, its position in the list.
        pub(crate) name: Option<String> = unset("spring"),
        /// Names of organizations, case-insensitive; by default, all.
        pub(crate) organization: OneOrMany<String> = unset("prod"),
        /// Regular expression that must match the whole name of an organization, case-insensitive.
        pub(crate) organization_regex: Option<String> = unset("prod-.*"),
        /// GUIDs of organizations.
        pub(crate) organization_guid: OneOrMany<String> = unset("6e1ca5aa-55f1-4110-a97f-1f3473e771b9"),
        /// Names of spaces, case-insensitive; by default, all.
        pub(crate) space: OneOrMany<String> = unset("live"),
        /// Regular expression that must match the whole name of a space, case-insensitive.
        pub(crate) space_regex: Option<String> = unset("live|canary"),
        /// GUIDs of spaces.
        pub(crate) space_guid: OneOrMany<String> = unset("885735b5-aea4-4cf5-8e44-961af0e41920"),
        /// Names of applications, case-insensitive; by default, all.
        pub(crate) application: OneOrMany<String> = unset("shop"),
        /// Regular expression that must match the whole name of an application, case-insensitive.
        pub(crate) application_regex: Option<String> = unset("shop-.*"),
        /// GUIDs of applications.
        pub(crate) application_guid: OneOrMany<String> = unset("1cb006ee-fb05-47e1-b541-c34179ddc446"),
        /// Cloud Foundry label selector for applications, such as `env=prod,tier in (a,b),!legacy`.
        pub(crate) label_selector: Option<String> = unset("metrics=true"),
        /// Names of service instances. Only applications that are bound to at least one of them are selected.
        pub(crate) bound_service: OneOrMany<String> = unset("metrics"),
        /// Prefixes of application annotations that are read: `scrape` (`"false"` excludes the application), `path`, `port`, `scheme`, `scrape_interval` and `scrape_timeout`, each after one of the prefixes.
        pub(crate) annotations: OneOrMany<String> = unset("prometheus.io/"),
        /// Select only applications whose annotation `scrape` is `"true"`.
        pub(crate) opt_in: bool = default(false),
        /// Annotations that are not read, by their names without a prefix: `path`, `port`, `scheme`, `scrape_interval` or `scrape_timeout`.
        pub(crate) ignore_annotations: Vec<Annotation> = unset(["port"]),
        /// Types of processes whose instances are targets.
        pub(crate) processes: Vec<String> = default(["web"]),
        /// Path to scrape, or a list of paths.
        pub(crate) path: OneOrMany<String> = default("/metrics"),
        /// Protocol for requests to the router. Internal routes always use HTTP.
        pub(crate) protocol: Protocol = default("https"),
        /// Port of the router, if it is not the protocol's default.
        pub(crate) router_port: Option<u16> = unset(8443),
        /// Port of the application. Internal routes are reached at this port. Of external routes, those that lead to it are preferred, and without any, the others are used all the same, as in Promregator. Unset, the port of the route is used, or 8080.
        pub(crate) port: Option<u16> = unset(8080),
        /// Kinds of routes that may be used: `any`, `external` or `internal`.
        pub(crate) routes: RouteKind = default("any"),
        /// Regular expressions for routes (host, domain and path, as written), in order of preference. The first one that matches a route of the application decides; if none matches, the first route is used.
        pub(crate) preferred_routes: Vec<String> = unset([".*\\.cf\\.example"]),
        /// Name of the credentials that are sent to the application, one of the `authenticators` of the scraping component.
        pub(crate) authenticator: Option<String> = unset("xsuaa"),
        /// Name of a service instance: each application is scraped with the credentials of its own binding to that, user name and password or those of a UAA client. Applications without a binding are left out. The provider's user must be a space developer, since auditors cannot read credentials.
        pub(crate) service_credentials: Option<String> = unset("metrics-login"),
        /// Scrape interval of these targets, instead of that of the scraping component.
        pub(crate) interval: Option<Period> = unset("30s"),
        /// Scrape timeout of these targets, instead of that of the scraping component.
        pub(crate) scrape_timeout: Option<Period> = unset("10s"),
        /// Labels to add to these targets.
        pub(crate) labels: BTreeMap<String, String> = unset({ team = "shop" }),
    }
}

words! {
    /// Annotations of an application that change how it is scraped.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Annotation {
        /// The path to scrape.
        Path = "path",
        /// The application's port.
        Port = "port",
        /// The protocol.
        Scheme = "scheme",
        /// The scrape interval.
        ScrapeInterval = "scrape_interval",
        /// The scrape timeout.
        ScrapeTimeout = "scrape_timeout",
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
    /// Kinds of routes that may be used.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum RouteKind {
        /// The first route of either kind.
        Any = "any",
        /// Routes through the router.
        External = "external",
        /// Routes of internal domains, which lead to an instance directly.
        Internal = "internal",
    }
}

impl Annotation {
    /// Its key without a prefix.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Port => "port",
            Self::Scheme => "scheme",
            Self::ScrapeInterval => "scrape_interval",
            Self::ScrapeTimeout => "scrape_timeout",
        }
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

    /// The client's secret, if one is configured.
    pub(crate) fn client_secret(&self) -> Option<SecretFrom<'_>> {
        let file = self.client_secret_file.as_deref();
        let any = self.client_secret.is_some() || file.is_some();
        any.then(|| SecretFrom::new(self.client_secret.as_ref(), file))
    }

    /// Reports missing and contradicting keys.
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
