//! The sink's end of an edge, from which it receives deliveries.

use std::collections::VecDeque;
use std::sync::Arc;

use metrifold_codec::Batch;
use metrifold_model::ledger::Reason;
use metrifold_model::{Outcome, Ticket};
use metrifold_queue::{Held, Queued, RunBound};
use metrifold_telemetry::ComponentMetrics;

use crate::planes::metrics::Form;

use super::{Delivery, Edge};

/// The sink's end of an edge.
#[derive(Clone, Debug)]
pub struct Input(pub(crate) Arc<Edge>);

impl Input {
    /// Receives the next delivery; `None` once the queue is closed and empty, or a successor has
    /// taken over. Several tasks may receive at once: of deliveries in one lane, only one is in
    /// flight at a time. Cancel-safe.
    pub async fn recv(&self) -> Option<Delivery> {
        self.recv_run(|| RunBound::ONE).await?.take_first()
    }

    /// Receives the next delivery, and more of its tenant within the bound, which is asked for when
    /// there is something to receive.
    pub async fn recv_run(&self, most: impl Fn() -> RunBound) -> Option<Run> {
        loop {
            let taken = self.0.pipe.queue.pop_run(self.0.turn(), &most).await?;
            let run = taken.into_iter();
            let run = run.filter_map(|(queued, held)| self.delivery(queued, held));
            let run = Run(run.collect());
            if run.len() > 0 {
                return Some(run);
            }
        }
    }

    fn delivery(&self, queued: Queued, held: Held<Queued>) -> Option<Delivery> {
        let mut delivery = Delivery::taken(self.0.clone(), queued, held);
        // It may have been queued for a predecessor that did not check series.
        let unchecked = self.0.checks_series && !delivery.batch.is_checked();
        if unchecked && let Err(error) = delivery.batch.decode() {
            delivery.count_lost(Reason::Invalid, None);
            delivery.finish(Outcome::rejected(error.to_string()));
            return None;
        }
        Some(delivery)
    }

    /// Whether a successor receives the deliveries now. Deliveries in flight are then best dropped,
    /// which passes them to the successor.
    pub fn superseded(&self) -> bool {
        self.0.pipe.queue.has_passed(self.0.turn())
    }

    /// Waits until a successor receives the deliveries.
    pub async fn wait_superseded(&self) {
        self.0.pipe.queue.passed(self.0.turn()).await;
    }

    /// Puts a dead letter into the queue as a new batch, waiting for room if necessary.
    pub(crate) async fn send_again(&self, batch: Batch, ticket: Ticket) {
        let (counts, bytes) = (batch.counts(), batch.body_len());
        if let Some(blocked) = self.0.push(batch, Some(ticket)) {
            self.0.push_wait(blocked).await;
        }
        self.0.metrics.received().batch(counts, bytes);
    }

    /// The sink's metrics.
    pub fn metrics(&self) -> &ComponentMetrics {
        &self.0.metrics
    }

    /// Sets the form in which the sink takes batches from now on.
    pub fn prefer(&self, form: Form) {
        self.0.prefer(form);
    }
}

/// Deliveries of one tenant, those of a lane in order. Dropping the run returns those that are left, in order.
#[derive(Debug)]
pub struct Run(VecDeque<Delivery>);

impl Run {
    /// Takes the first delivery.
    pub fn take_first(&mut self) -> Option<Delivery> {
        self.0.pop_front()
    }

    /// The first delivery.
    pub fn first(&self) -> Option<&Delivery> {
        self.0.front()
    }

    /// Takes the first delivery, and returns all others to the queue.
    pub fn leave_first(&mut self) -> Option<Delivery> {
        let first = self.take_first();
        self.0.drain(..).rev().for_each(Delivery::put_back);
        first
    }

    /// The deliveries in order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Delivery> {
        self.0.iter_mut()
    }

    /// The number of deliveries; at least one when the run is received.
    #[allow(clippy::len_without_is_empty, reason = "a run is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.0.drain(..).rev().for_each(Delivery::put_back);
    }
}
