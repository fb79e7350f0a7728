//! Keys that say which API server is asked, and as whom.

use std::path::{Path, PathBuf};

use metrifold_base::{Endpoint, Period, Problems, keys};
use metrifold_http::{Authorization, BasicAuth, ClientTls, OAuth2, ProxyKeys, auth};

keys! {
    /// Which API server, and who asks it.
    #[derive(Clone, Debug)]
    pub struct ConnectKeys {
        /// URL of the API server. Without it and without `kubeconfig_file`, this runs in a pod, whose service account is used.
        pub api_server: Option<Endpoint> = unset("https://kubernetes.default.svc"),
        /// Kubeconfig that says which API server, and as whom; read again when it changes.
        pub kubeconfig_file: Option<PathBuf> = unset("/etc/metrifold/kubeconfig"),
        /// Context of the kubeconfig; its current one unless given.
        pub context: Option<String> = unset("prod"),
        /// Folder in which a pod finds the token, the authorities and the namespace of its service account. The token is read again every 10 s, and whenever it is refused.
        pub service_account_directory: PathBuf = default("/var/run/secrets/kubernetes.io/serviceaccount"),
        /// TLS towards `api_server`; within a cluster, `ca_file` is the service account's unless given.
        pub tls: ClientTls = table,
        /// User and password towards `api_server`.
        pub basic_auth: Option<BasicAuth> = optional,
        /// `Authorization` header towards `api_server`, usually a `credentials_file` with a token.
        pub authorization: Option<Authorization> = optional,
        /// Token towards `api_server`, got by client credentials.
        pub oauth2: Option<OAuth2> = optional,
        pub(crate) proxy: ProxyKeys = include,
        /// Longest time for the answer to one request; a watch's ends with its first byte.
        pub timeout: Period = default("30s"),
        /// Longest time for making a connection.
        pub connect_timeout: Period = default("5s"),
        /// Age from which on a connection is not used for a further request, so that a changed DNS record is followed.
        pub max_connection_age: Period = default("5m"),
    }
}

impl ConnectKeys {
    /// Whether it is asked from within a cluster.
    pub fn is_in_cluster(&self) -> bool {
        self.api_server.is_none() && self.kubeconfig_file.is_none()
    }

    /// What tells one cluster from another. Holds no secret.
    pub fn place(&self) -> String {
        match (&self.api_server, &self.kubeconfig_file) {
            (Some(server), _) => server.uri().to_string(),
            (None, Some(file)) => format!("{} {:?}", file.display(), self.context),
            (None, None) => "in-cluster".to_owned(),
        }
    }

    /// The files that are read when it connects.
    pub fn files(&self) -> Vec<&Path> {
        let auth = auth::files(
            self.basic_auth.as_ref(),
            self.authorization.as_ref(),
            self.oauth2.as_ref(),
        );
        let own = self.tls.files().chain(self.proxy.files());
        own.chain(auth)
            .chain(self.kubeconfig_file.as_deref())
            .collect()
    }

    /// Reports that the own namespace is asked for where it is not known.
    pub(crate) fn check_own_namespace(&self, asked: bool, problems: &mut Problems) {
        if asked && !self.is_in_cluster() {
            let what = "is known only to a pod that connects from within the cluster";
            let problem = problems.at("own_namespace", what);
            problem.help("name it under namespaces, or remove api_server and kubeconfig_file");
        }
    }

    /// Reports what is wrong with them, at their keys.
    pub fn validate(&self, problems: &mut Problems) {
        if self.api_server.is_some() && self.kubeconfig_file.is_some() {
            let problem = problems.at("kubeconfig_file", "cannot be set together with api_server");
            problem.help("keep the one that says where the API server is");
        }
        if self.context.is_some() && self.kubeconfig_file.is_none() {
            problems.at("context", "is for kubeconfig_file, and there is none");
        }
        let auth = [
            ("basic_auth", self.basic_auth.is_some()),
            ("authorization", self.authorization.is_some()),
            ("oauth2", self.oauth2.is_some()),
        ];
        for (key, given) in auth {
            if given && self.api_server.is_none() {
                let what =
                    "goes with api_server: a kubeconfig and a service account have their own";
                problems.at(key, what).help("remove it, or set api_server");
            }
        }
        let own_tls = self.tls != ClientTls::default();
        if own_tls && self.kubeconfig_file.is_some() {
            problems.at("tls", "goes with api_server: a kubeconfig has its own");
        }
        if self.proxy.proxy_url.is_some() && self.kubeconfig_file.is_some() {
            problems.at(
                "proxy_url",
                "a kubeconfig has its own: write proxy-url there",
            );
        }
        self.tls.validate("tls", problems);
        self.proxy.validate("", problems);
        auth::validate(
            "",
            self.basic_auth.as_ref(),
            self.authorization.as_ref(),
            self.oauth2.as_ref(),
            problems,
        );
        for (key, value) in [
            ("timeout", self.timeout),
            ("connect_timeout", self.connect_timeout),
            ("max_connection_age", self.max_connection_age),
        ] {
            if value.0.is_zero() {
                problems.at(key, "must be longer than 0s");
            }
        }
        #[cfg(feature = "client")]
        if problems.environment()
            && let Some(file) = &self.kubeconfig_file
            && let Err(error) = crate::kubeconfig::check(file, self.context.as_deref())
        {
            problems.at("kubeconfig_file", error);
        }
    }
}

/// Reports what is wrong with the time that a watch lasts.
pub(crate) fn check_watch(timeout: Period, problems: &mut Problems) {
    if timeout < Period::millis(1000) || timeout > Period::millis(290_000) {
        problems.at("watch_timeout", "must be from 1s to 4m50s");
    }
}

/// Reports a name that no namespace can have, which would be another path of the API.
pub(crate) fn check_namespace(name: &str, key: &str, problems: &mut Problems) {
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > 63 || !name.bytes().all(valid) {
        problems.at(key, "is no name of a namespace");
    }
}
