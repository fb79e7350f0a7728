//! The ledgers of sinks on the metrics page: some tenants with a line of their own, all others
//! summed.
//!
//! A tenant that arrives while a line is free gets it and keeps it; one that arrives later is
//! counted among the others for good. So no counter ever decreases, which a reader would take for a
//! restart. Counters start with the process; batches that were on disk at that moment count as
//! received.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use metrics::Label;

use metrifold_model::ledger::{Account, Ledger, Line, Tally};

use super::{Component, labels};
use crate::{Metric, lock};

/// Default number of tenants per sink that have a line of their own.
pub const LEDGER_TENANTS: usize = 20;

/// Values of the `tenant` label for batches without a tenant, and for the tenants without a line.
/// No tenant can have such a name.
const NONE: &str = "<none>";
const OTHER: &str = "<other>";

/// The ledger of a sink, with the state of its delivery.
#[derive(Clone, Debug)]
pub struct SinkLedger {
    /// The sink's name.
    pub sink: Arc<str>,
    /// Batches and samples received, delivered, dropped and queued.
    pub ledger: Ledger,
    /// Seconds that the sink needs at its present rate to deliver what is queued; `None` if it
    /// delivers nothing.
    pub drain_seconds: Option<f64>,
    /// Time for which the far end has been failing; `None` while it is healthy.
    pub failing: Option<Duration>,
}

/// The lines of one ledger that the page shows.
#[derive(Debug, Default)]
pub(super) struct Shown {
    total: Mark,
    lines: BTreeMap<Arc<str>, Mark>,
    /// Tenants that arrived when no line was free.
    others: BTreeSet<Arc<str>>,
    /// Start time of the ledger that was read last; another one means that the sink was built anew.
    since: Option<SystemTime>,
}

/// The shown counters of one line, and the reading that they were computed from.
#[derive(Debug, Default)]
struct Mark {
    /// Highest reading so far.
    last: Account,
    on_disk: u64,
    /// Counters on the page.
    shown: Account,
}

impl Mark {
    fn step(&mut self, line: &Line) {
        let now = line.of_this_process();
        if self.on_disk != line.on_disk && self.on_disk > 0 {
            // A queue on disk with more tenants than it has lines merges those that have nothing
            // queued. What arrived since the last reading is in the rest.
            self.last = now;
        } else {
            let more = now.without(&self.last);
            self.shown.add(&more);
            self.last.add(&more);
        }
        self.on_disk = line.on_disk;
    }

    /// Continues the shown counters with a new ledger that starts from zero.
    fn restart(&mut self) {
        self.last = Account::default();
        self.on_disk = 0;
    }
}

/// One line of the page.
struct Row<'a> {
    tenant: &'a str,
    account: Account,
    queued: Tally,
}

impl Shown {
    /// Returns the lines to show of `ledger`, at most `max` of them for a single tenant.
    fn rows<'a>(&'a mut self, ledger: &'a Ledger, max: usize) -> Vec<Row<'a>> {
        let unknown =
            |tenant: &str| !self.lines.contains_key(tenant) && !self.others.contains(tenant);
        let is_empty = |line: &Line| *line == Line::default();
        let new = ledger
            .tenants
            .iter()
            .filter(|(tenant, line)| unknown(tenant) && !is_empty(line));
        let mut new: Vec<_> = new.collect();
        // Among new tenants the largest get the free lines. Batches without a tenant always have a
        // line.
        new.sort_by_key(|(tenant, line)| {
            let received = line.account.received;
            (
                !tenant.is_empty(),
                std::cmp::Reverse((received.samples, received.batches)),
            )
        });
        let mut named = self
            .lines
            .keys()
            .filter(|tenant| !tenant.is_empty())
            .count();
        for (tenant, _) in new {
            if !tenant.is_empty() && named >= max {
                self.others.insert(tenant.clone());
                continue;
            }
            named += usize::from(!tenant.is_empty());
            self.lines.insert(tenant.clone(), Mark::default());
        }
        if self.since.replace(ledger.since) != Some(ledger.since) {
            // The sink was removed and is back while its predecessor still drains.
            let marks = self.lines.values_mut().chain([&mut self.total]);
            marks.for_each(Mark::restart);
        }
        let whole = Line {
            // Merging lines loses nothing of the total.
            on_disk: 0,
            ..ledger.total.clone()
        };
        self.total.step(&whole);
        let mut other = Row {
            tenant: OTHER,
            account: self.total.shown.clone(),
            queued: ledger.total.queued,
        };
        let mut rows = Vec::with_capacity(self.lines.len() + 1);
        for (tenant, mark) in &mut self.lines {
            let line = ledger.tenants.get(tenant);
            mark.step(line.unwrap_or(&Line::default()));
            let queued = line.map(|line| line.queued).unwrap_or_default();
            other.account = other.account.without(&mark.shown);
            other.queued -= queued;
            rows.push(Row {
                tenant: if tenant.is_empty() { NONE } else { tenant },
                account: mark.shown.clone(),
                queued,
            });
        }
        rows.push(other);
        rows
    }
}

