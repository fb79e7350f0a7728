//! Serves an API in which tenants create, read, update and delete their rules, and publishes what
//! they have.
//!
//! Delivery: an answer of success means that the change is in the store and outlives a crash. All
//! state lies in the store, so any number of processes may serve it; what others change there is
//! seen within `poll_interval`, what is changed here at once. A file that cannot be used costs only
//! itself, and what was published of it before stays. Nothing is stored that the transforms behind
//! refuse.
//!
//! Limits: the bytes of a body, the files, groups, rules and bytes of a tenant, the requests at once.

mod api;
mod document;
mod openapi;
mod reply;
mod requests;
mod ruler_api;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http::Method;
use tokio::sync::{Notify, Semaphore};
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use metrifold_base::keys::Keys;
use metrifold_base::{
    BoxFuture, BuildError, Period, Problems, RunError, Shutdown, Size, keys, locked,
};
use metrifold_engine::component::{
    BuildContext, BuildSource, ComponentInfo, Resource, SourceConfig, SourcePort,
};
use metrifold_engine::planes::Source;
use metrifold_engine::planes::rules::{Output, Reports, RuleSet, Rules};
use metrifold_http::access::Wanted;
use metrifold_http::{Access, Listen, Methods, Permission, Route, ServerKeys};
use metrifold_model::Kind;
use metrifold_rules::store::{Follower, Store};
use metrifold_rules::{Checks, Limits, Version};
use metrifold_telemetry::ComponentMetrics;

use crate::rules::{BackendKeys, StoreKeys, check_expr};
use api::{Api, Endpoint, Served};

keys! {
    /// Configuration of the `rules_api` source.
    #[derive(Clone, Debug)]
    pub struct RulesApiConfig {
        server: ServerKeys = include,
        /// Path in front of `/rules` and `/api/v1/rules/raw`, in which `{tenant}` matches the tenant's name.
        path: String = default("/api/metrics/v1/{tenant}"),
        store: StoreKeys = include,
        /// Rules backend of Observatorium's contract in which the rules are kept, in place of `directory`: one file of each tenant, without history.
        backend: Option<BackendKeys> = optional,
        /// Path of the contract between an Observatorium API and its rules backend: GET of all tenants' rules, and GET and PUT of `/TENANT` below it. It is open to everybody who may call, for all tenants.
        backend_path: Option<String> = unset("/api/v1/rules"),
        /// Path of the configuration API of the rulers of Mimir and Cortex, which takes the tenant from the header `X-Scope-OrgID`.
        ruler_path: Option<String> = unset("/prometheus/config/v1/rules"),
        /// Path of the OpenAPI document.
        openapi_path: String = default("/openapi.json"),
        /// How often the store is looked at for what others change in it.
        poll_interval: Period = default("10s"),
        /// Whether every ruler behind is a Thanos, so that groups may have a `partial_response_strategy`.
        thanos: bool = default(false),
        /// Largest body of a request, and largest file; above it 413.
        max_body_bytes: Size = default("4MiB"),
        /// Longest time for the body of a request.
        body_timeout: Period = default("30s"),
        /// Most files of a tenant.
        max_files_per_tenant: usize = default(100),
        /// Most groups of a tenant, in all of its files.
        max_groups_per_tenant: usize = default(1000),
        /// Most rules of a tenant, in all of its files.
        max_rules_per_tenant: usize = default(10_000),
        /// Most bytes of all files of a tenant.
        max_bytes_per_tenant: Size = default("16MiB"),
        /// How many versions of each file are kept.
        history: usize = default(20),
        /// Most requests at once; further ones are answered 503 with Retry-After.
        max_concurrent: usize = default(32),
    }
}

/// The parameter of the path that is the tenant.
const TENANT: &str = "{tenant}";
/// How many changes of different tenants may be under way, as far as their names' hashes differ.
const TURNS: usize = 64;
/// The pause before the store is looked at again that did not answer.
const RETRY: Duration = Duration::from_secs(1);
/// Files that are told of in the log when they cannot be used.
const MAX_LOGGED: usize = 20;

