//! Delivers rules to Prometheus or Thanos Rule, by writing a folder or a file and reloading the ruler, or
//! to a ruler of Mimir or Cortex, by its configuration API.
//!
//! Delivery: the folder or file changes atomically, and only when a rule in it changes; the ruler is then
//! reloaded, and its rules API confirms that the rules are loaded. Requests without an answer are
//! retried. If the ruler refuses the rules, the sink searches for the group at fault: that group keeps
//! its previous rules, or is left out, and all other groups are delivered. Nothing is written before
//! every source of this sink has published. A tenant whose sources contradict each other keeps its
//! previous rules.
//!
//! With several rulers, the rules of each tenant go to one of them, chosen by a hash of the tenant's
//! name and the rulers' URLs: when a ruler is added or removed, only the tenants of that ruler move.
//!
//! Limits: the time of a request, the bytes of an answer, the tenants that are pushed at once.

mod client;
mod install;
mod place;
mod push;
mod rulers;
mod same;
mod shard;
mod status;
mod way;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{error, info, warn};

use metrifold_base::keys::Keys;
use metrifold_base::{
    Backoff, BoxFuture, BuildError, Period, Problems, RunError, Shutdown, Size, keys,
};
use metrifold_engine::component::{
    BuildContext, BuildSink, ComponentInfo, Resource, SinkConfig, SinkPort,
};
use metrifold_engine::planes::Sink;
use metrifold_engine::planes::rules::{Input, Joined, Reports, Rules, View};
use metrifold_http::ClientKeys;
use metrifold_model::Kind;
use metrifold_telemetry::ComponentMetrics;

use crate::rules::{Asker, Conflicts};
use client::RulerClient;
pub use rulers::RulerKeys;
use shard::Shard;
use status::Statuses;
use way::{Outcome, Refused, Way};

keys! {
    /// Configuration of the `ruler` sink.
    #[derive(Clone, Debug)]
    pub struct RulerConfig {
        /// Rulers, each with its `url` and either the `directory` or the `file` that it reads, or the `push_url` to which rules are pushed. With several rulers, the tenants are distributed among them.
        rulers: Vec<RulerKeys> = required([{ url = "http://127.0.0.1:9090", directory = "/var/lib/ruler/rules" }]),
        client: ClientKeys = include,
        /// Maximum time for a request, such as a reload.
        timeout: Period = default("60s"),
        /// Maximum number of tenants whose rules are pushed to a ruler concurrently, with `push_url`.
        max_pushes: usize = default(8),
        /// What is put in front of a file's name to name its namespace, with `push_url`. Namespaces that begin with it belong to this sink, which removes what is not wanted in them, and no others are touched. With an empty text, all namespaces of its tenants belong to it.
        namespace_prefix: String = default("metrifold-"),
        /// How often the state of the loaded rules is read from the rulers.
        status_interval: Period = default("30s"),
        /// Maximum size of a ruler's answer that lists its rules.
        max_answer_bytes: Size = default("256MiB"),
    }
}

/// Pauses between attempts to deliver rules to a ruler that does not answer.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(60);

inventory::submit! {
    ComponentInfo {
        kind: Kind::Sink,
        name: "ruler",
        summary: "Delivers rules to Prometheus, Thanos Rule, Mimir or Cortex, and checks that they are loaded.",
        keys: RulerConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "ruler")]
impl SinkConfig for RulerConfig {
    fn port(&self) -> SinkPort<'_> {
        SinkPort::Rules(self)
    }

    fn resources(&self) -> Vec<Resource> {
        self.rulers.iter().filter_map(RulerKeys::resource).collect()
    }

    fn files(&self) -> Vec<&Path> {
        self.client.files()
    }

    fn validate(&self, problems: &mut Problems) {
        self.client.validate(problems);
        rulers::validate(&self.rulers, problems);
        for (key, period) in [
            ("timeout", self.timeout),
            ("status_interval", self.status_interval),
        ] {
            if period < Period::millis(100) {
                problems.at(key, "must be at least 100ms");
            }
        }
        if self.max_pushes == 0 {
            problems.at("max_pushes", "must be at least 1");
        }
        if self.max_answer_bytes.0 == 0 {
            problems.at("max_answer_bytes", "must be at least 1B");
        }
    }
}

