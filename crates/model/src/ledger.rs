//! What came to a sink, what became of it and what is queued: the types of the ledger.

use std::collections::BTreeMap;
use std::ops::{AddAssign, SubAssign};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::Counts;

/// Why samples were dropped. The codes are those under which a queue on disk keeps them: they are
/// there for good, and a code is never given to another reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reason {
    /// The queue was full, and the batch had to make room for newer ones.
    QueueFull = 1,
    /// The batch waited longer than the queue's `max_age`.
    TooOld = 2,
    /// The batch's record on disk was damaged.
    Corrupt = 3,
    /// Its sender was told to send it again, or is gone.
    Abandoned = 16,
    /// A series of it breaks the rules of remote write.
    Invalid = 17,
    /// A single series is larger than the endpoint takes.
    TooLarge = 18,
    /// The endpoint stored a part of the request only.
    Partial = 19,
    /// The endpoint refused it for its content.
    Refused = 20,
    /// The endpoint refused the credentials.
    Unauthorized = 21,
    /// The endpoint said that it wrote less than it was sent.
    NotWritten = 22,
    /// Remote write 1.0 cannot hold it.
    NotInV1 = 23,
    /// The process ended before it was delivered.
    Shutdown = 24,
    /// The sink was removed before it was delivered.
    Removed = 25,
    /// The sink ended while it had the batch.
    SinkDied = 26,
    /// The batch could not be written to disk.
    DiskFailed = 27,
    /// The batch was set aside as a dead letter.
    DeadLetter = 28,
    /// The endpoint refused it along with others, and which series it meant was not found.
    RefusedTogether = 29,
    /// The sink could not write it to where it goes.
    WriteFailed = 30,
    /// The sink holds as many series as it may.
    TooManySeries = 31,
    /// The sink's format cannot show native histograms.
    NativeHistogram = 32,
    /// A series has no name that the sink could show it under.
    NoMetricName = 33,
    /// The endpoint failed on it alone for too long, while it took everything else.
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

    /// The code on disk.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The reason of a code on disk; [`Other`](Self::Other) if this version does not know it.
    pub fn from_code(code: u8) -> Self {
        let known = Self::ALL.into_iter().find(|reason| reason.code() == code);
        known.unwrap_or(Self::Other)
    }

    /// In metrics, messages and the ledger.
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
    /// Batches.
    pub batches: u64,
    /// Samples of both kinds, of batches that have been counted.
    pub samples: u64,
    /// Those of the batches whose samples were never counted.
    pub uncounted: u64,
    /// Of their bodies.
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

    /// Whether it counts nothing.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

// Sums of what was read from a disk: they must not be able to panic.
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

/// What came and what became of it. What is missing is in the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// All that came.
    pub received: Tally,
    /// What was delivered.
    pub delivered: Tally,
    /// What was dropped, by reason.
    pub dropped: BTreeMap<Reason, Tally>,
}

impl Account {
    /// What is still in the queue.
    pub fn queued(&self) -> Tally {
        let mut queued = self.received;
        queued -= self.delivered;
        for tally in self.dropped.values() {
            queued -= *tally;
        }
        queued
    }

    /// What this account has beyond `earlier`, which is an earlier state of it.
    pub fn without(&self, earlier: &Self) -> Self {
        let mut rest = self.clone();
        rest.sub(earlier);
        rest
    }

    /// Books all that is queued as dropped, and returns that change.
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

    /// Adds another account to it.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.delivered += other.delivered;
        for (reason, tally) in &other.dropped {
            *self.dropped.entry(*reason).or_default() += *tally;
        }
    }

    /// Takes another account away, which is a part of it.
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
    pub changes: (u64, u64),
}

/// A line of the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// What came and what became of it.
    pub account: Account,
    /// What is queued, counted from the containers that hold it.
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

impl Ledger {
    /// The ledger of these lines; the rest is added to the total.
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
