//! The edge into a sink: its queue, the form in which it takes batches, and its accounts.

mod delivery;
mod ending;
mod form;
mod gauge;
mod input;
mod ledger;
mod losses;
mod patience;
mod push;

use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tracing::info;

use metrifold_base::{BuildError, RateMeter, Size};
use metrifold_codec::Batch;
use metrifold_codec::remote_write::{
    CompanionBounds, Companions, CompressionChoice, DecodeError, GivenUp,
};
use metrifold_model::{Outcome, Tenant, Ticket};
use metrifold_queue::disk::{OpenError, survey};
use metrifold_queue::{
    Accounts, InFlight, Lane, OrderedBy, Progress, Queue, QueueConfig, Queued, Spill, Tracked,
    WhenFull,
};
use metrifold_telemetry::ComponentMetrics;

use crate::planes::Ending;
use crate::planes::metrics::Transform;

use gauge::Gauge;
use ledger::Before;
use losses::Losses;

pub use delivery::{Delivery, Trouble};
pub use form::Form;
pub use input::{Input, Run};

/// An edge into a sink, shared by all stages that end there and by the sink itself. When the sink
/// is replaced, its successor gets an edge of its own into the same queue.
#[derive(Debug)]
pub struct Edge {
    pub(crate) id: Arc<str>,
    pub(crate) required: bool,
    /// Transform of the sink's own, applied before the queue.
    pub(crate) before: Option<Arc<dyn Transform>>,
    pub(crate) metrics: ComponentMetrics,
    pipe: Arc<Pipe>,
    config: QueueConfig,
    /// Queue on disk that was opened for this edge. The pipe takes it over together with the sink.
    opened: Option<Arc<Spill>>,
    /// Number of this sink's turn at the queue: an edge with an older turn gets no batches.
    turn: AtomicU64,
    form: AtomicU8,
    checks_series: bool,
    companions: CompanionBounds,
    /// Chooses the compression of bodies of 1.0 that suits the sink's data.
    pub(crate) compression: CompressionChoice,
}

/// The part of an edge that a sink shares with its predecessors and successors.
#[derive(Debug)]
struct Pipe {
    queue: Arc<Queue<Queued>>,
    /// Queue on disk. Once opened, it stays open: if a later configuration has none, its batches
    /// are delivered and no more are stored.
    spill: OnceLock<Arc<Spill>>,
    accounts: Arc<Accounts>,
    /// Deliveries in flight that the spill does not track.
    in_flight: Arc<InFlight>,
    /// Counts of records that were delivered or dropped before this process opened the queue on
    /// disk.
    before: OnceLock<Before>,
    /// Time at which the accounts begin.
    since: SystemTime,
    outflow: RateMeter,
    losses: Losses,
    /// Reason why the queue is closed; unset while it is open.
    ending: OnceLock<Ending>,
    /// Exemplars and metadata that wait for later batches of their series, for sinks that send
    /// 2.0.
    companions: Companions,
}

/// Properties of a sink that its edge is built from.
#[derive(Clone, Copy, Debug)]
pub struct EdgeConfig {
    /// Whether the sender's acknowledgement waits for this sink to have the batch.
    pub required: bool,
    /// Configuration of the queue in front of the sink.
    pub queue: QueueConfig,
    /// Form in which the sink takes batches at first.
    pub form: Form,
    /// Whether batches must be decoded for this sink even if it reads no labels, so that their
    /// series are valid and their labels sorted.
    pub checks_series: bool,
    /// Bounds on the exemplars and metadata that are kept for later batches of their series.
    pub companions: CompanionBounds,
}

