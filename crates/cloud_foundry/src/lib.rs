//! Discovery of instances on Cloud Foundry: UAA, the Cloud Controller's API, selectors; and the
//! conversion of Promregator's configuration. Knows no plane and no component.
//!
//! [`CloudFoundryConfig`] is `[discovery.NAME] type = "cloud_foundry"`: one foundation. A reader
//! reads it in a few large requests, with a client of the API that uses tokens of UAA and respects
//! the published rate limit. Selectors pick the instances that become targets, and the route to
//! each.
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

mod api;
mod bound;
mod config;
mod facts;
mod foundation;
mod how;
mod label_selector;
mod metadata;
mod pace;
pub mod promregator;
mod provider;
mod reader;
mod resources;
mod route;
mod route_services;
mod select;
mod targets;
mod tell_apart;
mod uaa;
mod usage;

pub use bound::Bound;
pub use config::CloudFoundryConfig;
pub use facts::{Bindings, Facts};
pub use usage::Usages;
