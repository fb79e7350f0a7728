//! The ledger of a sink: batches that arrived on one side, batches delivered, dropped or queued on
//! the other, and whether both sides agree.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrifold_model::ledger::{Account, Ledger, Line};
use metrifold_queue::{Holdings, age, disk, now_millis};

use super::Pipe;

/// Accounts of the queue on disk from before this process opened it, by tenant.
#[derive(Debug, Default)]
pub(super) struct Before {
    tenants: BTreeMap<Arc<str>, Account>,
    rest: Account,
}

impl Before {
    pub(super) fn of(opened: disk::Reading) -> Self {
        let done = |line: &disk::TenantReading| {
            let mut account = line.account.clone();
            account.received -= account.queued();
            account
        };
        Self {
            rest: done(&opened.rest),
            tenants: opened
                .tenants
                .iter()
                .map(|line| (line.tenant.clone(), done(line)))
                .collect(),
        }
    }
}

/// Attempts at reading a consistent ledger, if batches move while it is read.
const TRIES: usize = 4;

impl Pipe {
    /// Reads both sides. They are of the same moment only if the ledger is `steady`.
    pub(super) fn ledger(&self) -> Ledger {
        let mut ledger = self.read_ledger();
        for _ in 1..TRIES {
            if ledger.balances() {
                break;
            }
            ledger = self.read_ledger();
        }
        ledger
    }

    fn read_ledger(&self) -> Ledger {
        let spill = self.spill.get();
        let before = self.accounts.changes();
        let on_disk = spill.map(|spill| spill.disk().read_ledger());
        let held = self.held();
        let (mut ledger, after) = self.accounts.ledger(&held, self.since);
        let disk_after = spill.map_or(0, |spill| spill.disk().changes());
        ledger.oldest = held.oldest.map(|oldest| oldest.elapsed());
        let disk_before = on_disk.as_ref().map_or(0, |reading| reading.changes);
        let complete = on_disk.as_ref().is_none_or(|reading| reading.complete);
        if let Some(reading) = on_disk {
            ledger.add_disk(reading, self.before.get());
        }
        ledger.steady = complete && before == after && disk_before == disk_after;
        ledger.changes = (after, disk_after);
        ledger
    }

    /// The batches that are held in memory, those in flight included.
    pub(super) fn held(&self) -> Holdings {
        let mut held = Holdings::default();
        self.queue.for_each(|queued, _| {
            if queued.tracked.is_none() {
                held.add(queued.batch.tenant(), queued.tally, Some(queued.since));
            }
        });
        self.in_flight.count(&mut held);
        if let Some(spill) = self.spill.get() {
            spill.count(&mut held);
        }
        held
    }
}

trait AddDisk {
    fn add_disk(&mut self, reading: disk::Reading, before: Option<&Before>);
}

impl AddDisk for Ledger {
    fn add_disk(&mut self, reading: disk::Reading, before: Option<&Before>) {
        self.on_disk = true;
        let none = Before::default();
        let before = before.unwrap_or(&none);
        let of = |line: &disk::TenantReading, before: Option<&Account>| Line {
            account: line.account.clone(),
            queued: line.held,
            before: before.cloned().unwrap_or_default(),
            on_disk: line.number,
        };
        let memory = self.total.queued.batches;
        for line in &reading.tenants {
            let line_before = before.tenants.get(&line.tenant);
            let line_of = of(line, line_before);
            self.total.add(&line_of);
            self.tenants
                .entry(line.tenant.clone())
                .or_default()
                .add(&line_of);
        }
        // Tenants that have lost their lines on disk since: their accounts are part of the rest.
        for (tenant, account) in &before.tenants {
            if !reading.tenants.iter().any(|line| line.tenant == *tenant) {
                self.rest.before.add(account);
                self.total.before.add(account);
            }
        }
        let rest = of(&reading.rest, Some(&before.rest));
        self.rest.add(&rest);
        self.total.add(&rest);
        // The lines count batches by their movements, the total by the records that exist.
        self.total.queued.batches = memory + reading.records;
        let age = |accepted| age(accepted, now_millis());
        self.oldest = self.oldest.into_iter().chain(reading.oldest.map(age)).max();
    }
}

#[cfg(test)]
mod tests;
