//! The edge into a sink: its queue, the form in which it wants batches, and its accounts.

mod accounts;
mod delivery;
mod pump;
mod store;

use std::hash::BuildHasher;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

use crate::component::{BuildError, Form, SinkConfig, Transform};
use crate::config::Size;
use crate::protocol::Version;
use crate::queue::disk::{Fate, OpenError, Tally};
use crate::queue::{Lane, Pushed, Queue, QueueConfig, WhenFull};
use crate::signal::{Batch, Outcome, Ticket};
use crate::telemetry::{ComponentMetrics, DiskReading, QueueGauge};

use accounts::{Accounts, code};
use delivery::Progress;
use store::{Kept, Store, Taken, tally};

pub use accounts::{Ledger, reason_name};
pub use delivery::{Delivery, Input};

/// An edge into a sink, shared by all stages that end there and by the sink itself. When the sink
/// is replaced, its successor gets an edge of its own into the same queue.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) id: Arc<str>,
    pub(crate) required: bool,
    /// The sink's own transform.
    pub(crate) before: Option<Arc<dyn Transform>>,
    pub(crate) metrics: ComponentMetrics,
    line: Arc<Line>,
    config: QueueConfig,
    /// Opened for this edge, for the line to have when it takes over.
    opened: Option<Arc<Store>>,
    /// The sink's turn to take from the queue.
    turn: AtomicU64,
    form: AtomicU8,
    checks_series: bool,
}

/// What all edges into a sink share, those of its predecessors included.
#[derive(Debug)]
struct Line {
    queue: Arc<Queue<Waiting>>,
    /// Once there is a queue on disk, it is there for good: if the sink has none any more, what is
    /// on disk is delivered, and nothing is stored.
    store: OnceLock<Arc<Store>>,
    accounts: Arc<Accounts>,
    /// Why the queue takes no more.
    ending: OnceLock<Ending>,
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
    /// What of it is accounted for as queued in memory.
    tally: Tally,
    /// What the queue on disk knows of it.
    kept: Option<Arc<Kept>>,
}

/// A batch on its way into the queue.
pub(crate) struct Incoming {
    batch: Batch,
    ticket: Option<Ticket>,
    since: Instant,
    lane: Lane,
    /// The version in which it goes to disk.
    version: Version,
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
    /// An edge into the queue of the sink's predecessor, if it has one. A queue on disk is in
    /// `folder`.
    pub(crate) fn new(
        id: Arc<str>,
        config: &dyn SinkConfig,
        before: Option<Arc<dyn Transform>>,
        metrics: ComponentMetrics,
        predecessor: Option<&Self>,
        folder: Option<&Path>,
    ) -> Result<Arc<Self>, BuildError> {
        let required = config.required();
        let queue = config.queue();
        let line = match predecessor {
            Some(edge) => edge.line.clone(),
            None => Arc::new(Line::new(queue, required)),
        };
        let opened = match line.store.get() {
            Some(_) => None,
            None if !queue.is_disk() => None,
            None => Some(open(&id, &line, queue, required, folder)?),
        };
        Ok(Arc::new(Self {
            id,
            required,
            before,
            metrics,
            line,
            config: queue,
            opened,
            turn: AtomicU64::new(0),
            form: AtomicU8::new(config.form() as u8),
            checks_series: config.checks_series(),
        }))
    }

    /// Makes the sink at this edge the one that takes from the queue, under its own bounds. What
    /// its predecessor has taken, that may give back.
    pub(crate) fn take_over(&self, predecessor: Option<&Self>) {
        if let Some(predecessor) = predecessor {
            predecessor.metrics.watch_queue(None);
        }
        let turn = self.pass_turn();
        self.turn.store(turn, Ordering::Relaxed);
        if let Some(store) = &self.opened {
            // Nobody else has opened it, so there was none.
            let _ = self.line.store.set(store.clone());
            let queued = store.snapshot().total.queued();
            if queued.batches > 0 {
                let size = Size(queued.bytes);
                info!(sink = %self.id, batches = queued.batches, %size, "delivers first what is on disk");
            }
        }
        if let Some(store) = self.line.store.get() {
            store.engage(self.config, self.required);
        }
        let gauge = Gauge {
            line: self.line.clone(),
            config: self.config,
        };
        self.metrics.watch_queue(Some(Arc::new(gauge)));
    }

