//! What a tenant may ask for: rates with bursts, and requests at once, before anything is read.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use tokio::time::Instant;

use metrifold_base::{Problems, Size, keys, locked, words};
use metrifold_http::access::Permission;
use metrifold_model::{Rejection, RejectionKind, Retry};

keys! {
    /// Limits of a tenant.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct LimitsConfig {
        /// Requests per second, over some time.
        pub requests_per_second: Option<u64> = unset(100),
        /// Requests that may come at once after a pause; as many as `requests_per_second` by default.
        pub requests_burst: Option<u64> = unset(500),
        /// Bytes of bodies per second as they come, compressed, over some time. A body that does not say how long it is counts nothing here.
        pub bytes_per_second: Option<Size> = unset("10MiB"),
        /// Bytes that may come at once after a pause; as many as `bytes_per_second` by default. A body may be larger: those that follow then wait for it.
        pub bytes_burst: Option<Size> = unset("50MiB"),
        /// Requests that write or change rules at once, to the end of their answers.
        pub max_in_flight_requests: Option<usize> = unset(50),
        /// Queries at once, to the end of their answers.
        pub max_concurrent_queries: Option<usize> = unset(20),
        /// What whoever is over a limit is answered: `429`, or `503` for senders that drop samples on 429, which a Prometheus does unless its `retry_on_http_429` is set.
        pub status: Option<OverLimit> = unset("503"),
        /// Whether a request over a limit is only counted and shown, and let in all the same.
        pub soft: Option<bool> = unset(true),
    }
}

words! {
    /// What whoever is over a limit is answered.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum OverLimit {
        /// Too many requests.
        TooMany = "429",
        /// Come again later.
        Unavailable = "503",
    }
}

/// The longest that somebody is told to wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

impl LimitsConfig {
    /// Reports every problem that deserialization cannot see, at keys below `limits`.
    pub(crate) fn validate(&self, problems: &mut Problems) {
        let bytes = |size: Option<Size>| size.map(|size| size.0);
        let counts = |count: Option<usize>| count.map(|count| count as u64);
        for (key, value) in [
            ("requests_per_second", self.requests_per_second),
            ("requests_burst", self.requests_burst),
            ("bytes_per_second", bytes(self.bytes_per_second)),
            ("bytes_burst", bytes(self.bytes_burst)),
            (
                "max_in_flight_requests",
                counts(self.max_in_flight_requests),
            ),
            (
                "max_concurrent_queries",
                counts(self.max_concurrent_queries),
            ),
        ] {
            if value == Some(0) {
                let problem = problems.at(format!("limits.{key}"), "must be at least 1");
                problem.help("to let nobody in, take the tenant's proofs or roles away");
            }
        }
    }

    /// The same, with those of all tenants in the place of those that it has not.
    pub(crate) fn or(&self, other: &Self) -> Self {
        Self {
            requests_per_second: self.requests_per_second.or(other.requests_per_second),
            requests_burst: self.requests_burst.or(other.requests_burst),
            bytes_per_second: self.bytes_per_second.or(other.bytes_per_second),
            bytes_burst: self.bytes_burst.or(other.bytes_burst),
            max_in_flight_requests: self.max_in_flight_requests.or(other.max_in_flight_requests),
            max_concurrent_queries: self.max_concurrent_queries.or(other.max_concurrent_queries),
            status: self.status.or(other.status),
            soft: self.soft.or(other.soft),
        }
    }
}

/// What a tenant uses. Outlives changes of its limits.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    requests: Bucket,
    bytes: Bucket,
    writing: AtomicUsize,
    reading: AtomicUsize,
    let_in: AtomicU64,
    over: [AtomicU64; LIMITS.len()],
}

/// The limits that there are, as they are called.
pub(crate) const LIMITS: [&str; 4] = [
    "requests",
    "bytes",
    "in_flight_requests",
    "concurrent_queries",
];

/// What may be taken of a rate.
#[derive(Debug, Default)]
struct Bucket(Mutex<Option<Level>>);

#[derive(Clone, Copy, Debug)]
struct Level {
    /// What is left; less than nothing while somebody who took more is waited for.
    left: f64,
    at: Instant,
}

/// A request that is let in, until its answer is out.
#[derive(Debug)]
pub(crate) struct UnderWay {
    usage: Arc<Usage>,
    reads: bool,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.usage
            .at_once(self.reads)
            .fetch_sub(1, Ordering::Relaxed);
    }
}

