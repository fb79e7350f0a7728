//! The ledger of the queue on disk: exact accounts for a bounded number of tenants.
//!
//! A tenant gets a line of its own while lines are free; the others share one. Only lines without a
//! record in the queue are reassigned, and new ones are given out only while the shared line has no
//! record either. A record is therefore finished in the line in which it was entered.

use std::collections::HashMap;
use std::sync::Arc;

pub use metrifold_model::ledger::{Account, Reason, Tally};

/// Index of a line in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot(usize);

/// The line shared by tenants without one of their own.
const REST: Slot = Slot(0);
/// The line of records that were lost together with their tenant's name. It is shown with the rest,
/// but does not keep tenants from getting lines.
pub(super) const UNKNOWN: Slot = Slot(1);
const NAMED: usize = 2;

/// The most bytes of a line in a checkpoint, without the tenant's name: the name's length, two
/// tallies, the number of reasons, and for each a code and a tally.
const LINE_BYTES: usize = 2 + 2 * 32 + 1 + Reason::ALL.len() * 33;

/// Accounts of the records of one segment, by line.
pub(super) type Accounts = HashMap<Slot, Account, foldhash::fast::RandomState>;

/// Counts of the records that exist, by line.
pub(super) type HeldByLine = HashMap<Slot, Tally, foldhash::fast::RandomState>;

/// A tenant's line as read: its account, and the records that exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantReading {
    /// Tenant of the line; empty for records without a tenant and for the shared line.
    pub tenant: Arc<str>,
    /// Account of the tenant.
    pub account: Account,
    /// Records in the queue, counted independently of the account.
    pub held: Tally,
    /// Number of the line, unique over time: a tenant that loses its line and gets another has a
    /// new number.
    pub number: u64,
}

#[derive(Debug)]
struct Entered {
    tenant: Arc<str>,
    /// Account of removed segments.
    base: Account,
    /// Account of existing segments.
    live: Account,
    /// Number of existing segments with an account for this line.
    segments: usize,
    number: u64,
}

impl Entered {
    fn new(tenant: Arc<str>, number: u64) -> Self {
        Self {
            tenant,
            number,
            base: Account::default(),
            live: Account::default(),
            segments: 0,
        }
    }
}

/// All lines.
#[derive(Debug)]
pub(super) struct Ledger {
    lines: Vec<Entered>,
    slots: HashMap<Arc<str>, Slot>,
    max: usize,
    /// Total length of all names.
    name_bytes: usize,
    /// Number of lines that were ever created.
    entered: u64,
    /// Counter that increases with every change, so that equal values mean equal states.
    pub(super) changes: u64,
}

impl Ledger {
    pub(super) fn new(max: usize) -> Self {
        Self {
            lines: [REST, UNKNOWN]
                .map(|_| Entered::new(Arc::from(""), 0))
                .into(),
            slots: HashMap::new(),
            max,
            name_bytes: 0,
            entered: 0,
            changes: 0,
        }
    }

    /// The most bytes of a checkpoint.
    pub(super) fn footprint(&self) -> u64 {
        (64 + self.name_bytes + self.lines.len() * LINE_BYTES) as u64
    }

    /// The bytes that a checkpoint grows by when this tenant gets a line.
    pub(super) fn line_cost(&self, tenant: &str) -> u64 {
        match self.slots.contains_key(tenant) {
            true => 0,
            false => (LINE_BYTES + tenant.len()) as u64,
        }
    }

    /// The line of this tenant's records in the queue.
    pub(super) fn slot(&self, tenant: &str) -> Slot {
        self.slots.get(tenant).copied().unwrap_or(REST)
    }

    /// Bytes in the queue of this tenant, or of all tenants that share its line.
    pub(super) fn queued_bytes(&self, tenant: &str) -> u64 {
        self.lines[self.slot(tenant).0].live.queued().bytes
    }

    /// The tenant's name, shared with its line if it has one.
    pub(super) fn name(&self, tenant: &str) -> Arc<str> {
        match self.slots.get_key_value(tenant) {
            Some((name, _)) => name.clone(),
            None => Arc::from(tenant),
        }
    }

    /// The line for a new record of this tenant; creates or reassigns one if possible.
    pub(super) fn enter(&mut self, tenant: &Arc<str>) -> Slot {
        if let Some(slot) = self.slots.get(tenant) {
            return *slot;
        }
        if self.lines[0].segments > 0 {
            return REST;
        }
        let number = self.entered + 1;
        if self.lines.len() < NAMED + self.max {
            self.entered = number;
            let slot = Slot(self.lines.len());
            self.name_bytes += tenant.len();
            self.lines.push(Entered::new(tenant.clone(), number));
            self.slots.insert(tenant.clone(), slot);
            return slot;
        }
        let named = self.lines.iter().enumerate().skip(NAMED);
        let unused = named.filter(|(_, line)| line.segments == 0);
        let Some((index, _)) = unused.min_by_key(|(_, line)| line.base.received.samples) else {
            return REST;
        };
        self.entered = number;
        let new = Entered::new(tenant.clone(), number);
        let old = std::mem::replace(&mut self.lines[index], new);
        self.lines[0].base.add(&old.base);
        self.name_bytes += tenant.len();
        self.name_bytes -= old.tenant.len();
        self.slots.remove(&old.tenant);
        self.slots.insert(tenant.clone(), Slot(index));
        Slot(index)
    }

    /// Books a change in an existing segment.
    pub(super) fn change(&mut self, accounts: &mut Accounts, slot: Slot, change: &Account) {
        self.changes += 1;
        let line = &mut self.lines[slot.0];
        accounts
            .entry(slot)
            .or_insert_with(|| {
                line.segments += 1;
                Account::default()
            })
            .add(change);
        line.live.add(change);
    }