/// The lane of a batch: its tenant and the key by which its source orders batches. That is a key
/// that the source sets, or else the sender's address, or else the source itself.
///
/// Batches must not overtake each other if their sender does not wait for the sink. A sender that
/// waits keeps its order itself. It still shares the lane, because the sink may have become
/// required while batches are queued for which the sender did not wait. The source's name is not
/// part of its senders' lanes, since a source may be renamed while batches are queued.
fn lane(batch: &Batch, ticket: Option<&Ticket>) -> Lane {
    let origin = batch.origin();
    let ordered_by = match (&origin.order, origin.peer) {
        (Some(key), _) => OrderedBy::Key(key),
        (None, Some(peer)) => OrderedBy::Peer(peer),
        (None, None) => OrderedBy::Source(&origin.source),
    };
    Lane {
        tenant: batch.tenant().cloned(),
        id: ordered_by.lane_id(batch.tenant().map(|tenant| &**tenant)),
        holds: ticket.is_none(),
    }
}

impl Edge {
    /// An edge into the predecessor's queue if there is a predecessor, otherwise into a new one.
    /// `folder` is the place of a queue on disk.
    pub(crate) fn new(
        id: Arc<str>,
        config: EdgeConfig,
        before: Option<Arc<dyn Transform>>,
        metrics: ComponentMetrics,
        predecessor: Option<&Self>,
        folder: Option<&Path>,
    ) -> Result<Arc<Self>, BuildError> {
        let EdgeConfig {
            required, queue, ..
        } = config;
        let pipe = match predecessor {
            Some(edge) => edge.pipe.clone(),
            None => Arc::new(Pipe::new(id.clone(), queue, required)),
        };
        let opened = match pipe.spill.get() {
            Some(_) => None,
            None => open(&id, &pipe, queue, required, folder)?,
        };
        Ok(Arc::new(Self {
            id,
            required,
            before,
            metrics,
            pipe,
            config: queue,
            opened,
            turn: AtomicU64::new(0),
            form: AtomicU8::new(config.form as u8),
            checks_series: config.checks_series,
            companions: config.companions,
            compression: CompressionChoice::default(),
        }))
    }

    /// Makes this edge's sink the one that receives from the queue, under its own bounds. Batches
    /// in flight at the predecessor return to the queue when the predecessor drops them.
    pub(crate) fn take_over(&self, predecessor: Option<&Self>) {
        if let Some(predecessor) = predecessor {
            predecessor.metrics.watch_queue(None);
        }
        let turn = self.pass_turn();
        self.turn.store(turn, Ordering::Relaxed);
        if let Some(spill) = &self.opened {
            // Setting fails only if another edge has opened the queue, and then this edge would not
            // have.
            let _ = self.pipe.before.set(Before::of(spill.disk().read_ledger()));
            let _ = self.pipe.spill.set(spill.clone());
            let queued = spill.snapshot().total.queued();
            if queued.batches > 0 {
                let size = Size(queued.bytes);
                info!(sink = %self.id, batches = queued.batches, %size, "delivering the backlog on disk first");
            }
        }
        if let Some(spill) = self.pipe.spill.get() {
            spill.engage(self.config, self.required);
        }
        let gauge = Gauge {
            pipe: self.pipe.clone(),
            config: self.config,
        };
        self.metrics.watch_queue(Some(Arc::new(gauge)));
    }

    fn pass_turn(&self) -> u64 {
        // With a queue on disk, batches that do not fit into memory are stored there.
        let when_full = match self.config.is_disk() {
            true => WhenFull::Block,
            false => self.config.when_full(self.required),
        };
        let max = self.config.memory_bytes().bytes();
        self.pipe.queue.take_over(max, when_full)
    }

    /// The counts of batches received, delivered, dropped and queued.
    #[cfg(feature = "testing")]
    pub(crate) fn ledger(&self) -> metrifold_model::ledger::Ledger {
        self.pipe.ledger()
    }

