//! How records come back from disk into memory.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use metrifold_codec::Batch;
use metrifold_model::ledger::{Reason, Tally};
use metrifold_model::{Origin, Tenant, Ticket};
use metrifold_queue::Lane;
use metrifold_queue::disk::{Entry, Fate, Record};

use super::super::Waiting;
use super::backlog::Next;
use super::state::{Copied, Kept, State};
use super::{Store, now_millis};

impl Store {
    /// The next record to read, if there is one.
    pub(in super::super) fn to_read(&self) -> Option<Next> {
        let mut state = self.state();
        if state.closing {
            return None;
        }
        state.backlog.next(Instant::now())
    }

    /// When there will be something to read that is not to be read now.
    pub(in super::super) fn next_wake(&self) -> Option<Instant> {
        self.state().backlog.next_wake()
    }

    /// The next record that nobody has seen since the queue was opened, and the end of those.
    pub(in super::super) fn unseen(&self) -> Option<(u64, u64)> {
        let state = self.state();
        state.backlog.unseen().filter(|_| !state.closing)
    }

    /// Gets to know records that were there from the beginning: all up to `next`.
    pub(in super::super) fn list(&self, entries: &[Entry], next: u64) {
        let mut state = self.state();
        for entry in entries {
            // It is older than all that has come to this process.
            state.backlog.enter(entry.lane, 0);
            state.backlog.add(entry);
        }
        state.backlog.seen(next);
        drop(state);
        // Who waits for room may find some in memory now.
        self.queue.nudge();
    }

    /// There is no such record any more.
    pub(in super::super) fn is_gone(&self, next: &Next) {
        self.state().backlog.remove(&next.tenant, next.position);
        self.queue.nudge();
    }

    /// Puts a record that was read into the queue, unless one before it has come back to disk
    /// meanwhile.
    pub(in super::super) fn take_in(&self, record: Record) {
        let Record { entry, body } = record;
        let sequence = entry.position.0;
        let mut state = self.state();
        if state.backlog.first(&entry.tenant) != Some(sequence) {
            return;
        }
        let ticket = state.waiting.remove(&sequence).map(|(_, ticket)| ticket);
        if ticket.as_ref().is_some_and(Ticket::abandoned) {
            state.backlog.remove(&entry.tenant, sequence);
            drop(state);
            self.disk.done(&entry, Fate::Dropped(Reason::Abandoned));
            return;
        }
        state.backlog.read(&entry);
        let id = state.next;
        state.next += 1;
        let age = Duration::from_millis(now_millis().saturating_sub(entry.accepted_at));
        let now = Instant::now();
        let origin = Arc::new(Origin::internal(self.sink.clone()));
        let counts = (entry.counts, entry.checked);
        let batch = Batch::from_record(entry.version, body, counts, &entry.tenant, origin);
        let weight = batch.weight();
        let lane = Lane {
            tenant: batch.tenant().cloned(),
            id: entry.lane,
            holds: true,
        };
        let copied = Copied {
            lane: entry.lane,
            fresh: None,
            entry: Some(entry),
            fate: None,
        };
        state.copied.insert(id, copied);
        let waiting = Waiting {
            batch,
            ticket,
            since: now.checked_sub(age).unwrap_or(now),
            attempts: 0,
            tally: Tally::default(),
            kept: Some(Kept::new(id)),
        };
        self.queue.push_anyway(waiting, weight, lane);
    }

    /// Has a tenant's batches that are on disk leave memory.
    pub(super) fn shed(&self, state: &mut State, tenant: Option<&Tenant>) {
        let State {
            copied,
            backlog,
            waiting,
            ..
        } = state;
        let tenant = tenant.cloned();
        let withdrawn = self.queue.withdraw(&tenant, |item| {
            let whole = item.kept.as_ref().filter(|kept| kept.is_whole());
            let copied = whole.and_then(|kept| copied.get(kept.id));
            copied.is_some_and(|copied| copied.entry.is_some())
        });
        for (lane, item) in withdrawn {
            let Some(id) = item.kept.map(|kept| kept.id) else {
                continue; // it is there: it was withdrawn for that
            };
            let Some(entry) = copied.remove(id).and_then(|copied| copied.entry) else {
                continue; // as above
            };
            backlog.unread(&entry);
            backlog.enter(lane, id);
            backlog.add(&entry);
            if let Some(ticket) = item.ticket {
                waiting.insert(entry.position.0, (entry, ticket));
            }
            // Whoever reads may sleep without knowing of this tenant's pause.
            self.readable.notify_one();
        }
    }

    /// Forgets what the disk has dropped by itself.
    pub(in super::super) fn prune(&self) {
        let first = self.disk.first().0;
        self.state().backlog.prune(first, Instant::now());
    }

    /// Gives up records whose senders have given them up.
    pub(in super::super) fn drop_abandoned(&self) {
        let mut state = self.state();
        let abandoned = state
            .waiting
            .extract_if(.., |_, (_, ticket)| ticket.abandoned());
        let abandoned: Vec<_> = abandoned.collect();
        for (position, (entry, _)) in &abandoned {
            state.backlog.remove(&entry.tenant, *position);
        }
        drop(state);
        for (_, (entry, _)) in abandoned {
            self.disk.done(&entry, Fate::Dropped(Reason::Abandoned));
        }
    }
}
