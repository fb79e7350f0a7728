//! Who sends and what becomes of it: tenants, origins, counts, acknowledgements, ledgers. Knows no encoding, no queue, no transport.
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

pub mod ledger;

mod ack;
mod counts;
mod kind;
mod origin;
mod version;

pub use ack::{Ack, Outcome, Rejection, Ticket, Until, Waiter};
pub use counts::{Counts, SeriesCounts};
pub use kind::{Kind, Signal};
pub use origin::{ClientCertificate, Origin, Tenant};
pub use version::Version;
