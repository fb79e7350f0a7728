//! What the writer, the readers and the callers of a queue share.

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

/// How long somebody may be told that room is on its way while the writer makes none.
const PATIENCE: Duration = Duration::from_secs(1);
/// What a segment takes beyond its records.
const SEGMENT_OVERHEAD: u64 = (2 * FILE_HEADER + ACK) as u64;

#[derive(Debug)]
pub(super) struct DiskState {
    /// In order. Only the writer adds and removes them.
    pub(super) segments: VecDeque<Segment>,
    pub(super) ledger: Ledger,
    /// The first sequence after all that was ever appended.
    pub(super) next: u64,
    /// What waits for the writer, and what it will take on disk.
    pub(super) pending: usize,
    pub(super) reserved: u64,
    /// What of it is whose.
    reserved_of: HashMap<Arc<str>, Reserved, foldhash::fast::RandomState>,
    /// What the ledger will take beyond what it does, for lines of tenants that have none yet.
    reserved_lines: u64,
    /// Somebody was refused since segments were last looked at.
    pub(super) starved: bool,
    /// Since when the writer owes somebody room without having made any.
    owed_since: Option<Instant>,
    pub(super) closed: bool,
    /// The first record that is not done, and when it was accepted.
    pub(super) oldest: Option<(u64, u64)>,
    /// Whether the history says something that the checkpoint does not.
    pub(super) rebooked: bool,
    /// Records that are there, and whose callers may not know that yet.
    pub(super) untold: Vec<(Slot, Tally)>,
}

/// What a tenant's appends that wait for the writer will take.
#[derive(Debug, Default)]
struct Reserved {
    records: u64,
    /// Its line in the checkpoint, in both files of it, if it has none yet.
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

    /// The segment in which this sequence would be, with the ledger.
    pub(super) fn segment(&mut self, sequence: u64) -> Option<(&mut Segment, &mut Ledger)> {
        let after = self.segments.partition_point(|it| it.first <= sequence);
        let segment = self.segments.get_mut(after.checked_sub(1)?)?;
        Some((segment, &mut self.ledger))
    }

    /// The first record from there on that is not done.
    pub(super) fn next_undone(&self, from: u64) -> Option<Place> {
        let after = self.segments.partition_point(|it| it.first <= from);
        let mut segments = self.segments.range(after.saturating_sub(1)..);
        segments.find_map(|segment| segment.next_undone(from))
    }

    /// The entries that wait to be written to ack files.
    pub(super) fn acks(&self) -> usize {
        let pending = self.segments.iter().map(|segment| segment.pending.len());
        pending.sum()
    }

    pub(super) fn place_of(&mut self, sequence: u64) -> Option<Place> {
        self.segment(sequence)?.0.place_of(sequence)
    }

    /// What all files take, and will when what waits has been written.
    pub(super) fn bytes(&self) -> u64 {
        self.files(self.segments.iter())
    }

    /// What all files take now, with what is put aside for the checkpoint.
    pub(super) fn written_bytes(&self) -> u64 {
        let segments: u64 = self.segments.iter().map(Segment::footprint).sum();
        segments + 2 * self.ledger.footprint()
    }

    /// What all files will take once the oldest segments of which nothing is needed are removed. A
    /// segment behind one that is needed stays until that one goes, since sequences leave no gap.
    fn needed_bytes(&self) -> u64 {
        self.files(self.segments.iter().skip_while(|it| it.is_spent()))
    }

    /// Whether that much more fits, once segments are gone that nobody needs.
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

    /// An append waits for the writer.
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

    /// What a tenant's line adds to the files of the checkpoint.
    fn line_cost(&self, tenant: &str) -> u64 {
        2 * self.ledger.line_cost(tenant)
    }

