//! What a provider knows at one moment, and what changes from one moment to another.

use std::cmp::Ordering;
use std::sync::Arc;

use serde::Serialize;

use super::labels::Target;

/// How much is known of a provider's sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// None of them has ever answered.
    Unknown,
    /// Some of them have not answered, and may have had targets before: nobody knows.
    Partial,
    /// Each has its last good answer, or never had one.
    Known,
}

/// The targets of a provider at one moment: sorted by their labels, each once.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) targets: Arc<[Target]>,
    /// The targets that came and went since the snapshot before.
    pub(crate) changes: Arc<Changes>,
    pub(crate) version: u64,
    pub(crate) standing: Standing,
    pub(crate) stale: bool,
}

/// What changes from one snapshot to another, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Targets that were not there before.
    pub added: Vec<Target>,
    /// Targets that are there no more.
    pub removed: Vec<Target>,
}

impl Changes {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

impl Snapshot {
    /// Nothing, of which nothing is known.
    pub(crate) fn unknown() -> Self {
        Self {
            targets: Arc::default(),
            changes: Arc::default(),
            version: 0,
            standing: Standing::Unknown,
            stale: true,
        }
    }

    /// The targets.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// How much is known of the provider's sources.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether some of it is older than the last attempt to learn it.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// What differs from an earlier snapshot of the same provider. That costs nothing from one to
    /// the next, and otherwise a comparison of pointers for each target that stayed.
    pub fn changes_since(&self, older: &Self) -> Arc<Changes> {
        if Arc::ptr_eq(&self.targets, &older.targets) {
            return Arc::default();
        }
        if self.version == older.version + 1 {
            return Arc::clone(&self.changes);
        }
        Arc::new(difference(&older.targets, &self.targets))
    }
}

/// What differs between two sorted lists.
pub(crate) fn difference(old: &[Target], new: &[Target]) -> Changes {
    let mut changes = Changes::default();
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (Some(was), Some(is)) if Arc::ptr_eq(was, is) => Ordering::Equal,
            (Some(was), Some(is)) => was.cmp(is),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return changes,
        };
        if order.is_le() {
            let was = old.next();
            changes
                .removed
                .extend(was.filter(|_| order.is_lt()).cloned());
        }
        if order.is_ge() {
            let is = new.next();
            changes.added.extend(is.filter(|_| order.is_gt()).cloned());
        }
    }
}
