//! Stores batches on disk, and handles the completion of appends.

use std::collections::HashSet;
use std::sync::{Arc, MutexGuard};

use tokio::time::Instant;

use metrifold_codec::Batch;
use metrifold_model::ledger::Reason;
use metrifold_model::{Outcome, Ticket, Version};

use crate::clock::now_millis;
use crate::disk::{Append, AppendError, Entry, Fate, Refused};
use crate::item::{Incoming, Queued, Tracked};

use super::residence::{Residence, Unstored};
use super::tasks::append_failed;
use super::{Spill, SpillState, Taken, Unspilled};

impl Spill {
    /// Puts a batch into memory, or writes it to disk if it must queue behind others there.
    pub fn push(self: &Arc<Self>, item: Incoming) -> Taken {
        let mut state = self.state();
        if state.closing {
            return Taken::Closed(item);
        }
        let behind = state.backlog.holds_back(&item.lane);
        let keeps = self.keeps();
        let tenant = &item.lane.tenant;
        let paused = state.backlog.is_paused(tenant);
        let at_once = behind || (keeps && (paused || self.is_failing()));
        // Batches in memory alone must be on disk before those that follow them.
        let before = |it: &Unstored| self.is_failing() || it.batch.tenant() == tenant.as_ref();
        if !at_once || self.spill(&mut state, before).is_err() {
            let weight = item.batch.weight();
            if !behind && self.queue.has_room(tenant, weight) {
                let lane = item.lane.id;
                // The sender has already waited until earlier batches were stored: it need not wait
                // for `store_after` again.
                let at_once = keeps && item.waits_for_disk() && state.residents.has_copy(lane);
                self.keep_in_memory(&mut state, item, weight);
                if at_once {
                    // Batches that the disk refuses now are stored when they are due.
                    let _ = self.spill(&mut state, |it| it.lane == lane);
                }
                return Taken::In;
            }
            if !keeps {
                return Taken::Full(item);
            }
            match self.spill(&mut state, |_| true) {
                Ok(()) => {}
                Err(Unspilled::Full) => return Taken::Full(item),
                Err(Unspilled::Busy) => return Taken::Busy(item),
            }
        }
        self.write(state, item)
    }

    fn keep_in_memory(&self, state: &mut SpillState, item: Incoming, weight: usize) {
        let Incoming {
            batch,
            ticket,
            since,
            lane,
            version,
            ..
        } = item;
        let (ticket, until_stored) = split(ticket);
        let unstored = Unstored::new(batch.clone(), version, lane.id, until_stored, since);
        let tally = unstored.tally;
        self.accounts.received(batch.tenant(), tally);
        if state.residents.is_all_stored() {
            self.work.notify_one();
        }
        let id = state.residents.insert(Residence::Memory(unstored));
        let queued = Queued {
            batch,
            ticket,
            since,
            attempts: 0,
            tally,
            tracked: Some(Tracked::new(id)),
        };
        self.queue.push_anyway(queued, weight, lane);
    }

    /// Appends a batch without keeping it in memory.
    fn write(self: &Arc<Self>, mut state: MutexGuard<'_, SpillState>, item: Incoming) -> Taken {
        let Incoming {
            mut batch,
            ticket,
            since,
            lane,
            version,
            grows,
        } = item;
        let lane_id = lane.id;
        let back = |batch, ticket| Incoming {
            batch,
            ticket,
            since,
            lane,
            version,
            grows,
        };
        let Some(append) = append(&mut batch, version, lane_id, since) else {
            return Taken::TooLarge(back(batch, ticket));
        };
        let unstored = Unstored::new(batch, version, lane_id, ticket, since);
        let tally = unstored.tally;
        self.accounts.received(unstored.batch.tenant(), tally);
        let id = state.residents.insert(Residence::Writing(unstored));
        state.backlog.enter(lane_id, id);
        // The lane is marked, so nothing can overtake the batch while the lock is released.
        drop(state);
        let spill = self.clone();
        let complete = Box::new(move |result| spill.written(id, result));
        let Err(refused) = self.disk.append(append, complete) else {
            return Taken::In;
        };
        let mut state = self.state();
        let Some(Residence::Writing(unstored)) = state.residents.take(id) else {
            return Taken::In;
        };
        state.backlog.leave(lane_id);
        drop(state);
        let Unstored { batch, ticket, .. } = unstored;
        self.accounts.moved(batch.tenant(), tally);
        match refused {
            Refused::Full(..) => Taken::Full(back(batch, ticket)),
            Refused::Busy(..) => Taken::Busy(back(batch, ticket)),
            Refused::TooLarge(..) => Taken::TooLarge(back(batch, ticket)),
            Refused::Closed(..) => Taken::Closed(back(batch, ticket)),
        }
    }

