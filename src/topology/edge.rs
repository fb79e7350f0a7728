//! The edge into a sink: its queue, the form in which it wants batches, and its accounts.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::component::{Form, SinkConfig, Transform};
use crate::protocol::Version;
use crate::queue::{Held, Pushed, Queue};
use crate::signal::{Batch, Counts, Outcome, Ticket};
use crate::telemetry::{ComponentMetrics, QueueGauge};

/// An edge into a sink, shared by all stages that end there and by the sink itself.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) id: Arc<str>,
    pub(crate) required: bool,
    /// The sink's own transform.
    pub(crate) before: Option<Arc<dyn Transform>>,
    pub(crate) metrics: ComponentMetrics,
    queue: Arc<Queue<Waiting>>,
    form: AtomicU8,
    checks_series: bool,
}

/// A batch in the queue.
#[derive(Debug)]
pub(crate) struct Waiting {
    batch: Batch,
    ticket: Option<Ticket>,
    since: Instant,
}

/// Batches whose sender does not wait for the sink must not overtake each other: they share a
/// lane by sender and tenant. A sender that waits keeps its order itself.
fn lane(batch: &Batch, ticket: Option<&Ticket>) -> Option<u64> {
    let hasher = foldhash::quality::FixedState::default();
    let origin = batch.origin();
    ticket
        .is_none()
        .then(|| hasher.hash_one((&origin.source, origin.peer, batch.tenant())))
}

impl Edge {
    pub(crate) fn new(
        id: Arc<str>,
        config: &dyn SinkConfig,
        before: Option<Arc<dyn Transform>>,
        metrics: ComponentMetrics,
    ) -> Arc<Self> {
        let required = config.required();
        let queue = config.queue();
        let queue = Arc::new(Queue::new(
            queue.max_bytes.bytes(),
            queue.when_full(required),
        ));
        metrics.watch_queue(Arc::new(Gauge(queue.clone())));
        Arc::new(Self {
            id,
            required,
            before,
            metrics,
            queue,
            form: AtomicU8::new(config.form() as u8),
            checks_series: config.checks_series(),
        })
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

    fn pushed(&self, pushed: Pushed<Waiting>, weight: usize, lane: Option<u64>) -> Option<Blocked> {
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
            Pushed::Closed(waiting) => self.give_up(waiting, "shutdown", "sink has ended"),
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

    /// Ends the sink's input once it is empty.
    pub(crate) fn close(&self) {
        self.queue.close();
    }

    /// Gives up what nobody will take any more; returns how much that is.
    pub(crate) fn abandon(&self) -> (usize, usize) {
        let bytes = self.queue.bytes();
        let left = self.queue.take_all();
        let batches = left.len();
        for waiting in left {
            self.give_up(waiting, "shutdown", "shut down before it was delivered");
        }
        (batches, bytes)
    }
}

/// A batch for which there is no room yet.
pub(crate) struct Blocked {
    waiting: Waiting,
    weight: usize,
    lane: Option<u64>,
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
    /// The next delivery; none once there will be no more. Several takers may ask at once: of
    /// deliveries that must not overtake each other, one is under way at a time. Cancelling it
    /// loses nothing.
    pub async fn recv(&self) -> Option<Delivery> {
        let (waiting, held) = self.0.queue.pop().await?;
        let Waiting {
            batch,
            ticket,
            since,
        } = waiting;
        Some(Delivery {
            batch,
            ticket,
            since,
            edge: self.0.clone(),
            finished: false,
            _held: held,
        })
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
/// then; dropping it without a word tells the sender to try again.
#[derive(Debug)]
pub struct Delivery {
    /// What to deliver.
    pub batch: Batch,
    ticket: Option<Ticket>,
    since: Instant,
    edge: Arc<Edge>,
    /// Whether somebody said what became of it.
    finished: bool,
    _held: Held<Waiting>,
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

    /// Says what became of it.
    pub fn finish(mut self, outcome: Outcome) {
        self.finished = true;
        self.finished = true;
        self.edge.metrics.delivered_after(self.since.elapsed());
        if let Some(ticket) = self.ticket.take() {
            ticket.report(outcome);
        }
    }

    /// It is where it should be.
    pub fn delivered(self) {
        self.count_sent(self.batch.counts(), self.batch.body_len());
        self.finish(Outcome::Delivered);
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        self.count_lost("sink_died", self.batch.counts());
        if let Some(ticket) = self.ticket.take() {
            ticket.report(Outcome::failed("sink died with the batch"));
        }
    }
}
