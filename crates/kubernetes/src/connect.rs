//! Chooses the API server and the credentials: from within a cluster, by a kubeconfig, or by keys.

use std::path::Path;
use std::time::Duration;

use http::Uri;

use metrifold_base::{BuildError, read_text};
use metrifold_http::{Authorization, Client, ClientConfig, ClientTls, Credentials};

use crate::keys::ConnectKeys;
use crate::kubeconfig;

/// Largest file with the name of a namespace, in bytes.
const MAX_NAMESPACE: u64 = 4 << 10;

/// Idle connections that are kept; watches occupy connections of their own.
const CONNECTIONS: usize = 4;

/// An API server, with the credentials for it.
#[derive(Clone)]
pub struct Cluster {
    pub(crate) client: Client,
    pub(crate) server: Uri,
    pub(crate) credentials: Credentials,
    /// Configuration of a kubeconfig's exec plugin, which prints a token.
    pub(crate) helper: Option<kube::Config>,
    pub(crate) timeout: Duration,
    /// Default namespace: of the pod, or of the kubeconfig's context.
    pub(crate) namespace: Option<String>,
}

impl ConnectKeys {
    /// Determines the API server and the credentials, without connecting.
    ///
    /// # Errors
    ///
    /// Fails when a file cannot be read, and outside of a cluster when no key names an API server.
    pub fn cluster(&self) -> Result<Cluster, BuildError> {
        match (&self.api_server, &self.kubeconfig_file) {
            (Some(server), _) => Ok(Cluster {
                client: Client::new(&self.client_config(self.tls.clone()))?,
                server: server.uri().clone(),
                credentials: Credentials::build(
                    self.basic_auth.as_ref(),
                    self.authorization.as_ref(),
                    self.oauth2.as_ref(),
                )?,
                helper: None,
                timeout: self.timeout.0,
                namespace: None,
            }),
            (None, Some(file)) => self.by_kubeconfig(file),
            (None, None) => self.in_cluster(),
        }
    }

    fn client_config(&self, tls: ClientTls) -> ClientConfig {
        ClientConfig {
            tls,
            proxy_url: self.proxy.proxy_url.clone(),
            proxy_basic_auth: self.proxy.proxy_basic_auth.clone(),
            connections: CONNECTIONS,
            connect_timeout: self.connect_timeout.0,
            max_age: self.max_connection_age.0,
        }
    }

    fn in_cluster(&self) -> Result<Cluster, BuildError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let host = variable("KUBERNETES_SERVICE_HOST");
        let Some(host) = host else {
            let reason = "KUBERNETES_SERVICE_HOST is not set, so that this runs in no pod: \
                          set api_server or kubeconfig_file";
            return Err(BuildError::new("api_server", reason));
        };
        let host = match host.contains(':') {
            true => format!("[{host}]"),
            false => host,
        };
        let port = variable("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
        let server = format!("https://{host}:{port}");
        let server = server.parse().map_err(|error| {
            let reason = format!("KUBERNETES_SERVICE_HOST and _PORT make {server:?}: {error}");
            BuildError::new("api_server", reason)
        })?;
        let folder = &self.service_account_directory;
        let mut tls = self.tls.clone();
        if tls.ca_file.is_none() {
            tls.ca_file = Some(folder.join("ca.crt"));
        }
        let token = Authorization {
            scheme: "Bearer".to_owned(),
            credentials: None,
            credentials_file: Some(folder.join("token")),
        };
        let namespace = read_text(&folder.join("namespace"), MAX_NAMESPACE).ok();
        Ok(Cluster {
            client: Client::new(&self.client_config(tls))?,
            server,
            credentials: Credentials::build(None, Some(&token), None)
                .map_err(|error| BuildError::new("service_account_directory", error.reason))?,
            helper: None,
            timeout: self.timeout.0,
            namespace: namespace.map(|name| name.trim().to_owned()),
        })
    }

    fn by_kubeconfig(&self, file: &Path) -> Result<Cluster, BuildError> {
        let wrong = |reason: String| BuildError::new("kubeconfig_file", reason);
        let found = kubeconfig::read(file, self.context.as_deref()).map_err(wrong)?;
        let config = ClientConfig {
            proxy_url: found.proxy_url.clone(),
            proxy_basic_auth: None,
            ..self.client_config(found.tls.clone())
        };
        Ok(Cluster {
            client: Client::with_pem(&config, &found.pem)?,
            server: found.server,
            credentials: Credentials::build(
                found.basic_auth.as_ref(),
                found.authorization.as_ref(),
                None,
            )
            .map_err(|error| wrong(error.reason))?,
            helper: found.helper,
            timeout: self.timeout.0,
            namespace: found.namespace,
        })
    }
}

impl Cluster {
    /// The namespace of this pod, or of the kubeconfig's context.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Namespaces to watch, sorted; empty for all.
    pub(crate) fn namespaces(
        &self,
        named: &[String],
        own: bool,
    ) -> Result<Vec<String>, BuildError> {
        let mut namespaces = named.to_vec();
        if own {
            let own = self.namespace.clone();
            namespaces.push(own.ok_or_else(|| {
                let reason = "the service account's folder has no readable file `namespace`";
                BuildError::new("own_namespace", reason)
            })?);
        }
        namespaces.sort();
        namespaces.dedup();
        Ok(namespaces)
    }
}
