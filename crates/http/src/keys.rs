//! Groups of keys that everything that listens, and everything that connects, has.

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
    /// What is configured of a listener.
    #[derive(Clone, Debug)]
    pub struct ListenerKeys {
        /// Address to listen on; without a host (`:9201`), on all addresses of IPv4. Sources with the same address share one listener; they must agree on `tls`, `max_connections`, `header_timeout`, `idle_timeout` and `max_connection_age`.
        pub address: Address = required("0.0.0.0:9201"),
        /// TLS for callers; without it they are served in plain text.
        pub tls: Option<ServerTls> = optional,
        /// Most connections of the listener; by default 1024, or a quarter of the [descriptors](../operations.md#descriptors) that the process may have if that is less. A further one takes the place of one on which no request is under way, or waits for that.
        pub max_connections: Option<usize> = unset(1024),
        /// Longest time for a TLS handshake and for the head of a request.
        pub header_timeout: Period = default("10s"),
        /// Longest time that a connection may be idle between two requests.
        pub idle_timeout: Period = default("5m"),
        /// Age from which on a connection is closed with its next answer, so that callers follow what their name servers say.
        pub max_connection_age: Period = default("1h"),
    }
}

keys! {
    /// What is configured of a server: its listener, and who may call; the path is its owner's.
    #[derive(Clone, Debug)]
    pub struct ServerKeys {
        keys: ListenerKeys = include,
        /// Name of a listener under `[listeners.NAME]`, which has the keys `address`, `tls`, `max_connections`, `header_timeout`, `idle_timeout` and `max_connection_age` in place of those here.
        listener: Option<String> = unset("public"),
        /// User and password that callers must send.
        pub basic_auth: Option<BasicAuth> = optional,
        /// `Authorization` header that callers must send.
        pub authorization: Option<Authorization> = optional,
        /// Who may call: `tenants` is whoever proves to be of a tenant under `[tenants.NAME]` and has the right to do what it asks for. In place of `basic_auth` and `authorization`.
        pub access: Option<AccessBy> = unset("tenants"),
    }
}

words! {
    /// Who may call.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum AccessBy {
        /// Whoever proves to be of a tenant and has the right.
        Tenants = "tenants",
    }
}

keys! {
    /// What is configured of connections to a server; the URL is their owner's.
    #[derive(Clone, Debug)]
    pub struct ClientKeys {
        /// TLS towards `https` URLs.
        pub tls: ClientTls = table,
        /// User and password to authenticate with.
        pub basic_auth: Option<BasicAuth> = optional,
        /// `Authorization` header to authenticate with.
        pub authorization: Option<Authorization> = optional,
        /// Token to authenticate with, got by client credentials.
        pub oauth2: Option<OAuth2> = optional,
        proxy: ProxyKeys = include,
        /// Longest time for making a connection.
        pub connect_timeout: Period = default("5s"),
        /// Age from which on a connection is not used for a further request, so that a changed DNS record is followed.
        pub max_connection_age: Period = default("5m"),
    }
}

impl ListenerKeys {
    /// The listener that serves these methods of this path.
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

    /// Reports what is wrong with them, at their keys.
    pub fn validate(&self, problems: &mut Problems) {
        self.listen("/", Methods::GET).validate(problems);
    }
}

impl ServerKeys {
    /// The listener that serves these methods of this path.
    pub fn listen(&self, path: &str, methods: Methods) -> Listen {
        self.keys.listen(path, methods)
    }

    /// The files that they name.
    pub fn files(&self) -> Vec<&Path> {
        let tls = self.keys.tls.iter().flat_map(ServerTls::files);
        let (basic_auth, authorization) = (self.basic_auth.as_ref(), self.authorization.as_ref());
        tls.chain(auth::files(basic_auth, authorization, None))
            .collect()
    }

    /// Reports what is wrong with them, or with the path, at their keys.
    pub fn validate(&self, path: &str, problems: &mut Problems) {
        self.listen(path, Methods::GET).validate(problems);
        if self.listener.is_some() {
            // The keys of the listener take its place before this is read.
            problems.at("listener", "is not known");
        }
        let (basic_auth, authorization) = (self.basic_auth.as_ref(), self.authorization.as_ref());
        auth::validate("", basic_auth, authorization, None, problems);
        if self.access.is_some() && (basic_auth.is_some() || authorization.is_some()) {
            let what = "tenants say how callers prove who they are";
            let help = "remove basic_auth and authorization, and write them under [tenants.NAME]";
            problems.at("access", what).help(help);
        }
        let tls = self.keys.tls.as_ref();
        if self.access.is_none() && tls.is_some_and(|tls| tls.client_auth == ClientAuth::Tenants) {
            let what = "certificates are for tenants to verify, and none is asked";
            problems
                .at("tls.client_auth", what)
                .help("set access = \"tenants\"");
        }
    }

    /// Who may call what wants to do something.
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

    /// Whether tenants decide who may call.
    pub fn by_tenants(&self) -> bool {
        self.access == Some(AccessBy::Tenants)
    }
}

impl ClientKeys {
    /// The files that they name.
    pub fn files(&self) -> Vec<&Path> {
        let auth = auth::files(
            self.basic_auth.as_ref(),
            self.authorization.as_ref(),
            self.oauth2.as_ref(),
        );
        let own = self.tls.files().chain(self.proxy.files());
        own.chain(auth).collect()
    }

    /// Reports what is wrong with them, at their keys.
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

    /// A client that sends so many requests at once.
    ///
    /// # Errors
    ///
    /// Fails when a certificate cannot be used.
    pub fn client(&self, connections: usize) -> Result<Client, BuildError> {
        Client::new(&self.client_config(connections))
    }

    /// How such a client connects.
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

    /// Whether requests authenticate at all.
    pub fn authenticates(&self) -> bool {
        self.basic_auth.is_some() || self.authorization.is_some() || self.oauth2.is_some()
    }

    /// What requests authenticate with.
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
