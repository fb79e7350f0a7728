//! `consul`: instances of the services that a Consul agent knows, as Prometheus' `consul_sd_configs`.
//!
//! Each service is a source of its own, and so is the catalog that names them. Both are followed by
//! blocking queries, which answer when something has changed: a change of one instance costs one
//! answer of one service. Targets known before stay until every service has answered once.

mod answers;
mod query;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use metrifold_base::keys::Keys;
use metrifold_base::{
    Backoff, BoxFuture, BuildError, Endpoint, Period, Problems, RunError, Secret, keys,
};
use metrifold_http::{ClientKeys, SecretFrom};

use crate::answer::{Failure, Reason};
use crate::labels::Labels;
use crate::limits::{LimitKeys, Limits, OnEmpty};
use crate::provider::{Provider, ProviderConfig, ProviderContext, ProviderInfo};
use crate::slot::{Answer, Feed};

use query::{Agent, Heard};

/// Name of the catalog's source.
const CATALOG: &str = "/v1/catalog/services";
/// The longest wait that Consul grants.
const WAIT_MAX: Period = Period::secs(600);
/// Pauses between attempts after a failure.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Capacity of the channel of answers.
const WAITING: usize = 256;
/// The most answers that are handled together.
const TOGETHER: usize = 1000;

keys! {
    /// `[discovery.NAME] type = "consul"`.
    #[derive(Clone, Debug)]
    pub struct ConsulConfig {
        /// URL of a Consul agent. A path in it is put in front of the paths of the API.
        pub(super) server: Endpoint = default("http://localhost:8500"),
        /// Consul ACL token.
        pub(super) token: Option<Secret> = unset("${CONSUL_HTTP_TOKEN}"),
        /// File with the token, instead of `token`. Trailing white space is ignored.
        pub(super) token_file: Option<PathBuf> = unset("/etc/metrifold/consul-token"),
        /// Datacenter to query; by default, that of the agent.
        pub(super) datacenter: Option<String> = unset("dc1"),
        /// Namespace to query (Consul Enterprise only).
        pub(super) namespace: Option<String> = unset("team-a"),
        /// Admin partition to query (Consul Enterprise only).
        pub(super) partition: Option<String> = unset("default"),
        /// Names of the services whose instances are targets; by default, all services.
        pub(super) services: Vec<String> = unset(["web"]),
        /// Tags that an instance must have to be a target. All of them must be present.
        pub(super) tags: Vec<String> = unset(["metrics"]),
        /// Node metadata that the node of an instance must have.
        pub(super) node_meta: BTreeMap<String, String> = unset({ rack = "r1" }),
        /// Filter expression for services of the catalog, in Consul's filter syntax.
        pub(super) filter: Option<String> = unset("\"metrics\" in ServiceTags"),
        /// Filter expression for instances, in Consul's filter syntax.
        pub(super) health_filter: Option<String> = unset("Service.Meta.scrape == \"true\""),
        /// Separator between, and around, the tags in `__meta_consul_tags`.
        pub(super) tag_separator: String = default(","),
        /// Allow stale results, which any server of the cluster may return though it lags behind the leader. This reduces the load on Consul.
        pub(super) allow_stale: bool = default(true),
        /// Maximum duration of a blocking query while nothing changes, at most 10m. Consul adds up to a sixteenth of it.
        pub(super) wait: Period = default("2m"),
        /// Minimum time between two queries for the same service or catalog, which limits the load from services that change constantly.
        pub(super) refresh_interval: Period = default("1s"),
        /// Maximum time for an answer, in addition to `wait`.
        pub(super) timeout: Period = default("15s"),
        /// Maximum number of services. Each takes a query in flight; a catalog with more services is rejected.
        pub(super) max_services: usize = default(10000),
        pub(super) client: ClientKeys = include,
        pub(super) limits: LimitKeys = include,
    }
}

inventory::submit! {
    ProviderInfo {
        name: "consul",
        summary: "service instances registered in Consul, as with Prometheus' consul_sd_configs",
        keys: ConsulConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "consul")]
