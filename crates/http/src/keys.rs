//! Groups of keys that all listeners, and all clients, share.

use std::path::Path;
use std::sync::Arc;

use metrifold_base::{Address, BuildError, Period, Problems, keys, words};

use super::access::{Access, Doors, Wanted};
use super::auth::{self, Authorization, BasicAuth, Callers, Credentials, OAuth2, ProxyKeys};
use super::client::{Client, ClientConfig};
use super::listener::Listen;
use super::methods::Methods;
use super::tls::{ClientAuth, ClientTls, ServerTls};

keys! {
    /// Keys of a listener.
    #[derive(Clone, Debug)]
    pub struct ListenerKeys {
        /// Address to listen on. Without a host (`:9201`), all IPv4 addresses. Sources with the same address share one listener, and must agree on `tls`, `max_connections`, `header_timeout`, `idle_timeout` and `max_connection_age`.
        pub address: Address = required("0.0.0.0:9201"),
        /// TLS settings of the listener. Unset, it serves plain HTTP.
        pub tls: Option<ServerTls> = optional,
        /// Maximum number of open connections of the listener. By default 1024, or a quarter of the process's limit of [file descriptors](../operations.md#descriptors) if that is less. A further connection replaces one without a request in flight, or waits until there is one.
        pub max_connections: Option<usize> = unset(1024),
        /// Maximum time for the TLS handshake, and for receiving the head of a request.
        pub header_timeout: Period = default("10s"),
        /// Maximum time for which a connection can be idle between two requests.
        pub idle_timeout: Period = default("5m"),
        /// Age after which a connection is closed with its next answer, so that clients resolve the address again.
        pub max_connection_age: Period = default("1h"),
    }
}

keys! {
    /// Keys of an HTTP server: its listener, and who may call.
    #[derive(Clone, Debug)]
    pub struct ServerKeys {
        keys: ListenerKeys = include,
        /// Name of a listener under `[listeners.NAME]`, whose keys `address`, `tls`, `max_connections`, `header_timeout`, `idle_timeout` and `max_connection_age` replace those here.
        listener: Option<String> = unset("public"),
        /// User name and password that callers must send.
        pub basic_auth: Option<BasicAuth> = optional,
        /// `Authorization` header that callers must send.
        pub authorization: Option<Authorization> = optional,
        /// Access control: with `tenants`, callers must authenticate as a tenant under `[tenants.NAME]` and have the permission that the request requires. Excludes `basic_auth` and `authorization`.
        pub access: Option<AccessBy> = unset("tenants"),
    }
}

words! {
    /// How callers are admitted.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum AccessBy {
        /// By the rights of their tenant.
        Tenants = "tenants",
    }
}

keys! {
    /// Keys of connections to a server.
    #[derive(Clone, Debug)]
    pub struct ClientKeys {
        /// TLS settings for `https` URLs.
        pub tls: ClientTls = table,
        /// User name and password to authenticate with.
        pub basic_auth: Option<BasicAuth> = optional,
        /// `Authorization` header to authenticate with.
        pub authorization: Option<Authorization> = optional,
        /// OAuth 2.0 token to authenticate with, obtained with the client credentials grant.
        pub oauth2: Option<OAuth2> = optional,
        proxy: ProxyKeys = include,
        /// Maximum time to establish a connection.
        pub connect_timeout: Period = default("5s"),
        /// Age after which a connection gets no further requests, so that changed DNS records take effect.
        pub max_connection_age: Period = default("5m"),
    }
}

impl AccessBy {
    /// Reports at the key `tls` a check of client certificates that this access does not make.
    pub fn validate_tls(access: Option<Self>, tls: &ServerTls, problems: &mut Problems) {
        if access.is_none() && tls.client_auth == ClientAuth::Tenants {
            let what = "with client_auth = \"tenants\", tenants verify client certificates, but this listener has no tenants";
            problems
                .at("tls.client_auth", what)
                .help("set access = \"tenants\"");
        }
    }
}

impl ListenerKeys {
    /// A listener for these methods of a path.
    pub fn listen(&self, path: &str, methods: Methods) -> Listen {
        Listen {
            address: self.address.0,
            path: path.to_owned(),
            methods,
            free_text: &[],
            tls: self.tls.clone(),
            max_connections: self.max_connections,
            header_timeout: self.header_timeout.0,
            idle_timeout: self.idle_timeout.0,
            max_age: self.max_connection_age.0,
        }
    }

