//! Routes queries: sends each to a replica, retries it at another, and probes the replicas.

mod attempt;
mod bodies;
mod cached;
mod merged;
mod meters;
mod probing;
mod query;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header::{HeaderName, HeaderValue, SET_COOKIE};
use http::{HeaderMap, Method, Uri};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use metrifold_base::{BuildError, locked};
use metrifold_http::{Body, Response};
use metrifold_model::{Rejection, RejectionKind};
use metrifold_telemetry::Telemetry;

use crate::affinity::{By, Jar, Key, client_address};
use crate::budget::Budget;
use crate::cache::Cache;
use crate::fleet::{Choice, Fleet, NoReplica, View, Wish};
use crate::keys::{HedgeKeys, RoutingKeys};
use crate::latency::Latency;
use crate::page;
use crate::probe::Plan;
use crate::replica::Replica;
use crate::strategy::Kind;
use crate::time::epoch_ms;

use attempt::Failure;
use cached::Flights;
use merged::Merged;
use meters::Meters;
use query::Prepared;

/// A query as the caller sent it.
#[derive(Debug)]
pub struct Ask {
    /// The method.
    pub method: Method,
    /// The path below the root of the API, with the query string.
    pub uri: Uri,
    /// The headers to forward.
    pub headers: HeaderMap,
    /// The body, unread.
    pub body: Body,
    /// Tenant of the query, if known.
    pub tenant: Option<Arc<str>>,
    /// Address of the connection's peer: the caller, or a proxy in front.
    pub peer: Option<IpAddr>,
    /// The caller's cookies.
    pub cookies: Vec<HeaderValue>,
    /// Time until which the caller waits.
    pub deadline: Instant,
}

/// Routes queries to replicas.
pub struct Router {
    id: Arc<str>,
    keys: RoutingKeys,
    statuses: Vec<u16>,
    served_by: Option<HeaderName>,
    plan: Plan,
    jar: Jar,
    fleet: Mutex<Fleet>,
    meters: Mutex<Meters>,
    budget: Mutex<Budget>,
    latency: Mutex<Latency>,
    cache: Option<Cache>,
    flights: Flights,
    /// Counts changes of the fleet's state, for tasks that wait for one.
    changed: watch::Sender<u64>,
    /// Wakes the probing when replicas are replaced.
    replaced: Notify,
    seed: RandomState,
    drawn: AtomicU64,
    affinity_hits: [AtomicU64; 3],
    started: Instant,
}

/// Percentile of response times on the status page, when no hedge sets one.
const PERCENTILE: u32 = 95;

impl Router {
    /// A router without replicas. Sends nothing yet.
    ///
    /// # Errors
    ///
    /// Fails when a secret file cannot be read.
    pub fn new(id: Arc<str>, keys: RoutingKeys, telemetry: &Telemetry) -> Result<Self, BuildError> {
        let percentile = keys.hedge.as_ref().map_or(PERCENTILE, |it| it.percentile);
        let served_by = keys.served_by_header.as_str();
        let served_by = match served_by {
            "" => None,
            name => Some(
                name.parse()
                    .map_err(|e| BuildError::new("served_by_header", e))?,
            ),
        };
        Ok(Self {
            statuses: keys.statuses(),
            plan: Plan::new(&keys),
            jar: Jar::build(&keys.cookie)?,
            fleet: Mutex::new(Fleet::new(keys.fleet())),
            meters: Mutex::new(Meters::new(id.clone(), telemetry.clone())),
            budget: Mutex::new(Budget::new(
                keys.retry.budget_percent,
                keys.retry.budget_start,
            )),
            latency: Mutex::new(Latency::new(f64::from(percentile) / 100.0)),
            cache: keys.cache.as_ref().map(Cache::new),
            flights: Flights::default(),
            changed: watch::Sender::new(0),
            replaced: Notify::new(),
            seed: RandomState::new(),
            drawn: AtomicU64::new(0),
            affinity_hits: Default::default(),
            started: Instant::now(),
            served_by,
            keys,
            id,
        })
    }

    /// Replaces the replicas and has the new ones probed.
    pub fn set(&self, replicas: Vec<Replica>) {
        self.look(|fleet, now| fleet.set(replicas, epoch_ms(), now));
        self.replaced.notify_one();
    }

    /// The state for the status page and the API.
    pub fn view(&self) -> View {
        let mut view = locked(&self.fleet).view(epoch_ms(), Instant::now());
        view.cache = self.cache.as_ref().map(Cache::view);
        view
    }

    /// Numbers of available and of selected replicas.
    pub fn standing(&self) -> (usize, usize) {
        locked(&self.fleet).standing(Instant::now())
    }

    /// The metrics under the names of mpp.
    pub fn mpp_metrics(&self) -> String {
        let hits = [By::Dashboard, By::Cookie, By::SourceAddress]
            .into_iter()
            .zip(&self.affinity_hits)
            .map(|(by, hits)| (by.as_str(), hits.load(Ordering::Relaxed)));
        page::metrics(&self.view(), self.standing().1, hits)
    }

