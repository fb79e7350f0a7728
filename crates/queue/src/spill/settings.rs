//! Settings of a queue on disk.

use std::time::Duration;

use crate::QueueConfig;

/// The settings that a reload can change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// Whether new batches may be stored. If not, the records on disk are delivered and no more
    /// follow.
    pub(super) keeps: bool,
    pub(super) store_after: Duration,
    pub(super) max_age: Option<Duration>,
    pub(super) memory_bytes: usize,
}

impl Settings {
    pub(super) fn new(config: QueueConfig) -> Self {
        Self {
            keeps: config.is_disk(),
            store_after: config.store_after(),
            max_age: config
                .is_disk()
                .then(|| config.disk(true).max_age)
                .flatten(),
            memory_bytes: config.memory_bytes().bytes(),
        }
    }
}
