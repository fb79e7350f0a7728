//! Puts batches into the queue, or refuses them.

use std::sync::Arc;

use tokio::time::Instant;

use metrifold_codec::Batch;
use metrifold_model::ledger::Reason;
use metrifold_model::{Outcome, Ticket};
use metrifold_queue::disk::Fate;
use metrifold_queue::{Incoming, LOOK_AGAIN, Pushed, Queued, Spill, Taken, WhenFull, tally};

use super::{Edge, lane};

impl Edge {
    /// The queue on disk, if the present configuration uses it.
    pub(super) fn spill(&self) -> Option<&Arc<Spill>> {
        self.pipe.spill.get().filter(|spill| spill.engaged())
    }

    /// Puts a batch into the queue. Returns it if it has to wait for room.
    pub(crate) fn push(&self, batch: Batch, ticket: Option<Ticket>) -> Option<Incoming> {
        self.push_within(batch, ticket, true)
    }

    /// Puts a batch into the queue. Unless `grows`, the queue counts as full with the batches that are in
    /// memory now.
    pub(crate) fn push_within(
        &self,
        mut batch: Batch,
        ticket: Option<Ticket>,
        grows: bool,
    ) -> Option<Incoming> {
        let lane = lane(&batch, ticket.as_ref());
        let uncounted = batch.counts().is_none();
        if uncounted && self.spill().is_some_and(|spill| spill.is_writing(&lane)) {
            // Counted here, where no lock is held. If that fails, the batch is stored uncounted.
            let _ = batch.count();
        }
        let version = self.version(&batch).unwrap_or(batch.version());
        self.push_again(Incoming {
            batch,
            ticket,
            since: Instant::now(),
            lane,
            version,
            grows,
        })
    }

    fn push_again(&self, incoming: Incoming) -> Option<Incoming> {
        match self.spill() {
            Some(spill) => self.push_to_spill(spill, incoming),
            None => self.push_to_memory(incoming),
        }
    }

    /// Waits until there is room for the batch.
    pub(crate) async fn push_wait(&self, blocked: Incoming) {
        let mut blocked = blocked;
        loop {
            let drained = self.pipe.queue.drained();
            tokio::pin!(drained);
            // Registered before the attempt, so that no wake-up between the two is lost.
            drained.as_mut().enable();
            let spill = self.pipe.spill.get();
            let room = async {
                match spill {
                    Some(spill) => spill.disk().room().await,
                    None => std::future::pending().await,
                }
            };
            match self.push_again(blocked) {
                Some(again) => blocked = again,
                None => return,
            }
            // Room on disk may appear before its wake-up is registered; the timeout notices that.
            tokio::select! {
                () = drained => {}
                () = room => {}
                () = tokio::time::sleep(LOOK_AGAIN), if spill.is_some() => {}
            }
        }
    }

    fn push_to_memory(&self, incoming: Incoming) -> Option<Incoming> {
        let Incoming {
            batch,
            ticket,
            since,
            lane,
            version,
            grows,
        } = incoming;
        let weight = batch.weight();
        let tally = tally(&batch);
        // Booked before another task can receive the batch.
        let tenant = batch.tenant().cloned();
        self.pipe.accounts.received(tenant.as_ref(), tally);
        let queued = Queued {
            batch,
            ticket,
            since,
            attempts: 0,
            tally,
            tracked: None,
        };
        let queue = &self.pipe.queue;
        match queue.push_within(queued, weight, lane.clone(), grows) {
            Pushed::Stored(evicted) => {
                for old in evicted {
                    self.give_up(old, Reason::QueueFull, "queue is full");
                }
            }
            Pushed::Full(queued) => {
                self.pipe.accounts.moved(tenant.as_ref(), tally);
                return Some(Incoming {
                    batch: queued.batch,
                    ticket: queued.ticket,
                    since,
                    lane,
                    version,
                    grows,
                });
            }
            Pushed::Dropped(queued) => {
                self.give_up(queued, Reason::QueueFull, "queue is full");
            }
            Pushed::Closed(queued) => {
                self.give_up_at_end(queued);
            }
        }
        None
    }

    fn push_to_spill(&self, spill: &Arc<Spill>, incoming: Incoming) -> Option<Incoming> {
        match spill.push(incoming) {
            Taken::In => None,
            // The batch waits for the disk and not for the endpoint, therefore also in front of an
            // optional sink.
            Taken::Busy(incoming) => Some(incoming),
            Taken::Full(incoming) if self.config.when_full(self.required) == WhenFull::Block => {
                Some(incoming)
            }
            Taken::Full(incoming) => {
                self.refuse(
                    incoming,
                    Reason::QueueFull,
                    Outcome::failed("queue is full"),
                );
                None
            }
            Taken::TooLarge(incoming) => {
                let outcome = Outcome::rejected("batch is too large for the queue");
                self.refuse(incoming, Reason::TooLarge, outcome);
                None
            }
            Taken::Closed(incoming) => {
                let (reason, text) = self.ending_reason();
                self.refuse(incoming, reason, Outcome::failed(text));
                None
            }
        }
    }

    /// Refuses a batch that is not in the queue.
    fn refuse(&self, incoming: Incoming, reason: Reason, outcome: Outcome) {
        let Incoming { batch, ticket, .. } = incoming;
        let samples = batch.counts().map(|c| c.all_samples());
        self.metrics.discarded(reason.as_str(), samples);
        let tally = tally(&batch);
        self.pipe.accounts.refused(batch.tenant(), tally, reason);
        self.pipe.losses.note(reason, tally);
        if let Some(ticket) = ticket {
            ticket.report(outcome);
        }
    }

    /// Drops a batch that was in the queue, unless it is on disk; returns whether it did.
    fn give_up(&self, queued: Queued, reason: Reason, text: &str) -> bool {
        let mut ticket = queued.ticket;
        let mut tally = queued.tally;
        if let Some(tracked) = &queued.tracked {
            let forgotten = self
                .pipe
                .spill
                .get()
                .and_then(|spill| spill.forget(tracked));
            let Some((its_ticket, its_tally)) = forgotten else {
                // The batch stays on disk; dropping the ticket tells a waiting sender that the endpoint
                // was not reached.
                return false;
            };
            ticket = ticket.or(its_ticket);
            tally = its_tally;
        }
        let samples = queued.batch.counts().map(|c| c.all_samples());
        self.metrics.discarded(reason.as_str(), samples);
        let fate = Fate::Dropped(reason);
        let tenant = queued.batch.tenant();
        self.pipe.accounts.settled(tenant, tally, fate);
        self.pipe.losses.note(reason, tally);
        if let Some(ticket) = ticket {
            ticket.report(Outcome::failed(text));
        }
        true
    }

    fn ending_reason(&self) -> (Reason, &'static str) {
        match self.pipe.ending.get() {
            Some(ending) => ending.reason(),
            None => (Reason::SinkDied, "sink died with the batch"),
        }
    }

    pub(super) fn give_up_at_end(&self, queued: Queued) -> bool {
        let (reason, text) = self.ending_reason();
        self.give_up(queued, reason, text)
    }
}