    /// The status page.
    pub fn status_page(&self) -> String {
        let facts = page::Facts {
            name: &self.id,
            up: self.started.elapsed(),
            interval: self.keys.probe.interval,
            affinity: self.keys.affinity.iter().map(|by| by.as_str()).collect(),
            retries_left: locked(&self.budget).left(),
            slow: locked(&self.latency).quantile(),
        };
        page::status(&facts, &self.view(), epoch_ms())
    }

    /// Runs a change of the fleet, updates the meters, and wakes tasks that wait for a change.
    fn look<T>(&self, change: impl FnOnce(&mut Fleet, Instant) -> T) -> T {
        let mut fleet = locked(&self.fleet);
        let done = change(&mut fleet, Instant::now());
        locked(&self.meters).show(&fleet, Instant::now());
        drop(fleet);
        self.changed
            .send_modify(|changes| *changes = changes.wrapping_add(1));
        done
    }

    /// Answers a query.
    ///
    /// # Errors
    ///
    /// Fails when no replica answers the query.
    pub async fn ask(self: Arc<Self>, ask: Ask) -> Result<Response, Rejection> {
        let query = Prepared::read(ask, self.keys.retry.max_body_bytes.bytes()).await?;
        if let Some(cache) = &self.cache
            && let Some(answer) = self.cached(cache, &query).await
        {
            return answer;
        }
        self.route(query).await
    }

    /// Answers a query from the replicas, past the cache.
    async fn route(self: Arc<Self>, mut query: Prepared) -> Result<Response, Rejection> {
        let patience = Instant::now() + self.keys.retry.duration.0;
        // `first` retries for `retry.duration`, like Caddy; the others until the caller's deadline,
        // within the limit of retries.
        let until = match self.keys.strategy {
            Kind::First => patience,
            _ => query.deadline,
        };
        locked(&self.budget).query();
        let mut tried: Vec<Arc<str>> = Vec::new();
        let mut retries = 0;
        let mut last: Option<Failure> = None;
        if self.keys.strategy == Kind::Merge && self.merges(&query) {
            match self.merged(&mut query).await {
                Merged::Answer(answer) => return Ok(answer),
                Merged::Alone => {}
                Merged::Failed(names, failure) => {
                    let Some(failure) = failure else {
                        let reason = format!("sink {}: no replica answered in time", self.id);
                        return Err(Rejection::new(RejectionKind::TimedOut, reason));
                    };
                    if !self.is_worth_another(&query, &failure, retries, until) {
                        return failure.answer(&self.id);
                    }
                    retries += 1;
                    for name in &names {
                        locked(&self.fleet).again(name, false);
                        locked(&self.meters).retried(name);
                    }
                    tried = names;
                    last = Some(failure);
                }
            }
        }
        loop {
            let choice = match self.choose(&query, &tried) {
                Ok(choice) => choice,
                Err(none) => {
                    let waits = tried.is_empty() || self.keys.strategy == Kind::First;
                    if waits && self.wait_for_replica(patience).await {
                        continue;
                    }
                    return match last {
                        Some(failure) => failure.answer(&self.id),
                        None => Err(self.refuse(&none)),
                    };
                }
            };
            let name = choice.replica.name.clone();
            let failure = match self.hedged(&query, choice, &mut tried).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if !self.is_worth_another(&query, &failure, retries, until) {
                return failure.answer(&self.id);
            }
            retries += 1;
            locked(&self.fleet).again(&name, false);
            locked(&self.meters).retried(&name);
            last = Some(failure);
            if self.keys.strategy == Kind::First {
                let pause = Instant::now() + self.keys.retry.interval.0;
                if pause > patience {
                    // Time is up: the last failure is the answer.
                    return last.map_or_else(
                        || Err(Rejection::unavailable("no replica answered")),
                        |failure| failure.answer(&self.id),
                    );
                }
                sleep_until(pause).await;
            }
        }
    }

    /// Whether a query is sent again after this failure. Takes a retry from the budget.
    fn is_worth_another(
        &self,
        query: &Prepared,
        failure: &Failure,
        retries: usize,
        until: Instant,
    ) -> bool {
        query.is_rewindable()
            && (query.idempotent || !failure.was_sent())
            && self.keys.retries().is_none_or(|most| retries < most)
            && Instant::now() < until
            && failure.is_worth_another()
            && (!failure.was_sent() || locked(&self.budget).take())
    }

    /// Waits for a change of the fleet. Returns false when the time is up.
    async fn wait_for_replica(&self, patience: Instant) -> bool {
        let mut changed = self.changed.subscribe();
        let interval = self.keys.retry.interval.0;
        if Instant::now() + interval > patience {
            return false;
        }
        // Failures expire without a notification, so the wait has an interval.
        let _ = timeout(interval, changed.changed()).await;
        true
    }

    /// The rejection of a query for which there is no replica.
    fn refuse(&self, none: &NoReplica) -> Rejection {
        let reason = format!("sink {}: {none}", self.id);
        match self.keys.strategy {
            // The status that Caddy answers with.
            Kind::First => Rejection::new(RejectionKind::Unreachable, reason),
            _ => Rejection::unavailable(reason),
        }
    }

