//! `[discovery.NAME] type = "aiven"`: projects, filters on their services, and permitted changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use metrifold_base::{
    Address, BuildError, Endpoint, OneOrMany, Period, Problems, Secret, keys, words,
};
use metrifold_discovery::LimitKeys;
use metrifold_http::{Client, ClientConfig, ClientTls, ProxyKeys, SecretFrom};
use metrifold_kubernetes::LeaseKeys;

keys! {
    /// `[discovery.NAME] type = "aiven"`.
    #[derive(Clone, Debug)]
    pub struct AivenConfig {
        /// URL of Aiven's API.
        pub(crate) api: Endpoint = default("https://api.aiven.io/v1"),
        /// Token of a user who may read the projects and, with `integrate = "on"`, change integrations.
        pub(crate) token: Option<Secret> = suggested("${AIVEN_TOKEN:-change-me}"),
        /// File with the token, instead of `token`. Trailing white space is ignored.
        pub(crate) token_file: Option<PathBuf> = unset("/etc/metrifold/aiven-token"),
        /// Projects whose services are discovered.
        pub(crate) projects: Vec<String> = required(["my-project"]),
        /// Types of services to discover. By default, all types that support the Prometheus integration.
        pub(crate) service_types: Vec<String> = unset(["opensearch", "pg"]),
        /// Tags, with their values, that a service must have to be discovered.
        pub(crate) tags: BTreeMap<String, String> = unset({ deploy_env = "prod" }),
        /// Labels to add to targets, each with the name of the tag that provides its value.
        pub(crate) tag_labels: BTreeMap<String, String> = unset({ tenant = "organization_id" }),
        /// Action for selected services without the Prometheus integration: `off` (only a plan is made), `dry_run` (each planned change is logged) or `on` (the integration is created).
        pub(crate) integrate: Integrate = default("off"),
        /// Name of the integration endpoint in each project. With `integrate = "on"`, a missing endpoint is created.
        pub(crate) endpoint_name: String = default("metrifold"),
        /// IDs of integration endpoints, instead of `endpoint_name`. In each project, the one that exists there is used.
        pub(crate) endpoint_id: OneOrMany<String> = unset("0fb66a2e-0e9f-4f9f-8d7a-9a5f9a0e1c11"),
        /// User name of created endpoints, for scraping.
        pub(crate) endpoint_username: String = default("metrifold"),
        /// Password of created endpoints, for scraping. Random by default.
        pub(crate) endpoint_password: Option<Secret> = unset("${AIVEN_ENDPOINT_PASSWORD}"),
        /// Whether to remove integrations that Metrifold created from services that `service_types` and `tags` no longer select. Requires `lease_path` or `kubernetes_lease`.
        pub(crate) cleanup: bool = default(false),
        /// File shared by all replicas: the replica that locks it makes changes, the others only plan. A second file with the suffix `.made` records requested and created integrations. Without a lease, this process makes changes on its own.
        pub(crate) lease_path: Option<PathBuf> = unset("/var/lib/metrifold/aiven.lease"),
        /// Kubernetes Lease, instead of `lease_path`: its holder makes changes, and records requested and created integrations in an annotation of the Lease.
        pub(crate) kubernetes_lease: Option<LeaseKeys> = optional,
        /// Maximum time until a change is visible in Aiven's API. Until then, no further change of the same service is requested.
        pub(crate) settle: Period = default("2m"),
        /// Maximum number of changes per refresh.
        pub(crate) max_changes: usize = default(20),
        /// Address of a service to use: `dynamic` (its default route), `public` or `private`.
        pub(crate) route: Route = default("dynamic"),
        /// Whether to discover standby nodes of services whose name resolves to the primary only.
        pub(crate) standbys: bool = default(true),
        /// Port to scrape on services whose API data have none.
        pub(crate) port: u16 = default(9273),
        /// Interval at which projects are read and names are resolved.
        pub(crate) refresh_interval: Period = default("1m"),
        /// Interval at which rarely changing data are read: service types that support the integration, and certificate authorities.
        pub(crate) metadata_interval: Period = default("10m"),
        /// Minimum time between two API requests.
        pub(crate) request_interval: Period = default("50ms"),
        /// Maximum time for an API request.
        pub(crate) timeout: Period = default("20s"),
        /// Name servers to resolve the services' nodes with. By default, the system's resolver.
        pub(crate) dns_servers: Vec<Address> = unset(["10.0.0.53:53"]),
        /// Maximum time to resolve a name.
        pub(crate) dns_timeout: Period = default("5s"),
        /// TLS settings for the connections to Aiven's API.
        pub(crate) tls: ClientTls = table,
        pub(crate) proxy: ProxyKeys = include,
        /// Maximum time to establish a connection.
        pub(crate) connect_timeout: Period = default("5s"),
        /// Age after which a connection gets no further requests, so that changed DNS records take effect.
        pub(crate) max_connection_age: Period = default("5m"),
        pub(crate) limits: LimitKeys = include,
    }
}

