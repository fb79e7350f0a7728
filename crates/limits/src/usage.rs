//! A tenant's use of its limits, and counts of exceeded limits.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use metrifold_model::{Rejection, RejectionKind, Retry};

use crate::active::ActiveSeries;
use crate::keys::{LimitKeys, OverLimit};
use crate::limit::Limit;
use crate::rate::{Bucket, Rate};
use crate::warnings::Warnings;

/// Use that one tenant makes of its limits. Survives changes of the limits.
#[derive(Debug, Default)]
pub struct Usage {
    pub(crate) requests: Bucket,
    pub(crate) bytes: Bucket,
    pub(crate) samples: Bucket,
    /// Created only for tenants whose series are counted.
    active: OnceLock<Box<ActiveSeries>>,
    over: [AtomicU64; Limit::ALL.len()],
}

/// A body whose length was not announced, which is taken out of the rate of bytes as it arrives.
#[derive(Debug, Default)]
pub struct Arriving {
    /// Bytes taken so far.
    taken: AtomicU64,
    /// Whether the body was counted as over its limit.
    over: AtomicBool,
}

/// Counts of exceeded limits of all tenants, for a metric and for rate-limited warnings.
#[derive(Default)]
pub struct OverCounts {
    counts: [AtomicU64; Limit::ALL.len()],
    warnings: Warnings,
    tell: Option<Tell>,
}

/// Adds to the metric of a limit.
type Tell = Box<dyn Fn(Limit, u64) + Send + Sync>;

impl std::fmt::Debug for OverCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OverCounts").finish_non_exhaustive()
    }
}

impl OverCounts {
    /// Counts that are added to a metric as well.
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

    /// Number of times that each limit was exceeded.
    pub fn read(&self) -> impl Iterator<Item = (Limit, u64)> {
        let counts = Limit::ALL.into_iter().zip(&self.counts);
        counts.map(|(limit, count)| (limit, count.load(Ordering::Relaxed)))
    }

    fn warn(&self, tenant: &str, limit: Limit, reason: &str, soft: bool) {
        if let Some(silent) = self.warnings.pass(tenant, Instant::now()) {
            let limit = limit.as_str();
            warn!(tenant, limit, soft, silent, "over a limit: {reason}");
        }
    }
}

fn over_rate(tenant: &str, rate: Rate, limit: Limit) -> String {
    let (per_second, what) = (rate.per_second, limit.as_str());
    format!("tenant {tenant:?} is over {per_second} {what} per second")
}

