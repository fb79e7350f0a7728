//! Replicas: servers that answer the same queries. Tracks the state of each, chooses one for a
//! query, and handles its failure. Knows no plane and no component.
//!
//! A [`Fleet`] holds the state as a machine without a clock: the replicas, the results of their
//! probes and requests, and the choice of one for a query. A [`Router`] drives a fleet: it probes,
//! sends, retries and hedges.
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

pub use affinity::{By, CookieKeys, Key as AffinityKey};
pub use cache::{CacheKeys, CacheView};
pub use fleet::{Choice, Counts, Fleet, FleetOptions, NoReplica, Outcome, View, ViewOf};
pub use health::{Health, HealthOptions};
pub use keys::{BreakerKeys, HedgeKeys, MergeKeys, ProbeKeys, ReplicaKeys, RetryKeys, RoutingKeys};
pub use replica::{Replica, Upstream, upstream_headers};
pub use router::{Ask, Router};
pub use signals::{Signals, Span};
pub use strategy::{Kind as StrategyKind, Strategy, WhenNone};
