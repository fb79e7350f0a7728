//! A batch on its way into a sink, until somebody has said what became of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use metrifold_codec::Batch;
use metrifold_codec::remote_write::{DecodeError, Unsent};
use metrifold_model::ledger::{Reason, Tally};
use metrifold_model::{Counts, Outcome, Ticket, Version};
use metrifold_queue::{Held, InFlightMark, Progress, Queued, Tracked};

use super::Edge;

/// A batch and the duty to say what became of it. Its bytes count against the queue's bound until
/// then. Dropping it without a word gives it back if the sink has a successor or the batch is on
/// disk, and tells the sender to try again if not.
#[derive(Debug)]
pub struct Delivery {
    /// What to deliver, or the part of it that comes next.
    pub batch: Batch,
    /// The parts behind that, the last one first.
    rest: Vec<Batch>,
    /// Of the parts that are done.
    worst: Outcome,
    ticket: Option<Ticket>,
    since: Instant,
    /// How often it was tried in vain.
    attempts: u32,
    /// What of it is accounted for as queued.
    tally: Tally,
    /// Its entry in the spill, if there is one.
    tracked: Option<Arc<Tracked>>,
    progress: Progress,
    edge: Arc<Edge>,
    /// Its place in the queue, until somebody has said what became of it.
    held: Option<Held<Queued>>,
    /// Whether dropping it gives it back in any case.
    comes_back: bool,
    /// Has it counted among what is queued, if it is in memory alone.
    _in_flight: Option<InFlightMark>,
}

/// Whose batches are not tried for a while after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Whoever's batch it is.
    pub everybody: bool,
    /// The batch's tenant, until when.
    pub tenant: Option<Instant>,
}

impl Delivery {
    /// What was taken from the queue of an edge.
    pub(super) fn taken(edge: Arc<Edge>, queued: Queued, held: Held<Queued>) -> Self {
        let Queued {
            batch,
            ticket,
            since,
            attempts,
            tally,
            tracked,
        } = queued;
        let in_flight = tracked
            .is_none()
            .then(|| edge.pipe.in_flight.note(batch.tenant(), tally, since));
        Self {
            batch,
            rest: Vec::new(),
            worst: Outcome::Delivered,
            ticket,
            since,
            attempts,
            tally,
            tracked,
            progress: Progress::default(),
            edge,
            held: Some(held),
            comes_back: false,
            _in_flight: in_flight,
        }
    }

    /// Whether the sender has been told to send it again.
    pub fn abandoned(&self) -> bool {
        self.ticket.as_ref().is_some_and(Ticket::abandoned)
            || self
                .tracked
                .as_ref()
                .is_some_and(|tracked| self.edge.abandoned(tracked))
    }

    /// How long ago it came to the sink.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Whether it is too old to be delivered, if nothing older than `max_age` is. A queue on disk
    /// has an age of its own.
    pub fn expired(&self, max_age: Duration) -> bool {
        let max_age = match &self.tracked {
            Some(_) => self.edge.max_age(),
            None => Some(max_age),
        };
        max_age.is_some_and(|max_age| self.age() > max_age)
    }

    /// How often it was tried in vain.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Gives it back to be tried again, after an attempt has failed.
    pub fn retry(mut self, trouble: Trouble) {
        self.attempts += 1;
        self.comes_back = true;
        let (edge, tenant) = (self.edge.clone(), self.batch.tenant().cloned());
        if let Some(until) = trouble.tenant {
            // Before anybody can take it again.
            edge.pause(tenant.as_ref(), until);
        }
        drop(self);
        edge.set_failing(tenant.as_ref(), trouble);
    }

    /// Gives it back as if nobody had taken it.
    pub fn put_back(mut self) {
        self.comes_back = true;
    }

    /// Counts the batch, or a part of it, as delivered.
    pub fn count_sent(&mut self, counts: Option<Counts>, bytes: usize) {
        self.edge.metrics.sent().batch(counts, bytes);
        self.progress.sent = true;
        self.edge.set_well(self.batch.tenant());
    }

    /// Counts the batch, or a part of it, as lost.
    pub fn count_lost(&mut self, reason: Reason, counts: Option<Counts>) {
        let samples = counts.map(|c| c.all_samples());
        self.edge.metrics.discarded(reason.as_str(), samples);
        self.note_lost(reason, samples.unwrap_or(0));
    }

    /// Counts samples of a part of it as lost that itself is not.
    pub fn count_lost_samples(&mut self, reason: Reason, samples: u64) {
        self.edge
            .metrics
            .discarded_samples(reason.as_str(), samples);
        if samples > 0 {
            self.note_lost(reason, samples);
        }
    }

    /// Counts samples of series as lost that break the rules of remote write, under the rule.
    pub fn count_invalid(&mut self, rule: &str, samples: u64) {
        self.edge.metrics.discarded_samples(rule, samples);
        if samples > 0 {
            self.note_lost(Reason::Invalid, samples);
        }
    }

    fn note_lost(&mut self, reason: Reason, samples: u64) {
        self.progress.dropped += samples;
        self.progress.reason.get_or_insert(reason);
    }

