//! The writer's work, step by step and without its thread.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, IoSlice};
use std::sync::Arc;

use tokio::time::Instant;

use super::checkpoint::{CHECKPOINT, Checkpoint, SPARE, replace_checkpoint};
use super::event::{AppendError, Event, is_full};
use super::format::{self, FileHeader, Header, Kind, RECORD_HEADER};
use super::fs::{File, Mode};
use super::ledger::Account;
use super::queue::Completion;
use super::segment::Segment;
use super::state::{Shared, ack_name, log_name};
use super::{Append, Entry, Position, SyncPolicy};

/// So much of what was written last stays in the system's memory, for those who read it at once. The
/// rest makes room: pages that are used again, while the processor's cache has them, cost less than
/// new ones, and a long outage does not push out what others need.
const FRESH: u64 = 256 << 10;

/// Why nothing is written to a directory that is not in its place.
const MOVED: &str = "the folder of the queue was moved or removed: put it back, or restart";

/// An append on its way to the writer.
pub(super) struct Job {
    pub(super) append: Append,
    pub(super) length: u64,
    pub(super) cost: u64,
    pub(super) body_crc: u32,
    pub(super) complete: Completion,
}

/// What only the writer has.
pub(super) struct Engine {
    pub(super) shared: Arc<Shared>,
    active: Option<Active>,
    /// Ack files that are written but not durable.
    pub(super) unsynced_acks: BTreeSet<u64>,
    /// Files that could not be removed.
    leftover: BTreeSet<String>,
    /// What has failed and has not succeeded since: told once.
    failing: BTreeSet<&'static str>,
    /// Keeps others out of the directory.
    _lock: Box<dyn std::any::Any + Send>,
}

/// The segment that takes records.
struct Active {
    first: u64,
    file: Arc<dyn File>,
    /// Where the last completed record ends.
    bytes: u64,
    /// Whether there are completed records that are not durable.
    unsynced: bool,
}

/// Where a group of records came to stand.
struct Group {
    places: Vec<(u32, u64)>,
    end: u64,
}

