//! What travels along the edges: batches of series, and the acknowledgement that they carry.

mod ack;
mod arena;
mod batch;
mod origin;

pub use ack::{Ack, Outcome, Rejection, Ticket, Verdict, Waiter};
pub use arena::{Arena, Counts, Label, Name, SeriesMut, SeriesRef};
pub(crate) use arena::{Raw, Series, SeriesCounts, Span};
pub use batch::{Batch, NOT_IN_V1, Tenant};
pub use origin::{ClientCertificate, Origin};
