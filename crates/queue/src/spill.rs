//! The spill: moves batches between the queue in memory and the queue on disk behind it.
//!
//! A batch goes into memory first. It is *spilled* when it has not been delivered for `store_after`,
//! when an attempt has failed, when memory has no room, and at the end. While its sink or its tenant
//! fails, or while the disk alone has a batch that it must not overtake, a batch goes to disk alone.
//! The part of a lane that is on disk alone is therefore always behind the part in memory, and both
//! are read in order. A tenant's pause *evicts* its batches from memory, to make room for other
//! tenants; records are *replayed* when memory runs empty and the pause is over.
//!
//! | a batch is | and | then it is |
//! | --- | --- | --- |
//! | new | nothing of its lane is on disk alone, and memory has room | `Memory` |
//! | new | part of its lane is on disk alone, its sink or tenant fails, or memory is full | `Writing` |
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
//! Lock order: the spill, then the queue in memory or the disk; never the reverse.

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
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use metrifold_base::RateMeter;
use metrifold_model::ledger::{Reason, Tally};
use metrifold_model::{Tenant, Ticket};

use crate::disk::{DiskQueue, Entry, OpenError, Options, Snapshot};
use crate::{Accounts, Incoming, Queue, QueueConfig, Queued, Tracked};

use backlog::Backlog;
use residence::{Residence, Residents, Unstored};
use settings::Settings;
use tasks::Watch;
use write::split;

/// A queue on disk behind the one in memory, shared by all edges of the sink.
pub struct Spill {
    sink: Arc<str>,
    path: PathBuf,
    disk: DiskQueue,
    queue: Arc<Queue<Queued>>,
    accounts: Arc<Accounts>,
    state: Mutex<SpillState>,
    settings: ArcSwap<Settings>,
    /// Whether attempts fail for all tenants.
    failing: AtomicBool,
    /// Whether any tenant is paused.
    some_paused: AtomicBool,
    /// Wakes the task that stores batches.
    work: Notify,
    /// Wakes the task that reads records.
    readable: Notify,
    /// Wakes those that wait for appends.
    appended: Notify,
    watch: Arc<Watch>,
    /// Rate at which bytes of bodies are done.
    drained: RateMeter,
    /// Drops by the disk itself that metrics have counted already.
    counted: Mutex<BTreeMap<Reason, Tally>>,
    /// Batches that the disk refused and nobody sends again, not counted in metrics yet.
    not_written: Mutex<Tally>,
    started: OnceLock<()>,
}

#[derive(Default)]
struct SpillState {
    residents: Residents,
    /// Records that are on disk alone.
    backlog: Backlog,
    /// Records of the backlog whose senders wait for delivery, by position.
    waiting: BTreeMap<u64, (Entry, Ticket)>,
    closing: bool,
    closed: bool,
}

impl SpillState {
    /// The batches that are in memory alone and can be stored, in order. An older batch whose append
    /// has failed must not be stored behind a newer batch of its lane: it stays in memory, which is
    /// read first.
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

/// Result of a push.
#[derive(Debug)]
pub enum Taken {
    /// The batch is queued.
    In,
    /// There is no room for the batch now.
    Full(Incoming),
    /// There will be room for the batch once the disk has written the appends on their way.
    Busy(Incoming),
    /// The batch never fits.
    TooLarge(Incoming),
    /// The queue is closed.
    Closed(Incoming),
}

/// Reason why some batches that are in memory alone are not on their way to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unspilled {
    /// The disk has no room, or its queue is closed.
    Full,
    /// The disk will accept the batches in a moment.
    Busy,
}

/// The name of a tenant on disk; empty for no tenant.
fn key(tenant: &Option<Tenant>) -> Tenant {
    tenant.clone().unwrap_or_default()
}

