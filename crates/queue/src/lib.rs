//! The bounded queue in front of every sink: in memory, optionally with a log on disk behind it, and the spill between
//! both. `memory` knows items and lanes, `disk` records and bytes; only `spill` knows batches. None of them knows a
//! sink or a transport.
#![warn(unreachable_pub)]
// Tests may do all of this.
#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::expect_used,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::unwrap_used,
    )
)]

mod accounts;
mod clock;
pub mod disk;
mod holdings;
mod item;
mod lane;
mod memory;
mod spill;

use std::time::Duration;

use metrifold_base::{Period, Problems, Size, keys, words};

pub use accounts::Accounts;
pub use clock::{age, now_millis};
pub use holdings::{Holdings, InFlight, InFlightMark};
pub use item::{Incoming, Progress, Queued, Tracked, tally};
pub use lane::{Lane, OrderedBy};
pub use memory::{Held, Pushed, Queue, RunBound};
pub use spill::{LONGEST_RETRY, LOOK_AGAIN, Spill, Taken};

keys! {
    /// `queue = { type = "disk", max_bytes = "4GiB" }`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct QueueConfig {
        /// Type of the queue: `memory` or `disk`. A disk queue, under `data_dir`, stores batches that cannot be delivered at once, and survives crashes.
        #[name = "type"]
        pub kind: QueueKind = default("memory"),
        /// Maximum size of the queue. In memory (default 64MiB, at least 64KiB), requests in flight are included; on disk (default 1GiB, at least 256KiB), it covers all files.
        max_bytes: Option<Size> = unset("4GiB"),
        /// Behaviour when a batch does not fit: `block` makes the sender wait (default of required sinks, not allowed for optional ones), `drop_oldest` evicts the oldest batches (default of optional sinks), `drop_newest` drops the batch itself.
        when_full: Option<WhenFull> = unset("drop_oldest"),
        /// Maximum size of the memory buffer in front of a disk queue, at least 64KiB; 16MiB by default.
        memory_bytes: Option<Size> = unset("16MiB"),
        /// Time after which an undelivered batch is written to the disk queue, at most 10s; 100ms by default. While the endpoint is failing, batches are written at once.
        store_after: Option<Period> = unset("100ms"),
        /// Age at which a batch in a disk queue is dropped, instead of `retry.max_age`; 7d by default.
        max_age: Option<Period> = unset("7d"),
        /// When a batch counts as stored: `batch` (after fsync; the default) or `interval` (after the write; a power failure can lose the batches of the last `sync_interval`).
        sync: Option<SyncMode> = unset("batch"),
        /// Interval between fsyncs with `sync = "interval"`, from 10ms to 60s; 1s by default.
        sync_interval: Option<Period> = unset("1s"),
    }
}

words! {
    /// Where batches are queued.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum QueueKind {
        /// In memory.
        #[default]
        Memory = "memory",
        /// In memory, and on disk as soon as the sink does not keep up.
        Disk = "disk",
    }
}

words! {
    /// When a batch on disk counts as stored.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum SyncMode {
        /// After fsync.
        Batch = "batch",
        /// After the write; fsync follows at an interval.
        Interval = "interval",
    }
}

words! {
    /// Policy for a batch that does not fit.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum WhenFull {
        /// The sender waits.
        Block = "block",
        /// The oldest batches that are not in flight are evicted.
        DropOldest = "drop_oldest",
        /// The batch itself is dropped.
        DropNewest = "drop_newest",
    }
}

const MEMORY_MAX_BYTES: Size = Size::mib(64);
const DISK_MAX_BYTES: Size = Size::mib(1024);
const MEMORY_BYTES: Size = Size::mib(16);
const STORE_AFTER: Period = Period::millis(100);
/// Default age at which batches on disk are dropped: an endpoint that refuses one tenant for ever must not fill the
/// queue of all.
const MAX_AGE: Period = Period::secs(7 * 24 * 3600);

const SYNC_INTERVAL: Period = Period::secs(1);

impl QueueConfig {
    /// Whether the queue has a log on disk.
    pub fn is_disk(&self) -> bool {
        self.kind == QueueKind::Disk
    }

