//! The admin address: status page, metrics, health, readiness, reload, dead letters, events, and
//! the topology and the ledgers as JSON. Tenants see their own usage where they come as well.

mod access;
mod aiven;
pub mod dead_letters;
mod discovery;
mod events;
pub mod ledger;
mod replicas;
mod routes;
mod targets;
mod topology;
mod usage;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use tracing::info;

use metrifold_access::Gate;
use metrifold_base::BuildError;
use metrifold_engine::config::Config;
use metrifold_engine::dead_letters::Stores;
use metrifold_engine::reload::{Board, Cause, Follower, Outcome, Requests, Unanswered};
use metrifold_http::{Listeners, Response, Route, Serving, answer};
use metrifold_model::Kind;
use metrifold_targets::Directory;
use metrifold_telemetry::{ComponentMetrics, State, Telemetry};

use self::access::{Door, Rules};
use self::events::Feed;
use self::routes::{Endpoints, TABLE};

/// The admin address, and the usage of tenants where these come. A reload can move, open or close them.
pub struct Admin {
    listeners: Listeners,
    status: Arc<Status>,
    served: Option<Served<Arc<Rules>>>,
    usage: Option<Served<usage::Places>>,
}

/// Routes that are served now.
struct Served<T> {
    /// The settings that the routes were built from.
    by: T,
    _routes: Vec<(Serving, Route)>,
}

/// A prepared change of the admin address. Dropping it leaves everything as it is.
#[must_use = "nothing changes until it is served"]
pub struct Prepared {
    admin: Step<Arc<Rules>>,
    usage: Step<usage::Places>,
}

enum Step<T> {
    Keep,
    Bind(T, Vec<Route>),
    Close,
}

impl<T: PartialEq> Step<T> {
    /// The step from what is served to what these routes are built from.
    fn to(
        served: Option<&Served<T>>,
        by: Option<T>,
        routes: impl FnOnce(&T) -> Result<Vec<Route>, BuildError>,
    ) -> Result<Self, BuildError> {
        Ok(match by {
            None if served.is_some() => Self::Close,
            None => Self::Keep,
            Some(by) if served.is_some_and(|it| it.by == by) => Self::Keep,
            Some(by) => {
                let routes = routes(&by)?;
                Self::Bind(by, routes)
            }
        })
    }

    /// Serves the routes; the previous ones finish their requests and close. Cannot fail.
    fn take(self, served: &mut Option<Served<T>>, serve: impl Fn(&T, usize, &Route) -> Serving) {
        match self {
            Self::Keep => {}
            Self::Close => *served = None,
            Self::Bind(by, routes) => {
                let routes = routes.into_iter().enumerate();
                let routes = routes.map(|(at, route)| (serve(&by, at, &route), route));
                let routes = routes.collect();
                *served = Some(Served {
                    by,
                    _routes: routes,
                });
            }
        }
    }
}

/// State that the endpoints of the admin address read.
struct Status {
    board: Arc<Board>,
    requests: Requests,
    telemetry: Telemetry,
    dead_letters: Stores,
    directory: Directory,
    gate: Gate,
    feed: Feed,
    /// Set when the process begins to shut down.
    ending: AtomicBool,
}

/// Path of the request for a reload.
pub const RELOAD: &str = "/-/reload";

/// Seconds after which a refused caller should try again.
const RETRY_AFTER: u64 = 1;

impl Admin {
    /// An admin address that does not listen yet.
    pub fn new(
        listeners: Listeners,
        board: Arc<Board>,
        requests: Requests,
        telemetry: Telemetry,
        dead_letters: Stores,
        directory: Directory,
        gate: Gate,
    ) -> Self {
        Self {
            listeners,
            status: Arc::new(Status {
                feed: Feed::new(&telemetry),
                board,
                requests,
                telemetry,
                dead_letters,
                ending: AtomicBool::new(false),
                directory,
                gate,
            }),
            served: None,
            usage: None,
        }
    }

    /// Answers readiness probes with "not ready" from now on, since the process shuts down.
    pub fn end(&self) {
        self.status.ending.store(true, Ordering::Relaxed);
    }

