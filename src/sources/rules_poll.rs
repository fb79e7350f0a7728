//! Polls a store of rules, a rules backend or an Observatorium API, or watches PrometheusRule objects
//! of Kubernetes, and publishes their rules.
//!
//! Delivery: when a tenant's rules cannot be read or are invalid, that tenant keeps its previous rules,
//! and the problem is logged. The first publication waits for every tenant to be read, but not for
//! ever. HTTP requests are conditional, so that an unchanged answer is not read again.
//!
//! Limits: the bytes of an answer, the time of a request, the requests at once.

mod backend;
#[cfg(feature = "kubernetes")]
mod kubernetes;

use std::path::Path;
use std::sync::Arc;

use tokio::task::spawn_blocking;
#[cfg(feature = "kubernetes")]
use tokio::time::sleep_until;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, info, warn};

use metrifold_base::keys::Keys;
use metrifold_base::{
    BoxFuture, BuildError, Endpoint, Period, Problems, RunError, Shutdown, Size, keys,
};
use metrifold_engine::component::{
    BuildContext, BuildSource, ComponentInfo, SourceConfig, SourcePort,
};
use metrifold_engine::planes::Source;
use metrifold_engine::planes::rules::{Output, RuleSet, Rules};
use metrifold_http::ClientKeys;
use metrifold_kubernetes::RuleObjectKeys;
use metrifold_model::Kind;
use metrifold_rules::store::{Follower, Store};
use metrifold_rules::{Checks, Limits};
use metrifold_telemetry::ComponentMetrics;

use crate::rules::{Checker, Feature, StoreKeys, checker};
use backend::Backend;

keys! {
    /// Configuration of the `rules_poll` source.
    #[derive(Clone, Debug)]
    pub struct RulesPollConfig {
        store: StoreKeys = include,
        /// URL to get rules from, instead of a store. With `{tenant}` in it, there is a request for each of `tenants`; otherwise the answer is one file without a tenant.
        endpoint: Option<String> = unset("http://rules-backend:8080/api/v1/rules/{tenant}"),
        /// Names of the tenants whose rules are requested.
        tenants: Vec<String> = default([]),
        /// PrometheusRule objects of Kubernetes to watch, instead of a store or a URL.
        kubernetes: Option<RuleObjectKeys> = optional,
        client: ClientKeys = include,
        /// How often the store or the URL is polled.
        poll_interval: Period = default("10s"),
        /// How long the first publication after a start waits for tenants, files or namespaces that cannot be read. After that, the rules are published without them.
        first_read_timeout: Period = default("30s"),
        /// Maximum number of concurrent requests to `endpoint`, besides up to 32 that take longer than 2s.
        max_requests: usize = default(8),
        /// Maximum time for a request.
        timeout: Period = default("30s"),
        /// Maximum size of an answer, or of a file in the store.
        max_answer_bytes: Size = default("64MiB"),
        /// Allow `partial_response_strategy` in rule groups. Set it only if all rulers that get the rules are Thanos rulers.
        thanos: bool = default(false),
        /// Features of PromQL that all rulers which get the rules have enabled, by the names of `--enable-feature` of Prometheus, such as `promql-experimental-functions`. Expressions that need another one are refused.
        enable_features: Vec<Feature> = default([]),
    }
}

/// Placeholder for a tenant's name in the URL.
const TENANT: &str = "{tenant}";
/// Maximum number of problems of one file in a message.
const MAX_TOLD: usize = 3;
/// Maximum number of problems of one poll that are logged.
const MAX_LOGGED: usize = 20;

inventory::submit! {
    ComponentInfo {
        kind: Kind::Source,
        name: "rules_poll",
        summary: "Polls a store of rules, a rules backend or an Observatorium API, or watches PrometheusRule objects.",
        keys: RulesPollConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "rules_poll")]
