//! A sink's end of its edge, from which it takes deliveries.

use std::collections::VecDeque;
use std::sync::Arc;

use metrifold_codec::Batch;
use metrifold_model::ledger::Reason;
use metrifold_model::{Outcome, Ticket};
use metrifold_queue::{Held, Queued};
use metrifold_telemetry::ComponentMetrics;

use crate::planes::metrics::Form;

use super::{Delivery, Edge};

/// A sink's end of its edge.
#[derive(Clone, Debug)]
pub struct Input(pub(crate) Arc<Edge>);

impl Input {
    /// The next delivery; none once there will be no more, or a successor takes them. Several
    /// takers may ask at once: of deliveries that must not overtake each other, one is under way
    /// at a time. Cancelling it loses nothing.
    pub async fn recv(&self) -> Option<Delivery> {
        self.recv_run(0).await?.take_first()
    }

    /// The next delivery, and those right behind it that must not overtake it as long as their
    /// senders do not wait and together they weigh no more than `most`.
    pub async fn recv_run(&self, most: usize) -> Option<Run> {
        loop {
            let taken = self.0.pipe.queue.pop_run(self.0.turn(), most).await?;
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
        // It may have been queued for a predecessor that did not look into it.
        let unchecked = self.0.checks_series && !delivery.batch.is_checked();
        if unchecked && let Err(error) = delivery.batch.decode() {
            delivery.count_lost(Reason::Invalid, None);
            delivery.finish(Outcome::rejected(error.to_string()));
            return None;
        }
        Some(delivery)
    }

    /// Whether a successor takes the deliveries. What has not been delivered is best dropped then:
    /// the successor gets it.
    pub fn superseded(&self) -> bool {
        self.0.pipe.queue.has_passed(self.0.turn())
    }

    /// Waits until a successor takes the deliveries.
    pub async fn wait_superseded(&self) {
        self.0.pipe.queue.passed(self.0.turn()).await;
    }

    /// Puts something into the queue again as if it had just come, and waits for room if need be.
    pub(crate) async fn send_again(&self, batch: Batch, ticket: Ticket) {
        let (counts, bytes) = (batch.counts(), batch.body_len());
        if let Some(blocked) = self.0.push(batch, Some(ticket)) {
            self.0.push_wait(blocked).await;
        }
        self.0.metrics.received().batch(counts, bytes);
    }

    /// The sink's meters.
    pub fn metrics(&self) -> &ComponentMetrics {
        &self.0.metrics
    }

    /// Says in which form batches are wanted from now on.
    pub fn prefer(&self, form: Form) {
        self.0.prefer(form);
    }
}

/// Deliveries that must not overtake each other. What is left of them when it is dropped goes back
/// in order.
#[derive(Debug)]
pub struct Run(VecDeque<Delivery>);

impl Run {
    /// Takes the first one.
    pub fn take_first(&mut self) -> Option<Delivery> {
        self.0.pop_front()
    }

    /// The first one.
    pub fn first(&self) -> Option<&Delivery> {
        self.0.front()
    }

    /// Takes the first one, and gives back all others.
    pub fn leave_first(&mut self) -> Option<Delivery> {
        let first = self.take_first();
        self.0.drain(..).rev().for_each(Delivery::put_back);
        first
    }

    /// The deliveries in order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Delivery> {
        self.0.iter_mut()
    }

    /// How many there are; at least one.
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