impl Spill {
    /// Opens the queue in a directory with these options; starts only its writer.
    ///
    /// # Errors
    ///
    /// Fails as [`DiskQueue::open`] does.
    pub fn open(
        sink: Arc<str>,
        path: PathBuf,
        config: QueueConfig,
        options: Options,
        queue: Arc<Queue<Queued>>,
        accounts: Arc<Accounts>,
    ) -> Result<Arc<Self>, OpenError> {
        let watch = Arc::new(Watch::default());
        let listener = tasks::listener(sink.clone(), watch.clone());
        let disk = DiskQueue::open(path.clone(), options, listener)?;
        let mut counted = disk.snapshot().total.dropped;
        // Losses that the opening has found are not counted in metrics yet.
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

    /// Locks the state. A poisoned lock is used on: every change is complete, so no invariant spans a
    /// panic.
    fn state(&self) -> MutexGuard<'_, SpillState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder of the queue on disk.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Applies a configuration, tracks the batches in memory, and starts the tasks unless they run.
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
        // The new bounds may have room for more records.
        self.queue.nudge();
    }

    /// Tracks untracked batches in memory: those that arrived before there was a queue on disk, or
    /// that returned from a predecessor without one.
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

    /// Whether batches have to pass through the spill.
    pub fn engaged(&self) -> bool {
        self.keeps() || !self.state().backlog.is_empty()
    }

    /// Whether new batches may be stored.
    pub fn keeps(&self) -> bool {
        self.settings.load().keeps
    }

    /// Age from which records are dropped.
    pub fn max_age(&self) -> Option<Duration> {
        self.settings.load().max_age
    }

    fn memory_bytes(&self) -> usize {
        self.settings.load().memory_bytes
    }

    /// Waits until all batches that are in memory alone are stored, at most until `deadline`.
    pub async fn secure(self: &Arc<Self>, deadline: Instant) {
        loop {
            let appended = self.appended.notified();
            tokio::pin!(appended);
            appended.as_mut().enable();
            if self.spill_all() && self.is_settled() {
                return;
            }
            // Room on disk has no waker here, so this polls.
            let appended = timeout(LOOK_AGAIN, appended);
            if timeout_at(deadline, appended).await.is_err() {
                return;
            }
        }
    }

    /// Stores the batches that are in memory alone. Returns whether all of them are on their way.
    fn spill_all(self: &Arc<Self>) -> bool {
        let mut state = self.state();
        self.spill(&mut state, |_| true).is_ok()
    }

    /// Time at which the next batch has to be stored.
    fn due(&self) -> Option<Instant> {
        let settings = self.settings.load();
        let state = self.state();
        let (_, first) = state.storable().next().filter(|_| settings.keeps)?;
        Some(first.since + settings.store_after)
    }

    /// Whether no batch is on its way to disk.
    pub fn is_settled(&self) -> bool {
        self.state().residents.is_settled()
    }

    /// Refuses new batches, and stops reading records.
    pub fn begin_close(&self) {
        self.state().closing = true;
        self.readable.notify_one();
        self.queue.nudge();
    }

    /// Ends the tasks.
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

    /// Seconds after which a sender should retry when the disk is full.
    pub fn retry_after(&self) -> u64 {
        let seconds = self.drained.seconds_for(self.disk.snapshot().bytes);
        // Room becomes free by whole segments, of which there are sixteen.
        seconds
            .map_or(LONGEST_RETRY, |seconds| (seconds / 16.0).ceil() as u64)
            .clamp(1, LONGEST_RETRY)
    }

    /// The content and the accounts of the queue on disk.
    pub fn snapshot(&self) -> Snapshot {
        self.disk.snapshot()
    }

    /// The queue on disk.
    pub fn disk(&self) -> &DiskQueue {
        &self.disk
    }

    /// Records lost to damage since the queue was opened.
    pub fn corrupt(&self) -> u64 {
        self.watch.corrupt.load(Ordering::Relaxed)
    }

    /// Seconds in which `bytes` of bodies drain at the present rate; `None` if nothing drains.
    pub fn seconds_to_drain(&self, bytes: u64) -> Option<f64> {
        self.drained.seconds_for(bytes)
    }
}

/// The longest pause that a sender is told before a retry, in seconds.
pub const LONGEST_RETRY: u64 = 30;
/// Poll interval for events on disk that may have no waker.
pub const LOOK_AGAIN: Duration = Duration::from_millis(250);

impl Drop for Spill {
    fn drop(&mut self) {
        if self.started.get().is_none() {
            // The build was undone, off the workers: the next build may open the same folder.
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