impl ProviderConfig for ConsulConfig {
    fn limits(&self) -> Limits {
        self.limits.limits()
    }

    fn on_empty(&self) -> OnEmpty {
        // One service without instances is an answer; `judge` handles the case that no service has
        // any.
        OnEmpty::Take
    }

    fn question(&self) -> String {
        format!(
            "{} {:?}",
            self.server.uri(),
            (
                (&self.datacenter, &self.namespace, &self.partition),
                (&self.services, &self.tags, &self.node_meta),
                (&self.filter, &self.health_filter, &self.tag_separator),
            )
        )
    }

    fn files(&self) -> Vec<&Path> {
        let mut files = self.client.files();
        files.extend(self.token_file.as_deref());
        files
    }

    fn validate(&self, problems: &mut Problems) {
        if self.server.uri().query().is_some() {
            problems.at("server", "must have no query");
        }
        if self.token.is_some() || self.token_file.is_some() {
            self.secret()
                .validate("", ["token", "token_file"], problems);
        }
        for (at, name) in self.services.iter().enumerate() {
            if name.is_empty() {
                problems.at(format!("services[{at}]"), "must not be empty");
            }
        }
        if self.services.len() > self.max_services {
            problems.at("services", "are more than max_services");
        }
        if self.max_services == 0 {
            problems.at("max_services", "must be at least 1");
        }
        if !(Period::millis(100)..=WAIT_MAX).contains(&self.wait) {
            problems.at("wait", "must be from 100ms to 10m");
        }
        if self.refresh_interval < Period::millis(100) {
            problems.at("refresh_interval", "must be at least 100ms");
        }
        if self.timeout.0.is_zero() {
            problems.at("timeout", "must be longer than 0s");
        }
        self.client.validate(problems);
        self.limits.validate(problems);
    }

    fn build(&self, _cx: &ProviderContext) -> Result<Box<dyn Provider>, BuildError> {
        let token = match self.token.is_some() || self.token_file.is_some() {
            true => Some(
                self.secret()
                    .read()
                    .map_err(|error| BuildError::new("token", error))?,
            ),
            false => None,
        };
        Ok(Box::new(Consul(Arc::new(Agent::new(self, token)?))))
    }
}

impl ConsulConfig {
    fn secret(&self) -> SecretFrom<'_> {
        SecretFrom::new(self.token.as_ref(), self.token_file.as_deref())
    }

    /// Whether the services have to be looked up in the catalog.
    fn asks_catalog(&self) -> bool {
        self.services.is_empty() || !self.tags.is_empty() || self.filter.is_some()
    }

    fn wants(&self, name: &str, tags: &[String]) -> bool {
        let named = self.services.is_empty() || self.services.iter().any(|it| it == name);
        named && self.tags.iter().all(|tag| tags.contains(tag))
    }
}

struct Consul(Arc<Agent>);

/// Result of a query.
enum Event {
    /// The services that match the configuration; `None` if they have not changed.
    Catalog(Result<Option<BTreeSet<Arc<str>>>, Failure>),
    /// The instances of a service; `None` if they have not changed.
    Service(Arc<str>, Result<Option<Vec<Labels>>, Failure>),
}

impl Provider for Consul {
    fn run(self: Box<Self>, feed: Feed) -> BoxFuture<Result<(), RunError>> {
        Box::pin(async move {
            let agent = self.0;
            let datacenter = datacenter(&agent, &feed).await;
            let (events, mut heard) = mpsc::channel(WAITING);
            let mut follower = Follower {
                datacenter,
                events,
                tasks: JoinSet::new(),
                services: HashMap::new(),
                first: Some(First::default()),
                targets: HashMap::new(),
                feed,
                agent,
            };
            follower.begin();
            let mut together = Vec::new();
            while heard.recv_many(&mut together, TOGETHER).await > 0 {
                follower.take(std::mem::take(&mut together));
                follower.ended()?;
            }
            Ok(())
        })
    }
}

