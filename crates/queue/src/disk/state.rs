//! State that the writer, the readers and the callers of a queue share.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::Sender;
use tokio::sync::Notify;
use tokio::time::Instant;

use metrifold_base::within_share;

use super::format::{ACK, Ack, FILE_HEADER, Seed};
use super::fs::Fs;
use super::ledger::{Ledger, Reason, Slot, Tally};
use super::segment::{Place, Segment};
use super::{ACK_BATCH, Entry, Event, Fate, Options};

/// The longest time for which senders are told to wait for room while the writer makes none.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of a segment's files besides its records.
const SEGMENT_OVERHEAD: u64 = (2 * FILE_HEADER + ACK) as u64;

#[derive(Debug)]
pub(super) struct DiskState {
    /// Segments in order. Only the writer adds and removes them.
    pub(super) segments: VecDeque<Segment>,
    pub(super) ledger: Ledger,
    /// The sequence of the next append.
    pub(super) next: u64,
    /// Appends that wait for the writer, and the bytes that they will take on disk.
    pub(super) pending: usize,
    pub(super) reserved: u64,
    /// Shares of the tenants in `reserved`.
    reserved_of: HashMap<Arc<str>, Reserved, foldhash::fast::RandomState>,
    /// Bytes that the checkpoint will grow by for lines of new tenants.
    reserved_lines: u64,
    /// Whether an append was refused since the writer last tried to make room.
    pub(super) starved: bool,
    /// Time since which the writer owes room without having made any.
    owed_since: Option<Instant>,
    pub(super) closed: bool,
    /// The first undone record, and the time at which it was accepted.
    pub(super) oldest: Option<(u64, u64)>,
    /// Whether the history has changed since the last checkpoint.
    pub(super) rebooked: bool,
    /// Written records whose callers may not know of them yet.
    pub(super) untold: Vec<(Slot, Tally)>,
}

/// Reservations for a tenant's waiting appends.
#[derive(Debug, Default)]
struct Reserved {
    records: u64,
    /// Bytes of the tenant's new line in both files of the checkpoint; 0 if it has a line.
    line: u64,
}

impl DiskState {
    pub(super) fn new(ledger: Ledger, segments: VecDeque<Segment>, next: u64) -> Self {
        Self {
            segments,
            ledger,
            next,
            pending: 0,
            reserved: 0,
            reserved_of: HashMap::default(),
            reserved_lines: 0,
            starved: false,
            owed_since: None,
            closed: false,
            oldest: None,
            rebooked: false,
            untold: Vec::new(),
        }
    }

    /// The segment that covers a sequence, and the ledger.
    pub(super) fn segment(&mut self, sequence: u64) -> Option<(&mut Segment, &mut Ledger)> {
        let after = self.segments.partition_point(|it| it.first <= sequence);
        let segment = self.segments.get_mut(after.checked_sub(1)?)?;
        Some((segment, &mut self.ledger))
    }

    /// The first undone record from a sequence on.
    pub(super) fn next_undone(&self, from: u64) -> Option<Place> {
        let after = self.segments.partition_point(|it| it.first <= from);
        let mut segments = self.segments.range(after.saturating_sub(1)..);
        segments.find_map(|segment| segment.next_undone(from))
    }

    /// Number of entries that wait to be written to ack files.
    pub(super) fn acks(&self) -> usize {
        let pending = self.segments.iter().map(|segment| segment.pending.len());
        pending.sum()
    }

    pub(super) fn place_of(&mut self, sequence: u64) -> Option<Place> {
        self.segment(sequence)?.0.place_of(sequence)
    }

    /// Bytes of all files once the waiting appends are written.
    pub(super) fn bytes(&self) -> u64 {
        self.files(self.segments.iter())
    }

    /// Bytes of all files now, including the space reserved for the checkpoint.
    pub(super) fn written_bytes(&self) -> u64 {
        let segments: u64 = self.segments.iter().map(Segment::footprint).sum();
        segments + 2 * self.ledger.footprint()
    }

    /// Bytes of all files once the oldest removable segments are removed. A removable segment behind
    /// one that is needed stays, since sequences have no gaps.
    fn needed_bytes(&self) -> u64 {
        self.files(self.segments.iter().skip_while(|it| it.is_spent()))
    }