    /// Appends those of the given batches that are in memory alone, as far as the disk accepts
    /// them. Fails unless all storable ones are on their way.
    pub(super) fn spill(
        self: &Arc<Self>,
        state: &mut SpillState,
        which: impl Fn(&Unstored) -> bool,
    ) -> Result<(), Unspilled> {
        let due = state.storable().filter(|(_, it)| which(it));
        let due: Vec<u64> = due.map(|(id, _)| id).collect();
        let mut spilled = Ok(());
        let mut tenants = HashSet::new();
        for id in due {
            let Some(unstored) = state.residents.unstored(id) else {
                continue;
            };
            // The sender sends it again, so it is not stored.
            let abandoned = unstored.ticket.as_ref().is_some_and(Ticket::abandoned);
            let (version, lane, since) = (unstored.version, unstored.lane, unstored.since);
            let append = append(&mut unstored.batch, version, lane, since);
            let (false, Some(append)) = (abandoned, append) else {
                unstored.storable = false;
                continue;
            };
            let spill = self.clone();
            let complete = Box::new(move |result| spill.spilled(id, result));
            match self.disk.append(append, complete) {
                Ok(()) => {
                    tenants.insert(unstored.batch.tenant().cloned());
                    if let Some(Residence::Memory(unstored)) = state.residents.take(id) {
                        let spilling = Residence::Spilling(unstored, None);
                        state.residents.put(id, spilling);
                    }
                }
                Err(Refused::TooLarge(..)) => unstored.storable = false,
                Err(Refused::Busy(..)) => {
                    spilled = Err(Unspilled::Busy);
                    break;
                }
                Err(Refused::Full(..) | Refused::Closed(..)) => {
                    spilled = Err(Unspilled::Full);
                    break;
                }
            }
        }
        if !tenants.is_empty() {
            // Senders that are answered once batches are stored send more at once: these lanes must
            // hold.
            self.queue.hold(|tenant| tenants.contains(tenant));
        }
        spilled
    }

    /// Completes the append of a batch that is also in memory.
    fn spilled(&self, id: u64, result: Result<Entry, AppendError>) {
        let mut state = self.state();
        let Some(Residence::Spilling(mut unstored, fate)) = state.residents.take(id) else {
            return;
        };
        let ticket = match result {
            Ok(entry) => {
                let tenant = unstored.batch.tenant();
                self.accounts.moved(tenant, unstored.tally);
                match fate {
                    Some(fate) => self.done(&entry, fate),
                    None => {
                        let paused = state.backlog.is_paused(&tenant.cloned());
                        state.residents.put(id, Residence::Both(entry));
                        if paused {
                            self.evict(&mut state, tenant);
                        }
                    }
                }
                unstored.ticket.take()
            }
            Err(error) => {
                append_failed(self, &error);
                match fate {
                    Some(fate) => {
                        let tenant = unstored.batch.tenant();
                        self.accounts.settled(tenant, unstored.tally, fate);
                    }
                    None => {
                        // The append is retried later.
                        state.residents.refresh(unstored.lane);
                        state.residents.put(id, Residence::Memory(unstored));
                    }
                }
                None
            }
        };
        drop(state);
        self.appended.notify_waiters();
        if let Some(ticket) = ticket {
            ticket.report(Outcome::Delivered);
        }
    }

    /// Completes the append of a batch that is not in memory.
    fn written(&self, id: u64, result: Result<Entry, AppendError>) {
        let mut state = self.state();
        let Some(Residence::Writing(unstored)) = state.residents.take(id) else {
            return;
        };
        let Unstored {
            batch,
            ticket,
            tally,
            lane,
            ..
        } = unstored;
        let mut report = None;
        match result {
            Ok(entry) => {
                state.backlog.add(&entry);
                self.accounts.moved(batch.tenant(), tally);
                match ticket {
                    Some(ticket) if !ticket.until_stored() => {
                        state.waiting.insert(entry.position.0, (entry, ticket));
                    }
                    ticket => report = ticket.map(|ticket| (ticket, Outcome::Delivered)),
                }
                self.readable.notify_one();
            }
            Err(error) => {
                state.backlog.leave(lane);
                append_failed(self, &error);
                match ticket {
                    // The sender still has the batch, so it counts as never received.
                    Some(ticket) => {
                        self.accounts.moved(batch.tenant(), tally);
                        report = Some((ticket, Outcome::failed(error.to_string())));
                    }
                    None => {
                        let fate = Fate::Dropped(Reason::DiskFailed);
                        self.accounts.settled(batch.tenant(), tally, fate);
                        *self.not_written() += tally;
                    }
                }
            }
        }
        drop(state);
        self.appended.notify_waiters();
        if let Some((ticket, outcome)) = report {
            ticket.report(outcome);
        }
    }
}

/// Splits a ticket by what its sender waits for: one for delivery stays with the batch in memory,
/// one for storage goes with the append.
pub(super) fn split(ticket: Option<Ticket>) -> (Option<Ticket>, Option<Ticket>) {
    match ticket {
        Some(ticket) if ticket.until_stored() => (None, Some(ticket)),
        other => (other, None),
    }
}

/// The append of a batch; `None` if the batch cannot be encoded.
fn append(batch: &mut Batch, version: Version, lane: u64, since: Instant) -> Option<Append> {
    let body = batch.body(version).ok()?;
    let age = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
    Some(Append {
        tenant: batch.tenant().cloned().unwrap_or_default(),
        lane,
        accepted_at: now_millis().saturating_sub(age),
        version,
        counts: batch.counts(),
        checked: batch.is_checked(),
        body,
    })
}
