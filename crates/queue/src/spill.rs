//! What spills from the queue in memory to the one on disk behind it, and comes back.
//!
//! A batch goes into memory first. It is *spilled* when it has not been delivered for `store_after`,
//! when an attempt has failed, when memory has no room, and at the end. A batch goes to disk alone
//! while its sink or its tenant fails, and while the disk alone has a batch that it must not
//! overtake. So of a lane, what the disk alone has is always behind all that memory has, and both
//! are read in order. A tenant's pause *evicts* its batches from memory, so that there is room for
//! those of others; records are *replayed* when memory runs empty and the pause is over.
//!
//! | a batch is | and | then it is |
//! | --- | --- | --- |
//! | new | its lane is free and memory has room | `Memory` |
//! | new | it must not overtake one on disk, its sink or tenant fails, or memory is full | `Writing` |
//! | `Memory` | it is spilled | `Spilling` |
//! | `Memory` | it is finished | done, in the accounts |
//! | `Spilling` | it has been appended | `Both`; done, on disk, if it was finished meanwhile |
//! | `Spilling` | the append has failed | `Memory` again; done, in the accounts, if it was finished |
//! | `Writing` | it has been appended | on disk alone: in the backlog |
//! | `Writing` | the append has failed | its sender's again; dropped if that does not wait |
//! | `Both` | it is finished | done, on disk |
//! | `Both` | its tenant is paused, and it is whole and not in flight | on disk alone |
//! | on disk alone | it is replayed | `Both` |
//! | on disk alone | its sender sends it again, or the disk drops it | done, on disk |
//!
//! Locks: the spill's before that of the queue in memory and before the disk's, never the other way
//! round.

mod backlog;
mod books;
mod pause;
mod replay;
mod residence;
mod settings;
mod tasks;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use metrifold_base::RateMeter;
use metrifold_model::ledger::{Reason, Tally};
use metrifold_model::{Tenant, Ticket};

use crate::disk::{DiskQueue, Entry, OpenError, Snapshot};
use crate::{Accounts, Incoming, Queue, QueueConfig, Queued, Tracked};

use backlog::Backlog;
use residence::{Residence, Residents, Unstored};
use settings::Settings;
use tasks::Watch;
use write::split;

/// A queue on disk behind the one in memory, shared by all edges into it.
pub struct Spill {
    sink: Arc<str>,
    path: PathBuf,
    disk: DiskQueue,
    queue: Arc<Queue<Queued>>,
    accounts: Arc<Accounts>,
    state: Mutex<SpillState>,
    settings: ArcSwap<Settings>,
    /// Attempts to deliver fail, whoever's batch it is.
    failing: AtomicBool,
    /// Attempts fail for some tenants.
    some_paused: AtomicBool,
    /// The task that stores has something to do.
    work: Notify,
    /// The task that reads has something to do.
    readable: Notify,
    /// An append is complete.
    appended: Notify,
    watch: Arc<Watch>,
    /// The bytes of bodies that are done.
    drained: RateMeter,
    /// What the disk has dropped for reasons of its own, as far as metrics have it.
    counted: Mutex<BTreeMap<Reason, Tally>>,
    /// What the disk did not take and nobody sends again, as far as metrics do not have it.
    not_written: Mutex<Tally>,
    started: OnceLock<()>,
}

#[derive(Default)]
struct SpillState {
    residents: Residents,
    /// Records that are on disk alone.
    backlog: Backlog,
    /// Those of them whose senders wait for the far end, by position.
    waiting: BTreeMap<u64, (Entry, Ticket)>,
    closing: bool,
    closed: bool,
}

impl SpillState {
    /// The batches that memory alone has and the disk can take, in order. An older batch whose append
    /// has failed must not come to stand behind a newer one of its lane whose append has not: it
    /// stays in memory, which is read first.
    fn storable(&self) -> impl Iterator<Item = (u64, &Unstored)> {
        let Self {
            residents, backlog, ..
        } = self;
        residents.in_memory().filter(|(id, it)| {
            it.storable
                && !residents.has_newer_copy(it.lane, *id)
                && !backlog.has_newer(it.lane, *id)
        })
    }
}

