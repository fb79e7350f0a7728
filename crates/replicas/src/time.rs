//! Wall-clock time in milliseconds, as Prometheus counts it.

use std::time::{SystemTime, UNIX_EPOCH};

/// The current time, in milliseconds since the epoch.
pub(crate) fn epoch_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}
