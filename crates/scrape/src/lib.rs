//! Scraping targets as Prometheus does: what is asked of them and when, what of a page becomes series, what goes stale. Knows no source by name and no provider by type.
//!
//! A source makes a [`Pool`] of its [`Settings`] and runs it: targets with labels go in by [`Inlet`],
//! batches come out through the source's output, one per scrape. What a target needs beyond its labels,
//! such as headers and credentials of its own, says a [`Particulars`]. What there is to tell of all
//! pools of the process is in [`Pools`].
#![warn(unreachable_pub)]
// Tests may do all of this.
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

mod encoding;
mod error;
mod fetch;
mod in_flight;
mod keys;
mod merged;
mod meters;
mod on_request;
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
pub use particulars::{Gauges, Own, Particulars, Plain};
pub use pool::{IDLE_PER_SERVER, Inlet, Pool};
pub use pools::{Dropped, Pools, TargetStatus};
pub use settings::Settings;
pub use shard::{Index, ShardKeys};
pub use state::Health;