    fn pass_turn(&self) -> u64 {
        // With a queue on disk, what does not fit into memory goes there.
        let when_full = match self.config.is_disk() {
            true => WhenFull::Block,
            false => self.config.when_full(self.required),
        };
        let max = self.config.memory_bytes().bytes();
        self.line.queue.take_over(max, when_full)
    }

    /// Where its queue on disk is, if it has one.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.line.store.get().map(|store| store.path())
    }

    fn turn(&self) -> u64 {
        self.turn.load(Ordering::Relaxed)
    }

    fn prefer(&self, form: Form) {
        self.form.store(form as u8, Ordering::Relaxed);
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

    /// The queue on disk, if batches have to go through it.
    fn store(&self) -> Option<&Arc<Store>> {
        self.line.store.get().filter(|store| store.engaged())
    }

    /// Puts a batch into the queue, or returns it if there is no room and it has to wait.
    pub(crate) fn push(&self, batch: Batch, ticket: Option<Ticket>) -> Option<Incoming> {
        let lane = lane(&batch, ticket.as_ref());
        let version = self.version(&batch).unwrap_or(batch.version());
        self.push_again(Incoming {
            batch,
            ticket,
            since: Instant::now(),
            lane,
            version,
        })
    }

    fn push_again(&self, incoming: Incoming) -> Option<Incoming> {
        match self.store() {
            Some(store) => self.push_to_store(store, incoming),
            None => self.push_to_memory(incoming),
        }
    }

    /// Waits for room.
    pub(crate) async fn push_wait(&self, blocked: Incoming) {
        let mut blocked = blocked;
        loop {
            let drained = self.line.queue.drained();
            tokio::pin!(drained);
            // Registered before the attempt, so that no wake-up between the two is lost.
            drained.as_mut().enable();
            let store = self.line.store.get();
            let room = async {
                match store {
                    Some(store) => store.disk.room().await,
                    None => std::future::pending().await,
                }
            };
            match self.push_again(blocked) {
                Some(again) => blocked = again,
                None => return,
            }
            // Should the disk have made room just now, it is noticed a moment later.
            tokio::select! {
                () = drained => {}
                () = room => {}
                () = tokio::time::sleep(LOOK_AGAIN), if store.is_some() => {}
            }
        }
    }

    fn push_to_memory(&self, incoming: Incoming) -> Option<Incoming> {
        let Incoming {
            batch,
            ticket,
            since,
            lane,
            version,
        } = incoming;
        let weight = batch.weight();
        let tally = tally(&batch);
        // Counted before anybody can take it.
        let tenant = batch.tenant().cloned();
        self.line.accounts.received(tenant.as_ref(), tally);
        let waiting = Waiting {
            batch,
            ticket,
            since,
            tally,
            kept: None,
        };
        match self.line.queue.push(waiting, weight, lane) {
            Pushed::Stored(evicted) => {
                for old in evicted {
                    self.give_up(old, "queue_full", "queue is full");
                }
            }
            Pushed::Full(waiting) => {
                self.line.accounts.moved(tenant.as_ref(), tally);
                return Some(Incoming {
                    batch: waiting.batch,
                    ticket: waiting.ticket,
                    since,
                    lane,
                    version,
                });
            }
            Pushed::Dropped(waiting) => {
                self.give_up(waiting, "queue_full", "queue is full");
            }
            Pushed::Closed(waiting) => {
                self.give_up_at_end(waiting);
            }
        }
        None
    }

    fn push_to_store(&self, store: &Arc<Store>, incoming: Incoming) -> Option<Incoming> {
        match store.push(incoming) {
            Taken::In => None,
            Taken::Full(incoming) if self.config.when_full(self.required) == WhenFull::Block => {
                Some(incoming)
            }
            Taken::Full(incoming) => {
                self.refuse(incoming, "queue_full", Outcome::failed("queue is full"));
                None
            }
            Taken::TooLarge(incoming) => {
                let outcome = Outcome::Rejected("batch is too large for the queue".into());
                self.refuse(incoming, "too_large", outcome);
                None
            }
            Taken::Closed(incoming) => {
                let (reason, text) = self.ending_reason();
                self.refuse(incoming, reason, Outcome::failed(text));
                None
            }
        }
    }

    /// Turns a batch away that is not in the queue.
    fn refuse(&self, incoming: Incoming, reason: &str, outcome: Outcome) {
        let Incoming { batch, ticket, .. } = incoming;
        let samples = batch.counts().map(|c| c.all_samples());
        self.metrics.discarded(reason, samples);
        let accounts = &self.line.accounts;
        accounts.refused(batch.tenant(), tally(&batch), code(reason));
        if let Some(ticket) = ticket {
            ticket.report(outcome);
        }
    }

    /// Gives up a batch that was in the queue, unless it is on disk. Returns whether it did.
    fn give_up(&self, waiting: Waiting, reason: &str, text: &str) -> bool {
        let mut ticket = waiting.ticket;
        let mut tally = waiting.tally;
        if let Some(kept) = &waiting.kept {
            let forgotten = self.line.store.get().and_then(|store| store.forget(kept));
            let Some((kept_ticket, kept_tally)) = forgotten else {
                // A sender that waits for the far end hears that it was not reached.
                return false;
            };
            ticket = ticket.or(kept_ticket);
            tally = kept_tally;
        }
        let samples = waiting.batch.counts().map(|c| c.all_samples());
        self.metrics.discarded(reason, samples);
        let fate = Fate::Dropped(code(reason));
        let tenant = waiting.batch.tenant();
        self.line.accounts.settled(tenant, tally, fate);
        if let Some(ticket) = ticket {
            ticket.report(Outcome::failed(text));
        }
        true
    }

    fn ending_reason(&self) -> (&'static str, &'static str) {
        match self.line.ending.get() {
            Some(ending) => ending.reason(),
            None => ("sink_died", "sink died with the batch"),
        }
    }

    fn give_up_at_end(&self, waiting: Waiting) -> bool {
        let (reason, text) = self.ending_reason();
        self.give_up(waiting, reason, text)
    }

    fn abandoned(&self, kept: &Kept) -> bool {
        let store = self.line.store.get();
        store.is_some_and(|store| store.abandoned(kept))
    }

    fn finish_kept(&self, kept: &Kept, progress: Progress, outcome: &Outcome) {
        if let Some(store) = self.line.store.get() {
            store.finish(kept, progress, outcome);
        }
    }

    fn max_age(&self) -> Option<Duration> {
        self.line.store.get().and_then(|store| store.max_age())
    }

    /// Has the queue on disk know of what has come back.
    fn adopt(&self) {
        if let Some(store) = self.line.store.get() {
            store.adopt();
        }
    }

    fn set_failing(&self, failing: bool) {
        if let Some(store) = self.line.store.get() {
            store.set_failing(failing);
        }
    }

    /// After how many seconds it is worth trying again, as far as its queue knows.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        self.line.store.get().map(|store| store.retry_after())
    }

    /// Ends the sink's input once it is empty.
    pub(crate) fn close(&self, ending: Ending) {
        // Only the first reason counts.
        let _ = self.line.ending.set(ending);
        if let Some(store) = self.line.store.get() {
            store.begin_close();
        }
        self.line.queue.close();
    }

    /// Stores what only memory has, until `deadline`. If the sink fails, it is to try no more.
    pub(crate) async fn secure(&self, deadline: Instant) {
        let Some(store) = self.store() else {
            return;
        };
        loop {
            let appended = store.appended.notified();
            tokio::pin!(appended);
            appended.as_mut().enable();
            if store.store_all() && store.is_settled() {
                break;
            }
            if timeout_at(deadline, timeout(LOOK_AGAIN, appended))
                .await
                .is_err()
            {
                break;
            }
        }
        if store.is_failing() {
            // What is under way comes back, and stays on disk.
            self.pass_turn();
        }
    }

    /// Gives up what nobody will take any more; returns how much that is.
    pub(crate) fn abandon(&self) -> (usize, usize) {
        let queue = &self.line.queue;
        let mut bytes = queue.bytes();
        let left = queue.end();
        let mut batches = left.len();
        if let Some(store) = self.line.store.get().filter(|store| store.keeps()) {
            (batches, bytes) = store.unstored();
        }
        for waiting in left {
            self.give_up_at_end(waiting);
        }
        (batches, bytes)
    }

    /// Closes the queue on disk, once nobody sends and nobody takes any more.
    pub(crate) async fn shut(&self) {
        let Some(store) = self.line.store.get().cloned() else {
            return;
        };
        store.close();
        let closing = store.clone();
        let closed = tokio::task::spawn_blocking(move || closing.disk.close());
        if timeout(CLOSE_LIMIT, closed).await.is_err() {
            warn!(sink = %self.id, "queue on disk was not closed in time: some of what was delivered last is delivered again");
        }
        let queued = store.snapshot().total.queued();
        if queued.batches > 0 {
            let size = Size(queued.bytes);
            let path = store.path().display();
            info!(sink = %self.id, batches = queued.batches, %size, folder = %path, "what was not delivered stays on disk");
        }
    }
}