    fn admin(&self, config: &Config) -> Result<Step<Arc<Rules>>, BuildError> {
        // The file of a secret may have changed.
        let rules = Rules::build(config, &self.status.gate)?.map(Arc::new);
        Step::to(self.served.as_ref(), rules, |rules| {
            let routes = TABLE.iter().map(|endpoint| {
                let listen = rules.listen(endpoint.path, endpoint.methods);
                self.listeners.route(&listen, "api")
            });
            routes.collect()
        })
    }

    fn usage(&self, config: &Config) -> Result<Step<usage::Places>, BuildError> {
        Step::to(self.usage.as_ref(), usage::places(config), |places| {
            let listens = places.listens.iter();
            let routes = listens.map(|listen| self.listeners.route(listen, "usage"));
            routes.collect()
        })
    }
}

impl Follower for Admin {
    type Prepared = Prepared;

    fn prepare(&self, config: &Config) -> Result<Prepared, BuildError> {
        Ok(Prepared {
            admin: self.admin(config)?,
            usage: self.usage(config)?,
        })
    }

    fn commit(&mut self, prepared: Prepared) {
        if let Step::Bind(rules, routes) = &prepared.admin
            && let Some(address) = routes.first().map(Route::local_addr)
        {
            let scheme = rules.scheme();
            info!(url = %format_args!("{scheme}://{address}/"), "status page and metrics are served");
        }
        // One route per endpoint, in the order of the table.
        prepared.admin.take(&mut self.served, |rules, at, route| {
            let endpoint = &TABLE[at];
            let door = Door {
                guard: endpoint.guard,
                rules: Arc::clone(rules),
            };
            let handler = Endpoints {
                endpoint,
                status: Arc::clone(&self.status),
            };
            route.serve(Arc::new(door), Arc::new(handler))
        });
        prepared.usage.take(&mut self.usage, |places, _, route| {
            let (door, handler) = usage::serve(&self.status, &places.parameter);
            route.serve(door, handler)
        });
        self.listeners.start();
    }
}

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_string_pretty(value) {
        Ok(text) => typed("application/json", text),
        Err(error) => answer::text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn typed(content_type: &'static str, body: String) -> Response {
    let mut response = Response::new(body.into());
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Status page: polls the topology every few seconds and shows it as a table.
const PAGE: &str = include_str!("api/status.html");

impl Status {
    /// Ready while every component runs and the process does not shut down.
    fn ready(&self) -> Response {
        if self.ending.load(Ordering::Relaxed) {
            return answer::text(StatusCode::SERVICE_UNAVAILABLE, "shutting down");
        }
        let config = self.board.config();
        let waiting: Vec<String> = self
            .components(&config)
            .filter(|(.., metrics)| metrics.state() != State::Running)
            .map(|(id, kind, ..)| format!("{} {id}", kind.as_str()))
            .collect();
        let providers = self.directory.providers();
        let waiting: Vec<String> = waiting
            .into_iter()
            .chain(discovery::waiting(&providers))
            .collect();
        if waiting.is_empty() {
            answer::text(StatusCode::OK, "ready")
        } else {
            let text = format!("not running: {}", waiting.join(", "));
            answer::text(StatusCode::SERVICE_UNAVAILABLE, &text)
        }
    }

    /// Reloads the configuration, and answers with the outcome.
    async fn reload(&self) -> Response {
        let report = match self.requests.ask().await {
            Ok(report) => report,
            Err(reason) => {
                let text = match reason {
                    Unanswered::TooMany => "too many requests wait for a reload already",
                    Unanswered::Ending => "shutting down",
                };
                let status = StatusCode::SERVICE_UNAVAILABLE;
                return answer::retry_after(status, RETRY_AFTER, text);
            }
        };
        let status = match &report.outcome {
            Outcome::Applied { .. } | Outcome::Unchanged { .. } => StatusCode::OK,
            Outcome::Refused(refusal) => match refusal.cause {
                Cause::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
                Cause::NotBuilt => StatusCode::CONFLICT,
            },
        };
        answer::text(status, &report.outcome.to_string())
    }

    fn components<'a>(
        &'a self,
        config: &'a Config,
    ) -> impl Iterator<Item = (&'a Arc<str>, Kind, &'a str, ComponentMetrics)> {
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
}
