//! Batches in the queue and on their way into it, and the progress of their parts.

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
    /// The batch to deliver.
    pub batch: Batch,
    /// Ticket of a sender that waits for delivery.
    pub ticket: Option<Ticket>,
    /// Time at which the batch arrived.
    pub since: Instant,
    /// Number of failed attempts to deliver the batch.
    pub attempts: u32,
    /// Counts with which the accounts in memory have the batch as queued.
    pub tally: Tally,
    /// The batch's entry in the spill, which then keeps its account; `None` without a queue on
    /// disk.
    pub tracked: Option<Arc<Tracked>>,
}

/// A batch on its way into the queue.
#[derive(Debug)]
pub struct Incoming {
    /// The batch.
    pub batch: Batch,
    /// Ticket of the sender, if it waits for an acknowledgement.
    pub ticket: Option<Ticket>,
    /// Time at which the batch arrived.
    pub since: Instant,
    /// Lane of the batch: it must not overtake earlier batches of the same lane.
    pub lane: Lane,
    /// Version in which the batch is stored on disk.
    pub version: Version,
    /// Whether the queue in memory may grow for it.
    pub grows: bool,
}

impl Incoming {
    /// Whether the sender waits until the batch is stored.
    pub(crate) fn waits_for_disk(&self) -> bool {
        let ticket = self.ticket.as_ref();
        ticket.is_some_and(Ticket::until_stored)
    }
}

/// The counts with which a batch is booked.
pub fn tally(batch: &Batch) -> Tally {
    let bytes = u32::try_from(batch.body_len()).unwrap_or(u32::MAX);
    Tally::of(batch.counts(), bytes)
}

/// Progress of the finished parts of a batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Whether any part was delivered.
    pub sent: bool,
    /// Samples that were not delivered, as far as they were counted.
    pub dropped: u64,
    /// Reason of the first drop.
    pub reason: Option<Reason>,
}

impl Progress {
    fn add(&mut self, other: Self) {
        self.sent |= other.sent;
        self.dropped += other.dropped;
        self.reason = self.reason.or(other.reason);
    }

    /// The fate of a batch that consists of these parts.
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

/// A batch that the spill tracks. Its parts share this entry: the batch is done when the last part
/// is.
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

    /// Locks the parts. A poisoned lock is used on: every change is complete, so no invariant spans
    /// a panic.
    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the progress of one part, which returns to the queue in `left` parts.
    pub fn give_back(&self, progress: Progress, left: usize) {
        let mut parts = self.parts();
        parts.left = (parts.left + left).saturating_sub(1);
        parts.progress.add(progress);
    }

    /// Whether the batch is in one piece and nothing of it is finished.
    pub(crate) fn is_whole(&self) -> bool {
        let parts = self.parts();
        parts.left == 1 && !parts.progress.sent && parts.progress.reason.is_none()
    }

    /// Records the end of a part. Returns the fate of the batch if that was the last part.
    pub(crate) fn finish(&self, progress: Progress) -> Option<Fate> {
        let mut parts = self.parts();
        parts.progress.add(progress);
        parts.left = parts.left.saturating_sub(1);
        (parts.left == 0).then(|| parts.progress.fate())
    }
}
