//! Delivers batches by remote write: the shared part of the sinks `remote_write` and `thanos`.
//!
//! Each sink has its own connections and retries, and fails independently of the others. Batches leave in their
//! order of arrival wherever that order could be lost: see [`metrifold_engine::planes::metrics::Input::recv`].
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

mod component;
mod config;
mod isolation;
mod over_http;
mod pace;
mod protocol;
mod reports;
mod sender;
mod statuses;
mod stuck;
mod transport;
mod versions;

pub use config::{DeliveryConfig, Flavour, RetryConfig};
pub use pace::Retry;
pub use protocol::Protocol;
pub use sender::{Sender, Terms};
pub use transport::{Answer, Attempt, Failure, Refusal, RefusalClass, Transport};
