//! The client of the data path: posts bodies over pooled connections and reports the outcome.

pub(crate) mod connector;
mod pool;

use std::error::Error as StdError;
use std::time::Duration;
use std::{fmt, io};

use http::header::{HOST, PROXY_AUTHORIZATION};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::BodyExt;
use thiserror::Error;
use tokio::time::{Instant, timeout_at};

use metrifold_base::{BuildError, Endpoint, foreign};

use super::auth::BasicAuth;
use super::body::Body;
use super::tls::{ClientTls, Pem};
use crate::client::connector::{Connector, tls_error};
use crate::client::pool::{Line, Pool, Server};
use crate::describe::{chain, place};

/// Bytes of an answer's body that are kept for messages; secrets are searched for within these.
const EXCERPT: usize = 4 << 10;

/// Most characters of the excerpt.
const SHOWN: usize = 300;

/// Most bytes of an answer's body that are read so that its connection can be reused. A longer body
/// closes the connection.
const DRAIN: usize = 64 << 10;

/// Longest time for reading the rest of an answer: its head has decided the outcome, for which a
/// sender may be waiting.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// The target of a URL without a path.
const ROOT: PathAndQuery = PathAndQuery::from_static("/");

/// Connection settings of a [`Client`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// TLS, for `https` endpoints and `https` proxies.
    pub tls: ClientTls,
    /// The proxy for all requests: a tunnel (CONNECT) to an `https` endpoint, the absolute form of
    /// a request to an `http` endpoint. If unset, connections are direct; the environment's
    /// `HTTP_PROXY` is ignored.
    pub proxy_url: Option<Endpoint>,
    /// Credentials for the proxy (`Proxy-Authorization`).
    pub proxy_basic_auth: Option<BasicAuth>,
    /// Idle connections that are kept per endpoint: as many as there are concurrent requests.
    pub connections: usize,
    /// Longest time for making a connection, from the name's look-up to the end of the TLS
    /// handshake.
    pub connect_timeout: Duration,
    /// Age from which a connection is not reused, so that changes in DNS are followed.
    pub max_age: Duration,
}

/// Sends requests. Clones share the connections.
#[derive(Clone)]
pub struct Client {
    connector: Connector,
    pool: Pool,
}

/// An endpoint's answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status. Redirects are not followed, but returned.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The beginning of the body for messages: on one line, at most 300 characters, without known
    /// secrets, with invalid UTF-8 replaced.
    pub excerpt: String,
}

/// Why a request got no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub struct TransportError {
    /// Kind of the failure.
    pub kind: TransportKind,
    /// The failure in words, with the endpoint and without secrets.
    pub message: String,
}

/// A failure between the client and an endpoint. All kinds are worth a retry if the body can be
/// sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransportKind {
    /// The name did not resolve, or the connection was not accepted. Nothing was sent.
    Connect,
    /// The TLS handshake failed. Nothing was sent.
    Tls,
    /// The answer did not come in time. The request may have taken effect.
    Timeout,
    /// The connection broke. The request may have taken effect.
    Reset,
    /// The proxy could not be reached, or would not make the tunnel. Nothing was sent.
    Proxy,
    /// The body of the request broke off while it was sent, which is not the endpoint's fault.
    Body,
    /// Anything else, such as an answer that is not HTTP.
    Other,
}

impl TransportKind {
    /// Its name in metrics and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Proxy => "proxy",
            Self::Body => "body",
            Self::Other => "other",
        }
    }
}

impl TransportError {
    pub(super) fn new(kind: TransportKind, message: String) -> Self {
        Self { kind, message }
    }
}

impl Client {
    /// Builds a client. No connection is made yet.
    ///
    /// # Errors
    ///
    /// Fails when a certificate or key cannot be read or used.
    pub fn new(config: &ClientConfig) -> Result<Self, BuildError> {
        Self::with_pem(config, &Pem::default())
    }

    /// Builds a client with certificates and key from `pem` in place of files.
    ///
    /// # Errors
    ///
    /// Fails when a certificate or key cannot be read or used.
    pub fn with_pem(config: &ClientConfig, pem: &Pem) -> Result<Self, BuildError> {
        Ok(Self {
            connector: Connector::new(config, pem)?,
            pool: Pool::new(config.connections, config.max_age),
        })
    }

    /// Posts `body` to `uri` and reads the answer within `timeout`.
    ///
    /// `Host` and `Content-Length` are set here. The request is sent once: the client only repeats
    /// it if a pooled connection turned out to be closed before anything was sent.
    ///
    /// # Errors
    ///
    /// Fails when no answer came; any status is an answer.
    pub async fn post(
        &self,
        uri: &Uri,
        headers: HeaderMap,
        body: impl Into<Body>,
        timeout: Duration,
    ) -> Result<Reply, TransportError> {
        let deadline = Instant::now() + timeout;
        let answer = self
            .request(Method::POST, uri, headers, body, timeout)
            .await?;
        let (head, body) = answer.into_parts();
        let mut excerpt = Vec::new();
        if !body.is_end_stream() {
            // The answer counts, whatever happens to the rest of its body.
            let deadline = deadline.min(Instant::now() + DRAIN_TIME);
            let _ = timeout_at(deadline, drain(body, &mut excerpt)).await;
        }
        Ok(Reply {
            status: head.status,
            headers: head.headers,
            excerpt: foreign(&String::from_utf8_lossy(&excerpt), SHOWN),
        })
    }

