//! Types of the ledger: batches received by a sink, and those delivered, dropped or queued.

use std::collections::BTreeMap;
use std::ops::{AddAssign, SubAssign};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::{Counts, RejectionKind};

/// Reason why samples were dropped. A queue on disk stores the codes: they are permanent, and a
/// code is never reassigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reason {
    /// The queue was full, and the batch was dropped for newer ones.
    QueueFull = 1,
    /// The batch waited longer than the queue's `max_age`.
    TooOld = 2,
    /// The batch's record on disk was damaged.
    Corrupt = 3,
    /// The sender was told to send the batch again, or has disconnected.
    Abandoned = 16,
    /// A series of the batch breaks the rules of remote write.
    Invalid = 17,
    /// A single series is larger than the endpoint accepts, or a batch than can be encoded.
    TooLarge = 18,
    /// The endpoint stored only a part of the request.
    Partial = 19,
    /// The endpoint refused the batch for its content.
    Refused = 20,
    /// The endpoint refused the credentials.
    Unauthorized = 21,
    /// The endpoint reported that it wrote less than it was sent.
    NotWritten = 22,
    /// Remote write 1.0 cannot represent the data.
    NotInV1 = 23,
    /// The process ended before the batch was delivered.
    Shutdown = 24,
    /// The sink was removed before the batch was delivered.
    Removed = 25,
    /// The sink died while it had the batch.
    SinkDied = 26,
    /// The batch could not be written to disk.
    DiskFailed = 27,
    /// The batch was set aside as a dead letter.
    DeadLetter = 28,
    /// The endpoint refused the series along with others, and the offender among them was not
    /// found.
    RefusedTogether = 29,
    /// The sink could not write the batch to its destination.
    WriteFailed = 30,
    /// The sink already holds its maximum number of series.
    TooManySeries = 31,
    /// The sink's format cannot represent native histograms.
    NativeHistogram = 32,
    /// A series has no metric name, which the sink's format requires.
    NoMetricName = 33,
    /// The endpoint failed on the series alone for too long, while it accepted everything else.
    Isolated = 34,
    /// A code that this version does not know.
    Other = 255,
}

impl Reason {
    /// All reasons, by code.
    pub const ALL: [Self; 23] = [
        Self::QueueFull,
        Self::TooOld,
        Self::Corrupt,
        Self::Abandoned,
        Self::Invalid,
        Self::TooLarge,
        Self::Partial,
        Self::Refused,
        Self::Unauthorized,
        Self::NotWritten,
        Self::NotInV1,
        Self::Shutdown,
        Self::Removed,
        Self::SinkDied,
        Self::DiskFailed,
        Self::DeadLetter,
        Self::RefusedTogether,
        Self::WriteFailed,
        Self::TooManySeries,
        Self::NativeHistogram,
        Self::NoMetricName,
        Self::Isolated,
        Self::Other,
    ];

    /// The reason for a batch that was rejected while it was decoded or encoded.
    pub fn of_rejected(kind: RejectionKind) -> Self {
        match kind {
            RejectionKind::TooLarge => Self::TooLarge,
            _ => Self::Invalid,
        }
    }

    /// The code on disk.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The reason of a code on disk; [`Other`](Self::Other) if this version does not know it.
    pub fn from_code(code: u8) -> Self {
        let known = Self::ALL.into_iter().find(|reason| reason.code() == code);
        known.unwrap_or(Self::Other)
    }

    /// Name of the reason in metrics, messages and the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::TooOld => "too_old",
            Self::Corrupt => "corrupt",
            Self::Abandoned => "abandoned",
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::Partial => "partial",
            Self::Refused => "refused",
            Self::Unauthorized => "unauthorized",
            Self::NotWritten => "not_written",
            Self::NotInV1 => "not_in_remote_write_1.0",
            Self::Shutdown => "shutdown",
            Self::Removed => "removed",
            Self::SinkDied => "sink_died",
            Self::DiskFailed => "disk_failed",
            Self::DeadLetter => "dead_letter",
            Self::RefusedTogether => "refused_together",
            Self::WriteFailed => "write_failed",
            Self::TooManySeries => "too_many_series",
            Self::NativeHistogram => "native_histogram",
            Self::NoMetricName => "no_metric_name",
            Self::Isolated => "isolated",
            Self::Other => "other",
        }
    }
}

/// An amount of data: batches, samples and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Number of batches.
    pub batches: u64,
    /// Number of samples of both kinds, in batches that have been counted.
    pub samples: u64,
    /// Number of batches whose samples were never counted.
    pub uncounted: u64,
    /// Number of bytes of the bodies.
    pub bytes: u64,
}

impl Tally {
    /// The tally of one batch whose body has this length.
    pub fn of(counts: Option<Counts>, bytes: u32) -> Self {
        Self {
            batches: 1,
            bytes: u64::from(bytes),
            samples: counts.map_or(0, |counts| counts.all_samples()),
            uncounted: u64::from(counts.is_none()),
        }
    }

