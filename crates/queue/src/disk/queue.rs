//! The queue on disk: its public interface.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::sync::futures::Notified;

use super::commit::{Engine, Job};
use super::event::{AppendError, Event, OpenError};
use super::format::{self, ACK};
use super::fs::{Directory, Fs};
use super::ledger::{Account, TenantReading};
use super::reader::Reader;
use super::recover::{self, Recovered};
use super::state::{DiskShared, DiskState, Listener, StatsSnapshot};
use super::{
    Append, Entry, Fate, MIN_BYTES, Options, PENDING_BYTES, PENDING_ITEMS, Position, writer,
};

/// Receives the result of an append, once, on the writer thread: it must not block.
pub type Completion = Box<dyn FnOnce(Result<Entry, AppendError>) + Send>;

/// A queue on disk. Dropping it closes it without waiting for the writer.
#[derive(Debug)]
pub struct DiskQueue {
    shared: Arc<DiskShared>,
    jobs: Sender<Job>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// Reason why an append was refused. The append and its completion are returned.
#[derive(thiserror::Error)]
pub enum Refused {
    /// The queue is full, or the disk hangs: retry after [`DiskQueue::room`].
    #[error("queue is full")]
    Full(Append, Completion),
    /// There will be room once the writer has finished the waiting appends: retry after
    /// [`DiskQueue::room`].
    #[error("disk does not keep up")]
    Busy(Append, Completion),
    /// The record never fits.
    #[error("batch is too large for the queue")]
    TooLarge(Append, Completion),
    /// The queue has been closed.
    #[error("queue is closed")]
    Closed(Append, Completion),
}

impl std::fmt::Debug for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Accounts and size of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Accounts by tenant, in no order.
    pub tenants: Vec<(Arc<str>, Account)>,
    /// Account of all tenants without a line, and of records whose tenants are unknown.
    pub rest: Account,
    /// Sum of all accounts.
    pub total: Account,
    /// Size of all files.
    pub bytes: u64,
    /// Time at which the oldest undone record was accepted, in milliseconds since 1970. Updated with
    /// a short delay.
    pub oldest: Option<u64>,
}

/// The accounts of a queue and its records, both of the same moment. Records whose callers may not
/// know of them yet are in neither.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Lines by tenant, in no order.
    pub tenants: Vec<TenantReading>,
    /// Line of all tenants without one of their own, and of records whose tenants are unknown.
    pub rest: TenantReading,
    /// Undone records, counted in the index of the segments.
    pub records: u64,
    /// Time at which the oldest of them was accepted, in milliseconds since 1970. Updated with a
    /// short delay.
    pub oldest: Option<u64>,
    /// Counter that increases with every change of the accounts.
    pub changes: u64,
    /// Whether no record was left out because its caller may not know of it yet.
    pub complete: bool,
}

impl DiskQueue {
    /// Opens the queue in a directory, creating it if it is missing, and starts the writer. The
    /// listener must not block.
    pub fn open(
        path: PathBuf,
        options: Options,
        listener: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let file = path.display().to_string();
        let fs = Directory::new(path).map_err(|source| OpenError::Io {
            action: "make",
            file,
            source,
        })?;
        Self::open_on(Arc::new(fs), options, listener)
    }

    /// Opens the queue in a directory of any file system.
    pub fn open_on(
        fs: Arc<dyn Fs>,
        options: Options,
        listener: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let (shared, engine, wakes) = open(fs, options, Arc::new(listener))?;
        let (jobs, work) = bounded(PENDING_ITEMS);
        let writer = std::thread::Builder::new()
            .name("disk-queue".into())
            .spawn(move || writer::run(engine, &work, &wakes))
            .map_err(|source| OpenError::Io {
                action: "start",
                file: "the writer".to_owned(),
                source,
            })?;
        Ok(Self {
            shared,
            jobs,
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Appends a record. `Ok` means that the writer has it; the completion reports the result.
    #[expect(
        clippy::result_large_err,
        reason = "what was not taken comes back, and is not rare"
    )]
    pub fn append(&self, append: Append, complete: Completion) -> Result<(), Refused> {
        let (mut state, job) = admit(&self.shared, append, complete)?;
        // Under the lock, so that no append arrives after the writer has seen the queue closed. The
        // channel has room for all admitted appends: sending fails only if the writer has panicked.
        self.jobs.try_send(job).map_err(|error| {
            let job = error.into_inner();
            state.unreserve(&job.append.tenant, job.cost);
            Refused::Closed(job.append, job.complete)
        })
    }

    /// Reports the fate of a record. A record that was dropped to make room while its copy in memory
    /// was in flight is booked again. Returns false if the fate is known already.
    pub fn done(&self, entry: &Entry, fate: Fate) -> bool {
        self.shared.done(entry, fate)
    }

    /// Drops a record that cannot be read, unless the whole directory is missing, which may come
    /// back. Blocks on the disk. Returns whether it was dropped.
    pub fn give_up(&self, position: Position) -> bool {
        let in_place = self.shared.fs.is_in_place();
        if in_place {
            self.shared.lose(position.0);
        }
        in_place
    }

    /// A cursor that begins at the first undone record.
    pub fn reader(&self) -> Reader {
        Reader::new(self.shared.clone())
    }

    /// Resolves when records have arrived, or the queue was closed, after this call was enabled.
    pub fn filled(&self) -> Notified<'_> {
        self.shared.filled.notified()
    }