impl Engine {
    pub(super) fn new(shared: Arc<Shared>, lock: Box<dyn std::any::Any + Send>) -> Self {
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
                // The others would hardly fare better, and their senders try again.
                Err(error) => self.fail(jobs, &error.into()),
            }
        }
    }

    /// What was admitted counts on segments that nobody needs being removed. Some may have become
    /// such since the writer last looked, for appends that are still to come.
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

    /// Writes jobs that go into one segment, and makes them durable if they are to be.
    fn write_group(&mut self, jobs: &VecDeque<Job>) -> io::Result<Group> {
        let place = self.find_directory();
        let missing = place.as_ref().err().map(io::Error::kind);
        self.succeeded("find", "the folder of the queue", place);
        if let Some(kind) = missing {
            return Err(io::Error::new(kind, MOVED));
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
        // The bodies are written from where they are.
        let mut parts = Vec::with_capacity(2 * places.len());
        let mut rest = &heads[..];
        for Job { append, .. } in jobs.iter().take(places.len()) {
            let (head, others) = rest.split_at(format::head_length(append));
            rest = others;
            parts.extend([IoSlice::new(head), IoSlice::new(&append.body)]);
        }
        if let Err(error) = file.write_parts_at(parts, start) {
            // The space ran out: the segment is as good as before, once this is cut off.
            self.undo(is_full(&error));
            return Err(error);
        }
        self.shared.stats.write((end - start) as usize);
        if self.shared.options().sync == SyncPolicy::Batch {
            if let Err(error) = self.sync_file(&*file) {
                // What a later fsync says of these pages is not true: nobody knows what is on disk.
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

    /// What is written to a directory that is not in its place any more would not be found again.
    fn find_directory(&self) -> io::Result<()> {
        match self.shared.fs.is_in_place() {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::NotFound, MOVED)),
        }
    }

    fn sync_file(&self, file: &dyn File) -> io::Result<()> {
        let started = Instant::now();
        let result = file.sync();
        self.shared.stats.fsync(started.elapsed());
        result
    }

    /// Cuts off what was not completed, and leaves the segment if it cannot be trusted.
    fn undo(&mut self, keep: bool) {
        let Some(active) = &self.active else {
            return;
        };
        let cut = active.file.set_len(active.bytes);
        if !keep || cut.is_err() {
            // Should the cut not last, the segment's seal and its successor say where it ends.
            self.retire();
        }
    }

    /// The records can be read from now on.
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
        // Until here, those who were told had it in their accounts.
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
        drop(state);
        for job in failed {
            (job.complete)(Err(error.clone()));
        }
        self.shared.room.notify_waiters();
    }

    /// Begins a segment.
    fn create(&mut self, first: u64) -> io::Result<()> {
        let mut state = self.shared.state();
        // What has no record can have the same name, be it here or about to be removed.
        while state
            .segments
            .back()
            .is_some_and(|last| last.first == first)
        {
            if let Some(last) = state.segments.pop_back() {
                state.ledger.fold(&last.accounts);
            }
        }
        drop(state);
        let fs = &self.shared.fs;
        let id = self.shared.id;
        let header = FileHeader { id, first };
        for name in [log_name(first), ack_name(first)] {
            self.leftover.remove(&name);
        }
        // A segment of this name that held no record leaves its files. Its acks go first: a log that
        // is shorter than its header is then known to have held nothing, and not counted as damage.
        match fs.remove(&ack_name(first)) {
            Ok(()) => fs.sync_dir()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = fs.open(&log_name(first), Mode::Create)?;
        file.write_at(&header.encode(Kind::Segment), 0)?;
        self.sync_file(&*file)?;
        let acks = fs.open(&ack_name(first), Mode::Create)?;
        acks.write_at(&header.encode(Kind::Acks), 0)?;
        self.sync_file(&*acks)?;
        fs.sync_dir()?;
        let mut segment = Segment::new(first);
        segment.ack_bytes = format::FILE_HEADER as u64;
        let bytes = segment.bytes;
        self.shared.state().segments.push_back(segment);
        self.active = Some(Active {
            first,
            file,
            bytes,
            unsynced: false,
        });
        Ok(())
    }

    /// Makes the active segment durable, and appends no more to it.
    fn seal(&mut self) {
        self.sync();
        self.retire();
    }

    fn retire(&mut self) {
        let Some(active) = self.active.take() else {
            return;
        };
        let mut state = self.shared.state();
        if let Some((segment, _)) = state.segment(active.first) {
            segment.sealed = true;
            let seal = segment.seal();
            segment.pending.push(seal);
        }
    }

    /// Makes completed records durable that are not.
    pub(super) fn sync(&mut self) {
        let Some(active) = self.active.as_mut().filter(|active| active.unsynced) else {
            return;
        };
        active.unsynced = false;
        let (file, name, end) = (active.file.clone(), log_name(active.first), active.bytes);
        match self.sync_file(&*file) {
            Ok(()) => file.let_go(end.saturating_sub(FRESH)),
            Err(source) => {
                self.shared.tell(Event::Failed {
                    action: "sync",
                    file: name,
                    source,
                });
                self.retire();
            }
        }
    }

    pub(super) fn is_unsynced(&self) -> bool {
        self.active.as_ref().is_some_and(|active| active.unsynced)
    }

    /// Makes room, if somebody needs it and it can be made.
    pub(super) fn tend(&mut self) {
        let mut state = self.shared.state();
        let starved = std::mem::take(&mut state.starved);
        let drop_oldest = self.shared.options().drop_oldest;
        let last = state.segments.back();
        let seal = last.is_some_and(|last| !last.is_empty() && (last.undone() == 0 || drop_oldest));
        // Until the active segment can make room, it has to be looked at again.
        state.starved = starved && !seal;
        drop(state);
        if starved && seal {
            self.seal();
            self.shared.room.notify_waiters();
        }
        self.fold();
        self.refresh_oldest();
    }

    /// Removes the oldest segments of which nothing is needed, after the checkpoint has them.
    pub(super) fn fold(&mut self) {
        self.remove_leftover();
        if !self.leftover.is_empty() {
            return;
        }
        let mut state = self.shared.state();
        let spent = state.segments.iter().take_while(|it| it.is_spent());
        let count = spent.count();
        if count == 0 {
            return;
        }
        let folding = state.segments.iter().take(count);
        let lines = state.ledger.history(folding.map(|it| &it.accounts));
        let next = state.segments.get(count).map(|segment| segment.first);
        let first = next.unwrap_or(state.next);
        let rebooked = std::mem::take(&mut state.rebooked);
        drop(state);
        let written = self.write_checkpoint(first, lines);
        let mut state = self.shared.state();
        if !written {
            state.rebooked |= rebooked;
            return;
        }
        for _ in 0..count {
            if let Some(segment) = state.segments.pop_front() {
                state.ledger.fold(&segment.accounts);
                self.leftover.insert(log_name(segment.first));
                self.leftover.insert(ack_name(segment.first));
                self.unsynced_acks.remove(&segment.first);
            }
        }
        drop(state);
        self.remove_leftover();
        self.shared.room.notify_waiters();
    }

    fn write_checkpoint(&mut self, first: u64, lines: Vec<(Arc<str>, Account)>) -> bool {
        let id = self.shared.id;
        let header = FileHeader { id, first };
        let written = replace_checkpoint(&*self.shared.fs, &Checkpoint { header, lines }.encode());
        let written = self.succeeded("write", CHECKPOINT, written);
        if written {
            self.put_aside();
        }
        written
    }

    /// Writes a checkpoint if the history has changed and no segment had to be removed.
    fn write_history(&mut self) {
        let mut state = self.shared.state();
        if !std::mem::take(&mut state.rebooked) {
            return;
        }
        let lines = state.ledger.history(std::iter::empty());
        let first = state.segments.front().map_or(state.next, |it| it.first);
        drop(state);
        if !self.write_checkpoint(first, lines) {
            self.shared.state().rebooked = true;
        }
    }

    fn remove_leftover(&mut self) {
        for name in std::mem::take(&mut self.leftover) {
            let removed = match self.shared.fs.remove(&name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            };
            if !self.succeeded("remove", &name, removed) {
                self.leftover.insert(name);
            }
        }
    }

    /// Takes the space that the next checkpoint needs, while there is some.
    pub(super) fn put_aside(&mut self) {
        let length = self.shared.state().ledger.footprint() as usize;
        let fs = &self.shared.fs;
        let written = fs.open(SPARE, Mode::Keep).and_then(|file| {
            let there = file.length()?;
            if there < length as u64 {
                file.write_at(&vec![0; length - there as usize], there)?;
            }
            Ok(())
        });
        self.succeeded("write", SPARE, written);
    }

    /// Looks up when the oldest record was accepted.
    pub(super) fn refresh_oldest(&mut self) {
        let state = self.shared.state();
        let place = state.next_undone(0);
        let known = state.oldest.map(|(sequence, _)| sequence);
        drop(state);
        let sequence = place.map(|place| place.sequence);
        if sequence == known {
            return;
        }
        let accepted = place.and_then(|place| {
            let file = self
                .shared
                .fs
                .open(&log_name(place.segment), Mode::Existing);
            let length = RECORD_HEADER + format::MAX_TENANT;
            let header = file.ok()?.read_at(length, u64::from(place.offset)).ok()?;
            let header = Header::decode(self.shared.seed, &header)?;
            Some((place.sequence, header.accepted_at))
        });
        self.shared.state().oldest = accepted;
    }

    /// Leaves everything such that opening it again finds nothing to repair.
    pub(super) fn close(&mut self) {
        self.seal();
        self.fold();
        self.write_history();
        self.flush_acks();
        self.sync_acks();
    }

    /// Tells of the first of failures that follow each other.
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
