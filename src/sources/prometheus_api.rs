//! Serves Prometheus' HTTP read API from whatever answers queries behind it.
//!
//! Delivery: each request is answered once, by one sink; nothing is queued and nothing is tried
//! again. Bodies stream both ways: a caller that reads slowly slows the far end down, one that goes
//! away has its query dropped there. What changes data or the server is refused, and so is what
//! Prometheus' API does not have.
//!
//! Limits: the queries at once, the time of each, the bytes of a request's body.
//!
//! Source: <https://prometheus.io/docs/prometheus/latest/querying/api/>.

mod endpoints;
mod failure;
mod log;
mod timeout;

use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use http_body_util::{LengthLimitError, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use metrifold_base::keys::Keys;
use metrifold_base::{BoxFuture, BuildError, Period, Problems, RunError, Shutdown, Size, keys};
use metrifold_engine::component::{
    BuildContext, BuildSource, ComponentInfo, Resource, SourceConfig, SourcePort,
};
use metrifold_engine::planes::Source;
use metrifold_engine::planes::queries::{Answer, Output, Queries, Query, TurnLimits, Turns};
use metrifold_http::{
    Access, Body, BoxError, Handler, Listen, Methods, Permission, Request, Response, Route,
    ServerKeys, hop_by_hop, rejection,
};
use metrifold_model::{Kind, Origin, Rejection, RejectionKind};

use endpoints::Verdict;
use log::{Entry, QueryLog, QueryLogKeys};

keys! {
    /// Configuration of the `prometheus_api` source.
    #[derive(Clone, Debug)]
    pub struct PrometheusApiConfig {
        server: ServerKeys = include,
        /// Path in front of `/api/v1/…` and `/federate`; `{name}` in it matches one segment, of which the tenant transform can make the tenant.
        path: String = default("/"),
        /// Longest time for a query, to the end of its answer. Then it is answered 504, or its answer breaks off, and the far end is told to stop. A caller may ask for less with the parameter `timeout`.
        timeout: Period = default("2m"),
        /// Most queries at once. One is under way until its answer has been read.
        max_concurrent: usize = default(256),
        /// Most queries of one tenant at once; by default as many as of all together.
        max_concurrent_per_tenant: Option<usize> = unset(16),
        /// Most queries that wait for their turn when as many are under way as may be; tenants take turns. Further ones are answered 503 with Retry-After.
        max_waiting: usize = default(0),
        /// Largest body of a request, such as a form; above it 413.
        max_body_bytes: Size = default("16MiB"),
        /// Which queries are logged.
        log: QueryLogKeys = table,
    }
}

/// The parameter of what stands behind the root, in the route.
const REST: &str = "{endpoint}";

/// The most queries at once that can be asked for.
const MAX_CONCURRENT: usize = 1_000_000;

inventory::submit! {
    ComponentInfo {
        kind: Kind::Source,
        name: "prometheus_api",
        summary: "Serves Prometheus' HTTP read API.",
        keys: PrometheusApiConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "prometheus_api")]
impl SourceConfig for PrometheusApiConfig {
    fn port(&self) -> SourcePort<'_> {
        SourcePort::Queries(self)
    }

    fn resources(&self) -> Vec<Resource> {
        vec![Resource::Route(self.listen())]
    }

    fn files(&self) -> Vec<&Path> {
        self.server.files()
    }

    fn validate(&self, problems: &mut Problems) {
        let segments = self.root().split('/');
        if segments.clone().any(|segment| segment.starts_with("{*")) {
            problems
                .at("path", "must have an end, behind which the API begins")
                .help("name one segment, such as \"/{tenant}\"");
        } else if segments.clone().any(|segment| segment == REST) {
            problems
                .at("path", "has a parameter of a name that is taken")
                .help("give the parameter another name");
        } else {
            self.server.validate(&self.prefix(), problems);
        }
        if self.timeout.0.is_zero() {
            problems.at("timeout", "must be longer than 0s");
        }
        let per_tenant = self.max_concurrent_per_tenant;
        for (key, value, least) in [
            ("max_concurrent", self.max_concurrent, 1),
            ("max_concurrent_per_tenant", per_tenant.unwrap_or(1), 1),
            ("max_waiting", self.max_waiting, 0),
        ] {
            if !(least..=MAX_CONCURRENT).contains(&value) {
                let reason = format!("must be from {least} to {MAX_CONCURRENT}");
                problems.at(key, reason);
            }
        }
        self.log.validate(problems);
    }
}

