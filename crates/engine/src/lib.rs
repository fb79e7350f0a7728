//! From a configuration to a running graph: planes, component traits, configuration, build, supervision, reload. Knows no component by name.
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

pub mod component;
pub mod config;
pub mod dead_letters;
pub mod memory;
pub mod planes;
pub mod reload;
pub mod topology;
