//! Listeners shared by sources: one per address, with one handler per path.
//!
//! A path goes through three states: claimed ([`Listeners::route`]), served ([`Route::serve`]) and
//! detached. A claim that was never served belongs to the configuration under construction, which
//! must be free of conflicts; a served one belongs to the previous configuration, and may be
//! replaced. So a reload builds completely beside the running components, takes over path by path
//! without a gap, and leaves no trace if it fails.

pub(crate) mod accept;
mod announce;
pub(crate) mod bound;
mod canonical;
pub(crate) mod connection;
pub(crate) mod refusals;
pub(crate) mod routes;
mod settings;
mod shared;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

use metrifold_base::{BoxFuture, BuildError, Problems};
use metrifold_model::Caller;

use super::access::Access;
use super::body::Body;
use super::methods::Methods;
use super::tls::ServerTls;
use crate::listener::bound::Bound;
use crate::listener::routes::Table;
use crate::listener::shared::Shared;

pub use refusals::TurnedAway;

/// A handler's answer.
pub type Response = http::Response<Body>;

/// A path on an address, with the settings of the listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address. Port 0 selects a free port, which [`Route::local_addr`] returns.
    pub address: SocketAddr,
    /// The path, which must match exactly; `{name}` matches one segment, `{*name}` the non-empty
    /// rest. The more specific of two matching paths wins.
    pub path: String,
    /// Methods of the route; other routes may have other methods of the path.
    pub methods: Methods,
    /// Parameters of the path that hold free text, in which any character may be escaped. Their
    /// values must never become part of a path.
    pub free_text: &'static [&'static str],
    /// TLS; without it, connections are in plain text.
    pub tls: Option<ServerTls>,
    /// Most open connections; the default is 1024, or a quarter of the process's descriptors if
    /// that is less. A further connection replaces one without a request in flight, or waits for
    /// such a one.
    pub max_connections: Option<usize>,
    /// Longest time for a TLS handshake, and for the head of a request from its first byte. For the
    /// first request, the time starts with the connection.
    pub header_timeout: Duration,
    /// Longest time that a connection is idle between two requests, and that a caller accepts no
    /// byte of an answer.
    pub idle_timeout: Duration,
    /// Age from which a connection ends with its next answer, so that callers follow changes in
    /// DNS.
    pub max_age: Duration,
}

/// The listeners of the process. Clones share them.
#[derive(Clone, Default)]
pub struct Listeners(Arc<Shared>);

/// A path claimed on a bound address. Dropping it releases the path; the last one of an address
/// closes the listener: the port is free at once, idle connections are closed, and requests in
/// flight are finished.
pub struct Route {
    shared: Arc<Shared>,
    bound: Arc<Bound>,
    claim: u64,
}

/// A handler attached to a path. Dropping it detaches the handler; requests are then answered 503
/// until another one is attached.
#[must_use = "dropping it detaches the handler at once"]
pub struct Serving {
    bound: Arc<Bound>,
    claim: u64,
    turn: u64,
}

/// A request that reached a route.
#[derive(Debug)]
pub struct Request {
    /// The method: one of the route's.
    pub method: Method,
    /// The target: path and query, as they were sent.
    pub uri: Uri,
    /// The headers, without those that hold credentials.
    pub headers: HeaderMap,
    /// The caller's cookies. They are removed from the headers, so that none is forwarded.
    pub cookies: Vec<HeaderValue>,
    /// Parameters of the path, percent-decoded.
    pub params: Vec<(Box<str>, Box<str>)>,
    /// The caller's address.
    pub peer: SocketAddr,
    /// The caller, as identified by the route's [`Access`].
    pub caller: Caller,
    /// The body, unread; [`body::read`](super::body::read) reads it with bounds.
    pub body: Body,
}

/// Answers the requests of a route.
pub trait Handler: Send + Sync {
    /// Answers one request. The future, and later the body of the answer, is dropped when the
    /// caller disconnects. A panic closes the caller's connection, and affects no other.
    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response>;

    /// Whether a caller that has closed its sending side still gets an answer. If not, its request
    /// is dropped, since it cannot be told from a caller that has disconnected.
    fn answers_half_closed(&self) -> bool {
        false
    }

    /// Called for a request of this route that was answered with `status` before the handler,
    /// because the route's [`Access`] refused it.
    fn refused(&self, status: StatusCode) {
        let _ = status;
    }
}

impl Listen {
    /// A route for GET in plain text, with the default limits: 10 s for a request's head, 5 min
    /// between requests, 1 h for a connection.
    pub fn new(address: SocketAddr, path: impl Into<String>) -> Self {
        Self {
            address,
            path: path.into(),
            methods: Methods::GET,
            free_text: &[],
            tls: None,
            max_connections: None,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            max_age: Duration::from_secs(3600),
        }
    }

    /// Reports problems at the keys `path`, `tls`, `max_connections`, `header_timeout`,
    /// `idle_timeout` and `max_connection_age`.
    pub fn validate(&self, problems: &mut Problems) {
        if let Err(error) = routes::check(&self.path) {
            problems.at("path", error);
        }
        if self.max_connections == Some(0) {
            problems.at("max_connections", "must be at least 1");
        }
        for (key, value) in [
            ("header_timeout", self.header_timeout),
            ("idle_timeout", self.idle_timeout),
            ("max_connection_age", self.max_age),
        ] {
            if value.is_zero() {
                problems.at(key, "must be longer than 0s");
            }
        }
        if let Some(tls) = &self.tls {
            tls.validate("tls", problems);
        }
    }

