//! Callers and the outcome of their data: tenants, origins, counts, acknowledgements, ledgers. Knows no encoding, no
//! queue, no transport.
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
pub mod tenant_name;

mod ack;
mod caller;
mod counts;
mod kind;
mod origin;
mod rejection;
mod version;

pub use ack::{Ack, Outcome, Ticket, Until, Waiter};
pub use caller::{AlternativeName, Caller, ClientCertificate, Identity, Membership, Proof};
pub use counts::{Counts, SeriesCounts};
pub use kind::{Kind, Signal};
pub use origin::{Origin, Tenant};
pub use rejection::{Fault, Rejection, RejectionKind, Retry};
pub use version::Version;
