//! Connections of the data path's client: direct or through a proxy, in plain text or in TLS.

use std::error::Error;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use http::uri::Scheme;
use http::{HeaderValue, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::TokioIo;
use rustls::CertificateError;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tower_service::Service;

use metrifold_base::{BoxFuture, BuildError};

use crate::auth::Credentials;
use crate::client::{ClientConfig, TransportError, TransportKind};
use crate::describe::{chain, place};
use crate::tls::Pem;

/// Interval of keep-alive probes on an idle connection.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Makes connections. Clones share all state.
#[derive(Clone)]
pub(super) struct Connector(Arc<Parts>);

struct Parts {
    tcp: HttpConnector,
    tls: TlsConnector,
    server_name: Option<ServerName<'static>>,
    proxy: Option<Uri>,
    proxy_credentials: Credentials,
    timeout: Duration,
}

pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection to an endpoint, or to the proxy in front of it.
pub(super) type BoxIo = Box<dyn Io>;

impl Connector {
    /// Reads the certificates. No connection is made yet.
    pub(super) fn new(config: &ClientConfig, pem: &Pem) -> Result<Self, BuildError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(TCP_KEEPALIVE));
        tcp.set_connect_timeout(Some(config.connect_timeout));
        Ok(Self(Arc::new(Parts {
            tcp,
            tls: TlsConnector::from(Arc::new(config.tls.config_with(pem)?)),
            server_name: config.tls.name()?,
            proxy: config
                .proxy_url
                .as_ref()
                .map(|endpoint| endpoint.uri().clone()),
            proxy_credentials: Credentials::build(config.proxy_basic_auth.as_ref(), None, None)
                .map_err(|error| BuildError::new("proxy_basic_auth", error.reason))?,
            timeout: config.connect_timeout,
        })))
    }

    /// Connects to an endpoint in time.
    pub(super) async fn connect(&self, endpoint: &Uri) -> Result<BoxIo, TransportError> {
        let limit = self.0.timeout;
        tokio::time::timeout(limit, self.open(endpoint))
            .await
            .unwrap_or_else(|_| {
                let what = format!(
                    "cannot connect to {}: not done in {limit:?}",
                    place(endpoint)
                );
                Err(TransportError::new(TransportKind::Connect, what))
            })
    }

    /// Whether a proxy reads the requests to `http` endpoints, which must then name the endpoint.
    pub(super) fn is_proxied(&self) -> bool {
        self.0.proxy.is_some()
    }

    async fn open(&self, endpoint: &Uri) -> Result<BoxIo, TransportError> {
        let secure = endpoint.scheme() == Some(&Scheme::HTTPS);
        let io = match &self.0.proxy {
            None => self.dial(endpoint).await?,
            Some(_) if !secure => self.dial_proxy().await?,
            Some(proxy) => {
                let mut tunnel = Tunnel::new(proxy.clone(), ProxyDialer(self.clone()));
                if let Some(shown) = self.proxy_authorization().await? {
                    tunnel = tunnel.with_auth(shown);
                }
                let io = tunnel.call(endpoint.clone()).await.map_err(|error| {
                    match error.source().and_then(|e| e.downcast_ref()) {
                        Some(error) => TransportError::clone(error),
                        None => {
                            let what = format!(
                                "proxy {} did not open a tunnel to {}: {}",
                                place(proxy),
                                place(endpoint),
                                chain(&error)
                            );
                            TransportError::new(TransportKind::Proxy, what)
                        }
                    }
                })?;
                io.into_inner()
            }
        };
        match secure {
            true => self.encrypt(io, endpoint, self.0.server_name.clone()).await,
            false => Ok(io),
        }
    }

    /// The `Proxy-Authorization` header; `None` without credentials for the proxy.
    pub(super) async fn proxy_authorization(&self) -> Result<Option<HeaderValue>, TransportError> {
        self.0.proxy_credentials.header().await.map_err(|error| {
            let what = format!("proxy_basic_auth: {error}");
            TransportError::new(TransportKind::Proxy, what)
        })
    }

    async fn dial(&self, to: &Uri) -> Result<BoxIo, TransportError> {
        match self.0.tcp.clone().call(to.clone()).await {
            Ok(io) => Ok(Box::new(io.into_inner())),
            Err(error) => {
                let what = format!("cannot connect to {}: {}", place(to), chain(&error));
                Err(TransportError::new(TransportKind::Connect, what))
            }
        }
    }

    /// Connects to the proxy. Every failure counts as the proxy's.
    async fn dial_proxy(&self) -> Result<BoxIo, TransportError> {
        let at_proxy = |error: TransportError| {
            let what = format!("proxy: {}", error.message);
            TransportError::new(TransportKind::Proxy, what)
        };
        let Some(proxy) = &self.0.proxy else {
            let what = "no proxy is configured".to_owned();
            return Err(TransportError::new(TransportKind::Proxy, what));
        };
        let io = self.dial(proxy).await.map_err(at_proxy)?;
        if proxy.scheme() == Some(&Scheme::HTTPS) {
            // `server_name` applies to the endpoint, not to the proxy.
            return self.encrypt(io, proxy, None).await.map_err(at_proxy);
        }
        Ok(io)
    }

    async fn encrypt(
        &self,
        io: BoxIo,
        to: &Uri,
        name: Option<ServerName<'static>>,
    ) -> Result<BoxIo, TransportError> {
        let host = to.host().unwrap_or_default();
        // An IPv6 address has brackets in URLs only.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let failed = |what: &dyn fmt::Display| {
            let what = format!("tls handshake with {} failed: {what}", place(to));
            TransportError::new(TransportKind::Tls, what)
        };
        let name = match name {
            Some(name) => name,
            None => ServerName::try_from(host.to_owned()).map_err(|_| {
                failed(&format_args!(
                    "{host:?} cannot be the name in a certificate: set tls.server_name"
                ))
            })?,
        };
        match self.0.tls.connect(name, io).await {
            Ok(io) => Ok(Box::new(io)),
            Err(error) => Err(failed(&format_args!("{error}{}", advice(&error)))),
        }
    }
}

/// Connects to the proxy, whatever the requested URL.
struct ProxyDialer(Connector);

impl Service<Uri> for ProxyDialer {
    type Response = TokioIo<BoxIo>;
    type Error = TransportError;
    type Future = BoxFuture<Result<TokioIo<BoxIo>, TransportError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.0.clone();
        Box::pin(async move { connector.dial_proxy().await.map(TokioIo::new) })
    }
}

/// rustls's error, if an I/O error wraps one.
pub(super) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// How to fix a failed handshake.
fn advice(error: &io::Error) -> &'static str {
    use rustls::Error::InvalidCertificate;
    match tls_error(error) {
        // A bad signature comes from an authority with the same name and another key.
        Some(InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => "; set tls.ca_file to the authority that signed it",
        Some(InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => "; set tls.server_name to a name in the certificate",
        _ => "",
    }
}