impl BuildSink<Rules> for RulerConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Sink<Rules>>, BuildError> {
        let names: Arc<[Arc<str>]> = self
            .rulers
            .iter()
            .map(|ruler| Arc::from(ruler.url.to_string()))
            .collect();
        let asker = Asker {
            client: self.client.client(self.rulers.len())?,
            credentials: self.client.credentials()?,
            timeout: self.timeout.0,
        };
        let rulers = self.rulers.iter().enumerate().map(|(at, ruler)| {
            let client = RulerClient {
                base: ruler.url.uri().clone(),
                asker: asker.clone(),
                max_answer: self.max_answer_bytes.bytes(),
            };
            Ok(Ruler {
                sink: cx.id.clone(),
                name: names[at].clone(),
                metrics: cx.metrics.clone(),
                shard: Shard::new(names.clone(), at),
                way: ruler.way(client, self.max_pushes, &self.namespace_prefix)?,
                statuses: Statuses::new(names[at].clone()),
                interval: self.status_interval.0,
            })
        });
        let rulers: Result<Vec<_>, BuildError> = rulers.collect();
        Ok(Box::new(RulerSink {
            id: cx.id.clone(),
            metrics: cx.metrics.clone(),
            reports: cx.reports.clone(),
            rulers: rulers?,
        }))
    }
}

struct RulerSink {
    id: Arc<str>,
    metrics: ComponentMetrics,
    reports: Reports,
    rulers: Vec<Ruler>,
}

impl Sink<Rules> for RulerSink {
    fn run(
        self: Box<Self>,
        mut input: Input,
        mut shutdown: Shutdown,
    ) -> BoxFuture<Result<(), RunError>> {
        Box::pin(async move {
            let (newest, _) = watch::channel(None);
            let mut rulers = JoinSet::new();
            let mut told = Conflicts::default();
            let board = status::Board::new(self.id.clone(), self.reports.clone());
            for ruler in self.rulers {
                rulers.spawn(ruler.run(newest.subscribe(), board.clone()));
            }
            let ended = loop {
                tokio::select! {
                    biased;
                    // Polled first: a replaced sink must not write after its successor.
                    () = shutdown.wait() => break Ok(()),
                    view = input.changed() => match view {
                        Some(view) => {
                            if let Some(set) = joined(&self.id, &self.metrics, &view, &mut told) {
                                newest.send_replace(Some(set));
                            }
                        }
                        None => break Ok(()),
                    },
                    Some(ended) = rulers.join_next() => {
                        break Err(RunError(match ended {
                            Ok(()) => "a ruler's task ended".to_owned(),
                            Err(error) => error.to_string(),
                        }));
                    }
                }
            };
            // Each ruler's task finishes its current delivery.
            drop(newest);
            while rulers.join_next().await.is_some() {}
            self.reports.remove(&self.id);
            ended
        })
    }
}

/// The rules that the rulers should have; `None` before all sources have published.
fn joined(
    id: &Arc<str>,
    metrics: &ComponentMetrics,
    view: &View,
    told: &mut Conflicts,
) -> Option<Joined> {
    let awaited: Vec<_> = view.awaited().map(|source| &**source).collect();
    if !awaited.is_empty() {
        info!(sink = %id, sources = awaited.join(", "), "waiting for the first rules of all sources");
        return None;
    }
    let joined = view.joined();
    metrics.rules_published(joined.set.len());
    told.tell(id, metrics, &joined);
    Some(joined)
}

/// The task that delivers rules to one ruler and reports their state.
struct Ruler {
    sink: Arc<str>,
    name: Arc<str>,
    metrics: ComponentMetrics,
    shard: Shard,
    way: Way,
    statuses: Statuses,
    interval: Duration,
}