impl PrometheusApiConfig {
    /// The path in front of the API, without a slash at its end.
    fn root(&self) -> &str {
        self.path.trim_end_matches('/')
    }

    /// How many queries may be under way or wait.
    fn most(&self) -> usize {
        self.max_concurrent + self.max_waiting
    }

    /// All paths below it.
    fn prefix(&self) -> String {
        format!("{}/{{*endpoint}}", self.root())
    }

    fn listen(&self) -> Listen {
        // With those that no endpoint has, so that they are answered in the form of the API.
        let methods = [Methods::POST, Methods::PUT, Methods::PATCH, Methods::DELETE];
        let methods = methods.into_iter().fold(Methods::GET, Methods::and);
        self.server.listen(&self.prefix(), methods)
    }
}

impl BuildSource<Queries> for PrometheusApiConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Source<Queries>>, BuildError> {
        Ok(Box::new(PrometheusApi {
            route: cx.listeners.route(&self.listen(), &cx.id)?,
            access: self.server.access(&cx.access, |_| Permission::Read)?,
            id: cx.id.clone(),
            config: self.clone(),
        }))
    }
}

struct PrometheusApi {
    route: Route,
    access: Arc<dyn Access>,
    id: Arc<str>,
    config: PrometheusApiConfig,
}

impl Source<Queries> for PrometheusApi {
    fn run(
        self: Box<Self>,
        out: Output,
        mut shutdown: Shutdown,
    ) -> BoxFuture<Result<(), RunError>> {
        let per_tenant = self.config.max_concurrent_per_tenant;
        let api = Arc::new(Api {
            slots: Arc::new(Semaphore::new(self.config.most())),
            turns: Turns::new(TurnLimits {
                total: self.config.max_concurrent,
                per_tenant: per_tenant.unwrap_or(self.config.max_concurrent),
                waiting: self.config.max_waiting,
            }),
            log: QueryLog::new(&self.config.log),
            id: self.id,
            config: self.config,
            out,
        });
        // Attached before the first poll, so that a listener that starts next turns nobody away.
        let serving = self.route.serve(self.access, api);
        let route = self.route;
        Box::pin(async move {
            shutdown.wait().await;
            drop((serving, route));
            Ok(())
        })
    }
}

/// The API as it is served.
struct Api {
    id: Arc<str>,
    config: PrometheusApiConfig,
    /// One for each query that may be under way, or wait.
    slots: Arc<Semaphore>,
    turns: Turns,
    log: QueryLog,
    out: Output,
}

impl Handler for Api {
    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            let answer = self.answer(request).await;
            let answer = answer.unwrap_or_else(|rejection| rejection::json(&rejection));
            let status = answer.status();
            self.out.metrics().answered(status);
            answer
        })
    }

    fn refused(&self, status: http::StatusCode) {
        self.out.metrics().answered(status);
    }
}