    /// Resolves when there may be room, or the queue was closed, after this call was enabled.
    pub fn room(&self) -> Notified<'_> {
        self.shared.room.notified()
    }

    /// Applies other options. Records above a smaller bound stay until they are done; the number of
    /// tenants with a line of their own changes only when the queue is opened.
    pub(crate) fn set_options(&self, options: Options) {
        self.shared.set_options(options);
    }

    /// The position of the first undone record, or of the next append.
    pub fn first(&self) -> Position {
        let state = self.shared.state();
        let first = state.next_undone(0);
        Position(first.map_or(state.next, |place| place.sequence))
    }

    /// The position of the next append.
    pub fn end(&self) -> Position {
        Position(self.shared.state().next)
    }

    /// The accounts and size of the queue.
    pub fn snapshot(&self) -> Snapshot {
        snapshot(&self.shared)
    }

    /// The accounts and the records, for comparing one with the other.
    pub fn read_ledger(&self) -> Reading {
        read_ledger(&self.shared)
    }

    /// Counter that increases with every change of the accounts.
    pub fn changes(&self) -> u64 {
        self.shared.state().ledger.changes
    }

    /// Statistics of the writer.
    pub fn stats(&self) -> StatsSnapshot {
        self.shared.stats.snapshot()
    }

    fn begin_close(&self) {
        self.shared.state().closed = true;
        self.shared.wake();
        self.shared.filled.notify_waiters();
        self.shared.room.notify_waiters();
    }

    /// Refuses further appends, writes the waiting ones, and returns when everything is on disk.
    /// Blocks.
    pub fn close(&self) {
        self.begin_close();
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = writer {
            // A panic of the writer has been reported by the process's panic hook.
            let _ = writer.join();
        }
    }
}

impl Drop for DiskQueue {
    fn drop(&mut self) {
        self.begin_close();
    }
}

/// Opens a queue without starting a thread.
pub(super) fn open(
    fs: Arc<dyn Fs>,
    options: Options,
    listener: Listener,
) -> Result<(Arc<DiskShared>, Engine, Receiver<()>), OpenError> {
    if options.max_bytes < MIN_BYTES {
        return Err(OpenError::TooSmall);
    }
    let lock = recover::lock(&fs)?;
    let Recovered { id, state } = recover::recover(&*fs, &options, &listener)?;
    // One pending wake-up is as good as many.
    let (wake, wakes) = bounded(1);
    let shared = Arc::new(DiskShared::new(state, (fs, id, options), listener, wake));
    Ok((shared.clone(), Engine::new(shared, lock), wakes))
}

/// Reserves the space for an append, if there is room or room can be made.
#[expect(
    clippy::result_large_err,
    reason = "what was not taken comes back, and is not rare"
)]
pub(super) fn admit(
    shared: &DiskShared,
    append: Append,
    complete: Completion,
) -> Result<(MutexGuard<'_, DiskState>, Job), Refused> {
    let options = shared.options();
    let length = format::record_length(&append);
    let Some(length) = length.filter(|length| *length <= options.record_bytes()) else {
        return Err(Refused::TooLarge(append, complete));
    };
    // Computed here, where the body is in the cache, and not on the single writer thread.
    let body_crc = crc32c::crc32c(&append.body);
    let cost = length + ACK as u64;
    let mut state = shared.state();
    if state.closed {
        return Err(Refused::Closed(append, complete));
    }
    let busy = state.reserved > 0 && state.reserved + cost > PENDING_BYTES;
    if busy || state.pending == PENDING_ITEMS {
        return Err(match state.owe_room() {
            true => Refused::Busy(append, complete),
            false => Refused::Full(append, complete),
        });
    }
    while !state.fits(&append.tenant, cost, &options)
        || !state.is_fair(&append.tenant, cost, &options)
    {
        if options.drop_oldest && state.drop_oldest() {
            continue;
        }
        state.starved = true;
        let soon = options.drop_oldest && state.is_making_room();
        drop(state);
        shared.wake();
        return Err(match soon {
            true => Refused::Busy(append, complete),
            false => Refused::Full(append, complete),
        });
    }
    state.reserve(&append.tenant, cost);
    let job = Job {
        append,
        length,
        cost,
        body_crc,
        complete,
    };
    Ok((state, job))
}

pub(super) fn snapshot(shared: &DiskShared) -> Snapshot {
    let state = shared.state();
    let mut tenants = state.ledger.totals();
    let bytes = state.bytes();
    let oldest = state.oldest.map(|(_, accepted)| accepted);
    drop(state);
    let mut total = Account::default();
    for (_, account) in &tenants {
        total.add(account);
    }
    let (_, rest) = tenants.remove(0);
    Snapshot {
        tenants,
        rest,
        total,
        bytes,
        oldest,
    }
}

pub(super) fn read_ledger(shared: &DiskShared) -> Reading {
    let state = shared.state();
    let held = state.segments.iter().map(|segment| &segment.held);
    let mut tenants = state.ledger.read(held, &state.untold);
    let records = state.segments.iter().map(|segment| segment.unaccounted());
    let records = records.sum::<usize>().saturating_sub(state.untold.len()) as u64;
    let oldest = state.oldest.filter(|_| records > 0);
    let changes = state.ledger.changes;
    let complete = state.untold.is_empty();
    drop(state);
    Reading {
        rest: tenants.remove(0),
        tenants,
        records,
        oldest: oldest.map(|(_, accepted)| accepted),
        changes,
        complete,
    }
}