impl SourceConfig for RulesPollConfig {
    fn port(&self) -> SourcePort<'_> {
        SourcePort::Rules(self)
    }

    fn files(&self) -> Vec<&Path> {
        let kubernetes = self.kubernetes.iter().flat_map(RuleObjectKeys::files);
        let client = self.client.files().into_iter();
        client.chain(self.store.files()).chain(kubernetes).collect()
    }

    fn validate(&self, problems: &mut Problems) {
        self.client.validate(problems);
        self.store.validate(problems);
        let others = [self.endpoint.is_some(), self.kubernetes.is_some()];
        let others = others.into_iter().filter(|is| *is).count();
        if self.store.named() + others != 1 {
            let help = "write one of directory, bucket, endpoint and kubernetes";
            problems
                .at(
                    "endpoint",
                    "rules are read from a directory, a bucket, a URL or a cluster",
                )
                .help(help);
        }
        if let Some(keys) = &self.kubernetes {
            problems.within("kubernetes", |problems| keys.validate(problems));
            if cfg!(not(feature = "kubernetes")) {
                let help = "build with the feature `kubernetes`, which is on by default";
                problems
                    .at(
                        "kubernetes",
                        "this program was built without support for Kubernetes",
                    )
                    .help(help);
            }
        }
        if let Some(endpoint) = &self.endpoint {
            if let Err(reason) = endpoint.replace(TENANT, "t").parse::<Endpoint>() {
                problems.at("endpoint", reason);
            }
            if endpoint.contains(TENANT) == self.tenants.is_empty() {
                let help = "list the tenants, and write {tenant} where their names go in the URL";
                problems
                    .at(
                        "tenants",
                        "must be set if endpoint contains {tenant}, and only then",
                    )
                    .help(help);
            }
        }
        for (place, tenant) in self.tenants.iter().enumerate() {
            let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
            if tenant.is_empty() || !tenant.bytes().all(valid) || tenant.starts_with('.') {
                let help = "use letters, digits, `_`, `-` and `.`";
                problems
                    .at(format!("tenants[{place}]"), "is not the name of a tenant")
                    .help(help);
            }
        }
        if self.poll_interval < Period::millis(100) {
            problems.at("poll_interval", "must be at least 100ms");
        }
        if self.max_requests == 0 {
            problems.at("max_requests", "must be at least 1");
        }
        if self.timeout.0.is_zero() {
            problems.at("timeout", "must be longer than 0s");
        }
        if self.max_answer_bytes.0 == 0 {
            problems.at("max_answer_bytes", "must be at least 1B");
        }
    }
}

impl RulesPollConfig {
    fn checker(&self) -> Checker {
        checker(&self.enable_features)
    }

    fn checks<'e>(&self, expr: &'e Checker) -> Checks<'e> {
        Checks {
            thanos: self.thanos,
            limits: Limits {
                bytes: self.max_answer_bytes.bytes(),
                rules: 1_000_000,
                groups: 1_000_000,
                nodes: 20_000_000,
                ..Limits::DEFAULT
            },
            ..Checks::new(&**expr)
        }
    }
}

impl BuildSource<Rules> for RulesPollConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Source<Rules>>, BuildError> {
        let polled = match &self.endpoint {
            Some(endpoint) => Polled::Backend(Box::new(Backend::build(self, endpoint)?)),
            None if self.kubernetes.is_some() => Polled::watched(self)?,
            None => {
                let max = self.max_answer_bytes.bytes();
                let store = Store::new(self.store.open_to_read(max)?, max, 1);
                Polled::Store(Arc::new(store), Follower::default())
            }
        };
        Ok(Box::new(RulesPoll {
            id: cx.id.clone(),
            metrics: cx.metrics.clone(),
            config: Arc::new(self.clone()),
            polled,
        }))
    }
}

/// The origin of the rules.
enum Polled {
    Store(Arc<Store>, Follower),
    Backend(Box<Backend>),
    #[cfg(feature = "kubernetes")]
    Kubernetes(Box<kubernetes::Objects>),
}

impl Polled {
    /// Opens the watch of Kubernetes objects.
    fn watched(config: &RulesPollConfig) -> Result<Self, BuildError> {
        #[cfg(feature = "kubernetes")]
        if let Some(keys) = &config.kubernetes {
            let objects = kubernetes::Objects::build(config, keys).map_err(|error| {
                BuildError::new(format!("kubernetes.{}", error.what), error.reason)
            })?;
            return Ok(Self::Kubernetes(Box::new(objects)));
        }
        let what = match config.kubernetes {
            Some(_) => "this program was built without support for Kubernetes",
            None => "no origin of rules is configured",
        };
        Err(BuildError::new("endpoint", what))
    }
}

