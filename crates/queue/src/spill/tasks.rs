//! The tasks of a queue on disk: one stores batches after `store_after`, another reads records as
//! memory runs empty.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::warn;

use metrifold_base::LogLimit;

use crate::clock::now_millis;
use crate::disk::{AppendError, Event, Position, ReadError, Reader};
use crate::memory::RUN_MAX;

use super::Spill;

/// Poll interval: appends that have failed, abandoned batches and what the disk has dropped have no
/// waker.
const TICK: Duration = Duration::from_secs(1);
/// Pause after a failed read, and the attempts after which a record is dropped.
const READ_PAUSE: Duration = Duration::from_secs(1);
const READ_ATTEMPTS: u32 = 60;
/// The records that are listed before some are read: about as many as fit into memory, so that few
/// wait to be listed while those before them are delivered.
const LIST_AT_ONCE: RangeInclusive<usize> = 8..=4096;
const BYTES_PER_RECORD: usize = 4 << 10;

/// Stores batches that have not been delivered after `store_after`.
pub(super) async fn store(spill: Arc<Spill>) {
    let mut tick = Instant::now() + TICK;
    while !spill.is_closed() {
        let room = spill.disk.room();
        tokio::pin!(room);
        room.as_mut().enable();
        let due = spill.due();
        let full = due.is_some_and(|due| due <= Instant::now()) && !spill.spill_all();
        if Instant::now() >= tick {
            tick = Instant::now() + TICK;
            spill.drop_abandoned();
            spill.prune();
        }
        let due = spill.due();
        let next = due.filter(|_| !full).unwrap_or(tick).min(tick);
        tokio::select! {
            () = sleep_until(next) => {}
            () = spill.work.notified(), if due.is_none() => {}
            () = room, if full => {}
        }
    }
}

/// Reads records from disk into memory, in order.
pub(super) async fn read(spill: Arc<Spill>) {
    let mut reader = spill.disk.reader();
    let mut failures = 0;
    loop {
        let drained = spill.queue.drained();
        tokio::pin!(drained);
        drained.as_mut().enable();
        if spill.is_closing() {
            return;
        }
        let unlisted = spill.unlisted().is_some();
        if !unlisted && room(&spill, 4).is_none() {
            // Closing the queue wakes it as well.
            drained.await;
            continue;
        }
        let work = spill.clone();
        let read = tokio::task::spawn_blocking(move || {
            let read = list_some(&work, &mut reader).and_then(|()| read_some(&work, &mut reader));
            (reader, read)
        });
        let Ok((back, read)) = read.await else {
            return; // the runtime shuts down, or the task has panicked, which has been reported
        };
        reader = back;
        match read {
            Ok(full) => {
                failures = 0;
                if !full && !unlisted {
                    reader.close();
                    wait_for_records(&spill).await;
                }
            }
            Err(error) => {
                failures += 1;
                warn!(sink = %spill.sink, %error, attempt = failures, "cannot read the queue");
                if failures >= READ_ATTEMPTS {
                    failures = 0;
                    if spill.disk.give_up(error.position) {
                        spill.watch.corrupt.fetch_add(1, Ordering::Relaxed);
                    }
                }
                let _ = timeout(READ_PAUSE, spill.readable.notified()).await;
            }
        }
    }
}

/// Waits until there are records to read, or a tenant's pause ends.
async fn wait_for_records(spill: &Spill) {
    match spill.next_wake() {
        Some(wake) => {
            let _ = timeout_at(wake, spill.readable.notified()).await;
        }
        None => spill.readable.notified().await,
    }
}

/// Bytes by which memory is below `1 / part` of its bound; `None` if it is not. An empty memory
/// always has room.
fn room(spill: &Spill, part: usize) -> Option<usize> {
    let bytes = spill.queue.bytes();
    let room = (spill.memory_bytes() / part).saturating_sub(bytes);
    (room > 0 || bytes == 0).then_some(room)
}

/// Lists some of the records from before this process.
fn list_some(spill: &Spill, reader: &mut Reader) -> Result<(), ReadError> {
    let Some((from, end)) = spill.unlisted() else {
        return Ok(());
    };
    let (least, most) = LIST_AT_ONCE.into_inner();
    let at_once = (spill.memory_bytes() / BYTES_PER_RECORD).clamp(least, most);
    let mut entries = Vec::new();
    reader.seek(Position(from));
    let mut next = end;
    while let Some(entry) = reader.next_entry()? {
        if entry.position.0 >= end {
            break;
        }
        let position = entry.position.0;
        entries.push(entry);
        if entries.len() == at_once {
            next = position + 1;
            break;
        }
    }
    spill.list(&entries, next);
    Ok(())
}

/// Reads until memory is half full. Returns whether it is; if not, nothing is left to read now.
/// Records go to memory in groups that can form one request: one by one, the first would be sent
/// before the next is read.
fn read_some(spill: &Spill, reader: &mut Reader) -> Result<bool, ReadError> {
    while let Some(room) = room(spill, 2) {
        let to_read = spill.to_read(RUN_MAX);
        if to_read.is_empty() {
            return Ok(false);
        }
        let mut group = Vec::new();
        let mut weight = 0;
        let mut failed = None;
        for next in to_read {
            match reader.read(Position(next.position), now_millis()) {
                Ok(Some(record)) => {
                    let readied = spill.readied(record);
                    weight += readied.weight;
                    group.push(readied);
                }
                Ok(None) => spill.is_gone(&next),
                Err(error) => failed = Some(error),
            }
            if failed.is_some() || weight >= room {
                break;
            }
        }
        spill.replay(group);
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(true)
}

/// Losses and failures of the queue since it was opened.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Number of lost records.
    pub(super) corrupt: AtomicU64,
    /// Number of their samples, as far as known.
    pub(super) samples: AtomicU64,
    appends: LogLimit,
}

/// Counts and logs the events of a queue.
pub(super) fn listener(
    sink: Arc<str>,
    watch: Arc<Watch>,
) -> impl Fn(Event) + Send + Sync + 'static {
    let (limit, losses) = (LogLimit::default(), LogLimit::default());
    move |event| {
        let mut limit = &limit;
        if let Event::Lost {
            batches, samples, ..
        } = event
        {
            watch.corrupt.fetch_add(batches, Ordering::Relaxed);
            watch.samples.fetch_add(samples, Ordering::Relaxed);
            // The log limit for damage must not suppress the loss that results from it.
            limit = &losses;
        }
        if let Some(silent) = limit.pass() {
            warn!(%sink, %event, silent, "queue on disk");
        }
    }
}

/// Logs that the disk has refused a batch.
pub(super) fn append_failed(spill: &Spill, error: &AppendError) {
    if let Some(silent) = spill.watch.appends.pass() {
        warn!(sink = %spill.sink, %error, silent, "cannot store batches");
    }
}
