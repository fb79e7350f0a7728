//! The queue as its users see it.

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

/// Is told once what became of an append, by the thread that writes: it must not block.
pub type Completion = Box<dyn FnOnce(Result<Entry, AppendError>) + Send>;

/// A queue on disk. Dropping it closes it without waiting for that.
#[derive(Debug)]
pub struct DiskQueue {
    shared: Arc<DiskShared>,
    jobs: Sender<Job>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// Why an append was not taken. What was to be appended comes back.
#[derive(thiserror::Error)]
pub enum Refused {
    /// The queue is full, or the disk hangs: try again after [`DiskQueue::room`].
    #[error("queue is full")]
    Full(Append, Completion),
    /// There will be room as soon as the writer has done what waits for it: try again after
    /// [`DiskQueue::room`].
    #[error("disk does not keep up")]
    Busy(Append, Completion),
    /// It can never be taken.
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

/// What a queue holds and what became of what it held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By tenant, in no order.
    pub tenants: Vec<(Arc<str>, Account)>,
    /// Of all tenants that have no line, and of records whose tenants cannot be told any more.
    pub rest: Account,
    /// Of all together.
    pub total: Account,
    /// What the files take.
    pub bytes: u64,
    /// When the oldest record that is not done was accepted, in milliseconds since 1970. It is
    /// known a moment later.
    pub oldest: Option<u64>,
}

/// The accounts of a queue and what is in it, both of the same moment. Records whose callers may
/// not know yet that they are there are in neither.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// By tenant, in no order.
    pub tenants: Vec<TenantReading>,
    /// Of all tenants that have no line, and of records whose tenants cannot be told any more.
    pub rest: TenantReading,
    /// The records that are not done, counted in the index of the segments.
    pub records: u64,
    /// When the oldest of them was accepted, in milliseconds since 1970. It is known a moment
    /// later.
    pub oldest: Option<u64>,
    /// Goes up with every change to the accounts.
    pub changes: u64,
    /// Whether nothing has been left out because somebody may not know of it yet.
    pub complete: bool,
}

impl DiskQueue {
    /// Opens the queue in a directory, which is made if it is not there, and starts its writer.
    /// The listener must not block.
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

    /// Opens the queue in a directory of any kind.
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

    /// Appends a record. Taken is not completed: the completion tells.
    #[expect(
        clippy::result_large_err,
        reason = "what was not taken comes back, and is not rare"
    )]
    pub fn append(&self, append: Append, complete: Completion) -> Result<(), Refused> {
        let (mut state, job) = admit(&self.shared, append, complete)?;
        // Under the lock, so that nothing comes after the writer has seen that it is closed. As
        // many fit as are admitted: it fails only if the writer has panicked.
        self.jobs.try_send(job).map_err(|error| {
            let job = error.into_inner();
            state.unreserve(&job.append.tenant, job.cost);
            Refused::Closed(job.append, job.complete)
        })
    }

    /// Says what became of a record. A record that had to make room while its copy in memory was
    /// being sent is booked anew. False if what became of it is known already.
    pub fn done(&self, entry: &Entry, fate: Fate) -> bool {
        self.shared.done(entry, fate)
    }

    /// Drops a record that the disk does not give back; not if the whole directory is missing, which
    /// may come back. Blocks on the disk. Returns whether it was dropped.
    pub fn give_up(&self, position: Position) -> bool {
        let in_place = self.shared.fs.is_in_place();
        if in_place {
            self.shared.lose(position.0);
        }
        in_place
    }

    /// A cursor from the first record on that is not done.
    pub fn reader(&self) -> Reader {
        Reader::new(self.shared.clone())
    }

    /// Resolves when records have come, or the queue was closed, since this was called and enabled.
    pub fn filled(&self) -> Notified<'_> {
        self.shared.filled.notified()
    }

    /// Resolves when there may be room, or the queue was closed, since this was called and enabled.
    pub fn room(&self) -> Notified<'_> {
        self.shared.room.notified()
    }

    /// Goes by other options from now on. What is above a bound that shrinks stays until it is
    /// done; how many tenants have a line of their own is settled when the queue is opened.
    pub fn set_options(&self, options: Options) {
        self.shared.set_options(options);
    }

    /// The place of the first record that is not done, or of the next one that is appended.
    pub fn first(&self) -> Position {
        let state = self.shared.state();
        let first = state.next_undone(0);
        Position(first.map_or(state.next, |place| place.sequence))
    }

    /// The place of the next record that is appended.
    pub fn end(&self) -> Position {
        Position(self.shared.state().next)
    }

    /// What it holds and held.
    pub fn snapshot(&self) -> Snapshot {
        snapshot(&self.shared)
    }

    /// Its accounts and what is in it, to hold one against the other.
    pub fn read_ledger(&self) -> Reading {
        read_ledger(&self.shared)
    }

    /// Goes up with every change to the accounts.
    pub fn changes(&self) -> u64 {
        self.shared.state().ledger.changes
    }

    /// What the writer did.
    pub fn stats(&self) -> StatsSnapshot {
        self.shared.stats.snapshot()
    }

    fn begin_close(&self) {
        self.shared.state().closed = true;
        self.shared.wake();
        self.shared.filled.notify_waiters();
        self.shared.room.notify_waiters();
    }

    /// Takes nothing more, writes what waits and returns when everything is on disk. It blocks.
    pub fn close(&self) {
        self.begin_close();
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = writer {
            // A panic of the writer has been reported by the process.
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
    // One wake-up that waits is as good as many.
    let (wake, wakes) = bounded(1);
    let shared = Arc::new(DiskShared::new(state, (fs, id, options), listener, wake));
    Ok((shared.clone(), Engine::new(shared, lock), wakes))
}

/// Reserves what an append takes, if there is room or it can be made.
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
    // Computed here, where the body is in the cache, and not by the one thread that writes.
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
