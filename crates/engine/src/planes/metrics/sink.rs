//! Sinks of batches.

use metrifold_base::{BoxFuture, RunError, Shutdown};

use super::Input;

/// How a sink takes its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Form {
    /// It reads series.
    Decoded,
    /// It sends bodies of remote write 1.0.
    V1,
    /// It sends bodies of remote write 2.0.
    V2,
    /// It sends bodies of the version in which the batch arrived.
    AsReceived,
}

/// A sink, built.
pub trait Sink: Send {
    /// Takes deliveries until `input` ends, then finishes what it has.
    ///
    /// # Errors
    ///
    /// Fails when it cannot go on; it is then built and started again after a pause.
    fn run(self: Box<Self>, input: Input, shutdown: Shutdown) -> BoxFuture<Result<(), RunError>>;
}
