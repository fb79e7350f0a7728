//! Scraping of targets as Prometheus does it: schedules, requests, series of pages, staleness.
//! Knows no source by name and no provider by type.
//!
//! A source makes a [`Pool`] from its [`Settings`] and runs it: labelled targets come in through
//! [`Inlet`]s, and batches go out through the source's output, many scrapes in one. [`Particulars`]
//! supply what a target needs beyond its labels, such as headers and credentials of its own.
//! [`Pools`] holds the state of all pools of the process, for the API and the status page.
#![warn(unreachable_pub)]
// Tests may use all of these.
#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::expect_used,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::unwrap_used,
    )
)]

mod blocking;
mod counts;
mod encoding;
mod error;
mod fetch;
mod in_flight;
mod keys;
mod lanes;
mod merged;
mod meters;
mod on_request;
mod outline;
mod page;
mod particulars;
mod pool;
mod pools;
mod report;
mod schedule;
mod scraper;
mod series;
mod settings;
mod shard;
mod state;
mod target;

pub use keys::ScrapeKeys;
pub use merged::Merged;
pub use metrifold_exposition::Format;
pub use on_request::{Candidate, NoPage, OnRequest, RequestedPage, Why};
pub use particulars::{FindCredentials, FindHeader, Gauges, Own, Particulars, Plain};
pub use pool::{IDLE_PER_SERVER, Inlet, Pool};
pub use pools::{Dropped, Pools, TargetStatus};
pub use settings::Settings;
pub use shard::{Index, ShardKeys};
pub use state::Health;
