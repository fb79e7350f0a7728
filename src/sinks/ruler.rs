//! Brings rules to Prometheus or Thanos Rule: into a folder that the ruler reads, and has it read
//! them; or to a ruler of Mimir or Cortex, by its configuration API.
//!
//! Delivery: the folder is changed whole or not at all, only when something in it changes, and
//! then the ruler is told to reload; its rules API says whether it has them. What it does not answer
//! is tried again. Rules that it refuses are searched for the group that is at fault: that one stays
//! as it was, or out, and all others go on. Nothing is written before every source that leads here
//! has published.
//!
//! Of several rulers, each tenant's rules go to one, which depends on nothing but the tenant's name
//! and the rulers' URLs: when a ruler comes or goes, no tenant moves but to or from that one.
//!
//! Limits: the time of a request, the bytes of an answer.

mod client;
mod install;
mod push;
mod shard;
mod status;
mod way;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use metrifold_base::keys::Keys;
use metrifold_base::{
    Backoff, BoxFuture, BuildError, Endpoint, Period, Problems, RunError, Shutdown, Size, keys,
};
use metrifold_engine::component::{
    BuildContext, BuildSink, ComponentInfo, Resource, SinkConfig, SinkPort,
};
use metrifold_engine::planes::Sink;
use metrifold_engine::planes::rules::{Input, Reports, RuleSet, Rules, View};
use metrifold_http::ClientKeys;
use metrifold_model::Kind;
use metrifold_telemetry::ComponentMetrics;

use client::RulerClient;
use install::Installer;
use push::Pusher;
use shard::Shard;
use status::Statuses;
use way::{Outcome, Refused, Way};

keys! {
    /// A ruler, and the folder that it reads or the URL that rules are pushed to.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct RulerKeys {
        /// URL of the ruler, with the path in front of `/-/reload` and `/api/v1/rules` if there is one.
        url: Endpoint = required("http://127.0.0.1:9090"),
        /// Folder that this ruler reads, as `DIRECTORY/*.yaml`. It must not exist, be empty, or be one that this sink has made.
        directory: Option<PathBuf> = suggested("/var/lib/ruler/rules"),
        /// URL of the configuration API of a ruler of Mimir or Cortex, to which the rules of each tenant are pushed, in place of `directory`. What a tenant has there and here not is removed.
        push_url: Option<Endpoint> = unset("http://mimir:8080/prometheus/config/v1/rules"),
    }
}

keys! {
    /// Configuration of the `ruler` sink.
    #[derive(Clone, Debug)]
    pub struct RulerConfig {
        /// The rulers, each with its `url`, and the `directory` that it reads or the `push_url` that it is sent rules at; of several, each has some of the tenants.
        rulers: Vec<RulerKeys> = required([{ url = "http://127.0.0.1:9090", directory = "/var/lib/ruler/rules" }]),
        client: ClientKeys = include,
        /// Longest time for a request, such as a reload.
        timeout: Period = default("60s"),
        /// How often the rulers are asked how it goes with the rules.
        status_interval: Period = default("30s"),
        /// Largest answer of a ruler that says which rules it has.
        max_answer_bytes: Size = default("256MiB"),
    }
}

/// The pauses between attempts to bring rules to a ruler that does not answer.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(60);

inventory::submit! {
    ComponentInfo {
        kind: Kind::Sink,
        name: "ruler",
        summary: "Brings rules to Prometheus or Thanos Rule, and sees that they are loaded.",
        keys: RulerConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "ruler")]
