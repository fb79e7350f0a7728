//! What came to a sink in this process and what became of it, by tenant.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::queue::disk::{self, Account, Fate, Reason, Tally};
use crate::signal::Tenant;

/// The tenants that have a line of their own. The others share one.
const MAX_TENANTS: usize = 1000;

/// The accounts of an edge, without what its queue on disk accounts for.
#[derive(Debug, Default)]
pub(super) struct Accounts(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    /// Of batches without a tenant.
    none: Account,
    named: HashMap<Tenant, Account, foldhash::fast::RandomState>,
    rest: Account,
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
    /// No invariant spans a panic here: sums are all there is.
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It came.
    pub(super) fn received(&self, tenant: Option<&Tenant>, tally: Tally) {
        self.lines().line(tenant).received += tally;
    }

    /// It came to its end.
    pub(super) fn settled(&self, tenant: Option<&Tenant>, tally: Tally, fate: Fate) {
        let mut lines = self.lines();
        let account = lines.line(tenant);
        match fate {
            Fate::Delivered => account.delivered += tally,
            Fate::Dropped(reason) => *account.dropped.entry(reason).or_default() += tally,
            Fate::Partly { dropped, reason } => {
                let dropped = Tally {
                    samples: dropped.min(tally.samples),
                    ..Tally::default()
                };
                let mut delivered = tally;
                delivered -= dropped;
                account.delivered += delivered;
                *account.dropped.entry(reason).or_default() += dropped;
            }
        }
    }

    /// It came and went no further.
    pub(super) fn refused(&self, tenant: Option<&Tenant>, tally: Tally, reason: Reason) {
        self.received(tenant, tally);
        self.settled(tenant, tally, Fate::Dropped(reason));
    }

    /// It is accounted for elsewhere from now on.
    pub(super) fn moved(&self, tenant: Option<&Tenant>, tally: Tally) {
        self.lines().line(tenant).received -= tally;
    }

    /// All accounts, with those of a queue on disk.
    pub(super) fn ledger(&self, disk: Option<disk::Snapshot>) -> Ledger {
        let lines = self.lines();
        let mut ledger = Ledger {
            rest: lines.rest.clone(),
            ..Ledger::default()
        };
        let mut tenants: BTreeMap<Arc<str>, Account> = BTreeMap::new();
        for (tenant, account) in &lines.named {
            tenants.insert(tenant.clone(), account.clone());
        }
        if lines.none != Account::default() {
            tenants.insert(Arc::from(""), lines.none.clone());
        }
        drop(lines);
        if let Some(disk) = disk {
            ledger.rest.add(&disk.rest);
            for (tenant, account) in disk.tenants {
                tenants.entry(tenant).or_default().add(&account);
            }
        }
        for account in tenants.values().chain([&ledger.rest]) {
            ledger.total.add(account);
        }
        ledger.tenants = tenants;
        ledger
    }
}

/// What came to a sink and what became of it. What is missing in an account is queued.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// By tenant; the name of none is empty.
    pub tenants: BTreeMap<Arc<str>, Account>,
    /// Of all tenants that have no line of their own.
    pub rest: Account,
    /// Of all together.
    pub total: Account,
}

/// The reasons under which sinks give samples up, by the codes under which a queue on disk keeps
/// them: those are there for good.
const REASONS: [(&str, Reason); 17] = [
    ("queue_full", Reason::QUEUE_FULL),
    ("too_old", Reason::TOO_OLD),
    ("corrupt", Reason::CORRUPT),
    ("abandoned", ABANDONED),
    ("invalid", Reason(17)),
    ("too_large", Reason(18)),
    ("partial", Reason(19)),
    ("refused", Reason(20)),
    ("unauthorized", Reason(21)),
    ("not_written", Reason(22)),
    ("not_in_remote_write_1.0", Reason(23)),
    ("shutdown", Reason(24)),
    ("removed", Reason(25)),
    ("sink_died", Reason(26)),
    ("disk_failed", DISK_FAILED),
    ("dead_letter", Reason(28)),
    ("other", OTHER),
];

pub(super) const ABANDONED: Reason = Reason(16);
pub(super) const DISK_FAILED: Reason = Reason(27);
pub(super) const OTHER: Reason = Reason(255);

/// The code of a reason.
pub(super) fn code(name: &str) -> Reason {
    let known = REASONS.iter().find(|(known, _)| *known == name);
    known.map_or(OTHER, |(_, code)| *code)
}

/// The name of a reason in a ledger.
pub fn reason_name(code: Reason) -> &'static str {
    let known = REASONS.iter().find(|(_, known)| *known == code);
    known.map_or("other", |(name, _)| name)
}