struct RulesPoll {
    id: Arc<str>,
    metrics: ComponentMetrics,
    config: Arc<RulesPollConfig>,
    polled: Polled,
}

/// Result of a poll.
struct Looked {
    /// The rules of the tenants that are known; `None` if none is.
    set: Option<RuleSet>,
    /// Whether each tenant has been read once, be it with valid rules or not.
    is_complete: bool,
    /// Reads that failed and rules that are invalid, one message each.
    problems: Vec<String>,
}

impl Source<Rules> for RulesPoll {
    fn run(
        mut self: Box<Self>,
        out: Output,
        mut shutdown: Shutdown,
    ) -> BoxFuture<Result<(), RunError>> {
        Box::pin(async move {
            tokio::select! {
                ended = self.follow(&out) => ended,
                () = shutdown.wait() => Ok(()),
            }
        })
    }
}

impl RulesPoll {
    async fn follow(&mut self, out: &Output) -> Result<(), RunError> {
        let mut ticks = interval(self.config.poll_interval.0);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut published: Option<RuleSet> = None;
        let mut told = Vec::new();
        let patience = Instant::now() + self.config.first_read_timeout.0;
        let mut is_patient = true;
        loop {
            match &mut self.polled {
                #[cfg(feature = "kubernetes")]
                Polled::Kubernetes(objects) => {
                    tokio::select! {
                        () = objects.changed() => {}
                        () = sleep_until(patience), if is_patient => {}
                    }
                }
                _ => {
                    ticks.tick().await;
                }
            }
            is_patient &= Instant::now() < patience;
            let Looked {
                set,
                is_complete,
                problems,
            } = self.look().await?;
            match problems.is_empty() {
                true => self.metrics.succeeded(),
                false => self.complain(&problems, &told),
            }
            told = problems;
            // What is not known yet must not be taken to be gone.
            let waits = published.is_none() && !is_complete && is_patient;
            if let Some(set) = set.filter(|set| !waits && published.as_ref() != Some(set)) {
                info!(source = %self.id, tenants = set.len(), "rules were read");
                out.publish(set.clone()).await;
                published = Some(set);
            }
        }
    }

    async fn look(&mut self) -> Result<Looked, RunError> {
        match &mut self.polled {
            Polled::Backend(backend) => Ok(backend.look().await),
            #[cfg(feature = "kubernetes")]
            Polled::Kubernetes(objects) => Ok(objects.look()),
            Polled::Store(store, follower) => {
                let (store, config) = (store.clone(), self.config.clone());
                let mut own = std::mem::take(follower);
                let looked = spawn_blocking(move || {
                    let expr = config.checker();
                    let looked = own.refresh(&store, &config.checks(&expr), None);
                    (own, looked.map(drop))
                });
                let (back, looked) = looked.await.map_err(|error| RunError(error.to_string()))?;
                *follower = back;
                let problems = match &looked {
                    Err(error) => vec![error.to_string()],
                    Ok(()) => {
                        let quarantined = follower.quarantined().into_iter();
                        let told = quarantined
                            .map(|it| format!("{}/{}: {}", it.tenant, it.file, it.reason));
                        told.collect()
                    }
                };
                let is_complete = follower.is_complete();
                let is_known = looked.is_ok() && (is_complete || !follower.set().is_empty());
                Ok(Looked {
                    set: is_known.then(|| follower.set().clone()),
                    is_complete,
                    problems,
                })
            }
        }
    }

    /// Counts problems, and logs them if they differ from those of the previous poll.
    fn complain(&self, problems: &[String], told: &[String]) {
        let first = problems.first().map_or("", String::as_str);
        self.metrics.error("invalid", first);
        if problems == told {
            return;
        }
        for problem in problems.iter().take(MAX_LOGGED) {
            warn!(source = %self.id, %problem, "rules could not be used: the previous ones are kept, and other tenants are not affected");
        }
        let more = problems.len().saturating_sub(MAX_LOGGED);
        if more > 0 {
            error!(source = %self.id, more, "further rules could not be used");
        }
    }
}
