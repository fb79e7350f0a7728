//! What a tenant uses of its limits, and how often it was over which.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use metrifold_base::LogLimit;
use metrifold_model::{Rejection, RejectionKind, Retry};

use crate::active::ActiveSeries;
use crate::keys::{LimitKeys, OverLimit};
use crate::limit::Limit;
use crate::rate::Bucket;

/// What a tenant uses. Outlives changes of its limits.
#[derive(Debug, Default)]
pub struct Usage {
    pub(crate) requests: Bucket,
    pub(crate) bytes: Bucket,
    pub(crate) samples: Bucket,
    /// Made for those alone whose series are counted.
    active: OnceLock<Box<ActiveSeries>>,
    over: [AtomicU64; Limit::ALL.len()],
}

/// How often anybody was over which limit: in a metric, and now and then in the log.
#[derive(Default)]
pub struct OverCounts {
    counts: [AtomicU64; Limit::ALL.len()],
    log: LogLimit,
    tell: Option<Tell>,
}

/// Counts so many things over a limit in a metric.
type Tell = Box<dyn Fn(Limit, u64) + Send + Sync>;

impl std::fmt::Debug for OverCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OverCounts").finish_non_exhaustive()
    }
}

impl OverCounts {
    /// Counts that are told to a metric as well.
    pub fn told_to(tell: impl Fn(Limit, u64) + Send + Sync + 'static) -> Self {
        Self {
            tell: Some(Box::new(tell)),
            ..Self::default()
        }
    }

    fn add(&self, limit: Limit, times: u64) {
        self.counts[limit as usize].fetch_add(times, Ordering::Relaxed);
        if let Some(tell) = &self.tell {
            tell(limit, times);
        }
    }

    /// How often somebody was over each limit.
    pub fn read(&self) -> impl Iterator<Item = (Limit, u64)> {
        let counts = Limit::ALL.into_iter().zip(&self.counts);
        counts.map(|(limit, count)| (limit, count.load(Ordering::Relaxed)))
    }

    fn warn(&self, tenant: &str, limit: Limit, reason: &str, soft: bool) {
        if let Some(silent) = self.log.pass() {
            let limit = limit.as_str();
            warn!(tenant, limit, soft, silent, "over a limit: {reason}");
        }
    }
}

/// The refusal of a request that is over a rate or a number at once.
pub fn refusal(limits: &LimitKeys, reason: String, pause: Duration) -> Rejection {
    let kind = match limits.status {
        Some(OverLimit::Unavailable) => RejectionKind::Unavailable,
        Some(OverLimit::TooMany) | None => RejectionKind::Limited,
    };
    Rejection::new(kind, reason).with_retry(Retry::After(pause))
}

impl Usage {
    /// The active series.
    pub(crate) fn active(&self) -> &ActiveSeries {
        self.active.get_or_init(Box::default)
    }

    /// Counts that a limit is exceeded, by so many things at once, and now and then says so.
    pub fn over(
        &self,
        limits: &LimitKeys,
        all: &OverCounts,
        tenant: &str,
        (limit, times): (Limit, u64),
        reason: &str,
    ) {
        self.over[limit as usize].fetch_add(times, Ordering::Relaxed);
        all.add(limit, times);
        all.warn(tenant, limit, reason, limits.is_soft());
    }

    /// Takes a request and its body out of their rates.
    ///
    /// # Errors
    ///
    /// Fails with the answer when one of them is exceeded; then nothing is taken.
    pub fn enter(
        &self,
        limits: &LimitKeys,
        all: &OverCounts,
        tenant: &str,
        bytes: u64,
        now: Instant,
    ) -> Result<(), Rejection> {
        let requests = limits.requests().map(|rate| (rate, Limit::Requests));
        let requests = requests.map(|(rate, limit)| {
            let pause = self.requests.pause_for_one(rate, now);
            (rate, limit, pause)
        });
        let sizes = limits.bytes().map(|rate| (rate, Limit::Bytes));
        let sizes = sizes.map(|(rate, limit)| {
            let pause = self.bytes.pause(rate, now).filter(|_| bytes > 0);
            (rate, limit, pause)
        });
        for (rate, limit, pause) in [requests, sizes].into_iter().flatten() {
            let Some(pause) = pause else { continue };
            let (per_second, what) = (rate.per_second, limit.as_str());
            let reason = format!("tenant {tenant:?} is over {per_second} {what} per second");
            self.over(limits, all, tenant, (limit, 1), &reason);
            if !limits.is_soft() {
                return Err(refusal(limits, reason, pause));
            }
        }
        if requests.is_some() {
            self.requests.take(1.0);
        }
        if sizes.is_some() {
            self.bytes.take(bytes as f64);
        }
        Ok(())
    }

