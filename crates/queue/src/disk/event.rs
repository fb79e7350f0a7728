//! Errors and events of a queue on disk.

use std::io;
use std::sync::Arc;

/// Reason why a queue cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the queue open.
    #[error("queue is in use by another process: give each process a data_dir of its own")]
    Locked,
    /// `max_bytes` is below the minimum.
    #[error("max_bytes must be at least {}", super::MIN_BYTES)]
    TooSmall,
    /// A newer version of the program wrote the file.
    #[error(
        "{file} has format version {version}, which this version cannot read: use the one that wrote it"
    )]
    Version {
        /// Name of the file.
        file: String,
        /// Format version of the file.
        version: u32,
    },
    /// The file is intact and belongs to another queue.
    #[error("{file} belongs to another queue or has another name: move it where it came from")]
    Foreign {
        /// Name of the file.
        file: String,
    },
    /// The file system failed. No record has been dropped because of it.
    #[error("cannot {action} {file}: {source}")]
    Io {
        /// Operation that failed.
        action: &'static str,
        /// Name of the file.
        file: String,
        /// Error of the system.
        source: io::Error,
    },
}

/// Reason why an append failed. The record will not be read, unless the process ends before the
/// next append succeeds.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The device is full, even if the queue is not; appends succeed again once there is space.
    #[error("no space left on the device of the queue")]
    NoSpace,
    /// The file system failed.
    #[error("cannot write to the queue: {0}")]
    Io(Arc<io::Error>),
    /// The queue has been closed.
    #[error("queue is closed")]
    Closed,
}

impl From<io::Error> for AppendError {
    fn from(error: io::Error) -> Self {
        match is_full(&error) {
            true => Self::NoSpace,
            false => Self::Io(Arc::new(error)),
        }
    }
}

pub(super) fn is_full(error: &io::Error) -> bool {
    let kind = error.kind();
    kind == io::ErrorKind::StorageFull || kind == io::ErrorKind::QuotaExceeded
}

/// An event that an operator should know of.
#[derive(Debug, thiserror::Error)]
pub enum Event {
    /// A write was incomplete when the process crashed, and was not acknowledged. Damage to the
    /// last records of an unsealed segment looks the same.
    #[error("{file}: cut off {bytes} bytes of an unfinished write")]
    TornTail {
        /// Name of the segment.
        file: String,
        /// Number of bytes that were cut off.
        bytes: u64,
    },
    /// Part of a file differs from what was written.
    #[error("{file}: {bytes} bytes are damaged, the first at {offset}")]
    Damaged {
        /// Name of the file.
        file: String,
        /// Offset of the first damaged byte.
        offset: u64,
        /// Number of damaged bytes.
        bytes: u64,
    },
    /// Records are lost.
    #[error("lost {batches} batches with {samples} counted samples, from record {first} on")]
    Lost {
        /// Sequence of the first lost record.
        first: u64,
        /// Number of lost records.
        batches: u64,
        /// Number of their samples, as far as known.
        samples: u64,
    },
    /// An expected file does not exist.
    #[error("{file} is missing")]
    Missing {
        /// Name of the file.
        file: String,
    },
    /// A file is unknown to the queue. It is left alone.
    #[error("{file} does not belong to this queue")]
    Stray {
        /// Name of the file.
        file: String,
    },
    /// An operation failed. It is retried, or its error is returned to the callers that wait for
    /// it.
    #[error("cannot {action} {file}: {source}")]
    Failed {
        /// Operation that failed.
        action: &'static str,
        /// Name of the file.
        file: String,
        /// Error of the system.
        source: io::Error,
    },
}
