//! The work of the writer thread, as separate steps that tests call without the thread.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, IoSlice};
use std::sync::Arc;

use tokio::time::Instant;

use super::active::Active;
use super::event::{AppendError, Event, is_full};
use super::format;
use super::fs::File;
use super::queue::Completion;
use super::state::DiskShared;
use super::{Append, Entry, Position, SyncPolicy};

/// Bytes at the end of the log that stay in the system's page cache, for readers that follow
/// closely. The rest is released: pages that are reused while they are in the processor's cache are
/// cheaper than new ones, and a long outage does not evict the pages of other programs.
pub(super) const FRESH: u64 = 256 << 10;

/// Error for writes to a directory that was moved or removed.
const MOVED: &str = "the folder of the queue was moved or removed: put it back, or restart";

/// An append that waits for the writer.
pub(super) struct Job {
    pub(super) append: Append,
    pub(super) length: u64,
    pub(super) cost: u64,
    pub(super) body_crc: u32,
    pub(super) complete: Completion,
}

/// State of the writer.
pub(super) struct Engine {
    pub(super) shared: Arc<DiskShared>,
    pub(super) active: Option<Active>,
    /// Ack files that are written but not durable.
    pub(super) unsynced_acks: BTreeSet<u64>,
    /// Files that could not be removed.
    pub(super) leftover: BTreeSet<String>,
    /// Operations that fail at present: only the first failure in a row is reported.
    failing: BTreeSet<&'static str>,
    /// Lock that keeps other processes out of the directory.
    _lock: Box<dyn std::any::Any + Send>,
}

/// Places of a group of records after the write.
struct Group {
    places: Vec<(u32, u64)>,
    end: u64,
}

impl Engine {
    pub(super) fn new(shared: Arc<DiskShared>, lock: Box<dyn std::any::Any + Send>) -> Self {
        Self {
            shared,
            active: None,
            unsynced_acks: BTreeSet::new(),
            leftover: BTreeSet::new(),
            failing: BTreeSet::new(),
            _lock: lock,
        }
    }

    /// Writes all jobs and completes each.
    pub(super) fn commit(&mut self, jobs: &mut VecDeque<Job>) {
        self.fold();
        while !jobs.is_empty() {
            let outcome = self
                .within_bounds(jobs)
                .and_then(|()| self.write_group(jobs));
            match outcome {
                Ok(group) => self.publish(jobs, &group),
                // The queue itself may have filled the disk.
                Err(error) if is_full(&error) && self.free_newest() => {}
                // The other jobs would most likely fail too, and their senders retry.
                Err(error) => self.fail(jobs, &error.into()),
            }
        }
    }

    /// Removes the newest segment if it has records and all of them are done; returns whether it had
    /// to. The next write begins another one, so this is never true twice in a row.
    fn free_newest(&mut self) -> bool {
        let state = self.shared.state();
        let newest = state.segments.back();
        let done = newest.is_some_and(|it| !it.is_empty() && it.undone() == 0);
        drop(state);
        if self.active.is_none() || !done {
            return false;
        }
        self.seal();
        self.fold();
        true
    }

    /// Keeps the files below the bound. Admission counts on the removal of segments without undone
    /// records; some may have become such only since the writer last looked.
    fn within_bounds(&mut self, jobs: &VecDeque<Job>) -> io::Result<()> {
        let options = self.shared.options();
        let mut group = 0;
        for job in jobs {
            if group > 0 && group + job.cost > options.segment_bytes() {
                break;
            }
            group += job.cost;
        }
        let exceeded = |engine: &Self| {
            let written = engine.shared.state().written_bytes();
            written + group > options.max_bytes
        };
        if exceeded(self) {
            self.fold();
            if exceeded(self) {
                return Err(io::Error::other("old segments could not be removed"));
            }
        }
        Ok(())
    }

