//! Groups of keys shared by everything that routes queries to replicas.

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
        /// URL of the server, including the path in front of `/api/v1/…`, if any.
        pub endpoint: Endpoint = required("http://prometheus-0:9090"),
        /// Relative weight for the distribution of queries. A replica with weight 0 gets none.
        pub weight: u32 = default(1),
        /// Labels with which the replica is shown on the status page and in the API.
        pub labels: BTreeMap<String, String> = unset({ zone = "a" }),
        /// Connection settings for this replica, instead of those of the router.
        pub client: Option<ClientKeys> = optional,
    }
}

keys! {
    /// Health checks of replicas.
    #[derive(Clone, Debug)]
    pub struct ProbeKeys {
        /// Path of the health check, appended to the path of the replica. It can contain a query string.
        pub path: String = default("/-/ready"),
        /// Text that the body of the answer must contain; by default `Ready` with the strategy `first`, and nothing otherwise. The status must be from 200 to 399.
        pub contains: Option<String> = unset("Ready"),
        /// Interval of health checks. A check whose result contradicts the current state is repeated after at most one second. `0s` disables health checks: all replicas then count as available until requests fail.
        pub interval: Period = default("10s"),
        /// Maximum time for one health check of a replica, with all of its requests.
        pub timeout: Period = default("2s500ms"),
        /// Consecutive failed health checks after which a replica is down; by default 1 with `first`, and 2 otherwise.
        pub fall: Option<usize> = unset(2),
        /// Consecutive successful health checks after which a replica is up again; by default 1 with `first`, and 2 otherwise.
        pub rise: Option<usize> = unset(2),
        /// Read `/metrics` and the list of TSDB blocks with each health check, to learn which data a replica has. Enabled by default, except with `first`.
        pub signals: Option<bool> = unset(true),
        /// Maximum size of the metrics page, and of the list of blocks.
        pub max_bytes: Size = default("16MiB"),
    }
}

keys! {
    /// Retries of failed queries.
    #[derive(Clone, Debug)]
    pub struct RetryKeys {
        /// Maximum number of retries of a query, each at another replica; 2 by default. With `first`, queries are by default retried until `duration` has passed, as in Caddy.
        pub max: Option<usize> = unset(2),
        /// Delay before each retry with `first`, and interval at which a query without an available replica looks for one.
        pub interval: Period = default("100ms"),
        /// Maximum time for which a query waits for an available replica, and is retried with `first`.
        pub duration: Period = default("2s500ms"),
        /// HTTP statuses, from 500 to 599, that are retried at another replica; by default 502, 503 and 504, and none with `first`. A 503 with an error of Prometheus' API, such as a query timeout, is never retried.
        pub statuses: Option<Vec<u16>> = unset([502, 503, 504]),
        /// Maximum number of retries and hedged requests, in percent of the queries. Retries of requests that could not connect are not counted.
        pub budget_percent: u32 = default(20),
        /// Number of retries and hedged requests that are available at the start, before any query.
        pub budget_start: u32 = default(10),
        /// Maximum size of a request body that is kept for retries. A query with a larger one is not retried.
        pub max_body_bytes: Size = default("1MiB"),
        /// Size of the beginning of an answer that is buffered before it is forwarded, so that the query can be retried if the replica fails meanwhile.
        pub answer_bytes: Size = default("64KiB"),
    }
}

keys! {
    /// Merging of answers from several replicas.
    #[derive(Clone, Debug)]
    pub struct MergeKeys {
        /// Maximum number of replicas that are queried at once, from 2 to 16.
        pub replicas: usize = default(2),
        /// Maximum time to wait for the other replicas after the first answer has begun, and for a replica that pauses amid its answer while another goes on. The merged answer has a warning for each replica that is missing.
        pub wait: Period = default("2s"),
        /// Maximum memory for a replica's answer, by far most of which is forwarded at once: for one series, and for series that wait for another replica. A replica with a larger series counts as missing.
        pub max_bytes: Size = default("64MiB"),
    }
}

keys! {
    /// Hedged requests: a second request to another replica when the first is slow.
    #[derive(Clone, Debug)]
    pub struct HedgeKeys {
        /// Percentile of recent response times, from 1 to 99, after which the query is also sent to a second replica.
        pub percentile: u32 = default(95),
        /// Minimum delay before the second request.
        pub min_delay: Period = default("50ms"),
        /// Maximum delay before the second request, and the delay until enough response times are known.
        pub max_delay: Period = default("2s"),
    }
}

keys! {
    /// A circuit breaker for each replica.
    #[derive(Clone, Debug)]
    pub struct BreakerKeys {
        /// Percentage of failed requests within `window` at which the breaker opens, from 1 to 100.
        pub failure_percent: u32 = default(50),
        /// Minimum number of requests within `window` for the breaker to open.
        pub min_requests: u32 = default(20),
        /// Sliding time window over which requests are counted.
        pub window: Period = default("10s"),
        /// Time for which an open breaker blocks all requests, before one trial request is let through. It doubles with each failed trial.
        pub open: Period = default("5s"),
        /// Maximum time for which an open breaker blocks all requests, after failed trials.
        pub max_open: Period = default("1m"),
    }
}