impl SinkConfig for RulerConfig {
    fn port(&self) -> SinkPort<'_> {
        SinkPort::Rules(self)
    }

    fn resources(&self) -> Vec<Resource> {
        let folders = self
            .rulers
            .iter()
            .filter_map(|ruler| ruler.directory.clone());
        folders.map(Resource::Folder).collect()
    }

    fn files(&self) -> Vec<&Path> {
        self.client.files()
    }

    fn validate(&self, problems: &mut Problems) {
        self.client.validate(problems);
        if self.rulers.is_empty() {
            problems.at("rulers", "must name at least one ruler");
        }
        let (mut urls, mut folders) = (BTreeSet::new(), BTreeSet::new());
        for (place, ruler) in self.rulers.iter().enumerate() {
            if ruler.url.uri().query().is_some() {
                problems.at(format!("rulers[{place}].url"), "must have no query string");
            }
            if !urls.insert(ruler.url.to_string()) {
                problems.at(format!("rulers[{place}].url"), "is that of another ruler");
            }
            if ruler.directory.is_some() == ruler.push_url.is_some() {
                let key = format!("rulers[{place}]");
                let help = "write one of directory and push_url";
                let what = "rules come to a ruler by a folder, or are pushed to it";
                problems.at(key, what).help(help);
            }
            let push = ruler.push_url.as_ref();
            if push.is_some_and(|push| push.uri().query().is_some()) {
                let key = format!("rulers[{place}].push_url");
                problems.at(key, "must have no query string");
            }
            let Some(directory) = &ruler.directory else {
                continue;
            };
            if directory.file_name().is_none() {
                let key = format!("rulers[{place}].directory");
                problems.at(key, "must end in the folder's own name");
            }
            if !folders.insert(directory) {
                let key = format!("rulers[{place}].directory");
                problems.at(key, "is that of another ruler");
            }
        }
        for (key, period) in [
            ("timeout", self.timeout),
            ("status_interval", self.status_interval),
        ] {
            if period < Period::millis(100) {
                problems.at(key, "must be at least 100ms");
            }
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
        let client = self.client.client(self.rulers.len())?;
        let credentials = self.client.credentials()?;
        let rulers = self.rulers.iter().enumerate().map(|(at, ruler)| {
            let client = RulerClient {
                base: ruler.url.uri().clone(),
                client: client.clone(),
                credentials: credentials.clone(),
                timeout: self.timeout.0,
                max_answer: self.max_answer_bytes.bytes(),
            };
            Ruler {
                sink: cx.id.clone(),
                name: names[at].clone(),
                metrics: cx.metrics.clone(),
                shard: Shard::new(names.clone(), at),
                way: match (&ruler.push_url, &ruler.directory) {
                    (Some(url), _) => Way::Push(Pusher::new(client, url.uri().clone())),
                    (None, directory) => {
                        let directory = directory.clone().unwrap_or_default();
                        Way::Folder(Installer::new(directory, client))
                    }
                },
                statuses: Statuses::new(names[at].clone()),
                interval: self.status_interval.0,
            }
        });
        Ok(Box::new(RulerSink {
            id: cx.id.clone(),
            metrics: cx.metrics.clone(),
            reports: cx.reports.clone(),
            rulers: rulers.collect(),
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
            let board = status::Board::new(self.id.clone(), self.reports.clone());
            for ruler in self.rulers {
                rulers.spawn(ruler.run(newest.subscribe(), board.clone()));
            }
            let ended = loop {
                tokio::select! {
                    biased;
                    // First: a sink that was replaced must not write after its successor.
                    () = shutdown.wait() => break Ok(()),
                    view = input.changed() => match view {
                        Some(view) => {
                            if let Some(set) = joined(&self.id, &self.metrics, &view) {
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
            // Each finishes what it is doing.
            drop(newest);
            while rulers.join_next().await.is_some() {}
            self.reports.remove(&self.id);
            ended
        })
    }
}

/// What the rulers should have, if that is known.
fn joined(id: &Arc<str>, metrics: &ComponentMetrics, view: &View) -> Option<RuleSet> {
    let awaited: Vec<_> = view.awaited().map(|source| &**source).collect();
    if !awaited.is_empty() {
        info!(sink = %id, sources = awaited.join(", "), "waits for the first rules of all sources");
        return None;
    }
    match view.joined() {
        Ok(set) => {
            metrics.rules_published(set.len());
            Some(set)
        }
        Err(conflict) => {
            metrics.error("conflict", &conflict);
            error!(sink = %id, %conflict, "rules were not brought to the rulers: those of before stay");
            None
        }
    }
}

/// One ruler, and what it has.
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
    /// Brings it the newest rules until there can be none any more.
    async fn run(mut self, mut newest: watch::Receiver<Option<RuleSet>>, board: status::Board) {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        // What it should have and does not have yet.
        let mut due: Option<RuleSet> = None;
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
                    }
                }
                () = tokio::time::sleep(backoff.next_pause()), if due.is_some() => {}
                () = tokio::time::sleep(self.interval), if due.is_none() => {
                    if self.look().await {
                        let set = self.shard.mine().clone();
                        board.put(&self.name, self.statuses.report(&set, &self.way));
                    } else {
                        // It has lost them: they are brought again.
                        self.way.forget();
                        due = Some(self.shard.mine().clone());
                    }
                }
            }
        }
    }

    /// Brings it a set; says whether it has all of that which it does not refuse.
    async fn bring(&mut self, set: &RuleSet) -> bool {
        let before = self.way.refused().to_vec();
        match self.way.install(set).await {
            Outcome::Same => true,
            Outcome::Loaded => {
                self.metrics.succeeded();
                info!(sink = %self.sink, ruler = %self.name, tenants = set.len(), "rules were loaded");
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
                        "the ruler refuses a group: it stays as it was, and all others go on"
                    );
                }
                self.look().await
            }
            Outcome::Failed(reason) => {
                self.metrics.failed("reload", &reason);
                error!(sink = %self.sink, ruler = %self.name, %reason, "rules were not loaded: it is tried again");
                false
            }
        }
    }

    /// Asks how it goes with the rules. Says whether it has them, or does not say.
    async fn look(&mut self) -> bool {
        if self.way.good().is_none() {
            return true;
        }
        match self.way.look().await {
            Ok(heard) => {
                if let Some(missing) = &heard.missing {
                    let reason = format!("it does not have {missing}{}", self.way.hint());
                    self.metrics.failed("missing", &reason);
                    error!(sink = %self.sink, ruler = %self.name, %reason, "the ruler has not loaded the rules");
                }
                let is_whole = heard.missing.is_none();
                self.statuses.take(heard);
                is_whole
            }
            Err(reason) => {
                self.metrics.error("status", &reason);
                warn!(sink = %self.sink, ruler = %self.name, %reason, "the ruler does not say which rules it has");
                true
            }
        }
    }
}