inventory::submit! {
    ComponentInfo {
        kind: Kind::Source,
        name: "rules_api",
        summary: "Serves an API in which tenants write their rules.",
        keys: RulesApiConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "rules_api")]
impl SourceConfig for RulesApiConfig {
    fn port(&self) -> SourcePort<'_> {
        SourcePort::Rules(self)
    }

    fn resources(&self) -> Vec<Resource> {
        let listens = self.routes().into_iter().map(|(_, listen)| listen);
        listens.map(Resource::Route).collect()
    }

    fn files(&self) -> Vec<&Path> {
        let server = self.server.files().into_iter();
        let backend = self.backend.iter().flat_map(BackendKeys::files);
        server.chain(self.store.files()).chain(backend).collect()
    }

    fn validate(&self, problems: &mut Problems) {
        self.server.validate(&self.path, problems);
        self.store.validate(problems);
        if let Some(backend) = &self.backend {
            backend.validate("backend", problems);
        }
        if self.store.named() + usize::from(self.backend.is_some()) != 1 {
            let help = "write one of directory, bucket and backend";
            problems
                .at(
                    "directory",
                    "rules are kept in a folder, a bucket or a backend",
                )
                .help(help);
        }
        if self.path.split('/').filter(|part| *part == TENANT).count() != 1 {
            let help = "write it once, as in \"/api/metrics/v1/{tenant}\"";
            problems.at("path", "names no {tenant}").help(help);
        }
        let plain = [
            ("backend_path", self.backend_path.as_deref()),
            ("ruler_path", self.ruler_path.as_deref()),
            ("openapi_path", Some(&*self.openapi_path)),
        ];
        for (key, path) in plain {
            let Some(path) = path else { continue };
            if !path.starts_with('/') || path.ends_with('/') || path.contains(['{', '}', '?', '#'])
            {
                let help = "begin it with a slash, and end it with none";
                problems.at(key, "is no plain path").help(help);
            }
        }
        for (key, value) in [
            ("max_files_per_tenant", self.max_files_per_tenant),
            ("max_groups_per_tenant", self.max_groups_per_tenant),
            ("max_rules_per_tenant", self.max_rules_per_tenant),
            ("history", self.history),
            ("max_concurrent", self.max_concurrent),
            ("max_body_bytes", self.max_body_bytes.bytes()),
            ("max_bytes_per_tenant", self.max_bytes_per_tenant.bytes()),
        ] {
            if value == 0 {
                problems.at(key, "must be at least 1");
            }
        }
        if self.poll_interval < Period::millis(100) {
            problems.at("poll_interval", "must be at least 100ms");
        }
        if self.body_timeout.0.is_zero() {
            problems.at("body_timeout", "must be longer than 0s");
        }
    }
}

impl RulesApiConfig {
    /// What is served, and where.
    fn routes(&self) -> Vec<(Endpoint, Listen)> {
        let tenant = self.path.trim_end_matches('/');
        let (get, put) = (Methods::GET, Methods::PUT);
        let edit = get.and(put).and(Methods::DELETE);
        let mut routes = vec![
            (Endpoint::Tenant, format!("{tenant}/rules"), edit),
            (
                Endpoint::Raw,
                format!("{tenant}/api/v1/rules/raw"),
                get.and(put),
            ),
            (
                Endpoint::File,
                format!("{tenant}/rules/{{file}}"),
                edit.and(Methods::POST),
            ),
            (
                Endpoint::Group,
                format!("{tenant}/rules/{{file}}/{{group}}"),
                edit,
            ),
            (Endpoint::OpenApi, self.openapi_path.clone(), get),
        ];
        if let Some(path) = &self.backend_path {
            routes.push((Endpoint::All, path.clone(), get));
            routes.push((Endpoint::Backend, format!("{path}/{TENANT}"), get.and(put)));
        }
        if let Some(path) = &self.ruler_path {
            let post = get.and(Methods::POST).and(Methods::DELETE);
            let delete = get.and(Methods::DELETE);
            routes.push((Endpoint::Namespaces, path.clone(), get));
            routes.push((Endpoint::Namespace, format!("{path}/{{file}}"), post));
            routes.push((
                Endpoint::NamespaceGroup,
                format!("{path}/{{file}}/{{group}}"),
                delete,
            ));
        }
        let listen = |(endpoint, path, methods): (_, String, _)| {
            let listen = self.server.listen(&path, methods);
            // A group may be called anything, and is part of no path.
            (endpoint, listen.free_text(&["group"]))
        };
        routes.into_iter().map(listen).collect()
    }

