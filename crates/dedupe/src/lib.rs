//! Deduplication: elects one of several replicas that send the same series.
//!
//! Two Prometheus servers that scrape the same targets are replicas of one *cluster*. One replica
//! of each cluster of a tenant is elected, and the series of the others are left out until the
//! elected one has been silent for the failover timeout. [`Elections`] is the interface for the
//! transform; [`Local`] keeps the state in the process. No code here reads a clock: a batch carries
//! its time of arrival.
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

mod elections;
mod local;

pub use elections::{Elected, Elections, Vote};
pub use local::{Bounds, Local, Registry};
