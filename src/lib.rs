//! Metrifold: a config-driven gateway for Prometheus metrics.
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

pub mod api;
pub mod cli;
pub mod component;
pub mod config;
pub mod dead_letters;
pub mod delivery;
pub mod http;
pub mod memory;
pub mod process;
pub mod promql;
pub mod protocol;
pub mod queue;
pub mod relabel;
pub mod reload;
pub mod signal;
pub mod sinks;
pub mod sources;
pub mod telemetry;
pub mod topology;
pub mod transforms;