    fn limits(&self) -> Limits {
        Limits {
            bytes: self.max_body_bytes.bytes(),
            groups: self.max_groups_per_tenant,
            rules: self.max_rules_per_tenant,
            ..Limits::DEFAULT
        }
    }
}

/// What requests to an endpoint want to do, where tenants decide who may call.
fn wanted(endpoint: Endpoint) -> Wanted {
    match endpoint {
        // They are for all tenants.
        Endpoint::All | Endpoint::Backend => |_| Permission::Admin,
        _ => |method| match *method {
            Method::GET | Method::HEAD => Permission::Read,
            _ => Permission::Rules,
        },
    }
}

impl BuildSource<Rules> for RulesApiConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Source<Rules>>, BuildError> {
        let routes = self.routes().into_iter().map(|(endpoint, listen)| {
            let route = cx.listeners.route(&listen, &cx.id)?;
            let access = self.server.access(&cx.access, wanted(endpoint))?;
            Ok((endpoint, route, access))
        });
        let routes = routes.collect::<Result<Vec<_>, BuildError>>()?;
        let max_bytes = self.max_body_bytes.bytes();
        let objects = match &self.backend {
            Some(backend) => backend.open(max_bytes)?,
            None => self.store.open(max_bytes)?,
        };
        let store = Store::new(objects, max_bytes, self.history);
        Ok(Box::new(RulesApi {
            id: cx.id.clone(),
            metrics: cx.metrics.clone(),
            routes,
            reports: cx.reports.clone(),
            shared: Arc::new(Shared {
                config: self.clone(),
                store,
                newest: Mutex::default(),
                changed: Mutex::default(),
                wake: Notify::new(),
                turns: std::array::from_fn(|_| Mutex::default()),
            }),
        }))
    }
}

struct RulesApi {
    id: Arc<str>,
    metrics: ComponentMetrics,
    routes: Vec<(Endpoint, Route, Arc<dyn Access>)>,
    reports: Reports,
    shared: Arc<Shared>,
}

/// What requests and the one who publishes have in common.
struct Shared {
    config: RulesApiConfig,
    store: Store,
    /// What was published last.
    newest: Mutex<RuleSet>,
    /// Tenants whose files were changed here since they were looked at.
    changed: Mutex<Vec<String>>,
    wake: Notify,
    /// Held while something of a tenant is changed: only those who change it in other processes are
    /// raced with.
    turns: [Mutex<()>; TURNS],
}

impl Shared {
    fn checks(&self) -> Checks<'static> {
        Checks {
            thanos: self.config.thanos,
            limits: self.config.limits(),
            ..Checks::new(&check_expr)
        }
    }

    /// The turn to change something of a tenant.
    fn turn(&self, tenant: &str) -> MutexGuard<'_, ()> {
        let hash = Version::of(tenant.as_bytes());
        locked(&self.turns[usize::from(hash.as_bytes()[0]) % TURNS])
    }

    /// Has the rules of a tenant published anew.
    fn touch(&self, tenant: &str) {
        let mut changed = locked(&self.changed);
        if !changed.iter().any(|known| known == tenant) {
            changed.push(tenant.to_owned());
        }
        drop(changed);
        self.wake.notify_one();
    }
}

