//! The edge into a sink: its queue, the form in which it wants batches, and its accounts.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::component::{Form, SinkConfig, Transform};
use crate::protocol::Version;
use crate::queue::{Held, Lane, Pushed, Queue, WhenFull};
use crate::signal::{Batch, Counts, Outcome, Ticket};
use crate::telemetry::{ComponentMetrics, QueueGauge};

/// An edge into a sink, shared by all stages that end there and by the sink itself. When the sink
/// is replaced, its successor gets an edge of its own into the same queue.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) id: Arc<str>,
    pub(crate) required: bool,
    /// The sink's own transform.
    pub(crate) before: Option<Arc<dyn Transform>>,
    pub(crate) metrics: ComponentMetrics,
    queue: Arc<Queue<Waiting>>,
    bounds: (usize, WhenFull),
    /// The sink's turn to take from the queue.
    turn: AtomicU64,
    /// Why the queue takes no more, for all edges into it.
    ending: Arc<OnceLock<Ending>>,
    form: AtomicU8,
    checks_series: bool,
}

/// Why a queue takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The process ends.
    Shutdown,
    /// The configuration has the sink no more.
    Removed,
}

impl Ending {
    /// The reason under which it is counted that a batch was given up, and what its sender hears.
    fn reason(self) -> (&'static str, &'static str) {
        match self {
            Self::Shutdown => ("shutdown", "shut down before it was delivered"),
            Self::Removed => ("removed", "sink was removed before it was delivered"),
        }
    }
}

/// A batch in the queue.
#[derive(Debug)]
pub(crate) struct Waiting {
    batch: Batch,
    ticket: Option<Ticket>,
    since: Instant,
}

/// Batches whose sender does not wait for the sink must not overtake each other: they share a
/// lane by sender and tenant. A sender that waits keeps its order itself, but must not overtake
/// what it has sent while it did not wait, which is so if the sink has become a required one. The
/// source has no part in it unless it is the sender itself: it may get another name meanwhile.
fn lane(batch: &Batch, ticket: Option<&Ticket>) -> Lane {
    let hasher = foldhash::quality::FixedState::default();
    let origin = batch.origin();
    let source = origin.peer.is_none().then_some(&origin.source);
    Lane {
        id: hasher.hash_one((source, origin.peer, batch.tenant())),
        holds: ticket.is_none(),
    }
}

impl Edge {
    /// An edge into the queue of the sink's predecessor, if it has one.
    pub(crate) fn new(
        id: Arc<str>,
        config: &dyn SinkConfig,
        before: Option<Arc<dyn Transform>>,
        metrics: ComponentMetrics,
        predecessor: Option<&Self>,
    ) -> Arc<Self> {
        let required = config.required();
        let queue = config.queue();
        let bounds = (queue.max_bytes.bytes(), queue.when_full(required));
        let (queue, ending) = match predecessor {
            Some(edge) => (edge.queue.clone(), edge.ending.clone()),
            None => (Arc::new(Queue::new(bounds.0, bounds.1)), Arc::default()),
        };
        Arc::new(Self {
            id,
            required,
            before,
            metrics,
            queue,
            bounds,
            turn: AtomicU64::new(0),
            ending,
            form: AtomicU8::new(config.form() as u8),
            checks_series: config.checks_series(),
        })
    }

    /// Makes the sink at this edge the one that takes from the queue, under its own bounds. What
    /// its predecessor has taken, that may give back.
    pub(crate) fn take_over(&self, predecessor: Option<&Self>) {
        if let Some(predecessor) = predecessor {
            predecessor.metrics.watch_queue(None);
        }
        let turn = self.queue.take_over(self.bounds.0, self.bounds.1);
        self.turn.store(turn, Ordering::Relaxed);
        self.metrics
            .watch_queue(Some(Arc::new(Gauge(self.queue.clone()))));
    }

    fn turn(&self) -> u64 {
        self.turn.load(Ordering::Relaxed)
    }

    /// The form in which the sink wants batches now.
    pub(crate) fn form(&self) -> Form {
        match self.form.load(Ordering::Relaxed) {
            0 => Form::Decoded,
            1 => Form::V1,
            2 => Form::V2,
            _ => Form::AsReceived,
        }
    }

    /// Whether a batch of this version has to be decoded on its way to the sink.
    pub(crate) fn decodes(&self, version: Version) -> bool {
        self.checks_series || !self.takes_bodies(version)
    }

