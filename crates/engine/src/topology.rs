//! The running graph: edges, fan-out, build, supervision, shutdown.
//!
//! Transforms need no tasks and no channels of their own: they are synchronous, so everything
//! between a source and the sinks is one `Stage`, run by whoever sends the batch. What has to
//! wait, waits in the queue in front of each sink.
//!
//! A start and a reload are the same: `build` makes what is new or changed beside what runs and
//! may fail; `running` puts it in its place, which cannot fail; `drain` sees what was replaced or
//! removed to its end.

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
