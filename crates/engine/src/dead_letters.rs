//! Dead letters: batches that an endpoint has refused for good, kept on disk for inspection.
//!
//! Each sink has a folder under `data_dir/dead-letters/`, and each letter is a file in it. A
//! delivery hands its letters to a thread and never waits for the disk: when the thread cannot
//! keep up, a letter is dropped and counted. Bounds: the bytes on disk and the age of a sink's
//! letters, and the bytes that wait for the thread.

mod folder;
mod letter;
mod listing;
mod store;
mod stores;

use metrifold_base::{Period, Problems, Size, keys};

pub use folder::Bounds;
pub use letter::{Damaged, Letter};
pub use listing::{Entry, Filter, Listing, Series};
pub use store::{Resent, Store};
pub use stores::Stores;

keys! {
    /// `dead_letters = { max_bytes = "64MiB", max_age = "7d" }`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DeadLettersConfig {
        /// Maximum disk space for dead letters, at least 64KiB; each letter takes at least 4KiB. When it is full, the oldest letters are removed. With `0B`, or without `data_dir`, nothing is stored.
        max_bytes: Size = default("64MiB"),
        /// Age at which a dead letter is removed.
        max_age: Period = default("7d"),
    }
}

impl DeadLettersConfig {
    /// Limits on the folder of a sink's letters.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            bytes: self.max_bytes.0,
            age: self.max_age.0,
        }
    }

    /// Reports bounds that are too small for a letter.
    pub fn validate(&self, problems: &mut Problems) {
        if self.max_bytes.0 > 0 && self.max_bytes < Size::kib(64) {
            problems
                .at("dead_letters.max_bytes", "must be at least 64KiB")
                .help("0B keeps none");
        }
        if self.max_age.0.is_zero() {
            problems.at("dead_letters.max_age", "must be longer than 0s");
        }
    }
}

#[cfg(test)]
mod tests;