    /// Whether the sink sends bodies of this version as they are, once their series are in order.
    pub(crate) fn takes_bodies(&self, version: Version) -> bool {
        let form = match version {
            Version::V1 => Form::V1,
            Version::V2 => Form::V2,
        };
        self.before.is_none() && [form, Form::AsReceived].contains(&self.form())
    }

    /// Whether this batch has to be decoded for the sink.
    pub(crate) fn looks_into(&self, batch: &Batch) -> bool {
        // A batch that has been counted has been decoded once, which puts its series in order.
        let unseen = self.checks_series && batch.counts().is_none();
        unseen || !self.takes_bodies(batch.version())
    }

    /// The version in which a batch leaves here; none if the sink reads series.
    pub(crate) fn version(&self, batch: &Batch) -> Option<Version> {
        match self.form() {
            Form::Decoded => None,
            Form::V1 => Some(Version::V1),
            Form::V2 => Some(Version::V2),
            Form::AsReceived => Some(batch.version()),
        }
    }

    /// Puts a batch into the queue, or returns it if there is no room and it has to wait.
    pub(crate) fn push(&self, batch: Batch, ticket: Option<Ticket>) -> Option<Blocked> {
        let weight = batch.weight();
        let lane = lane(&batch, ticket.as_ref());
        let waiting = Waiting {
            batch,
            ticket,
            since: Instant::now(),
        };
        self.pushed(self.queue.push(waiting, weight, lane), weight, lane)
    }

    /// Waits for room.
    pub(crate) async fn push_wait(&self, blocked: Blocked) {
        let Blocked {
            waiting,
            weight,
            lane,
        } = blocked;
        let pushed = self.queue.push_wait(waiting, weight, lane).await;
        self.pushed(pushed, weight, lane);
    }

    fn pushed(&self, pushed: Pushed<Waiting>, weight: usize, lane: Lane) -> Option<Blocked> {
        match pushed {
            Pushed::Stored(evicted) => {
                for old in evicted {
                    self.give_up(old, "queue_full", "queue is full");
                }
            }
            Pushed::Full(waiting) => {
                return Some(Blocked {
                    waiting,
                    weight,
                    lane,
                });
            }
            Pushed::Dropped(waiting) => self.give_up(waiting, "queue_full", "queue is full"),
            Pushed::Closed(waiting) => self.give_up_at_end(waiting),
        }
        None
    }

    fn give_up(&self, waiting: Waiting, reason: &str, text: &str) {
        let samples = waiting.batch.counts().map(|c| c.all_samples());
        self.metrics.discarded(reason, samples);
        if let Some(ticket) = waiting.ticket {
            ticket.report(Outcome::failed(text));
        }
    }

    fn give_up_at_end(&self, waiting: Waiting) {
        let (reason, text) = match self.ending.get() {
            Some(ending) => ending.reason(),
            None => ("sink_died", "sink died with the batch"),
        };
        self.give_up(waiting, reason, text);
    }

    /// Ends the sink's input once it is empty.
    pub(crate) fn close(&self, ending: Ending) {
        // Only the first reason counts.
        let _ = self.ending.set(ending);
        self.queue.close();
    }

    /// Gives up what nobody will take any more; returns how much that is.
    pub(crate) fn abandon(&self) -> (usize, usize) {
        let bytes = self.queue.bytes();
        let left = self.queue.end();
        let batches = left.len();
        for waiting in left {
            self.give_up_at_end(waiting);
        }
        (batches, bytes)
    }
}

/// A batch for which there is no room yet.
pub(crate) struct Blocked {
    waiting: Waiting,
    weight: usize,
    lane: Lane,
}

struct Gauge(Arc<Queue<Waiting>>);

impl QueueGauge for Gauge {
    fn fill(&self) -> (usize, usize, usize) {
        (self.0.bytes(), self.0.max(), self.0.len())
    }
}

/// A sink's end of its edge.
#[derive(Clone, Debug)]
pub struct Input(pub(crate) Arc<Edge>);

