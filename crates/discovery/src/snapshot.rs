//! The targets of a provider at one moment, and the changes from one moment to another.

use std::cmp::Ordering;
use std::sync::Arc;

use serde::Serialize;

use super::labels::Target;

/// Completeness of a provider's targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// No source has ever answered.
    Unknown,
    /// Some sources have not answered since the start, and may have had targets before it.
    Partial,
    /// Every source has its last good answer, or never had one.
    Known,
}

/// The targets of a provider at one moment: sorted by their labels, each once.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) targets: Arc<[Target]>,
    /// Changes since the previous snapshot.
    pub(crate) changes: Arc<Changes>,
    pub(crate) version: u64,
    pub(crate) standing: Standing,
    pub(crate) stale: bool,
}

/// Changes from one snapshot to another, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Targets that are new.
    pub added: Vec<Target>,
    /// Targets that have gone.
    pub removed: Vec<Target>,
}

impl Changes {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

impl Snapshot {
    /// The snapshot before any answer.
    pub(crate) fn unknown() -> Self {
        Self {
            targets: Arc::default(),
            changes: Arc::default(),
            version: 0,
            standing: Standing::Unknown,
            stale: true,
        }
    }

    /// The targets, sorted by their labels.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Completeness of the targets.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether some targets are older than the last attempt.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Changes since an earlier snapshot of the same provider. For the previous snapshot this is
    /// free; otherwise it compares a pointer for each target that stayed.
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

/// Changes between two sorted lists of targets.
pub fn difference(old: &[Target], new: &[Target]) -> Changes {
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