    fn draw(&self) -> u64 {
        self.seed
            .hash_one(self.drawn.fetch_add(1, Ordering::Relaxed))
    }

    /// Chooses a replica by affinity, or else by the strategy.
    fn choose(&self, query: &Prepared, tried: &[Arc<str>]) -> Result<Choice, NoReplica> {
        let mut fleet = locked(&self.fleet);
        let by_cookie = !query.cookies.is_empty() && self.keys.affinity.contains(&By::Cookie);
        let named: Vec<Arc<str>> = match by_cookie {
            true => fleet.replicas().map(|it| it.name.clone()).collect(),
            false => Vec::new(),
        };
        let mut key = None;
        let mut bound = None;
        let mut by = None;
        for known in &self.keys.affinity {
            match known {
                By::Dashboard => key = Key::dashboard(&query.headers),
                By::Cookie => {
                    let names = named.iter().map(|name| &**name);
                    bound = self.jar.named(&query.cookies, names);
                }
                By::SourceAddress => {
                    let hops = self.keys.trusted_hops;
                    let address = client_address(&query.headers, query.peer, hops);
                    let text = address.map(|address| address.to_string());
                    key = text.map(|text| Key::of("source_address", text.as_bytes()));
                }
            }
            if key.is_some() || bound.is_some() {
                by = Some(*known);
                break;
            }
        }
        // Answers about a replica's own state differ between replicas: all such queries go to the
        // same one.
        if query.pinned && bound.is_none() {
            key = Some(Key::of("pinned", b""));
        }
        let wish = Wish {
            key,
            bound,
            range: query
                .range
                .filter(|_| matches!(self.keys.strategy, Kind::Covering | Kind::Merge)),
            tried,
            draw: self.draw(),
            wall: epoch_ms(),
        };
        let choice = fleet.choose(&wish, Instant::now())?;
        if let Some(by) = by.filter(|_| choice.by_affinity) {
            let place = match by {
                By::Dashboard => 0,
                By::Cookie => 1,
                By::SourceAddress => 2,
            };
            self.affinity_hits[place].fetch_add(1, Ordering::Relaxed);
        }
        Ok(choice)
    }

    /// Sends a query to a replica, and to a second one if the first is slow. Adds both to the replicas
    /// that were `tried`.
    async fn hedged(
        self: &Arc<Self>,
        query: &Prepared,
        choice: Choice,
        tried: &mut Vec<Arc<str>>,
    ) -> Result<Response, Failure> {
        let sets_cookie = choice.has_equals
            && !choice.by_affinity
            && self.keys.affinity.contains(&By::Cookie)
            && !query.pinned;
        let name = choice.replica.name.clone();
        let finish = |answer: Response, replica: &str| self.mark(answer, replica, sets_cookie);
        let hedge = self.keys.hedge.as_ref();
        let hedge = hedge.filter(|_| query.idempotent && query.is_rewindable() && !query.pinned);
        let body = query.body();
        tried.push(name.clone());
        let mut first = pin!(self.attempt(query, &choice.replica, body));
        let Some(hedge) = hedge else {
            return first.await.map(|answer| finish(answer, &name));
        };
        if let Ok(done) = timeout(self.hedge_delay(hedge), &mut first).await {
            return done.map(|answer| finish(answer, &name));
        }
        let second = self.choose(query, tried).ok();
        let second = second.filter(|second| second.replica.name != name);
        let second = second.filter(|_| locked(&self.budget).take());
        let Some(second) = second else {
            return first.await.map(|answer| finish(answer, &name));
        };
        locked(&self.fleet).again(&name, true);
        locked(&self.meters).hedged(&name);
        let other = second.replica.name.clone();
        tried.push(other.clone());
        let body = query.whole_body();
        let mut second = pin!(self.attempt(query, &second.replica, body));
        // The first success is the answer; after a failure, the other request decides.
        tokio::select! {
            done = &mut first => match done {
                Ok(answer) => Ok(finish(answer, &name)),
                Err(_) => second.await.map(|answer| finish(answer, &other)),
            },
            done = &mut second => match done {
                Ok(answer) => Ok(finish(answer, &other)),
                Err(_) => first.await.map(|answer| finish(answer, &name)),
            },
        }
    }

    fn hedge_delay(&self, hedge: &HedgeKeys) -> Duration {
        let known = locked(&self.latency).quantile();
        let delay = known.unwrap_or(hedge.max_delay.0);
        delay.clamp(hedge.min_delay.0, hedge.max_delay.0)
    }

    /// Names the replica in the answer's headers, and sets the cookie.
    fn mark(&self, mut answer: Response, replica: &str, sets_cookie: bool) -> Response {
        if let Some(name) = &self.served_by
            && let Ok(value) = HeaderValue::from_str(replica)
        {
            answer.headers_mut().insert(name, value);
        }
        if sets_cookie && let Some(cookie) = self.jar.set(replica) {
            answer.headers_mut().append(SET_COOKIE, cookie);
        }
        answer
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Router").field(&self.id).finish()
    }
}

#[cfg(test)]
mod tests;