/// The answer to a request that exceeds a rate or a bound on requests in flight.
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

    /// Counts `times` requests or series over a limit, and logs a rate-limited warning.
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

    /// Takes a request and its body out of their rates. A body of unknown length (`None`) is only
    /// refused if nothing is left of its rate; [`Usage::arrive`] takes it as it arrives.
    ///
    /// # Errors
    ///
    /// Fails with the answer when a rate is exceeded; then nothing is taken.
    pub fn enter(
        &self,
        limits: &LimitKeys,
        all: &OverCounts,
        tenant: &str,
        bytes: Option<u64>,
        now: Instant,
    ) -> Result<(), Rejection> {
        let requests = limits.requests().map(|rate| (rate, Limit::Requests));
        let requests = requests.map(|(rate, limit)| {
            let pause = self.requests.pause_for_one(rate, now);
            (rate, limit, pause)
        });
        let sizes = limits.bytes().map(|rate| (rate, Limit::Bytes));
        let sizes = sizes.map(|(rate, limit)| {
            let pause = self.bytes.pause(rate, now).filter(|_| bytes != Some(0));
            (rate, limit, pause)
        });
        for (rate, limit, pause) in [requests, sizes].into_iter().flatten() {
            let Some(pause) = pause else { continue };
            let reason = over_rate(tenant, rate, limit);
            self.over(limits, all, tenant, (limit, 1), &reason);
            if !limits.is_soft() {
                return Err(refusal(limits, reason, pause));
            }
        }
        if requests.is_some() {
            self.requests.take(1.0);
        }
        if sizes.is_some() {
            self.bytes.take(bytes.unwrap_or(0) as f64);
        }
        Ok(())
    }

    /// Takes a piece of an admitted body of unknown length out of the rate of bytes. The body may
    /// exceed what is left, as one of known length may, but not what other requests have left: if
    /// these have used up the rate meanwhile, it is refused.
    ///
    /// # Errors
    ///
    /// Fails with the answer when the body is refused; what it has taken is given back.
    pub fn arrive(
        &self,
        limits: &LimitKeys,
        all: &OverCounts,
        tenant: &str,
        (body, bytes): (&Arriving, u64),
        now: Instant,
    ) -> Result<(), Rejection> {
        let Some(rate) = limits.bytes() else {
            return Ok(());
        };
        let taken = body.taken.load(Ordering::Relaxed) as f64;
        if let Some(pause) = self.bytes.pause_beside(rate, taken, now) {
            let reason = over_rate(tenant, rate, Limit::Bytes);
            if !body.over.swap(true, Ordering::Relaxed) {
                self.over(limits, all, tenant, (Limit::Bytes, 1), &reason);
            }
            if !limits.is_soft() {
                self.bytes.take(-taken);
                body.taken.store(0, Ordering::Relaxed);
                return Err(refusal(limits, reason, pause));
            }
        }
        self.bytes.take(bytes as f64);
        body.taken.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Frees the memory of series once they are idle.
    pub fn trim(&self, limits: &LimitKeys, now: Instant) {
        if let Some(active) = self.active.get() {
            active.trim(now, limits.idle().0);
        }
    }

    /// Usage and remainder of every configured limit, as the admin address shows them.
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
                .enter(&self.limits, &self.all, "acme", Some(bytes), now)
        }

        fn enter_unknown(&self, millis: u64) -> Result<Arriving, Rejection> {
            let now = self.start + Duration::from_millis(millis);
            let entered = self.usage.enter(&self.limits, &self.all, "acme", None, now);
            entered.map(|()| Arriving::default())
        }

        fn arrive(&self, body: &Arriving, bytes: u64, millis: u64) -> Result<(), Rejection> {
            let now = self.start + Duration::from_millis(millis);
            let piece = (body, bytes);
            (self.usage).arrive(&self.limits, &self.all, "acme", piece, now)
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
    fn a_body_of_unknown_length_is_counted_as_it_arrives() {
        let rig = Rig::new(LimitKeys {
            bytes_per_second: Some(Size(1000)),
            ..LimitKeys::default()
        });
        let body = rig.enter_unknown(0).unwrap();
        for _ in 0..3 {
            rig.arrive(&body, 1000, 0).unwrap();
        }
        let refused = rig.enter_unknown(0).unwrap_err();
        assert_eq!(refused.kind, RejectionKind::Limited);
        assert!(rig.enter(1, 1900).is_err());
        assert!(rig.enter_unknown(2100).is_ok());
    }

    #[test]
    fn a_body_of_unknown_length_is_refused_once_others_have_used_up_the_rate() {
        let rig = Rig::new(LimitKeys {
            bytes_per_second: Some(Size(1000)),
            ..LimitKeys::default()
        });
        let [first, second] = [(); 2].map(|()| rig.enter_unknown(0).unwrap());
        rig.arrive(&first, 600, 0).unwrap();
        rig.arrive(&second, 900, 0).unwrap();
        // Without its own bytes, 100 are left for the first and 400 for the second.
        rig.arrive(&second, 600, 0).unwrap();
        let refused = rig.arrive(&first, 1, 0).unwrap_err();
        assert_eq!(refused.retry, Retry::After(Duration::from_millis(501)));
        // Its 600 bytes are given back: the second has taken 1500 of 1000.
        assert!(rig.arrive(&second, 1, 0).is_ok());
        let shown = rig.usage.show(&rig.limits, rig.start);
        assert_eq!(shown["over"]["bytes"], 1);
        assert!(rig.enter(1, 500).is_err());
        assert!(rig.enter(1, 502).is_ok());
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
