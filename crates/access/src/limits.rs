//! What a tenant may ask for: rates with bursts and what its batches hold (`metrifold_limits`), and
//! here the requests at once, before anything is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use tokio::time::Instant;

use metrifold_base::{Problems, keys};
use metrifold_http::access::Permission;
use metrifold_limits::{Limit, LimitKeys, OverCounts, Usage, refusal};
use metrifold_model::{Rejection, Tenant};

keys! {
    /// Limits of a tenant.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct LimitsConfig {
        pub(crate) keys: LimitKeys = include,
        /// Requests that write or change rules at once, to the end of their answers.
        pub max_in_flight_requests: Option<usize> = unset(50),
        /// Queries at once, to the end of their answers.
        pub max_concurrent_queries: Option<usize> = unset(20),
    }
}

impl LimitsConfig {
    /// Reports every problem that deserialization cannot see, at keys below `limits`.
    pub(crate) fn validate(&self, problems: &mut Problems) {
        self.keys.validate("limits.", problems);
        for (key, value) in [
            ("max_in_flight_requests", self.max_in_flight_requests),
            ("max_concurrent_queries", self.max_concurrent_queries),
        ] {
            if value == Some(0) {
                let problem = problems.at(format!("limits.{key}"), "must be at least 1");
                problem.help("to let nobody in, take the tenant's proofs or roles away");
            }
        }
    }

    /// The same, with those of all tenants in the place of those that it has not.
    fn or(&self, other: &Self) -> Self {
        Self {
            keys: self.keys.or(&other.keys),
            max_in_flight_requests: self.max_in_flight_requests.or(other.max_in_flight_requests),
            max_concurrent_queries: self.max_concurrent_queries.or(other.max_concurrent_queries),
        }
    }
}

/// Limits as a tenant has them.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) keys: Arc<LimitKeys>,
    writing: Option<usize>,
    reading: Option<usize>,
}

impl Limits {
    /// The limits of tenants that have none of their own.
    pub(crate) fn of_all(config: &LimitsConfig) -> Self {
        Self {
            keys: Arc::new(config.keys.clone()),
            writing: config.max_in_flight_requests,
            reading: config.max_concurrent_queries,
        }
    }

    /// The limits of a tenant. Those without any of their own share those of all.
    pub(crate) fn of_one(config: &LimitsConfig, all: (&LimitsConfig, &Self)) -> Self {
        match *config == LimitsConfig::default() {
            true => all.1.clone(),
            false => Self::of_all(&config.or(all.0)),
        }
    }
}

/// What a tenant uses. Outlives changes of its limits.
#[derive(Debug, Default)]
pub(crate) struct TenantUsage {
    pub(crate) shared: Arc<Usage>,
    at_once: AtOnce,
    let_in: AtomicU64,
}

/// Requests that are under way.
#[derive(Debug, Default)]
struct AtOnce {
    writing: AtomicUsize,
    reading: AtomicUsize,
}

impl AtOnce {
    fn of(&self, reads: bool) -> &AtomicUsize {
        match reads {
            true => &self.reading,
            false => &self.writing,
        }
    }
}

/// A request that is let in, until its answer is out.
#[derive(Debug)]
pub(crate) struct UnderWay {
    usage: Arc<TenantUsage>,
    reads: bool,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let at_once = self.usage.at_once.of(self.reads);
        at_once.fetch_sub(1, Ordering::Relaxed);
    }
}

impl TenantUsage {
    /// Lets a request in that keeps to the limits.
    pub(crate) fn enter(
        self: &Arc<Self>,
        limits: &Limits,
        all: &OverCounts,
        tenant: &Tenant,
        permission: Permission,
        headers: &HeaderMap,
    ) -> Result<UnderWay, Rejection> {
        let reads = permission == Permission::Read;
        let (limit, most) = match reads {
            true => (Limit::ConcurrentQueries, limits.reading),
            false => (Limit::InFlightRequests, limits.writing),
        };
        let under_way = self.at_once.of(reads).fetch_add(1, Ordering::Relaxed);
        let pass = UnderWay {
            usage: Arc::clone(self),
            reads,
        };
        if let Some(most) = most
            && under_way >= most
        {
            let reason = format!("{most} requests of tenant {tenant:?} are under way already");
            let keys = &limits.keys;
            self.shared.over(keys, all, tenant, (limit, 1), &reason);
            if !keys.is_soft() {
                return Err(refusal(keys, reason, Duration::from_secs(1)));
            }
        }
        let length = headers.get(CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok());
        let length: u64 = length.and_then(|value| value.parse().ok()).unwrap_or(0);
        let now = Instant::now();
        self.shared.enter(&limits.keys, all, tenant, length, now)?;
        self.let_in.fetch_add(1, Ordering::Relaxed);
        Ok(pass)
    }

    /// What is used and what is left of it, as it is shown.
    pub(crate) fn show(&self, limits: &Limits) -> serde_json::Value {
        let mut shown = self.shared.show(&limits.keys, Instant::now());
        for (limit, reads, most) in [
            (Limit::InFlightRequests, false, limits.writing),
            (Limit::ConcurrentQueries, true, limits.reading),
        ] {
            let used = self.at_once.of(reads).load(Ordering::Relaxed);
            let at_once = serde_json::json!({ "used": used, "most": most });
            shown.insert(limit.as_str().to_owned(), at_once);
        }
        let let_in = self.let_in.load(Ordering::Relaxed);
        shown.insert("let_in".to_owned(), let_in.into());
        serde_json::Value::Object(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(most: usize, soft: bool) -> Limits {
        Limits::of_all(&LimitsConfig {
            keys: LimitKeys {
                soft: Some(soft),
                ..LimitKeys::default()
            },
            max_in_flight_requests: Some(most),
            ..LimitsConfig::default()
        })
    }

    #[test]
    fn requests_are_under_way_until_they_are_dropped_and_soft_limits_only_count() {
        let usage = Arc::new(TenantUsage::default());
        let all = OverCounts::default();
        let enter = |limits: &Limits| {
            let headers = HeaderMap::new();
            usage.enter(limits, &all, &"acme".into(), Permission::Write, &headers)
        };
        let (hard, soft) = (limits(1, false), limits(1, true));
        let first = enter(&hard).unwrap();
        assert!(enter(&hard).is_err());
        assert!(enter(&soft).is_ok());
        assert_eq!(usage.show(&soft)["over"]["in_flight_requests"], 2);
        drop(first);
        assert!(enter(&hard).is_ok());
        assert_eq!(usage.show(&hard)["in_flight_requests"]["used"], 0);
    }

    #[test]
    fn a_tenant_without_limits_of_its_own_shares_those_of_all() {
        let all = LimitsConfig {
            max_concurrent_queries: Some(3),
            ..LimitsConfig::default()
        };
        let shared = Limits::of_all(&all);
        let none = Limits::of_one(&LimitsConfig::default(), (&all, &shared));
        assert!(Arc::ptr_eq(&none.keys, &shared.keys));
        let own = LimitsConfig {
            max_in_flight_requests: Some(1),
            ..LimitsConfig::default()
        };
        let own = Limits::of_one(&own, (&all, &shared));
        assert_eq!((own.writing, own.reading), (Some(1), Some(3)));
    }
}
