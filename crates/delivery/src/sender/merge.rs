//! Merges several small batches of one tenant that are queued at the same time into one request.
//!
//! Only bodies of remote write 1.0 are merged: concatenated, they form a message with all their
//! series (Protocol Buffers, "Encoding", on merging repeated fields), and so do their compressed
//! forms except for the length in front.
//!
//! One sender's data must not cost another one: if a request with the data of several senders is
//! refused, fails, or is stored in part, then each batch is sent alone, so that each sender hears
//! what became of its own, and for a while only batches of one lane are merged.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use metrifold_codec::snappy;
use metrifold_engine::planes::metrics::{Delivery, Input, Run, RunBound};
use metrifold_model::ledger::Reason;
use metrifold_model::{Outcome, Version};

use super::Shared;
use crate::pace::Permit;
use crate::stuck::Control;
use crate::transport::{Answer, Attempt, RefusalClass, Transport};

/// Time after which a request of twice the accepted size is tried again.
const SPARED: Duration = Duration::from_secs(300);

/// Time for which senders are kept apart after trouble with a request that had data of several.
const APART: Duration = Duration::from_secs(60);
/// The most turns of lanes in a request: more would make senders wait for each other.
const TURNS_MAX: usize = 64;

/// Bounds of a merged request.
#[derive(Debug)]
pub(super) struct MergeBound {
    /// The most bytes before compression.
    configured: usize,
    /// Whether a request may hold the data of several senders.
    mixes: bool,
    /// The size that the endpoint has shown to accept, and since when.
    learnt: Mutex<Option<(usize, Instant)>>,
    /// Time until which senders are kept apart.
    apart: Mutex<Option<Instant>>,
}

impl MergeBound {
    pub(super) fn new(configured: usize, mixes: bool) -> Self {
        Self {
            configured,
            mixes,
            learnt: Mutex::default(),
            apart: Mutex::default(),
        }
    }

    /// The bound of what is received at once: batches must fit before compression, so receiving more
    /// is useless.
    pub(super) fn run(&self) -> RunBound {
        let weight = self.bytes();
        let turns = if self.mixes() { TURNS_MAX } else { 1 };
        RunBound { weight, turns }
    }

    /// Whether a request may hold the data of several senders now.
    fn mixes(&self) -> bool {
        self.mixes && self.apart().is_none_or(|until| until <= Instant::now())
    }

    /// Keeps senders apart for a while.
    fn keep_apart(&self) {
        *self.apart() = Some(Instant::now() + APART);
    }

    fn apart(&self) -> MutexGuard<'_, Option<Instant>> {
        self.apart.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present bound: after a while, twice the learnt size is tried again.
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

    /// Learns that the endpoint refuses a request of `bytes` as too large.
    fn refused(&self, bytes: usize) {
        *self.learnt() = Some((bytes / 2, Instant::now()));
    }

    fn learnt(&self) -> MutexGuard<'_, Option<(usize, Instant)>> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Several deliveries in one request.
struct Joined {
    deliveries: usize,
    /// Bytes before compression.
    bytes: usize,
    body: Vec<Bytes>,
    /// Whether senders wait for it, or it has batches of several lanes.
    mixed: bool,
}

impl<T: Transport> Shared<T> {
    /// Delivers a run in order, until a delivery is left to be retried.
    pub(super) async fn deliver_run(&self, mut run: Run, permit: &Permit<'_>, input: &Input) {
        self.probe_version(input);
        // Number of the next deliveries that are sent each in a request of its own, and whether a
        // server error starts a search in them.
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
                // Returns the deliveries behind it first: the retry may evict the tenant's batches
                // from memory.
                drop(run);
                if let Some(trouble) = trouble {
                    left.retry(trouble);
                }
                return;
            }
            singly = singly.saturating_sub(1);
        }
    }

    /// Merges as many of the next deliveries as fit into one request; `None` if these are fewer
    /// than two.
    fn merge(&self, run: &mut Run) -> Option<Joined> {
        if run.len() < 2 {
            return None;
        }
        let most = self.merge_bound.bytes();
        let max_age = self.terms.retry.max_age;
        let mut bodies = Vec::new();
        let mut bytes = 0;
        let mut mixed = false;
        // The run may have been asked for before there was trouble.
        let mixes = self.merge_bound.mixes();
        let lane = run.first().map(Delivery::lane);
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
            mixed |= delivery.is_awaited() || Some(delivery.lane()) != lane;
            if mixed && !mixes {
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
            mixed,
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
        // What does not depend on the content says nothing about any of the senders.
        let of_content = match &answer {
            Ok(Answer::Refused(refusal)) => !refusal.is_of_size(),
            Ok(answer) => matches!(answer, Answer::Partly(..)),
            Err(failed) => failed.server_error,
        };
        if joined.mixed && of_content {
            self.merge_bound.keep_apart();
        }
        match &answer {
            Ok(Answer::Partly(..)) if joined.mixed => return Merged::Refused,
            Ok(answer) if answer.is_accepted() => {
                self.stuck.went_through(tenant, lane, control);
                for delivery in run.iter_mut().take(joined.deliveries) {
                    self.stuck.over(tenant, delivery.lane());
                }
            }
            Err(failed) if failed.server_error => {}
            _ => self.stuck.over(tenant, lane),
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

/// Takes the first `count` deliveries of a run.
fn first_of(run: &mut Run, count: usize) -> impl Iterator<Item = Delivery> {
    (0..count).map_while(|_| run.take_first())
}

/// Result of a merged request.
enum Merged {
    /// The deliveries are settled, or the endpoint accepts fewer bytes at once.
    Over,
    /// The endpoint refused something in one of the deliveries.
    Refused,
    /// The endpoint has failed on the first delivery for so long that the series at fault is
    /// searched.
    Stuck,
    /// The deliveries were returned to be retried.
    Later,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_too_much_is_tried_again_after_a_while() {
        let most = MergeBound::new(1000, true);
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
        let most = MergeBound::new(4, true);
        most.refused(1);
        for expected in [0, 1, 2, 4] {
            assert_eq!(most.bytes(), expected);
            tokio::time::advance(SPARED).await;
        }
    }
}
