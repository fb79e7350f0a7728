//! The edge into a sink: its queue, the form in which it wants batches, and its accounts.

mod delivery;
mod ending;
mod form;
mod gauge;
mod input;
mod ledger;
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
use metrifold_queue::disk::OpenError;
use metrifold_queue::{
    Accounts, InFlight, Lane, OrderedBy, Progress, Queue, QueueConfig, Queued, Spill, Tracked,
    WhenFull,
};
use metrifold_telemetry::ComponentMetrics;

use crate::planes::Ending;
use crate::planes::metrics::Transform;

use gauge::Gauge;
use ledger::Before;

pub use delivery::{Delivery, Trouble};
pub use form::Form;
pub use input::{Input, Run};

/// An edge into a sink, shared by all stages that end there and by the sink itself. When the sink
/// is replaced, its successor gets an edge of its own into the same queue.
#[derive(Debug)]
pub struct Edge {
    pub(crate) id: Arc<str>,
    pub(crate) required: bool,
    /// The sink's own transform.
    pub(crate) before: Option<Arc<dyn Transform>>,
    pub(crate) metrics: ComponentMetrics,
    pipe: Arc<Pipe>,
    config: QueueConfig,
    /// Opened for this edge, for the pipe to have when this edge takes over.
    opened: Option<Arc<Spill>>,
    /// The sink's turn to take from the queue.
    turn: AtomicU64,
    form: AtomicU8,
    checks_series: bool,
    companions: CompanionBounds,
    /// How its bodies of 1.0 are best compressed.
    pub(crate) compression: CompressionChoice,
}

/// What all edges into a sink share, those of its predecessors included.
#[derive(Debug)]
struct Pipe {
    queue: Arc<Queue<Queued>>,
    /// Once there is a queue on disk, it stays: if the sink has none any more, what is
    /// on disk is delivered, and nothing is stored.
    spill: OnceLock<Arc<Spill>>,
    accounts: Arc<Accounts>,
    /// The deliveries in flight that the spill does not track.
    in_flight: Arc<InFlight>,
    /// What had become of records on disk before this process opened them.
    before: OnceLock<Before>,
    /// Since when there are accounts.
    since: SystemTime,
    outflow: RateMeter,
    /// Why the queue takes no more.
    ending: OnceLock<Ending>,
    /// What has come apart from series that are sent as 2.0.
    companions: Companions,
}

/// What a sink declares about the way in which it takes batches.
#[derive(Clone, Copy, Debug)]
pub struct EdgeConfig {
    /// Whether a batch is acknowledged to its sender only once the sink has it.
    pub required: bool,
    /// The queue in front of the sink.
    pub queue: QueueConfig,
    /// The form in which it takes batches to begin with.
    pub form: Form,
    /// Whether batches have to be decoded for it, so that their series are valid and their labels
    /// sorted, though it does not read them.
    pub checks_series: bool,
    /// Bounds on what is kept of what comes apart from its series.
    pub companions: CompanionBounds,
}

/// The lane of a batch: by its tenant and what its source orders batches by, which is a key that
/// the source gives, or else the sender, or else the source itself.
///
/// Batches whose sender does not wait for the sink must not overtake each other. A sender that
/// waits keeps its order itself, but must not overtake what it has sent while it did not wait,
/// which is so if the sink has become a required one. A source's name has no part in the lanes of
/// its senders: it may get another name while batches are queued.
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
    /// An edge into the queue of the sink's predecessor, if it has one. A queue on disk is in
    /// `folder`.
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
            None => Arc::new(Pipe::new(queue, required)),
        };
        let opened = match pipe.spill.get() {
            Some(_) => None,
            None if !queue.is_disk() => None,
            None => Some(open(&id, &pipe, queue, required, folder)?),
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

    /// Makes the sink at this edge the one that takes from the queue, under its own bounds. What
    /// its predecessor has taken, that may give back.
    pub(crate) fn take_over(&self, predecessor: Option<&Self>) {
        if let Some(predecessor) = predecessor {
            predecessor.metrics.watch_queue(None);
        }
        let turn = self.pass_turn();
        self.turn.store(turn, Ordering::Relaxed);
        if let Some(spill) = &self.opened {
            // Nobody else has opened it, so there was none.
            let _ = self.pipe.before.set(Before::of(spill.disk().read_ledger()));
            let _ = self.pipe.spill.set(spill.clone());
            let queued = spill.snapshot().total.queued();
            if queued.batches > 0 {
                let size = Size(queued.bytes);
                info!(sink = %self.id, batches = queued.batches, %size, "delivers first what is on disk");
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
        // With a queue on disk, what does not fit into memory goes there.
        let when_full = match self.config.is_disk() {
            true => WhenFull::Block,
            false => self.config.when_full(self.required),
        };
        let max = self.config.memory_bytes().bytes();
        self.pipe.queue.take_over(max, when_full)
    }

    /// What came, what became of it, and what is queued.
    #[cfg(feature = "testing")]
    pub(crate) fn ledger(&self) -> metrifold_model::ledger::Ledger {
        self.pipe.ledger()
    }

    /// Where its queue on disk is, if it has one.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.pipe.spill.get().map(|spill| spill.path())
    }

    fn turn(&self) -> u64 {
        self.turn.load(Ordering::Relaxed)
    }

    /// Gives a batch that leaves as 2.0 what has come apart from its series.
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

    /// Has the spill track batches that came back untracked.
    fn track_all(&self) {
        if let Some(spill) = self.pipe.spill.get() {
            spill.track_all();
        }
    }

    /// Pauses a tenant's batches in memory until `until`.
    fn pause(&self, tenant: Option<&Tenant>, until: Instant) {
        self.pipe.queue.pause(tenant.cloned(), until);
    }

    /// Notes that an attempt of this tenant has failed.
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

    /// Notes that an attempt has succeeded.
    fn set_well(&self, tenant: Option<&Tenant>) {
        if let Some(spill) = self.pipe.spill.get() {
            spill.set_well(tenant);
        }
    }
}

impl Pipe {
    fn new(queue: QueueConfig, required: bool) -> Self {
        let max = queue.memory_bytes().bytes();
        Self {
            queue: Arc::new(Queue::new(max, queue.when_full(required))),
            spill: OnceLock::new(),
            accounts: Arc::default(),
            in_flight: Arc::default(),
            before: OnceLock::new(),
            since: SystemTime::now(),
            outflow: RateMeter::default(),
            ending: OnceLock::new(),
            companions: Companions::default(),
        }
    }
}

/// Opens the queue on disk that a sink has to have.
fn open(
    id: &Arc<str>,
    pipe: &Pipe,
    config: QueueConfig,
    required: bool,
    folder: Option<&Path>,
) -> Result<Arc<Spill>, BuildError> {
    let folder = folder.ok_or_else(|| BuildError::new("queue", "there is no data_dir"))?;
    let (queue, accounts) = (pipe.queue.clone(), pipe.accounts.clone());
    let path = folder.to_path_buf();
    Spill::open(id.clone(), path, (config, required), queue, accounts).map_err(|error| {
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

#[cfg(test)]
mod tests;
