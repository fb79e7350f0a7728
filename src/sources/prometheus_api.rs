//! Serves Prometheus' HTTP read API, answered by a sink.
//!
//! Delivery: each request is answered once, by one sink; nothing is queued or retried here. Bodies
//! stream both ways: a slow caller slows the far end down, and the query of a caller that goes away
//! is cancelled there. Requests that change data or the server are refused unless they are allowed,
//! and so are paths outside of Prometheus' API.
//!
//! Limits: concurrent queries, the time of each, the bytes of a request's body.
//!
//! Source: <https://prometheus.io/docs/prometheus/latest/querying/api/>.

mod cors;
mod endpoints;
mod failure;
mod headers;
mod log;
mod timeout;

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Uri;
use http::header::{HeaderName, ORIGIN};
use http_body::{Frame, SizeHint};
use http_body_util::{LengthLimitError, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use metrifold_access::LOGIN_PATH;
use metrifold_base::keys::Keys;
use metrifold_base::{BoxFuture, BuildError, Period, Problems, RunError, Shutdown, Size, keys};
use metrifold_engine::component::{
    BuildContext, BuildSource, ComponentInfo, Resource, SourceConfig, SourcePort,
};
use metrifold_engine::planes::Source;
use metrifold_engine::planes::queries::{Answer, Output, Queries, Query, TurnLimits, Turns};
use metrifold_http::{
    Access, Body, BodyError, BoxError, Everybody, Handler, Listen, Methods, Permission, Request,
    Response, Route, ServerKeys, rejection,
};
use metrifold_model::{Kind, Origin, Rejection, RejectionKind};

use cors::{Cors, Preflight};
use endpoints::{Group, Verdict};
use log::{Entry, QueryLog, QueryLogKeys};

keys! {
    /// Configuration of the `prometheus_api` source.
    #[derive(Clone, Debug)]
    pub struct PrometheusApiConfig {
        server: ServerKeys = include,
        /// Path prefix of `/api/v1/…` and `/federate`. `{name}` matches one path segment, which the `tenant` transform can use.
        path: String = default("/"),
        /// Groups of endpoints that are served in addition to queries: `status` (state and settings of the server), `ui` (the pages of its user interface), `admin` (the TSDB admin API), `lifecycle` (`/-/reload`, `/-/quit`), `debug` (profiles). Others are rejected with status 403.
        allow: Vec<Group> = default(["status"]),
        /// Whether users can log in with a browser, at `/oidc/NAME/login` of the address, to tenants with `oidc.login`. A browser that opens a page without credentials is redirected there. Requires `access = "tenants"`. Only one source of an address can have it.
        login: bool = default(false),
        /// Maximum time for a query, until its answer is complete. After it, the query is cancelled at the server, and answered 504 or, if the answer has begun, cut off. A caller can shorten it with the parameter `timeout`.
        timeout: Period = default("2m"),
        /// Maximum number of concurrent queries. A query is in flight until its answer has been read.
        max_concurrent: usize = default(256),
        /// Maximum number of concurrent queries per tenant; by default, `max_concurrent`.
        max_concurrent_per_tenant: Option<usize> = unset(16),
        /// Maximum number of queries that wait when the limits on concurrent queries are reached. Tenants take turns. Further queries are answered 503 with `Retry-After`.
        max_waiting: usize = default(0),
        /// Maximum size of a request body, such as a form. A larger one is answered 413.
        max_body_bytes: Size = default("16MiB"),
        /// Headers of queries that are forwarded to the server in addition to those that have a [meaning there](#what-travels-on).
        forward_headers: Vec<String> = unset(["X-Custom"]),
        /// Regular expression for the whole `Origin` of web pages whose scripts can query from a browser (CORS), like Prometheus' `--web.cors.origin`. Unset, the server's own CORS headers are forwarded, and preflight requests are rejected.
        cors_origin: Option<String> = unset("https://grafana\\.example"),
        /// Query log.
        log: QueryLogKeys = table,
    }
}

/// Path parameter of the route that matches the path below the root.
const REST: &str = "{endpoint}";

/// Largest value of `max_concurrent`.
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

    fn callers_are_tenants(&self) -> bool {
        self.server.by_tenants()
    }

    fn resources(&self) -> Vec<Resource> {
        let own = Resource::Route(self.listen());
        let front = self.front().map(Resource::Route);
        let login = self.login.then(|| Resource::Route(self.login()));
        let preflight = self.preflight().map(Resource::Route);
        let others = front.into_iter().chain(login).chain(preflight);
        [own].into_iter().chain(others).collect()
    }

    fn files(&self) -> Vec<&Path> {
        self.server.files()
    }

    fn validate(&self, problems: &mut Problems) {
        let segments = self.root().split('/');
        if segments.clone().any(|segment| segment.starts_with("{*")) {
            problems
                .at(
                    "path",
                    "must not contain a {*parameter}: the paths of the API follow it",
                )
                .help("name one segment, such as \"/{tenant}\"");
        } else if segments.clone().any(|segment| segment == REST) {
            problems
                .at("path", "has a parameter with a reserved name")
                .help("give the parameter another name");
        } else {
            self.server.validate(&self.prefix(), problems);
        }
        if self.login && !self.server.by_tenants() {
            let what = "tenants say where people log in";
            problems.at("login", what).help("set access = \"tenants\"");
        }
        let changes = [Group::Admin, Group::Lifecycle, Group::Debug];
        if self.server.by_tenants()
            && let Some(at) = self.allow.iter().position(|it| changes.contains(it))
        {
            let what = "opens the server behind this source to the callers of all tenants";
            let problem = problems.at(format!("allow[{at}]"), what);
            problem.help("serve it at a source of its own, without access = \"tenants\"");
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
        headers::names(&self.forward_headers, problems);
        if let Some(Err(reason)) = self.cors_origin.as_deref().map(Cors::new) {
            problems.at("cors_origin", reason);
        }
        self.log.validate(problems);
    }
}

impl PrometheusApiConfig {
    /// The path in front of the API, without a slash at its end.
    fn root(&self) -> &str {
        self.path.trim_end_matches('/')
    }

    /// The most queries in flight and waiting.
    fn most(&self) -> usize {
        self.max_concurrent + self.max_waiting
    }

    /// Pattern of all paths below the root.
    fn prefix(&self) -> String {
        format!("{}/{{*endpoint}}", self.root())
    }

    /// The root itself, which the user interface redirects from.
    fn front(&self) -> Option<Listen> {
        let path = format!("{}/", self.root());
        let allowed = self.allow.contains(&Group::Ui);
        allowed.then(|| self.server.listen(&path, Methods::GET))
    }

    /// Where people log in and out.
    fn login(&self) -> Listen {
        self.server.listen(LOGIN_PATH, Methods::GET)
    }

    /// Where browsers ask whether a page may query, if pages may.
    fn preflight(&self) -> Option<Listen> {
        let allowed = self.cors_origin.is_some();
        allowed.then(|| self.server.listen(&self.prefix(), Methods::OPTIONS))
    }

    fn listen(&self) -> Listen {
        // Including methods that no endpoint accepts, so that these get an error in the form of the
        // API.
        let methods = [Methods::POST, Methods::PUT, Methods::PATCH, Methods::DELETE];
        let methods = methods.into_iter().fold(Methods::GET, Methods::and);
        self.server.listen(&self.prefix(), methods)
    }
}

impl BuildSource<Queries> for PrometheusApiConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Source<Queries>>, BuildError> {
        let login = match self.login {
            true => Some((
                cx.listeners.route(&self.login(), &cx.id)?,
                cx.access.login_pages(),
            )),
            false => None,
        };
        let front = self.front();
        let front = front
            .map(|it| cx.listeners.route(&it, &cx.id))
            .transpose()?;
        let cors = self.cors_origin.as_deref().map(Cors::new).transpose();
        let cors = cors.map_err(|reason| BuildError::new("cors_origin", reason))?;
        let preflight = self.preflight();
        let preflight = preflight
            .map(|it| cx.listeners.route(&it, &cx.id))
            .transpose()?;
        let access = match self.login {
            true => cx.access.access_or_login(|_| Permission::Read),
            false => self.server.access(&cx.access, |_| Permission::Read)?,
        };
        Ok(Box::new(PrometheusApi {
            route: cx.listeners.route(&self.listen(), &cx.id)?,
            front,
            login,
            cors: cors.map(Arc::new),
            preflight,
            access,
            id: cx.id.clone(),
            forwarded: headers::names(&self.forward_headers, &mut Problems::new(true)),
            config: self.clone(),
        }))
    }
}