/// The datacenter that answers, which is a label of every target.
async fn datacenter(agent: &Agent, feed: &Feed) -> Arc<str> {
    let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
    loop {
        match agent.datacenter().await {
            Ok(datacenter) => return datacenter.into(),
            Err(failure) => feed.some(vec![(CATALOG.into(), Err(failure))]),
        }
        tokio::time::sleep(backoff.next_pause()).await;
    }
}

/// Answers that are held back until every source has answered once.
#[derive(Default)]
struct First {
    answers: HashMap<Arc<str>, Result<Vec<Labels>, Failure>>,
}

/// Follows the catalog and each service that matches the configuration.
struct Follower {
    agent: Arc<Agent>,
    feed: Feed,
    datacenter: Arc<str>,
    events: mpsc::Sender<Event>,
    tasks: JoinSet<()>,
    services: HashMap<Arc<str>, AbortHandle>,
    first: Option<First>,
    /// Number of targets of each service.
    targets: HashMap<Arc<str>, usize>,
}

impl Follower {
    fn begin(&mut self) {
        if self.agent.config.asks_catalog() {
            let (agent, events) = (self.agent.clone(), self.events.clone());
            self.tasks.spawn(async move {
                follow(
                    &agent,
                    |index| agent.catalog(index),
                    |heard| {
                        let event = heard.map(|services| services.map(|it| agent.wanted(it)));
                        let event = event.and_then(|it| it.transpose());
                        send(&events, Event::Catalog(event))
                    },
                )
                .await;
            });
            return;
        }
        let names: BTreeSet<&String> = self.agent.config.services.iter().collect();
        let names: Vec<Arc<str>> = names.into_iter().map(|name| name.as_str().into()).collect();
        for name in names {
            self.watch(name);
        }
    }

    fn watch(&mut self, name: Arc<str>) {
        let (agent, events) = (self.agent.clone(), self.events.clone());
        let (datacenter, service) = (self.datacenter.clone(), name.clone());
        let task = self.tasks.spawn(async move {
            follow(
                &agent,
                |index| agent.service(&service, index),
                |heard| {
                    let found = heard.map(|instances| {
                        instances.map(|it| agent.targets(&service, &datacenter, it))
                    });
                    send(&events, Event::Service(service.clone(), found))
                },
            )
            .await;
        });
        self.services.insert(name, task);
    }

    /// Handles answers and reports them to the feed.
    fn take(&mut self, events: Vec<Event>) {
        let mut answers: HashMap<Arc<str>, Result<Vec<Labels>, Failure>> = HashMap::new();
        let mut gone = Vec::new();
        for event in events {
            match event {
                Event::Service(name, heard) if self.services.contains_key(&name) => match heard {
                    Ok(Some(found)) => {
                        answers.insert(name, Ok(found));
                    }
                    Err(failure) => {
                        answers.insert(name, Err(failure));
                    }
                    Ok(None) => {}
                },
                // An answer to a query from before the service was removed.
                Event::Service(..) => {}
                Event::Catalog(Ok(None)) => {}
                Event::Catalog(Ok(Some(wanted))) => {
                    let answer = self.catalog(wanted, &mut gone);
                    answers.insert(CATALOG.into(), answer);
                }
                Event::Catalog(Err(failure)) => {
                    answers.insert(CATALOG.into(), Err(failure));
                }
            }
        }
        answers.retain(|name, _| !gone.contains(name));
        let Some(mut first) = self.first.take() else {
            let answers = self.judge(answers);
            if !gone.is_empty() {
                self.feed.without(gone);
            }
            self.feed.some(answers);
            return;
        };
        first.answers.extend(answers);
        first.answers.retain(|name, _| !gone.contains(name));
        let catalog = !self.agent.config.asks_catalog();
        let catalog = catalog || matches!(first.answers.get(CATALOG), Some(Ok(_)));
        let answered = |name| first.answers.contains_key(name);
        if catalog && self.services.keys().all(answered) {
            let answers = self.judge(first.answers);
            self.feed.all(answers);
            return;
        }
        if let Some(Err(failure)) = first.answers.get(CATALOG) {
            let failure = failure.clone();
            self.feed.some(vec![(CATALOG.into(), Err(failure))]);
        }
        self.first = Some(first);
    }

