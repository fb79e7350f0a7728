//! What works for a queue on disk in the background: one task stores what has waited for too long,
//! another reads what is on disk as the queue in memory runs empty.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::warn;

use metrifold_base::LogLimit;
use metrifold_queue::disk::{AppendError, Event, Position, ReadError, Reader};

use super::store::{Store, now_millis};

/// How often rates are taken, and looked after what nobody wakes this task for.
const TICK: Duration = Duration::from_secs(1);
/// How long to wait for a disk that cannot be read, and how often before a record is given up.
const READ_PAUSE: Duration = Duration::from_secs(1);
const READ_ATTEMPTS: u32 = 60;
/// How many records are listed before some are read. Tests list few, so that what happens between
/// two rounds happens in them.
const LIST_AT_ONCE: usize = if cfg!(test) { 8 } else { 4096 };

/// Stores what has not been delivered in time.
pub(super) async fn keep(store: Arc<Store>) {
    let mut tick = Instant::now() + TICK;
    while !store.is_closed() {
        let room = store.disk.room();
        tokio::pin!(room);
        room.as_mut().enable();
        let due = store.due();
        let full = due.is_some_and(|due| due <= Instant::now()) && !store.store_all();
        if Instant::now() >= tick {
            tick = Instant::now() + TICK;
            store.drained.tick(TICK);
            store.drop_abandoned();
            store.prune();
        }
        let due = store.due();
        let next = due.filter(|_| !full).unwrap_or(tick).min(tick);
        tokio::select! {
            () = sleep_until(next) => {}
            () = store.work.notified(), if due.is_none() => {}
            () = room, if full => {}
        }
    }
}

/// Reads what is on disk into memory, in order.
pub(super) async fn pump(store: Arc<Store>) {
    let mut reader = store.disk.reader();
    let mut failures = 0;
    loop {
        let drained = store.queue.drained();
        tokio::pin!(drained);
        drained.as_mut().enable();
        if store.is_closing() {
            return;
        }
        let unseen = store.unseen().is_some();
        if !unseen && !wants_more(&store, 4) {
            // Closing wakes it as well.
            drained.await;
            continue;
        }
        let work = store.clone();
        let read = tokio::task::spawn_blocking(move || {
            let read = list_some(&work, &mut reader).and_then(|()| read_some(&work, &mut reader));
            (reader, read)
        });
        let Ok((back, read)) = read.await else {
            return; // the runtime is going, or it has panicked, which has been reported
        };
        reader = back;
        match read {
            Ok(full) => {
                failures = 0;
                if !full && !unseen {
                    wait_for_records(&store).await;
                }
            }
            Err(error) => {
                failures += 1;
                warn!(sink = %store.sink, %error, attempt = failures, "cannot read the queue");
                if failures >= READ_ATTEMPTS {
                    failures = 0;
                    store.disk.give_up(error.position);
                    store.watch.corrupt.fetch_add(1, Ordering::Relaxed);
                }
                let _ = timeout(READ_PAUSE, store.readable.notified()).await;
            }
        }
    }
}

/// Waits until there is something to read, or somebody is no longer left alone.
async fn wait_for_records(store: &Store) {
    match store.next_wake() {
        Some(wake) => {
            let _ = timeout_at(wake, store.readable.notified()).await;
        }
        None => store.readable.notified().await,
    }
}

/// Whether memory holds less than that part of what it may, or nothing at all.
fn wants_more(store: &Store, part: usize) -> bool {
    let bytes = store.queue.bytes();
    bytes == 0 || bytes < store.memory_bytes() / part
}

/// Gets to know some of what was there when the queue was opened.
fn list_some(store: &Store, reader: &mut Reader) -> Result<(), ReadError> {
    let Some((from, end)) = store.unseen() else {
        return Ok(());
    };
    let mut entries = Vec::new();
    reader.seek(Position(from));
    let mut next = end;
    while let Some(entry) = reader.next_entry()? {
        if entry.position.0 >= end {
            break;
        }
        let position = entry.position.0;
        entries.push(entry);
        if entries.len() == LIST_AT_ONCE {
            next = position + 1;
            break;
        }
    }
    store.list(&entries, next);
    Ok(())
}

/// Reads until memory is filled well enough. Returns whether it is, and not all is read that may be.
fn read_some(store: &Store, reader: &mut Reader) -> Result<bool, ReadError> {
    while wants_more(store, 2) {
        let Some(next) = store.to_read() else {
            return Ok(false);
        };
        match reader.read(Position(next.position), now_millis())? {
            Some(record) => store.take_in(record),
            None => store.is_gone(&next),
        }
    }
    Ok(true)
}

/// How fast bytes go, over some seconds.
#[derive(Debug, Default)]
pub(super) struct Rate {
    bytes: AtomicU64,
    /// Bits of bytes per second.
    rate: AtomicU64,
}

impl Rate {
    pub(super) fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn tick(&self, over: Duration) {
        let now = self.bytes.swap(0, Ordering::Relaxed) as f64 / over.as_secs_f64();
        let before = f64::from_bits(self.rate.load(Ordering::Relaxed));
        let rate = if before == 0.0 {
            now
        } else {
            before * 0.8 + now * 0.2
        };
        let rate = if rate < 1.0 { 0.0 } else { rate };
        self.rate.store(rate.to_bits(), Ordering::Relaxed);
    }

    /// How long so many bytes take; none if nothing goes.
    pub(super) fn seconds(&self, bytes: u64) -> Option<f64> {
        if bytes == 0 {
            return Some(0.0);
        }
        let rate = f64::from_bits(self.rate.load(Ordering::Relaxed));
        (rate > 0.0).then(|| bytes as f64 / rate)
    }
}

/// What went wrong, since the queue was opened.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Records that were lost.
    pub(super) corrupt: AtomicU64,
    /// Samples of them, as far as that is known.
    pub(super) samples: AtomicU64,
    appends: LogLimit,
}

/// Counts what goes wrong with a queue, and says so.
pub(super) fn listener(
    sink: Arc<str>,
    watch: Arc<Watch>,
) -> impl Fn(Event) + Send + std::marker::Sync + 'static {
    let (limit, losses) = (LogLimit::default(), LogLimit::default());
    move |event| {
        let mut limit = &limit;
        if let Event::Lost {
            batches, samples, ..
        } = event
        {
            watch.corrupt.fetch_add(batches, Ordering::Relaxed);
            watch.samples.fetch_add(samples, Ordering::Relaxed);
            // What was found damaged must not keep it quiet that something is lost for that.
            limit = &losses;
        }
        if let Some(silent) = limit.pass() {
            warn!(%sink, %event, silent, "queue on disk");
        }
    }
}

/// Says that the disk does not take what it should.
pub(super) fn append_failed(store: &Store, error: &AppendError) {
    if let Some(silent) = store.watch.appends.pass() {
        warn!(sink = %store.sink, %error, silent, "cannot store batches");
    }
}