struct PrometheusApi {
    route: Route,
    /// The root, with a user interface.
    front: Option<Route>,
    /// Where people log in and out, if they can.
    login: Option<(Route, Arc<dyn Handler>)>,
    cors: Option<Arc<Cors>>,
    /// Where browsers ask whether a page may query.
    preflight: Option<Route>,
    access: Arc<dyn Access>,
    id: Arc<str>,
    /// Headers that are forwarded in addition.
    forwarded: Arc<[HeaderName]>,
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
            forwarded: self.forwarded,
            cors: self.cors.clone(),
            config: self.config,
            out,
        });
        // Attached before the first poll, so that no request is refused once the listener accepts.
        let front = self.front.map(|route| {
            let serving = route.serve(self.access.clone(), api.clone());
            (serving, route)
        });
        let serving = self.route.serve(self.access, api);
        let login = self.login.map(|(route, pages)| {
            let serving = route.serve(Arc::new(Everybody), pages);
            (serving, route)
        });
        let preflight = self.preflight.zip(self.cors).map(|(route, cors)| {
            // The browser asks without credentials.
            let serving = route.serve(Arc::new(Everybody), Arc::new(Preflight(cors)));
            (serving, route)
        });
        let route = self.route;
        Box::pin(async move {
            shutdown.wait().await;
            drop((serving, route, front, login, preflight));
            Ok(())
        })
    }
}

