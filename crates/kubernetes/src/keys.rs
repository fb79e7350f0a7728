//! Keys for the API server and the credentials.

use std::path::{Path, PathBuf};

use metrifold_base::{Endpoint, Period, Problems, keys};
use metrifold_http::{Authorization, BasicAuth, ClientTls, OAuth2, ProxyKeys, auth};

keys! {
    /// API server, and credentials for it.
    #[derive(Clone, Debug)]
    pub struct ConnectKeys {
        /// URL of the API server. If neither this nor `kubeconfig_file` is set, Metrifold must run in a pod, and uses the pod's service account.
        pub api_server: Option<Endpoint> = unset("https://kubernetes.default.svc"),
        /// Kubeconfig with the API server and the credentials; read again when it changes.
        pub kubeconfig_file: Option<PathBuf> = unset("/etc/metrifold/kubeconfig"),
        /// Context in the kubeconfig. By default, its current context.
        pub context: Option<String> = unset("prod"),
        /// Directory with the token, the certificate authorities and the namespace of a pod's service account. The token is read again every 10 s, and whenever it is refused.
        pub service_account_directory: PathBuf = default("/var/run/secrets/kubernetes.io/serviceaccount"),
        /// TLS settings for the connections to `api_server`. Within a cluster, `ca_file` defaults to the service account's.
        pub tls: ClientTls = table,
        /// User name and password for `api_server`.
        pub basic_auth: Option<BasicAuth> = optional,
        /// `Authorization` header for `api_server`, usually with a `credentials_file` that contains a token.
        pub authorization: Option<Authorization> = optional,
        /// OAuth 2.0 client credentials for `api_server`.
        pub oauth2: Option<OAuth2> = optional,
        pub(crate) proxy: ProxyKeys = include,
        /// Maximum time for a request; for a watch, until the first byte of the answer.
        pub timeout: Period = default("30s"),
        /// Maximum time to establish a connection.
        pub connect_timeout: Period = default("5s"),
        /// Age after which a connection gets no further requests, so that changed DNS records take effect.
        pub max_connection_age: Period = default("5m"),
    }
}

impl ConnectKeys {
    /// Whether the service account of this pod is used.
    pub(crate) fn is_in_cluster(&self) -> bool {
        self.api_server.is_none() && self.kubeconfig_file.is_none()
    }

    /// Text that identifies the cluster, without secrets.
    pub fn place(&self) -> String {
        match (&self.api_server, &self.kubeconfig_file) {
            (Some(server), _) => server.uri().to_string(),
            (None, Some(file)) => format!("{} {:?}", file.display(), self.context),
            (None, None) => "in-cluster".to_owned(),
        }
    }

    /// Files that are read on connecting.
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

    /// Reports `own_namespace` where this pod's namespace is unknown.
    pub(crate) fn check_own_namespace(&self, asked: bool, problems: &mut Problems) {
        if asked && !self.is_in_cluster() {
            let what = "applies only to connections from within a cluster";
            let problem = problems.at("own_namespace", what);
            problem.help("name it under namespaces, or remove api_server and kubeconfig_file");
        }
    }

    /// Reports invalid keys.
    pub fn validate(&self, problems: &mut Problems) {
        if self.api_server.is_some() && self.kubeconfig_file.is_some() {
            let problem = problems.at("kubeconfig_file", "cannot be set together with api_server");
            problem.help("remove one of them");
        }
        if self.context.is_some() && self.kubeconfig_file.is_none() {
            problems.at("context", "applies only with kubeconfig_file");
        }
        let auth = [
            ("basic_auth", self.basic_auth.is_some()),
            ("authorization", self.authorization.is_some()),
            ("oauth2", self.oauth2.is_some()),
        ];
        for (key, given) in auth {
            if given && self.api_server.is_none() {
                let what = "applies only with api_server: a kubeconfig and a service account have credentials of their own";
                problems.at(key, what).help("remove it, or set api_server");
            }
        }
        let own_tls = self.tls != ClientTls::default();
        if own_tls && self.kubeconfig_file.is_some() {
            problems.at(
                "tls",
                "cannot be set together with kubeconfig_file, which has TLS settings of its own",
            );
        }
        if self.proxy.proxy_url.is_some() && self.kubeconfig_file.is_some() {
            problems.at(
                "proxy_url",
                "cannot be set together with kubeconfig_file: write proxy-url in that file",
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

/// Reports an invalid duration of watches.
pub(crate) fn check_watch(timeout: Period, problems: &mut Problems) {
    if timeout < Period::millis(1000) || timeout > Period::millis(290_000) {
        problems.at("watch_timeout", "must be from 1s to 4m50s");
    }
}

/// Reports a text that is no valid namespace name: it could form another path of the API.
pub(crate) fn check_namespace(name: &str, key: &str, problems: &mut Problems) {
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > 63 || !name.bytes().all(valid) {
        problems.at(key, "is not the name of a namespace");
    }
}
