//! The resident memory of the process, as measured by the system.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tracing::{info, warn};

use metrifold_telemetry::process::resident_bytes;

use super::{Budget, Shared};

/// How near the resident memory is to the limit, and which work is refused because of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Level {
    Plenty,
    /// The queues of optional sinks must not grow.
    NoGrowth,
    /// Requests to whose senders nothing is promised are refused as well.
    NoLesser,
    /// All requests are refused.
    Nobody,
}

const LEVELS: [Level; 4] = [
    Level::Plenty,
    Level::NoGrowth,
    Level::NoLesser,
    Level::Nobody,
];

/// Percentage of the limit at which each level begins.
const FROM: [u64; 4] = [0, 70, 75, 80];
/// Percentage points by which memory must fall below a level's beginning to leave it (hysteresis).
const LEAVE: u64 = 5;

/// Interval between measurements if there is a limit, and if there is none.
const LIMITED: Duration = Duration::from_millis(50);
const UNLIMITED: Duration = Duration::from_secs(5);

impl From<u8> for Level {
    fn from(level: u8) -> Self {
        let known = LEVELS.into_iter().find(|known| *known as u8 == level);
        known.unwrap_or(Self::Plenty)
    }
}

impl Level {
    /// Bytes at which the level begins.
    pub(super) fn of(self, limit: u64) -> u64 {
        limit / 100 * FROM[self as usize]
    }

    /// The level at `resident` bytes, coming from this one.
    pub(super) fn next(self, resident: u64, limit: u64) -> Self {
        let percent = resident.saturating_mul(100) / limit.max(1);
        let reached = |level: Self| {
            let from = FROM[level as usize];
            let from = if level <= self {
                from.saturating_sub(LEAVE)
            } else {
                from
            };
            percent >= from
        };
        let mut levels = LEVELS.into_iter().rev();
        levels.find(|level| reached(*level)).unwrap_or(Self::Plenty)
    }
}

impl Budget {
    /// Measures as long as the account exists.
    pub(crate) fn watch(&self) -> impl Future<Output = ()> + Send + 'static {
        let (shared, changed) = (Arc::downgrade(&self.0), self.0.changed.clone());
        async move {
            let mut told = false;
            while let Some(pause) = measure(&shared, &mut told) {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = changed.notified() => {}
                }
            }
        }
    }

    /// Records a measurement and derives the level from it.
    pub(super) fn measured(&self, resident: u64) {
        let mut account = self.account();
        account.resident = resident;
        account.taken_then = account.taken.memory;
        let before = self.level();
        let level = match account.bounds.limit {
            Some(limit) => before.next(resident, limit),
            None => Level::Plenty,
        };
        self.0.level.store(level as u8, Ordering::Relaxed);
        drop(account);
        self.0.gauges.resident.set(resident as f64);
        if level == Level::Nobody && before != level {
            warn!(
                resident,
                "memory is near memory_limit: requests are refused"
            );
        } else if before == Level::Nobody && level != before {
            info!(resident, "memory is below memory_limit again");
        }
    }
}

/// Measures once and returns the pause before the next measurement; `None` if the account is gone.
fn measure(shared: &Weak<Shared>, told: &mut bool) -> Option<Duration> {
    let budget = Budget(shared.upgrade()?);
    let limited = budget.account().bounds.limit.is_some();
    match resident_bytes() {
        Some(resident) => budget.measured(resident),
        None if limited && !*told => {
            *told = true;
            warn!(
                "the system does not report resident memory: memory_limit applies only to the memory that metrifold counts itself"
            );
        }
        None => {}
    }
    Some(if limited { LIMITED } else { UNLIMITED })
}
