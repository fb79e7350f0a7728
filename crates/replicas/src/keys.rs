//! The groups of keys of whatever routes queries to replicas.

use std::collections::BTreeMap;
use std::path::Path;

use metrifold_base::{Endpoint, Period, Problems, Size, keys};
use metrifold_http::ClientKeys;

use crate::affinity::{By, CookieKeys};
use crate::breaker::BreakerOptions;
use crate::cache::CacheKeys;
use crate::fleet::FleetOptions;
use crate::health::HealthOptions;
use crate::strategy::{Kind, Strategy, WhenNone};

keys! {
    /// A replica.
    #[derive(Clone, Debug)]
    pub struct ReplicaKeys {
        /// URL of the server, with the path in front of `/api/v1/…` if there is one.
        pub endpoint: Endpoint = required("http://prometheus-0:9090"),
        /// Its share of the queries, next to the weights of the others; 0 for none.
        pub weight: u32 = default(1),
        /// Labels that it is shown with.
        pub labels: BTreeMap<String, String> = unset({ zone = "a" }),
        /// How to connect to it, instead of the router's own keys.
        pub client: Option<ClientKeys> = optional,
    }
}

keys! {
    /// How replicas are probed.
    #[derive(Clone, Debug)]
    pub struct ProbeKeys {
        /// Path that is asked for, below the replica's own; it may have a query string.
        pub path: String = default("/-/ready"),
        /// Text that must be in the answer's body; by default `Ready` with the strategy `first`, and none with the others. The status must be from 200 to 399.
        pub contains: Option<String> = unset("Ready"),
        /// Time between two probes. One that contradicts those before is followed by another after a second at most. With `0s` there are no probes: all replicas are available until requests fail.
        pub interval: Period = default("10s"),
        /// Longest time for all that is asked of a replica in one probe.
        pub timeout: Period = default("2s500ms"),
        /// Probes in a row that must fail until a replica is not asked any more; by default 1 with `first`, and 2 with the others.
        pub fall: Option<usize> = unset(2),
        /// Probes in a row that must succeed until a replica that fell is asked again; by default 1 with `first`, and 2 with the others.
        pub rise: Option<usize> = unset(2),
        /// Whether `/metrics` and the list of blocks are read, for what the strategy compares; by default with all but `first`.
        pub signals: Option<bool> = unset(true),
        /// Largest page of metrics, or list of blocks, that is read.
        pub max_bytes: Size = default("16MiB"),
    }
}

keys! {
    /// How often a query is sent again.
    #[derive(Clone, Debug)]
    pub struct RetryKeys {
        /// Most times that a query is sent again after a failure, to another replica. With `first`, by default, until `duration` is over, as Caddy does.
        pub max: Option<usize> = unset(2),
        /// Pause before a query is sent again with `first`, and between two looks for a replica when there is none.
        pub interval: Period = default("100ms"),
        /// Longest time for which a query is sent again, or waits for a replica when there is none.
        pub duration: Period = default("2s500ms"),
        /// Statuses after which a query is sent to another replica: by default 502, 503 and 504, and none with `first`. A 503 that bears an error of Prometheus' API, such as of a query that took too long, is never one.
        pub statuses: Option<Vec<u16>> = unset([502, 503, 504]),
        /// Retries and hedges together, in percent of the queries. A retry after a connection that could not be made is free.
        pub budget_percent: u32 = default(20),
        /// Retries and hedges that are possible before any query has been seen.
        pub budget_start: u32 = default(10),
        /// Largest body of a query that can be sent again.
        pub max_body_bytes: Size = default("1MiB"),
        /// Bytes of an answer that are awaited before it is passed on, so that a replica that dies meanwhile costs nobody an answer.
        pub answer_bytes: Size = default("64KiB"),
    }
}

