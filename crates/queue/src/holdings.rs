//! The batches that a queue holds, counted where they are held. The count is independent of the
//! accounts, which are checked against it.
//!
//! From its arrival until it is settled, a batch is in exactly one of these places:
//!
//! - the queue in memory, if the spill does not track it;
//! - a delivery in flight, if the spill does not track it;
//! - the spill: in memory alone, or on its way to disk;
//! - a record on disk that is not done, whether or not memory has a copy.
//!
//! A batch that the spill tracks therefore counts only where the spill or the disk has it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use metrifold_model::Tenant;
use metrifold_model::ledger::Tally;

/// Counts of held batches by tenant.
#[derive(Debug, Default)]
pub struct Holdings {
    /// Counts of batches without a tenant.
    pub none: Tally,
    /// Counts by tenant.
    pub named: HashMap<Tenant, Tally, foldhash::fast::RandomState>,
    /// Arrival of the oldest batch.
    pub oldest: Option<Instant>,
}

impl Holdings {
    /// Adds a batch.
    pub fn add(&mut self, tenant: Option<&Tenant>, tally: Tally, since: Option<Instant>) {
        match tenant {
            None => self.none += tally,
            Some(tenant) => match self.named.get_mut(&**tenant) {
                Some(held) => *held += tally,
                None => drop(self.named.insert(tenant.clone(), tally)),
            },
        }
        self.oldest = self.oldest.into_iter().chain(since).min();
    }
}

/// The deliveries in flight that the spill does not track.
#[derive(Debug, Default)]
pub struct InFlight(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    taken: Vec<Option<(Option<Tenant>, Tally, Instant)>>,
    free: Vec<usize>,
}

/// Keeps a delivery noted as in flight until it is dropped.
#[derive(Debug)]
pub struct InFlightMark {
    of: Arc<InFlight>,
    index: usize,
}

impl InFlight {
    /// Locks the notes. A poisoned lock is used on: every change is complete, so no invariant spans
    /// a panic.
    fn places(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a delivery as in flight.
    pub fn note(
        self: &Arc<Self>,
        tenant: Option<&Tenant>,
        tally: Tally,
        since: Instant,
    ) -> InFlightMark {
        let noted = Some((tenant.cloned(), tally, since));
        let mut places = self.places();
        let index = places.free.pop().unwrap_or(places.taken.len());
        match places.taken.get_mut(index) {
            Some(free) => *free = noted,
            None => places.taken.push(noted),
        }
        InFlightMark {
            of: self.clone(),
            index,
        }
    }

    /// Adds all noted deliveries to `held`.
    pub fn count(&self, held: &mut Holdings) {
        for (tenant, tally, since) in self.places().taken.iter().flatten() {
            held.add(tenant.as_ref(), *tally, Some(*since));
        }
    }
}

impl Drop for InFlightMark {
    fn drop(&mut self) {
        let mut places = self.of.places();
        if let Some(taken) = places.taken.get_mut(self.index) {
            *taken = None;
        }
        places.free.push(self.index);
    }
}