impl Bucket {
    /// What is left of a rate now, or why not that much.
    fn level(&self, rate: u64, burst: u64, now: Instant) -> f64 {
        let mut level = locked(&self.0);
        let full = burst as f64;
        let before = level.unwrap_or(Level {
            left: full,
            at: now,
        });
        let grown = now.saturating_duration_since(before.at).as_secs_f64() * rate as f64;
        let left = (before.left + grown).min(full);
        *level = Some(Level { left, at: now });
        left
    }

    fn take(&self, much: f64) {
        if let Some(level) = &mut *locked(&self.0) {
            level.left -= much;
        }
    }
}

impl Usage {
    fn at_once(&self, reads: bool) -> &AtomicUsize {
        match reads {
            true => &self.reading,
            false => &self.writing,
        }
    }

    /// Lets a request in that keeps to the limits.
    pub(crate) fn enter(
        self: &Arc<Self>,
        limits: &LimitsConfig,
        tenant: &str,
        permission: Permission,
        headers: &HeaderMap,
    ) -> Result<UnderWay, Rejection> {
        let now = Instant::now();
        let reads = permission == Permission::Read;
        let most = match reads {
            true => limits.max_concurrent_queries,
            false => limits.max_in_flight_requests,
        };
        let pass = UnderWay {
            usage: Arc::clone(self),
            reads,
        };
        let under_way = self.at_once(reads).fetch_add(1, Ordering::Relaxed);
        if let Some(most) = most
            && under_way >= most
        {
            let what = format!("{most} requests of tenant {tenant:?} are under way already");
            self.over(
                limits,
                if reads { 3 } else { 2 },
                what,
                Duration::from_secs(1),
            )?;
        }
        let length = headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok());
        let length: u64 = length.and_then(|value| value.parse().ok()).unwrap_or(0);
        let bytes = |size: Option<Size>| size.map(|size| size.0);
        let (byte_rate, byte_burst) = (bytes(limits.bytes_per_second), bytes(limits.bytes_burst));
        let rates = [
            (
                0,
                &self.requests,
                limits.requests_per_second,
                limits.requests_burst,
                1,
            ),
            (1, &self.bytes, byte_rate, byte_burst, length),
        ];
        for (limit, bucket, rate, burst, much) in rates {
            let Some(rate) = rate else { continue };
            let left = bucket.level(rate, burst.unwrap_or(rate), now);
            // A request may be larger than what there can be: whoever comes then waits for it.
            let enough = if limit == 0 {
                left >= 1.0
            } else {
                left > 0.0 || much == 0
            };
            if !enough {
                let lacks = if limit == 0 {
                    1.0 - left
                } else {
                    1.0 - left.min(0.0)
                };
                let pause = Duration::from_secs_f64(lacks / rate as f64);
                let what = format!(
                    "tenant {tenant:?} is over {rate} {} per second",
                    LIMITS[limit]
                );
                self.over(limits, limit, what, pause.min(LONGEST_PAUSE))?;
            }
        }
        for (_, bucket, rate, _, much) in rates {
            if rate.is_some() {
                bucket.take(much as f64);
            }
        }
        self.let_in.fetch_add(1, Ordering::Relaxed);
        Ok(pass)
    }

    /// Counts that a limit is exceeded; an error unless it is soft.
    fn over(
        &self,
        limits: &LimitsConfig,
        limit: usize,
        what: String,
        pause: Duration,
    ) -> Result<(), Rejection> {
        self.over[limit].fetch_add(1, Ordering::Relaxed);
        if limits.soft == Some(true) {
            return Ok(());
        }
        let kind = match limits.status {
            Some(OverLimit::Unavailable) => RejectionKind::Unavailable,
            Some(OverLimit::TooMany) | None => RejectionKind::Limited,
        };
        Err(Rejection::new(kind, what).with_retry(Retry::After(pause)))
    }

    /// What is used and what is left of it, as it is shown.
    pub(crate) fn show(&self, limits: &LimitsConfig) -> serde_json::Value {
        let now = Instant::now();
        let rate = |bucket: &Bucket, rate: Option<u64>, burst: Option<u64>| {
            let rate = rate?;
            let burst = burst.unwrap_or(rate);
            let left = bucket.level(rate, burst, now).max(0.0) as u64;
            Some(serde_json::json!({ "per_second": rate, "burst": burst, "left": left }))
        };
        let bytes = |size: Option<Size>| size.map(|size| size.0);
        let at_once = |used: &AtomicUsize, most: Option<usize>| serde_json::json!({ "used": used.load(Ordering::Relaxed), "most": most });
        let over = LIMITS.iter().zip(&self.over);
        let over =
            over.map(|(name, count)| ((*name).to_owned(), count.load(Ordering::Relaxed).into()));
        serde_json::json!({
            "requests": rate(&self.requests, limits.requests_per_second, limits.requests_burst),
            "bytes": rate(&self.bytes, bytes(limits.bytes_per_second), bytes(limits.bytes_burst)),
            "in_flight_requests": at_once(&self.writing, limits.max_in_flight_requests),
            "concurrent_queries": at_once(&self.reading, limits.max_concurrent_queries),
            "let_in": self.let_in.load(Ordering::Relaxed),
            "over": serde_json::Value::Object(over.collect()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(
        usage: &Arc<Usage>,
        limits: &LimitsConfig,
        bytes: usize,
    ) -> Result<UnderWay, Rejection> {
        let length = bytes.to_string().parse().unwrap();
        let headers = [(CONTENT_LENGTH, length)].into_iter().collect();
        usage.enter(limits, "acme", Permission::Write, &headers)
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_lets_a_burst_in_and_then_as_many_as_it_says() {
        let usage = Arc::new(Usage::default());
        let limits = LimitsConfig {
            requests_per_second: Some(2),
            requests_burst: Some(5),
            ..LimitsConfig::default()
        };
        let mut let_in = 0;
        for _ in 0..100 {
            let_in += usize::from(enter(&usage, &limits, 0).is_ok());
        }
        assert_eq!(let_in, 5);
        let refused = enter(&usage, &limits, 0).unwrap_err();
        assert_eq!(refused.kind, RejectionKind::Limited);
        assert_eq!(refused.retry, Retry::After(Duration::from_millis(500)));
        for _ in 0..100 {
            tokio::time::advance(Duration::from_millis(100)).await;
            let_in += usize::from(enter(&usage, &limits, 0).is_ok());
        }
        assert_eq!(let_in, 5 + 20);
        assert_eq!(usage.show(&limits)["over"]["requests"], 95 + 1 + 80);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_larger_than_the_burst_is_let_in_and_waited_for() {
        let usage = Arc::new(Usage::default());
        let limits = LimitsConfig {
            bytes_per_second: Some(Size(1000)),
            status: Some(OverLimit::Unavailable),
            ..LimitsConfig::default()
        };
        assert!(enter(&usage, &limits, 3000).is_ok());
        let refused = enter(&usage, &limits, 1).unwrap_err();
        assert_eq!(refused.kind, RejectionKind::Unavailable);
        assert!(enter(&usage, &limits, 0).is_ok(), "nothing costs nothing");
        tokio::time::advance(Duration::from_millis(2100)).await;
        assert!(enter(&usage, &limits, 1).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_under_way_until_they_are_dropped_and_soft_limits_only_count() {
        let usage = Arc::new(Usage::default());
        let hard = LimitsConfig {
            max_in_flight_requests: Some(1),
            ..LimitsConfig::default()
        };
        let first = enter(&usage, &hard, 0).unwrap();
        assert!(enter(&usage, &hard, 0).is_err());
        let soft = LimitsConfig {
            soft: Some(true),
            ..hard.clone()
        };
        assert!(enter(&usage, &soft, 0).is_ok());
        assert_eq!(usage.show(&soft)["over"]["in_flight_requests"], 2);
        drop(first);
        assert!(enter(&usage, &hard, 0).is_ok());
        assert_eq!(usage.show(&hard)["in_flight_requests"]["used"], 0);
    }

    #[test]
    fn a_tenant_has_the_limits_of_all_where_it_has_none_of_its_own() {
        let all = LimitsConfig {
            requests_per_second: Some(1),
            soft: Some(true),
            ..LimitsConfig::default()
        };
        let own = LimitsConfig {
            requests_per_second: Some(2),
            ..LimitsConfig::default()
        };
        let both = own.or(&all);
        assert_eq!((both.requests_per_second, both.soft), (Some(2), Some(true)));
    }
}