/// Handler of the API.
struct Api {
    id: Arc<str>,
    forwarded: Arc<[HeaderName]>,
    cors: Option<Arc<Cors>>,
    config: PrometheusApiConfig,
    /// One permit for each query that may be in flight or waiting.
    slots: Arc<Semaphore>,
    turns: Turns,
    log: QueryLog,
    out: Output,
}

impl Handler for Api {
    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            let origin = request.headers.get(ORIGIN).cloned();
            let answer = self.answer(request).await;
            let mut answer = answer.unwrap_or_else(|rejection| rejection::json(&rejection));
            if let Some(cors) = &self.cors {
                cors.mark(origin.as_ref(), answer.headers_mut());
            }
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
        // The route has matched the root, segment by segment.
        let path = behind(self.config.root(), request.uri.path()).to_owned();
        let path = path.as_str();
        match endpoints::verdict(&request.method, path, &self.config.allow) {
            Verdict::Ask => {}
            Verdict::Method(allowed) => return Ok(failure::method_not_allowed(allowed)),
            Verdict::Refused(reason) => {
                return Err(Rejection::new(RejectionKind::Forbidden, reason));
            }
            Verdict::Unknown => {
                let reason = format!("{path} is not part of Prometheus' read API");
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
        let uri = below(self.config.root(), path, &request.uri)?;
        let headers = headers::forwarded(&request.headers, &self.forwarded);
        let origin = Origin {
            source: self.id.clone(),
            peer: Some(request.peer.ip()),
            params: params(request.params),
            headers: request.headers,
            caller: request.caller,
            ..Origin::internal(self.id.clone())
        };
        let refused = Arc::new(OnceLock::new());
        // A body in memory has been read within its limit, or is empty.
        let body = match request.body.whole() {
            Some(_) => request.body,
            None => Body::stream(Marked {
                body: Limited::new(request.body, max_body),
                max: max_body,
                refused: refused.clone(),
            }),
        };
        let query = Query {
            method: request.method,
            uri,
            headers,
            cookies: request.cookies,
            body,
            origin: Arc::new(origin),
            tenant: None,
            turns: Some(self.turns.clone()),
            asked_for: Some(asked_for),
            deadline,
        };
        let answer = self.out.ask(query).await;
        // A sink that forwards the body sees only that it broke off.
        let answer = answer.map_err(|rejection| match refused.get() {
            None => rejection,
            Some(BodyError::Refused(limit)) => limit.clone(),
            Some(_) => self.too_large(),
        });
        let answer = match answer {
            Ok(answer) => answer,
            Err(rejection) => {
                if let Some(entry) = entry {
                    entry.refused(rejection::status(rejection.kind));
                }
                return Err(rejection);
            }
        };
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

/// The part of a path behind the root's segments.
fn behind<'a>(root: &str, path: &'a str) -> &'a str {
    let segments = root.matches('/').count();
    let slashes = path.match_indices('/');
    slashes
        .map(|(at, _)| at)
        .nth(segments)
        .map_or("", |at| &path[at..])
}

/// The target of a request without the root.
fn below(root: &str, path: &str, uri: &Uri) -> Result<Uri, Rejection> {
    if root.is_empty()
        && let Some(whole) = uri.path_and_query()
    {
        return Ok(whole.clone().into());
    }
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let parsed = target.parse();
    parsed.map_err(|error| Rejection::invalid(format!("target is not valid: {error}")))
}

/// Values of the parameters in the root.
fn params(mut params: Vec<(Box<str>, Box<str>)>) -> Vec<(Box<str>, Box<str>)> {
    params.retain(|(name, _)| format!("{{{name}}}") != REST);
    params
}

/// The body of a request, which records the limit that it exceeds: `max_body_bytes`, or one of the
/// caller's.
struct Marked {
    body: Limited<Body>,
    refused: Arc<OnceLock<BodyError>>,
    max: usize,
}

impl http_body::Body for Marked {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Err(error))) = &frame {
            let limit = match error.is::<LengthLimitError>() {
                true => Some(BodyError::TooLarge { limit: self.max }),
                false => error.downcast_ref().cloned(),
            };
            if let Some(limit) = limit {
                // The first limit stays.
                let _ = self.refused.set(limit);
            }
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

/// A body that holds its query's permit until it has been sent or dropped; the query is logged
/// then.
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
