//! What a store knows of the batches that it is responsible for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use metrifold_codec::Batch;
use metrifold_model::ledger::Tally;
use metrifold_model::{Ticket, Version};
use metrifold_queue::disk::{Entry, Fate};

use super::super::delivery::Progress;
use super::backlog::Backlog;
use super::tally;

#[derive(Default)]
pub(super) struct State {
    pub(super) next: u64,
    /// In memory and not on disk, in the order in which they came.
    pub(super) fresh: BTreeMap<u64, Fresh>,
    /// In memory, and on disk or on their way there.
    pub(super) copied: Copies,
    /// On their way to disk, and not in memory.
    pub(super) direct: HashMap<u64, Direct, foldhash::fast::RandomState>,
    /// Of records that are on disk and not in memory, those whose senders wait for the far end.
    pub(super) waiting: BTreeMap<u64, (Entry, Ticket)>,
    /// Records that are on disk and not in memory.
    pub(super) backlog: Backlog,
    pub(super) closing: bool,
    pub(super) closed: bool,
}

pub(super) struct Fresh {
    pub(super) batch: Batch,
    pub(super) version: Version,
    pub(super) lane: u64,
    /// Whose sender need not wait once it is stored.
    pub(super) ticket: Option<Ticket>,
    pub(super) tally: Tally,
    pub(super) since: Instant,
    /// Not if it is too large for the disk, or if its sender has given it up.
    pub(super) storable: bool,
}

pub(super) struct Copied {
    pub(super) lane: u64,
    /// What it was before; gone once it is stored.
    pub(super) fresh: Option<Fresh>,
    pub(super) entry: Option<Entry>,
    /// If it came to its end while it was on its way.
    pub(super) fate: Option<Fate>,
}

/// What is in memory and on disk, or on its way there.
#[derive(Default)]
pub(super) struct Copies {
    all: HashMap<u64, Copied, foldhash::fast::RandomState>,
    lanes: HashMap<u64, LaneCopies, foldhash::fast::RandomState>,
}

/// What is known of the copies of a lane.
#[derive(Default)]
struct LaneCopies {
    count: usize,
    /// The newest one.
    last: u64,
}

impl Copies {
    pub(super) fn insert(&mut self, id: u64, copied: Copied) {
        let lane = self.lanes.entry(copied.lane).or_default();
        lane.count += 1;
        lane.last = lane.last.max(id);
        self.all.insert(id, copied);
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Copied> {
        let copied = self.all.remove(&id)?;
        if let Some(lane) = self.lanes.get_mut(&copied.lane) {
            lane.count -= 1;
            if lane.count == 0 {
                self.lanes.remove(&copied.lane);
            }
        }
        Some(copied)
    }

    /// Looks up the newest copy of a lane again, after one could not be written.
    pub(super) fn refresh(&mut self, lane: u64) {
        let of_lane = self.all.iter().filter(|(_, copied)| copied.lane == lane);
        let last = of_lane.map(|(id, _)| *id).max();
        if let (Some(lane), Some(last)) = (self.lanes.get_mut(&lane), last) {
            lane.last = last;
        }
    }

    /// Whether there is something of a lane that is newer than this one.
    fn has_newer(&self, lane: u64, id: u64) -> bool {
        self.lanes.get(&lane).is_some_and(|lane| lane.last > id)
    }

    pub(super) fn get(&self, id: u64) -> Option<&Copied> {
        self.all.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Copied> {
        self.all.get_mut(&id)
    }

    /// Whether there is something of a lane.
    pub(super) fn has(&self, lane: u64) -> bool {
        self.lanes.contains_key(&lane)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Copied> {
        self.all.values()
    }
}

pub(super) struct Direct {
    pub(super) batch: Batch,
    pub(super) lane: u64,
    pub(super) ticket: Option<Ticket>,
    pub(super) tally: Tally,
}

/// What the store knows of a batch in memory, shared by its parts.
#[derive(Debug)]
pub(in super::super) struct Kept {
    pub(super) id: u64,
    /// How many parts are not done, and what became of the others.
    parts: Mutex<(usize, Progress)>,
}

impl Kept {
    pub(super) fn new(id: u64) -> Arc<Self> {
        Arc::new(Self {
            id,
            parts: Mutex::new((1, Progress::default())),
        })
    }

    fn parts(&self) -> MutexGuard<'_, (usize, Progress)> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One part has come that far, and goes on in so many.
    pub(in super::super) fn leave(&self, progress: Progress, left: usize) {
        let mut parts = self.parts();
        parts.0 = (parts.0 + left).saturating_sub(1);
        parts.1.add(progress);
    }

    /// Whether nothing has become of any part of it.
    pub(super) fn is_whole(&self) -> bool {
        let parts = self.parts();
        parts.0 == 1 && !parts.1.sent && parts.1.reason.is_none()
    }

    /// One part has come to its end. Returns what became of the batch if it was the last one.
    pub(super) fn finish(&self, progress: Progress) -> Option<Fate> {
        let mut parts = self.parts();
        parts.1.add(progress);
        parts.0 = parts.0.saturating_sub(1);
        (parts.0 == 0).then(|| parts.1.fate())
    }
}

impl State {
    pub(super) fn keep(&mut self, fresh: Fresh) -> u64 {
        let id = self.next;
        self.next += 1;
        self.fresh.insert(id, fresh);
        id
    }

    /// What memory alone has and the disk can take. An older batch whose append has failed must
    /// not come to stand behind a newer one of its lane whose append has not: it stays in memory,
    /// which is read first.
    pub(super) fn storable(&self) -> impl Iterator<Item = (&u64, &Fresh)> {
        self.fresh.iter().filter(|(id, fresh)| {
            fresh.storable
                && !self.copied.has_newer(fresh.lane, **id)
                && !self.backlog.has_newer(fresh.lane, **id)
        })
    }
}

impl Fresh {
    pub(super) fn new(
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
