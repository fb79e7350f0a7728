//! The end of a slot that a provider writes to: what came of asking its sources.

use std::any::Any;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use metrifold_base::locked;

use crate::answer::{Failure, Reason};
use crate::labels::{Labels, Target};
use crate::limits::{Limits, OnEmpty};
use crate::meters::seconds;

use super::diff::{Diff, replace};
use super::{Inner, LeftOut, Slot};

/// The most of what is left out that is told one by one.
const MAX_LEFT_OUT: usize = 100;

/// What came of asking one source for its targets.
pub type Answer = (Arc<str>, Result<Vec<Labels>, Failure>);

/// The end of a slot that a provider writes to.
#[derive(Clone, Debug)]
pub struct Feed {
    pub(super) slot: Arc<Slot>,
    pub(super) turn: u64,
}

impl Feed {
    /// How much may be found.
    pub fn limits(&self) -> Limits {
        locked(&self.slot.inner).options.limits
    }

    /// The sources of which answers are known.
    pub fn sources(&self) -> Vec<Arc<str>> {
        locked(&self.slot.inner).groups.keys().cloned().collect()
    }

    /// Waits until somebody wants the provider to ask before its time.
    pub async fn nudged(&self) {
        self.slot.nudge.notified().await;
    }

    /// Shares what the provider knows of its targets besides their labels, until another provider takes
    /// its place.
    pub fn share(&self, beside: Arc<dyn Any + Send + Sync>) {
        if locked(&self.slot.inner).turn == self.turn {
            *locked(&self.slot.beside) = Some(beside);
        }
    }

    /// How many targets are known of a source.
    pub fn known(&self, source: &str) -> usize {
        let inner = locked(&self.slot.inner);
        inner.groups.get(source).map_or(0, |targets| targets.len())
    }

    /// How many targets are known of all sources.
    pub fn count(&self) -> usize {
        locked(&self.slot.inner).targets.len()
    }

    /// Tells what was found at this attempt and is no target.
    pub fn leave_out(&self, mut left_out: Vec<LeftOut>) {
        let mut inner = locked(&self.slot.inner);
        if inner.turn == self.turn {
            let count = left_out.len();
            left_out.truncate(MAX_LEFT_OUT);
            inner.left_out = (left_out, count);
        }
    }

    /// Tells what came of asking all sources that there are. Others that were known are gone.
    /// Sorting and comparing takes a while for many targets: not on a worker thread.
    pub fn all(&self, answers: Vec<Answer>) {
        self.tell(answers, Gone::Others);
    }

    /// Tells what came of asking some sources. The others are as they were.
    pub fn some(&self, answers: Vec<Answer>) {
        self.tell(answers, Gone::These(Vec::new()));
    }

    /// Tells that these sources are there no more. The others are as they were.
    pub fn without(&self, sources: Vec<Arc<str>>) {
        self.change(Vec::new(), sources);
    }

    /// Tells what has become of some sources, and which others are there no more. What is neither is as
    /// it was.
    pub fn change(&self, answers: Vec<Answer>, gone: Vec<Arc<str>>) {
        self.tell(answers, Gone::These(gone));
    }

    /// Tells that all sources say the same as before.
    pub fn same(&self) {
        let slot = &self.slot;
        let mut inner = locked(&slot.inner);
        if inner.turn == self.turn {
            inner.failed.clear();
            self.settle(&mut inner, None);
        }
    }

    /// Whether no source has failed at the last attempt.
    pub fn is_content(&self) -> bool {
        locked(&self.slot.inner).failed.is_empty()
    }

    fn tell(&self, answers: Vec<Answer>, gone: Gone) {
        let slot = &self.slot;
        // Sorted before anybody has to wait for the lock.
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
        // Answers of another question go when this one has been answered as a whole.
        let keeps = match gone {
            Gone::Others => inner.inherited && !whole,
            Gone::These(_) => false,
        };
        let gone: HashSet<Arc<str>> = match gone {
            Gone::These(gone) => gone.into_iter().collect(),
            Gone::Others => {
                let known = inner.groups.keys().chain(inner.failed.keys());
                let gone = known.filter(|source| !answered.contains(*source));
                gone.cloned().collect()
            }
        };
        let known = |source: &Arc<str>| inner.groups.get(source).map_or(0, |it| it.len());
        let replaced: usize = good.iter().map(|(_, targets)| targets.len()).sum();
        let replaces: HashSet<&Arc<str>> =
            good.iter().map(|(source, _)| source).chain(&gone).collect();
        let before: usize = replaces.into_iter().map(known).sum();
        // Counted without a walk over all sources: there may be many, and a change of one.
        let others = inner.count.saturating_sub(before);
        if let Err(failure) = inner.options.limits.check_count(replaced + others) {
            for (source, _) in &good {
                slot.complain(&mut inner, source, failure.clone());
            }
            good.clear();
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

    /// Ends an attempt.
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

    /// Keeps on disk what is known, until the future is dropped.
    pub(crate) async fn keep(&self) {
        self.slot.clone().keep().await;
        std::future::pending::<()>().await;
    }
}

/// Which sources are there no more.
enum Gone {
    /// All that have not been asked.
    Others,
    These(Vec<Arc<str>>),
}

/// Takes the answer of a source, or says why not.
fn judge(inner: &Inner, source: &Arc<str>, targets: Vec<Target>) -> Result<Vec<Target>, Failure> {
    inner.options.limits.check(&targets)?;
    let known = inner.groups.get(source).map_or(0, |known| known.len());
    if targets.is_empty() && known > 0 && inner.options.on_empty == OnEmpty::Keep {
        let text = format!("the answer has no target, and the one before had {known}: they stay");
        return Err(Failure::new(Reason::Empty, text));
    }
    Ok(targets)
}
