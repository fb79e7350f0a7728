//! A replica: a server that answers queries, and the connection to it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Uri};
use tokio::time::Instant;

use metrifold_base::{BuildError, Endpoint, Secret};
use metrifold_http::{Body, Client, Credentials, TransportError, TransportKind, hop_by_hop};

/// A server that answers queries, identified by its name.
#[derive(Clone, Debug)]
pub struct Replica {
    /// The URL, without a slash at its end.
    pub name: Arc<str>,
    /// The URL, parsed.
    pub endpoint: Uri,
    /// Weight relative to the other replicas.
    pub weight: u32,
    /// Labels from the configuration or discovery, shown on the status page.
    pub labels: BTreeMap<String, String>,
    /// Connections, credentials and headers for it.
    pub upstream: Arc<Upstream>,
}

/// Connections, credentials and headers for servers; replicas may share them.
#[derive(Debug)]
pub struct Upstream {
    /// Pool of connections.
    pub client: Client,
    /// Credentials of requests.
    pub credentials: Credentials,
    /// Headers set on each request.
    pub headers: HeaderMap,
}

/// What is missing to a millisecond at most.
const NEARLY_A_MILLISECOND: Duration = Duration::from_nanos(999_999);

/// Headers that the protocol sets itself.
const RESERVED: [&str; 6] = [
    "authorization",
    "connection",
    "content-length",
    "host",
    "transfer-encoding",
    "upgrade",
];

/// Reads configured headers.
///
/// # Errors
///
/// Fails at the key of each header that is invalid, or that the protocol sets.
pub fn upstream_headers(
    configured: &BTreeMap<String, Secret>,
) -> Result<HeaderMap, Vec<BuildError>> {
    let mut headers = HeaderMap::new();
    let mut errors = Vec::new();
    for (name, value) in configured {
        let key = format!("headers.{name}");
        let reserved = RESERVED.contains(&name.to_ascii_lowercase().as_str());
        match (
            name.parse::<HeaderName>(),
            HeaderValue::from_str(value.expose()),
        ) {
            _ if reserved => errors.push(BuildError::new(&key, "is set by the protocol")),
            (Ok(name), Ok(mut value)) => {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
            (name, value) => {
                if name.is_err() {
                    errors.push(BuildError::new(&key, "is not a valid header name"));
                }
                if value.is_err() {
                    errors.push(BuildError::new(&key, "is not a valid header value"));
                }
            }
        }
    }
    match errors.is_empty() {
        true => Ok(headers),
        false => Err(errors),
    }
}

impl Replica {
    /// A replica at this URL.
    ///
    /// # Errors
    ///
    /// Fails when the URL is not one of HTTP, has a query, or holds credentials.
    pub fn new(url: &str, weight: u32, upstream: Arc<Upstream>) -> Result<Self, String> {
        let endpoint: Endpoint = url.parse()?;
        if endpoint.uri().query().is_some() {
            return Err(format!("{url:?} has a query string"));
        }
        let name = endpoint.uri().to_string();
        Ok(Self {
            name: name.trim_end_matches('/').into(),
            endpoint: endpoint.uri().clone(),
            weight,
            labels: BTreeMap::new(),
            upstream,
        })
    }

    /// The URL of `target`, a path and query, below the replica's own path.
    ///
    /// # Errors
    ///
    /// Fails when the result is not a valid URL.
    pub fn url(&self, target: &str) -> Result<Uri, String> {
        let path = self.endpoint.path().trim_end_matches('/');
        let joined: PathAndQuery = format!("{path}{target}")
            .parse()
            .map_err(|error| format!("target is not valid: {error}"))?;
        let mut parts = self.endpoint.clone().into_parts();
        parts.path_and_query = Some(joined);
        Uri::from_parts(parts).map_err(|error| format!("target is not valid: {error}"))
    }

    /// Sends a request; the head of the answer must arrive before `deadline`.
    ///
    /// # Errors
    ///
    /// Fails when no answer arrives; any status is an answer.
    pub async fn send(
        &self,
        method: Method,
        target: &str,
        mut headers: HeaderMap,
        body: Body,
        deadline: Instant,
    ) -> Result<http::Response<Body>, TransportError> {
        let other = |message: String| TransportError {
            kind: TransportKind::Other,
            message,
        };
        let uri = self.url(target).map_err(other)?;
        for (name, value) in &self.upstream.headers {
            headers.insert(name, value.clone());
        }
        headers.remove(AUTHORIZATION);
        let shown = self.upstream.credentials.header().await;
        if let Some(value) = shown.map_err(|error| other(error.to_string()))? {
            headers.insert(AUTHORIZATION, value);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        // In whole milliseconds, as people read in errors how long it was waited for.
        let millis = left.saturating_add(NEARLY_A_MILLISECOND).as_millis();
        let left = Duration::from_millis(millis.try_into().unwrap_or(u64::MAX));
        let sent = self
            .upstream
            .client
            .request(method, &uri, headers, body, left);
        let mut answer = sent.await?;
        hop_by_hop::remove(answer.headers_mut());
        Ok(answer)
    }
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