words! {
    /// Action for services without the integration.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Integrate {
        /// Makes a plan only.
        Off = "off",
        /// Makes a plan and logs its changes.
        DryRun = "dry_run",
        /// Creates the integration.
        On = "on",
    }
}

words! {
    /// Address of a service to use.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Route {
        /// The default route of the service.
        Dynamic = "dynamic",
        /// Over the internet, even if the service is in a private network.
        Public = "public",
        /// Within the private network.
        Private = "private",
    }
}

impl AivenConfig {
    pub(crate) fn token(&self) -> SecretFrom<'_> {
        SecretFrom::new(self.token.as_ref(), self.token_file.as_deref())
    }

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

    /// Files read at build. The token file is read for each request instead.
    pub(crate) fn read_files(&self) -> Vec<&Path> {
        let lease = self.kubernetes_lease.iter().flat_map(LeaseKeys::files);
        let own = self.tls.files().chain(self.proxy.files());
        own.chain(lease).collect()
    }

    /// Whether the filters select a service of this type with these tags; if not, the reason.
    pub(crate) fn takes(&self, kind: &str, tags: &BTreeMap<String, String>) -> Result<(), String> {
        if !self.service_types.is_empty() && !self.service_types.iter().any(|it| it == kind) {
            return Err(format!("service type {kind} is not in service_types"));
        }
        for (name, wanted) in &self.tags {
            match tags.get(name) {
                Some(value) if value == wanted => {}
                Some(_) => return Err(format!("tag {name} has another value")),
                None => return Err(format!("the service has no tag {name}")),
            }
        }
        Ok(())
    }

    pub(crate) fn check(&self, problems: &mut Problems) {
        self.token().validate("", ["token", "token_file"], problems);
        if self.projects.is_empty() {
            problems.at("projects", "must name at least one project");
        }
        for (at, project) in self.projects.iter().enumerate() {
            if project.is_empty() || project.contains('/') {
                problems.at(format!("projects[{at}]"), "is not the name of a project");
            }
            if self.projects[..at].contains(project) {
                problems.at(
                    format!("projects[{at}]"),
                    "names a project that is listed before",
                );
            }
        }
        if self.endpoint_name.is_empty() {
            problems.at("endpoint_name", "must not be empty");
        }
        if self.endpoint_username.is_empty() || self.endpoint_username.contains(':') {
            problems.at("endpoint_username", "must not be empty or contain a colon");
        }
        for (label, tag) in &self.tag_labels {
            if label.is_empty() || tag.is_empty() {
                problems.at("tag_labels", "must have a label and a tag in each entry");
            }
        }
        if self.cleanup && self.lease_path.is_none() && self.kubernetes_lease.is_none() {
            let what = "needs a record of created integrations that survives a restart";
            let problem = problems.at("cleanup", what);
            problem.help("add lease_path or kubernetes_lease");
        }
        if let Some(keys) = &self.kubernetes_lease {
            problems.within("kubernetes_lease", |problems| keys.validate(problems));
            if self.lease_path.is_some() {
                let problem =
                    problems.at("kubernetes_lease", "cannot be set together with lease_path");
                problem.help("keep one of both");
            }
            if cfg!(not(feature = "kubernetes")) {
                let what = "this program was built without support for Kubernetes";
                let problem = problems.at("kubernetes_lease", what);
                problem.help("build with the feature `kubernetes`, which is on by default");
            }
        }
        if self.cleanup && self.integrate == Integrate::Off {
            let what = "has no effect with integrate = \"off\"";
            problems.at("cleanup", what).help("set integrate = \"on\"");
        }
        if self
            .lease_path
            .as_ref()
            .is_some_and(|it| it.file_name().is_none())
        {
            problems.at("lease_path", "is not the path of a file");
        }
        if self.max_changes == 0 {
            problems.at("max_changes", "must be at least 1");
        }
        if self.port == 0 {
            problems.at("port", "must be from 1 to 65535");
        }
        if self.refresh_interval < Period::millis(100) {
            problems.at("refresh_interval", "must be at least 100ms");
        }
        for (key, value) in [
            ("metadata_interval", self.metadata_interval),
            ("settle", self.settle),
            ("timeout", self.timeout),
            ("dns_timeout", self.dns_timeout),
            ("connect_timeout", self.connect_timeout),
            ("max_connection_age", self.max_connection_age),
        ] {
            if value.0.is_zero() {
                problems.at(key, "must be longer than 0s");
            }
        }
        if !self.dns_servers.is_empty() && cfg!(not(feature = "dns")) {
            let what = "this program was built without a DNS client: it uses the system's resolver";
            let problem = problems.at("dns_servers", what);
            problem.help("build with the feature `dns`");
        }
        self.tls.validate("tls", problems);
        self.proxy.validate("", problems);
        self.limits.validate(problems);
    }
}
