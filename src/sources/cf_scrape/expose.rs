//! `expose`: the address of Promregator's paths, and their limits.

use std::path::Path;

use metrifold_base::{Period, Problems, Size, keys, words};
use metrifold_http::{Listen, Methods, ServerKeys};

keys! {
    /// HTTP endpoint for Promregator's paths, for programs that pull.
    #[derive(Clone, Debug)]
    pub struct ExposeKeys {
        server: ServerKeys = include,
        /// Endpoints that ask for no credentials although `basic_auth` or `authorization` is set: `discovery` (`/discovery`), `single_target_metrics` (`/singleTargetMetrics/…`), `promregator_metrics` (`/promregatorMetrics`), `cache_invalidate` (`/cache/invalidate`) and `metrics` (`/metrics`).
        pub(super) without_auth: Vec<Endpoint> = unset(["discovery"]),
        /// Host and port by which programs that pull reach this endpoint: the address of the targets that `/discovery` lists. By default, the `Host` header of their request.
        pub(super) discovery_address: Option<String> = unset("metrifold.example:8080"),
        /// Protocol by which programs that pull reach this endpoint, `http` or `https`: the label `__scheme__` of the targets that `/discovery` lists. By default, `https` if `tls` is set; otherwise there is no such label, and the program that pulls decides.
        pub(super) discovery_scheme: Option<Scheme> = unset("https"),
        /// How long after its start the source answers `/discovery` with 503 while the instances of one of its providers are not known yet. After that, it lists those of the others. While none are known, the answer is 503.
        pub(super) discovery_grace: Period = default("30s"),
        /// List the metrics of this process, under `/promregatorMetrics`, in `/discovery` as well.
        pub(super) own_metrics: bool = default(true),
        /// Maximum time for a scrape on request. A shorter `X-Prometheus-Scrape-Timeout-Seconds` of the request takes precedence.
        pub(super) timeout: Period = default("5s"),
        /// Maximum size of the page of all instances under `/metrics`.
        pub(super) max_page_bytes: Size = default("64MiB"),
        /// Maximum number of concurrent scrapes on request. Further ones wait.
        pub(super) max_scrapes: usize = default(64),
    }
}

/// Largest value of `max_scrapes`.
const MAX_SCRAPES: usize = 100_000;

words! {
    /// Protocols by which an endpoint is reached.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Scheme {
        /// Without TLS.
        Http = "http",
        /// With TLS, which a proxy in front of the endpoint may end.
        Https = "https",
    }
}

impl Scheme {
    /// As in a URL.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

words! {
    /// Kinds of endpoints.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Endpoint {
        /// The list of all instances.
        Discovery = "discovery",
        /// The page of one instance.
        Single = "single_target_metrics",
        /// The metrics of this process.
        Own = "promregator_metrics",
        /// A request for an early refresh.
        Invalidate = "cache_invalidate",
        /// The pages of all instances in one.
        Merged = "metrics",
    }
}

/// The paths with their endpoints.
pub(super) const PATHS: [(&str, Endpoint); 6] = [
    ("/discovery", Endpoint::Discovery),
    ("/singleTargetMetrics/{app}/{instance}", Endpoint::Single),
    (
        "/singleTargetMetrics/{app}/{instance}/{which}",
        Endpoint::Single,
    ),
    ("/promregatorMetrics", Endpoint::Own),
    ("/cache/invalidate", Endpoint::Invalidate),
    ("/metrics", Endpoint::Merged),
];

impl ExposeKeys {
    /// The routes, in the order of [`PATHS`].
    pub(super) fn listen(&self) -> impl Iterator<Item = Listen> {
        let paths = PATHS.iter();
        paths.map(|(path, _)| self.server.listen(path, Methods::GET))
    }

    /// Protocol by which programs that pull reach the paths. `None` leaves the decision to them, since a
    /// proxy in front of this endpoint may use TLS.
    pub(super) fn scheme(&self) -> Option<Scheme> {
        let encrypted = || self.listen().any(|listen| listen.tls.is_some());
        self.discovery_scheme
            .or_else(|| encrypted().then_some(Scheme::Https))
    }

    pub(super) fn server(&self) -> &ServerKeys {
        &self.server
    }

    /// The files that the keys name.
    pub(super) fn files(&self) -> Vec<&Path> {
        self.server.files()
    }

    /// Reports invalid values, at their keys.
    pub(super) fn validate(&self, problems: &mut Problems) {
        self.server.validate(PATHS[0].0, problems);
        let server = &self.server;
        let asks = server.basic_auth.is_some() || server.authorization.is_some();
        if !self.without_auth.is_empty() && !asks {
            let what = "needs basic_auth or authorization for the other endpoints";
            problems.at("without_auth", what);
        }
        for (at, endpoint) in self.without_auth.iter().enumerate() {
            if self.without_auth[..at].contains(endpoint) {
                problems.at(format!("without_auth[{at}]"), "is listed twice");
            }
        }
        if self
            .discovery_address
            .as_deref()
            .is_some_and(|it| it.is_empty() || it.contains(['/', ' ']))
        {
            let problem = problems.at("discovery_address", "is not an address");
            problem.help("write host:port");
        }
        if self.timeout.0.is_zero() {
            problems.at("timeout", "must be longer than 0s");
        }
        if !(1..=MAX_SCRAPES).contains(&self.max_scrapes) {
            problems.at("max_scrapes", format!("must be from 1 to {MAX_SCRAPES}"));
        }
        if self.max_page_bytes == Size(0) {
            problems.at("max_page_bytes", "must be at least 1B");
        }
    }
}
