//! `expose`: where Promregator's paths are served, and within which limits.

use std::path::Path;

use metrifold_base::{Period, Problems, Size, keys};
use metrifold_http::{Listen, Methods, ServerKeys};

keys! {
    /// Where Promregator's paths are served to those who pull.
    #[derive(Clone, Debug)]
    pub struct ExposeKeys {
        server: ServerKeys = include,
        /// Host and port of the targets that `/discovery` lists, by which those who pull reach this address; by default the `Host` of their request.
        pub(super) discovery_address: Option<String> = unset("metrifold.example:8080"),
        /// Whether `/discovery` also lists the metrics of this process, under `/promregatorMetrics`.
        pub(super) own_metrics: bool = default(true),
        /// Longest time for a scrape that is asked for; less if the caller says so in `X-Prometheus-Scrape-Timeout-Seconds`.
        pub(super) timeout: Period = default("5s"),
        /// Largest page of all instances under `/metrics`.
        pub(super) max_page_bytes: Size = default("64MiB"),
        /// Most scrapes at once that were asked for; further ones wait.
        pub(super) max_scrapes: usize = default(64),
    }
}

/// The most that `max_scrapes` can be.
const MAX_SCRAPES: usize = 100_000;

/// What is answered at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Discovery,
    Single,
    Own,
    Invalidate,
    Merged,
}

/// The paths.
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

    pub(super) fn server(&self) -> &ServerKeys {
        &self.server
    }

    /// The files that they name.
    pub(super) fn files(&self) -> Vec<&Path> {
        self.server.files()
    }

    /// Reports what is wrong with them, at their keys.
    pub(super) fn validate(&self, problems: &mut Problems) {
        self.server.validate(PATHS[0].0, problems);
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
