//! How batches come into the queue, and what becomes of those that do not.

use std::sync::Arc;

use tokio::time::Instant;

use metrifold_codec::Batch;
use metrifold_model::ledger::Reason;
use metrifold_model::{Outcome, Ticket};
use metrifold_queue::disk::Fate;
use metrifold_queue::{Pushed, WhenFull};

use super::store::{Store, Taken, tally};
use super::{Edge, Incoming, LOOK_AGAIN, Waiting, lane};

impl Edge {
    /// The queue on disk, if batches have to go through it.
    pub(super) fn store(&self) -> Option<&Arc<Store>> {
        self.line.store.get().filter(|store| store.engaged())
    }

    /// Puts a batch into the queue, or returns it if there is no room and it has to wait.
    pub(crate) fn push(&self, batch: Batch, ticket: Option<Ticket>) -> Option<Incoming> {
        self.push_within(batch, ticket, true)
    }

    /// The same. Unless the queue `grows`, it is taken to be full with what it has in memory.
    pub(crate) fn push_within(
        &self,
        mut batch: Batch,
        ticket: Option<Ticket>,
        grows: bool,
    ) -> Option<Incoming> {
        let lane = lane(&batch, ticket.as_ref());
        let uncounted = batch.counts().is_none();
        if uncounted && self.store().is_some_and(|store| store.is_writing(&lane)) {
            // Here, where no lock is held.
            batch.count();
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
        match self.store() {
            Some(store) => self.push_to_store(store, incoming),
            None => self.push_to_memory(incoming),
        }
    }

    /// Waits for room.
    pub(crate) async fn push_wait(&self, blocked: Incoming) {
        let mut blocked = blocked;
        loop {
            let drained = self.line.queue.drained();
            tokio::pin!(drained);
            // Registered before the attempt, so that no wake-up between the two is lost.
            drained.as_mut().enable();
            let store = self.line.store.get();
            let room = async {
                match store {
                    Some(store) => store.disk.room().await,
                    None => std::future::pending().await,
                }
            };
            match self.push_again(blocked) {
                Some(again) => blocked = again,
                None => return,
            }
            // Should the disk have made room just now, it is noticed a moment later.
            tokio::select! {
                () = drained => {}
                () = room => {}
                () = tokio::time::sleep(LOOK_AGAIN), if store.is_some() => {}
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
        // Counted before anybody can take it.
        let tenant = batch.tenant().cloned();
        self.line.accounts.received(tenant.as_ref(), tally);
        let waiting = Waiting {
            batch,
            ticket,
            since,
            attempts: 0,
            tally,
            kept: None,
        };
        let queue = &self.line.queue;
        match queue.push_within(waiting, weight, lane.clone(), grows) {
            Pushed::Stored(evicted) => {
                for old in evicted {
                    self.give_up(old, Reason::QueueFull, "queue is full");
                }
            }
            Pushed::Full(waiting) => {
                self.line.accounts.moved(tenant.as_ref(), tally);
                return Some(Incoming {
                    batch: waiting.batch,
                    ticket: waiting.ticket,
                    since,
                    lane,
                    version,
                    grows,
                });
            }
            Pushed::Dropped(waiting) => {
                self.give_up(waiting, Reason::QueueFull, "queue is full");
            }
            Pushed::Closed(waiting) => {
                self.give_up_at_end(waiting);
            }
        }
        None
    }

    fn push_to_store(&self, store: &Arc<Store>, incoming: Incoming) -> Option<Incoming> {
        match store.push(incoming) {
            Taken::In => None,
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

    /// Turns a batch away that is not in the queue.
    fn refuse(&self, incoming: Incoming, reason: Reason, outcome: Outcome) {
        let Incoming { batch, ticket, .. } = incoming;
        let samples = batch.counts().map(|c| c.all_samples());
        self.metrics.discarded(reason.as_str(), samples);
        let accounts = &self.line.accounts;
        accounts.refused(batch.tenant(), tally(&batch), reason);
        if let Some(ticket) = ticket {
            ticket.report(outcome);
        }
    }

    /// Gives up a batch that was in the queue, unless it is on disk. Returns whether it did.
    fn give_up(&self, waiting: Waiting, reason: Reason, text: &str) -> bool {
        let mut ticket = waiting.ticket;
        let mut tally = waiting.tally;
        if let Some(kept) = &waiting.kept {
            let forgotten = self.line.store.get().and_then(|store| store.forget(kept));
            let Some((kept_ticket, kept_tally)) = forgotten else {
                // A sender that waits for the far end hears that it was not reached.
                return false;
            };
            ticket = ticket.or(kept_ticket);
            tally = kept_tally;
        }
        let samples = waiting.batch.counts().map(|c| c.all_samples());
        self.metrics.discarded(reason.as_str(), samples);
        let fate = Fate::Dropped(reason);
        let tenant = waiting.batch.tenant();
        self.line.accounts.settled(tenant, tally, fate);
        if let Some(ticket) = ticket {
            ticket.report(Outcome::failed(text));
        }
        true
    }

    fn ending_reason(&self) -> (Reason, &'static str) {
        match self.line.ending.get() {
            Some(ending) => ending.reason(),
            None => (Reason::SinkDied, "sink died with the batch"),
        }
    }

    pub(super) fn give_up_at_end(&self, waiting: Waiting) -> bool {
        let (reason, text) = self.ending_reason();
        self.give_up(waiting, reason, text)
    }
}
