//! Foundations for every other crate: configuration values, problems, errors, pauses, stop signals.
//! Knows nothing of HTTP, batches or components.
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

pub mod keys;

mod backoff;
mod error;
mod file;
mod limited;
mod lock;
mod log_limit;
mod problems;
mod rate;
mod secret;
mod share;
mod shared;
mod shutdown;
mod values;

pub use backoff::Backoff;
pub use error::{BoxFuture, BuildError, RunError};
pub use file::{FileError, open_file, read_file, read_text};
pub use keys::KeyDefault;
pub use limited::{Limited, Sum};
pub use lock::locked;
pub use log_limit::LogLimit;
pub use problems::{Problem, Problems};
pub use rate::RateMeter;
pub use secret::{Secret, foreign, scrub};
/// For the expansion of the macros.
#[doc(hidden)]
pub use serde;
pub use share::within_share;
pub use shared::Shared;
pub use shutdown::{Shutdown, ShutdownTrigger};
pub use values::{Address, Endpoint, OneOrMany, Period, Size};
