//! Metrifold: a config-driven gateway for Prometheus metrics.
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

// Linked for the kinds of discovery that they register.
use metrifold_cloud_foundry as _;
use metrifold_kubernetes as _;

pub mod api;
pub mod cli;
pub mod process;
mod promql;
mod rules;
pub mod sinks;
pub mod sources;
pub mod transforms;
