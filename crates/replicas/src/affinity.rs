//! Affinity: queries that belong together go to the same replica, as long as it is there.
//!
//! What belongs together is a key: a dashboard, a signed cookie, or the caller's address. Which
//! replica a key belongs to follows from rendezvous hashing, so that every Metrifold finds the same,
//! and that only the keys of a replica move when it goes.

mod address;
mod cookie;

use std::hash::Hasher;

use http::{HeaderMap, HeaderValue};
use siphasher::sip::SipHasher13;

use metrifold_base::words;

pub use address::client_address;
pub use cookie::CookieKeys;
pub(crate) use cookie::Jar;

words! {
    /// What queries that belong together have in common.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum By {
        /// Grafana's dashboard.
        Dashboard = "dashboard",
        /// A cookie that was set with an answer.
        Cookie = "cookie",
        /// The caller's address.
        SourceAddress = "source_address",
    }
}

impl By {
    /// Its word in the configuration.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Dashboard => "dashboard",
            Self::Cookie => "cookie",
            Self::SourceAddress => "source_address",
        }
    }
}

/// What a query has in common with others, hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(pub u64);

/// Any will do, as long as all Metrifolds have the same.
const SEED: (u64, u64) = (0x6d65_7472_6966_6f6c, 0x7265_706c_6963_6173);

/// The header in which Grafana names the dashboard.
const DASHBOARD: &str = "x-dashboard-uid";

impl Key {
    /// The key of a text of some kind.
    pub fn of(kind: &str, text: &[u8]) -> Self {
        let mut hasher = SipHasher13::new_with_keys(SEED.0, SEED.1);
        hasher.write(kind.as_bytes());
        hasher.write_u8(0);
        hasher.write(text);
        Self(hasher.finish())
    }

    /// The key of the dashboard that a query is of.
    pub(crate) fn dashboard(headers: &HeaderMap) -> Option<Self> {
        let uid = headers.get(DASHBOARD).map(HeaderValue::as_bytes)?;
        (!uid.is_empty()).then(|| Self::of("dashboard", uid))
    }

    /// How much the key prefers a replica: the one with the highest score has it. A replica of twice
    /// the weight has twice the keys, and no key moves between replicas that stay.
    pub fn score(self, replica: &str, weight: u32) -> f64 {
        let mut hasher = SipHasher13::new_with_keys(SEED.0, self.0);
        hasher.write(replica.as_bytes());
        // From 0 to 1, neither included.
        let drawn = ((hasher.finish() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        f64::from(weight) / -drawn.ln()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn owner(key: Key, replicas: &[(&'static str, u32)]) -> &'static str {
        let score = |(name, weight): &(&'static str, u32)| key.score(name, *weight);
        let best = replicas.iter().max_by(|a, b| score(a).total_cmp(&score(b)));
        best.unwrap().0
    }

    #[test]
    fn only_the_keys_of_a_replica_that_goes_move() {
        let all = [("a", 1), ("b", 1), ("c", 1), ("d", 1)];
        let mut owned: BTreeMap<&str, usize> = BTreeMap::new();
        for n in 0..4000u32 {
            let key = Key::of("test", &n.to_le_bytes());
            let before = owner(key, &all);
            *owned.entry(before).or_default() += 1;
            let after = owner(key, &all[..3]);
            assert!(
                after == before || before == "d",
                "{n} moved from {before} to {after}"
            );
        }
        assert!(owned.values().all(|n| (850..1150).contains(n)), "{owned:?}");
    }

    #[test]
    fn keys_go_by_weight() {
        let replicas = [("a", 3), ("b", 1), ("c", 0)];
        let keys = (0..4000u32).map(|n| Key::of("test", &n.to_le_bytes()));
        let mut owned: BTreeMap<&str, usize> = BTreeMap::new();
        for key in keys {
            *owned.entry(owner(key, &replicas)).or_default() += 1;
        }
        assert!((2850..3150).contains(&owned["a"]), "{owned:?}");
        assert_eq!(owned.get("c"), None);
    }

    #[test]
    fn a_dashboard_is_a_key_unless_its_name_is_empty() {
        let mut headers = HeaderMap::new();
        assert_eq!(Key::dashboard(&headers), None);
        headers.insert(DASHBOARD, HeaderValue::from_static(""));
        assert_eq!(Key::dashboard(&headers), None);
        headers.insert(DASHBOARD, HeaderValue::from_static("abc"));
        assert_eq!(Key::dashboard(&headers), Some(Key::of("dashboard", b"abc")));
        assert_ne!(Key::of("dashboard", b"abc"), Key::of("cookie", b"abc"));
    }
}
