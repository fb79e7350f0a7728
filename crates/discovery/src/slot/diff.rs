//! Changes of the targets when a source answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::labels::Target;
use crate::snapshot::Changes;

use super::Inner;

/// Targets that were added (true) or removed.
#[derive(Default)]
pub(super) struct Diff(pub(super) BTreeMap<Target, bool>);

impl Diff {
    fn note(&mut self, target: &Target, came: bool) {
        // A target that was removed and added again is unchanged.
        if self.0.get(target) == Some(&!came) {
            self.0.remove(target);
        } else {
            self.0.insert(target.clone(), came);
        }
    }

    pub(super) fn into_changes(self) -> Changes {
        let mut changes = Changes::default();
        for (target, came) in self.0 {
            match came {
                true => changes.added.push(target),
                false => changes.removed.push(target),
            }
        }
        changes
    }
}

/// Replaces the targets of a source with sorted, unique ones. A target that stays keeps its
/// allocation.
pub(super) fn replace(
    inner: &mut Inner,
    source: &Arc<str>,
    mut targets: Vec<Target>,
    diff: &mut Diff,
) {
    let old = inner.groups.get(source).cloned().unwrap_or_default();
    let mut was = old.iter().peekable();
    for target in &mut targets {
        while let Some(gone) = was.next_if(|was| **was < *target) {
            leave(&mut inner.targets, gone, diff);
        }
        match was.next_if(|was| **was == *target) {
            Some(same) => *target = Arc::clone(same),
            None => enter(&mut inner.targets, target, diff),
        }
    }
    for gone in was {
        leave(&mut inner.targets, gone, diff);
    }
    inner.count = inner.count + targets.len() - old.len();
    inner.groups.insert(Arc::clone(source), targets.into());
}

fn enter(targets: &mut BTreeMap<Target, u32>, target: &mut Target, diff: &mut Diff) {
    let known = targets
        .get_key_value(target)
        .map(|(known, _)| known.clone());
    if let Some(known) = known {
        *target = known;
    } else {
        diff.note(target, true);
    }
    *targets.entry(Arc::clone(target)).or_default() += 1;
}

fn leave(targets: &mut BTreeMap<Target, u32>, target: &Target, diff: &mut Diff) {
    if let Some(count) = targets.get_mut(target) {
        *count -= 1;
        if *count == 0 {
            targets.remove(target);
            diff.note(target, false);
        }
    }
}