keys! {
    /// How the answers of several replicas are merged.
    #[derive(Clone, Debug)]
    pub struct MergeKeys {
        /// Most replicas that are asked at once.
        pub replicas: usize = default(2),
        /// How long the others are awaited once one has answered. Then the answer has a warning for each that is missing.
        pub wait: Period = default("2s"),
        /// Largest answer of a replica that is merged; a larger one counts as missing.
        pub max_bytes: Size = default("64MiB"),
    }
}

keys! {
    /// When a query is sent to a second replica since the first is slow.
    #[derive(Clone, Debug)]
    pub struct HedgeKeys {
        /// Share of answers, in percent, that come before a query is sent to a second replica.
        pub percentile: u32 = default(95),
        /// Shortest time after which it is.
        pub min_delay: Period = default("50ms"),
        /// Longest time after which it is; also until enough answers have come to know better.
        pub max_delay: Period = default("2s"),
    }
}

keys! {
    /// When a replica is left alone for a time.
    #[derive(Clone, Debug)]
    pub struct BreakerKeys {
        /// Share of failed requests, in percent, from which on it is left alone.
        pub failure_percent: u32 = default(50),
        /// Requests within `window` below which the share says nothing.
        pub min_requests: u32 = default(20),
        /// Time over which requests are counted.
        pub window: Period = default("10s"),
        /// How long it is left alone, before one request tries it again.
        pub open: Period = default("5s"),
        /// How long it is left alone at most, after tries that failed.
        pub max_open: Period = default("1m"),
    }
}

keys! {
    /// How a replica is chosen, and what happens when it fails.
    #[derive(Clone, Debug)]
    pub struct RoutingKeys {
        /// How a replica is chosen: `first`, `random`, `minimum_history`, `most_data`, `least_loaded`, `covering` or `merge`.
        pub strategy: Kind = default("random"),
        /// How far back the data of a replica must go, with `minimum_history`.
        pub minimum_history: Option<Period> = unset("1h"),
        /// How much more samples another replica must have to take the place of the one with most, in percent, with `most_data`.
        pub margin_percent: u32 = default(1),
        /// How long a replica must have been back until it takes its place in front of another, with `first`.
        pub failback_delay: Period = default("0s"),
        /// How long a replica stands behind the others after its process was restarted, with `first`; sets `probe.signals`.
        pub demote_restarted: Period = default("0s"),
        /// How much older than the newest sample of all replicas that of one may be; with an older one, it is asked last.
        pub max_lag: Option<Period> = unset("5m"),
        /// What happens when no replica is worth asking: `refuse` says why, `last_selection` asks those that last were.
        pub when_none: WhenNone = default("refuse"),
        /// Requests that fail without an answer until a replica is not asked, each counted for `fail_timeout`; 0 for none.
        pub max_fails: usize = default(5),
        /// How long a failed request counts.
        pub fail_timeout: Period = default("10s"),
        /// Time in which the share of a replica that came back grows to the whole; by default 30s, and none with `first`.
        pub slow_start: Option<Period> = unset("30s"),
        /// How replicas are probed.
        pub probe: ProbeKeys = table,
        /// How often a query is sent again.
        pub retry: RetryKeys = table,
        /// When a query is sent to a second replica since the first is slow; never unless set.
        pub hedge: Option<HedgeKeys> = optional,
        /// When a replica is left alone since too large a share of its requests fails; never unless set.
        pub breaker: Option<BreakerKeys> = optional,
        /// Answers to range queries that are kept, so that only what is new is asked for; none unless set, as by `cache = {}`.
        pub cache: Option<CacheKeys> = optional,
        /// How answers are merged, with `merge`.
        pub merge: MergeKeys = table,
        /// What queries that go to the same replica have in common, the first of these that a query has: `dashboard` (the header `X-Dashboard-Uid`), `cookie`, `source_address`. An empty list turns it off.
        pub affinity: Vec<By> = default(["dashboard"]),
        /// Proxies in front whose `X-Forwarded-For` is believed, for `source_address`.
        pub trusted_hops: usize = default(0),
        /// The cookie of `affinity`.
        pub cookie: CookieKeys = table,
        /// Header of an answer that names the replica it comes from; empty for none.
        pub served_by_header: String = default("X-Served-By"),
    }
}

