//! An edge without a graph around it, for tests of sinks.

use std::sync::Arc;

use metrifold_base::BuildError;
use metrifold_codec::Batch;
use metrifold_model::ledger::Ledger;
use metrifold_model::{Ack, Until, Waiter};
use metrifold_telemetry::ComponentMetrics;

use crate::planes::Ending;

use super::{Edge, EdgeConfig, Form, Input};

/// A test's end of an edge, into which it sends batches.
#[derive(Debug)]
pub struct Feed(Arc<Edge>);

impl Feed {
    /// Both ends of an edge with a queue in memory, for a sink of this configuration.
    ///
    /// # Errors
    ///
    /// Fails when the configuration asks for a queue on disk.
    pub fn new(config: EdgeConfig, metrics: ComponentMetrics) -> Result<(Self, Input), BuildError> {
        let edge = Edge::new("test".into(), config, None, metrics, None, None)?;
        edge.take_over(None);
        Ok((Self(edge.clone()), Input(edge)))
    }

    /// Sends a batch if there is room, and returns the waiter for its acknowledgement.
    pub fn send(&self, batch: Batch) -> Waiter {
        let (ack, waiter) = Ack::new(Until::Stored);
        let _ = self.0.push(batch, Some(ack.ticket("test".into())));
        waiter
    }

    /// The counts of batches received, delivered, dropped and queued.
    pub fn ledger(&self) -> Ledger {
        self.0.ledger()
    }

    /// Sends a batch whose sender does not wait, if there is room.
    pub fn send_unasked(&self, batch: Batch) {
        let _ = self.0.push(batch, None);
    }

    /// The form in which the sink takes batches at the moment.
    pub fn form(&self) -> Form {
        self.0.form()
    }

    /// Closes the queue: the sink's input ends once it is empty.
    pub fn close(&self) {
        self.0.close(Ending::Shutdown);
    }
}