    /// The most bytes of the queue, in memory or on disk.
    pub fn max_bytes(&self) -> Size {
        self.max_bytes.unwrap_or(match self.kind {
            QueueKind::Memory => MEMORY_MAX_BYTES,
            QueueKind::Disk => DISK_MAX_BYTES,
        })
    }

    /// The most bytes of the queue in memory.
    pub fn memory_bytes(&self) -> Size {
        match self.kind {
            QueueKind::Memory => self.max_bytes(),
            QueueKind::Disk => self.memory_bytes.unwrap_or(MEMORY_BYTES),
        }
    }

    /// Time after which a batch that is not delivered is stored on disk.
    pub fn store_after(&self) -> Duration {
        self.store_after.unwrap_or(STORE_AFTER).0
    }

    /// The policy for a full queue of a required or an optional sink.
    pub fn when_full(&self, required: bool) -> WhenFull {
        self.when_full.unwrap_or(if required {
            WhenFull::Block
        } else {
            WhenFull::DropOldest
        })
    }

    /// The settings of the queue on disk.
    pub fn disk(&self, required: bool) -> disk::Options {
        let interval = self.sync_interval.unwrap_or(SYNC_INTERVAL);
        disk::Options {
            max_bytes: self.max_bytes().0,
            max_age: Some(self.max_age.unwrap_or(MAX_AGE).0),
            drop_oldest: self.when_full(required) == WhenFull::DropOldest,
            sync: match self.sync {
                Some(SyncMode::Interval) => disk::SyncPolicy::Interval(interval.0),
                _ => disk::SyncPolicy::Batch,
            },
        }
    }

    /// The settings of a queue on disk with files of `bytes` that an earlier process has left to a
    /// sink whose queue is in memory now: newer batches pass through it until it is empty, so it has
    /// the room of the queue in memory beside what it holds.
    pub fn leftover(&self, bytes: u64) -> disk::Options {
        disk::Options {
            max_bytes: bytes + self.max_bytes().0.max(disk::MIN_BYTES),
            max_age: Some(MAX_AGE.0),
            drop_oldest: false,
            sync: disk::SyncPolicy::Batch,
        }
    }

    /// Reports values that are out of bounds or do not fit together.
    pub fn validate(&self, required: bool, problems: &mut Problems) {
        let least = match self.kind {
            QueueKind::Memory => Size::kib(64),
            QueueKind::Disk => Size(disk::MIN_BYTES),
        };
        if self.max_bytes() < least {
            problems.at("queue.max_bytes", format!("must be at least {least}"));
        }
        if self.when_full == Some(WhenFull::Block) && !required {
            problems
                .at(
                    "queue.when_full",
                    "an optional sink cannot block its sender",
                )
                .help("choose drop_oldest or drop_newest, or set required = true");
        }
        if !self.is_disk() {
            for (key, given) in [
                ("queue.memory_bytes", self.memory_bytes.is_some()),
                ("queue.store_after", self.store_after.is_some()),
                ("queue.max_age", self.max_age.is_some()),
                ("queue.sync", self.sync.is_some()),
                ("queue.sync_interval", self.sync_interval.is_some()),
            ] {
                if given {
                    problems
                        .at(key, "is a key of queues on disk")
                        .help("set queue.type = \"disk\", or remove the key");
                }
            }
            return;
        }
        if self.memory_bytes() < Size::kib(64) {
            problems.at("queue.memory_bytes", "must be at least 64KiB");
        }
        if self.store_after() > Duration::from_secs(10) {
            problems.at("queue.store_after", "must be at most 10s");
        }
        if self.max_age.is_some_and(|age| age.0.is_zero()) {
            problems.at("queue.max_age", "must be longer than 0s");
        }
        if self.sync_interval.is_some() && self.sync != Some(SyncMode::Interval) {
            problems
                .at(
                    "queue.sync_interval",
                    "has no effect without sync = \"interval\"",
                )
                .help("set queue.sync = \"interval\", or remove the key");
        }
        let bounds = Duration::from_millis(10)..=Duration::from_secs(60);
        if self.sync_interval.is_some_and(|it| !bounds.contains(&it.0)) {
            problems.at("queue.sync_interval", "must be from 10ms to 60s");
        }
    }
}