    /// Sends a request and returns the answer once its head has arrived, which must be within
    /// `timeout`. See [`Client::request_unbounded`].
    ///
    /// # Errors
    ///
    /// Fails when no answer came; any status is an answer.
    pub async fn request(
        &self,
        method: Method,
        uri: &Uri,
        headers: HeaderMap,
        body: impl Into<Body>,
        timeout: Duration,
    ) -> Result<http::Response<Body>, TransportError> {
        let answer = self.request_unbounded(method, uri, headers, body);
        tokio::time::timeout(timeout, answer)
            .await
            .unwrap_or_else(|_| {
                let what = format!("no answer from {} within {timeout:?}", place(uri));
                Err(TransportError::new(TransportKind::Timeout, what))
            })
    }

    /// Sends a request and returns the answer once its head has arrived. A request that may be
    /// repeated, such as GET, is sent once more if a kept connection breaks before the answer: the
    /// server may have closed it at that moment for being idle. The caller bounds the time of both, and
    /// the body in size. The connection is reused once the body has been read to its
    /// end; it is closed if the body, or the future returned here, is dropped before.
    ///
    /// # Errors
    ///
    /// Fails when no answer came; any status is an answer.
    pub async fn request_unbounded(
        &self,
        method: Method,
        uri: &Uri,
        mut headers: HeaderMap,
        body: impl Into<Body>,
    ) -> Result<http::Response<Body>, TransportError> {
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            let what = format!("{}: a request needs a whole URL", place(uri));
            return Err(TransportError::new(TransportKind::Other, what));
        };
        let server = (scheme.clone(), authority.clone());
        let mut target = Uri::from(uri.path_and_query().cloned().unwrap_or(ROOT));
        // A proxy without a tunnel reads the request itself.
        if *scheme != Scheme::HTTPS && self.connector.is_proxied() {
            target = uri.clone();
            if let Some(shown) = self.connector.proxy_authorization().await? {
                headers.insert(PROXY_AUTHORIZATION, shown);
            }
        }
        if !headers.contains_key(HOST) {
            headers.insert(HOST, host(uri)?);
        }
        let mut request = http::Request::new(body.into());
        *request.method_mut() = method;
        *request.uri_mut() = target;
        *request.headers_mut() = headers;
        self.send(uri, server, request).await
    }

    /// Sends a request on an idle connection, or else on a new one.
    async fn send(
        &self,
        uri: &Uri,
        server: Server,
        mut request: http::Request<Body>,
    ) -> Result<http::Response<Body>, TransportError> {
        let mut broke = false;
        loop {
            let kept = match broke {
                true => None,
                false => self.pool.take(&server),
            };
            let used = kept.is_some();
            let again = used.then(|| repeated(&request)).flatten();
            let mut line = match kept {
                Some(line) => line,
                None => {
                    let io = self.connector.connect(uri).await?;
                    Line::new(io).await.map_err(|error| explain(uri, &error))?
                }
            };
            match line.send(request).await {
                Ok(answer) => return Ok(self.pool.answer(server, line, answer)),
                Err(mut error) => match error.take_message() {
                    // The kept connection was closed before anything was sent.
                    Some(unsent) if used => request = unsent,
                    _ => {
                        let error = explain(uri, error.error());
                        match again {
                            Some(again) if error.kind == TransportKind::Reset => {
                                broke = true;
                                request = again;
                            }
                            _ => return Err(error),
                        }
                    }
                },
            }
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// The same request once more, if it may be sent twice.
fn repeated(request: &http::Request<Body>) -> Option<http::Request<Body>> {
    if !request.method().is_safe() || !request.body().is_end_stream() {
        return None;
    }
    let mut again = http::Request::new(Body::empty());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

/// The value of `Host` for a URL.
fn host(uri: &Uri) -> Result<HeaderValue, TransportError> {
    let name = uri.host().unwrap_or_default();
    let usual = match uri.scheme() == Some(&Scheme::HTTPS) {
        true => 443,
        false => 80,
    };
    let value = match uri.port_u16().filter(|port| *port != usual) {
        Some(port) => HeaderValue::try_from(format!("{name}:{port}")),
        None => HeaderValue::from_str(name),
    };
    value.map_err(|error| {
        let what = format!("{}: host is not valid: {error}", place(uri));
        TransportError::new(TransportKind::Other, what)
    })
}

/// Reads as much of a body as pays off, and keeps its beginning.
async fn drain(mut body: Body, excerpt: &mut Vec<u8>) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let room = EXCERPT - excerpt.len();
        excerpt.extend_from_slice(&data[..data.len().min(room)]);
        read += data.len();
        if read >= DRAIN {
            return;
        }
    }
}

/// Determines the kind of a failure.
fn explain(uri: &Uri, error: &hyper::Error) -> TransportError {
    let mut kind = TransportKind::Other;
    let mut source: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<hyper::Error>()
            && error.is_user()
        {
            // Further causes come from the body's stream.
            kind = TransportKind::Body;
            break;
        }
        if let Some(error) = cause.downcast_ref::<hyper::Error>()
            && (error.is_incomplete_message()
                || error.is_canceled()
                || error.is_closed()
                || error.is_body_write_aborted())
        {
            kind = TransportKind::Reset;
        }
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            kind = match error.kind() {
                // A TLS 1.3 server may refuse the client after the handshake.
                _ if tls_error(error).is_some() => TransportKind::Tls,
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof
                | io::ErrorKind::NotConnected => TransportKind::Reset,
                io::ErrorKind::TimedOut => TransportKind::Timeout,
                _ => kind,
            };
        }
        source = cause.source();
    }
    let what = match kind {
        TransportKind::Reset => "connection broke",
        TransportKind::Tls => "server ended the tls session",
        TransportKind::Body => "body of the request broke off",
        _ => "request failed",
    };
    TransportError::new(kind, format!("{}: {what}: {}", place(uri), chain(error)))
}

#[cfg(test)]
mod tests;
