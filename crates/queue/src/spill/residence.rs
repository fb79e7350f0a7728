//! The residence of each batch that the spill tracks: in memory, on disk, or in both. The table of
//! transitions is in the module above.

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;

use metrifold_codec::Batch;
use metrifold_model::ledger::Tally;
use metrifold_model::{Ticket, Version};

use crate::disk::{Entry, Fate};
use crate::holdings::Holdings;
use crate::tally;

type Map<V> = HashMap<u64, V, foldhash::fast::RandomState>;

/// Residence of a batch. A batch on disk alone has none: it is in the backlog.
#[derive(Debug)]
pub(super) enum Residence {
    /// In memory alone.
    Memory(Unstored),
    /// In memory, and on its way to disk. Holds the fate if the batch was finished meanwhile, which
    /// is booked once the append is complete.
    Spilling(Unstored, Option<Fate>),
    /// In memory and on disk.
    Both(Entry),
    /// On its way to disk, and not in memory.
    Writing(Unstored),
}

/// A batch for which the spill accounts, because the disk does not account for it yet.
#[derive(Debug)]
pub(super) struct Unstored {
    pub(super) batch: Batch,
    pub(super) version: Version,
    pub(super) lane: u64,
    /// Ticket of a sender that waits until the batch is stored; in `Writing`, of any sender that
    /// waits.
    pub(super) ticket: Option<Ticket>,
    pub(super) tally: Tally,
    pub(super) since: Instant,
    /// False if the batch is too large for the disk, or its sender sends it again.
    pub(super) storable: bool,
}

impl Unstored {
    pub(super) fn new(
        batch: Batch,
        version: Version,
        lane: u64,
        ticket: Option<Ticket>,
        since: Instant,
    ) -> Self {
        Self {
            tally: tally(&batch),
            version,
            batch,
            lane,
            ticket,
            since,
            storable: true,
        }
    }
}

/// The batches with a residence, by id. Ids follow the order of arrival.
#[derive(Debug, Default)]
pub(super) struct Residents {
    all: Map<Residence>,
    /// Ids of the batches in memory alone.
    memory: BTreeSet<u64>,
    /// Number of batches on their way to disk.
    under_way: usize,
    /// Batches that are in memory and also on disk, or on their way there, by lane.
    copies: Map<Copies>,
    next: u64,
}

/// The batches of a lane that are in memory and also on disk, or on their way there.
#[derive(Debug, Default)]
struct Copies {
    count: usize,
    newest: u64,
}

impl Residents {
    /// Adds a batch; returns its id.
    pub(super) fn insert(&mut self, residence: Residence) -> u64 {
        let id = self.next;
        self.next += 1;
        self.put(id, residence);
        id
    }

    /// Adds a batch again under the id with which it was taken.
    pub(super) fn put(&mut self, id: u64, residence: Residence) {
        match &residence {
            Residence::Memory(_) => drop(self.memory.insert(id)),
            Residence::Spilling(Unstored { lane, .. }, _) => {
                self.under_way += 1;
                self.add_copy(*lane, id);
            }
            Residence::Both(entry) => self.add_copy(entry.lane, id),
            Residence::Writing(_) => self.under_way += 1,
        }
        self.all.insert(id, residence);
    }

    /// Removes a batch.
    pub(super) fn take(&mut self, id: u64) -> Option<Residence> {
        let residence = self.all.remove(&id)?;
        match &residence {
            Residence::Memory(_) => drop(self.memory.remove(&id)),
            Residence::Spilling(Unstored { lane, .. }, _) => {
                self.under_way -= 1;
                self.remove_copy(*lane);
            }
            Residence::Both(entry) => self.remove_copy(entry.lane),
            Residence::Writing(_) => self.under_way -= 1,
        }
        Some(residence)
    }

    pub(super) fn get(&self, id: u64) -> Option<&Residence> {
        self.all.get(&id)
    }

    /// A batch that is in memory alone.
    pub(super) fn unstored(&mut self, id: u64) -> Option<&mut Unstored> {
        match self.all.get_mut(&id)? {
            Residence::Memory(unstored) => Some(unstored),
            _ => None,
        }
    }

    /// Records the fate of a batch that is still on its way to disk. Returns the ticket of its
    /// sender, which need not wait for the disk.
    pub(super) fn finish_spilling(&mut self, id: u64, of: Fate) -> Option<Ticket> {
        match self.all.get_mut(&id)? {
            Residence::Spilling(unstored, fate) => {
                *fate = Some(of);
                unstored.ticket.take()
            }
            _ => None,
        }
    }

    fn add_copy(&mut self, lane: u64, id: u64) {
        let copies = self.copies.entry(lane).or_default();
        copies.count += 1;
        copies.newest = copies.newest.max(id);
    }

    fn remove_copy(&mut self, lane: u64) {
        if let Slot::Occupied(mut copies) = self.copies.entry(lane) {
            copies.get_mut().count -= 1;
            if copies.get().count == 0 {
                copies.remove();
            }
        }
    }

    /// Finds the newest copy of a lane again, after one could not be written.
    pub(super) fn refresh(&mut self, lane: u64) {
        let copies = self.all.iter().filter(|(_, residence)| match residence {
            Residence::Spilling(unstored, _) => unstored.lane == lane,
            Residence::Both(entry) => entry.lane == lane,
            Residence::Memory(_) | Residence::Writing(_) => false,
        });
        let newest = copies.map(|(id, _)| *id).max();
        if let (Some(copies), Some(newest)) = (self.copies.get_mut(&lane), newest) {
            copies.newest = newest;
        }
    }

    /// Whether a batch of this lane is in memory and also on disk, or on its way there.
    pub(super) fn has_copy(&self, lane: u64) -> bool {
        self.copies.contains_key(&lane)
    }

    /// Whether such a batch is newer than this one.
    pub(super) fn has_newer_copy(&self, lane: u64, id: u64) -> bool {
        let copies = self.copies.get(&lane);
        copies.is_some_and(|copies| copies.newest > id)
    }

    /// The batches that are in memory alone, in the order of arrival.
    pub(super) fn in_memory(&self) -> impl Iterator<Item = (u64, &Unstored)> {
        self.memory.iter().filter_map(|id| match self.all.get(id)? {
            Residence::Memory(unstored) => Some((*id, unstored)),
            _ => None,
        })
    }

    /// Whether no batch is in memory alone.
    pub(super) fn is_all_stored(&self) -> bool {
        self.memory.is_empty()
    }

    /// Whether no batch is on its way to disk.
    pub(super) fn is_settled(&self) -> bool {
        self.under_way == 0
    }

    /// Counts the batches for which the disk does not account.
    pub(super) fn count(&self, holdings: &mut Holdings) {
        for residence in self.all.values() {
            match residence {
                Residence::Memory(it) | Residence::Spilling(it, _) => {
                    holdings.add(it.batch.tenant(), it.tally, Some(it.since));
                }
                Residence::Writing(it) => holdings.add(it.batch.tenant(), it.tally, None),
                Residence::Both(_) => {}
            }
        }
    }
}
