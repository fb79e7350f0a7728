//! The sender of a slot: a provider reports the answers of its sources to it.

use std::any::Any;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use tracing::warn;

use metrifold_base::locked;

use crate::answer::{Failure, Reason};
use crate::labels::{Labels, Target};
use crate::limits::{Limits, OnEmpty};
use crate::meters::seconds;

use super::diff::{Diff, replace};
use super::{Inner, LeftOut, Slot, Trouble};

/// The most entries of the left-out list that are kept.
const MAX_LEFT_OUT: usize = 100;

/// A source's name, and its targets or the failure.
pub type Answer = (Arc<str>, Result<Vec<Labels>, Failure>);

/// Sender of a provider's answers to its slot.
#[derive(Clone, Debug)]
pub struct Feed {
    pub(super) slot: Arc<Slot>,
    pub(super) turn: u64,
}

impl Feed {
    /// Limits on what the provider may find.
    pub fn limits(&self) -> Limits {
        locked(&self.slot.inner).options.limits
    }

    /// Names of the sources that have an answer.
    pub fn sources(&self) -> Vec<Arc<str>> {
        locked(&self.slot.inner).groups.keys().cloned().collect()
    }

    /// Waits for a request to refresh early.
    pub async fn nudged(&self) {
        self.slot.nudge.notified().await;
    }

    /// Shares facts about the targets besides their labels. Ignored once another provider has taken
    /// over.
    pub fn share(&self, beside: Arc<dyn Any + Send + Sync>) {
        if locked(&self.slot.inner).turn == self.turn {
            *locked(&self.slot.beside) = Some(beside);
        }
    }

    /// Targets in the last good answer of a source.
    pub fn known(&self, source: &str) -> Arc<[Target]> {
        let inner = locked(&self.slot.inner);
        inner.groups.get(source).cloned().unwrap_or_default()
    }

    /// Number of targets of all sources.
    pub fn count(&self) -> usize {
        locked(&self.slot.inner).targets.len()
    }

    /// Reports things found at this attempt that are not targets.
    pub fn leave_out(&self, mut left_out: Vec<LeftOut>) {
        let mut inner = locked(&self.slot.inner);
        if inner.turn == self.turn {
            let count = left_out.len();
            left_out.truncate(MAX_LEFT_OUT);
            inner.left_out = (left_out, count);
        }
    }

    /// Reports a failure of something that answers can do without, such as the details of an object:
    /// it is logged, counted and shown as the last error, and leaves the attempt a success.
    pub fn part_failed(&self, source: &str, failure: Failure) {
        let slot = &self.slot;
        let mut inner = locked(&slot.inner);
        if inner.turn == self.turn {
            slot.meters().failed(failure.reason);
            let known = inner.trouble.as_ref();
            if known.is_none_or(|it| (&*it.source, &it.text) != (source, &failure.text)) {
                let reason = failure.reason.as_str();
                warn!(discovery = %slot.name, source, reason, error = %failure, "a part of what was discovered cannot be read");
            }
            inner.trouble = Some(Trouble {
                time: SystemTime::now(),
                reason: failure.reason,
                source: source.into(),
                text: failure.text,
            });
        }
    }

    /// Reports an attempt that asked all sources. Sources without an answer here are removed. Sorts
    /// and compares all targets: not for a worker thread.
    pub fn all(&self, answers: Vec<Answer>) {
        self.tell(answers, Gone::Others);
    }

    /// Reports the answers of some sources. The others stay as they are.
    pub fn some(&self, answers: Vec<Answer>) {
        self.tell(answers, Gone::These(Vec::new()));
    }

    /// Removes sources. The others stay as they are.
    pub fn without(&self, sources: Vec<Arc<str>>) {
        self.change(Vec::new(), sources);
    }

    /// Reports the answers of some sources and removes others. Sources in neither list stay as they
    /// are.
    pub fn change(&self, answers: Vec<Answer>, gone: Vec<Arc<str>>) {
        self.tell(answers, Gone::These(gone));
    }

    /// Reports an attempt in which no source has changed.
    pub fn same(&self) {
        let slot = &self.slot;
        let mut inner = locked(&slot.inner);
        if inner.turn == self.turn {
            inner.failed.clear();
            self.settle(&mut inner, None);
        }
    }

    /// Whether the last attempt of every source succeeded.
    pub fn is_content(&self) -> bool {
        locked(&self.slot.inner).failed.is_empty()
    }

