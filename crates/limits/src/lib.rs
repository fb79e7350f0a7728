//! What a tenant may send: requests, bytes and samples per second, active series, labels.
//!
//! [`LimitKeys`] is the configuration, [`Usage`] the use that a tenant makes of it, which survives
//! changes of the configuration. A [`Check`] holds a batch to both: it begins before the first
//! series, is called for every series, and finishes after the last. No code here reads a clock: a
//! batch carries its time of arrival. Per series there is no lock, no allocation and no counter of
//! a metric.
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

mod active;
mod check;
mod keys;
mod limit;
mod many;
mod rate;
mod usage;
mod warnings;

pub use active::ActiveSeries;
pub use check::{Check, Excess};
pub use keys::{LimitKeys, OverLimit};
pub use limit::Limit;
pub use many::{Many, Registry};
pub use rate::{Bucket, Rate};
pub use usage::{Arriving, OverCounts, Usage, refusal};
