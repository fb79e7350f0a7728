//! Answers queries from one of several replicas: Prometheus servers with the same targets, or other
//! servers of their HTTP API.
//!
//! Delivery: each query is answered by one replica. If it fails before its answer has begun, the
//! query is retried on another replica, within a budget; a query to a slow replica may be hedged.
//! Nothing is queued. When the caller goes, the query is dropped and its connections are closed.
//!
//! Limits: the body of a query that can be retried, the beginning of an answer that is held back,
//! the pages that probes read, the retries in percent of the queries.

mod mpp;
mod targets;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use metrifold_base::keys::Keys;
use metrifold_base::{
    BoxFuture, BuildError, OneOrMany, Problems, RunError, Secret, Shutdown, keys, words,
};
use metrifold_discovery::Targets;
use metrifold_engine::component::{
    BuildContext, BuildSink, ComponentInfo, Resource, SinkConfig, SinkPort,
};
use metrifold_engine::planes::Sink;
use metrifold_engine::planes::queries::{Answer, Answerer, Input, Queries, Query};
use metrifold_http::{Access, ClientKeys, Route};
use metrifold_model::{Kind, Rejection};
use metrifold_replicas::{
    Ask, Replica, ReplicaKeys, Router, RoutingKeys, Upstream, upstream_headers,
};
use metrifold_telemetry::{ComponentMetrics, Details};

use super::tenant_header;
use mpp::{MppKeys, Pages};

words! {
    /// Scheme of connections to replicas.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Scheme {
        /// Plain text.
        Http = "http",
        /// TLS.
        Https = "https",
    }
}

keys! {
    /// Configuration of the `replica_router` sink.
    #[derive(Clone, Debug)]
    pub struct ReplicaRouterConfig {
        /// List of replicas, in order. Required unless `discovery` is set; with both, these come first.
        replicas: Vec<ReplicaKeys> = suggested([{ endpoint = "http://prometheus-0:9090" }, { endpoint = "http://prometheus-1:9090" }]),
        /// Name of a provider of replicas under `[discovery.NAME]`, or a list of names. The address of a target is `host:port`, or a URL with a path.
        discovery: Option<OneOrMany<String>> = unset("prometheis"),
        /// Protocol for discovered replicas, unless their label `__scheme__` overrides it or their address is a URL.
        scheme: Scheme = default("http"),
        /// Label by whose value discovered replicas are ordered, numerically if the values are numbers; by default, they are ordered by address.
        order_label: Option<String> = unset("instance_index"),
        routing: RoutingKeys = include,
        client: ClientKeys = include,
        /// Headers to set on each request.
        headers: BTreeMap<String, Secret> = unset({ X-Scope-OrgID = "team-a" }),
        /// Name of the header that carries the tenant of a query, as determined by the transform `tenant`; several tenants are divided by `|`. Any value from the caller is removed.
        tenant_header: Option<String> = unset("X-Scope-OrgID"),
        /// Maximum number of idle connections per replica that are kept open for further queries.
        idle_connections: usize = default(64),
        /// HTTP endpoint for `/mpp/health`, `/mpp/metrics` and `/mpp/status`. Disabled unless set.
        mpp: Option<MppKeys> = optional,
    }
}

inventory::submit! {
    ComponentInfo {
        kind: Kind::Sink,
        name: "replica_router",
        summary: "Forwards each query to one of several Prometheus-compatible replicas.",
        keys: ReplicaRouterConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "replica_router")]
impl SinkConfig for ReplicaRouterConfig {
    fn port(&self) -> SinkPort<'_> {
        SinkPort::Queries(self)
    }

    fn resources(&self) -> Vec<Resource> {
        let listens = self.mpp.iter().flat_map(MppKeys::listens);
        listens.map(Resource::Route).collect()
    }

    fn files(&self) -> Vec<&Path> {
        let clients = self.replicas.iter().filter_map(|it| it.client.as_ref());
        let clients = clients.chain([&self.client]);
        let mpp = self.mpp.iter().flat_map(MppKeys::files);
        let routing = self.routing.files();
        clients
            .flat_map(ClientKeys::files)
            .chain(mpp)
            .chain(routing)
            .collect()
    }

    fn validate(&self, problems: &mut Problems) {
        if self.replicas.is_empty() && self.discovery.is_none() {
            let problem = problems.at("", "it has no replicas");
            problem.help("list them under `replicas`, or name a provider with `discovery`");
        }
        if self
            .discovery
            .as_ref()
            .is_some_and(|names| names.0.is_empty())
        {
            problems.at("discovery", "must name a provider");
        }
        let mut known: Vec<String> = Vec::new();
        for (at, replica) in self.replicas.iter().enumerate() {
            problems.within(&format!("replicas[{at}]"), |inner| {
                replica.validate(inner);
                let url = replica.endpoint.uri().to_string();
                let url = url.trim_end_matches('/').to_owned();
                if known.contains(&url) {
                    inner.at("endpoint", "is listed twice");
                }
                known.push(url);
            });
        }
        self.routing.validate(problems);
        self.client.validate(problems);
        tenant_header::validate(self.tenant_header.as_deref(), &self.headers, problems);
        if let Err(errors) = upstream_headers(&self.headers) {
            for error in errors {
                problems.at(error.what, error.reason);
            }
        }
        if let Some(mpp) = &self.mpp {
            problems.within("mpp", |inner| mpp.validate(inner));
        }
    }
}

