//! What came to a sink, what became of it and what is there of it: the two sides of the ledger,
//! and whether they agree.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::queue::disk::{self, Account, Tally};

use super::holdings::Held;
use super::{Line as EdgeLine, store};

/// The ledger of a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// By tenant; the name of none is empty.
    pub tenants: BTreeMap<Arc<str>, Line>,
    /// Of all tenants that have no line of their own.
    pub rest: Line,
    /// Of all together.
    pub total: Line,
    /// How long ago the oldest came that is queued, if something is.
    pub oldest: Option<Duration>,
    /// Since when it is accounted for. What has been on disk is accounted for since the folder was
    /// made.
    pub since: SystemTime,
    /// Whether there is a queue on disk, so that some of it goes on across restarts.
    pub on_disk: bool,
    /// Whether nothing has changed while it was read. If something has, its sides may be of
    /// different moments.
    pub steady: bool,
    /// Tells the states apart in which it was read.
    changes: (u64, u64),
}

/// A line of the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// What came and what became of it.
    pub account: Account,
    /// What is there, counted from what holds it.
    pub queued: Tally,
    /// What of the account had come to its end before this process began.
    pub before: Account,
    /// Which line on disk it is made of, if one: with another one, the account begins anew.
    pub on_disk: u64,
}

/// What is missing in a line; below zero it is what there is too much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Batches.
    pub batches: i64,
    /// Samples of batches that have been counted.
    pub samples: i64,
    /// Batches whose samples were never counted.
    pub uncounted: i64,
    /// Bytes of bodies.
    pub bytes: i64,
}

impl Line {
    /// What was received and is neither delivered nor dropped nor queued.
    pub fn difference(&self) -> Difference {
        let out = [self.account.delivered, self.queued];
        let out = out.iter().chain(self.account.dropped.values());
        let of = |part: fn(&Tally) -> u64| {
            let out = out
                .clone()
                .fold(0, |sum: u64, tally| sum.saturating_add(part(tally)));
            part(&self.account.received)
                .cast_signed()
                .wrapping_sub(out.cast_signed())
        };
        Difference {
            batches: of(|tally| tally.batches),
            samples: of(|tally| tally.samples),
            uncounted: of(|tally| tally.uncounted),
            bytes: of(|tally| tally.bytes),
        }
    }

    /// Whether nothing is missing.
    pub fn balances(&self) -> bool {
        self.difference() == Difference::default()
    }

    /// What came in this process, or was on disk when it began, and what has become of that.
    pub fn of_this_process(&self) -> Account {
        self.account.without(&self.before)
    }

    /// Adds another line to it.
    pub fn add(&mut self, other: &Self) {
        self.account.add(&other.account);
        self.queued += other.queued;
        self.before.add(&other.before);
        self.on_disk = self.on_disk.max(other.on_disk);
    }
}

impl Ledger {
    /// Whether it balances, in total and in every line, and was read while nothing changed.
    pub fn balances(&self) -> bool {
        let lines = self.tenants.values().chain([&self.rest, &self.total]);
        self.steady && lines.into_iter().all(Line::balances)
    }

    /// Whether the same is missing in both, and nothing has happened in between.
    pub fn lacks_the_same(&self, earlier: &Self) -> bool {
        let key = |ledger: &Self| (ledger.steady, ledger.changes, ledger.total.difference());
        let lines = |ledger: &Self| -> Vec<Difference> {
            ledger.tenants.values().map(Line::difference).collect()
        };
        self.steady && key(self) == key(earlier) && lines(self) == lines(earlier)
    }
}

/// What of a queue on disk had come to its end before it was opened.
#[derive(Debug, Default)]
pub(super) struct Before {
    tenants: BTreeMap<Arc<str>, Account>,
    rest: Account,
}

impl Before {
    pub(super) fn of(opened: disk::Reading) -> Self {
        let done = |line: &disk::Line| {
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

/// How often it is read again at once when something came in between.
const TRIES: usize = 4;

impl EdgeLine {
    /// Reads both sides. They are not of one moment unless it is `steady`.
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
        let store = self.store.get();
        let before = self.accounts.changes();
        let on_disk = store.map(|store| store.disk.read_ledger());
        let held = self.held();
        let (mut ledger, after) = self.accounts.ledger(&held, self.since);
        let disk_after = store.map_or(0, |store| store.disk.changes());
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

    /// What is held in memory.
    fn held(&self) -> Held {
        let mut held = Held::default();
        self.queue.for_each(|waiting, _| {
            if waiting.kept.is_none() {
                held.add(waiting.batch.tenant(), waiting.tally, Some(waiting.since));
            }
        });
        self.under_way.count(&mut held);
        if let Some(store) = self.store.get() {
            store.count(&mut held);
        }
        held
    }
}

impl Ledger {
    pub(crate) fn new(tenants: BTreeMap<Arc<str>, Line>, rest: Line, since: SystemTime) -> Self {
        let mut total = rest.clone();
        for line in tenants.values() {
            total.add(line);
        }
        Self {
            tenants,
            rest,
            total,
            oldest: None,
            since,
            on_disk: false,
            steady: false,
            changes: (0, 0),
        }
    }

    fn add_disk(&mut self, reading: disk::Reading, before: Option<&Before>) {
        self.on_disk = true;
        let none = Before::default();
        let before = before.unwrap_or(&none);
        let of = |line: &disk::Line, before: Option<&Account>| Line {
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
        // Tenants that were known before and have lost their lines since: the rest has them.
        for (tenant, account) in &before.tenants {
            if !reading.tenants.iter().any(|line| line.tenant == *tenant) {
                self.rest.before.add(account);
                self.total.before.add(account);
            }
        }
        let rest = of(&reading.rest, Some(&before.rest));
        self.rest.add(&rest);
        self.total.add(&rest);
        // The lines are told by what comes and goes, the total by what is there.
        self.total.queued.batches = memory + reading.records;
        let age = |accepted| Duration::from_millis(store::now_millis().saturating_sub(accepted));
        self.oldest = self.oldest.into_iter().chain(reading.oldest.map(age)).max();
    }
}

#[cfg(test)]
mod tests;
