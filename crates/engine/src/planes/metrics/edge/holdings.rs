//! What an edge holds, counted from what holds it and not from the accounts: so that the accounts
//! can be held against it.
//!
//! A batch is in exactly one of these places from when it was received until it is settled:
//!
//! - it waits in the queue in memory and nothing on disk knows of it;
//! - it is a delivery under way of which nothing on disk knows;
//! - the store has it: in memory alone, or on its way to disk;
//! - it is a record on disk that is not done, whether or not memory has a copy.
//!
//! So a batch that is `kept` counts where the store or the disk has it, and nowhere else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use metrifold_model::Tenant;
use metrifold_model::ledger::Tally;

/// What is held, by tenant.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) none: Tally,
    pub(super) named: HashMap<Tenant, Tally, foldhash::fast::RandomState>,
    /// When the oldest of it came.
    pub(super) oldest: Option<Instant>,
}

impl Held {
    pub(super) fn add(&mut self, tenant: Option<&Tenant>, tally: Tally, since: Option<Instant>) {
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

/// The deliveries under way of which nothing on disk knows.
#[derive(Debug, Default)]
pub(super) struct UnderWay(Mutex<Places>);

#[derive(Debug, Default)]
struct Places {
    taken: Vec<Option<(Option<Tenant>, Tally, Instant)>>,
    free: Vec<usize>,
}

/// Says that something is under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    of: Arc<UnderWay>,
    index: usize,
}

impl UnderWay {
    /// No invariant spans a panic here: every change is complete.
    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a delivery.
    pub(super) fn note(
        self: &Arc<Self>,
        tenant: Option<&Tenant>,
        tally: Tally,
        since: Instant,
    ) -> Place {
        let noted = Some((tenant.cloned(), tally, since));
        let mut places = self.places();
        let index = places.free.pop().unwrap_or(places.taken.len());
        match places.taken.get_mut(index) {
            Some(free) => *free = noted,
            None => places.taken.push(noted),
        }
        Place {
            of: self.clone(),
            index,
        }
    }

    pub(super) fn count(&self, held: &mut Held) {
        for (tenant, tally, since) in self.places().taken.iter().flatten() {
            held.add(tenant.as_ref(), *tally, Some(*since));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.of.places();
        if let Some(taken) = places.taken.get_mut(self.index) {
            *taken = None;
        }
        places.free.push(self.index);
    }
}