    /// Encodes the part that comes next in a version, and returns what that has no place for.
    ///
    /// # Errors
    ///
    /// Fails when the part has to be decoded for that and is not what it claims to be.
    pub fn settle(&mut self, version: Version) -> Result<Unsent, DecodeError> {
        self.batch.settle(version, &self.edge.compression)
    }

    /// The part that comes next, encoded in a version apart from it, and what that has no place
    /// for.
    ///
    /// # Errors
    ///
    /// Fails when the part has to be decoded for that and is not what it claims to be.
    pub fn settled(&self, version: Version) -> Result<(Batch, Unsent), DecodeError> {
        let mut batch = self.batch.clone();
        let lost = batch.settle(version, &self.edge.compression)?;
        Ok((batch, lost))
    }

    /// The lane of the batch, among those of its tenant.
    pub fn lane(&self) -> u64 {
        self.held.as_ref().map_or(0, Held::lane)
    }

    /// The part that comes next and those behind it.
    pub fn parts(&self) -> Vec<Batch> {
        let rest = self.rest.iter().rev();
        [&self.batch].into_iter().chain(rest).cloned().collect()
    }

    /// Replaces the part that comes next and those behind it.
    pub fn set_parts(&mut self, parts: Vec<Batch>) {
        let mut parts = parts.into_iter();
        if let Some(next) = parts.next() {
            self.batch = next;
            self.rest = parts.rev().collect();
        }
    }

    /// Replaces the part that comes next by two.
    pub fn split(&mut self, first: Batch, second: Batch) {
        self.batch = first;
        self.rest.push(second);
    }

    /// Says what became of the part that was next. Returns whether there is another one.
    pub fn finish_part(&mut self, outcome: Outcome) -> bool {
        self.note(outcome);
        match self.rest.pop() {
            Some(next) => {
                self.batch = next;
                true
            }
            None => false,
        }
    }

    /// Says what became of something in the part that comes next, while the rest of it is still
    /// to be delivered.
    pub fn note(&mut self, outcome: Outcome) {
        self.worst.join(outcome);
    }

    /// Books what became of the batch, and tells its sender.
    pub fn finish(mut self, outcome: Outcome) {
        self.note(outcome);
        self.edge.metrics.delivered_after(self.since.elapsed());
        let mut progress = self.progress;
        if self.worst != Outcome::Delivered && !progress.sent {
            progress.reason.get_or_insert(Reason::Other);
        }
        match self.tracked.take() {
            Some(tracked) => self.edge.finish_tracked(&tracked, progress, &self.worst),
            None => {
                let tenant = self.batch.tenant();
                self.edge
                    .pipe
                    .accounts
                    .settled(tenant, self.tally, progress.fate());
            }
        }
        if let Some(ticket) = self.ticket.take() {
            ticket.report(self.worst.clone());
        }
        if let Some(held) = self.held.take() {
            self.edge.pipe.outflow.add(held.weight() as u64);
        }
    }

    /// Marks the batch delivered.
    pub fn delivered(mut self) {
        self.count_sent(self.batch.counts(), self.batch.body_len());
        self.finish(Outcome::Delivered);
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else {
            return;
        };
        let ticket = self.ticket.take();
        let parts: Vec<Batch> = [self.batch.clone()]
            .into_iter()
            .chain(self.rest.drain(..).rev())
            .collect();
        // It asks whether the batch is accounted for elsewhere.
        let mut tallies = self.remaining(&parts).into_iter();
        let tracked = self.tracked.take();
        if let Some(tracked) = &tracked {
            tracked.give_back(self.progress, parts.len());
        }
        let left = parts.into_iter().map(|batch| {
            let weight = batch.weight();
            let queued = Queued {
                batch,
                ticket: ticket.as_ref().map(Ticket::another),
                since: self.since,
                attempts: self.attempts,
                tally: tallies.next().unwrap_or_default(),
                tracked: tracked.clone(),
            };
            (queued, weight)
        });
        // What is on disk, or will be, must not be forgotten here.
        let always = self.comes_back || tracked.is_some();
        let refused = held.give_back(left.collect(), always);
        if tracked.is_none() {
            self.edge.track_all();
        }
        for queued in refused.err().into_iter().flatten() {
            self.edge.give_up_at_end(queued);
        }
        if let Some(ticket) = ticket {
            ticket.report(self.worst.clone());
        }
    }
}

impl Delivery {
    /// Accounts for the parts that are done, and returns what of the rest is queued, by part.
    fn remaining(&self, parts: &[Batch]) -> Vec<Tally> {
        let mut left = vec![Tally::default(); parts.len()];
        let Some((first, others)) = left.split_first_mut() else {
            return left;
        };
        *first = self.tally;
        let uncounted = parts.iter().any(|part| part.counts().is_none());
        if self.tracked.is_some() || self.tally.uncounted > 0 || uncounted {
            return left;
        }
        let samples = |batch: &Batch| batch.counts().map_or(0, |counts| counts.all_samples());
        let mut queued = 0;
        for (tally, batch) in [first].into_iter().chain(others).zip(parts) {
            tally.samples = samples(batch);
            queued += tally.samples;
        }
        let done = Tally {
            samples: self.tally.samples.saturating_sub(queued),
            ..Tally::default()
        };
        let fate = self.progress.fate();
        let tenant = self.batch.tenant();
        self.edge.pipe.accounts.settled(tenant, done, fate);
        left
    }
}
