//! What travels along the edges: batches of series, and the acknowledgement that they carry.

mod ack;
mod arena;
mod batch;
mod counts;
mod origin;
mod pool;
mod series;

pub use ack::{Ack, Outcome, Rejection, Ticket, Until, Verdict, Waiter};
pub use arena::{Arena, Label};
pub(crate) use arena::{Series, Span};
pub use batch::{Batch, NOT_IN_V1, Tenant};
pub use counts::Counts;
pub(crate) use counts::SeriesCounts;
pub use origin::{ClientCertificate, Origin};
pub(crate) use pool::Raw;
pub use series::{Name, SeriesMut, SeriesRef};
pub(crate) use series::{head as name_head, head_within as name_head_within};
