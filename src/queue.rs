//! The bounded queue in front of every sink.

pub mod disk;
mod memory;

use serde::Deserialize;

use crate::config::{Problems, Size};

pub(crate) use memory::{Held, Lane, Pushed, Queue};

/// `queue = { max_bytes = "64MiB", when_full = "block" }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueConfig {
    /// Where it lives; `memory` is all there is yet.
    #[serde(default, rename = "type")]
    pub kind: QueueKind,
    /// The bytes that it holds at most; a single larger batch passes when it is empty.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: Size,
    /// What to do with a batch that does not fit. By default a required sink blocks and an
    /// optional one drops its oldest.
    #[serde(default)]
    pub when_full: Option<WhenFull>,
}

fn default_max_bytes() -> Size {
    Size::mib(64)
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            kind: QueueKind::default(),
            max_bytes: default_max_bytes(),
            when_full: None,
        }
    }
}

/// Where a queue lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueKind {
    /// In memory.
    #[default]
    Memory,
}

/// What to do with a batch that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// The sender waits.
    Block,
    /// The oldest batches that are not being sent make room.
    DropOldest,
    /// The batch itself is dropped.
    DropNewest,
}

impl QueueConfig {
    /// What happens when the queue of such a sink is full.
    pub fn when_full(&self, required: bool) -> WhenFull {
        self.when_full.unwrap_or(if required {
            WhenFull::Block
        } else {
            WhenFull::DropOldest
        })
    }

    /// Reports what cannot be.
    pub fn validate(&self, required: bool, problems: &mut Problems) {
        if self.max_bytes < Size::kib(64) {
            problems.at("queue.max_bytes", "must be at least 64KiB");
        }
        if self.when_full == Some(WhenFull::Block) && !required {
            problems
                .at(
                    "queue.when_full",
                    "an optional sink cannot block its sender",
                )
                .help("choose drop_oldest or drop_newest, or set required = true");
        }
    }
}