    /// Starts following new services and stops following those that left the catalog. If none is
    /// left, that is treated as lost permission, which Consul shows as an empty list.
    fn catalog(
        &mut self,
        wanted: BTreeSet<Arc<str>>,
        gone: &mut Vec<Arc<str>>,
    ) -> Result<Vec<Labels>, Failure> {
        let known: usize = self.known();
        if wanted.is_empty() && known > 0 && self.keeps() {
            let text = format!(
                "the catalog has no such service: keeping the {known} targets known so far"
            );
            return Err(Failure::new(Reason::Empty, text));
        }
        let left: Vec<Arc<str>> = self
            .services
            .keys()
            .filter(|name| !wanted.contains(*name))
            .cloned()
            .collect();
        for name in left {
            if let Some(task) = self.services.remove(&name) {
                task.abort();
            }
            self.targets.remove(&name);
            gone.push(name);
        }
        for name in wanted {
            if !self.services.contains_key(&name) {
                self.watch(name);
            }
        }
        Ok(Vec::new())
    }

    /// Turns answers that would remove the last target into failures.
    fn judge(&mut self, answers: HashMap<Arc<str>, Result<Vec<Labels>, Failure>>) -> Vec<Answer> {
        let before = self.known();
        let was = self.targets.clone();
        for (name, answer) in &answers {
            if let Ok(found) = answer {
                self.targets.insert(name.clone(), found.len());
            }
        }
        let nothing = self.targets.values().all(|count| *count == 0);
        if !nothing || before == 0 || !self.keeps() {
            return answers.into_iter().collect();
        }
        self.targets = was;
        let refuse = |(name, answer): (Arc<str>, Result<Vec<Labels>, Failure>)| {
            let answer = answer.and_then(|found| match &*name {
                CATALOG => Ok(found),
                _ => {
                    let text = format!(
                        "no service has an instance: keeping the {before} targets known so far"
                    );
                    Err(Failure::new(Reason::Empty, text))
                }
            });
            (name, answer)
        };
        answers.into_iter().map(refuse).collect()
    }

    fn keeps(&self) -> bool {
        self.agent.config.limits.on_empty == OnEmpty::Keep
    }

    /// Number of known targets, those of an earlier run included.
    fn known(&self) -> usize {
        match self.first {
            Some(_) => self.feed.count(),
            None if self.targets.is_empty() => self.feed.count(),
            None => self.targets.values().sum(),
        }
    }

    /// Fails if a task has panicked.
    fn ended(&mut self) -> Result<(), RunError> {
        while let Some(ended) = self.tasks.try_join_next() {
            match ended {
                Err(error) if error.is_panic() => return Err(RunError(error.to_string())),
                _ => {}
            }
        }
        Ok(())
    }
}

async fn send(events: &mpsc::Sender<Event>, event: Event) {
    // Without a receiver the follower is gone, and this task ends with it.
    let _ = events.send(event).await;
}

/// Asks in a loop. Each query carries the index of the last answer, so that Consul holds it back
/// until something has changed.
async fn follow<T, A, S>(
    agent: &Agent,
    ask: impl Fn(u64) -> A,
    send: impl Fn(Result<Option<T>, Failure>) -> S,
) where
    A: Future<Output = Result<Heard<T>, Failure>>,
    S: Future<Output = ()>,
{
    let mut index = 0;
    let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
    loop {
        let again = tokio::time::Instant::now() + agent.config.refresh_interval.0;
        // First queries are answered at once, so that their number in flight is bounded.
        let permit = match index {
            0 => agent.starting.acquire().await.ok(),
            _ => None,
        };
        let heard = ask(index).await;
        drop(permit);
        match heard {
            Ok(heard) => {
                backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
                let same = index != 0 && heard.index == index;
                index = heard.next(index);
                send(Ok((!same).then_some(heard.content))).await;
                tokio::time::sleep_until(again).await;
            }
            Err(failure) => {
                // The next query must not block, and its answer must be complete.
                index = 0;
                send(Err(failure)).await;
                tokio::time::sleep(backoff.next_pause()).await;
            }
        }
    }
}
