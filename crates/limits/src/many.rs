//! Limits and usage of tenants that are known by name only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::time::Instant;

use metrifold_base::locked;
use metrifold_model::{Rejection, Tenant};

use crate::check::Check;
use crate::keys::LimitKeys;
use crate::usage::{OverCounts, Usage};

/// Interval at which idle tenants are removed.
const TIDY: Duration = Duration::from_secs(60);

/// Limits and usage of all tenants.
#[derive(Debug)]
pub struct Many {
    defaults: Arc<LimitKeys>,
    /// Limits of tenants that have their own, completed with the defaults.
    own: HashMap<Box<str>, Arc<LimitKeys>, RandomState>,
    usages: Arc<Usages>,
}

/// Usage of each tenant. Survives changes of the limits.
#[derive(Debug, Default)]
struct Usages {
    known: Mutex<Known>,
    all: Arc<OverCounts>,
}

#[derive(Debug, Default)]
struct Known {
    tenants: HashMap<Tenant, Entry, RandomState>,
    /// Shared usage of all tenants beyond the bound.
    rest: Arc<Usage>,
    tidied: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    usage: Arc<Usage>,
    seen: Instant,
}

/// All [`Many`] of the process by name, for reloads: a successor continues with the usage of its
/// predecessor.
#[derive(Debug, Default)]
pub struct Registry(Mutex<HashMap<Arc<str>, Vec<Weak<Many>>>>);

impl Registry {
    /// Limits under `name`, with the usage of the live ones under that name, if any. `over` counts
    /// exceeded limits, unless the predecessor's counts are shared.
    pub fn make(
        &self,
        name: &Arc<str>,
        defaults: LimitKeys,
        own: impl IntoIterator<Item = (String, LimitKeys)>,
        over: OverCounts,
    ) -> Arc<Many> {
        let mut names = locked(&self.0);
        names.retain(|_, all| {
            all.retain(|one| one.strong_count() > 0);
            !all.is_empty()
        });
        let all = names.entry(Arc::clone(name)).or_default();
        let before = all.iter().filter_map(Weak::upgrade).next_back();
        let own = own.into_iter();
        let own = own.map(|(tenant, keys)| (tenant.into(), Arc::new(keys.or(&defaults))));
        let many = Arc::new(Many {
            own: own.collect(),
            defaults: Arc::new(defaults),
            usages: match before {
                Some(before) => Arc::clone(&before.usages),
                None => Arc::new(Usages {
                    all: Arc::new(over),
                    ..Usages::default()
                }),
            },
        });
        all.push(Arc::downgrade(&many));
        many
    }

    /// Usage and limits of a tenant, grouped by the name of the limits.
    pub fn show(&self, tenant: &str, now: Instant) -> serde_json::Map<String, serde_json::Value> {
        let names = locked(&self.0);
        let last = names.iter().filter_map(|(name, all)| {
            let many = all.iter().filter_map(Weak::upgrade).next_back()?;
            let shown = many.show(tenant, now)?;
            Some((name.to_string(), shown))
        });
        last.collect()
    }
}

impl Many {
    /// Whether any limit needs decoded batches.
    pub fn looks_inside(&self) -> bool {
        self.defaults.looks_inside() || self.own.values().any(|own| own.looks_inside())
    }

    fn limits(&self, tenant: &str) -> &Arc<LimitKeys> {
        self.own.get(tenant).unwrap_or(&self.defaults)
    }

    /// Begins the check of a tenant's batch of `bytes` that came at `now`; `None` if no limit needs
    /// the decoded batch. All tenants beyond `most` share one usage.
    ///
    /// # Errors
    ///
    /// Fails with the answer when the tenant is over one of its rates.
    pub fn begin(
        &self,
        tenant: &Tenant,
        most: usize,
        bytes: usize,
        now: Instant,
    ) -> Result<Option<Check>, Rejection> {
        let usage = self.usage(tenant, most, now);
        let (limits, all) = (self.limits(tenant), &self.usages.all);
        usage.enter(limits, all, tenant, Some(bytes as u64), now)?;
        Check::begin(limits, &usage, all, tenant, now)
    }

