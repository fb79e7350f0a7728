//! Which of several replicas that send the same series is listened to.
//!
//! Two Prometheus servers that scrape the same targets are replicas of one *cluster*. Of each cluster
//! of a tenant one replica is elected, and what the others send is left out until the elected one has
//! been silent for the failover timeout. [`Elections`] is what a transform asks; [`Local`] keeps the
//! state in the process. None of it reads a clock: a batch brings along when it arrived.
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

mod elections;
mod local;

pub use elections::{Elected, Elections, Vote};
pub use local::{Bounds, Local, Registry};
