//! How batches come into memory and to disk.

use std::collections::HashSet;
use std::sync::{Arc, MutexGuard};

use tokio::time::Instant;

use metrifold_codec::Batch;
use metrifold_model::ledger::Reason;
use metrifold_model::{Outcome, Ticket, Version};
use metrifold_queue::disk::{Append, AppendError, Entry, Fate, Refused};

use super::super::{Incoming, Waiting, pump};
use super::state::{Copied, Direct, Fresh, Kept, State};
use super::{Store, Taken, now_millis, tally};

impl Store {
    /// Takes a batch into memory or to disk.
    pub(in super::super) fn push(self: &Arc<Self>, item: Incoming) -> Taken {
        let mut state = self.state();
        if state.closing {
            return Taken::Closed(item);
        }
        let behind = state.backlog.holds_back(&item.lane);
        let keeps = self.keeps();
        let tenant = &item.lane.tenant;
        let paused = state.backlog.is_paused(tenant);
        let at_once = behind || (keeps && (paused || self.is_failing()));
        // What is only in memory has to be on disk before what comes after it.
        let of = |fresh: &Fresh| self.is_failing() || fresh.batch.tenant() == tenant.as_ref();
        if !at_once || !self.flush(&mut state, of) {
            let weight = item.batch.weight();
            if !behind && self.queue.has_room(tenant, weight) {
                let lane = item.lane.id;
                // Its sender waits, and it is behind others for which he did: no need to wait for
                // as long again.
                let at_once = keeps && item.waits_for_disk() && state.copied.has(lane);
                self.keep_in_memory(&mut state, item, weight);
                if at_once {
                    self.flush(&mut state, |fresh| fresh.lane == lane);
                }
                return Taken::In;
            }
            if !keeps || !self.flush(&mut state, |_| true) {
                return Taken::Full(item);
            }
        }
        self.to_disk(state, item)
    }

    fn keep_in_memory(&self, state: &mut State, item: Incoming, weight: usize) {
        let Incoming {
            batch,
            ticket,
            since,
            lane,
            version,
            ..
        } = item;
        let tally = tally(&batch);
        self.accounts.received(batch.tenant(), tally);
        let (ticket, kept_ticket) = split(ticket);
        let fresh = Fresh::new(batch.clone(), version, lane.id, kept_ticket, since);
        if state.fresh.is_empty() {
            self.work.notify_one();
        }
        let kept = Some(Kept::new(state.keep(fresh)));
        let waiting = Waiting {
            batch,
            ticket,
            since,
            attempts: 0,
            tally,
            kept,
        };
        self.queue.push_anyway(waiting, weight, lane);
    }

    /// Appends a batch without keeping it in memory.
    fn to_disk(self: &Arc<Self>, mut state: MutexGuard<'_, State>, item: Incoming) -> Taken {
        let Incoming {
            mut batch,
            ticket,
            since,
            lane,
            version,
            grows,
        } = item;
        let id_of_lane = lane.id;
        let back = |batch, ticket| Incoming {
            batch,
            ticket,
            since,
            lane,
            version,
            grows,
        };
        let Some(append) = append(&mut batch, version, id_of_lane, since) else {
            return Taken::TooLarge(back(batch, ticket));
        };
        let id = state.next;
        state.next += 1;
        let tally = tally(&batch);
        let direct = Direct {
            batch,
            lane: id_of_lane,
            ticket,
            tally,
        };
        self.accounts.received(direct.batch.tenant(), tally);
        state.direct.insert(id, direct);
        state.backlog.enter(id_of_lane, id);
        // It is known to be under way, so nothing can pass it while the lock is not held.
        drop(state);
        let store = self.clone();
        let complete = Box::new(move |result| store.direct_done(id, result));
        let Err(refused) = self.disk.append(append, complete) else {
            return Taken::In;
        };
        let mut state = self.state();
        state.backlog.leave(id_of_lane);
        let direct = state.direct.remove(&id);
        drop(state);
        let Some(Direct { batch, ticket, .. }) = direct else {
            return Taken::In;
        };
        self.accounts.moved(batch.tenant(), tally);
        match refused {
            Refused::Full(..) | Refused::Busy(..) => Taken::Full(back(batch, ticket)),
            Refused::TooLarge(..) => Taken::TooLarge(back(batch, ticket)),
            Refused::Closed(..) => Taken::Closed(back(batch, ticket)),
        }
    }

