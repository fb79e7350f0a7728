//! Makes one request of several small batches, when they wait one behind the other.
//!
//! Only bodies of remote write 1.0 are merged: one after the other they are a message with all
//! their series (Protocol Buffers, "Encoding", on merging repeated fields), and so are their
//! compressed forms but for the length in front. They are of one lane, so all of one tenant.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use metrifold_codec::snappy;
use metrifold_engine::planes::metrics::{Delivery, Input, Run};
use metrifold_model::ledger::Reason;
use metrifold_model::{Outcome, Version};

use super::Shared;
use crate::pace::Permit;
use crate::stuck::Control;
use crate::transport::{Answer, Attempt, RefusalClass, Transport};

/// How long an endpoint is spared a request of twice the size that it takes.
const SPARED: Duration = Duration::from_secs(300);

/// The most bytes, before compression, of a request that is made of several batches.
#[derive(Debug)]
pub(super) struct MergeBound {
    configured: usize,
    /// What the endpoint has shown that it takes, and when.
    learnt: Mutex<Option<(usize, Instant)>>,
}

impl MergeBound {
    pub(super) fn new(configured: usize) -> Self {
        Self {
            configured,
            learnt: Mutex::default(),
        }
    }

    /// The bound at this moment: after a while, twice as much is tried again.
    pub(super) fn bytes(&self) -> usize {
        let mut learnt = self.learnt();
        if let Some((most, since)) = *learnt
            && since.elapsed() >= SPARED
        {
            let more = (most * 2).max(1);
            *learnt = (more < self.configured).then(|| (more, Instant::now()));
        }
        learnt.map_or(self.configured, |(most, _)| most)
    }

    /// The endpoint answered that a request of `bytes` is too large.
    fn refused(&self, bytes: usize) {
        *self.learnt() = Some((bytes / 2, Instant::now()));
    }

    fn learnt(&self) -> std::sync::MutexGuard<'_, Option<(usize, Instant)>> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Several deliveries as one request.
struct Joined {
    deliveries: usize,
    /// Before compression.
    bytes: usize,
    body: Vec<Bytes>,
}

impl<T: Transport> Shared<T> {
    /// Sees deliveries to their ends, in order, until one is left for later.
    pub(super) async fn deliver_run(&self, mut run: Run, permit: &Permit<'_>, input: &Input) {
        self.probe_version(input);
        // How many of the next deliveries go out each in a request of its own, and whether they are
        // searched if the endpoint fails on them.
        let mut singly = 0;
        let mut searches = false;
        while !input.superseded() {
            if singly == 0
                && let Some(joined) = self.merge(&mut run)
            {
                let count = joined.deliveries;
                match self.deliver_merged(&mut run, joined, permit).await {
                    Merged::Over => continue,
                    Merged::Refused => (singly, searches) = (count, false),
                    Merged::Stuck => (singly, searches) = (count, true),
                    Merged::Later => return,
                }
            }
            let Some(delivery) = run.take_first() else {
                return;
            };
            if let Some((left, trouble)) = self
                .deliver(delivery, searches && singly > 0, permit, input)
                .await
            {
                // Those behind it go back first: once it is there, what fails may leave memory.
                drop(run);
                if let Some(trouble) = trouble {
                    left.retry(trouble);
                }
                return;
            }
            singly = singly.saturating_sub(1);
        }
    }

    /// As many of the next deliveries as go into one request, if these are several.
    fn merge(&self, run: &mut Run) -> Option<Joined> {
        if run.len() < 2 {
            return None;
        }
        let most = self.merge_bound.bytes();
        let max_age = self.terms.retry.max_age;
        let mut bodies = Vec::new();
        let mut bytes = 0;
        for delivery in run.iter_mut() {
            let v1 = delivery.batch.version() == Version::V1
                && self.versions.choose(Version::V1) == Version::V1;
            if !v1 || delivery.abandoned() || delivery.expired(max_age) {
                break;
            }
            let Ok(body) = delivery.batch.body(Version::V1) else {
                break;
            };
            let Ok(len) = snappy::declared_len(&body, most) else {
                break;
            };
            if bytes + len > most {
                break;
            }
            bytes += len;
            bodies.push(body);
        }
        if bodies.len() < 2 {
            return None;
        }
        Some(Joined {
            deliveries: bodies.len(),
            bytes,
            body: snappy::join(&bodies)?,
        })
    }

