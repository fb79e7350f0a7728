//! `[discovery.NAME] type = "aiven"`: which projects, what of them, and what may be changed there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use metrifold_base::{
    Address, BuildError, Endpoint, OneOrMany, Period, Problems, Secret, keys, words,
};
use metrifold_discovery::LimitKeys;
use metrifold_http::{Client, ClientConfig, ClientTls, ProxyKeys, SecretFrom};

keys! {
    /// `[discovery.NAME] type = "aiven"`.
    #[derive(Clone, Debug)]
    pub struct AivenConfig {
        /// URL of Aiven's API.
        pub(crate) api: Endpoint = default("https://api.aiven.io/v1"),
        /// Token of a user who may read the projects, and change integrations with `integrate = "on"`.
        pub(crate) token: Option<Secret> = suggested("${AIVEN_TOKEN:-change-me}"),
        /// File with the token, instead of `token`; white space at its end is ignored.
        pub(crate) token_file: Option<PathBuf> = unset("/etc/metrifold/aiven-token"),
        /// Projects whose services are looked at.
        pub(crate) projects: Vec<String> = required(["my-project"]),
        /// Types of services; all that can have the Prometheus integration unless given.
        pub(crate) service_types: Vec<String> = unset(["opensearch", "pg"]),
        /// Tags that a service must have, with these values.
        pub(crate) tags: BTreeMap<String, String> = unset({ deploy_env = "prod" }),
        /// Labels of targets, each with the tag whose value it gets.
        pub(crate) tag_labels: BTreeMap<String, String> = unset({ tenant = "organization_id" }),
        /// What becomes of services that ought to have the Prometheus integration and have none: `off` (the plan is made and nothing else), `dry_run` (each change is logged besides) or `on`.
        pub(crate) integrate: Integrate = default("off"),
        /// Name of the integration endpoint of each project. With `integrate = "on"` it is created where there is none.
        pub(crate) endpoint_name: String = default("metrifold"),
        /// Ids of integration endpoints, in place of the name: of each project, the one that it has.
        pub(crate) endpoint_id: OneOrMany<String> = unset("0fb66a2e-0e9f-4f9f-8d7a-9a5f9a0e1c11"),
        /// User that a created endpoint asks for.
        pub(crate) endpoint_username: String = default("metrifold"),
        /// Password that a created endpoint asks for; a random one unless given.
        pub(crate) endpoint_password: Option<Secret> = unset("${AIVEN_ENDPOINT_PASSWORD}"),
        /// Whether integrations that were made here are removed from services that `service_types` and `tags` do not take any more. Needs `lease_path`.
        pub(crate) cleanup: bool = default(false),
        /// File that all replicas share: who has it locked makes changes, the others make plans. Beside it, in a file that ends with `.made`, is what was asked for and made. Without it, this process makes changes by itself.
        pub(crate) lease_path: Option<PathBuf> = unset("/var/lib/metrifold/aiven.lease"),
        /// Longest time that a change may take to be seen in Aiven's answers. Within it, nothing further is asked for the same service.
        pub(crate) settle: Period = default("2m"),
        /// Most changes after each refresh.
        pub(crate) max_changes: usize = default(20),
        /// Which address of a service is used: `dynamic` (as the service is reached by default), `public` or `private`.
        pub(crate) route: Route = default("dynamic"),
        /// Whether the standbys of services that have the primary behind their name are targets, too.
        pub(crate) standbys: bool = default(true),
        /// Port of services that do not say it.
        pub(crate) port: u16 = default(9273),
        /// How often projects are read and names resolved.
        pub(crate) refresh_interval: Period = default("1m"),
        /// How often is read what seldom changes: types of services that can be integrated, and certificate authorities.
        pub(crate) metadata_interval: Period = default("10m"),
        /// Shortest time from one request to the next.
        pub(crate) request_interval: Period = default("50ms"),
        /// Longest time for the answer to one request.
        pub(crate) timeout: Period = default("20s"),
        /// Name servers to ask for the nodes of services; the system's resolver by default.
        pub(crate) dns_servers: Vec<Address> = unset(["10.0.0.53:53"]),
        /// Longest time for the addresses of a name.
        pub(crate) dns_timeout: Period = default("5s"),
        /// TLS towards the API.
        pub(crate) tls: ClientTls = table,
        pub(crate) proxy: ProxyKeys = include,
        /// Longest time for making a connection.
        pub(crate) connect_timeout: Period = default("5s"),
        /// Age from which on a connection is not used for a further request, so that a changed DNS record is followed.
        pub(crate) max_connection_age: Period = default("5m"),
        pub(crate) limits: LimitKeys = include,
    }
}

words! {
    /// What becomes of services without the integration.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Integrate {
        /// Nothing but a plan.
        Off = "off",
        /// A plan whose changes are logged.
        DryRun = "dry_run",
        /// They get it.
        On = "on",
    }
}

words! {
    /// Which address of a service is used.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Route {
        /// As the service is reached by default.
        Dynamic = "dynamic",
        /// Over the internet, though the service is in a private network.
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

    /// The files that it reads when it is built. The token is read for each request.
    pub(crate) fn read_files(&self) -> Vec<&Path> {
        self.tls.files().chain(self.proxy.files()).collect()
    }

    /// Whether a service of this type and with these tags is meant.
    pub(crate) fn takes(&self, kind: &str, tags: &BTreeMap<String, String>) -> Result<(), String> {
        if !self.service_types.is_empty() && !self.service_types.iter().any(|it| it == kind) {
            return Err(format!("its type {kind} is not among service_types"));
        }
        for (name, wanted) in &self.tags {
            match tags.get(name) {
                Some(value) if value == wanted => {}
                Some(_) => return Err(format!("its tag {name} has another value")),
                None => return Err(format!("it has no tag {name}")),
            }
        }
        Ok(())
    }

    pub(crate) fn check(&self, problems: &mut Problems) {
        self.token().validate("", ["token", "token_file"], problems);
        if self.projects.is_empty() {
            problems.at("projects", "must have at least one name");
        }
        for (at, project) in self.projects.iter().enumerate() {
            if project.is_empty() || project.contains('/') {
                problems.at(format!("projects[{at}]"), "is not the name of a project");
            }
            if self.projects[..at].contains(project) {
                problems.at(format!("projects[{at}]"), "is there already");
            }
        }
        if self.endpoint_name.is_empty() {
            problems.at("endpoint_name", "must not be empty");
        }
        if self.endpoint_username.is_empty() || self.endpoint_username.contains(':') {
            problems.at("endpoint_username", "must not be empty, and holds no colon");
        }
        for (label, tag) in &self.tag_labels {
            if label.is_empty() || tag.is_empty() {
                problems.at("tag_labels", "a label or a tag has no name");
            }
        }
        if self.cleanup && self.lease_path.is_none() {
            let what = "what was made here has to be known after a restart";
            problems.at("cleanup", what).help("add lease_path");
        }
        if self.cleanup && self.integrate == Integrate::Off {
            let what = "nothing is changed with integrate = \"off\"";
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
            let what = "this build asks the system's resolver alone";
            let problem = problems.at("dns_servers", what);
            problem.help("build with the feature dns");
        }
        self.tls.validate("tls", problems);
        self.proxy.validate("", problems);
        self.limits.validate(problems);
    }
}