impl Source<Rules> for RulesApi {
    fn run(
        self: Box<Self>,
        out: Output,
        mut shutdown: Shutdown,
    ) -> BoxFuture<Result<(), RunError>> {
        let Self {
            id,
            metrics,
            routes,
            reports,
            shared,
        } = *self;
        let api = Arc::new(Api {
            shared: shared.clone(),
            out: out.clone(),
            reports,
            slots: Arc::new(Semaphore::new(shared.config.max_concurrent)),
        });
        // Attached before the first poll, so that a listener that starts next turns nobody away.
        let serve = |(endpoint, route, access): &(Endpoint, Route, Arc<dyn Access>)| {
            let handler = Served {
                api: api.clone(),
                endpoint: *endpoint,
            };
            route.serve(access.clone(), Arc::new(handler))
        };
        let serving: Vec<_> = routes.iter().map(serve).collect();
        Box::pin(async move {
            let publisher = Publisher {
                id,
                metrics,
                shared,
                out,
            };
            let ended = tokio::select! {
                ended = publisher.follow() => ended,
                () = shutdown.wait() => Ok(()),
            };
            drop((serving, routes));
            ended
        })
    }
}

/// Publishes what the store holds.
struct Publisher {
    id: Arc<str>,
    metrics: ComponentMetrics,
    shared: Arc<Shared>,
    out: Output,
}

impl Publisher {
    async fn follow(&self) -> Result<(), RunError> {
        let mut follower = Follower::default();
        let mut published = false;
        // All of the store is due.
        let mut all = true;
        let mut next = tokio::time::Instant::now();
        loop {
            let tenants = std::mem::take(&mut *locked(&self.shared.changed));
            let shared = self.shared.clone();
            let looked = spawn_blocking(move || {
                let checks = shared.checks();
                let mut outcome = Ok(());
                if all {
                    outcome = follower.refresh(&shared.store, &checks, None).map(drop);
                } else {
                    for tenant in tenants {
                        let looked = follower.refresh(&shared.store, &checks, Some(&tenant));
                        outcome = outcome.and(looked.map(drop));
                    }
                }
                (follower, outcome)
            });
            let (back, outcome) = looked.await.map_err(|error| RunError(error.to_string()))?;
            follower = back;
            if all {
                next = tokio::time::Instant::now() + self.shared.config.poll_interval.0;
            }
            match outcome {
                Ok(()) => {
                    let set = follower.set().clone();
                    let is_new = *locked(&self.shared.newest) != set;
                    if is_new || !published {
                        info!(source = %self.id, tenants = set.len(), "rules were read from the store");
                        *locked(&self.shared.newest) = set.clone();
                        self.out.publish(set);
                        published = true;
                        self.complain(&follower);
                    }
                    self.metrics.succeeded();
                }
                Err(error) => {
                    // Whatever was touched is looked at with all the rest.
                    next = tokio::time::Instant::now() + RETRY;
                    self.metrics.failed("store", &error);
                    error!(source = %self.id, %error, "the store of rules was not read: what was published stays");
                }
            }
            tokio::select! {
                () = self.shared.wake.notified() => all = false,
                () = tokio::time::sleep_until(next) => all = true,
            }
            // A store that failed is looked at as a whole.
            all |= next <= tokio::time::Instant::now() || !published;
        }
    }

    fn complain(&self, follower: &Follower) {
        let quarantined = follower.quarantined();
        for it in quarantined.iter().take(MAX_LOGGED) {
            self.metrics.error("invalid", &it.reason);
            warn!(
                source = %self.id,
                tenant = %it.tenant,
                file = %it.file,
                reason = %it.reason,
                "{}",
                match it.keeps {
                    true => "a file of rules cannot be used: what it held before stays",
                    false => "a file of rules cannot be used: it is left out",
                }
            );
        }
    }
}
