//! What Cloud Foundry runs, as targets: UAA, the Cloud Controller's API, selection; and what a
//! configuration of Promregator becomes. Knows no plane and no component.
//!
//! [`CloudFoundryConfig`] is `[discovery.NAME] type = "cloud_foundry"`: one foundation. A reader reads it
//! in a few large requests, with a client of the API that shows tokens of UAA and keeps to the rate that
//! the platform publishes. Selectors say which of its instances are targets, and where each is reached.
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

mod api;
mod config;
mod label_selector;
mod metadata;
mod pace;
pub mod promregator;
mod provider;
mod reader;
mod resources;
mod route;
mod select;
mod targets;
mod uaa;
mod usage;

pub use config::CloudFoundryConfig;
pub use usage::{GAUGES, Usages};
