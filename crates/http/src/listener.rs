//! Listeners that sources share: one per address, with one handler per path.
//!
//! A path goes through three states: claimed ([`Listeners::route`]), served ([`Route::serve`]) and
//! detached again. What has not been served yet belongs to the configuration that is being built,
//! and must agree with itself; what is served already belongs to the one before, and may be
//! superseded. So a reload builds completely beside what runs, takes over path by path without a
//! gap, and leaves no trace if it fails.

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

/// What a handler answers.
pub type Response = http::Response<Body>;

/// A path on an address, and how the address is listened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address. Port 0 is a free port, which [`Route::local_addr`] tells.
    pub address: SocketAddr,
    /// The path, which must match exactly; `{name}` matches one segment, `{*name}` all that is
    /// left, which is not nothing. The more exact of two paths goes first.
    pub path: String,
    /// The methods that are answered there; others may be of another route.
    pub methods: Methods,
    /// The parameters of the path that hold free text, in which any character may be escaped. What is
    /// in them must never become part of a path.
    pub free_text: &'static [&'static str],
    /// TLS; without it, connections are in plain text.
    pub tls: Option<ServerTls>,
    /// How many connections are open at once; by default 1024, or a quarter of the descriptors that
    /// the process may have if that is less. A further one takes the place of one on which nothing
    /// is under way, or waits for that.
    pub max_connections: Option<usize>,
    /// The longest that a TLS handshake may take, and then the head of a request from its first
    /// byte. The first request's time starts with the connection.
    pub header_timeout: Duration,
    /// The longest that a connection may be idle between two requests, and the longest that a
    /// caller may refuse to take a byte of an answer.
    pub idle_timeout: Duration,
    /// The age from which on a connection ends with its next answer, so that callers follow what
    /// their name servers say.
    pub max_age: Duration,
}

/// The listeners of the process. A clone is a handle to the same.
#[derive(Clone, Default)]
pub struct Listeners(Arc<Shared>);

/// A path that is claimed on a bound address. Dropping it frees the path; the last one of an
/// address closes the listener: the port is free at once, idle connections end, and requests that
/// are under way are finished.
pub struct Route {
    shared: Arc<Shared>,
    bound: Arc<Bound>,
    claim: u64,
}

/// A handler that is attached to a path. Dropping it detaches the handler; callers are then
/// answered 503 until another is attached.
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
    /// The caller's cookies, for whoever has set one. They are in no header, so that none travels on.
    pub cookies: Vec<HeaderValue>,
    /// What the path's parameters matched, percent-decoded.
    pub params: Vec<(Box<str>, Box<str>)>,
    /// The caller's address.
    pub peer: SocketAddr,
    /// Who calls, as the route's [`Access`] found out.
    pub caller: Caller,
    /// The body, unread: [`body::read`](super::body::read) bounds it.
    pub body: Body,
}

/// Answers the requests of a route.
pub trait Handler: Send + Sync {
    /// Answers one request. The future, and later the body of the answer, is dropped when the
    /// caller goes away. A panic costs the caller its connection, and nobody else anything.
    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response>;

    /// Whether a caller that has closed its sending side is still answered. Such a caller cannot
    /// be told from one that has hung up: without this, its request is given up.
    fn answers_half_closed(&self) -> bool {
        false
    }

    /// Hears of a request of this route that was answered with `status` before it got here: that
    /// the route's [`Access`] did not let in.
    fn refused(&self, status: StatusCode) {
        let _ = status;
    }
}

impl Listen {
    /// GET of a path on an address, in plain text, with the default limits: 10 s
    /// for a request's head, 5 min between requests, 1 h for a connection.
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

    /// Reports what is wrong, at the keys `path`, `tls`, `max_connections`, `header_timeout`,
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

    /// Whether both may share an address: they agree on all that belongs to the listener and not
    /// to the path. Paths are not compared: that is [`Listen::collides`].
    ///
    /// # Errors
    ///
    /// Fails with the key on which they disagree.
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

    /// The same with other methods.
    #[must_use]
    pub fn methods(self, methods: Methods) -> Self {
        Self { methods, ..self }
    }

    /// The same with free text in these parameters of its path.
    #[must_use]
    pub fn free_text(self, free_text: &'static [&'static str]) -> Self {
        Self { free_text, ..self }
    }

    /// Whether both claim the same requests: method and path cannot tell them apart on one
    /// address. `/a/{x}` and `/a/b` can be told apart, the latter being matched first; so can GET
    /// and POST of the same path.
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

    /// What the path's parameter `name` matched.
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
    /// Nothing is accepted before [`Listeners::start`]; callers wait in the kernel's backlog.
    ///
    /// A path that is served already may be claimed again, by the same component or another: so a
    /// reload builds its successor while it still serves, and [`Route::serve`] hands the path over
    /// without a gap, and with it the listener's TLS and limits. All that asks for port 0 of an
    /// interface shares one free port.
    ///
    /// # Errors
    ///
    /// Fails when the address cannot be bound, a certificate cannot be used, the path is invalid,
    /// or path or limits contradict those of another route that is not served yet.
    pub fn route(&self, listen: &Listen, owner: &str) -> Result<Route, BuildError> {
        let (bound, claim) = self.0.claim(listen, owner)?;
        Ok(Route {
            shared: Arc::clone(&self.0),
            bound,
            claim,
        })
    }

    /// Has `tell`, which must not wait, told of everybody who is turned away. Only the first call has
    /// an effect.
    pub fn watch_refusals(&self, tell: impl Fn(&TurnedAway<'_>) + Send + Sync + 'static) {
        self.0.watch_refusals(Box::new(tell));
    }

    /// Starts to accept on every address that was bound since the last call. Must be called
    /// inside of a tokio runtime.
    pub fn start(&self) {
        self.0.start();
    }

    /// The same for addresses at which somebody serves: what is being built for a configuration that
    /// may not come into force stays closed.
    pub fn start_served(&self) {
        self.0.start_served();
    }

    /// Reads the certificates of all listeners again, for connections to come. Where that fails,
    /// the old ones stay in use, and the reason is returned.
    pub fn renew_certificates(&self) -> Vec<BuildError> {
        self.0.renew_certificates()
    }

    /// When the certificates expire that are shown to callers, by the addresses that are bound.
    pub fn certificates(&self) -> Vec<(SocketAddr, SystemTime)> {
        self.0.certificates()
    }

    /// Stops accepting, lets requests that are under way finish for at most `limit`, and cuts
    /// whatever connections are left. Returns how many those were. No route can be claimed later.
    pub async fn shutdown(&self, limit: Duration) -> usize {
        self.0.shutdown(limit).await
    }
}

impl Route {
    /// Attaches the handler that answers the path from now on, for those whom `access` lets in. It
    /// takes the place of any other, and dropping that other's [`Serving`] later changes nothing.
    pub fn serve(&self, access: Arc<dyn Access>, handler: Arc<dyn Handler>) -> Serving {
        Serving {
            turn: self.bound.attach(self.claim, access, handler),
            bound: Arc::clone(&self.bound),
            claim: self.claim,
        }
    }

    /// The address that is really bound.
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
