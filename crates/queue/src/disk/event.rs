//! What goes wrong, and who hears of it.

use std::io;
use std::sync::Arc;

/// Why a queue cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody else has it open.
    #[error("queue is in use by another process: give each process a data_dir of its own")]
    Locked,
    /// Less than the least.
    #[error("max_bytes must be at least {}", super::MIN_BYTES)]
    TooSmall,
    /// A later program wrote it.
    #[error(
        "{file} has format version {version}, which this version cannot read: use the one that wrote it"
    )]
    Version {
        /// The file.
        file: String,
        /// Its version.
        version: u32,
    },
    /// A whole file that is not of this queue.
    #[error("{file} belongs to another queue or has another name: move it where it came from")]
    Foreign {
        /// The file.
        file: String,
    },
    /// The file system refused. Nothing has been given up for it.
    #[error("cannot {action} {file}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        file: String,
        /// What the system says.
        source: io::Error,
    },
}

/// Why an append failed. Nothing of it will be read, unless the process ends before the next
/// append succeeds.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The disk is full, whatever the queue may take: works again once there is space.
    #[error("no space left on the device of the queue")]
    NoSpace,
    /// The file system refused.
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

/// What an operator should hear of.
#[derive(Debug, thiserror::Error)]
pub enum Event {
    /// The last write before a crash was not finished, and not acknowledged. Damage to the last
    /// records of a segment without a seal looks the same.
    #[error("{file}: cut off {bytes} bytes of an unfinished write")]
    TornTail {
        /// The segment.
        file: String,
        /// What was cut off.
        bytes: u64,
    },
    /// Part of a file does not say what was written.
    #[error("{file}: {bytes} bytes are damaged, the first at {offset}")]
    Damaged {
        /// The file.
        file: String,
        /// Where it begins.
        offset: u64,
        /// How much of it there is.
        bytes: u64,
    },
    /// Records are gone.
    #[error("lost {batches} batches with {samples} samples that are known of, from {first} on")]
    Lost {
        /// The sequence of the first.
        first: u64,
        /// How many.
        batches: u64,
        /// The samples that are known to have been in them.
        samples: u64,
    },
    /// A file that should be there is not.
    #[error("{file} is missing")]
    Missing {
        /// The file.
        file: String,
    },
    /// A file that the queue knows nothing of. It is left alone.
    #[error("{file} is not of this queue")]
    Stray {
        /// The file.
        file: String,
    },
    /// An operation failed. It is tried again, or those that wait for it hear of it.
    #[error("cannot {action} {file}: {source}")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// The file.
        file: String,
        /// What the system says.
        source: io::Error,
    },
}
