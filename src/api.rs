//! The admin address: status page, metrics, health, readiness, and the topology as JSON.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use serde::Serialize;

use crate::component::{BoxFuture, BuildError, Kind};
use crate::config::{ApiConfig, Config, OutputRef};
use crate::http::{Handler, Listen, Listeners, Request, Response, Route, Serving, answer};
use crate::telemetry::{ComponentMetrics, FlowReading, State, Telemetry};

/// The admin address, while it is served.
pub struct Api {
    _routes: Vec<(Serving, Route)>,
}

/// An admin address that is bound and not served yet.
pub struct BoundApi {
    routes: Vec<Route>,
}

/// What the admin address tells about.
struct Status {
    config: Arc<Config>,
    telemetry: Telemetry,
}

const PATHS: [&str; 5] = [
    "/",
    "/metrics",
    "/-/healthy",
    "/-/ready",
    "/api/v1/topology",
];

impl BoundApi {
    /// Binds the address.
    ///
    /// # Errors
    ///
    /// Fails when the address cannot be bound.
    pub fn bind(config: &ApiConfig, listeners: &Listeners) -> Result<Self, BuildError> {
        let routes = PATHS
            .iter()
            .map(|path| listeners.route(&Listen::new(config.address, *path), "api"))
            .collect::<Result<_, _>>()?;
        Ok(Self { routes })
    }

    /// The address that was bound.
    pub fn local_addr(&self) -> Option<std::net::SocketAddr> {
        self.routes.first().map(Route::local_addr)
    }

    /// Serves it.
    pub fn serve(self, config: Arc<Config>, telemetry: Telemetry) -> Api {
        let status = Arc::new(Status { config, telemetry });
        let serve = |route: Route| (route.serve(status.clone()), route);
        Api {
            _routes: self.routes.into_iter().map(serve).collect(),
        }
    }
}

impl Handler for Status {
    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            if ![Method::GET, Method::HEAD].contains(&request.method) {
                return answer::text(StatusCode::METHOD_NOT_ALLOWED, "send GET");
            }
            match request.uri.path() {
                "/" => typed("text/html; charset=utf-8", PAGE.into()),
                "/metrics" => typed(
                    "text/plain; version=0.0.4; charset=utf-8",
                    self.telemetry.render(),
                ),
                "/-/healthy" => answer::text(StatusCode::OK, "healthy"),
                "/-/ready" => self.ready(),
                _ => match serde_json::to_string_pretty(&self.topology()) {
                    Ok(json) => typed("application/json", json),
                    Err(error) => {
                        answer::text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
                    }
                },
            }
        })
    }
}

fn typed(content_type: &'static str, body: String) -> Response {
    let mut response = Response::new(body.into());
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Reads the topology every few seconds and shows it as a table.
const PAGE: &str = include_str!("api/status.html");

#[derive(Serialize)]
struct Topology {
    config_hash: String,
    components: Vec<Component>,
    edges: Vec<Edge>,
}

#[derive(Serialize)]
struct Component {
    id: Arc<str>,
    kind: &'static str,
    r#type: String,
    state: State,
    received: FlowReading,
    sent: FlowReading,
    #[serde(skip_serializing_if = "Option::is_none")]
    required: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<QueueFill>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<LastError>,
}

#[derive(Serialize)]
struct QueueFill {
    bytes: usize,
    max_bytes: usize,
    batches: usize,
}

#[derive(Serialize)]
struct LastError {
    /// Seconds since the epoch.
    time: u64,
    text: String,
}

#[derive(Serialize)]
struct Edge {
    from: String,
    to: Arc<str>,
}

impl Status {
    /// Ready as long as every component runs.
    fn ready(&self) -> Response {
        let waiting: Vec<String> = self
            .components()
            .filter(|(.., metrics)| metrics.state() != State::Running)
            .map(|(id, kind, ..)| format!("{} {id}", kind.as_str()))
            .collect();
        if waiting.is_empty() {
            answer::text(StatusCode::OK, "ready")
        } else {
            let text = format!("not running: {}", waiting.join(", "));
            answer::text(StatusCode::SERVICE_UNAVAILABLE, &text)
        }
    }

    fn components(&self) -> impl Iterator<Item = (&Arc<str>, Kind, &str, ComponentMetrics)> {
        let config = &self.config;
        let sources = config
            .sources
            .iter()
            .map(|(id, node)| (id, Kind::Source, &*node.type_name));
        let transforms = config
            .transforms
            .iter()
            .map(|(id, node)| (id, Kind::Transform, &*node.type_name));
        let sinks = config
            .sinks
            .iter()
            .map(|(id, node)| (id, Kind::Sink, &*node.type_name));
        sources
            .chain(transforms)
            .chain(sinks)
            .map(|(id, kind, name)| (id, kind, name, self.telemetry.component(id, kind, name)))
    }

    fn topology(&self) -> Topology {
        let components = self
            .components()
            .map(|(id, kind, type_name, metrics)| Component {
                id: id.clone(),
                kind: kind.as_str(),
                r#type: type_name.into(),
                state: metrics.state(),
                received: metrics.received().reading(),
                sent: metrics.sent().reading(),
                required: self.config.sinks.get(id).map(|node| node.config.required()),
                queue: metrics
                    .queue()
                    .map(|(bytes, max_bytes, batches)| QueueFill {
                        bytes,
                        max_bytes,
                        batches,
                    }),
                last_error: metrics.last_error().map(|(time, text)| LastError {
                    time: time.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs()),
                    text,
                }),
            });
        let edges = |to: &Arc<str>, inputs: &[OutputRef]| -> Vec<Edge> {
            let edge = |input: &OutputRef| Edge {
                from: input.to_string(),
                to: to.clone(),
            };
            inputs.iter().map(edge).collect()
        };
        let transforms = self.config.transforms.iter();
        let sinks = self.config.sinks.iter();
        Topology {
            config_hash: format!("{:016x}", self.config.hash),
            components: components.collect(),
            edges: transforms
                .flat_map(|(id, node)| edges(id, &node.inputs))
                .chain(sinks.flat_map(|(id, node)| edges(id, &node.inputs)))
                .collect(),
        }
    }
}