impl Api {
    async fn answer(&self, mut request: Request) -> Result<Answer, Rejection> {
        let started = Instant::now();
        // The route has matched what is in front, segment by segment.
        let path = behind(self.config.root(), request.uri.path()).to_owned();
        let path = path.as_str();
        match endpoints::verdict(&request.method, path) {
            Verdict::Ask => {}
            Verdict::Method(allowed) => return Ok(failure::method_not_allowed(allowed)),
            Verdict::Refused(reason) => {
                return Err(Rejection::new(RejectionKind::Forbidden, reason));
            }
            Verdict::Unknown => {
                let reason = format!("{path} is not of Prometheus' read API");
                return Err(Rejection::new(RejectionKind::NotFound, reason));
            }
        }
        let Ok(slot) = self.slots.clone().try_acquire_owned() else {
            let reason = format!("{} queries are under way already", self.config.most());
            return Err(Rejection::unavailable(reason));
        };
        let max_body = self.config.max_body_bytes.bytes();
        if request.content_length() > Some(max_body as u64) {
            return Err(self.too_large());
        }
        let form = timeout::read_form(&mut request, started + self.config.timeout.0).await?;
        let asked = timeout::asked(request.uri.query(), form.as_deref());
        let limit = asked.map_or(self.config.timeout.0, |it| it.min(self.config.timeout.0));
        let deadline = started + limit;
        let asked_for = Arc::new(OnceLock::new());
        let entry = self
            .log
            .entry(started, path, &request, form.as_deref(), &asked_for);
        let uri = match request.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        let uri = uri
            .parse()
            .map_err(|error| Rejection::invalid(format!("target is not valid: {error}")))?;
        let headers = forwarded(request.headers);
        let origin = Origin {
            source: self.id.clone(),
            peer: Some(request.peer.ip()),
            params: params(request.params),
            headers: headers.clone(),
            caller: request.caller,
            ..Origin::internal(self.id.clone())
        };
        let exceeded = Arc::new(AtomicBool::new(false));
        let body = Limited::new(request.body, max_body);
        let query = Query {
            method: request.method,
            uri,
            headers,
            cookies: request.cookies,
            body: Body::stream(Marked {
                body,
                exceeded: exceeded.clone(),
            }),
            origin: Arc::new(origin),
            tenant: None,
            turns: Some(self.turns.clone()),
            asked_for: Some(asked_for),
            deadline,
        };
        let answer = self.out.ask(query).await;
        // Whoever sends the body on only sees that it broke off.
        let answer = answer.map_err(|rejection| match exceeded.load(Ordering::Relaxed) {
            true => self.too_large(),
            false => rejection,
        })?;
        let entry = entry.map(|entry| entry.answered(&answer));
        Ok(answer.map(|body| {
            Body::stream(Held {
                body,
                entry,
                _slot: slot,
            })
        }))
    }

    fn too_large(&self) -> Rejection {
        let limit = self.config.max_body_bytes;
        let reason = format!("the request's body is larger than {limit}");
        Rejection::new(RejectionKind::TooLarge, reason)
    }
}

/// What of a path is behind as many segments as the root has.
fn behind<'a>(root: &str, path: &'a str) -> &'a str {
    let segments = root.matches('/').count();
    let slashes = path.match_indices('/');
    slashes
        .map(|(at, _)| at)
        .nth(segments)
        .map_or("", |at| &path[at..])
}

/// What the parameters of the root matched.
fn params(mut params: Vec<(Box<str>, Box<str>)>) -> Vec<(Box<str>, Box<str>)> {
    params.retain(|(name, _)| format!("{{{name}}}") != REST);
    params
}

/// The headers of a request that go on: not what speaks of this connection. What the caller proved
/// itself with has not come here.
fn forwarded(mut headers: HeaderMap) -> HeaderMap {
    hop_by_hop::remove(&mut headers);
    headers
}

/// The body of a request that remembers whether it was larger than its limit.
struct Marked {
    body: Limited<Body>,
    exceeded: Arc<AtomicBool>,
}

impl http_body::Body for Marked {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Err(error))) = &frame
            && error.is::<LengthLimitError>()
        {
            self.exceeded.store(true, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that keeps its query's slot until it has been sent or dropped, and then has it logged.
struct Held {
    body: Body,
    entry: Option<Entry>,
    _slot: OwnedSemaphorePermit,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let (Poll::Ready(Some(frame)), Some(entry)) = (&polled, &mut self.entry) {
            match frame {
                Ok(frame) => entry.add(frame.data_ref().map_or(0, Bytes::len)),
                Err(_) => entry.broke(),
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