/// The default of `slow_start` with all strategies but `first`.
const SLOW_START: Period = Period::secs(30);

/// The defaults of `probe.fall` and `probe.rise`, likewise.
const IN_A_ROW: usize = 2;

/// The default of `retry.max`, likewise.
const RETRIES: usize = 2;

/// The default of `retry.statuses`, likewise.
const STATUSES: [u16; 3] = [502, 503, 504];

impl RoutingKeys {
    /// Whether the defaults are Caddy's.
    fn is_first(&self) -> bool {
        self.strategy == Kind::First
    }

    /// The files that they name.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.cookie.files()
    }

    /// Reports what is wrong with them, at their keys.
    pub fn validate(&self, problems: &mut Problems) {
        match (self.strategy, self.minimum_history) {
            (Kind::MinimumHistory, None) => {
                let problem = problems.at("minimum_history", "is required by this strategy");
                problem.help("set how far back the data must go, such as \"1h\"");
            }
            (Kind::MinimumHistory, Some(_)) | (_, None) => {}
            (_, Some(_)) => {
                let problem = problems.at("minimum_history", "has no effect with this strategy");
                problem.help("set strategy = \"minimum_history\", or remove it");
            }
        }
        for (key, set) in [
            ("failback_delay", !self.failback_delay.0.is_zero()),
            ("demote_restarted", !self.demote_restarted.0.is_zero()),
        ] {
            if set && !self.is_first() {
                let problem = problems.at(key, "has no effect with this strategy");
                problem.help("set strategy = \"first\", or remove it");
            }
        }
        let twice = |by: &By| self.affinity.iter().filter(|it| *it == by).count() > 1;
        if self.affinity.iter().any(twice) {
            problems.at("affinity", "names something twice");
        }
        if !self.served_by_header.is_empty()
            && self.served_by_header.parse::<http::HeaderName>().is_err()
        {
            problems.at("served_by_header", "is not a valid header name");
        }
        problems.within("cookie", |inner| self.cookie.validate(inner));
        problems.within("probe", |inner| self.probe.validate(inner));
        problems.within("retry", |inner| self.retry.validate(inner));
        if let Some(hedge) = &self.hedge {
            problems.within("hedge", |inner| hedge.validate(inner));
        }
        if let Some(breaker) = &self.breaker {
            problems.within("breaker", |inner| breaker.validate(inner));
        }
        if !(2..=16).contains(&self.merge.replicas) {
            problems.at("merge.replicas", "must be from 2 to 16");
        }
        if let Some(cache) = &self.cache {
            cache.validate(problems);
        }
        if self.max_fails > 0 && self.fail_timeout.0.is_zero() {
            let problem = problems.at("fail_timeout", "must be longer than 0s");
            problem.help("set max_fails = 0 if failed requests are not to count");
        }
    }

    /// The options of a fleet.
    pub fn fleet(&self) -> FleetOptions {
        let first = self.is_first();
        let in_a_row = |set: Option<usize>| set.unwrap_or(if first { 1 } else { IN_A_ROW });
        let slow_start = self.slow_start.map(|it| it.0);
        FleetOptions {
            strategy: Strategy {
                kind: self.strategy,
                minimum_history: self.minimum_history.map(|it| it.0).unwrap_or_default(),
                margin_percent: self.margin_percent,
                failback_delay: self.failback_delay.0,
                demote_restarted: self.demote_restarted.0,
                max_lag: self.max_lag.map(|it| it.0),
            },
            health: HealthOptions {
                fall: in_a_row(self.probe.fall),
                rise: in_a_row(self.probe.rise),
                assume_up: first || self.probe.interval.0.is_zero(),
                max_fails: self.max_fails,
                fail_timeout: self.fail_timeout.0,
                slow_start: slow_start.unwrap_or(if first {
                    std::time::Duration::ZERO
                } else {
                    SLOW_START.0
                }),
                breaker: self.breaker.as_ref().map(|it| BreakerOptions {
                    failure_percent: it.failure_percent,
                    min_requests: it.min_requests,
                    window: it.window.0,
                    open: it.open.0,
                    max_open: it.max_open.0,
                }),
            },
            when_none: self.when_none,
        }
    }

    /// How often a query is sent again; none for as long as it may wait.
    pub(crate) fn retries(&self) -> Option<usize> {
        match (self.retry.max, self.is_first()) {
            (None, true) => None,
            (set, _) => Some(set.unwrap_or(RETRIES)),
        }
    }

    /// After which statuses it is.
    pub(crate) fn statuses(&self) -> Vec<u16> {
        match (&self.retry.statuses, self.is_first()) {
            (Some(set), _) => set.clone(),
            (None, true) => Vec::new(),
            (None, false) => STATUSES.to_vec(),
        }
    }

    /// Whether replicas are asked what data they have.
    pub(crate) fn reads_signals(&self) -> bool {
        let needed = self.strategy.needs_signals() || !self.demote_restarted.0.is_zero();
        self.probe.signals.unwrap_or(needed)
    }

    /// The text that the answer to a probe must have.
    pub(crate) fn ready_text(&self) -> Option<&str> {
        let set = self.probe.contains.as_deref();
        set.or(self.is_first().then_some("Ready"))
            .filter(|text| !text.is_empty())
    }
}