    async fn deliver_merged(&self, run: &mut Run, joined: Joined, permit: &Permit<'_>) -> Merged {
        let Some(first) = run.first() else {
            return Merged::Over;
        };
        let (tenant, lane) = (first.batch.tenant().cloned(), first.lane());
        let tenant = tenant.as_ref();
        let attempt = Attempt {
            version: Version::V1,
            tenant,
            counts: None,
            body: joined.body,
            failures: first.attempts(),
        };
        let control = Control::of(&attempt);
        let answer = self.send(attempt, permit).await;
        if let Ok(Answer::Stored | Answer::Partly(..)) = answer {
            self.stuck.went_through(tenant, lane, control);
        }
        let outcome = match answer {
            Ok(Answer::Stored) => Outcome::Delivered,
            Ok(Answer::Partly(reason, _)) => {
                self.note_partial(None, &reason);
                Outcome::rejected(reason)
            }
            Ok(Answer::Refused(refusal)) if refusal.is_of_size() => {
                self.merge_bound.refused(joined.bytes);
                return Merged::Over;
            }
            Ok(Answer::Refused(refusal)) if refusal.class == RefusalClass::Whole => {
                for mut delivery in first_of(run, joined.deliveries) {
                    let outcome = self.give_up(&mut delivery, refusal.loss(), refusal.clone());
                    delivery.finish(outcome);
                }
                return Merged::Over;
            }
            Ok(Answer::Unwanted(reason, text)) => {
                for mut delivery in first_of(run, joined.deliveries) {
                    let outcome = self.give_up_unwanted(&mut delivery, reason, text.clone());
                    delivery.finish(outcome);
                }
                return Merged::Over;
            }
            Ok(_) => return Merged::Refused,
            Err(failed) if failed.server_error && self.stuck.failed(tenant, lane) => {
                return Merged::Stuck;
            }
            Err(failed) => {
                if let Some(first) = run.leave_first() {
                    first.retry(failed.trouble);
                }
                return Merged::Later;
            }
        };
        for mut delivery in first_of(run, joined.deliveries) {
            let (counts, bytes) = (delivery.batch.counts(), delivery.batch.body_len());
            delivery.count_sent(counts, bytes);
            if outcome != Outcome::Delivered {
                delivery.count_lost_samples(Reason::Partial, 0);
            }
            delivery.finish(outcome.clone());
        }
        Merged::Over
    }
}

/// Takes as many deliveries as a request was made of.
fn first_of(run: &mut Run, count: usize) -> impl Iterator<Item = Delivery> {
    (0..count).map_while(|_| run.take_first())
}

/// What became of a request that was made of several deliveries.
enum Merged {
    /// The endpoint has them, takes fewer at once, or they were given up.
    Over,
    /// The endpoint refused something in one of them.
    Refused,
    /// The endpoint has failed on the first of them for so long that it is looked for what that is.
    Stuck,
    /// They were left to be tried again.
    Later,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_too_much_is_tried_again_after_a_while() {
        let most = MergeBound::new(1000);
        assert_eq!(most.bytes(), 1000);
        most.refused(600);
        most.refused(300);
        assert_eq!(most.bytes(), 150);
        tokio::time::advance(SPARED).await;
        assert_eq!(most.bytes(), 300);
        assert_eq!(most.bytes(), 300, "for as long again");
        most.refused(300);
        for expected in [150, 300, 600, 1000, 1000] {
            assert_eq!(most.bytes(), expected);
            tokio::time::advance(SPARED).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_comes_back_from_nothing() {
        let most = MergeBound::new(4);
        most.refused(1);
        for expected in [0, 1, 2, 4] {
            assert_eq!(most.bytes(), expected);
            tokio::time::advance(SPARED).await;
        }
    }
}
