//! The running graph: edges, fan-out, build, supervision, shutdown.
//!
//! Transforms need no tasks and no channels of their own: they are synchronous, so everything
//! between a source and the sinks is one `Stage`, run by the task that sends the batch. Batches
//! wait only in the queue in front of each sink.
//!
//! A start and a reload are the same: `build` makes new and changed components beside the running
//! ones and may fail; `running` switches to them, which cannot fail; `drain` brings replaced and
//! removed components to their end.

mod build;
mod changes;
mod discovery;
mod drain;
mod part;
mod plan;
mod running;
mod supervise;

pub use changes::Changes;
pub use running::{Built, Leftover, Running};
