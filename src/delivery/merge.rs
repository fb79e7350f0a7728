//! Makes one request of several small batches, when they wait one behind the other.
//!
//! Only bodies of remote write 1.0 are merged: one after the other they are a message with all
//! their series (Protocol Buffers, "Encoding", on merging repeated fields), and so are their
//! compressed forms but for the length in front. They are of one lane, so all of one tenant.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::protocol::{Version, snappy};
use crate::signal::Outcome;
use crate::topology::{Input, Run};

use super::answer::Answer;
use super::pace::Permit;
use super::sender::Shared;

impl Shared {
    /// Sees deliveries to their ends, in order, until one is left for later.
    pub(super) async fn deliver_run(&self, mut run: Run, permit: &Permit<'_>, input: &Input) {
        // So many of the next ones must not be merged.
        let mut singly = 0;
        while !input.superseded() {
            if singly == 0
                && let Some((count, body)) = self.merge(&mut run)
            {
                match self.deliver_merged(&mut run, count, body, permit).await {
                    Merged::Over => continue,
                    Merged::Refused => singly = count,
                    Merged::Later => return,
                }
            }
            let Some(delivery) = run.take_first() else {
                return;
            };
            if let Some((left, trouble)) = self.deliver(delivery, permit, input).await {
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

    /// The body of as many of the next deliveries as go into one request, if these are several.
    fn merge(&self, run: &mut Run) -> Option<(usize, Vec<Bytes>)> {
        if run.len() < 2 {
            return None;
        }
        let most = self.merge_bytes.load(Ordering::Relaxed);
        let max_age = self.target.retry.max_age.0;
        let mut bodies = Vec::new();
        let mut bytes = 0;
        for delivery in run.iter_mut() {
            let v1 = delivery.batch.version() == Version::V1
                && self.version(&delivery.batch) == Version::V1;
            if !v1 || delivery.abandoned() || delivery.expired(max_age) {
                break;
            }
            let Ok(body) = delivery.batch.body(Version::V1) else {
                break;
            };
            let Ok(len) = snappy::declared_len(&body, most) else {
                break;
            };
            bytes += len;
            if bytes > most {
                break;
            }
            bodies.push(body);
        }
        if bodies.len() < 2 {
            return None;
        }
        Some((bodies.len(), snappy::join(&bodies)?))
    }

    async fn deliver_merged(
        &self,
        run: &mut Run,
        count: usize,
        body: Vec<Bytes>,
        permit: &Permit<'_>,
    ) -> Merged {
        let Some(first) = run.first() else {
            return Merged::Over;
        };
        let sent = self.send(&first.batch, Version::V1, body, first.attempts(), permit);
        let outcome = match sent.await {
            Ok(Answer::Done) => Outcome::Delivered,
            Ok(Answer::Partial(reason, _)) => {
                self.target.metrics.error("partial", &reason);
                self.warn(&reason);
                Outcome::Rejected { reason, lost: None }
            }
            Ok(Answer::Poisoned(refusal)) if refusal.is_of_size() => {
                // It takes less from now on.
                let most = &self.merge_bytes;
                most.store(most.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
                return Merged::Over;
            }
            Ok(_) => return Merged::Refused,
            Err(trouble) => {
                if let Some(first) = run.leave_first() {
                    first.retry(trouble);
                }
                return Merged::Later;
            }
        };
        for _ in 0..count {
            let Some(mut delivery) = run.take_first() else {
                break;
            };
            let (counts, bytes) = (delivery.batch.counts(), delivery.batch.body_len());
            delivery.count_sent(counts, bytes);
            if outcome != Outcome::Delivered {
                delivery.count_lost_samples("partial", 0);
            }
            delivery.finish(outcome.clone());
        }
        Merged::Over
    }
}

/// What became of a request that was made of several deliveries.
enum Merged {
    /// The endpoint has them, or wants fewer at once.
    Over,
    /// The endpoint wants something in them not.
    Refused,
    /// They were left to be tried again.
    Later,
}
