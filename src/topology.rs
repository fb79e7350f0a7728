//! The running graph: edges, fan-out, build, supervision, shutdown.
//!
//! Transforms need no tasks and no channels of their own: they are synchronous, so everything
//! between a source and the sinks is one `Stage`, run by whoever sends the batch. What has to
//! wait, waits in the queue in front of each sink.

mod edge;
mod running;
mod shutdown;
mod stage;
mod supervise;

pub use edge::{Delivery, Input};
pub use running::{Built, Leftover, Running};
pub use shutdown::{Shutdown, ShutdownTrigger};
pub use stage::{Output, Seen, SendError};