impl ReplicaKeys {
    /// Reports what is wrong with them, at their keys.
    pub fn validate(&self, problems: &mut Problems) {
        if self.endpoint.uri().query().is_some() {
            problems.at("endpoint", "must have no query string");
        }
        if let Some(client) = &self.client {
            problems.within("client", |inner| client.validate(inner));
        }
    }
}

impl ProbeKeys {
    fn validate(&self, problems: &mut Problems) {
        let path = self.path.parse::<http::uri::PathAndQuery>();
        if !self.path.starts_with('/') || path.is_err() {
            problems.at("path", "must be a path that begins with /");
        }
        if self.timeout.0.is_zero() {
            problems.at("timeout", "must be longer than 0s");
        }
        for (key, value) in [("fall", self.fall), ("rise", self.rise)] {
            if value == Some(0) {
                problems.at(key, "must be at least 1");
            }
        }
    }
}

impl RetryKeys {
    fn validate(&self, problems: &mut Problems) {
        if self.interval.0.is_zero() {
            problems.at("interval", "must be longer than 0s");
        }
        if self.budget_percent > 100 {
            problems.at("budget_percent", "must be at most 100");
        }
        let statuses = self.statuses.iter().flatten();
        for (at, status) in statuses.enumerate() {
            if !(500..=599).contains(status) {
                problems.at(format!("statuses[{at}]"), "must be from 500 to 599");
            }
        }
    }
}

impl HedgeKeys {
    fn validate(&self, problems: &mut Problems) {
        if !(1..=99).contains(&self.percentile) {
            problems.at("percentile", "must be from 1 to 99");
        }
        if self.max_delay < self.min_delay {
            problems.at("max_delay", "must not be shorter than `min_delay`");
        }
    }
}

impl BreakerKeys {
    fn validate(&self, problems: &mut Problems) {
        if !(1..=100).contains(&self.failure_percent) {
            problems.at("failure_percent", "must be from 1 to 100");
        }
        if self.min_requests == 0 {
            problems.at("min_requests", "must be at least 1");
        }
        for (key, value) in [("window", self.window), ("open", self.open)] {
            if value.0.is_zero() {
                problems.at(key, "must be longer than 0s");
            }
        }
        if self.max_open < self.open {
            problems.at("max_open", "must not be shorter than `open`");
        }
    }
}
