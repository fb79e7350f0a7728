//! Who sent how much and what became of it: exact, and bounded in tenants.
//!
//! A tenant has a line of its own as long as there are lines; the others share one. Only lines
//! without a record in the queue change hands, and new ones are made only while the shared line has
//! none either: so a record is found at its end in the line in which it was entered.

use std::collections::HashMap;
use std::sync::Arc;

pub use metrifold_model::ledger::{Account, Reason, Tally};

/// A line of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot(usize);

/// The line that tenants share who have none.
const REST: Slot = Slot(0);
/// What was lost with its tenant's name. It is shown with the rest, but does not keep tenants from
/// getting lines.
pub(super) const UNKNOWN: Slot = Slot(1);
const NAMED: usize = 2;

/// What a line takes in a checkpoint at most, without the tenant's name: its length, two tallies,
/// the number of reasons, and for each a code and a tally.
const LINE_BYTES: usize = 2 + 2 * 32 + 1 + Reason::ALL.len() * 33;

/// What became of the records of one segment, by line.
pub(super) type Accounts = HashMap<Slot, Account, foldhash::fast::RandomState>;

/// Records that are there, by line.
pub(super) type HeldByLine = HashMap<Slot, Tally, foldhash::fast::RandomState>;

/// The line of a tenant as it is read: what its account says, and what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantReading {
    /// Whose it is; empty if nobody's, and for the line of the rest.
    pub tenant: Arc<str>,
    /// What came and what became of it.
    pub account: Account,
    /// What is in the queue: counted from the records, not from the account.
    pub held: Tally,
    /// Which line it is: if its tenant gave one up and got another, that one has another number.
    pub number: u64,
}

#[derive(Debug)]
struct Entered {
    tenant: Arc<str>,
    /// Of segments that are gone.
    base: Account,
    /// Of segments that are there.
    live: Account,
    /// How many of these have an account for it.
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
    /// The length of all names.
    name_bytes: usize,
    /// How many lines there ever were.
    entered: u64,
    /// Goes up with every change, so that two readings can be told to be of the same state.
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

    /// What a checkpoint takes at most.
    pub(super) fn footprint(&self) -> u64 {
        (64 + self.name_bytes + self.lines.len() * LINE_BYTES) as u64
    }

    /// What a checkpoint takes more once this tenant has a line.
    pub(super) fn line_cost(&self, tenant: &str) -> u64 {
        match self.slots.contains_key(tenant) {
            true => 0,
            false => (LINE_BYTES + tenant.len()) as u64,
        }
    }

    /// The line of what is in the queue of this tenant.
    pub(super) fn slot(&self, tenant: &str) -> Slot {
        self.slots.get(tenant).copied().unwrap_or(REST)
    }

    /// What is in the queue of this tenant, or of all who have no line of their own.
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

    /// The line in which a record of this tenant is to be entered.
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

    /// Enters a change for a segment that is there.
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

    /// Says of all that is queued of a segment that it was dropped. Returns how much that was.
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

    /// Books a record anew that has been booked as dropped to make room, and whose copy in memory
    /// came to another end: in the accounts of its segment, or in the history if that is gone.
    /// False if it is not booked so.
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

    /// A segment is gone: what became of it is history.
    pub(super) fn fold(&mut self, accounts: &Accounts) {
        for (slot, account) in accounts {
            let line = &mut self.lines[slot.0];
            line.base.add(account);
            line.live.sub(account);
            line.segments -= 1;
        }
    }

    /// Adds to the history of a tenant, or to that of the rest.
    pub(super) fn restore(&mut self, tenant: Option<&str>, account: &Account) {
        let slot = tenant.map_or(REST, |tenant| self.enter(&Arc::from(tenant)));
        self.lines[slot.0].base.add(account);
    }

    /// The history with that of some segments, the line of the rest first.
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

    /// All that is known, the line of the rest first.
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
    /// All lines with what is held of each, the line of the rest first. What is on its way is not
    /// shown: somebody else still accounts for it.
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