impl ReplicaRouterConfig {
    fn upstream(
        &self,
        keys: &ClientKeys,
        headers: &HeaderMap,
    ) -> Result<Arc<Upstream>, BuildError> {
        Ok(Arc::new(Upstream {
            client: keys.client(self.idle_connections)?,
            credentials: keys.credentials()?,
            headers: headers.clone(),
        }))
    }

    /// The replicas that the configuration lists.
    fn listed(&self, own: &Arc<Upstream>, headers: &HeaderMap) -> Result<Vec<Replica>, BuildError> {
        let replica = |(at, keys): (usize, &ReplicaKeys)| -> Result<Replica, BuildError> {
            let key = format!("replicas[{at}].endpoint");
            let upstream = match &keys.client {
                Some(client) => self.upstream(client, headers)?,
                None => own.clone(),
            };
            let url = keys.endpoint.uri().to_string();
            let mut replica =
                Replica::new(&url, keys.weight, upstream).map_err(|e| BuildError::new(&key, e))?;
            replica.labels = keys.labels.clone();
            Ok(replica)
        };
        self.replicas.iter().enumerate().map(replica).collect()
    }
}

impl BuildSink<Queries> for ReplicaRouterConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Sink<Queries>>, BuildError> {
        let headers = upstream_headers(&self.headers).map_err(|mut errors| errors.remove(0))?;
        let upstream = self.upstream(&self.client, &headers)?;
        let listed = self.listed(&upstream, &headers)?;
        let router = Router::new(cx.id.clone(), self.routing.clone(), &cx.telemetry)?;
        let router = Arc::new(Steers {
            router: Arc::new(router),
            tenant_header: tenant_header::read(self.tenant_header.as_deref())?,
        });
        let names = self.discovery.iter().flat_map(|names| &names.0);
        let found: Vec<Targets> = names
            .map(|name| cx.discovery.targets(name))
            .collect::<Result<_, _>>()?;
        let mpp = match &self.mpp {
            Some(mpp) => Some((mpp.routes(&cx.listeners, &cx.id)?, mpp.access(&cx.access)?)),
            None => None,
        };
        Ok(Box::new(ReplicaRouter {
            router,
            listed,
            found,
            reading: targets::Reading {
                scheme: self.scheme,
                order_label: self.order_label.clone(),
                upstream,
            },
            mpp,
            metrics: cx.metrics.clone(),
        }))
    }
}

type MppRoutes = Vec<(Pages, Route)>;

struct ReplicaRouter {
    router: Arc<Steers>,
    listed: Vec<Replica>,
    /// Targets of each provider, in the order of the configuration.
    found: Vec<Targets>,
    reading: targets::Reading,
    /// mpp's endpoints, with their access check.
    mpp: Option<(MppRoutes, Arc<dyn Access>)>,
    metrics: ComponentMetrics,
}

impl Sink<Queries> for ReplicaRouter {
    fn run(
        self: Box<Self>,
        input: Input,
        mut shutdown: Shutdown,
    ) -> BoxFuture<Result<(), RunError>> {
        let Self {
            router,
            listed,
            mut found,
            reading,
            mpp,
            metrics,
        } = *self;
        router.router.set(reading.all(&listed, &mut found));
        metrics.show_details(&router);
        let serving = input.serve(router.clone());
        let pages = mpp.into_iter().flat_map(|(routes, access)| {
            let pages = routes.into_iter();
            pages.map(move |(page, route)| (page, route, access.clone()))
        });
        let pages: Vec<_> = pages
            .map(|(page, route, access)| {
                let handler = page.handler(router.router.clone());
                (route.serve(access, handler), route)
            })
            .collect();
        Box::pin(async move {
            tokio::select! {
                () = shutdown.wait() => {}
                () = router.router.probe() => {}
                () = reading.follow(&listed, &mut found, &router.router) => {}
            }
            serving.retire();
            drop(pages);
            Ok(())
        })
    }
}

/// The router, as the plane and the admin address use it.
struct Steers {
    router: Arc<Router>,
    tenant_header: Option<HeaderName>,
}

impl Answerer for Steers {
    fn answer(self: Arc<Self>, mut query: Query) -> BoxFuture<Result<Answer, Rejection>> {
        if let Some(name) = &self.tenant_header {
            query.name_tenant(name);
        }
        let router = self.router.clone();
        Box::pin(router.ask(Ask {
            method: query.method,
            uri: query.uri,
            headers: query.headers,
            body: query.body,
            tenant: query.tenant,
            peer: query.origin.peer,
            cookies: query.cookies,
            deadline: query.deadline,
        }))
    }
}

impl Details for Steers {
    fn details(&self) -> String {
        serde_json::to_string(&self.router.view()).unwrap_or_default()
    }
}
