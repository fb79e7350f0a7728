//! The client of the data path: posts bodies over pooled connections and reports what came back.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, Uri};
use thiserror::Error;

use super::tls::ClientTls;
use crate::component::BuildError;
use crate::config::Endpoint;

/// How a [`Client`] connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// TLS, for `https` endpoints and `https` proxies.
    pub tls: ClientTls,
    /// The proxy through which everything goes: a tunnel (CONNECT) to an `https` endpoint, the
    /// absolute form of a request to an `http` endpoint. Unset, connections are direct; the
    /// environment's `HTTP_PROXY` has no say.
    pub proxy_url: Option<Endpoint>,
    /// How many idle connections are kept per endpoint: as many as requests are sent at once.
    pub connections: usize,
    /// The longest that making a connection may take, from the name's look-up to the end of the
    /// TLS handshake.
    pub connect_timeout: Duration,
}

/// Posts bodies. A clone shares the connections.
#[derive(Clone, Debug)]
pub struct Client {}

/// What an endpoint answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status. Redirects are not followed: they are answers like any other.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The beginning of the body, at most 4 KiB, for messages; whatever is not UTF-8 is replaced.
    pub excerpt: String,
}

/// Why a request got no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub struct TransportError {
    /// What went wrong.
    pub kind: TransportKind,
    /// The same in words, with the endpoint, without secrets.
    pub message: String,
}

/// What went wrong between the client and an endpoint. All of it is worth a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransportKind {
    /// The name did not resolve, or nobody accepted the connection. Nothing was sent.
    Connect,
    /// The TLS handshake failed. Nothing was sent.
    Tls,
    /// The answer did not come in time. The request may have taken effect.
    Timeout,
    /// The connection broke. The request may have taken effect.
    Reset,
    /// The proxy could not be reached, or would not make the tunnel. Nothing was sent.
    Proxy,
    /// Anything else, such as an answer that is not HTTP.
    Other,
}

impl TransportKind {
    /// In metrics and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Proxy => "proxy",
            Self::Other => "other",
        }
    }
}

impl Client {
    /// Makes a client; connects nowhere yet.
    ///
    /// # Errors
    ///
    /// Fails when a certificate or key cannot be read or used.
    pub fn new(config: &ClientConfig) -> Result<Self, BuildError> {
        unimplemented!()
    }

    /// Posts `body` to `uri`, everything within `timeout`.
    ///
    /// `Host` and `Content-Length` are set here. The request is sent once: the client repeats it
    /// by itself only when a pooled connection turned out to be closed before anything was sent.
    ///
    /// # Errors
    ///
    /// Fails when no answer came; any status is an answer.
    pub async fn post(
        &self,
        uri: &Uri,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Reply, TransportError> {
        unimplemented!()
    }
}
