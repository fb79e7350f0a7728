//! Accounts of a queue by tenant: batches that arrived in this process, and those that were
//! delivered or dropped without being on disk.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tracing::error;

use metrifold_model::Tenant;
use metrifold_model::ledger::{Account, Ledger, Line, Reason, Tally};

use crate::disk::Fate;
use crate::holdings::Holdings;

/// The most tenants with a line of their own; the others share one.
const MAX_TENANTS: usize = 1000;

/// The accounts of a queue, without those of the queue on disk.
#[derive(Debug, Default)]
pub struct Accounts(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    /// Account of batches without a tenant.
    none: Account,
    named: HashMap<Tenant, Account, foldhash::fast::RandomState>,
    rest: Account,
    changes: u64,
}

impl Lines {
    fn line(&mut self, tenant: Option<&Tenant>) -> &mut Account {
        let Some(tenant) = tenant else {
            return &mut self.none;
        };
        if !self.named.contains_key(tenant) {
            if self.named.len() >= MAX_TENANTS {
                return &mut self.rest;
            }
            self.named.insert(tenant.clone(), Account::default());
        }
        self.named.get_mut(tenant).unwrap_or(&mut self.rest)
    }
}

impl Accounts {
    /// Locks the lines. A poisoned lock is used on: the lines are sums, so no invariant spans a
    /// panic.
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the lines for a change, which it counts.
    fn lines(&self) -> MutexGuard<'_, Lines> {
        let mut lines = self.lock();
        lines.changes += 1;
        lines
    }

    /// Books a batch as received.
    pub fn received(&self, tenant: Option<&Tenant>, tally: Tally) {
        self.lines().line(tenant).received += tally;
    }

    /// Books the end of a batch.
    pub fn settled(&self, tenant: Option<&Tenant>, tally: Tally, fate: Fate) {
        let mut lines = self.lines();
        let account = lines.line(tenant);
        match fate {
            Fate::Delivered => account.delivered += tally,
            Fate::Dropped(_) if tally.is_zero() => {}
            Fate::Dropped(reason) => *account.dropped.entry(reason).or_default() += tally,
            Fate::Partly { dropped, reason } => {
                // Not in the books, which must balance, and therefore in the log: somebody counted twice.
                if dropped > tally.samples && tally.uncounted == 0 {
                    error!(
                        dropped,
                        samples = tally.samples,
                        "more was booked as lost than there was"
                    );
                }
                let dropped = Tally {
                    samples: dropped.min(tally.samples),
                    ..Tally::default()
                };
                let mut delivered = tally;
                delivered -= dropped;
                account.delivered += delivered;
                if !dropped.is_zero() {
                    *account.dropped.entry(reason).or_default() += dropped;
                }
            }
        }
    }

    /// Books a batch that was refused on arrival.
    pub fn refused(&self, tenant: Option<&Tenant>, tally: Tally, reason: Reason) {
        self.received(tenant, tally);
        self.settled(tenant, tally, Fate::Dropped(reason));
    }

    /// Removes a batch from the accounts, since another account has taken it over or it was never
    /// received.
    pub fn moved(&self, tenant: Option<&Tenant>, tally: Tally) {
        self.lines().line(tenant).received -= tally;
    }

    /// The batches for which these accounts still answer: received, neither settled nor moved to
    /// another account. One reading of all lines, so a batch that moves meanwhile, from the queue
    /// into flight or back, is neither missed nor counted twice.
    pub fn queued(&self) -> Tally {
        let lines = self.lock();
        let mut queued = lines.none.queued();
        for account in lines.named.values().chain([&lines.rest]) {
            queued += account.queued();
        }
        queued
    }

    /// Counter that increases with every change.
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// The ledger of these accounts and of the batches that are held, and the value of
    /// [`changes`](Self::changes) for it.
    pub fn ledger(&self, held: &Holdings, since: SystemTime) -> (Ledger, u64) {
        let lines = self.lock();
        let line = |account: &Account| Line {
            account: account.clone(),
            ..Line::default()
        };
        let mut rest = line(&lines.rest);
        let mut tenants: BTreeMap<Arc<str>, Line> = BTreeMap::new();
        for (tenant, account) in &lines.named {
            if *account != Account::default() {
                tenants.insert(tenant.clone(), line(account));
            }
        }
        if lines.none != Account::default() || !held.none.is_zero() {
            let none = tenants.entry(Arc::from("")).or_default();
            *none = line(&lines.none);
            none.queued = held.none;
        }
        // A held batch counts in the line in which it was booked as received.
        for (tenant, tally) in &held.named {
            let shares = lines.named.len() >= MAX_TENANTS && !lines.named.contains_key(tenant);
            match shares {
                true => rest.queued += *tally,
                false => tenants.entry(tenant.clone()).or_default().queued += *tally,
            }
        }
        (Ledger::new(tenants, rest, since), lines.changes)
    }
}
