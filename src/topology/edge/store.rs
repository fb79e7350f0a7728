//! What a queue on disk adds to an edge.
//!
//! A batch goes into the queue in memory first. It is *stored* when it has not been delivered after
//! a while, when an attempt has failed, when there is no room in memory, and at the end. What comes
//! while something on disk waits to be read, or while the sink fails, goes to disk at once: so what
//! is on disk and not in memory is always behind all that is in memory, and both are read in order.
//!
//! Locks: the store's before the queue's and before the disk's, never the other way round.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::protocol::Version;
use crate::queue::disk::{
    Append, AppendError, DiskQueue, Entry, Fate, OpenError, Position, Reason, Record, Refused,
    Snapshot, StatsSnapshot, Tally,
};
use crate::queue::{Lane, Queue, QueueConfig};
use crate::signal::{Batch, Origin, Outcome, Ticket};

use super::accounts::{ABANDONED, Accounts, DISK_FAILED, reason_name};
use super::delivery::Progress;
use super::{Incoming, Waiting, pump};

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

#[derive(Default)]
struct State {
    next: u64,
    /// In memory and not on disk, in the order in which they came.
    fresh: BTreeMap<u64, Fresh>,
    /// In memory, and on disk or on their way there.
    copied: HashMap<u64, Copied, foldhash::fast::RandomState>,
    /// On their way to disk, and not in memory.
    direct: HashMap<u64, Direct, foldhash::fast::RandomState>,
    /// Of records that are on disk and not in memory, those whose senders wait for the far end.
    waiting: BTreeMap<u64, (Entry, Ticket)>,
    /// The next record to read, unless it is one of `present`.
    cursor: u64,
    /// The records from the cursor on that are in memory.
    present: BTreeSet<u64>,
    /// The end of the records that can be read.
    end: u64,
    /// Whether somebody waits for a record to read.
    hungry: bool,
    closing: bool,
    closed: bool,
}

struct Fresh {
    batch: Batch,
    version: Version,
    lane: u64,
    /// Whose sender need not wait once it is stored.
    ticket: Option<Ticket>,
    tally: Tally,
    since: Instant,
    /// Not if it is too large for the disk, or if its sender has given it up.
    storable: bool,
}

struct Copied {
    /// What it was before; gone once it is stored.
    fresh: Option<Fresh>,
    entry: Option<Entry>,
    /// If it came to its end while it was on its way.
    fate: Option<Fate>,
}

struct Direct {
    batch: Batch,
    ticket: Option<Ticket>,
    tally: Tally,
}

/// What the store knows of a batch in memory, shared by its parts.
#[derive(Debug)]
pub(super) struct Kept {
    id: u64,
    /// How many parts are not done, and what became of the others.
    parts: Mutex<(usize, Progress)>,
}

impl Kept {
    fn new(id: u64) -> Arc<Self> {
        Arc::new(Self {
            id,
            parts: Mutex::new((1, Progress::default())),
        })
    }

    fn parts(&self) -> MutexGuard<'_, (usize, Progress)> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One part has come that far, and goes on in so many.
    pub(super) fn leave(&self, progress: Progress, left: usize) {
        let mut parts = self.parts();
        parts.0 = (parts.0 + left).saturating_sub(1);
        parts.1.add(progress);
    }