impl Line {
    fn new(queue: QueueConfig, required: bool) -> Self {
        let max = queue.memory_bytes().bytes();
        Self {
            queue: Arc::new(Queue::new(max, queue.when_full(required))),
            store: OnceLock::new(),
            accounts: Arc::default(),
            ending: OnceLock::new(),
        }
    }
}

/// Opens the queue on disk that a sink has to have.
fn open(
    id: &Arc<str>,
    line: &Line,
    config: QueueConfig,
    required: bool,
    folder: Option<&Path>,
) -> Result<Arc<Store>, BuildError> {
    let folder = folder.ok_or_else(|| BuildError::new("queue", "there is no data_dir"))?;
    let (queue, accounts) = (line.queue.clone(), line.accounts.clone());
    let path = folder.to_path_buf();
    Store::open(id.clone(), path, (config, required), queue, accounts).map_err(|error| {
        let place = folder.display();
        let reason = match error {
            OpenError::Locked => format!(
                "{place} is in use, by another process or by a sink of this name that a reload has removed and that still drains"
            ),
            error => format!("{place}: {error}"),
        };
        BuildError::new("queue", reason)
    })
}

/// How often those look again who wait for something on disk.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How long closing a queue on disk may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

struct Gauge {
    line: Arc<Line>,
    config: QueueConfig,
}

impl QueueGauge for Gauge {
    fn fill(&self) -> (usize, usize, usize) {
        let queue = &self.line.queue;
        (
            queue.bytes(),
            self.config.memory_bytes().bytes(),
            queue.len(),
        )
    }

    fn disk(&self) -> Option<DiskReading> {
        let store = self.line.store.get()?;
        let snapshot = store.snapshot();
        let queued = snapshot.total.queued();
        let age = |accepted| store::now_millis().saturating_sub(accepted) as f64 / 1000.0;
        let stats = store.stats();
        Some(DiskReading {
            samples: queued.samples,
            batches: queued.batches,
            bytes: snapshot.bytes,
            max_bytes: self.config.max_bytes().0,
            oldest_seconds: snapshot.oldest.map_or(0.0, age),
            drain_seconds: store.drained.seconds(queued.bytes),
            fsyncs: stats.fsyncs,
            corrupt: store.watch.corrupt.load(Ordering::Relaxed),
            dropped: store.newly_dropped(&snapshot),
        })
    }

    fn ledger(&self) -> Ledger {
        let disk = self.line.store.get().map(|store| store.snapshot());
        self.line.accounts.ledger(disk)
    }
}

#[cfg(test)]
mod tests;
