//! The queue on disk: a log of segments in a directory of its own.
//!
//! Appended records survive a crash until [`DiskQueue::done`] reports their fate. A single thread
//! writes: it takes all waiting appends, writes them at once, and one fsync covers them. A segment
//! is removed when all of its records are done; their fates are then in the checkpoint, which
//! continues the ledger. `docs/queue-format.md` describes the files.
//!
//! Guarantees: a completed append is read again unless it is done; records are read in the order of
//! their sequences. Records that were done shortly before a crash may be read again: those whose
//! acks were not written yet ([`ACK_INTERVAL`], [`ACK_BATCH`]), or after a loss of power those
//! whose acks were not durable yet ([`ACK_SYNC_INTERVAL`]).
//!
//! Limits: all files together stay below `max_bytes`; the index takes four bytes of memory for each
//! record.
//!
//! Reading blocks on the disk and must not be called on a worker thread.

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
pub use ledger::{Account, Reason, Tally, TenantReading};
pub use queue::{Completion, DiskQueue, Reading, Refused, Snapshot};
pub use reader::{ReadError, Reader, Record};
pub use state::{Stats, StatsSnapshot};
pub use survey::{Survey, survey};

/// The most time between the end of a record and the write of its ack.
pub const ACK_INTERVAL: Duration = Duration::from_millis(100);
/// Number of waiting acks that triggers a write at once.
pub const ACK_BATCH: usize = 1024;
/// The most time between the write of an ack and its fsync.
pub const ACK_SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The smallest allowed value of `max_bytes`.
pub const MIN_BYTES: u64 = 256 << 10;
/// The largest segment. A larger record gets a segment of its own.
const MAX_SEGMENT: u64 = 16 << 20;
/// The largest record: offsets within a segment have 31 bits.
const MAX_RECORD: u64 = 1 << 30;
/// The most appends, and bytes of appends, that may wait for the writer.
const PENDING_ITEMS: usize = 1024;
const PENDING_BYTES: u64 = 16 << 20;
/// Bytes of `max_bytes` for each tenant with a line of its own.
const BYTES_PER_TENANT: u64 = 16 << 10;
const MAX_TENANTS: u64 = 1000;

/// Settings of a queue on disk.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The most bytes that all files together may take; at least [`MIN_BYTES`].
    pub max_bytes: u64,
    /// Age from which a record is dropped when it is read.
    pub max_age: Option<Duration>,
    /// Whether the oldest segment is dropped when the queue is full. If not, appends are refused.
    pub drop_oldest: bool,
    /// Condition for an append to be complete.
    pub sync: SyncPolicy,
}

/// Condition for an append to be complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// The record is durable.
    Batch,
    /// The record is written. A loss of power can lose the records of this period.
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

/// A record to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// Tenant of the record, at most `MAX_TENANT` bytes; empty for no tenant.
    pub tenant: Arc<str>,
    /// Lane of the record: it must not overtake earlier records of the same lane.
    pub lane: u64,
    /// Time at which the batch was accepted, in milliseconds since 1970.
    pub accepted_at: u64,
    /// Version of remote write of the body.
    pub version: Version,
    /// Counts of the batch, if they are known.
    pub counts: Option<Counts>,
    /// Whether the batch was decoded, so that its series are known to be valid.
    pub checked: bool,
    /// The compressed body.
    pub body: Bytes,
}

/// Position of a record in the queue: its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// A record without its body, as [`DiskQueue::done`] needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Position of the record.
    pub position: Position,
    /// Time at which the batch was accepted, in milliseconds since 1970.
    pub accepted_at: u64,
    /// Lane of the record: it must not overtake earlier records of the same lane.
    pub lane: u64,
    /// Whether the lane has format version 1 and cannot be compared with those of newer records:
    /// the record may be of any sender of its tenant.
    pub lane_unspecified: bool,
    /// Version of remote write of the body.
    pub version: Version,
    /// Counts of the batch, if they are known.
    pub counts: Option<Counts>,
    /// Whether the batch was decoded, so that its series are known to be valid.
    pub checked: bool,
    /// Tenant of the record; empty for no tenant.
    pub tenant: Arc<str>,
    /// Length of the body in bytes.
    pub body_length: u32,
}

impl Entry {
    fn tally(&self) -> Tally {
        Tally::of(self.counts, self.body_length)
    }
}

/// Fate of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// All of it was delivered.
    Delivered,
    /// All of it was dropped.
    Dropped(Reason),
    /// All but these samples were delivered.
    Partly {
        /// Number of dropped samples.
        dropped: u64,
        /// Reason of the drop.
        reason: Reason,
    },
}