    /// One part has come to its end. Returns what became of the batch if it was the last one.
    fn finish(&self, progress: Progress) -> Option<Fate> {
        let mut parts = self.parts();
        parts.1.add(progress);
        parts.0 = parts.0.saturating_sub(1);
        (parts.0 == 0).then(|| parts.1.fate())
    }
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
        let state = State {
            end: disk.end().0,
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
            work: Notify::new(),
            readable: Notify::new(),
            appended: Notify::new(),
            watch,
            drained: pump::Rate::default(),
            counted: Mutex::new(disk.snapshot().total.dropped),
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
        self.keeps() || self.state().is_behind()
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

    /// Says whether attempts fail.
    pub(super) fn set_failing(self: &Arc<Self>, failing: bool) {
        if self.failing.swap(failing, Ordering::Relaxed) != failing && failing {
            self.store_all();
        }
    }

    /// Stores what only memory has. Returns whether all of it is on its way.
    pub(super) fn store_all(self: &Arc<Self>) -> bool {
        let mut state = self.state();
        self.flush(&mut state)
    }

    /// Takes a batch into memory or to disk.
    pub(super) fn push(self: &Arc<Self>, item: Incoming) -> Taken {
        let mut state = self.state();
        if state.closing {
            return Taken::Closed(item);
        }
        let behind = state.is_behind();
        let keeps = self.keeps();
        let at_once = behind || (keeps && self.is_failing());
        if !at_once || !self.flush(&mut state) {
            let weight = item.batch.weight();
            if !behind && self.queue.has_room(weight) {
                self.keep_in_memory(&mut state, item, weight);
                return Taken::In;
            }
            if !keeps || !self.flush(&mut state) {
                return Taken::Full(item);
            }
        }
        self.to_disk(state, item)
    }

    fn keep_in_memory(&self, state: &mut State, item: Incoming, weight: usize) {
        let Incoming {
            batch,
            ticket,
            since,
            lane,
            version,
        } = item;
        let tally = tally(&batch);
        self.accounts.received(batch.tenant(), tally);
        let (ticket, kept_ticket) = split(ticket);
        let fresh = Fresh::new(batch.clone(), version, lane.id, kept_ticket, since);
        if state.fresh.is_empty() {
            self.work.notify_one();
        }
        let kept = Some(Kept::new(state.keep(fresh)));
        let waiting = Waiting {
            batch,
            ticket,
            since,
            tally,
            kept,
        };
        self.queue.push_anyway(waiting, weight, lane);
    }

    /// Appends a batch without keeping it in memory.
    fn to_disk(self: &Arc<Self>, mut state: MutexGuard<'_, State>, item: Incoming) -> Taken {
        let Incoming {
            mut batch,
            ticket,
            since,
            lane,
            version,
        } = item;
        let back = |batch, ticket| Incoming {
            batch,
            ticket,
            since,
            lane,
            version,
        };
        let Some(append) = append(&mut batch, version, lane.id, since) else {
            return Taken::TooLarge(back(batch, ticket));
        };
        let id = state.next;
        state.next += 1;
        let tally = tally(&batch);
        let direct = Direct {
            batch,
            ticket,
            tally,
        };
        self.accounts.received(direct.batch.tenant(), tally);
        state.direct.insert(id, direct);
        // It is known to be under way, so nothing can pass it while the lock is not held.
        drop(state);
        let store = self.clone();
        let complete = Box::new(move |result| store.direct_done(id, result));
        let Err(refused) = self.disk.append(append, complete) else {
            return Taken::In;
        };
        let direct = self.state().direct.remove(&id);
        let Some(Direct { batch, ticket, .. }) = direct else {
            return Taken::In;
        };
        self.accounts.moved(batch.tenant(), tally);
        match refused {
            Refused::Full(..) | Refused::Busy(..) => Taken::Full(back(batch, ticket)),
            Refused::TooLarge(..) => Taken::TooLarge(back(batch, ticket)),
            Refused::Closed(..) => Taken::Closed(back(batch, ticket)),
        }
    }

    /// Appends what is in memory alone, as far as the disk takes it.
    fn flush(self: &Arc<Self>, state: &mut State) -> bool {
        let due: Vec<u64> = state.storable().map(|(id, _)| *id).collect();
        let (mut clear, mut some) = (true, false);
        for id in due {
            let Some(fresh) = state.fresh.get_mut(&id) else {
                continue;
            };
            // Its sender sends it again.
            let abandoned = fresh.ticket.as_ref().is_some_and(Ticket::abandoned);
            let append = append(&mut fresh.batch, fresh.version, fresh.lane, fresh.since);
            let (false, Some(append)) = (abandoned, append) else {
                fresh.storable = false;
                continue;
            };
            let store = self.clone();
            let complete = Box::new(move |result| store.copy_done(id, result));
            match self.disk.append(append, complete) {
                Ok(()) => {
                    let fresh = state.fresh.remove(&id);
                    let copied = Copied {
                        fresh,
                        entry: None,
                        fate: None,
                    };
                    state.copied.insert(id, copied);
                    some = true;
                }
                Err(Refused::TooLarge(..)) => fresh.storable = false,
                Err(_) => {
                    clear = false;
                    break;
                }
            }
        }
        if some {
            // Their senders will send more.
            self.queue.hold_all();
        }
        clear
    }

    /// A batch that is in memory has been appended, or not.
    fn copy_done(&self, id: u64, result: Result<Entry, AppendError>) {
        let mut state = self.state();
        let Some(mut copied) = state.copied.remove(&id) else {
            return;
        };
        let Some(mut fresh) = copied.fresh.take() else {
            return;
        };
        match result {
            Ok(entry) => {
                state.end = entry.position.0 + 1;
                state.present.insert(entry.position.0);
                self.accounts.moved(fresh.batch.tenant(), fresh.tally);
                match copied.fate {
                    Some(fate) => self.done(&entry, fate),
                    None => {
                        copied.entry = Some(entry);
                        state.copied.insert(id, copied);
                    }
                }
            }
            Err(error) => {
                pump::append_failed(self, &error);
                match copied.fate {
                    Some(fate) => {
                        let tenant = fresh.batch.tenant();
                        self.accounts.settled(tenant, fresh.tally, fate);
                    }
                    None => {
                        // It is still in memory, and tried again.
                        let ticket = fresh.ticket.take();
                        state.fresh.insert(id, Fresh { ticket, ..fresh });
                    }
                }
                drop(state);
                self.appended.notify_waiters();
                return;
            }
        }
        drop(state);
        self.appended.notify_waiters();
        if let Some(ticket) = fresh.ticket {
            ticket.report(Outcome::Delivered);
        }
    }

    /// A batch that is not in memory has been appended, or not.
    fn direct_done(&self, id: u64, result: Result<Entry, AppendError>) {
        let mut state = self.state();
        let direct = state.direct.remove(&id);
        let (mut ticket, mut lost) = (None, None);
        match (result, direct) {
            (Ok(entry), direct) => {
                state.end = entry.position.0 + 1;
                ticket = direct.and_then(|direct| {
                    self.accounts.moved(direct.batch.tenant(), direct.tally);
                    direct.ticket
                });
                if ticket.as_ref().is_some_and(|ticket| !ticket.until_stored())
                    && let Some(ticket) = ticket.take()
                {
                    state.waiting.insert(entry.position.0, (entry, ticket));
                }
                if std::mem::take(&mut state.hungry) {
                    self.readable.notify_one();
                }
            }
            (Err(error), Some(direct)) => {
                pump::append_failed(self, &error);
                lost = Some((direct, error));
            }
            (Err(_), None) => {}
        }
        drop(state);
        self.appended.notify_waiters();
        if let Some(ticket) = ticket {
            ticket.report(Outcome::Delivered);
        }
        if let Some((direct, error)) = lost {
            let tenant = direct.batch.tenant();
            let fate = Fate::Dropped(DISK_FAILED);
            self.accounts.settled(tenant, direct.tally, fate);
            if let Some(ticket) = direct.ticket {
                ticket.report(Outcome::failed(error.to_string()));
            }
        }
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
            let Some(copied) = state.copied.get_mut(&kept.id) else {
                return;
            };
            if let Some(entry) = copied.entry.take() {
                state.copied.remove(&kept.id);
                drop(state);
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

    /// What was dropped on disk since this was last asked, and not by somebody who counted it.
    pub(super) fn newly_dropped(&self, snapshot: &Snapshot) -> Vec<(&'static str, Tally)> {
        let mut counted = self.counted();
        let mut new = Vec::new();
        for reason in [
            Reason::QUEUE_FULL,
            Reason::TOO_OLD,
            Reason::CORRUPT,
            ABANDONED,
        ] {
            let total = snapshot.total.dropped.get(&reason).copied();
            let total = total.unwrap_or_default();
            let mut dropped = total;
            dropped -= counted.insert(reason, total).unwrap_or_default();
            if dropped.batches > 0 {
                new.push((reason_name(reason), dropped));
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
        let under_way = |copied: &Copied| copied.fresh.is_some();
        state.direct.is_empty() && !state.copied.values().any(under_way)
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

    /// The next record to read and the end of those that can be; none if there is none.
    pub(super) fn to_read(&self) -> Option<(Position, u64)> {
        let mut state = self.state();
        if state.is_behind() && state.cursor < state.end && !state.closing {
            return Some((Position(state.cursor), state.end));
        }
        state.hungry = true;
        None
    }

    /// Nothing below `end` is left to be read.
    pub(super) fn read_up_to(&self, end: u64) {
        let mut state = self.state();
        state.cursor = state.cursor.max(end);
        // Who waits for room may find some in memory now.
        drop(state);
        self.queue.nudge();
    }

    /// Puts a record that was read into the queue.
    pub(super) fn take_in(&self, record: Record) {
        let Record { entry, body } = record;
        let sequence = entry.position.0;
        let mut state = self.state();
        state.cursor = sequence + 1;
        if state.present.remove(&sequence) {
            return;
        }
        let ticket = state.waiting.remove(&sequence).map(|(_, ticket)| ticket);
        if ticket.as_ref().is_some_and(Ticket::abandoned) {
            drop(state);
            self.disk.done(&entry, Fate::Dropped(ABANDONED));
            return;
        }
        let id = state.next;
        state.next += 1;
        let lane = Lane {
            id: entry.lane,
            holds: true,
        };
        let age = Duration::from_millis(now_millis().saturating_sub(entry.accepted_at));
        let now = Instant::now();
        let origin = Arc::new(Origin::internal(self.sink.clone()));
        let batch = Batch::from_record(entry.version, body, entry.counts, &entry.tenant, origin);
        let weight = batch.weight();
        let copied = Copied {
            fresh: None,
            entry: Some(entry),
            fate: None,
        };
        state.copied.insert(id, copied);
        let waiting = Waiting {
            batch,
            ticket,
            since: now.checked_sub(age).unwrap_or(now),
            tally: Tally::default(),
            kept: Some(Kept::new(id)),
        };
        self.queue.push_anyway(waiting, weight, lane);
    }

    /// Gives up records whose senders have given them up.
    pub(super) fn drop_abandoned(&self) {
        let mut state = self.state();
        let abandoned = state
            .waiting
            .extract_if(.., |_, (_, ticket)| ticket.abandoned());
        let abandoned: Vec<_> = abandoned.collect();
        drop(state);
        for (_, (entry, _)) in abandoned {
            self.disk.done(&entry, Fate::Dropped(ABANDONED));
        }
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

impl State {
    fn keep(&mut self, fresh: Fresh) -> u64 {
        let id = self.next;
        self.next += 1;
        self.fresh.insert(id, fresh);
        id
    }

    fn storable(&self) -> impl Iterator<Item = (&u64, &Fresh)> {
        self.fresh.iter().filter(|(_, fresh)| fresh.storable)
    }

    /// Whether something on disk is not in memory, or will not be.
    fn is_behind(&mut self) -> bool {
        while self.present.remove(&self.cursor) {
            self.cursor += 1;
        }
        self.cursor < self.end || !self.direct.is_empty()
    }
}

impl Fresh {
    fn new(
        batch: Batch,
        version: Version,
        lane: u64,
        ticket: Option<Ticket>,
        since: Instant,
    ) -> Self {
        Self {
            tally: tally(&batch),
            version,
            batch,
            lane,
            ticket,
            since,
            storable: true,
        }
    }
}

/// A ticket for who delivers the batch, or for who stores it.
fn split(ticket: Option<Ticket>) -> (Option<Ticket>, Option<Ticket>) {
    match ticket {
        Some(ticket) if ticket.until_stored() => (None, Some(ticket)),
        other => (other, None),
    }
}

/// A batch as it is appended; none if it cannot be encoded.
fn append(batch: &mut Batch, version: Version, lane: u64, since: Instant) -> Option<Append> {
    let body = batch.body(version).ok()?;
    let age = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
    Some(Append {
        tenant: batch.tenant().cloned().unwrap_or_default(),
        lane,
        accepted_at: now_millis().saturating_sub(age),
        version,
        counts: batch.counts(),
        body,
    })
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
