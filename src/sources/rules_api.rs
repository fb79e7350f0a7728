//! Serves an API in which tenants create, read, update and delete their rules, and publishes the rules
//! of all tenants.
//!
//! Delivery: an answer of success means that the change is in the store and survives a crash. All state
//! lies in the store, so any number of processes can serve it; changes of other processes are published
//! within `poll_interval`, changes made here at once. An invalid file affects no other file, and its
//! last valid version stays published. Rules that a transform behind this source refuses are not
//! stored.
//!
//! Limits: the bytes of a body, the files, groups, rules and bytes of a tenant, the requests at once.

mod api;
mod document;
mod elsewhere;
mod namespace;
mod openapi;
mod reply;
mod requests;
mod ruler_api;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use http::Method;
use tokio::sync::{Notify, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
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
use metrifold_model::{Kind, Rejection};
use metrifold_rules::store::{Follower, Quarantined, Store};
use metrifold_rules::{Checks, Limits, Version};
use metrifold_telemetry::ComponentMetrics;

use crate::rules::{BackendKeys, Checker, Feature, StoreKeys, checker};
use api::{Api, Endpoint, Served};
use elsewhere::{Elsewhere, StatusFromKeys};

keys! {
    /// Configuration of the `rules_api` source.
    #[derive(Clone, Debug)]
    pub struct RulesApiConfig {
        server: ServerKeys = include,
        /// Path in front of `/rules` and `/api/v1/rules/raw`, in which `{tenant}` matches the tenant's name.
        path: String = default("/api/metrics/v1/{tenant}"),
        store: StoreKeys = include,
        /// Rules backend with Observatorium's API that holds the rules, instead of `directory`: one file per tenant, without history.
        backend: Option<BackendKeys> = optional,
        /// Path of the API that Observatorium uses with its rules backend: GET for the rules of all tenants, and GET and PUT of `/TENANT` below it. Its callers have access to the rules of all tenants.
        backend_path: Option<String> = unset("/api/v1/rules"),
        /// Path of the ruler configuration API of Mimir and Cortex, which takes the tenant from the `X-Scope-OrgID` header.
        ruler_path: Option<String> = unset("/prometheus/config/v1/rules"),
        /// Other processes with a `rules_api` over the same store, which are asked for the state of rules at the rulers behind them when a caller wants to know it.
        status_from: Option<StatusFromKeys> = optional,
        /// Path of the OpenAPI document.
        openapi_path: String = default("/openapi.json"),
        /// How often the store is checked for changes made by other processes.
        poll_interval: Period = default("10s"),
        /// How long the first publication after a start waits for files that the store lists and that cannot be read. After that, the rules are published without them.
        first_read_timeout: Period = default("30s"),
        /// Allow `partial_response_strategy` in rule groups. Set it only if all rulers that get the rules are Thanos rulers.
        thanos: bool = default(false),
        /// Features of PromQL that all rulers which get the rules have enabled, by the names of `--enable-feature` of Prometheus, such as `promql-experimental-functions`. Expressions that need another one are refused.
        enable_features: Vec<Feature> = default([]),
        /// Maximum size of a request body, and of a rule file. Larger requests are answered with 413.
        max_body_bytes: Size = default("4MiB"),
        /// Maximum time for receiving the body of a request.
        body_timeout: Period = default("30s"),
        /// Maximum number of files of a tenant.
        max_files_per_tenant: usize = default(100),
        /// Maximum number of groups of a tenant, over all files.
        max_groups_per_tenant: usize = default(1000),
        /// Maximum number of rules of a tenant, over all files.
        max_rules_per_tenant: usize = default(10_000),
        /// Maximum size of all files of a tenant together.
        max_bytes_per_tenant: Size = default("16MiB"),
        /// Number of versions of each file that are kept.
        history: usize = default(20),
        /// Number of removed files of a tenant whose versions are kept. Those of the file that was removed first go first.
        removed_files: usize = default(100),
        /// Maximum number of names that files of a tenant have, or had: in a bucket, each removed file stays as an empty object. A file under a further name is answered with 413.
        max_names_per_tenant: usize = default(10_000),
        /// Maximum number of concurrent requests. Further requests are answered with 503 and `Retry-After`.
        max_concurrent: usize = default(32),
    }
}

/// Parameter of the path that matches the tenant.
const TENANT: &str = "{tenant}";
/// Number of locks for changes; tenants share a lock if their hashes collide.
const TURNS: usize = 64;
/// Longest time for which a change waits for those before it, and the pause between two looks.
const MAX_WAIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);
/// Pause before a failed read of the store is retried.
const RETRY: Duration = Duration::from_secs(1);
/// Maximum number of invalid files that are logged at a time.
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

    fn callers_are_tenants(&self) -> bool {
        self.server.by_tenants()
    }

    fn resources(&self) -> Vec<Resource> {
        let listens = self.routes().into_iter().map(|(_, listen)| listen);
        listens.map(Resource::Route).collect()
    }

    fn files(&self) -> Vec<&Path> {
        let server = self.server.files().into_iter();
        let backend = self.backend.iter().flat_map(BackendKeys::files);
        let others = self.status_from.iter().flat_map(StatusFromKeys::files);
        server
            .chain(self.store.files())
            .chain(backend)
            .chain(others)
            .collect()
    }

    fn validate(&self, problems: &mut Problems) {
        self.server.validate(&self.path, problems);
        self.store.validate(problems);
        if let Some(backend) = &self.backend {
            backend.validate("backend", problems);
        }
        if let Some(others) = &self.status_from {
            problems.within("status_from", |problems| others.validate(problems));
        }
        if self.store.named() + usize::from(self.backend.is_some()) != 1 {
            let help = "write one of directory, bucket and backend";
            problems
                .at(
                    "directory",
                    "rules are kept in a directory, a bucket or a backend",
                )
                .help(help);
        }
        if self.path.split('/').filter(|part| *part == TENANT).count() != 1 {
            let help = "as in \"/api/metrics/v1/{tenant}\"";
            problems.at("path", "must contain {tenant} once").help(help);
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
                let help = "begin the path with a slash, end it without one, and use no parameters";
                problems.at(key, "is not a plain path").help(help);
            }
        }
        for (key, value) in [
            ("max_files_per_tenant", self.max_files_per_tenant),
            ("max_groups_per_tenant", self.max_groups_per_tenant),
            ("max_rules_per_tenant", self.max_rules_per_tenant),
            ("max_names_per_tenant", self.max_names_per_tenant),
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
    /// Endpoints of the API and their routes.
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
            routes.push((Endpoint::Namespace, format!("{path}/{{namespace}}"), post));
            routes.push((
                Endpoint::NamespaceGroup,
                format!("{path}/{{namespace}}/{{group}}"),
                delete,
            ));
        }
        let listen = |(endpoint, path, methods): (_, String, _)| {
            let listen = self.server.listen(&path, methods);
            // Names of groups never become part of a path in the store, and those of namespaces only
            // after they have been escaped.
            (endpoint, listen.free_text(&["group", "namespace"]))
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

/// The permission that requests to an endpoint require, with `access = "tenants"`.
fn wanted(endpoint: Endpoint) -> Wanted {
    match endpoint {
        // These endpoints serve all tenants.
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
        let store =
            Store::new(objects, max_bytes, self.history).keeping_removed(self.removed_files);
        Ok(Box::new(RulesApi {
            id: cx.id.clone(),
            metrics: cx.metrics.clone(),
            routes,
            reports: cx.reports.clone(),
            elsewhere: self
                .status_from
                .as_ref()
                .map(StatusFromKeys::build)
                .transpose()?,
            shared: Arc::new(Shared {
                config: self.clone(),
                expr: checker(&self.enable_features),
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
    elsewhere: Option<Elsewhere>,
    shared: Arc<Shared>,
}

/// State shared by the request handlers and the publisher.
struct Shared {
    config: RulesApiConfig,
    expr: Checker,
    store: Store,
    /// The last published set; `None` before the store was read for the first time.
    newest: Mutex<Option<RuleSet>>,
    /// Tenants whose files were changed by this process since the publisher last read them.
    changed: Mutex<Vec<String>>,
    wake: Notify,
    /// Held while rules of a tenant are changed, so that only writers in other processes race.
    turns: [Mutex<()>; TURNS],
}

impl Shared {
    fn checks(&self) -> Checks<'_> {
        Checks {
            thanos: self.config.thanos,
            limits: self.config.limits(),
            ..Checks::new(&*self.expr)
        }
    }

    /// Locks a tenant for a change; fails if others keep it locked for too long. Blocks.
    #[expect(
        clippy::disallowed_methods,
        reason = "requests are handled on threads that may block"
    )]
    fn turn(&self, tenant: &str) -> Result<MutexGuard<'_, ()>, Rejection> {
        let hash = Version::of(tenant.as_bytes());
        let turn = &self.turns[usize::from(hash.as_bytes()[0]) % TURNS];
        let deadline = Instant::now() + MAX_WAIT;
        loop {
            match turn.try_lock() {
                Ok(guard) => return Ok(guard),
                // It guards no data that a panic could have left half changed.
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    let reason = "changes before this one take too long: try again";
                    return Err(Rejection::unavailable(reason));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Wakes the publisher to read a tenant's files again.
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
            elsewhere,
            shared,
        } = *self;
        let api = Arc::new(Api {
            id: id.clone(),
            shared: shared.clone(),
            out: out.clone(),
            reports,
            elsewhere,
            slots: Arc::new(Semaphore::new(shared.config.max_concurrent)),
        });
        // Attached before the first poll, so that the listener, which starts next, refuses no request.
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

/// Follows the store and publishes its rules.
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
        let mut told = Vec::new();
        let patience = Instant::now() + self.shared.config.first_read_timeout.0;
        // Whether the next read covers all tenants, or only the changed ones.
        let mut all = true;
        let mut next = Instant::now();
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
                next = Instant::now() + self.shared.config.poll_interval.0;
            }
            match outcome {
                Ok(()) => {
                    let set = follower.set().clone();
                    let is_new = locked(&self.shared.newest).as_ref() != Some(&set);
                    // A file that is not known yet must not be taken for one that is gone.
                    let is_known =
                        follower.is_complete() || (Instant::now() >= patience && !set.is_empty());
                    if !published && !is_known {
                        next = Instant::now() + RETRY;
                    } else if is_new || !published {
                        info!(source = %self.id, tenants = set.len(), "rules were read from the store");
                        *locked(&self.shared.newest) = Some(set.clone());
                        self.out.publish(set).await;
                        published = true;
                    }
                    // A file that becomes invalid may leave the set as it was.
                    let quarantined = follower.quarantined();
                    if quarantined != told {
                        self.complain(&quarantined);
                        told = quarantined;
                    }
                    self.metrics.succeeded();
                }
                Err(error) => {
                    // The retry covers the changed tenants too, as it reads all of the store.
                    next = Instant::now() + RETRY;
                    self.metrics.failed("store", &error);
                    error!(source = %self.id, %error, "the store of rules could not be read: the published rules are kept");
                }
            }
            tokio::select! {
                () = self.shared.wake.notified() => all = false,
                () = tokio::time::sleep_until(next) => all = true,
            }
            // After a failure, and before the first publication, all of the store is read.
            all |= next <= Instant::now() || !published;
        }
    }

    fn complain(&self, quarantined: &[Quarantined]) {
        for it in quarantined.iter().take(MAX_LOGGED) {
            self.metrics.error("invalid", &it.reason);
            warn!(
                source = %self.id,
                tenant = %it.tenant,
                file = %it.file,
                reason = %it.reason,
                "{}",
                match it.keeps {
                    true => "a file of rules cannot be used: its last valid version is kept",
                    false => "a file of rules cannot be used: it is left out",
                }
            );
        }
    }
}
