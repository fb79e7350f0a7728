//! Trouble with tenants that only operators can end, as the admin address shows it.

use serde::Serialize;

/// Maximum number of entries of each kind that are listed.
pub(crate) const MOST: usize = 100;

/// What keeps callers out. Lists have at most 100 entries.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Trouble {
    /// Number of tenants of `tenants_file` that cannot be used.
    pub aside: usize,
    /// Number of issuers whose keys cannot be fetched.
    pub failing: usize,
    /// Tenants of `tenants_file` that cannot be used.
    pub tenants: Vec<AsideTenant>,
    /// Issuers whose keys cannot be fetched: first those never reached, then those with the oldest keys.
    pub issuers: Vec<FailingIssuer>,
}

/// A tenant of `tenants_file` that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AsideTenant {
    /// Its name.
    pub name: String,
    /// Why it cannot be used.
    pub reason: String,
}

/// An issuer whose keys could not be fetched at the last attempt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FailingIssuer {
    /// Its URL.
    pub issuer: String,
    /// Age of the keys that stay in use; none if the issuer was never reached.
    pub keys_age_seconds: Option<f64>,
    /// Why they could not be fetched.
    pub error: String,
}

impl Trouble {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.aside == 0 && self.failing == 0
    }

    pub(crate) fn of(aside: &[AsideTenant], issuers: impl Iterator<Item = FailingIssuer>) -> Self {
        let mut issuers: Vec<FailingIssuer> = issuers.collect();
        let age = |issuer: &FailingIssuer| issuer.keys_age_seconds.unwrap_or(f64::INFINITY);
        issuers.sort_by(|a, b| age(b).total_cmp(&age(a)).then(a.issuer.cmp(&b.issuer)));
        let failing = issuers.len();
        issuers.truncate(MOST);
        Self {
            aside: aside.len(),
            failing,
            tenants: aside.iter().take(MOST).cloned().collect(),
            issuers,
        }
    }
}
