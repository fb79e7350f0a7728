//! Polls a store of rules, or a rules backend or an Observatorium API over HTTP, or watches
//! PrometheusRule objects of Kubernetes, and publishes what it says.
//!
//! Delivery: what cannot be read or used stays as it was, tenant by tenant, and is told; nothing is
//! published before every tenant has been asked once. Of HTTP, an answer is read again only when its
//! `ETag` or `Last-Modified` says so.
//!
//! Limits: the bytes of an answer, the time of a request.

mod backend;
#[cfg(feature = "kubernetes")]
mod kubernetes;

use std::path::Path;
use std::sync::Arc;

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
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

use crate::rules::{StoreKeys, check_expr};
use backend::Backend;

keys! {
    /// Configuration of the `rules_poll` source.
    #[derive(Clone, Debug)]
    pub struct RulesPollConfig {
        store: StoreKeys = include,
        /// URL that answers with rules, in place of a store. With `{tenant}` in it, each of `tenants` is asked for; otherwise the answer is one file of nobody's.
        endpoint: Option<String> = unset("http://rules-backend:8080/api/v1/rules/{tenant}"),
        /// The tenants whose rules are asked for, by name.
        tenants: Vec<String> = default([]),
        /// PrometheusRule objects of Kubernetes, in place of a folder or a URL: they are watched.
        kubernetes: Option<RuleObjectKeys> = optional,
        client: ClientKeys = include,
        /// How often it is looked or asked.
        poll_interval: Period = default("10s"),
        /// Longest time for an answer.
        timeout: Period = default("30s"),
        /// Largest answer, or largest file of the store.
        max_answer_bytes: Size = default("64MiB"),
        /// Whether every ruler behind is a Thanos, so that groups may have a `partial_response_strategy`.
        thanos: bool = default(false),
    }
}

/// What stands for a tenant's name in the URL.
const TENANT: &str = "{tenant}";
/// Problems of one file that are told.
const MAX_TOLD: usize = 3;
/// Problems of one look that are logged.
const MAX_LOGGED: usize = 20;

inventory::submit! {
    ComponentInfo {
        kind: Kind::Source,
        name: "rules_poll",
        summary: "Rules from a store, a rules backend or an Observatorium API.",
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
                    "what is polled is a folder, a bucket, a URL or a cluster",
                )
                .help(help);
        }
        if let Some(keys) = &self.kubernetes {
            problems.within("kubernetes", |problems| keys.validate(problems));
            if cfg!(not(feature = "kubernetes")) {
                let help = "build with the feature `kubernetes`, which is on by default";
                problems
                    .at("kubernetes", "this program was built without it")
                    .help(help);
            }
        }
        if let Some(endpoint) = &self.endpoint {
            if let Err(reason) = endpoint.replace(TENANT, "t").parse::<Endpoint>() {
                problems.at("endpoint", reason);
            }
            if endpoint.contains(TENANT) == self.tenants.is_empty() {
                let help = "name the tenants, and where in the URL each goes: {tenant}";
                problems
                    .at("tenants", "go with {tenant} in endpoint")
                    .help(help);
            }
        }
        for (place, tenant) in self.tenants.iter().enumerate() {
            let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
            if tenant.is_empty() || !tenant.bytes().all(valid) || tenant.starts_with('.') {
                let help = "use letters, digits, `_`, `-` and `.`";
                problems
                    .at(format!("tenants[{place}]"), "is no name of a tenant")
                    .help(help);
            }
        }
        if self.poll_interval < Period::millis(100) {
            problems.at("poll_interval", "must be at least 100ms");
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
    fn checks(&self) -> Checks<'static> {
        Checks {
            thanos: self.thanos,
            limits: Limits {
                bytes: self.max_answer_bytes.bytes(),
                rules: 1_000_000,
                groups: 1_000_000,
                nodes: 20_000_000,
                ..Limits::DEFAULT
            },
            ..Checks::new(&check_expr)
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
                let store = Store::new(self.store.open(max)?, max, 1);
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

/// What is polled.
enum Polled {
    Store(Arc<Store>, Follower),
    Backend(Box<Backend>),
    #[cfg(feature = "kubernetes")]
    Kubernetes(Box<kubernetes::Objects>),
}

impl Polled {
    /// What is watched, where nothing is asked.
    fn watched(config: &RulesPollConfig) -> Result<Self, BuildError> {
        #[cfg(feature = "kubernetes")]
        if let Some(keys) = &config.kubernetes {
            let objects = kubernetes::Objects::build(config, keys).map_err(|error| {
                BuildError::new(format!("kubernetes.{}", error.what), error.reason)
            })?;
            return Ok(Self::Kubernetes(Box::new(objects)));
        }
        let what = match config.kubernetes {
            Some(_) => "this program was built without Kubernetes",
            None => "nothing is polled",
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

/// What a look has shown.
struct Looked {
    /// All that is known; none while something was never read.
    set: Option<RuleSet>,
    /// What cannot be read or used.
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
        loop {
            match &mut self.polled {
                #[cfg(feature = "kubernetes")]
                Polled::Kubernetes(objects) => objects.changed().await,
                _ => {
                    ticks.tick().await;
                }
            }
            let Looked { set, problems } = self.look().await?;
            match problems.is_empty() {
                true => self.metrics.succeeded(),
                false => self.complain(&problems, &told),
            }
            told = problems;
            if let Some(set) = set.filter(|set| published.as_ref() != Some(set)) {
                info!(source = %self.id, tenants = set.len(), "rules were read");
                out.publish(set.clone());
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
                    let looked = own.refresh(&store, &config.checks(), None);
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
                Ok(Looked {
                    set: looked.is_ok().then(|| follower.set().clone()),
                    problems,
                })
            }
        }
    }

    /// Tells of problems; of those that were told of before, in the metrics alone.
    fn complain(&self, problems: &[String], told: &[String]) {
        let first = problems.first().map_or("", String::as_str);
        self.metrics.error("invalid", first);
        if problems == told {
            return;
        }
        for problem in problems.iter().take(MAX_LOGGED) {
            warn!(source = %self.id, %problem, "rules were not taken: those of before stay, and all others go on");
        }
        let more = problems.len().saturating_sub(MAX_LOGGED);
        if more > 0 {
            error!(source = %self.id, more, "there are further problems with rules");
        }
    }
}