    /// Path of the queue on disk, if there is one.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.pipe.spill.get().map(|spill| spill.path())
    }

    fn turn(&self) -> u64 {
        self.turn.load(Ordering::Relaxed)
    }

    /// Adds to a batch that is sent as 2.0 the exemplars and metadata that arrived in other batches
    /// than its series.
    pub(crate) fn complete(&self, batch: &mut Batch) -> Result<GivenUp, DecodeError> {
        let now = Instant::now().into_std();
        self.pipe.companions.complete(batch, &self.companions, now)
    }

    fn abandoned(&self, tracked: &Tracked) -> bool {
        let spill = self.pipe.spill.get();
        spill.is_some_and(|spill| spill.abandoned(tracked))
    }

    fn finish_tracked(&self, tracked: &Tracked, progress: Progress, outcome: &Outcome) {
        if let Some(spill) = self.pipe.spill.get() {
            spill.finish(tracked, progress, outcome);
        }
    }

    fn max_age(&self) -> Option<Duration> {
        self.pipe.spill.get().and_then(|spill| spill.max_age())
    }

    /// Makes the spill track batches that were returned untracked.
    fn track_all(&self) {
        if let Some(spill) = self.pipe.spill.get() {
            spill.track_all();
        }
    }

    /// Pauses a tenant's batches in memory until `until`.
    fn pause(&self, tenant: Option<&Tenant>, until: Instant) {
        self.pipe.queue.pause(tenant.cloned(), until);
    }

    /// Reports a failed attempt to deliver a batch of this tenant.
    fn set_failing(&self, tenant: Option<&Tenant>, trouble: Trouble) {
        let Some(spill) = self.pipe.spill.get() else {
            return;
        };
        if trouble.everybody {
            spill.set_failing();
        }
        if let Some(until) = trouble.tenant {
            spill.pause(tenant, until);
        }
    }

    /// Reports a successful attempt.
    fn set_well(&self, tenant: Option<&Tenant>) {
        if let Some(spill) = self.pipe.spill.get() {
            spill.set_well(tenant);
        }
    }
}

impl Pipe {
    fn new(sink: Arc<str>, queue: QueueConfig, required: bool) -> Self {
        let max = queue.memory_bytes().bytes();
        Self {
            queue: Arc::new(Queue::new(max, queue.when_full(required))),
            spill: OnceLock::new(),
            accounts: Arc::default(),
            in_flight: Arc::default(),
            before: OnceLock::new(),
            since: SystemTime::now(),
            outflow: RateMeter::default(),
            losses: Losses::new(sink),
            ending: OnceLock::new(),
            companions: Companions::default(),
        }
    }
}

/// Opens the queue on disk of a sink, if it has one: by its configuration, or because an earlier
/// process, in which the sink had one, has left batches there.
fn open(
    id: &Arc<str>,
    pipe: &Pipe,
    config: QueueConfig,
    required: bool,
    folder: Option<&Path>,
) -> Result<Option<Arc<Spill>>, BuildError> {
    let Some(folder) = folder else {
        return match config.is_disk() {
            true => Err(BuildError::new("queue", "there is no data_dir")),
            false => Ok(None),
        };
    };
    let place = folder.display();
    let failed = |error: OpenError| {
        let reason = match error {
            OpenError::Locked => format!(
                "{place} is in use, by another process or by a sink of this name that a reload has removed and that still drains"
            ),
            error => format!("{place}: {error}"),
        };
        BuildError::new("queue", reason)
    };
    let options = match config.is_disk() {
        true => config.disk(required),
        false => match left_behind(folder).map_err(failed)? {
            Some(bytes) => config.leftover(bytes),
            None => return Ok(None),
        },
    };
    let (queue, accounts) = (pipe.queue.clone(), pipe.accounts.clone());
    let path = folder.to_path_buf();
    let opened = Spill::open(id.clone(), path, config, options, queue, accounts);
    opened.map(Some).map_err(failed)
}

/// The size of the queue in a folder, if it holds undelivered batches.
fn left_behind(folder: &Path) -> Result<Option<u64>, OpenError> {
    if !folder.is_dir() {
        return Ok(None);
    }
    let found = survey(folder)?;
    Ok((found.queued.batches > 0).then_some(found.bytes))
}

#[cfg(test)]
mod tests;
