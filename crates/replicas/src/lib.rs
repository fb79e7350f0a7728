//! Servers that answer the same queries: what is known of each, which one is asked, and what happens when it fails. Knows no plane and no component.
//!
//! A [`Fleet`] is the state of it, as a pure machine over instants that it is given: which replicas
//! there are, what their probes and their answers say, and which one a query goes to. A [`Router`]
//! drives a fleet: it probes, sends, tries again and hedges.
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

mod affinity;
mod breaker;
mod budget;
mod cache;
mod failures;
mod fleet;
mod health;
mod keys;
mod latency;
mod merge;
mod page;
mod probe;
mod range;
mod replica;
mod router;
mod signals;
mod strategy;
mod time;

pub use affinity::{By, CookieKeys, Key as AffinityKey, client_address};
pub use cache::{CacheKeys, CacheView};
pub use fleet::{Choice, Counts, Fleet, FleetOptions, NoReplica, Outcome, View, ViewOf};
pub use health::{Health, HealthOptions};
pub use keys::{BreakerKeys, HedgeKeys, MergeKeys, ProbeKeys, ReplicaKeys, RetryKeys, RoutingKeys};
pub use replica::{Replica, Upstream, upstream_headers};
pub use router::{Ask, Router};
pub use signals::{Signals, Span};
pub use strategy::{Kind as StrategyKind, Strategy, WhenNone};