    /// Books all queued records of a segment as dropped; returns their counts.
    pub(super) fn drop_queued(&mut self, accounts: &mut Accounts, reason: Reason) -> Tally {
        self.changes += 1;
        let mut dropped = Tally::default();
        for (slot, account) in accounts {
            let change = account.drop_queued(reason);
            dropped += change.dropped.get(&reason).copied().unwrap_or_default();
            self.lines[slot.0].live.add(&change);
        }
        dropped
    }

    /// Replaces the booking of a record that was dropped to make room, but whose copy in memory met
    /// another fate: in the accounts of its segment, or in the history if that is gone. Returns
    /// false if the record is not booked as dropped.
    pub(super) fn rebook(
        &mut self,
        accounts: Option<&mut Accounts>,
        tenant: &str,
        tally: Tally,
        change: &Account,
    ) -> bool {
        let slot = self.slot(tenant);
        let made_room = Account {
            dropped: [(Reason::QueueFull, tally)].into(),
            ..Account::default()
        };
        let in_segment = accounts.is_some();
        let line = &mut self.lines[slot.0];
        let account = match accounts {
            Some(accounts) => accounts.get_mut(&slot),
            None => Some(&mut line.base),
        };
        let Some(account) = account else {
            return false;
        };
        let dropped = account.dropped.get(&Reason::QueueFull);
        let booked = dropped.copied().unwrap_or_default();
        if booked.batches < tally.batches
            || booked.samples < tally.samples
            || booked.uncounted < tally.uncounted
            || booked.bytes < tally.bytes
        {
            return false;
        }
        account.sub(&made_room);
        account.add(change);
        if in_segment {
            line.live.sub(&made_room);
            line.live.add(change);
        }
        self.changes += 1;
        true
    }

    /// Moves the accounts of a removed segment into the history.
    pub(super) fn fold(&mut self, accounts: &Accounts) {
        for (slot, account) in accounts {
            let line = &mut self.lines[slot.0];
            line.base.add(account);
            line.live.sub(account);
            line.segments -= 1;
        }
    }

    /// Adds to the history of a tenant, or of the shared line.
    pub(super) fn restore(&mut self, tenant: Option<&str>, account: &Account) {
        let slot = tenant.map_or(REST, |tenant| self.enter(&Arc::from(tenant)));
        self.lines[slot.0].base.add(account);
    }

    /// The history including that of some segments, the shared line first.
    pub(super) fn history<'a>(
        &self,
        folding: impl Iterator<Item = &'a Accounts>,
    ) -> Vec<(Arc<str>, Account)> {
        let line = |line: &Entered| (line.tenant.clone(), line.base.clone());
        let mut lines: Vec<_> = self.lines.iter().map(line).collect();
        for (slot, account) in folding.flatten() {
            lines[slot.0].1.add(account);
        }
        merge_unknown(lines)
    }

    /// The accounts of all lines, the shared line first.
    pub(super) fn totals(&self) -> Vec<(Arc<str>, Account)> {
        let total = |line: &Entered| {
            let mut account = line.base.clone();
            account.add(&line.live);
            (line.tenant.clone(), account)
        };
        merge_unknown(self.lines.iter().map(total).collect())
    }
}

impl Ledger {
    /// All lines with the records that they hold, the shared line first. Records in `on_the_way`
    /// are left out: their callers still account for them.
    pub(super) fn read<'a>(
        &self,
        held: impl Iterator<Item = &'a HeldByLine>,
        on_the_way: &[(Slot, Tally)],
    ) -> Vec<TenantReading> {
        let line = |line: &Entered| {
            let mut account = line.base.clone();
            account.add(&line.live);
            TenantReading {
                tenant: line.tenant.clone(),
                account,
                held: Tally::default(),
                number: line.number,
            }
        };
        let mut lines: Vec<TenantReading> = self.lines.iter().map(line).collect();
        for (slot, tally) in held.flatten() {
            lines[slot.0].held += *tally;
        }
        for (slot, tally) in on_the_way {
            lines[slot.0].account.received -= *tally;
            lines[slot.0].held -= *tally;
        }
        let unknown = lines.remove(UNKNOWN.0);
        lines[REST.0].account.add(&unknown.account);
        lines[REST.0].held += unknown.held;
        lines
    }
}

fn merge_unknown(mut lines: Vec<(Arc<str>, Account)>) -> Vec<(Arc<str>, Account)> {
    let (_, unknown) = lines.remove(UNKNOWN.0);
    lines[REST.0].1.add(&unknown);
    lines
}

#[cfg(test)]
mod tests {
    use super::super::checkpoint::Checkpoint;
    use super::super::format::FileHeader;
    use super::*;

    #[test]
    fn a_checkpoint_with_every_reason_fits_into_what_is_put_aside_for_it() {
        let mut ledger = Ledger::new(10);
        let one = Tally {
            batches: 1,
            samples: 1,
            uncounted: 1,
            bytes: 1,
        };
        let account = Account {
            received: one,
            delivered: one,
            dropped: Reason::ALL.map(|reason| (reason, one)).into(),
        };
        ledger.restore(None, &account);
        for tenant in 0..10 {
            ledger.restore(Some(&format!("tenant-{tenant}")), &account);
        }
        let checkpoint = Checkpoint {
            header: FileHeader { id: 1, first: 1 },
            lines: ledger.history(std::iter::empty()),
        };
        let length = checkpoint.encode().len() as u64;
        assert!(
            length <= ledger.footprint(),
            "{length} of {}",
            ledger.footprint()
        );
    }
}
