//! Replays records from disk into memory, and evicts batches from memory.

use std::sync::Arc;

use tokio::time::Instant;

use metrifold_codec::Batch;
use metrifold_model::ledger::{Reason, Tally};
use metrifold_model::{Origin, Tenant, Ticket};

use crate::Lane;
use crate::clock::{age, now_millis};
use crate::disk::{Entry, Fate, Record};
use crate::item::{Queued, Tracked};

use super::backlog::Next;
use super::residence::Residence;
use super::{Spill, SpillState};

/// A record that was read and is about to be put into memory.
pub(super) struct Readied {
    entry: Entry,
    batch: Batch,
    pub(super) weight: usize,
}

impl Spill {
    /// The next records to read, at most `most`.
    pub(super) fn to_read(&self, most: usize) -> Vec<Next> {
        let mut state = self.state();
        match state.closing {
            true => Vec::new(),
            false => state.backlog.next_group(Instant::now(), most),
        }
    }

    /// The end of the first pause of a tenant that has records to read.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.state().backlog.next_wake()
    }

    /// The first record from before this process that is not listed yet, and the end of these
    /// records.
    pub(super) fn unlisted(&self) -> Option<(u64, u64)> {
        let state = self.state();
        state.backlog.unlisted().filter(|_| !state.closing)
    }

    /// Lists records from before this process, up to `next`.
    pub(super) fn list(&self, entries: &[Entry], next: u64) {
        let mut state = self.state();
        for entry in entries {
            // It is older than every batch that arrived in this process.
            state.backlog.enter(entry.lane, 0);
            state.backlog.add(entry);
        }
        state.backlog.listed_to(next);
        drop(state);
        // Senders that wait for room may find some in memory now.
        self.queue.nudge();
    }

    /// Removes a record that was to be read and does not exist any more.
    pub(super) fn is_gone(&self, next: &Next) {
        self.state().backlog.remove(&next.tenant, next.position);
        self.queue.nudge();
    }

    /// Turns a record into a batch.
    pub(super) fn readied(&self, record: Record) -> Readied {
        let Record { entry, body } = record;
        let origin = Arc::new(Origin::internal(self.sink.clone()));
        let counts = (entry.counts, entry.checked);
        let batch = Batch::from_record(entry.version, body, counts, &entry.tenant, origin);
        Readied {
            weight: batch.weight(),
            entry,
            batch,
        }
    }

    /// Puts records into memory, all at once, so that those of a lane can share a request. A
    /// tenant's records stay on disk if an earlier one has been evicted meanwhile.
    pub(super) fn replay(&self, group: Vec<Readied>) {
        let (now, millis) = (Instant::now(), now_millis());
        let mut abandoned = Vec::new();
        let mut items = Vec::with_capacity(group.len());
        let mut state = self.state();
        for Readied {
            entry,
            batch,
            weight,
        } in group
        {
            let position = entry.position.0;
            if state.backlog.first(&entry.tenant) != Some(position) {
                continue;
            }
            let ticket = state.waiting.remove(&position).map(|(_, ticket)| ticket);
            if ticket.as_ref().is_some_and(Ticket::abandoned) {
                state.backlog.remove(&entry.tenant, position);
                abandoned.push(entry);
                continue;
            }
            state.backlog.read(&entry);
            let age = age(entry.accepted_at, millis);
            let lane = Lane {
                tenant: batch.tenant().cloned(),
                id: entry.lane,
                holds: true,
            };
            let id = state.residents.insert(Residence::Both(entry));
            let queued = Queued {
                batch,
                ticket,
                since: now.checked_sub(age).unwrap_or(now),
                attempts: 0,
                tally: Tally::default(),
                tracked: Some(Tracked::new(id)),
            };
            items.push((queued, weight, lane));
        }
        // Under the lock, so that new batches of these lanes queue behind them.
        self.queue.push_all(items);
        drop(state);
        for entry in abandoned {
            self.disk.done(&entry, Fate::Dropped(Reason::Abandoned));
        }
    }

    /// Evicts a tenant's batches that are on disk from memory, to make room for others.
    pub(super) fn evict(&self, state: &mut SpillState, tenant: Option<&Tenant>) {
        let SpillState {
            residents,
            backlog,
            waiting,
            ..
        } = state;
        let stored = |item: &Queued| {
            let whole = item.tracked.as_ref().filter(|it| it.is_whole());
            let residence = whole.and_then(|it| residents.get(it.id));
            matches!(residence, Some(Residence::Both(_)))
        };
        let withdrawn = self.queue.withdraw(&tenant.cloned(), stored);
        for (lane, item) in withdrawn {
            let Some(id) = item.tracked.map(|tracked| tracked.id) else {
                continue; // present: it was withdrawn because it is tracked
            };
            let Some(Residence::Both(entry)) = residents.take(id) else {
                continue; // as above
            };
            backlog.unread(&entry);
            backlog.enter(lane, id);
            backlog.add(&entry);
            if let Some(ticket) = item.ticket {
                waiting.insert(entry.position.0, (entry, ticket));
            }
            // The task that reads may be asleep without knowing of this tenant's pause.
            self.readable.notify_one();
        }
    }

    /// Removes records that the disk has dropped to make room.
    pub(super) fn prune(&self) {
        let first = self.disk.first().0;
        self.state().backlog.prune(first, Instant::now());
    }

    /// Drops records whose senders send them again.
    pub(super) fn drop_abandoned(&self) {
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
