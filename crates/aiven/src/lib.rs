//! Aiven's services as targets: the API, which services get the Prometheus integration, and who of
//! several replicas sees to it. Knows no plane and no component.
//!
//! [`AivenConfig`] is `[discovery.NAME] type = "aiven"`: the projects of one account. Two loops run beside
//! each other. One *observes*: it reads projects, finds the nodes of services that have the integration,
//! and tells the feed. The other *reconciles*: from each observation it makes a [`Plan`], a pure function
//! of what is and what is wanted, and does what it says, if it is told to and has the [`Lease`]. Neither
//! waits for the other. What those who scrape need, and what there is to tell of plans, is in
//! [`Accounts`].
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
