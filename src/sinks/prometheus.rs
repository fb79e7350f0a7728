//! Answers queries from one Prometheus, or another server of its HTTP API.
//!
//! Delivery: each query is sent once, without queue and retries. Bodies stream both ways and keep
//! their compression. When the caller goes, the query is dropped and its connection to the endpoint
//! closed.
//!
//! Limits: the time to connect; the source limits the time of a query.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri};
use http_body::Body as _;

use metrifold_base::keys::Keys;
use metrifold_base::{BoxFuture, BuildError, Endpoint, Problems, RunError, Secret, Shutdown, keys};
use metrifold_engine::component::{BuildContext, BuildSink, ComponentInfo, SinkConfig, SinkPort};
use metrifold_engine::planes::Sink;
use metrifold_engine::planes::queries::{Answer, Answerer, Input, Queries, Query};
use metrifold_http::{Client, ClientKeys, Credentials, TransportError, TransportKind, hop_by_hop};
use metrifold_model::{Kind, Rejection, RejectionKind};

use super::tenant_header;

keys! {
    /// Configuration of the `prometheus` sink.
    #[derive(Clone, Debug)]
    pub struct PrometheusConfig {
        /// URL of the server, including the path in front of `/api/v1/…`, if any.
        endpoint: Endpoint = required("http://127.0.0.1:9090"),
        client: ClientKeys = include,
        /// Headers to set on each request.
        headers: BTreeMap<String, Secret> = unset({ X-Scope-OrgID = "team-a" }),
        /// Name of the header that carries the tenant of a query, as determined by the transform `tenant`; several tenants are divided by `|`. Any value from the caller is removed.
        tenant_header: Option<String> = unset("X-Scope-OrgID"),
        /// Maximum number of idle connections that are kept open for further queries.
        idle_connections: usize = default(64),
    }
}

inventory::submit! {
    ComponentInfo {
        kind: Kind::Sink,
        name: "prometheus",
        summary: "Forwards queries to one Prometheus-compatible server.",
        keys: PrometheusConfig::ENTRIES,
    }
}

/// Headers that the sink sets itself.
const RESERVED: [&str; 6] = [
    "authorization",
    "connection",
    "content-length",
    "host",
    "transfer-encoding",
    "upgrade",
];

#[typetag::deserialize(name = "prometheus")]
impl SinkConfig for PrometheusConfig {
    fn port(&self) -> SinkPort<'_> {
        SinkPort::Queries(self)
    }

    fn files(&self) -> Vec<&Path> {
        self.client.files()
    }

    fn validate(&self, problems: &mut Problems) {
        self.client.validate(problems);
        if self.endpoint.uri().query().is_some() {
            problems.at("endpoint", "must have no query string");
        }
        tenant_header::validate(self.tenant_header.as_deref(), &self.headers, problems);
        for (name, value) in &self.headers {
            let key = format!("headers.{name}");
            if name.parse::<HeaderName>().is_err() {
                problems.at(&key, "is not a valid header name");
            } else if RESERVED.contains(&name.to_ascii_lowercase().as_str()) {
                problems.at(&key, "is set by the protocol");
            }
            if HeaderValue::from_str(value.expose()).is_err() {
                problems.at(&key, "is not a valid header value");
            }
        }
    }
}

impl BuildSink<Queries> for PrometheusConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Sink<Queries>>, BuildError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let key = format!("headers.{name}");
            let name: HeaderName = name.parse().map_err(|e| BuildError::new(&key, e))?;
            let mut value =
                HeaderValue::from_str(value.expose()).map_err(|e| BuildError::new(&key, e))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(Box::new(Prometheus(Arc::new(Upstream {
            id: cx.id.clone(),
            endpoint: self.endpoint.uri().clone(),
            client: self.client.client(self.idle_connections)?,
            credentials: self.client.credentials()?,
            headers,
            tenant_header: tenant_header::read(self.tenant_header.as_deref())?,
        }))))
    }
}

struct Prometheus(Arc<Upstream>);

impl Sink<Queries> for Prometheus {
    fn run(
        self: Box<Self>,
        input: Input,
        mut shutdown: Shutdown,
    ) -> BoxFuture<Result<(), RunError>> {
        let serving = input.serve(self.0);
        Box::pin(async move {
            shutdown.wait().await;
            serving.retire();
            Ok(())
        })
    }
}

/// The server that answers the queries.
struct Upstream {
    id: Arc<str>,
    endpoint: Uri,
    client: Client,
    credentials: Credentials,
    /// Configured headers, set in each request.
    headers: HeaderMap,
    tenant_header: Option<HeaderName>,
}

impl Answerer for Upstream {
    fn answer(self: Arc<Self>, mut query: Query) -> BoxFuture<Result<Answer, Rejection>> {
        Box::pin(async move {
            if let Some(name) = &self.tenant_header {
                query.name_tenant(name);
            }
            let uri = self.target(&query.uri)?;
            let mut headers = query.headers;
            hop_by_hop::remove(&mut headers);
            for (name, value) in &self.headers {
                headers.insert(name, value.clone());
            }
            headers.remove(AUTHORIZATION);
            let credentials = self.credentials.header().await;
            if let Some(value) = credentials.map_err(|error| self.failed(&error))? {
                headers.insert(AUTHORIZATION, value);
            }
            // Without this header some servers refuse a POST without a body (411).
            if query.method == Method::POST && query.body.is_end_stream() {
                headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            // The plane ends the query at its deadline.
            let asked = self
                .client
                .request_unbounded(query.method, &uri, headers, query.body);
            let mut answer = asked.await.map_err(|error| self.rejection(&error))?;
            hop_by_hop::remove(answer.headers_mut());
            Ok(answer)
        })
    }
}

impl Upstream {
    /// The query's target below the endpoint's path.
    fn target(&self, uri: &Uri) -> Result<Uri, Rejection> {
        let mut parts = self.endpoint.clone().into_parts();
        let invalid = |error: &dyn std::fmt::Display| {
            Rejection::invalid(format!("target is not valid: {error}"))
        };
        parts.path_and_query = match (self.endpoint.path(), uri.path_and_query()) {
            ("/", Some(target)) => Some(target.clone()),
            (path, target) => {
                let path = path.trim_end_matches('/');
                let target = target.map_or("/", |target| target.as_str());
                let joined = format!("{path}{target}");
                Some(joined.parse().map_err(|error| invalid(&error))?)
            }
        };
        Uri::from_parts(parts).map_err(|error| invalid(&error))
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> Rejection {
        let reason = format!("sink {}: {error}", self.id);
        Rejection::new(RejectionKind::Unreachable, reason)
    }

    fn rejection(&self, error: &TransportError) -> Rejection {
        match error.kind {
            TransportKind::Timeout => {
                let reason = format!("sink {}: {error}", self.id);
                Rejection::new(RejectionKind::TimedOut, reason)
            }
            // The caller's fault: it disconnected, or its body was too large.
            TransportKind::Body => Rejection::invalid(error.to_string()),
            _ => self.failed(error),
        }
    }
}