/// What became of a push.
#[derive(Debug)]
pub enum Taken {
    /// The batch is in the queue.
    In,
    /// There is no room for it now.
    Full(Incoming),
    /// There is room for it as soon as the disk has taken what is on its way.
    Busy(Incoming),
    /// There never is room for it.
    TooLarge(Incoming),
    /// The queue is closed.
    Closed(Incoming),
}

/// Why not all that memory alone has is on its way to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unspilled {
    /// The disk has no room for it, or takes nothing any more.
    Full,
    /// The disk takes it in a moment.
    Busy,
}

/// The name under which a tenant stands on disk.
fn key(tenant: &Option<Tenant>) -> Tenant {
    tenant.clone().unwrap_or_default()
}

/// Milliseconds since 1970, as records keep them.
pub fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

impl Spill {
    /// Opens the queue in a directory; starts nothing but its writer.
    ///
    /// # Errors
    ///
    /// Fails as [`DiskQueue::open`] does.
    pub fn open(
        sink: Arc<str>,
        path: PathBuf,
        (config, required): (QueueConfig, bool),
        queue: Arc<Queue<Queued>>,
        accounts: Arc<Accounts>,
    ) -> Result<Arc<Self>, OpenError> {
        let watch = Arc::new(Watch::default());
        let listener = tasks::listener(sink.clone(), watch.clone());
        let disk = DiskQueue::open(path.clone(), config.disk(required), listener)?;
        let mut counted = disk.snapshot().total.dropped;
        // What was found to be lost just now has not been counted.
        let lost = Tally {
            batches: watch.corrupt.load(Ordering::Relaxed),
            samples: watch.samples.load(Ordering::Relaxed),
            ..Tally::default()
        };
        *counted.entry(Reason::Corrupt).or_default() -= lost;
        let state = SpillState {
            backlog: Backlog::new(disk.first().0, disk.end().0),
            ..SpillState::default()
        };
        Ok(Arc::new(Self {
            sink,
            path,
            queue,
            accounts,
            state: Mutex::new(state),
            settings: ArcSwap::from_pointee(Settings::new(config)),
            failing: AtomicBool::new(false),
            some_paused: AtomicBool::new(false),
            work: Notify::new(),
            readable: Notify::new(),
            appended: Notify::new(),
            watch,
            drained: RateMeter::default(),
            counted: Mutex::new(counted),
            not_written: Mutex::default(),
            started: OnceLock::new(),
            disk,
        }))
    }

    /// No invariant spans a panic here: every change to the state is complete.
    fn state(&self) -> MutexGuard<'_, SpillState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder of the queue on disk.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Goes by another configuration from now on, tracks what is in memory, and starts its tasks if
    /// they have not been started.
    pub fn engage(self: &Arc<Self>, config: QueueConfig, required: bool) {
        self.settings.store(Arc::new(Settings::new(config)));
        if config.is_disk() {
            self.disk.set_options(config.disk(required));
            self.track_all();
        }
        if self.started.set(()).is_ok() {
            tokio::spawn(tasks::store(self.clone()));
            tokio::spawn(tasks::read(self.clone()));
        }
        self.work.notify_one();
        self.readable.notify_one();
        // There may be room for more of what is on disk.
        self.queue.nudge();
    }

    /// Tracks the batches in memory that are not: they came before there was a queue on disk, or are
    /// back from a predecessor that had none.
    pub fn track_all(&self) {
        if !self.keeps() {
            return;
        }
        let mut state = self.state();
        self.queue.for_each(|queued, lane| {
            if queued.tracked.is_none() {
                let batch = queued.batch.clone();
                let version = batch.body_version();
                let (own, until_stored) = split(queued.ticket.take());
                queued.ticket = own;
                let unstored = Unstored::new(batch, version, lane.id, until_stored, queued.since);
                let tally = std::mem::take(&mut queued.tally);
                let unstored = Unstored { tally, ..unstored };
                let id = state.residents.insert(Residence::Memory(unstored));
                queued.tracked = Some(Tracked::new(id));
            }
        });
        drop(state);
        self.work.notify_one();
    }