    /// Whether `cost` more bytes fit once removable segments are removed.
    pub(super) fn fits(&self, tenant: &str, cost: u64, options: &Options) -> bool {
        let coming = self.reserved + cost;
        // Two neighbouring segments hold more than one segment's worth of records.
        let segments = 2 * coming / options.segment_bytes() + 2;
        let line = match self.reserved_of.contains_key(tenant) {
            true => 0,
            false => self.line_cost(tenant),
        };
        self.needed_bytes() + line + cost + segments * SEGMENT_OVERHEAD <= options.max_bytes
    }

    /// Reserves the space of an append that is passed to the writer.
    pub(super) fn reserve(&mut self, tenant: &Arc<str>, cost: u64) {
        self.pending += 1;
        self.reserved += cost;
        if let Some(own) = self.reserved_of.get_mut(tenant) {
            own.records += cost;
            return;
        }
        let line = self.line_cost(tenant);
        self.reserved_lines += line;
        let own = Reserved {
            records: cost,
            line,
        };
        self.reserved_of.insert(tenant.clone(), own);
    }

    /// Bytes that a new tenant's line adds to the files of the checkpoint.
    fn line_cost(&self, tenant: &str) -> u64 {
        2 * self.ledger.line_cost(tenant)
    }

    /// Releases the space of an append that was written or failed.
    pub(super) fn unreserve(&mut self, tenant: &Arc<str>, cost: u64) {
        self.pending -= 1;
        self.reserved -= cost;
        if let Some(own) = self.reserved_of.get_mut(tenant) {
            own.records -= cost;
            // Written or not, the line is now part of the ledger's size or will not be created.
            self.reserved_lines -= std::mem::take(&mut own.line);
            if own.records == 0 {
                self.reserved_of.remove(tenant);
            }
        }
    }

    /// Whether `cost` more bytes are within the tenant's share, which is computed as for the queue in
    /// memory. Always true if the oldest records make room, since these belong to the tenants that have
    /// waited longest, and for batches without a tenant.
    pub(super) fn is_fair(&self, tenant: &str, cost: u64, options: &Options) -> bool {
        if options.drop_oldest || tenant.is_empty() {
            return true;
        }
        let free = options.max_bytes.saturating_sub(self.needed_bytes() + cost);
        let reserved = self.reserved_of.get(tenant);
        let reserved = reserved.map_or(0, |reserved| reserved.records);
        let own = self.ledger.queued_bytes(tenant) + reserved;
        within_share(own, cost, free)
    }

    /// Whether the writer is about to make room under `drop_oldest`: by writing the waiting appends, or
    /// by sealing the active segment, whose records can be dropped then.
    pub(super) fn is_making_room(&mut self) -> bool {
        let active = self.segments.back();
        let active = active.is_some_and(|last| !last.sealed && !last.is_empty());
        (self.pending > 0 || active) && self.owe_room()
    }

    /// Notes that the writer owes room. Returns whether it has made some lately; a disk that hangs is
    /// not waited for.
    pub(super) fn owe_room(&mut self) -> bool {
        let since = *self.owed_since.get_or_insert_with(Instant::now);
        since.elapsed() < PATIENCE
    }

    /// Notes that the writer has made room.
    pub(super) fn made_room(&mut self) {
        self.owed_since = None;
    }

    fn files<'a>(&self, segments: impl Iterator<Item = &'a Segment>) -> u64 {
        let segments: u64 = segments.map(Segment::footprint).sum();
        // Both files of the checkpoint: the present one and its replacement.
        segments + self.reserved + self.reserved_lines + 2 * self.ledger.footprint()
    }

    /// Drops the records of the oldest sealed segment. Returns false if there is none.
    pub(super) fn drop_oldest(&mut self) -> bool {
        let mut sealed = self.segments.iter_mut().filter(|segment| segment.sealed);
        let Some(oldest) = sealed.find(|segment| segment.undone() > 0) else {
            return false;
        };
        oldest.drop_all(&mut self.ledger, Reason::QueueFull);
        true
    }
}

/// Counters of the writer's operations on the disk.
#[derive(Debug, Default)]
pub struct Stats {
    fsyncs: AtomicU64,
    fsync_nanos: AtomicU64,
    writes: AtomicU64,
    bytes: AtomicU64,
}