impl Component {
    /// The component's ledger, if it is a running sink.
    pub(crate) fn ledger(&self) -> Option<SinkLedger> {
        let queue = lock(&self.queue).clone()?;
        let ledger = queue.ledger();
        let Tally { bytes, batches, .. } = ledger.total.queued;
        let drain_seconds = queue.drain_seconds(bytes, self.sent.bytes.rate());
        Some(SinkLedger {
            sink: self.id.clone(),
            drain_seconds: drain_seconds.filter(|_| self.drains(batches)),
            failing: self.trouble.failing_for(),
            ledger,
        })
    }

    pub(crate) fn refresh_ledger(&self, max_tenants: usize) {
        let Some(SinkLedger {
            ledger,
            drain_seconds,
            ..
        }) = self.ledger()
        else {
            return;
        };
        let oldest = ledger.oldest.map_or(0.0, |oldest| oldest.as_secs_f64());
        let drain = drain_seconds.unwrap_or(f64::INFINITY);
        for (metric, value) in [(Metric::LedgerOldest, oldest), (Metric::LedgerDrain, drain)] {
            let labels = labels(&self.id, self.kind, &self.type_name);
            self.recording.gauge(metric, labels).set(value);
        }
        for row in lock(&self.shown).rows(&ledger, max_tenants) {
            self.show(&row);
        }
    }

    fn show(&self, row: &Row<'_>) {
        let labels = |reason: Option<&'static str>| {
            let mut labels = labels(&self.id, self.kind, &self.type_name);
            labels.push(Label::new("tenant", row.tenant.to_owned()));
            labels.extend(reason.map(|reason| Label::new("reason", reason)));
            labels
        };
        // `absolute` keeps the highest value, which matters when two halves of a reading are from
        // different moments.
        let count = |metric, reason, value| {
            self.recording
                .counter(metric, labels(reason))
                .absolute(value);
        };
        let Account {
            received,
            delivered,
            dropped,
        } = &row.account;
        count(Metric::LedgerReceivedSamples, None, received.samples);
        count(Metric::LedgerReceivedBatches, None, received.batches);
        count(Metric::LedgerUncountedBatches, None, received.uncounted);
        count(Metric::LedgerDeliveredSamples, None, delivered.samples);
        count(Metric::LedgerDeliveredBatches, None, delivered.batches);
        for (reason, tally) in dropped {
            let reason = Some(reason.as_str());
            count(Metric::LedgerDroppedSamples, reason, tally.samples);
            count(Metric::LedgerDroppedBatches, reason, tally.batches);
        }
        for (metric, value) in [
            (Metric::LedgerQueuedSamples, row.queued.samples),
            (Metric::LedgerQueuedBatches, row.queued.batches),
            (Metric::LedgerQueuedBytes, row.queued.bytes),
        ] {
            self.recording.gauge(metric, labels(None)).set(value as f64);
        }
    }
}

#[cfg(test)]
mod tests;