    /// Writes the jobs that fit into one segment, and makes them durable if the policy asks for it.
    fn write_group(&mut self, jobs: &VecDeque<Job>) -> io::Result<Group> {
        if !self.look() {
            return Err(io::Error::new(io::ErrorKind::NotFound, MOVED));
        }
        let limit = self.shared.options().segment_bytes();
        let first = jobs.front().map_or(0, |job| job.length);
        let full = |active: &Active| {
            active.bytes > format::FILE_HEADER as u64 && active.bytes + first > limit
        };
        if self.active.as_ref().is_some_and(full) {
            self.seal();
        }
        let next = self.shared.state().next;
        if self.active.is_none() {
            self.create(next)?;
        }
        let Some(active) = &self.active else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let file = active.file.clone();
        let start = active.bytes;
        let mut end = start;
        let mut places = Vec::new();
        let mut heads = Vec::new();
        for (sequence, job) in (next..).zip(jobs) {
            if !places.is_empty() && end + job.length > limit {
                break;
            }
            let seed = self.shared.seed;
            format::put_head(&mut heads, seed, sequence, &job.append, job.body_crc);
            places.push((end as u32, job.length));
            end += job.length;
        }
        // Written with a vectored write, without copying the bodies.
        let mut parts = Vec::with_capacity(2 * places.len());
        let mut rest = &heads[..];
        for Job { append, .. } in jobs.iter().take(places.len()) {
            let (head, others) = rest.split_at(format::head_length(append));
            rest = others;
            parts.extend([IoSlice::new(head), IoSlice::new(&append.body)]);
        }
        if let Err(error) = file.write_parts_at(parts, start) {
            // If the space ran out, the segment is intact once the partial write is cut off.
            self.undo(is_full(&error));
            return Err(error);
        }
        self.shared.stats.write((end - start) as usize);
        if self.shared.options().sync == SyncPolicy::Batch {
            if let Err(error) = self.sync_file(&*file) {
                // After a failed fsync, a later success says nothing about these pages, so their
                // state on disk is unknown.
                self.undo(false);
                return Err(error);
            }
            file.let_go(end.saturating_sub(FRESH));
        }
        if !file.is_linked() {
            self.undo(false);
            let source = || io::Error::new(io::ErrorKind::NotFound, "it was removed");
            self.shared.tell(Event::Failed {
                action: "write",
                file: "the newest segment".to_owned(),
                source: source(),
            });
            return Err(source());
        }
        Ok(Group { places, end })
    }

    /// Looks whether the directory is in its place: files in a moved one would not be found again.
    pub(super) fn look(&mut self) -> bool {
        let found = match self.shared.fs.is_in_place() {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::NotFound, MOVED)),
        };
        self.succeeded("find", "the folder of the queue", found)
    }

    pub(super) fn sync_file(&self, file: &dyn File) -> io::Result<()> {
        let started = Instant::now();
        let result = file.sync();
        self.shared.stats.fsync(started.elapsed());
        result
    }

    /// Cuts off incomplete records, and leaves the segment unless it can be trusted.
    fn undo(&mut self, keep: bool) {
        let Some(active) = &self.active else {
            return;
        };
        let cut = active.file.set_len(active.bytes);
        if !keep || cut.is_err() {
            // If the cut does not persist, the seal and the next segment tell where this one ends.
            self.retire();
        }
    }

    /// Makes the records readable and completes their jobs.
    fn publish(&mut self, jobs: &mut VecDeque<Job>, group: &Group) {
        let mut completed = Vec::with_capacity(group.places.len());
        let mut state = self.shared.state();
        for (offset, length) in &group.places {
            let Some(job) = jobs.pop_front() else {
                break;
            };
            let entry = Entry {
                position: Position(state.next),
                accepted_at: job.append.accepted_at,
                lane: job.append.lane,
                lane_unspecified: false,
                version: job.append.version,
                counts: job.append.counts,
                checked: job.append.checked,
                tenant: job.append.tenant,
                body_length: job.append.body.len() as u32,
            };
            state.next += 1;
            state.unreserve(&entry.tenant, job.cost);
            state.made_room();
            let sequence = entry.position.0;
            if let Some((segment, ledger)) = state.segment(sequence) {
                let held = segment.push(ledger, *offset, *length, &entry);
                state.untold.push(held);
            }
            completed.push((job.complete, entry));
        }
        drop(state);
        if let Some(active) = &mut self.active {
            active.bytes = group.end;
            active.unsynced |= self.shared.options().sync != SyncPolicy::Batch;
        }
        self.shared.filled.notify_waiters();
        for (complete, entry) in completed {
            complete(Ok(entry));
        }
        // Until now, the accounts of the callers had these records.
        let mut state = self.shared.state();
        state.untold.clear();
        state.ledger.changes += 1;
        drop(state);
        self.shared.room.notify_waiters();
    }

    fn fail(&mut self, jobs: &mut VecDeque<Job>, error: &AppendError) {
        let failed: Vec<_> = jobs.drain(..).collect();
        let mut state = self.shared.state();
        for job in &failed {
            state.unreserve(&job.append.tenant, job.cost);
        }
        state.made_room();
        drop(state);
        for job in failed {
            (job.complete)(Err(error.clone()));
        }
        self.shared.room.notify_waiters();
    }

    /// Leaves the files so that the next opening finds nothing to repair.
    pub(super) fn close(&mut self) {
        self.seal();
        self.fold();
        self.write_history();
        self.flush_acks();
        self.sync_acks();
    }

    /// Reports the first failure of a row, and remembers the state of the operation.
    pub(super) fn succeeded(
        &mut self,
        action: &'static str,
        file: &str,
        result: io::Result<()>,
    ) -> bool {
        match result {
            Ok(()) => {
                self.failing.remove(action);
                true
            }
            Err(source) => {
                if self.failing.insert(action) {
                    let file = file.to_owned();
                    self.shared.tell(Event::Failed {
                        action,
                        file,
                        source,
                    });
                }
                false
            }
        }
    }
}
