//! Limits of tenants. Rates, bursts and the content of batches are checked by `metrifold_limits`;
//! this module checks concurrent requests, before anything of a body is read, and counts bodies whose
//! length is not announced while they arrive.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use metrifold_base::{Problems, keys};
use metrifold_http::access::{InFlight, Permission};
use metrifold_limits::{Arriving, Limit, LimitKeys, OverCounts, Usage, refusal};
use metrifold_model::{Rejection, Tenant};

keys! {
    /// Limits of a tenant.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct LimitsConfig {
        pub(crate) keys: LimitKeys = include,
        /// Maximum number of concurrent requests that write samples or change rules. A request counts until its answer is sent.
        pub max_in_flight_requests: Option<usize> = unset(50),
        /// Maximum number of concurrent queries. A query counts until its answer is sent.
        pub max_concurrent_queries: Option<usize> = unset(20),
    }
}

impl LimitsConfig {
    /// The keys that do not depend on concurrent requests.
    pub fn keys(&self) -> &LimitKeys {
        &self.keys
    }

    /// Reports every problem that deserialization cannot see, at keys below `limits`.
    pub(crate) fn validate(&self, problems: &mut Problems) {
        self.keys.validate("limits.", problems);
        for (key, value) in [
            ("max_in_flight_requests", self.max_in_flight_requests),
            ("max_concurrent_queries", self.max_concurrent_queries),
        ] {
            if value == Some(0) {
                let problem = problems.at(format!("limits.{key}"), "must be at least 1");
                problem.help("to refuse all requests of a tenant, remove its authentication methods or roles");
            }
        }
    }

    /// These limits, with `other` for the keys that are not set.
    fn or(&self, other: &Self) -> Self {
        Self {
            keys: self.keys.or(&other.keys),
            max_in_flight_requests: self.max_in_flight_requests.or(other.max_in_flight_requests),
            max_concurrent_queries: self.max_concurrent_queries.or(other.max_concurrent_queries),
        }
    }
}

/// Effective limits of a tenant, after the defaults are applied.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) keys: Arc<LimitKeys>,
    writing: Option<usize>,
    reading: Option<usize>,
}

impl Limits {
    /// The limits of tenants that set none themselves.
    pub(crate) fn of_all(config: &LimitsConfig) -> Self {
        Self {
            keys: Arc::new(config.keys.clone()),
            writing: config.max_in_flight_requests,
            reading: config.max_concurrent_queries,
        }
    }

    /// The limits of a tenant. Tenants that set none share one copy.
    pub(crate) fn of_one(
        config: Option<&LimitsConfig>,
        all: (&LimitsConfig, &Arc<Self>),
    ) -> Arc<Self> {
        match config {
            None => all.1.clone(),
            Some(config) => Self::of_all(&config.or(all.0)).into(),
        }
    }
}

/// Current usage of a tenant. Survives a reload that changes its limits.
#[derive(Debug, Default)]
pub(crate) struct TenantUsage {
    pub(crate) shared: Arc<Usage>,
    at_once: AtOnce,
    let_in: AtomicU64,
}

/// The usage of a tenant, which takes little memory before its first request. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct UsageCell(Arc<OnceLock<Arc<TenantUsage>>>);

impl UsageCell {
    /// The usage.
    pub(crate) fn get(&self) -> &Arc<TenantUsage> {
        self.0.get_or_init(Arc::default)
    }

    /// The usage, if the tenant has made any.
    pub(crate) fn known(&self) -> Option<&TenantUsage> {
        self.0.get().map(|usage| &**usage)
    }
}

/// Number of requests in flight.
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

/// An admitted request, counted as in flight until this is dropped after its answer.
#[derive(Debug)]
pub(crate) struct UnderWay {
    usage: Arc<TenantUsage>,
    reads: bool,
    /// Counts the body as it arrives; none if its length was announced or bytes are not limited.
    meter: Option<Meter>,
}

/// Counts a body whose length was not announced.
#[derive(Debug)]
struct Meter {
    body: Arriving,
    limits: Arc<LimitKeys>,
    all: Arc<OverCounts>,
    tenant: Tenant,
}

impl UnderWay {
    fn received(&self, bytes: u64) -> Result<(), Rejection> {
        let Some(meter) = &self.meter else {
            return Ok(());
        };
        let Meter {
            body,
            limits,
            all,
            tenant,
        } = meter;
        let (usage, now) = (&self.usage.shared, Instant::now());
        usage.arrive(limits, all, tenant, (body, bytes), now)
    }
}

/// A request in flight, counted at each tenant of its caller.
pub(crate) struct Passes(pub(crate) Vec<UnderWay>);

impl InFlight for Passes {
    fn received(&self, bytes: u64) -> Result<(), Rejection> {
        self.0.iter().try_for_each(|pass| pass.received(bytes))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let at_once = self.usage.at_once.of(self.reads);
        at_once.fetch_sub(1, Ordering::Relaxed);
    }
}

impl TenantUsage {
    /// Admits a request unless it exceeds a limit.
    pub(crate) fn enter(
        self: &Arc<Self>,
        limits: &Limits,
        all: &Arc<OverCounts>,
        tenant: &Tenant,
        permission: Permission,
        length: Option<u64>,
    ) -> Result<UnderWay, Rejection> {
        let reads = permission == Permission::Read;
        let (limit, most) = match reads {
            true => (Limit::ConcurrentQueries, limits.reading),
            false => (Limit::InFlightRequests, limits.writing),
        };
        let under_way = self.at_once.of(reads).fetch_add(1, Ordering::Relaxed);
        let mut pass = UnderWay {
            usage: Arc::clone(self),
            reads,
            meter: None,
        };
        if let Some(most) = most
            && under_way >= most
        {
            let reason = format!("{most} requests of tenant {tenant:?} are in flight already");
            let keys = &limits.keys;
            self.shared.over(keys, all, tenant, (limit, 1), &reason);
            if !keys.is_soft() {
                return Err(refusal(keys, reason, Duration::from_secs(1)));
            }
        }
        let now = Instant::now();
        self.shared.enter(&limits.keys, all, tenant, length, now)?;
        if length.is_none() && limits.keys.bytes().is_some() {
            pass.meter = Some(Meter {
                body: Arriving::default(),
                limits: Arc::clone(&limits.keys),
                all: Arc::clone(all),
                tenant: Arc::clone(tenant),
            });
        }
        self.let_in.fetch_add(1, Ordering::Relaxed);
        Ok(pass)
    }

    /// Usage and remaining allowance, as the API shows them.
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
        let all = Arc::default();
        let enter = |limits: &Limits| {
            let (tenant, write) = ("acme".into(), Permission::Write);
            usage.enter(limits, &all, &tenant, write, Some(0))
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
        let shared = Arc::new(Limits::of_all(&all));
        let none = Limits::of_one(None, (&all, &shared));
        assert!(Arc::ptr_eq(&none, &shared));
        let own = LimitsConfig {
            max_in_flight_requests: Some(1),
            ..LimitsConfig::default()
        };
        let own = Limits::of_one(Some(&own), (&all, &shared));
        assert_eq!((own.writing, own.reading), (Some(1), Some(3)));
    }
}
