//! What a queue on disk adds to an edge.
//!
//! A batch goes into the queue in memory first. It is *stored* when it has not been delivered after
//! a while, when an attempt has failed, when there is no room in memory, and at the end. What comes
//! while something of its lane is on disk alone, or while the sink or its tenant fails, goes to disk
//! at once: so what of a lane is on disk alone is always behind all of it that is in memory, and
//! both are read in order. What fails for one tenant alone leaves memory until it is tried again,
//! so that memory is there for the others.
//!
//! Locks: the store's before the queue's and before the disk's, never the other way round.

mod append;
mod backlog;
mod held;
mod read;
mod state;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::Instant;

use metrifold_codec::Batch;
use metrifold_model::ledger::{Reason, Tally};
use metrifold_model::{Outcome, Tenant, Ticket};
use metrifold_queue::disk::{DiskQueue, Entry, Fate, OpenError, Snapshot, StatsSnapshot};
use metrifold_queue::{Queue, QueueConfig};

use super::accounts::Accounts;
use super::delivery::Progress;
use super::{Incoming, Waiting, pump};
use append::split;
use backlog::Backlog;
pub(super) use state::Kept;
use state::{Fresh, State};

/// A queue on disk behind the one in memory, shared by all edges into it.
pub(super) struct Store {
    pub(super) sink: Arc<str>,
    path: PathBuf,
    pub(super) disk: DiskQueue,
    pub(super) queue: Arc<Queue<Waiting>>,
    pub(super) accounts: Arc<Accounts>,
    state: Mutex<State>,
    settings: ArcSwap<Settings>,
    /// Attempts to deliver fail.
    failing: AtomicBool,
    /// They fail for some tenants.
    some_paused: AtomicBool,
    /// Something has to be stored some time.
    pub(super) work: Notify,
    /// Something can be read that could not.
    pub(super) readable: Notify,
    /// An append came to its end.
    pub(super) appended: Notify,
    pub(super) watch: Arc<pump::Watch>,
    pub(super) drained: pump::Rate,
    /// What its own reasons have cost, as far as that has been counted elsewhere.
    counted: Mutex<BTreeMap<Reason, Tally>>,
    /// What the disk did not take and nobody sends again, since that was last counted.
    not_written: Mutex<Tally>,
    started: OnceLock<()>,
}

/// What a reload can change.
#[derive(Clone, Copy, Debug)]
struct Settings {
    /// Whether new batches are stored. If not, what is on disk is delivered, and that is all.
    keeps: bool,
    store_after: Duration,
    max_age: Option<Duration>,
    memory_bytes: usize,
}

/// What became of a push.
pub(super) enum Taken {
    In,
    Full(Incoming),
    TooLarge(Incoming),
    Closed(Incoming),
}

/// What the ledger says of a batch.
pub(super) fn tally(batch: &Batch) -> Tally {
    Tally::of(
        batch.counts(),
        u32::try_from(batch.body_len()).unwrap_or(u32::MAX),
    )
}

/// The name under which a tenant stands on disk.
fn key(tenant: &Option<Tenant>) -> Tenant {
    tenant.clone().unwrap_or_default()
}

pub(super) fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

