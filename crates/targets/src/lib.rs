//! Targets after the rules of those who use them: relabelling, publishing for other programs, and
//! the directory of the providers and publishers of the process.
//!
//! A [`Publisher`] is `[publish.NAME]`: it writes the targets of a provider for programs that read
//! Prometheus' `file_sd` or `http_sd`.
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

mod directory;
mod meters;
mod publish;
mod relabel;

pub use directory::Directory;
pub use publish::{PublishConfig, PublishStatus, Published, Publisher};
pub use relabel::{Relabelled, TargetRules};