    /// It does not wait any more.
    pub(super) fn unreserve(&mut self, tenant: &Arc<str>, cost: u64) {
        self.pending -= 1;
        self.reserved -= cost;
        if let Some(own) = self.reserved_of.get_mut(tenant) {
            own.records -= cost;
            // Whether it was written or not: what it adds to the ledger is there, or will not be.
            self.reserved_lines -= std::mem::take(&mut own.line);
            if own.records == 0 {
                self.reserved_of.remove(tenant);
            }
        }
    }

    /// Whether that much more is within a tenant's share, which is that of the queue in memory. If
    /// the oldest make room, they are of who has waited longest. There is nobody to share with
    /// where there are no tenants.
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

    /// Whether the writer is about to make room where the oldest make room: by writing what waits for
    /// it, or by sealing the active segment, whose records can be given up then.
    pub(super) fn is_making_room(&mut self) -> bool {
        let active = self.segments.back();
        let active = active.is_some_and(|last| !last.sealed && !last.is_empty());
        (self.pending > 0 || active) && self.owe_room()
    }

    /// The writer owes somebody room. Returns whether it has made some lately: a disk that hangs is not
    /// waited for.
    pub(super) fn owe_room(&mut self) -> bool {
        let since = *self.owed_since.get_or_insert_with(Instant::now);
        since.elapsed() < PATIENCE
    }

    /// The writer has made room.
    pub(super) fn made_room(&mut self) {
        self.owed_since = None;
    }

    fn files<'a>(&self, segments: impl Iterator<Item = &'a Segment>) -> u64 {
        let segments: u64 = segments.map(Segment::footprint).sum();
        // The checkpoint, and the file that will replace it.
        segments + self.reserved + self.reserved_lines + 2 * self.ledger.footprint()
    }

    /// Gives up what is in the oldest segment that takes no more records. False if there is none.
    pub(super) fn drop_oldest(&mut self) -> bool {
        let mut sealed = self.segments.iter_mut().filter(|segment| segment.sealed);
        let Some(oldest) = sealed.find(|segment| segment.undone() > 0) else {
            return false;
        };
        oldest.drop_all(&mut self.ledger, Reason::QueueFull);
        true
    }
}

/// How often and how long the writer was at the disk.
#[derive(Debug, Default)]
pub struct Stats {
    fsyncs: AtomicU64,
    fsync_nanos: AtomicU64,
    writes: AtomicU64,
    bytes: AtomicU64,
}

/// What [`Stats`] said at some moment, since the queue was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatsSnapshot {
    /// How often segments were made durable.
    pub fsyncs: u64,
    /// How long that took in sum.
    pub fsync_time: Duration,
    /// How often was written to segments.
    pub writes: u64,
    /// How much was written to segments.
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

/// Who is told of events. It must not block.
pub(super) type Listener = Arc<dyn Fn(Event) + Send + Sync>;

pub(super) struct DiskShared {
    state: Mutex<DiskState>,
    pub(super) fs: Arc<dyn Fs>,
    pub(super) id: u64,
    pub(super) seed: Seed,
    options: ArcSwap<Options>,
    pub(super) stats: Stats,
    /// Records came, or the queue was closed.
    pub(super) filled: Notify,
    /// Space was freed, or the queue was closed.
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

    /// No invariant spans a panic here: nothing that is done under the lock can panic. Nothing is
    /// read or written under it either.
    pub(super) fn state(&self) -> MutexGuard<'_, DiskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn options(&self) -> Options {
        **self.options.load()
    }

    /// Goes by other options from now on.
    pub(super) fn set_options(&self, options: Options) {
        self.options.store(Arc::new(options));
        self.wake();
        self.room.notify_waiters();
    }

    pub(super) fn tell(&self, event: Event) {
        (self.listener)(event);
    }

    /// Makes the writer look around.
    pub(super) fn wake(&self) {
        // If the channel is full, it will look anyway; if it is closed, there is no writer.
        let _ = self.wake.try_send(());
    }

    /// Enters what became of a record. False if that was known. A record that had to make room
    /// while it was being sent is booked anew.
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

    /// Gives up a record of which not even the header can be read.
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