/// Values of [`Stats`] since the queue was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatsSnapshot {
    /// Number of fsyncs of segments.
    pub fsyncs: u64,
    /// Total time of these fsyncs.
    pub fsync_time: Duration,
    /// Number of writes to segments.
    pub writes: u64,
    /// Bytes written to segments.
    pub bytes: u64,
}

impl Stats {
    pub(super) fn fsync(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.fsyncs.fetch_add(1, Ordering::Relaxed);
        self.fsync_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(super) fn write(&self, bytes: usize) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> StatsSnapshot {
        StatsSnapshot {
            fsyncs: self.fsyncs.load(Ordering::Relaxed),
            fsync_time: Duration::from_nanos(self.fsync_nanos.load(Ordering::Relaxed)),
            writes: self.writes.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// Receives events. It must not block.
pub(super) type Listener = Arc<dyn Fn(Event) + Send + Sync>;

pub(super) struct DiskShared {
    state: Mutex<DiskState>,
    pub(super) fs: Arc<dyn Fs>,
    pub(super) id: u64,
    pub(super) seed: Seed,
    options: ArcSwap<Options>,
    pub(super) stats: Stats,
    /// Wakes readers: records arrived, or the queue was closed.
    pub(super) filled: Notify,
    /// Wakes senders: space was freed, or the queue was closed.
    pub(super) room: Notify,
    listener: Listener,
    wake: Sender<()>,
}

impl std::fmt::Debug for DiskShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskShared")
            .field("fs", &self.fs)
            .field("options", &self.options())
            .finish_non_exhaustive()
    }
}

impl DiskShared {
    pub(super) fn new(
        state: DiskState,
        (fs, id, options): (Arc<dyn Fs>, u64, Options),
        listener: Listener,
        wake: Sender<()>,
    ) -> Self {
        Self {
            state: Mutex::new(state),
            fs,
            id,
            seed: Seed::new(id),
            options: ArcSwap::from_pointee(options),
            stats: Stats::default(),
            filled: Notify::new(),
            room: Notify::new(),
            listener,
            wake,
        }
    }

    /// Locks the state. A poisoned lock is used on: no code under the lock can panic. Nothing is read
    /// or written on disk under the lock.
    pub(super) fn state(&self) -> MutexGuard<'_, DiskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn options(&self) -> Options {
        **self.options.load()
    }

    /// Applies other options.
    pub(super) fn set_options(&self, options: Options) {
        self.options.store(Arc::new(options));
        self.wake();
        self.room.notify_waiters();
    }

    pub(super) fn tell(&self, event: Event) {
        (self.listener)(event);
    }

    /// Wakes the writer to check for work.
    pub(super) fn wake(&self) {
        // A full channel means that the writer will check anyway; a closed one, that there is no
        // writer.
        let _ = self.wake.try_send(());
    }

    /// Books the fate of a record; returns false if it is known already. A record that was dropped to
    /// make room while it was in flight is booked again.
    pub(super) fn done(&self, entry: &Entry, fate: Fate) -> bool {
        let mut state = self.state();
        let Some((segment, ledger)) = state.segment(entry.position.0) else {
            let tally = entry.tally();
            let change = Ack::of(fate, tally).change(tally);
            let rebooked = state.ledger.rebook(None, &entry.tenant, tally, &change);
            state.rebooked |= rebooked;
            return rebooked;
        };
        if !segment.done(ledger, entry, fate) {
            return segment.has_made_room() && segment.rebook(ledger, entry, fate);
        }
        let last = segment.undone() == 0;
        let acks = state.acks();
        if last || acks == 1 || acks == ACK_BATCH {
            drop(state);
            self.wake();
        }
        true
    }

    /// Drops a record whose header cannot be read.
    pub(super) fn lose(&self, sequence: u64) {
        let mut state = self.state();
        let lost = state
            .segment(sequence)
            .is_some_and(|(segment, ledger)| segment.lose(ledger, sequence));
        drop(state);
        if lost {
            self.tell(Event::Lost {
                first: sequence,
                batches: 1,
                samples: 0,
            });
            self.wake();
        }
    }
}

pub(super) fn log_name(first: u64) -> String {
    format!("{first:020}.log")
}

pub(super) fn ack_name(first: u64) -> String {
    format!("{first:020}.ack")
}