    /// Whether batches have to go through it.
    pub fn engaged(&self) -> bool {
        self.keeps() || !self.state().backlog.is_empty()
    }

    /// Whether new batches are stored.
    pub fn keeps(&self) -> bool {
        self.settings.load().keeps
    }

    /// The age from which records are dropped.
    pub fn max_age(&self) -> Option<Duration> {
        self.settings.load().max_age
    }

    fn memory_bytes(&self) -> usize {
        self.settings.load().memory_bytes
    }

    /// Waits until all that memory alone has is stored, at most until `deadline`.
    pub async fn secure(self: &Arc<Self>, deadline: Instant) {
        loop {
            let appended = self.appended.notified();
            tokio::pin!(appended);
            appended.as_mut().enable();
            if self.spill_all() && self.is_settled() {
                return;
            }
            // Room on disk has no waker here.
            let appended = timeout(LOOK_AGAIN, appended);
            if timeout_at(deadline, appended).await.is_err() {
                return;
            }
        }
    }

    /// Stores what memory alone has. Returns whether all of it is on its way.
    fn spill_all(self: &Arc<Self>) -> bool {
        let mut state = self.state();
        self.spill(&mut state, |_| true).is_ok()
    }

    /// When something has to be stored.
    fn due(&self) -> Option<Instant> {
        let settings = self.settings.load();
        let state = self.state();
        let (_, first) = state.storable().next().filter(|_| settings.keeps)?;
        Some(first.since + settings.store_after)
    }

    /// Whether nothing is on its way to disk.
    pub fn is_settled(&self) -> bool {
        self.state().residents.is_settled()
    }

    /// Refuses new batches, and reads no more records.
    pub fn begin_close(&self) {
        self.state().closing = true;
        self.readable.notify_one();
        self.queue.nudge();
    }

    /// Ends its tasks.
    pub fn close(&self) {
        let mut state = self.state();
        state.closing = true;
        state.closed = true;
        drop(state);
        self.readable.notify_one();
        self.work.notify_one();
    }

    fn is_closing(&self) -> bool {
        self.state().closing
    }

    fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// In how many seconds a sender should try again when the disk is full.
    pub fn retry_after(&self) -> u64 {
        let seconds = self.drained.seconds_for(self.disk.snapshot().bytes);
        // Room comes by segments, of which there are sixteen.
        seconds
            .map_or(LONGEST_RETRY, |seconds| (seconds / 16.0).ceil() as u64)
            .clamp(1, LONGEST_RETRY)
    }

    /// What it holds on disk, and what became of what it held.
    pub fn snapshot(&self) -> Snapshot {
        self.disk.snapshot()
    }

    /// The queue on disk.
    pub fn disk(&self) -> &DiskQueue {
        &self.disk
    }

    /// How many records were lost to damage since it was opened.
    pub fn corrupt(&self) -> u64 {
        self.watch.corrupt.load(Ordering::Relaxed)
    }

    /// How long so many bytes of bodies take at the present rate; none if nothing goes.
    pub fn seconds_to_drain(&self, bytes: u64) -> Option<f64> {
        self.drained.seconds_for(bytes)
    }
}

/// The longest that a sender is told to stay away from a queue, in seconds.
pub const LONGEST_RETRY: u64 = 30;
/// Poll interval of those who wait for something on disk that may have no waker.
pub const LOOK_AGAIN: Duration = Duration::from_millis(250);

impl Drop for Spill {
    fn drop(&mut self) {
        if self.started.get().is_none() {
            // The build was undone, off the workers: the next one may want the folder.
            self.disk.close();
        }
    }
}

impl std::fmt::Debug for Spill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.path.display();
        f.debug_struct("Spill")
            .field("path", &path.to_string())
            .finish_non_exhaustive()
    }
}