impl Input {
    /// The next delivery; none once there will be no more, or a successor takes them. Several
    /// takers may ask at once: of deliveries that must not overtake each other, one is under way
    /// at a time. Cancelling it loses nothing.
    pub async fn recv(&self) -> Option<Delivery> {
        loop {
            let (waiting, held) = self.0.queue.pop(self.0.turn()).await?;
            let Waiting {
                mut batch,
                ticket,
                since,
            } = waiting;
            // It may have been queued for a predecessor that did not look into it.
            let looked = if self.0.checks_series && batch.counts().is_none() {
                batch.decode().map(|_| ())
            } else {
                Ok(())
            };
            let delivery = Delivery {
                batch,
                rest: Vec::new(),
                worst: Outcome::Delivered,
                ticket,
                since,
                edge: self.0.clone(),
                held: Some(held),
            };
            match looked {
                Ok(()) => return Some(delivery),
                Err(error) => {
                    delivery.count_lost("invalid", None);
                    delivery.finish(Outcome::rejected(error.to_string()));
                }
            }
        }
    }

    /// Whether a successor takes the deliveries. What has not been delivered is best dropped then:
    /// the successor gets it.
    pub fn superseded(&self) -> bool {
        self.0.queue.has_passed(self.0.turn())
    }

    /// Waits until a successor takes the deliveries.
    pub async fn wait_superseded(&self) {
        self.0.queue.passed(self.0.turn()).await;
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
        self.0.form.store(form as u8, Ordering::Relaxed);
    }
}

/// A batch and the duty to say what became of it. Its bytes count against the queue's bound until
/// then. Dropping it without a word gives it back if the sink has a successor, and tells the
/// sender to try again if not.
#[derive(Debug)]
pub struct Delivery {
    /// What to deliver, or the part of it that comes next.
    pub batch: Batch,
    /// The parts behind that, the last one first.
    rest: Vec<Batch>,
    /// Of the parts that are done.
    worst: Outcome,
    ticket: Option<Ticket>,
    since: Instant,
    edge: Arc<Edge>,
    /// Its place in the queue, until somebody has said what became of it.
    held: Option<Held<Waiting>>,
}

impl Delivery {
    /// Whether the sender has been told to send it again.
    pub fn abandoned(&self) -> bool {
        self.ticket.as_ref().is_some_and(Ticket::abandoned)
    }

    /// How long ago it came to the sink.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Counts the batch, or a part of it, as delivered.
    pub fn count_sent(&self, counts: Option<Counts>, bytes: usize) {
        self.edge.metrics.sent().batch(counts, bytes);
    }

    /// Counts the batch, or a part of it, as lost.
    pub fn count_lost(&self, reason: &str, counts: Option<Counts>) {
        let samples = counts.map(|c| c.all_samples());
        self.edge.metrics.discarded(reason, samples);
    }

    /// Replaces the part that comes next by two.
    pub fn split(&mut self, first: Batch, second: Batch) {
        self.batch = first;
        self.rest.push(second);
    }

    /// Says what became of the part that was next. Returns whether there is another one.
    pub fn finish_part(&mut self, outcome: Outcome) -> bool {
        self.note(outcome);
        match self.rest.pop() {
            Some(next) => {
                self.batch = next;
                true
            }
            None => false,
        }
    }

    /// Says what became of something in the part that comes next, while the rest of it is still
    /// to be delivered.
    pub fn note(&mut self, outcome: Outcome) {
        self.worst.join(outcome);
    }

    /// Says what became of it.
    pub fn finish(mut self, outcome: Outcome) {
        self.note(outcome);
        self.edge.metrics.delivered_after(self.since.elapsed());
        if let Some(ticket) = self.ticket.take() {
            ticket.report(self.worst.clone());
        }
        self.held = None;
    }

    /// It is where it should be.
    pub fn delivered(self) {
        self.count_sent(self.batch.counts(), self.batch.body_len());
        self.finish(Outcome::Delivered);
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else {
            return;
        };
        let ticket = self.ticket.take();
        let parts = [self.batch.clone()]
            .into_iter()
            .chain(self.rest.drain(..).rev());
        let left = parts.map(|batch| {
            let weight = batch.weight();
            let waiting = Waiting {
                batch,
                ticket: ticket.as_ref().map(Ticket::another),
                since: self.since,
            };
            (waiting, weight)
        });
        let refused = held.give_back(left.collect());
        for waiting in refused.err().into_iter().flatten() {
            self.edge.give_up_at_end(waiting);
        }
        if let Some(ticket) = ticket {
            ticket.report(self.worst.clone());
        }
    }
}
