//! Listeners that sources share: one per address, with one handler per path.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use http_body_util::Full;
use hyper::body::Incoming;

use super::tls::ServerTls;
use crate::component::{BoxFuture, BuildError};
use crate::config::Problems;
use crate::signal::ClientCertificate;

/// What a handler answers.
pub type Response = http::Response<Full<Bytes>>;

/// A path on an address, and how the address is listened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address. Port 0 is a free port, which [`Route::local_addr`] tells.
    pub address: SocketAddr,
    /// The path, which must match exactly; `{name}` matches one segment, `{*name}` all that is
    /// left.
    pub path: String,
    /// TLS; without it, connections are in plain text.
    pub tls: Option<ServerTls>,
    /// How many connections are open at once. Further ones wait to be accepted.
    pub max_connections: usize,
    /// The longest that a TLS handshake may take, and then the head of a request from its first
    /// byte. The first request's time starts with the connection.
    pub header_timeout: Duration,
    /// The longest that a connection may be idle between two requests, and the longest that a
    /// caller may refuse to take a byte of an answer.
    pub idle_timeout: Duration,
}

/// The listeners of the process. A clone is a handle to the same.
#[derive(Clone, Default)]
pub struct Listeners {}

/// A path that is claimed on a bound address. Dropping it frees the path; the last one of an
/// address closes the listener.
pub struct Route {}

/// A handler that is attached to a path. Dropping it detaches the handler; callers are then
/// answered 503 until another is attached.
#[must_use = "dropping it detaches the handler at once"]
pub struct Serving {}

/// A request that reached a route.
#[derive(Debug)]
pub struct Request {
    /// The method: any, since a handler is attached to a path alone.
    pub method: Method,
    /// The target, as it was sent.
    pub uri: Uri,
    /// The headers, as they were sent.
    pub headers: HeaderMap,
    /// What the path's parameters matched, percent-decoded.
    pub params: Vec<(Box<str>, Box<str>)>,
    /// The caller's address.
    pub peer: SocketAddr,
    /// The certificate that the caller proved to own.
    pub client_certificate: Option<Arc<ClientCertificate>>,
    /// The body, unread: [`body::read`](super::body::read) bounds it.
    pub body: Incoming,
}

/// Answers the requests of a route.
pub trait Handler: Send + Sync {
    /// Answers one request. The future is dropped if the connection breaks. A panic costs the
    /// caller its connection, and nobody else anything.
    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response>;
}

impl Listen {
    /// A path on an address, in plain text, with the default limits: 1024 connections, 10 s for a
    /// request's head, 5 min between requests.
    pub fn new(address: SocketAddr, path: impl Into<String>) -> Self {
        Self {
            address,
            path: path.into(),
            tls: None,
            max_connections: 1024,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
        }
    }

    /// Reports what is wrong, at the keys `path`, `tls`, `max_connections`, `header_timeout` and
    /// `idle_timeout`.
    pub fn validate(&self, problems: &mut Problems) {
        unimplemented!()
    }

    /// Whether both may share an address: they agree on all that belongs to the listener and not
    /// to the path. Paths are not compared.
    ///
    /// # Errors
    ///
    /// Fails with the key on which they disagree.
    pub fn compatible(&self, other: &Self) -> Result<(), String> {
        unimplemented!()
    }
}

impl Request {
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
    /// Nothing is accepted before [`Listeners::start`].
    ///
    /// A component may claim a path that it holds already: so a reload builds its successor while
    /// it still serves, and [`Route::serve`] hands the path over without a gap.
    ///
    /// # Errors
    ///
    /// Fails when the address cannot be bound, a certificate cannot be used, the path is invalid
    /// or collides with another owner's, or the limits contradict those of another route that has
    /// not been served yet.
    pub fn route(&self, listen: &Listen, owner: &str) -> Result<Route, BuildError> {
        unimplemented!()
    }

    /// Starts to accept on every address that was bound since the last call. Must be called
    /// inside of a tokio runtime.
    pub fn start(&self) {
        unimplemented!()
    }

    /// Stops accepting, lets requests that are under way finish for at most `limit`, and cuts
    /// whatever connections are left. Returns how many those were.
    pub async fn shutdown(&self, limit: Duration) -> usize {
        unimplemented!()
    }
}

impl Route {
    /// Attaches the handler that answers the path from now on.
    pub fn serve(&self, handler: Arc<dyn Handler>) -> Serving {
        unimplemented!()
    }

    /// The address that is really bound.
    pub fn local_addr(&self) -> SocketAddr {
        unimplemented!()
    }
}
