//! Books the end of batches, and drops by the disk itself.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

use metrifold_model::ledger::{Reason, Tally};
use metrifold_model::{Outcome, Ticket};

use super::Spill;
use super::residence::Residence;
use crate::disk::{Entry, Fate, Snapshot};
use crate::holdings::Holdings;
use crate::item::{Progress, Tracked};

impl Spill {
    /// Books the end of a part of a batch, and of the batch if it was the last part.
    pub fn finish(&self, tracked: &Tracked, progress: Progress, outcome: &Outcome) {
        let Some(fate) = tracked.finish(progress) else {
            return;
        };
        let mut state = self.state();
        let ticket = match state.residents.get(tracked.id) {
            Some(Residence::Spilling(..)) => state.residents.finish_spilling(tracked.id, fate),
            Some(Residence::Memory(_) | Residence::Both(_)) => {
                match state.residents.take(tracked.id) {
                    Some(Residence::Memory(unstored)) => {
                        drop(state);
                        self.drained.add(unstored.tally.bytes);
                        let tenant = unstored.batch.tenant();
                        self.accounts.settled(tenant, unstored.tally, fate);
                        unstored.ticket
                    }
                    Some(Residence::Both(entry)) => {
                        let others = state.backlog.unread(&entry);
                        drop(state);
                        if others {
                            self.readable.notify_one();
                        }
                        self.drained.add(u64::from(entry.body_length));
                        self.done(&entry, fate);
                        None
                    }
                    _ => None,
                }
            }
            Some(Residence::Writing(_)) | None => None,
        };
        if let Some(ticket) = ticket {
            ticket.report(outcome.clone());
        }
    }

    /// Books the fate of a record. Metrics have counted it already if it was dropped.
    pub(super) fn done(&self, entry: &Entry, fate: Fate) {
        if self.disk.done(entry, fate)
            && let Fate::Dropped(reason) = fate
        {
            *self.counted().entry(reason).or_default() +=
                Tally::of(entry.counts, entry.body_length);
        }
    }

    pub(super) fn counted(&self) -> MutexGuard<'_, BTreeMap<Reason, Tally>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn not_written(&self) -> MutexGuard<'_, Tally> {
        self.not_written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the disk itself has dropped since the last call.
    pub fn newly_dropped(&self, snapshot: &Snapshot) -> Vec<(Reason, Tally)> {
        let mut counted = self.counted();
        let mut new = Vec::new();
        let not_written = std::mem::take(&mut *self.not_written());
        if not_written.batches > 0 {
            new.push((Reason::DiskFailed, not_written));
        }
        for reason in [
            Reason::QueueFull,
            Reason::TooOld,
            Reason::Corrupt,
            Reason::Abandoned,
        ] {
            let total = snapshot.total.dropped.get(&reason).copied();
            let total = total.unwrap_or_default();
            let before = counted.get(&reason).copied().unwrap_or_default();
            let mut dropped = total;
            dropped -= before;
            // The total falls when a record that had made room is delivered after all. A counter
            // cannot decrease, so it waits until the total catches up.
            if dropped.batches > 0 {
                counted.insert(reason, total);
                new.push((reason, dropped));
            }
        }
        new
    }

    /// Whether the sender of a batch has been told to send it again.
    pub fn abandoned(&self, tracked: &Tracked) -> bool {
        let mut state = self.state();
        let unstored = state.residents.unstored(tracked.id);
        let ticket = unstored.and_then(|it| it.ticket.as_ref());
        ticket.is_some_and(Ticket::abandoned)
    }

    /// Removes a batch that is in memory alone. Returns its ticket and its counts in the accounts;
    /// `None` if it is on disk.
    pub fn forget(&self, tracked: &Tracked) -> Option<(Option<Ticket>, Tally)> {
        let mut state = self.state();
        state.residents.unstored(tracked.id)?;
        match state.residents.take(tracked.id)? {
            Residence::Memory(unstored) => Some((unstored.ticket, unstored.tally)),
            _ => None,
        }
    }

    /// Counts the batches for which the disk does not account.
    pub fn count(&self, holdings: &mut Holdings) {
        self.state().residents.count(holdings);
    }
}