    /// Reports problems at the keys.
    pub fn validate(&self, problems: &mut Problems) {
        self.listen("/", Methods::GET).validate(problems);
    }
}

impl ServerKeys {
    /// A listener for these methods of a path.
    pub fn listen(&self, path: &str, methods: Methods) -> Listen {
        self.keys.listen(path, methods)
    }

    /// Files that the keys name.
    pub fn files(&self) -> Vec<&Path> {
        let tls = self.keys.tls.iter().flat_map(ServerTls::files);
        let (basic_auth, authorization) = (self.basic_auth.as_ref(), self.authorization.as_ref());
        tls.chain(auth::files(basic_auth, authorization, None))
            .collect()
    }

    /// Reports problems of the keys, or of the path.
    pub fn validate(&self, path: &str, problems: &mut Problems) {
        self.listen(path, Methods::GET).validate(problems);
        if self.listener.is_some() {
            // A reference is replaced by the listener's keys before; one that is left is unknown.
            problems.at("listener", "is not known");
        }
        let (basic_auth, authorization) = (self.basic_auth.as_ref(), self.authorization.as_ref());
        auth::validate("", basic_auth, authorization, None, problems);
        if self.access.is_some() && (basic_auth.is_some() || authorization.is_some()) {
            let what =
                "with access = \"tenants\", callers authenticate with the credentials of tenants";
            let help = "remove basic_auth and authorization, and write them under [tenants.NAME]";
            problems.at("access", what).help(help);
        }
        if let Some(tls) = &self.keys.tls {
            AccessBy::validate_tls(self.access, tls, problems);
        }
    }

    /// The access check for requests that require the rights in `wanted`.
    ///
    /// # Errors
    ///
    /// Fails when a file with a secret cannot be read.
    pub fn access(&self, doors: &dyn Doors, wanted: Wanted) -> Result<Arc<dyn Access>, BuildError> {
        match self.access {
            Some(AccessBy::Tenants) => Ok(doors.tenants(wanted)),
            None => {
                let (basic_auth, authorization) =
                    (self.basic_auth.as_ref(), self.authorization.as_ref());
                Ok(Arc::new(Callers::build(basic_auth, authorization)?))
            }
        }
    }

    /// Whether tenants decide about access.
    pub fn by_tenants(&self) -> bool {
        self.access == Some(AccessBy::Tenants)
    }
}

impl ClientKeys {
    /// Files that the keys name.
    pub fn files(&self) -> Vec<&Path> {
        let auth = auth::files(
            self.basic_auth.as_ref(),
            self.authorization.as_ref(),
            self.oauth2.as_ref(),
        );
        let own = self.tls.files().chain(self.proxy.files());
        own.chain(auth).collect()
    }

    /// Reports problems at the keys.
    pub fn validate(&self, problems: &mut Problems) {
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
            ("connect_timeout", self.connect_timeout),
            ("max_connection_age", self.max_connection_age),
        ] {
            if value.0.is_zero() {
                problems.at(key, "must be longer than 0s");
            }
        }
    }

    /// A client for this number of concurrent requests.
    ///
    /// # Errors
    ///
    /// Fails when a certificate cannot be used.
    pub fn client(&self, connections: usize) -> Result<Client, BuildError> {
        Client::new(&self.client_config(connections))
    }

    /// The configuration of such a client.
    pub fn client_config(&self, connections: usize) -> ClientConfig {
        ClientConfig {
            tls: self.tls.clone(),
            proxy_url: self.proxy.proxy_url.clone(),
            proxy_basic_auth: self.proxy.proxy_basic_auth.clone(),
            connections,
            connect_timeout: self.connect_timeout.0,
            max_age: self.max_connection_age.0,
        }
    }

    /// Whether requests carry credentials.
    pub fn authenticates(&self) -> bool {
        self.basic_auth.is_some() || self.authorization.is_some() || self.oauth2.is_some()
    }

    /// The credentials of requests.
    ///
    /// # Errors
    ///
    /// Fails when a file with a secret cannot be read.
    pub fn credentials(&self) -> Result<Credentials, BuildError> {
        Credentials::build(
            self.basic_auth.as_ref(),
            self.authorization.as_ref(),
            self.oauth2.as_ref(),
        )
    }
}
