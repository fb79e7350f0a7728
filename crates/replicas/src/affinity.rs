//! Affinity: related queries go to the same replica while it is available.
//!
//! Queries are related by a key: a dashboard, a signed cookie, or the caller's address. Rendezvous
//! hashing maps a key to a replica, so that every Metrifold finds the same one, and that only the
//! keys of a replica move when it goes away.

mod address;
mod cookie;

use std::hash::Hasher;

use http::{HeaderMap, HeaderValue};
use siphasher::sip::SipHasher13;

use metrifold_base::words;

pub(crate) use address::client_address;
pub use cookie::CookieKeys;
pub(crate) use cookie::Jar;

words! {
    /// Properties by which queries are related.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum By {
        /// The dashboard that Grafana names in a header.
        Dashboard = "dashboard",
        /// A cookie that an earlier answer has set.
        Cookie = "cookie",
        /// The caller's address.
        SourceAddress = "source_address",
    }
}

impl By {
    /// The word for it in the configuration.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Dashboard => "dashboard",
            Self::Cookie => "cookie",
            Self::SourceAddress => "source_address",
        }
    }
}

/// Hash of what relates queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(pub u64);

/// Seed of the hash: an arbitrary constant, the same in every Metrifold.
const SEED: (u64, u64) = (0x6d65_7472_6966_6f6c, 0x7265_706c_6963_6173);

/// Header in which Grafana names the dashboard.
const DASHBOARD: &str = "x-dashboard-uid";

impl Key {
    /// The key of a text; `kind` keeps the keys of different kinds apart.
    pub fn of(kind: &str, text: &[u8]) -> Self {
        let mut hasher = SipHasher13::new_with_keys(SEED.0, SEED.1);
        hasher.write(kind.as_bytes());
        hasher.write_u8(0);
        hasher.write(text);
        Self(hasher.finish())
    }

    /// The key of the query's dashboard. `None` without the header.
    pub(crate) fn dashboard(headers: &HeaderMap) -> Option<Self> {
        let uid = headers.get(DASHBOARD).map(HeaderValue::as_bytes)?;
        (!uid.is_empty()).then(|| Self::of("dashboard", uid))
    }

    /// Score of a replica for this key: the replica with the highest score owns the key. A replica
    /// of twice the weight owns twice the keys, and no key moves between replicas that stay.
    pub fn score(self, replica: &str, weight: u32) -> f64 {
        let mut hasher = SipHasher13::new_with_keys(SEED.0, self.0);
        hasher.write(replica.as_bytes());
        // Uniform between 0 and 1, both excluded.
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
