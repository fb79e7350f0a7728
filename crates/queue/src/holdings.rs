//! What a queue holds, counted from what holds it and not from the accounts: so that the accounts
//! can be held against it.
//!
//! A batch is in exactly one of these places from when it was received until it is settled:
//!
//! - it waits in the queue in memory and nothing on disk knows of it;
//! - it is a delivery in flight of which nothing on disk knows;
//! - the spill has it: in memory alone, or on its way to disk;
//! - it is a record on disk that is not done, whether or not memory has a copy.
//!
//! So a batch that the spill tracks counts where the spill or the disk has it, and nowhere else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use metrifold_model::Tenant;
use metrifold_model::ledger::Tally;

/// What is held, by tenant.
#[derive(Debug, Default)]
pub struct Holdings {
    /// Of batches without a tenant.
    pub none: Tally,
    /// By tenant.
    pub named: HashMap<Tenant, Tally, foldhash::fast::RandomState>,
    /// When the oldest of it came.
    pub oldest: Option<Instant>,
}

impl Holdings {
    /// Counts a batch.
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

/// The deliveries in flight of which nothing on disk knows.
#[derive(Debug, Default)]
pub struct InFlight(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    taken: Vec<Option<(Option<Tenant>, Tally, Instant)>>,
    free: Vec<usize>,
}

/// Notes that a delivery is in flight, until it is dropped.
#[derive(Debug)]
pub struct InFlightMark {
    of: Arc<InFlight>,
    index: usize,
}

impl InFlight {
    /// No invariant spans a panic here: every change is complete.
    fn places(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a delivery.
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

    /// Counts all of them.
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