    /// Lets go of what is held for series once they are idle.
    pub fn trim(&self, limits: &LimitKeys, now: Instant) {
        if let Some(active) = self.active.get() {
            active.trim(now, limits.idle().0);
        }
    }

    /// What is used and what is left of it, as it is shown: an entry for each limit that there is.
    pub fn show(
        &self,
        limits: &LimitKeys,
        now: Instant,
    ) -> serde_json::Map<String, serde_json::Value> {
        let active = limits.max_active_series.map(|most| {
            self.trim(limits, now);
            let used = self.active.get().map_or(0, |active| active.count());
            let left = most.saturating_sub(used);
            serde_json::json!({ "used": used, "most": most, "left": left })
        });
        let over = Limit::ALL.into_iter().zip(&self.over);
        let over = over.map(|(limit, count)| {
            let count = count.load(Ordering::Relaxed);
            (limit.as_str().to_owned(), count.into())
        });
        [
            ("requests", self.requests.show(limits.requests(), now)),
            ("bytes", self.bytes.show(limits.bytes(), now)),
            ("samples", self.samples.show(limits.samples(), now)),
            ("active_series", active.into()),
            ("soft", limits.is_soft().into()),
            ("over", serde_json::Value::Object(over.collect())),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use metrifold_base::Size;

    use super::*;

    struct Rig {
        usage: Usage,
        all: OverCounts,
        limits: LimitKeys,
        start: Instant,
    }

    impl Rig {
        fn new(limits: LimitKeys) -> Self {
            Self {
                usage: Usage::default(),
                all: OverCounts::default(),
                limits,
                start: Instant::now(),
            }
        }

        fn enter(&self, bytes: u64, millis: u64) -> Result<(), Rejection> {
            let now = self.start + Duration::from_millis(millis);
            self.usage
                .enter(&self.limits, &self.all, "acme", bytes, now)
        }
    }

    #[test]
    fn a_rate_lets_a_burst_in_and_then_as_many_as_it_says() {
        let rig = Rig::new(LimitKeys {
            requests_per_second: Some(2),
            requests_burst: Some(5),
            ..LimitKeys::default()
        });
        let mut let_in = (0..100).filter(|_| rig.enter(0, 0).is_ok()).count();
        assert_eq!(let_in, 5);
        let refused = rig.enter(0, 0).unwrap_err();
        assert_eq!(refused.kind, RejectionKind::Limited);
        assert_eq!(refused.retry, Retry::After(Duration::from_millis(500)));
        let_in += (1..=100)
            .filter(|&it| rig.enter(0, it * 100).is_ok())
            .count();
        assert_eq!(let_in, 5 + 20);
        let shown = rig.usage.show(&rig.limits, rig.start);
        assert_eq!(shown["over"]["requests"], 95 + 1 + 80);
        let all: Vec<_> = rig.all.read().filter(|(_, count)| *count > 0).collect();
        assert_eq!(all, [(Limit::Requests, 176)]);
    }

    #[test]
    fn a_body_that_is_larger_than_the_burst_is_let_in_and_waited_for() {
        let rig = Rig::new(LimitKeys {
            bytes_per_second: Some(Size(1000)),
            status: Some(OverLimit::Unavailable),
            ..LimitKeys::default()
        });
        assert!(rig.enter(3000, 0).is_ok());
        let refused = rig.enter(1, 0).unwrap_err();
        assert_eq!(refused.kind, RejectionKind::Unavailable);
        assert!(rig.enter(0, 0).is_ok(), "nothing costs nothing");
        assert!(rig.enter(1, 2100).is_ok());
    }

    #[test]
    fn soft_limits_count_and_let_in() {
        let rig = Rig::new(LimitKeys {
            requests_per_second: Some(1),
            soft: Some(true),
            ..LimitKeys::default()
        });
        assert!((0..10).all(|_| rig.enter(0, 0).is_ok()));
        let shown = rig.usage.show(&rig.limits, rig.start);
        assert_eq!(shown["over"]["requests"], 9);
        assert_eq!(shown["requests"]["left"], 0);
    }
}