    /// Whether all counts are zero.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

// Saturating, since the sums may come from a damaged disk and must not panic.
impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.batches = self.batches.saturating_add(other.batches);
        self.samples = self.samples.saturating_add(other.samples);
        self.uncounted = self.uncounted.saturating_add(other.uncounted);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

impl SubAssign for Tally {
    fn sub_assign(&mut self, other: Self) {
        self.batches = self.batches.saturating_sub(other.batches);
        self.samples = self.samples.saturating_sub(other.samples);
        self.uncounted = self.uncounted.saturating_sub(other.uncounted);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }
}

/// Counts of data received, delivered and dropped. The difference is queued.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// All data received.
    pub received: Tally,
    /// Data delivered.
    pub delivered: Tally,
    /// Data dropped, by reason.
    pub dropped: BTreeMap<Reason, Tally>,
}

impl Account {
    /// Data that is still queued.
    pub fn queued(&self) -> Tally {
        let mut queued = self.received;
        queued -= self.delivered;
        for tally in self.dropped.values() {
            queued -= *tally;
        }
        queued
    }

    /// The change of this account since `earlier`, an earlier state of it.
    pub fn without(&self, earlier: &Self) -> Self {
        let mut rest = self.clone();
        rest.sub(earlier);
        rest
    }

    /// Books all queued data as dropped; returns the change.
    pub fn drop_queued(&mut self, reason: Reason) -> Self {
        let queued = self.queued();
        let change = Self {
            dropped: match queued.is_zero() {
                true => BTreeMap::new(),
                false => BTreeMap::from([(reason, queued)]),
            },
            ..Self::default()
        };
        self.add(&change);
        change
    }

    /// Adds another account.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.delivered += other.delivered;
        for (reason, tally) in &other.dropped {
            *self.dropped.entry(*reason).or_default() += *tally;
        }
    }

    /// Subtracts another account that is a part of this one.
    pub fn sub(&mut self, other: &Self) {
        self.received -= other.received;
        self.delivered -= other.delivered;
        for (reason, tally) in &other.dropped {
            *self.dropped.entry(*reason).or_default() -= *tally;
        }
        self.dropped.retain(|_, tally| !tally.is_zero());
    }
}

/// The ledger of a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// Lines by tenant; batches without a tenant have an empty name.
    pub tenants: BTreeMap<Arc<str>, Line>,
    /// Line of all tenants without one of their own.
    pub rest: Line,
    /// Sum of all lines.
    pub total: Line,
    /// Age of the oldest queued batch; `None` if nothing is queued.
    pub oldest: Option<Duration>,
    /// Time at which the accounts begin. Those of a queue on disk begin with the creation of its
    /// folder.
    pub since: SystemTime,
    /// Whether the sink has a queue on disk, whose accounts continue after a restart.
    pub on_disk: bool,
    /// Whether nothing changed while the ledger was read. Otherwise its sides may be of different
    /// moments.
    pub steady: bool,
    /// Counters of changes: equal values mean equal states.
    pub changes: (u64, u64),
}

/// A line of the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Data received, delivered and dropped.
    pub account: Account,
    /// Queued data, counted where it is held.
    pub queued: Tally,
    /// Part of the account from before this process started.
    pub before: Account,
    /// Number of the line on disk, if there is one: with a new number, the account begins again.
    pub on_disk: u64,
}

/// Data that is missing in a line; negative if there is too much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Number of batches.
    pub batches: i64,
    /// Number of samples in batches that have been counted.
    pub samples: i64,
    /// Number of batches whose samples were never counted.
    pub uncounted: i64,
    /// Number of bytes of bodies.
    pub bytes: i64,
}

impl Line {
    /// Received data that is neither delivered nor dropped nor queued.
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

    /// The account of this process, including data that was on disk when it started.
    pub fn of_this_process(&self) -> Account {
        self.account.without(&self.before)
    }

    /// Adds another line.
    pub fn add(&mut self, other: &Self) {
        self.account.add(&other.account);
        self.queued += other.queued;
        self.before.add(&other.before);
        self.on_disk = self.on_disk.max(other.on_disk);
    }
}

impl Ledger {
    /// Whether every line and the total balance, and nothing changed during the reading.
    pub fn balances(&self) -> bool {
        let lines = self.tenants.values().chain([&self.rest, &self.total]);
        self.steady && lines.into_iter().all(Line::balances)
    }

    /// Whether both ledgers miss the same data, with no change in between.
    pub fn lacks_the_same(&self, earlier: &Self) -> bool {
        let key = |ledger: &Self| (ledger.steady, ledger.changes, ledger.total.difference());
        let lines = |ledger: &Self| -> Vec<Difference> {
            ledger.tenants.values().map(Line::difference).collect()
        };
        self.steady && key(self) == key(earlier) && lines(self) == lines(earlier)
    }
}

impl Ledger {
    /// A ledger of these lines; computes the total, including the rest.
    pub fn new(tenants: BTreeMap<Arc<str>, Line>, rest: Line, since: SystemTime) -> Self {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_code_and_a_name_of_its_own() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), reason);
            let same = |other: &&Reason| other.as_str() == reason.as_str();
            assert_eq!(Reason::ALL.iter().filter(same).count(), 1, "{reason:?}");
        }
        assert_eq!(Reason::from_code(99), Reason::Other);
    }

    #[test]
    fn codes_on_disk_do_not_change() {
        let codes = Reason::ALL.map(Reason::code);
        assert_eq!(
            codes,
            [
                1, 2, 3, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33,
                34, 255
            ]
        );
    }
}