keys! {
    /// Selection of replicas, and treatment of failures.
    #[derive(Clone, Debug)]
    pub struct RoutingKeys {
        /// Strategy by which replicas are selected: `first`, `random`, `minimum_history`, `most_data`, `least_loaded`, `covering` or `merge`.
        pub strategy: Kind = default("random"),
        /// How far back the data of an eligible replica must go. Required with the strategy `minimum_history`, and not allowed with others.
        pub minimum_history: Option<Period> = unset("1h"),
        /// How many more samples, in percent, another replica must have to replace the selected one, with `most_data`.
        pub margin_percent: u32 = default(1),
        /// Time for which a recovered replica must have been available before it regains its place in front of the selected one, with `first`.
        pub failback_delay: Period = default("0s"),
        /// Time after the start of its process for which a replica ranks behind the others, with `first`. Implies `probe.signals`.
        pub demote_restarted: Period = default("0s"),
        /// Maximum lag of a replica's newest sample behind the newest sample of all replicas. A replica that lags further is used last. Unset, there is no limit.
        pub max_lag: Option<Period> = unset("5m"),
        /// Behaviour when no replica is available: `refuse` rejects queries with the reasons, `last_selection` sends them to the replicas that were selected last.
        pub when_none: WhenNone = default("refuse"),
        /// Number of failed requests within `fail_timeout` after which a replica is unavailable; 0 for no limit.
        pub max_fails: usize = default(5),
        /// Time for which a failed request is counted.
        pub fail_timeout: Period = default("10s"),
        /// Time over which a recovered or restarted replica regains its full share of queries; by default 30s, and 0s with `first`.
        pub slow_start: Option<Period> = unset("30s"),
        /// Health checks of replicas.
        pub probe: ProbeKeys = table,
        /// Retries of failed queries.
        pub retry: RetryKeys = table,
        /// Hedged requests: a second request to another replica when the first is slow. Disabled unless set.
        pub hedge: Option<HedgeKeys> = optional,
        /// Circuit breaker, which blocks requests to a replica when too many fail. Disabled unless set.
        pub breaker: Option<BreakerKeys> = optional,
        /// Cache of answers to range queries, so that only missing steps are requested from replicas. Disabled unless set; `cache = {}` enables it with defaults.
        pub cache: Option<CacheKeys> = optional,
        /// Merging of answers, with the strategy `merge`.
        pub merge: MergeKeys = table,
        /// Properties by which related queries are sent to the same replica: `dashboard` (header `X-Dashboard-Uid`), `cookie`, `source_address`. The first one that a query has is used. An empty list disables affinity.
        pub affinity: Vec<By> = default(["dashboard"]),
        /// Number of proxies in front of Metrifold whose entries in `X-Forwarded-For` are trusted, for `source_address`.
        pub trusted_hops: usize = default(0),
        /// Cookie for the affinity `cookie`.
        pub cookie: CookieKeys = table,
        /// Response header with the name of the replica that answered; empty for none.
        pub served_by_header: String = default("X-Served-By"),
    }
}

/// Default of `slow_start`, with all strategies but `first`.
const SLOW_START: Period = Period::secs(30);

/// Default of `probe.fall` and `probe.rise`, with all strategies but `first`.
const IN_A_ROW: usize = 2;

/// Default of `retry.max`, with all strategies but `first`.
const RETRIES: usize = 2;

/// Default of `retry.statuses`, with all strategies but `first`.
const STATUSES: [u16; 3] = [502, 503, 504];

impl RoutingKeys {
    /// Whether the strategy is `first`, whose defaults are Caddy's.
    fn is_first(&self) -> bool {
        self.strategy == Kind::First
    }

    /// The files that the keys name.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.cookie.files()
    }

    /// Reports invalid values and combinations, at their keys.
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
            problems.at("affinity", "lists an entry twice");
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

    /// The options of a fleet with these keys.
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

    /// Most retries of a query. `None` for no limit but `retry.duration`.
    pub(crate) fn retries(&self) -> Option<usize> {
        match (self.retry.max, self.is_first()) {
            (None, true) => None,
            (set, _) => Some(set.unwrap_or(RETRIES)),
        }
    }

    /// Statuses after which a query is retried.
    pub(crate) fn statuses(&self) -> Vec<u16> {
        match (&self.retry.statuses, self.is_first()) {
            (Some(set), _) => set.clone(),
            (None, true) => Vec::new(),
            (None, false) => STATUSES.to_vec(),
        }
    }

    /// Whether probes also read which data replicas have.
    pub(crate) fn reads_signals(&self) -> bool {
        let needed = self.strategy.needs_signals() || !self.demote_restarted.0.is_zero();
        self.probe.signals.unwrap_or(needed)
    }

    /// Text that the answer to a probe must contain. `None` for any.
    pub(crate) fn ready_text(&self) -> Option<&str> {
        let set = self.probe.contains.as_deref();
        set.or(self.is_first().then_some("Ready"))
            .filter(|text| !text.is_empty())
    }
}

impl ReplicaKeys {
    /// Reports invalid values, at their keys.
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
        if f64::from(self.budget_start) > crate::budget::MOST {
            problems.at(
                "budget_start",
                "must be at most 100, which the budget can hold",
            );
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
