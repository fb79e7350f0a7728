//! A batch in flight at a sink, until its outcome is reported.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use metrifold_codec::Batch;
use metrifold_codec::remote_write::{DecodeError, Unsent};
use metrifold_model::ledger::{Reason, Tally};
use metrifold_model::{Counts, Outcome, Ticket, Version};
use metrifold_queue::{Held, InFlightMark, Progress, Queued, Tracked};

use super::Edge;

/// A batch and the duty to report its outcome. Its bytes count against the queue's bound until
/// then. Dropping it without an outcome returns it to the queue if the sink has a successor or the
/// batch is on disk; otherwise the sender is told to retry.
#[derive(Debug)]
pub struct Delivery {
    /// The batch to deliver. If it was split, this is the next part.
    pub batch: Batch,
    /// Parts behind `batch`, the last one first.
    rest: Vec<Batch>,
    /// Worst outcome of the parts that are finished.
    worst: Outcome,
    ticket: Option<Ticket>,
    since: Instant,
    /// Number of failed attempts.
    attempts: u32,
    /// Counts with which the batch is booked as queued.
    tally: Tally,
    /// The batch's entry in the spill; `None` without a queue on disk.
    tracked: Option<Arc<Tracked>>,
    progress: Progress,
    edge: Arc<Edge>,
    /// The batch's place in the queue; `None` once its outcome is reported.
    held: Option<Held<Queued>>,
    /// Whether dropping the delivery returns the batch in any case.
    comes_back: bool,
    /// Keeps a batch that is in memory alone among the queued ones.
    _in_flight: Option<InFlightMark>,
}

/// The batches that pause after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Whether the endpoint fails for all tenants.
    pub everybody: bool,
    /// Time until which the batch's tenant pauses.
    pub tenant: Option<Instant>,
}

impl Delivery {
    /// A delivery of a batch that was received from an edge's queue.
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

    /// Whether the sender has been told to send the batch again.
    pub fn abandoned(&self) -> bool {
        self.ticket.as_ref().is_some_and(Ticket::abandoned)
            || self
                .tracked
                .as_ref()
                .is_some_and(|tracked| self.edge.abandoned(tracked))
    }

    /// Whether the sender waits for the outcome.
    pub fn is_awaited(&self) -> bool {
        self.ticket.is_some()
    }

    /// Time since the batch arrived at the sink.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Whether the batch is too old to be delivered. `max_age` applies to batches in memory; a
    /// queue on disk has a bound of its own.
    pub fn expired(&self, max_age: Duration) -> bool {
        let max_age = match &self.tracked {
            Some(_) => self.edge.max_age(),
            None => Some(max_age),
        };
        max_age.is_some_and(|max_age| self.age() > max_age)
    }

    /// Number of failed attempts.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Returns the batch to the front of its lane after a failed attempt, to be retried.
    pub fn retry(mut self, trouble: Trouble) {
        self.attempts += 1;
        self.comes_back = true;
        let (edge, tenant) = (self.edge.clone(), self.batch.tenant().cloned());
        if let Some(until) = trouble.tenant {
            // Pause first, so that no other task receives the batch right away.
            edge.pause(tenant.as_ref(), until);
        }
        drop(self);
        edge.set_failing(tenant.as_ref(), trouble);
    }

    /// Returns the batch as if it had not been received from the queue.
    pub fn put_back(mut self) {
        self.comes_back = true;
    }

    /// Counts the batch, or a part of it, as delivered.
    pub fn count_sent(&mut self, counts: Option<Counts>, bytes: usize) {
        self.edge.metrics.sent().batch(counts, bytes);
        self.progress.sent = true;
        self.edge.set_well(self.batch.tenant());
    }

    /// Counts the batch, or a part of it, as dropped.
    pub fn count_lost(&mut self, reason: Reason, counts: Option<Counts>) {
        let samples = counts.map(|c| c.all_samples());
        self.edge.metrics.discarded(reason.as_str(), samples);
        self.note_lost(reason, samples.unwrap_or(0));
    }

    /// Counts samples as dropped whose part is otherwise delivered.
    pub fn count_lost_samples(&mut self, reason: Reason, samples: u64) {
        self.edge
            .metrics
            .discarded_samples(reason.as_str(), samples);
        if samples > 0 {
            self.note_lost(reason, samples);
        }
    }

    /// Counts samples as dropped for which the sink has no place, and logs it.
    pub fn count_left_out(&mut self, reason: Reason, samples: u64) {
        self.count_lost_samples(reason, samples);
        if samples > 0 {
            let tally = Tally {
                samples,
                ..Tally::default()
            };
            self.edge.pipe.losses.note(reason, tally);
        }
    }

    /// Counts the samples of invalid series as dropped, by the violated rule of remote write.
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

    /// Encodes the next part in a version; returns what that version cannot represent.
    ///
    /// # Errors
    ///
    /// Fails when the part has to be decoded for that and is malformed.
    pub fn settle(&mut self, version: Version) -> Result<Unsent, DecodeError> {
        self.batch.settle(version, &self.edge.compression)
    }

    /// A copy of the next part that is encoded in a version, and what that version cannot
    /// represent.
    ///
    /// # Errors
    ///
    /// Fails when the part has to be decoded for that and is malformed.
    pub fn settled(&self, version: Version) -> Result<(Batch, Unsent), DecodeError> {
        let mut batch = self.batch.clone();
        let lost = batch.settle(version, &self.edge.compression)?;
        Ok((batch, lost))
    }

    /// Number of the batch's lane among those of its tenant.
    pub fn lane(&self) -> u64 {
        self.held.as_ref().map_or(0, Held::lane)
    }

    /// The next part and those behind it, in order.
    pub fn parts(&self) -> Vec<Batch> {
        let rest = self.rest.iter().rev();
        [&self.batch].into_iter().chain(rest).cloned().collect()
    }

    /// Replaces the next part and those behind it.
    pub fn set_parts(&mut self, parts: Vec<Batch>) {
        let mut parts = parts.into_iter();
        if let Some(next) = parts.next() {
            self.batch = next;
            self.rest = parts.rev().collect();
        }
    }

    /// Replaces the next part by two.
    pub fn split(&mut self, first: Batch, second: Batch) {
        self.batch = first;
        self.rest.push(second);
    }

    /// Records the outcome of the next part and moves on; returns whether another part follows.
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

    /// Records an outcome for some samples of the next part, while the rest of it is still to be
    /// delivered.
    pub fn note(&mut self, outcome: Outcome) {
        self.worst.join(outcome);
    }

    /// Books the outcome of the batch and reports it to the sender.
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
        // Computed while `tracked` is set: the counts of a tracked batch are kept by the spill.
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
        // A batch that is on disk, or will be, must stay known in memory.
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
    /// Books the finished parts; returns the counts of the others, one for each part.
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
