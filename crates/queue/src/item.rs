//! A batch in the queue and on its way into it, and what becomes of its parts.

use metrifold_codec::Batch;
use metrifold_model::ledger::{Reason, Tally};
use metrifold_model::{Ticket, Version};
use tokio::time::Instant;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Lane;
use crate::disk::Fate;

/// A batch, or a part of one, in the queue in memory.
#[derive(Debug)]
pub struct Queued {
    /// What is to be delivered.
    pub batch: Batch,
    /// The promise to a sender that waits for the far end.
    pub ticket: Option<Ticket>,
    /// When the batch came.
    pub since: Instant,
    /// How many attempts to deliver it have failed.
    pub attempts: u32,
    /// What of it the accounts in memory have as queued.
    pub tally: Tally,
    /// The batch's entry in the spill, which accounts for it then; none if there is no spill.
    pub tracked: Option<Arc<Tracked>>,
}

/// A batch on its way into the queue.
#[derive(Debug)]
pub struct Incoming {
    /// The batch.
    pub batch: Batch,
    /// The promise to its sender, if that waits.
    pub ticket: Option<Ticket>,
    /// When it came.
    pub since: Instant,
    /// What it must not overtake.
    pub lane: Lane,
    /// The version in which it goes to disk.
    pub version: Version,
    /// Whether the queue in memory may grow for it.
    pub grows: bool,
}

impl Incoming {
    /// Whether its sender waits until it is stored.
    pub(crate) fn waits_for_disk(&self) -> bool {
        let ticket = self.ticket.as_ref();
        ticket.is_some_and(Ticket::until_stored)
    }
}

/// What the ledger says of a batch.
pub fn tally(batch: &Batch) -> Tally {
    let bytes = u32::try_from(batch.body_len()).unwrap_or(u32::MAX);
    Tally::of(batch.counts(), bytes)
}

/// What became of those parts of a batch that are done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Whether the far end has taken something.
    pub sent: bool,
    /// Samples that the far end did not get, as far as they were counted.
    pub dropped: u64,
    /// Why the first of them was dropped.
    pub reason: Option<Reason>,
}

impl Progress {
    fn add(&mut self, other: Self) {
        self.sent |= other.sent;
        self.dropped += other.dropped;
        self.reason = self.reason.or(other.reason);
    }

    /// What became of the batch if these were all of its parts.
    pub fn fate(self) -> Fate {
        match self.reason {
            None => Fate::Delivered,
            Some(reason) if !self.sent => Fate::Dropped(reason),
            Some(reason) => Fate::Partly {
                dropped: self.dropped,
                reason,
            },
        }
    }
}

/// A batch that the spill tracks. Its parts share it: the batch is done when the last of them is.
#[derive(Debug)]
pub struct Tracked {
    pub(crate) id: u64,
    parts: Mutex<Parts>,
}

#[derive(Debug)]
struct Parts {
    left: usize,
    progress: Progress,
}

impl Tracked {
    pub(crate) fn new(id: u64) -> Arc<Self> {
        let parts = Parts {
            left: 1,
            progress: Progress::default(),
        };
        Arc::new(Self {
            id,
            parts: Mutex::new(parts),
        })
    }

    /// No invariant spans a panic here: every change is complete.
    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that one part has come this far, and goes back to the queue in `left` parts.
    pub fn give_back(&self, progress: Progress, left: usize) {
        let mut parts = self.parts();
        parts.left = (parts.left + left).saturating_sub(1);
        parts.progress.add(progress);
    }

    /// Whether the batch is in one piece and nothing of it is done.
    pub(crate) fn is_whole(&self) -> bool {
        let parts = self.parts();
        parts.left == 1 && !parts.progress.sent && parts.progress.reason.is_none()
    }

    /// Notes that a part is done. Returns the fate of the batch if it was the last one.
    pub(crate) fn finish(&self, progress: Progress) -> Option<Fate> {
        let mut parts = self.parts();
        parts.progress.add(progress);
        parts.left = parts.left.saturating_sub(1);
        (parts.left == 0).then(|| parts.progress.fate())
    }
}