    /// Whether both may share an address: they agree on all settings of the listener. Paths are
    /// compared by [`Listen::collides`].
    ///
    /// # Errors
    ///
    /// Fails with the key in which they differ.
    pub fn compatible(&self, other: &Self) -> Result<(), String> {
        let key = if self.address != other.address {
            return Ok(());
        } else if self.tls != other.tls {
            "tls"
        } else if self.max_connections != other.max_connections {
            "max_connections"
        } else if self.header_timeout != other.header_timeout {
            "header_timeout"
        } else if self.idle_timeout != other.idle_timeout {
            "idle_timeout"
        } else if self.max_age != other.max_age {
            "max_connection_age"
        } else {
            return Ok(());
        };
        Err(format!(
            "{key} must be the same for all that share the address {}",
            self.address
        ))
    }

    /// With other methods.
    #[must_use]
    pub fn methods(self, methods: Methods) -> Self {
        Self { methods, ..self }
    }

    /// With free text in these parameters of the path.
    #[must_use]
    pub fn free_text(self, free_text: &'static [&'static str]) -> Self {
        Self { free_text, ..self }
    }

    /// Whether both claim the same requests, which neither method nor path tells apart on one
    /// address. `/a/{x}` and `/a/b` do not collide, since the latter is matched first, and neither
    /// do GET and POST of the same path.
    pub fn collides(&self, other: &Self) -> bool {
        let mut table = Table::default();
        self.address == other.address
            && table.insert(&self.path, self.methods, None).is_ok()
            && table.insert(&other.path, other.methods, None).is_err()
    }
}

impl Request {
    /// A request from an unknown caller, without headers and parameters.
    pub fn new(method: Method, uri: Uri, body: impl Into<Body>) -> Self {
        Self {
            method,
            uri,
            headers: HeaderMap::new(),
            cookies: Vec::new(),
            params: Vec::new(),
            peer: SocketAddr::from(([127, 0, 0, 1], 0)),
            caller: Caller::anonymous(),
            body: body.into(),
        }
    }

    /// The value of the path's parameter `name`.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(key, _)| &**key == name)
            .map(|(_, value)| &**value)
    }

    /// The body's length, if the head announces it.
    pub fn content_length(&self) -> Option<u64> {
        http_body::Body::size_hint(&self.body).exact()
    }
}

impl Listeners {
    /// No listeners yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Claims a path for the component `owner`, and binds the address unless it is bound already.
    /// Connections are accepted after [`Listeners::start`] only; until then they wait in the
    /// kernel's backlog.
    ///
    /// A served path may be claimed again, by the same component or another: a reload builds a
    /// successor while the predecessor serves, and [`Route::serve`] hands the path over without a
    /// gap, together with the listener's TLS and limits. All routes for port 0 of an interface
    /// share one free port.
    ///
    /// # Errors
    ///
    /// Fails when the address cannot be bound, a certificate cannot be used, the path is invalid,
    /// or path or limits conflict with another route that was never served.
    pub fn route(&self, listen: &Listen, owner: &str) -> Result<Route, BuildError> {
        let (bound, claim) = self.0.claim(listen, owner)?;
        Ok(Route {
            shared: Arc::clone(&self.0),
            bound,
            claim,
        })
    }

    /// Reports every refused caller to `tell`, which must not block. Only the first call has an
    /// effect.
    pub fn watch_refusals(&self, tell: impl Fn(&TurnedAway<'_>) + Send + Sync + 'static) {
        self.0.watch_refusals(Box::new(tell));
    }

    /// Starts to accept connections on every address bound since the last call. Must be called
    /// within a tokio runtime.
    pub fn start(&self) {
        self.0.start();
    }

    /// Starts to accept connections on addresses with a handler only: those of a configuration
    /// under construction stay closed.
    pub fn start_served(&self) {
        self.0.start_served();
    }

    /// Expiry of the certificates shown to callers, by bound address.
    pub fn certificates(&self) -> Vec<(SocketAddr, SystemTime)> {
        self.0.certificates()
    }

    /// Stops accepting, lets requests in flight finish for at most `limit`, and cuts the remaining
    /// connections. Returns the number of those. No route can be claimed afterwards.
    pub async fn shutdown(&self, limit: Duration) -> usize {
        self.0.shutdown(limit).await
    }
}

impl Route {
    /// Attaches the handler that answers callers admitted by `access` from now on. It replaces any
    /// other; dropping that one's [`Serving`] later has no effect.
    pub fn serve(&self, access: Arc<dyn Access>, handler: Arc<dyn Handler>) -> Serving {
        Serving {
            turn: self.bound.attach(self.claim, access, handler),
            bound: Arc::clone(&self.bound),
            claim: self.claim,
        }
    }

    /// The bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.bound.local
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        self.shared.release(&self.bound, self.claim);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.bound.detach(self.claim, self.turn);
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listeners").finish_non_exhaustive()
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Route").field(&self.local_addr()).finish()
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Serving").field(&self.bound.local).finish()
    }
}

#[cfg(test)]
mod tests;
