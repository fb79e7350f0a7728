//! Which warnings about tenants over a limit are logged: for each tenant at most one per interval, and
//! only for so many tenants.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::time::Instant;

use metrifold_base::locked;

/// Minimum time between two warnings about one tenant.
const EVERY: Duration = Duration::from_secs(10);

/// Maximum number of tenants with a warning per interval.
const MOST: usize = 50;

/// The warnings of the last interval.
#[derive(Debug, Default)]
pub(crate) struct Warnings(Mutex<HashMap<Box<str>, Warning, RandomState>>);

#[derive(Debug)]
struct Warning {
    at: Instant,
    /// Number of warnings about the tenant since then, which were not logged.
    silent: u64,
}

impl Warnings {
    /// Returns the number of warnings about the tenant that were not logged since the last one, if this
    /// one may be logged.
    pub(crate) fn pass(&self, tenant: &str, now: Instant) -> Option<u64> {
        let mut warnings = locked(&self.0);
        let is_recent = |warning: &Warning| now.saturating_duration_since(warning.at) < EVERY;
        if let Some(warning) = warnings.get_mut(tenant) {
            if is_recent(warning) {
                warning.silent += 1;
                return None;
            }
            warning.at = now;
            return Some(std::mem::take(&mut warning.silent));
        }
        if warnings.len() >= MOST {
            warnings.retain(|_, warning| is_recent(warning));
        }
        if warnings.len() >= MOST {
            return None;
        }
        let warning = Warning { at: now, silent: 0 };
        warnings.insert(tenant.into(), warning);
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_that_is_always_over_its_limit_hides_no_other() {
        let warnings = Warnings::default();
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        assert_eq!(warnings.pass("loud", at(0)), Some(0));
        for second in 1..10 {
            assert_eq!(warnings.pass("loud", at(second)), None);
        }
        assert_eq!(warnings.pass("other", at(9)), Some(0));
        assert_eq!(warnings.pass("loud", at(10)), Some(9));
        assert_eq!(warnings.pass("other", at(10)), None);
        assert_eq!(warnings.pass("other", at(19)), Some(1));
    }

    #[test]
    fn very_many_tenants_over_their_limits_do_not_fill_the_log() {
        let warnings = Warnings::default();
        let start = Instant::now();
        for (secs, logged) in [(0, MOST), (9, 0), (10, MOST)] {
            let now = start + Duration::from_secs(secs);
            let tenants = (0..1000).map(|number| format!("{secs}-{number}"));
            let found = tenants.filter(|tenant| warnings.pass(tenant, now).is_some());
            assert_eq!(found.count(), logged, "{secs}");
            assert!(locked(&warnings.0).len() <= MOST);
        }
    }
}
