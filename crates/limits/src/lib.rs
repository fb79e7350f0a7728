//! What a tenant may send: requests, bytes and samples per second, active series, labels.
//!
//! [`LimitKeys`] is what is configured, [`Usage`] what a tenant uses of it, which outlives changes of
//! the configuration. A batch is held to both by a [`Check`]: begun before its first series, asked for
//! every series, and finished behind the last. None of it reads a clock: a batch brings along when it
//! arrived. Per series there is no lock, no allocation and no counter of a metric.
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

mod active;
mod check;
mod keys;
mod limit;
mod many;
mod rate;
mod usage;

pub use active::ActiveSeries;
pub use check::{Check, Excess};
pub use keys::{LimitKeys, OverLimit};
pub use limit::Limit;
pub use many::{Many, Registry};
pub use rate::{Bucket, Rate};
pub use usage::{OverCounts, Usage, refusal};
