//! Sources of batches.

use metrifold_base::{BoxFuture, RunError, Shutdown};

use super::Output;

/// A source, built.
pub trait Source: Send {
    /// Runs until `shutdown` says so or it can do no more.
    ///
    /// # Errors
    ///
    /// Fails when it cannot go on; it is then built and started again after a pause.
    fn run(self: Box<Self>, out: Output, shutdown: Shutdown) -> BoxFuture<Result<(), RunError>>;
}