    fn usage(&self, tenant: &Tenant, most: usize, now: Instant) -> Arc<Usage> {
        let mut known = locked(&self.usages.known);
        let known = &mut *known;
        if let Some(entry) = known.tenants.get_mut(tenant) {
            entry.seen = entry.seen.max(now);
            return Arc::clone(&entry.usage);
        }
        // A batch of a known tenant does not pay for this.
        let due = |tidied: Instant| now.saturating_duration_since(tidied) >= TIDY;
        if known.tidied.is_none_or(due) {
            known.tidied = Some(now);
            known.tenants.retain(|name, entry| {
                let idle = self.limits(name).idle().0;
                now.saturating_duration_since(entry.seen) <= idle
            });
        }
        if known.tenants.len() >= most {
            return Arc::clone(&known.rest);
        }
        let usage = Arc::<Usage>::default();
        let entry = Entry {
            usage: Arc::clone(&usage),
            seen: now,
        };
        known.tenants.insert(Arc::clone(tenant), entry);
        usage
    }

    /// Number of known tenants.
    pub fn tenants(&self) -> usize {
        locked(&self.usages.known).tenants.len()
    }

    fn show(&self, tenant: &str, now: Instant) -> Option<serde_json::Value> {
        let usage = {
            let known = locked(&self.usages.known);
            Arc::clone(&known.tenants.get(tenant)?.usage)
        };
        let shown = usage.show(self.limits(tenant), now);
        Some(serde_json::Value::Object(shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(per_second: u64) -> LimitKeys {
        LimitKeys {
            requests_per_second: Some(per_second),
            ..LimitKeys::default()
        }
    }

    fn is_let_in(many: &Many, tenant: &str, most: usize, now: Instant) -> bool {
        many.begin(&tenant.into(), most, 0, now).is_ok()
    }

    #[test]
    fn every_tenant_has_its_own_and_a_successor_goes_on_with_what_they_use() {
        let registry = Registry::default();
        let name: Arc<str> = "limit".into();
        let now = Instant::now();
        let first = registry.make(
            &name,
            requests(1),
            [("big".to_owned(), requests(3))],
            OverCounts::default(),
        );
        let let_in = |many: &Many, tenant: &str| {
            let asked = (0..10).filter(|_| is_let_in(many, tenant, 10, now));
            asked.count()
        };
        assert_eq!((let_in(&first, "a"), let_in(&first, "b")), (1, 1));
        assert_eq!(let_in(&first, "big"), 3);
        // A successor that was built and dropped, as on a failed reload, changes nothing.
        drop(registry.make(&name, requests(9), [], OverCounts::default()));
        let second = registry.make(&name, requests(1), [], OverCounts::default());
        drop(first);
        assert_eq!((let_in(&second, "a"), let_in(&second, "c")), (0, 1));
        let shown = registry.show("a", now);
        assert_eq!(shown["limit"]["over"]["requests"], 19);
        assert!(registry.show("nobody", now).is_empty());
        drop(second);
        assert!(registry.show("a", now).is_empty());
    }

    #[test]
    fn tenants_beyond_the_most_count_as_one_and_those_that_go_make_room() {
        let registry = Registry::default();
        let many = registry.make(&"limit".into(), requests(1), [], OverCounts::default());
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let let_in = |name: u64, secs| is_let_in(&many, &format!("t{name}"), 100, at(secs));
        let first = (0..1000).filter(|&it| let_in(it, 0)).count();
        assert_eq!((first, many.tenants()), (101, 100));
        // One tenant stays active, the others are idle.
        for minute in 1..=30 {
            assert!(let_in(0, minute * 60));
        }
        let later = (500..550).filter(|&it| let_in(it, 31 * 60)).count();
        assert_eq!((later, many.tenants()), (50, 51));
    }
}