    /// Appends what of these is in memory alone, as far as the disk takes it.
    pub(super) fn flush(
        self: &Arc<Self>,
        state: &mut State,
        which: impl Fn(&Fresh) -> bool,
    ) -> bool {
        let due = state.storable().filter(|(_, fresh)| which(fresh));
        let due: Vec<u64> = due.map(|(id, _)| *id).collect();
        let mut clear = true;
        let mut tenants = HashSet::new();
        for id in due {
            let Some(fresh) = state.fresh.get_mut(&id) else {
                continue;
            };
            // Its sender sends it again.
            let abandoned = fresh.ticket.as_ref().is_some_and(Ticket::abandoned);
            let append = append(&mut fresh.batch, fresh.version, fresh.lane, fresh.since);
            let (false, Some(append)) = (abandoned, append) else {
                fresh.storable = false;
                continue;
            };
            let store = self.clone();
            let complete = Box::new(move |result| store.copy_done(id, result));
            match self.disk.append(append, complete) {
                Ok(()) => {
                    let lane = fresh.lane;
                    tenants.insert(fresh.batch.tenant().cloned());
                    let fresh = state.fresh.remove(&id);
                    let copied = Copied {
                        lane,
                        fresh,
                        entry: None,
                        fate: None,
                    };
                    state.copied.insert(id, copied);
                }
                Err(Refused::TooLarge(..)) => fresh.storable = false,
                Err(_) => {
                    clear = false;
                    break;
                }
            }
        }
        if !tenants.is_empty() {
            // Their senders will send more.
            self.queue.hold(|tenant| tenants.contains(tenant));
        }
        clear
    }

    /// A batch that is in memory has been appended, or not.
    fn copy_done(&self, id: u64, result: Result<Entry, AppendError>) {
        let mut state = self.state();
        let Some(mut copied) = state.copied.remove(id) else {
            return;
        };
        let Some(mut fresh) = copied.fresh.take() else {
            return;
        };
        match result {
            Ok(entry) => {
                let tenant = fresh.batch.tenant();
                self.accounts.moved(tenant, fresh.tally);
                match copied.fate {
                    Some(fate) => self.done(&entry, fate),
                    None => {
                        let paused = state.backlog.is_paused(&tenant.cloned());
                        copied.entry = Some(entry);
                        state.copied.insert(id, copied);
                        if paused {
                            self.shed(&mut state, tenant);
                        }
                    }
                }
            }
            Err(error) => {
                pump::append_failed(self, &error);
                match copied.fate {
                    Some(fate) => {
                        let tenant = fresh.batch.tenant();
                        self.accounts.settled(tenant, fresh.tally, fate);
                    }
                    None => {
                        // It is still in memory, and tried again.
                        let ticket = fresh.ticket.take();
                        state.copied.refresh(fresh.lane);
                        state.fresh.insert(id, Fresh { ticket, ..fresh });
                    }
                }
                drop(state);
                self.appended.notify_waiters();
                return;
            }
        }
        drop(state);
        self.appended.notify_waiters();
        if let Some(ticket) = fresh.ticket {
            ticket.report(Outcome::Delivered);
        }
    }

    /// A batch that is not in memory has been appended, or not.
    fn direct_done(&self, id: u64, result: Result<Entry, AppendError>) {
        let mut state = self.state();
        let direct = state.direct.remove(&id);
        let (mut ticket, mut lost) = (None, None);
        match (result, direct) {
            (Ok(entry), direct) => {
                state.backlog.add(&entry);
                ticket = direct.and_then(|direct| {
                    self.accounts.moved(direct.batch.tenant(), direct.tally);
                    direct.ticket
                });
                if ticket.as_ref().is_some_and(|ticket| !ticket.until_stored())
                    && let Some(ticket) = ticket.take()
                {
                    state.waiting.insert(entry.position.0, (entry, ticket));
                }
                self.readable.notify_one();
            }
            (Err(error), Some(direct)) => {
                state.backlog.leave(direct.lane);
                pump::append_failed(self, &error);
                lost = Some((direct, error));
            }
            (Err(_), None) => {}
        }
        drop(state);
        self.appended.notify_waiters();
        if let Some(ticket) = ticket {
            ticket.report(Outcome::Delivered);
        }
        if let Some((direct, error)) = lost {
            let (tenant, tally) = (direct.batch.tenant(), direct.tally);
            match direct.ticket {
                // Its sender still has it: it was never received.
                Some(ticket) => {
                    self.accounts.moved(tenant, tally);
                    ticket.report(Outcome::failed(error.to_string()));
                }
                None => {
                    let fate = Fate::Dropped(Reason::DiskFailed);
                    self.accounts.settled(tenant, tally, fate);
                    *self.not_written() += tally;
                }
            }
        }
    }
}

/// A ticket for who delivers the batch, or for who stores it.
pub(super) fn split(ticket: Option<Ticket>) -> (Option<Ticket>, Option<Ticket>) {
    match ticket {
        Some(ticket) if ticket.until_stored() => (None, Some(ticket)),
        other => (other, None),
    }
}

/// A batch as it is appended; none if it cannot be encoded.
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