impl Store {
    /// Opens the queue in a directory; starts nothing but its writer.
    pub(super) fn open(
        sink: Arc<str>,
        path: PathBuf,
        (config, required): (QueueConfig, bool),
        queue: Arc<Queue<Waiting>>,
        accounts: Arc<Accounts>,
    ) -> Result<Arc<Self>, OpenError> {
        let watch = Arc::new(pump::Watch::default());
        let listener = pump::listener(sink.clone(), watch.clone());
        let disk = DiskQueue::open(path.clone(), config.disk(required), listener)?;
        let mut counted = disk.snapshot().total.dropped;
        // What was found to be lost just now has not been counted.
        let lost = Tally {
            batches: watch.corrupt.load(Ordering::Relaxed),
            samples: watch.samples.load(Ordering::Relaxed),
            ..Tally::default()
        };
        *counted.entry(Reason::Corrupt).or_default() -= lost;
        let state = State {
            backlog: Backlog::new(disk.first().0, disk.end().0),
            ..State::default()
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
            drained: pump::Rate::default(),
            counted: Mutex::new(counted),
            not_written: Mutex::default(),
            started: OnceLock::new(),
            disk,
        }))
    }

    /// No invariant spans a panic here: every change to the state is complete.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Goes by another configuration from now on, and starts if that has not been done. What is in
    /// the queue in memory and unknown here is known from now on.
    pub(super) fn engage(self: &Arc<Self>, config: QueueConfig, required: bool) {
        self.settings.store(Arc::new(Settings::new(config)));
        if config.is_disk() {
            self.disk.set_options(config.disk(required));
            self.adopt();
        }
        if self.started.set(()).is_ok() {
            tokio::spawn(pump::keep(self.clone()));
            tokio::spawn(pump::pump(self.clone()));
        }
        self.work.notify_one();
        self.readable.notify_one();
        // There may be room for more of what is on disk.
        self.queue.nudge();
    }

    /// Gets to know what has come into the queue in memory past it: before it was there, or back
    /// from a predecessor that had none.
    pub(super) fn adopt(&self) {
        if !self.keeps() {
            return;
        }
        let mut state = self.state();
        self.queue.for_each(|waiting, lane| {
            if waiting.kept.is_none() {
                let batch = waiting.batch.clone();
                let version = batch.body_version();
                let (own, ticket) = split(waiting.ticket.take());
                waiting.ticket = own;
                let tally = std::mem::take(&mut waiting.tally);
                let fresh = Fresh::new(batch, version, lane.id, ticket, waiting.since);
                let fresh = Fresh { tally, ..fresh };
                waiting.kept = Some(Kept::new(state.keep(fresh)));
            }
        });
        drop(state);
        self.work.notify_one();
    }

    /// Whether batches have to go through it.
    pub(super) fn engaged(&self) -> bool {
        self.keeps() || !self.state().backlog.is_empty()
    }

    /// Whether new batches are stored.
    pub(super) fn keeps(&self) -> bool {
        self.settings.load().keeps
    }

    pub(super) fn max_age(&self) -> Option<Duration> {
        self.settings.load().max_age
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.settings.load().memory_bytes
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Attempts fail, whoever's batch it is.
    pub(super) fn fails(self: &Arc<Self>) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            self.store_all();
        }
    }

    /// Attempts fail for a tenant, who is left alone until then.
    pub(super) fn fails_for(self: &Arc<Self>, tenant: Option<&Tenant>, until: Instant) {
        let mut state = self.state();
        let name = key(&tenant.cloned());
        state.backlog.pause(&name, until);
        self.some_paused.store(true, Ordering::Relaxed);
        if self.keeps() {
            self.flush(&mut state, |fresh| fresh.batch.tenant() == tenant);
        }
        self.shed(&mut state, tenant);
        drop(state);
        self.readable.notify_one();
    }

    /// An attempt has succeeded.
    pub(super) fn does_well(&self, tenant: Option<&Tenant>) {
        if self.is_failing() {
            self.failing.store(false, Ordering::Relaxed);
        }
        if self.some_paused.load(Ordering::Relaxed) {
            let mut state = self.state();
            state.backlog.resume(&key(&tenant.cloned()));
            let some = state.backlog.some_paused();
            self.some_paused.store(some, Ordering::Relaxed);
            drop(state);
            self.readable.notify_one();
        }
    }

    /// Stores what only memory has. Returns whether all of it is on its way.
    pub(super) fn store_all(self: &Arc<Self>) -> bool {
        let mut state = self.state();
        self.flush(&mut state, |_| true)
    }

    /// Says what became of a part of a batch.
    pub(super) fn finish(&self, kept: &Kept, progress: Progress, outcome: &Outcome) {
        let Some(fate) = kept.finish(progress) else {
            return;
        };
        let mut state = self.state();
        let ticket = if let Some(fresh) = state.fresh.remove(&kept.id) {
            drop(state);
            self.drained.add(fresh.tally.bytes);
            let tenant = fresh.batch.tenant();
            self.accounts.settled(tenant, fresh.tally, fate);
            fresh.ticket
        } else {
            let Some(copied) = state.copied.get_mut(kept.id) else {
                return;
            };
            if let Some(entry) = copied.entry.take() {
                state.copied.remove(kept.id);
                let others = state.backlog.unread(&entry);
                drop(state);
                if others {
                    self.readable.notify_one();
                }
                self.drained.add(u64::from(entry.body_length));
                self.done(&entry, fate);
                None
            } else {
                copied.fate = Some(fate);
                copied.fresh.as_mut().and_then(|fresh| fresh.ticket.take())
            }
        };
        if let Some(ticket) = ticket {
            ticket.report(outcome.clone());
        }
    }

    /// Says what became of a record. If it was dropped, that has been counted.
    fn done(&self, entry: &Entry, fate: Fate) {
        if self.disk.done(entry, fate)
            && let Fate::Dropped(reason) = fate
        {
            *self.counted().entry(reason).or_default() +=
                Tally::of(entry.counts, entry.body_length);
        }
    }

    fn counted(&self) -> MutexGuard<'_, BTreeMap<Reason, Tally>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn not_written(&self) -> MutexGuard<'_, Tally> {
        self.not_written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What was dropped on disk since this was last asked, and not by somebody who counted it.
    pub(super) fn newly_dropped(&self, snapshot: &Snapshot) -> Vec<(Reason, Tally)> {
        let mut counted = self.counted();
        let mut new = Vec::new();
        let not_written = std::mem::take(&mut *self.not_written());
        if not_written.batches > 0 {
            new.push((Reason::DiskFailed, not_written));
        }
        for reason in [
            Reason::QueueFull,
            Reason::TooOld,
            Reason::Corrupt,
            Reason::Abandoned,
        ] {
            let total = snapshot.total.dropped.get(&reason).copied();
            let total = total.unwrap_or_default();
            let before = counted.get(&reason).copied().unwrap_or_default();
            let mut dropped = total;
            dropped -= before;
            // It is less than before when what had made room was delivered after all. A counter
            // cannot go back: it stays until it is right again.
            if dropped.batches > 0 {
                counted.insert(reason, total);
                new.push((reason, dropped));
            }
        }
        new
    }

    /// Whether the sender of a batch has been told to send it again.
    pub(super) fn abandoned(&self, kept: &Kept) -> bool {
        let state = self.state();
        let fresh = state.fresh.get(&kept.id);
        fresh.is_some_and(|fresh| fresh.ticket.as_ref().is_some_and(Ticket::abandoned))
    }

    /// Gives up a batch that memory alone has. Returns its ticket; none if it is on disk.
    pub(super) fn forget(&self, kept: &Kept) -> Option<(Option<Ticket>, Tally)> {
        let fresh = self.state().fresh.remove(&kept.id)?;
        Some((fresh.ticket, fresh.tally))
    }

    /// When something has to be stored.
    pub(super) fn due(&self) -> Option<Instant> {
        let settings = self.settings.load();
        let state = self.state();
        let (_, first) = state.storable().next().filter(|_| settings.keeps)?;
        Some(first.since + settings.store_after)
    }

    /// Whether all that can be stored is.
    pub(super) fn is_settled(&self) -> bool {
        let state = self.state();
        let mut copied = state.copied.values();
        state.direct.is_empty() && copied.all(|copied| copied.fresh.is_none())
    }

    /// What memory alone has: batches and their weight.
    pub(super) fn unstored(&self) -> (usize, usize) {
        let state = self.state();
        let weight = state.fresh.values().map(|fresh| fresh.batch.weight());
        (state.fresh.len(), weight.sum())
    }

    /// Takes nothing more, and reads nothing more.
    pub(super) fn begin_close(&self) {
        self.state().closing = true;
        self.readable.notify_one();
        self.queue.nudge();
    }

    /// Ends what it has started.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closing = true;
        state.closed = true;
        drop(state);
        self.readable.notify_one();
        self.work.notify_one();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.state().closing
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// After how many seconds it is worth trying again when it is full.
    pub(super) fn retry_after(&self) -> u64 {
        let seconds = self.drained.seconds(self.disk.snapshot().bytes);
        // Room comes by segments, of which there are sixteen.
        seconds
            .map_or(LONGEST_RETRY, |seconds| (seconds / 16.0).ceil() as u64)
            .clamp(1, LONGEST_RETRY)
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.disk.snapshot()
    }

    pub(super) fn stats(&self) -> StatsSnapshot {
        self.disk.stats()
    }
}

/// The longest that a sender is told to stay away, in seconds.
const LONGEST_RETRY: u64 = 30;

impl Settings {
    fn new(config: QueueConfig) -> Self {
        Self {
            keeps: config.is_disk(),
            store_after: config.store_after(),
            max_age: config
                .is_disk()
                .then(|| config.disk(true).max_age)
                .flatten(),
            memory_bytes: config.memory_bytes().bytes(),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.started.get().is_none() {
            // The build was undone, off the workers: the next one may want the folder.
            self.disk.close();
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.path.display();
        f.debug_struct("Store")
            .field("path", &path.to_string())
            .finish_non_exhaustive()
    }
}
