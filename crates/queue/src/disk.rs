//! The queue on disk: a log of segments in a directory of its own.
//!
//! What has been appended is there after a crash, until [`DiskQueue::done`] has said what became of
//! it. One thread writes: it takes all that waits, writes it at once, and one fsync covers it. A
//! segment goes when all of it is done; what became of its records is then in the checkpoint, so
//! that the ledger goes on. `docs/queue-format.md` describes the files.
//!
//! Guarantees: a completed append is read again unless it is done; records are read in the order
//! of their sequences. What was done shortly before a crash may be read again: what was not yet
//! written of it ([`ACK_INTERVAL`], [`ACK_BATCH`]), or after a loss of power what was not yet
//! durable ([`ACK_SYNC_INTERVAL`]).
//!
//! Limits: all files together stay below `max_bytes`; four bytes of memory for each record.
//!
//! Reading blocks on the disk: it is for threads that may.

mod acks;
mod active;
mod adopt;
mod checkpoint;
mod commit;
mod event;
mod fold;
mod format;
pub mod fs;
mod ledger;
mod queue;
mod reader;
mod recover;
mod segment;
mod state;
mod survey;
mod walk;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use metrifold_model::{Counts, Version};

pub use adopt::{AdoptError, adopt, discard};
pub use event::{AppendError, Event, OpenError};
pub use format::MAX_TENANT;
pub use ledger::{Account, Reason, Tally, TenantReading};
pub use queue::{Completion, DiskQueue, Reading, Refused, Snapshot};
pub use reader::{ReadError, Reader, Record};
pub use state::{Stats, StatsSnapshot};
pub use survey::{Survey, is_in_use, survey};

/// After so long at most, it is written what became of a record.
pub const ACK_INTERVAL: Duration = Duration::from_millis(100);
/// When so many wait to be written, that happens at once.
pub const ACK_BATCH: usize = 1024;
/// After so long at most, what was written of it is made durable.
pub const ACK_SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The least that a queue can be given.
pub const MIN_BYTES: u64 = 256 << 10;
/// The largest segment. A record that is larger has one to itself.
const MAX_SEGMENT: u64 = 16 << 20;
/// The largest record: what is addressed within a segment has 31 bits.
const MAX_RECORD: u64 = 1 << 30;
/// What may wait for the writer.
const PENDING_ITEMS: usize = 1024;
const PENDING_BYTES: u64 = 16 << 20;
/// The bytes of the directory for each tenant that has a line of its own.
const BYTES_PER_TENANT: u64 = 16 << 10;
const MAX_TENANTS: u64 = 1000;

/// How a queue behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What all files together may take; at least [`MIN_BYTES`].
    pub max_bytes: u64,
    /// Older records are dropped when they are met.
    pub max_age: Option<Duration>,
    /// Whether the oldest segment makes room when the queue is full. If not, appends are refused.
    pub drop_oldest: bool,
    /// When an append is complete.
    pub sync: SyncPolicy,
}

/// When an append is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// When it is durable.
    Batch,
    /// When it is written. A loss of power can cost what was written during this time.
    Interval(Duration),
}

impl Options {
    fn segment_bytes(&self) -> u64 {
        (self.max_bytes / 16).min(MAX_SEGMENT)
    }

    fn record_bytes(&self) -> u64 {
        (self.max_bytes / 4).min(MAX_RECORD)
    }

    fn tenants(&self) -> usize {
        (self.max_bytes / BYTES_PER_TENANT).min(MAX_TENANTS) as usize
    }
}

/// What is appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// Whose it is, at most [`MAX_TENANT`] bytes; empty if nobody's.
    pub tenant: Arc<str>,
    /// What it shares with batches that it must not overtake.
    pub lane: u64,
    /// When it was accepted, in milliseconds since 1970.
    pub accepted_at: u64,
    /// The version of the body.
    pub version: Version,
    /// What is in it, if it has been counted.
    pub counts: Option<Counts>,
    /// Whether it has been decoded for that, so that its series are in order.
    pub checked: bool,
    /// The compressed body.
    pub body: Bytes,
}

/// Where a record stands in the order of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// A record without its body: what [`DiskQueue::done`] needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub position: Position,
    /// When it was accepted, in milliseconds since 1970.
    pub accepted_at: u64,
    /// What it shares with records that it must not overtake.
    pub lane: u64,
    /// Whether the lane is one of format version 1, which says nothing about newer records: the
    /// record may be of any sender of its tenant.
    pub lane_unspecified: bool,
    /// The version of the body.
    pub version: Version,
    /// What is in it, if it has been counted.
    pub counts: Option<Counts>,
    /// Whether it has been decoded for that, so that its series are in order.
    pub checked: bool,
    /// Whose it is; empty if nobody's.
    pub tenant: Arc<str>,
    /// The length of the body.
    pub body_length: u32,
}

impl Entry {
    fn tally(&self) -> Tally {
        Tally::of(self.counts, self.body_length)
    }
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// All of it was delivered.
    Delivered,
    /// All of it was dropped.
    Dropped(Reason),
    /// It was delivered but for these samples.
    Partly {
        /// How many were not.
        dropped: u64,
        /// Why.
        reason: Reason,
    },
}
