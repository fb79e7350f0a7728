//! Aiven's services as targets: the API, the choice of services that get the Prometheus
//! integration, and the election of the replica that creates it. Knows no plane and no component.
//!
//! [`AivenConfig`] is `[discovery.NAME] type = "aiven"`: the projects of one account. Two
//! independent loops run beside each other. One *observes*: it reads projects, finds the nodes of
//! services that have the integration, and reports them to the feed. The other *reconciles*: from
//! each observation it makes a [`Plan`], a pure function of the actual and the desired state, and
//! carries it out if the configuration permits it and this process holds the [`Lease`]. Sources and
//! the API read credentials and plans from [`Accounts`].
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

mod accounts;
mod api;
#[cfg(feature = "kubernetes")]
mod cluster;
mod config;
mod lease;
mod meters;
mod observe;
mod plan;
mod provider;
mod reconcile;
mod record;
mod resolve;
mod resources;
mod targets;

pub use accounts::{Access, Accessing, Accounts, Change, PlanStatus, User};
pub use config::AivenConfig;
pub use lease::{FileLease, Lease};
pub use plan::{Left, Plan, Step};