    fn tell(&self, answers: Vec<Answer>, gone: Gone) {
        let slot = &self.slot;
        // Sorted before the lock is taken.
        let sorted = answers.into_iter().map(|(source, answer)| {
            let targets = answer.map(|targets| {
                let mut targets: Vec<Target> = targets.into_iter().map(Arc::new).collect();
                targets.sort_unstable();
                targets.dedup();
                targets
            });
            (source, targets)
        });
        let answers: Vec<_> = sorted.collect();
        let mut inner = locked(&slot.inner);
        if inner.turn != self.turn {
            return;
        }
        let mut diff = Diff::default();
        let mut answered = HashSet::new();
        let mut good = Vec::new();
        let mut whole = true;
        for (source, answer) in answers {
            answered.insert(source.clone());
            match answer.and_then(|targets| judge(&inner, &source, targets)) {
                Ok(targets) => good.push((source, targets)),
                Err(failure) => {
                    whole = false;
                    slot.complain(&mut inner, &source, failure);
                }
            }
        }
        let others = matches!(gone, Gone::Others);
        let gone: HashSet<Arc<str>> = match gone {
            Gone::These(gone) => gone.into_iter().collect(),
            Gone::Others => {
                let known = inner.groups.keys().chain(inner.failed.keys());
                let gone = known.filter(|source| !answered.contains(*source));
                gone.cloned().collect()
            }
        };
        // Answers to another question stay until this one has been answered as a whole.
        let mut keeps = others && inner.inherited && !whole;
        let leaves = gone.iter().filter(|_| !keeps);
        let known = |source: &Arc<str>| inner.groups.get(source).map_or(0, |it| it.len());
        let replaced: usize = good.iter().map(|(_, targets)| targets.len()).sum();
        let replaces: HashSet<&Arc<str>> = good
            .iter()
            .map(|(source, _)| source)
            .chain(leaves)
            .collect();
        let before: usize = replaces.into_iter().map(known).sum();
        // Counted without a walk over all sources: there may be many, and only one changes.
        let stay = inner.count.saturating_sub(before);
        if let Err(failure) = inner.options.limits.check_count(replaced + stay) {
            for (source, _) in &good {
                slot.complain(&mut inner, source, failure.clone());
            }
            good.clear();
            // An answer with too many targets changes nothing: those that it lacks stay as well.
            keeps |= others;
        }
        for (source, targets) in good {
            inner.failed.remove(&source);
            replace(&mut inner, &source, targets, &mut diff);
        }
        for source in gone.into_iter().filter(|_| !keeps) {
            inner.failed.remove(&source);
            replace(&mut inner, &source, Vec::new(), &mut diff);
            inner.groups.remove(&source);
        }
        self.settle(&mut inner, Some(diff));
    }

    /// Ends an attempt: updates times and meters, and publishes the snapshot.
    fn settle(&self, inner: &mut Inner, diff: Option<Diff>) {
        let slot = &self.slot;
        let now = SystemTime::now();
        inner.attempted = Some(now);
        let meters = slot.meters();
        meters.attempts.increment(1);
        if inner.failed.is_empty() {
            inner.answered = Some(now);
            inner.inherited = false;
            inner.remembers = true;
        }
        if let Some(answered) = inner.answered {
            meters.answered.set(seconds(answered));
        }
        slot.publish(inner, diff);
        slot.attempts.send_modify(|attempts| *attempts += 1);
    }

    /// Keeps the targets on disk until the future is dropped.
    pub(crate) async fn keep(&self) {
        self.slot.clone().keep().await;
        std::future::pending::<()>().await;
    }
}

/// Sources that a report removes.
enum Gone {
    /// All sources without an answer in this report.
    Others,
    These(Vec<Arc<str>>),
}

/// Checks the answer of a source against the limits and `on_empty`.
fn judge(inner: &Inner, source: &Arc<str>, targets: Vec<Target>) -> Result<Vec<Target>, Failure> {
    inner.options.limits.check(&targets)?;
    let known = inner.groups.get(source).map_or(0, |known| known.len());
    if targets.is_empty() && known > 0 && inner.options.on_empty == OnEmpty::Keep {
        let text =
            format!("the answer has no targets: keeping the {known} targets of the previous one");
        return Err(Failure::new(Reason::Empty, text));
    }
    Ok(targets)
}