impl Ruler {
    /// Delivers the newest rules until the sender of rules is dropped.
    async fn run(mut self, mut newest: watch::Receiver<Option<Joined>>, board: status::Board) {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        // Rules that are not delivered yet.
        let mut due: Option<Joined> = None;
        let mut is_first = true;
        let mut next_look = Instant::now() + self.interval;
        loop {
            if let Some(set) = &due {
                let set = set.clone();
                if self.bring(&set).await {
                    due = None;
                    backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
                }
                board.put(&self.name, self.statuses.report(&set, &self.way));
            }
            tokio::select! {
                biased;
                changed = newest.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let set = newest.borrow_and_update().clone();
                    if let Some(set) = set {
                        due = Some(self.shard.of(&set));
                        // Before this start, there may have been other rulers.
                        if std::mem::take(&mut is_first) {
                            self.way.disown(self.shard.others());
                        }
                    }
                }
                () = tokio::time::sleep(backoff.next_pause()), if due.is_some() => {}
                () = tokio::time::sleep_until(next_look), if due.is_none() => {
                    next_look = Instant::now() + self.interval;
                    if self.look().await {
                        let set = self.shard.mine().clone();
                        board.put(&self.name, self.statuses.report(&set, &self.way));
                    } else {
                        // The ruler has lost rules: they are delivered again.
                        self.way.forget();
                        due = Some(self.shard.mine().clone());
                    }
                }
            }
        }
    }

    /// Delivers a set; returns whether the ruler has all of it but for the groups that it refuses.
    async fn bring(&mut self, joined: &Joined) -> bool {
        let before = self.way.refused().to_vec();
        match self.way.install(joined).await {
            Outcome::Same => true,
            Outcome::Loaded => {
                self.metrics.succeeded();
                info!(sink = %self.sink, ruler = %self.name, tenants = joined.set.len(), "rules were loaded");
                self.loaded(&before).await
            }
            Outcome::Partly(reason) => {
                self.metrics.failed("reload", &reason);
                error!(sink = %self.sink, ruler = %self.name, %reason, "the rules of some tenants were not delivered: they are tried again");
                self.loaded(&before).await;
                false
            }
            Outcome::Failed(reason) => {
                self.metrics.failed("reload", &reason);
                error!(sink = %self.sink, ruler = %self.name, %reason, "the rules were not delivered: the delivery is tried again");
                // A search may have got through a part of them.
                self.statuses.loaded(self.way.good());
                false
            }
        }
    }

    /// Records what the ruler has accepted and refused, and reads its state.
    async fn loaded(&mut self, before: &[Refused]) -> bool {
        self.statuses.loaded(self.way.good());
        let new = |refused: &&Refused| !before.contains(refused);
        for refused in self.way.refused().iter().filter(new) {
            self.metrics.error("refused", &refused.reason);
            warn!(
                sink = %self.sink,
                ruler = %self.name,
                tenant = %refused.tenant,
                file = %refused.file,
                group = %refused.group.name,
                reason = %refused.reason,
                "the ruler refuses a group: it keeps its previous version, and all other groups are delivered"
            );
        }
        self.look().await
    }

    /// Reads the state of the rules from the ruler. Returns `false` only if rules are missing there; a
    /// failed request counts as `true`.
    async fn look(&mut self) -> bool {
        if self.way.good().is_none() {
            return true;
        }
        match self.way.look().await {
            Ok(heard) => {
                if let Some(missing) = &heard.missing {
                    let reason = format!("the ruler does not have {missing}{}", self.way.hint());
                    self.metrics.failed("missing", &reason);
                    error!(sink = %self.sink, ruler = %self.name, %reason, "the ruler lacks rules that were delivered");
                }
                if let Some(reason) = &heard.unheard {
                    self.metrics.error("status", reason);
                    warn!(sink = %self.sink, ruler = %self.name, %reason, "the state of a tenant's rules could not be read from the ruler");
                }
                let is_whole = heard.missing.is_none();
                self.statuses.take(heard);
                is_whole
            }
            Err(reason) => {
                self.metrics.error("status", &reason);
                warn!(sink = %self.sink, ruler = %self.name, %reason, "the state of the rules could not be read from the ruler");
                true
            }
        }
    }
}
